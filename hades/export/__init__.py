"""Policies outside of this library: for NumPy alone, as ONNX, or as parameters of Flax.

| format | files | needs to be played |
|---|---|---|
| `"numpy"` | a policy file, and the module `player.py` beside it (`hades.export.player`) | NumPy |
| `"onnx"` | a model; its input is `observation`, of any batch size | onnxruntime |
| `"flax"` | parameters as msgpack, and a JSON file of the module beside it | Flax |

Outputs are `action`, the mode of the action distribution within the bounds, and the parameters of the distribution:
`logits`, or `mean` and `log_std` (before tanh where actions are squashed). Observations are raw: normalisation is part
of what is exported.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np

from hades._files import refusing, write_atomically
from hades.export._flax import flax_export
from hades.export._numpy import numpy_export
from hades.export._onnx import onnx_export
from hades.export._outputs import Content, Difference, ExportError, largest_difference, typical_observations
from hades.multitask.merging import is_merged
from hades.policies import PolicySpaces, Spaces
from hades.policy_file import TrainedPolicy

__all__ = ["SUFFIXES", "TOLERANCE", "Difference", "ExportError", "ExportFormat", "Exported", "export_policy"]

ExportFormat: TypeAlias = Literal["numpy", "onnx", "flax"]
"""Name of a format."""

SUFFIXES: dict[ExportFormat, str] = {"numpy": ".npz", "onnx": ".onnx", "flax": ".msgpack"}
"""Usual end of a file's name, by format."""

TOLERANCE = 1e-5
"""Largest difference of an exported policy's outputs from ours, relative to those above 1 in magnitude."""

_EXPORTS: dict[ExportFormat, Callable[[TrainedPolicy, Path], Content]] = {
    "numpy": numpy_export,
    "onnx": onnx_export,
    "flax": flax_export,
}


@dataclass(frozen=True)
class Exported:
    """An export that was written.

    Attributes:
        files: Files, the one of the given name first.
        difference: Of its outputs from ours; None where nothing here plays the format.
    """

    files: tuple[Path, ...]
    difference: Difference | None


def export_policy(
    trained: TrainedPolicy,
    path: str | os.PathLike[str],
    format: ExportFormat,
    env: Spaces | None = None,
    observations: np.ndarray | None = None,
) -> Exported:
    """Writes a policy for use outside of this library, after playing what is written and comparing it with ours.

    Args:
        trained: Policy with metadata, whose architecture is one of `hades.policies.from_settings`.
        path: File; those beside it are named after it, or `player.py`.
        format: Name of the format.
        env: Environment, or anything with its spaces; None where the policy has them.
        observations: Raw observations `[count, *observation_shape]` that it is compared on; 256 normal ones of the
            policy's statistics if None.

    Raises:
        ExportError: The format cannot hold such a policy, needs a package that is missing, or outputs differ by more
            than `TOLERANCE`; nothing was written.
        OSError: A file cannot be written.

    Example:
        >>> import tempfile, envs, hades, jax
        >>> env = envs.make("diagnostic/match")
        >>> run = hades.recipes.ppo(env)
        >>> policy = run.describe(run.outcome(run.init(jax.random.key(0))), seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     exported = export_policy(policy, f"{folder}/policy.npz", "numpy")
        >>> [file.name for file in exported.files], exported.difference.scaled < 1e-5
        (['policy.npz', 'player.py'], True)
    """
    path = Path(path)
    with refusing(path, ExportError):
        if format not in get_args(ExportFormat):
            raise ValueError(f"format: expected one of {', '.join(get_args(ExportFormat))}, got {format!r}")
        if trained.metadata is not None and is_merged(trained.metadata):
            raise ValueError("expected a policy of a single task, got one of a merged dataset")
        cloning = None if trained.metadata is None else trained.metadata.cloning
        if cloning is not None and cloning.policy == "convnet" and format != "onnx":
            raise ValueError(f"expected mlp, residual_mlp or cnn for {format}, got convnet")
        if env is not None:
            trained = replace(trained, spaces=PolicySpaces.of(env))
        content = _EXPORTS[format](trained, path)
        difference = None
        if content.play is not None:
            drawn = typical_observations(trained) if observations is None else observations
            difference = largest_difference(trained, content.play, drawn)
            if not difference.scaled <= TOLERANCE:
                raise ValueError(f"expected outputs within {TOLERANCE} of ours, got {difference.scaled:.2g}")
    for file, data in reversed(content.files.items()):
        write_atomically(file, data)
    return Exported(tuple(content.files), difference)
