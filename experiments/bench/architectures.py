"""`hades bench architectures`: what policies of other architectures and optimisers learn from one dataset file."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from experiments import tables
from experiments.arguments import parse
from experiments.bench._lib.results import deliver, provenance
from experiments.bench._lib.variants import (
    ADAM_LEARNING_RATE,
    OWN,
    SGD_LEARNING_RATE,
    SGD_MOMENTUM,
    describe,
    references,
    threshold_return,
)
from experiments.cli import BadArgumentsError
from experiments.environments import make_environment
from experiments.loading import load_dataset
from experiments.settings import EvaluationSettings
from hades._validation import require_positive
from hades.dataset import SyntheticDataset
from hades.evaluation import Evaluation, dataset_evaluator
from hades.inner import cloning
from hades.inner.cloning import CloningSettings
from hades.metadata import FileMetadata
from hades.policies import Activation
from hades.types import AnyEnvironment

HIDDEN_SIZES: tuple[tuple[int, ...], ...] = ((32,), (64, 64), (128, 128, 128))
ACTIVATIONS: tuple[Activation, ...] = ("relu", "tanh")
_HEADER = ("policy", "mean return", "95 % t interval", "inits x episodes", "reaches")


@dataclass(frozen=True, kw_only=True)
class ArchitecturesSettings(EvaluationSettings):
    """Trains policies of twelve architectures and optimisers on a dataset file, and scores each on fresh keys.

    One, two and three hidden layers of 32, 64 and 128 units, with relu and tanh, trained by Adam and by SGD with
    momentum. Beside them stand the file's own architecture, and what it returns on zeros and untrained.
    """

    file: Annotated[Path, tyro.conf.Positional]
    """Dataset file, or run directory."""
    env: str | None = None
    """Environment to play in; none is the one that the file names."""
    num_inits: int = 8
    """Fresh policies of each architecture."""
    num_steps: int | None = None
    """Steps of cloning; none is as many as the file says."""
    adam_learning_rate: float | None = None
    """Step size of Adam; none is that of the file, or 0.005 where the file is for SGD."""
    sgd_learning_rate: float = SGD_LEARNING_RATE
    """Step size of SGD."""
    sgd_momentum: float = SGD_MOMENTUM
    """Momentum of SGD."""
    threshold: float = 0.9
    """Fraction of the return of the file's own architecture that a policy is to reach."""
    out: Path | None = None
    """Where to write the JSON object; none writes nothing."""

    def __post_init__(self) -> None:
        """Refuses counts and rates that are not positive."""
        super().__post_init__()
        for name in ("num_inits", "num_steps", "adam_learning_rate", "sgd_learning_rate", "threshold"):
            if getattr(self, name) is not None:
                require_positive(name, getattr(self, name))
        if not 0 <= self.sgd_momentum < 1:
            raise ValueError(f"sgd_momentum: expected a number in [0, 1), got {self.sgd_momentum}")


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark and returns its exit code."""
    settings = parse(ArchitecturesSettings, "bench architectures", arguments)
    source, dataset, metadata = load_dataset(settings.file)
    env = make_environment(metadata, settings.env)
    scores = _references(settings, env, dataset)
    threshold = threshold_return(scores[OWN].mean, settings.threshold)
    rows = []
    for cloned in combinations(metadata, settings):
        print(f"training {describe(cloned)} ...", file=sys.stderr, flush=True)
        rows.append((cloned, _evaluate(settings, env, dataset, cloned)))
    result = provenance("architectures", arguments)
    result |= {"file": str(source), "env": env.name, "threshold": settings.threshold, "threshold_return": threshold}
    result["references"] = {name: tables.summary(value) for name, value in scores.items()}
    result["combinations"] = [_entry(cloned, value, threshold) for cloned, value in rows]
    result["num_reaching"] = sum(entry["reaches"] for entry in result["combinations"])
    print(_render(env.name, scores, rows, threshold))
    reaching = f"{result['num_reaching']} of {len(rows)} return at least {threshold:.4g}"
    print(f"{reaching}, {settings.threshold:g} of the file's own; {shlex.join(result['command'])}")
    deliver(result, settings.out, settings.json)
    return 0


def combinations(metadata: FileMetadata, settings: ArchitecturesSettings) -> Iterator[CloningSettings]:
    """The twelve inner loops; what they do not say is as in the file."""
    own = metadata.require_cloning()
    adam_rate = settings.adam_learning_rate or (ADAM_LEARNING_RATE if own.optimizer == "sgd" else own.learning_rate)
    adam = dataclasses.replace(own, optimizer="adam", learning_rate=adam_rate, momentum=0.0)
    sgd = dataclasses.replace(
        own, optimizer="sgd", learning_rate=settings.sgd_learning_rate, momentum=settings.sgd_momentum
    )
    for optimizer in (adam, sgd):
        for hidden_sizes in HIDDEN_SIZES:
            for activation in ACTIVATIONS:
                yield dataclasses.replace(
                    optimizer,
                    policy="mlp",
                    hidden_sizes=hidden_sizes,
                    activation=activation,
                    num_steps=settings.num_steps or own.num_steps,
                )


def _references(
    settings: ArchitecturesSettings, env: AnyEnvironment, dataset: SyntheticDataset
) -> dict[str, Evaluation]:
    try:
        evaluator = dataset_evaluator(env, dataset, settings.num_inits, settings.num_episodes)
    except ValueError as error:
        raise BadArgumentsError(str(error)) from None
    return references(jax.random.key(settings.seed), evaluator, dataset)


def _evaluate(
    settings: ArchitecturesSettings, env: AnyEnvironment, dataset: SyntheticDataset, cloned: CloningSettings
) -> Evaluation:
    clone = cloning.from_settings(env, cloned)
    evaluator = dataset_evaluator(env, dataset, settings.num_inits, settings.num_episodes, clone)
    return evaluator(jax.random.key(settings.seed), dataset)


def _entry(cloned: CloningSettings, evaluation: Evaluation, threshold: float) -> dict[str, Any]:
    return {
        "name": describe(cloned),
        "hidden_sizes": list(cloned.hidden_sizes),
        "activation": cloned.activation,
        "optimizer": cloned.optimizer,
        "learning_rate": cloned.learning_rate,
        "momentum": cloned.momentum,
        "num_steps": cloned.num_steps,
        "reaches": evaluation.mean >= threshold,
        **tables.summary(evaluation),
    }


def _render(
    env_name: str,
    scores: dict[str, Evaluation],
    rows: Sequence[tuple[CloningSettings, Evaluation]],
    threshold: float,
) -> str:
    named = [*scores.items(), *((describe(cloned), evaluation) for cloned, evaluation in rows)]
    cells = [
        (
            name,
            f"{evaluation.mean:.4g}",
            tables.interval(evaluation.ci95),
            f"{evaluation.num_inits} x {evaluation.num_episodes}",
            "" if name in scores else ("yes" if evaluation.mean >= threshold else "no"),
        )
        for name, evaluation in named
    ]
    return tables.table(f"other architectures, {env_name}", _HEADER, cells)
