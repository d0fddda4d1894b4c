"""`hades export`: a policy for use without JAX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from experiments.arguments import parse, print_json, with_folder
from experiments.cli import BadArgumentsError
from experiments.cloning import CloneSettings, clone_dataset
from experiments.environments import make_environment
from experiments.loading import architecture, file_beside, load_policy, outcome_file
from experiments.void import flags, refuse_void
from hades.export import SUFFIXES, ExportFormat, export_policy
from hades.offline.teacher import is_teacher_file
from hades.policies import PolicySpaces
from hades.policy_file import TrainedPolicy, is_policy_file


@dataclass(frozen=True, kw_only=True)
class ExportSettings(CloneSettings):
    """Writes a policy for use without JAX: NumPy alone, ONNX, or the parameters of a Flax module.

    On a dataset a policy is trained first, as hades train does. What is written is played and compared with the policy.
    """

    source: Annotated[Path, tyro.conf.Positional]
    """Policy file, run directory, dataset file, or zoo:NAME."""
    format: ExportFormat
    """numpy: an .npz, and a player.py beside it that needs NumPy alone; onnx: a model (needs the extra onnx); flax:
    parameters as msgpack, and the module as JSON beside them."""
    out: Path | None = None
    """File to write; default: beside the source, with the format in its name."""


def main(arguments: Sequence[str]) -> int:
    """Runs the verb and returns its exit code."""
    settings = parse(ExportSettings, "export", arguments)
    source = outcome_file(settings.source)
    if is_policy_file(source):
        refuse_void(arguments, flags(("--cloning.", "--seed"), "beside a policy, which is trained already"))
        trained = _load_with_spaces(source, settings.env)
    elif is_teacher_file(source):
        raise BadArgumentsError(f"{source}: expected a policy or a dataset, got a teacher")
    else:
        settings, clone = clone_dataset(ExportSettings, "export", arguments, settings, source)
        trained = clone.trained
        print(f"policy trained on {source} in {clone.seconds:.3f} s (compiled)")
    out = settings.out or file_beside(settings.source, f"_{settings.format}{SUFFIXES[settings.format]}")
    exported = export_policy(trained, with_folder(out), settings.format)
    print(f"written to {' and '.join(map(str, exported.files))}")
    difference = exported.difference
    if difference is not None:
        print(f"largest difference from the policy: {difference.absolute:.2g}")
    if settings.json:
        print_json(
            {
                "source": str(source),
                "format": settings.format,
                "files": [str(file) for file in exported.files],
                "largest_difference": difference and difference.absolute,
            }
        )
    return 0


def _load_with_spaces(source: Path, env: str | None) -> TrainedPolicy:
    """The policy of a file, with the spaces of an environment where it is named or the file has none."""
    trained, metadata = load_policy(source)
    if env is None and trained.spaces is not None:
        return trained
    spaces = make_environment(metadata, env, source)
    architecture(trained, spaces, source, env)
    return replace(trained, spaces=PolicySpaces.of(spaces))
