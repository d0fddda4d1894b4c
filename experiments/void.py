"""Flags that another flag makes void: they are refused rather than passed over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from experiments.arguments import split_flag
from experiments.cli import BadArgumentsError
from hades.inner.cloning import CloningSettings
from hades.outer import MetaGradientSettings
from hades.recipes.offline import OfflineSettings

ENVIRONMENT_FLAGS = ("--backend", "--max-steps", "--env-module", "--observation-keys", "--env-options")
"""Flags of an environment's options."""
EVALUATION_FLAGS = ("--evaluation-inits", "--evaluation-episodes", "--keep-snapshots", "--target-return")
"""Flags of the evaluations of a run."""
# What reads a number of an optimiser.
_READERS = {"momentum": ("sgd",), "adam_eps": ("adam", "adamw"), "weight_decay": ("adamw",)}


def refuse_void(arguments: Sequence[str], void: Mapping[str, str]) -> None:
    """Refuses flags that would be without effect.

    Args:
        arguments: Arguments of a command.
        void: What makes a flag void, by flag; one that ends in a dot stands for all that begin with it.

    Raises:
        BadArgumentsError: There is such a flag.

    Example:
        >>> refuse_void(["--max-steps=3"], {"--max-steps": "beside --no-evaluation"})
        Traceback (most recent call last):
        ...
        experiments.cli.BadArgumentsError: --max-steps: expected none beside --no-evaluation
    """
    for argument in arguments:
        flag, _ = split_flag(argument)
        for name, reason in void.items():
            if flag == name or (name.endswith(".") and flag.startswith(name)):
                raise BadArgumentsError(f"{flag}: expected none {reason}")


def flags(names: Iterable[str], reason: str) -> dict[str, str]:
    """The same reason for several flags."""
    return dict.fromkeys(names, reason)


def optimizer_flags(prefix: str, settings: CloningSettings | MetaGradientSettings) -> dict[str, str]:
    """Flags that the optimiser of an inner or outer loop does not read; `prefix` is that of its flags."""
    return {
        f"--{prefix}.{name.replace('_', '-')}": f"beside --{prefix}.optimizer {settings.optimizer}"
        for name, readers in _READERS.items()
        if hasattr(settings, name) and settings.optimizer not in readers
    }


def density_flags(settings: OfflineSettings, weighs_states: bool) -> dict[str, str]:
    """Flags of the density that offline distillation does not read; `weighs_states` is whether an objective does."""
    if not weighs_states:
        return flags(("--density", "--density-exponent", "--flow."), "where the objective weighs no states")
    void = {} if settings.density == "flow" else {"--flow.": f"beside --density {settings.density}"}
    if settings.effective_sample_size is not None:
        void["--density-exponent"] = "beside --effective-sample-size"
    return void
