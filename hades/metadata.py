"""Metadata of files: their origin, the training of policies on them, and the returns of these."""

from __future__ import annotations

import importlib.metadata
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any

import jax
import numpy as np
from flax.core import FrozenDict

from hades._serialization import from_dict, to_dict
from hades._validation import require_positive, require_positive_fields
from hades._version import __version__
from hades.distributions import ActionSelection
from hades.inner.cloning import CloningSettings
from hades.normalization import Normalization

FORMATS = (1, 2)
"""Versions of the file format that this package reads; it writes the lowest that can say what a file has to say."""

_SIMULATORS = {
    "brax": ("brax",),
    "gymnasium": ("gymnasium",),
    "gymnax": ("gymnax",),
    "playground": ("playground", "mujoco-mjx"),
}


@dataclass(frozen=True)
class EvaluationSummary:
    """The return of fresh policies that were cloned from a dataset.

    Attributes:
        mean: Mean return over inits and episodes.
        ci95: Lower and upper end of the 95 % interval of the mean, or None where it was not computed.
        num_inits: Policies that were initialised and cloned.
        num_episodes: Episodes of each of them.
        normalization_envs: With running normalisation, the parallel environments that share statistics.

    Raises:
        ValueError: A count is not positive, a number is not finite, or the interval's ends are in the wrong order.
    """

    mean: float
    ci95: tuple[float, float] | None
    num_inits: int
    num_episodes: int
    normalization_envs: int | None = None

    def __post_init__(self) -> None:
        """Refuses counts that are not positive, non-finite numbers and intervals in the wrong order."""
        if not math.isfinite(self.mean):
            raise ValueError(f"mean: expected a finite number, got {self.mean}")
        if self.ci95 is not None and not -math.inf < self.ci95[0] <= self.ci95[1] < math.inf:
            raise ValueError(f"ci95: expected two finite numbers in ascending order, got {list(self.ci95)}")
        require_positive_fields(self, "num_inits", "num_episodes", "normalization_envs")


@dataclass(frozen=True, kw_only=True)
class FileMetadata:
    """Origin of a dataset and training of policies on it; hashable, so that it can be static under `jax.jit`.

    The defaults are for Python: a file holds every field. Only those of its cloning settings may be absent there.

    Attributes:
        env: Name of the environment, such as `"brax/hopper"`.
        max_episode_steps: Steps after which an episode is truncated.
        method: How it was distilled, free text such as `"hades-r"`.
        observation_normalization: How raw observations become those of the dataset.
        action_selection: Whether policies sample their actions or take the mode.
        cloning: The inner loop that it was distilled for, or None for one made by hand, which no settings describe.
        env_options: What else makes the environment; a mapping of JSON values, kept in an immutable form.
        init_seed: Seed of the one initialisation that it was distilled for (HaDES-F), or None when it serves any.
        evaluation: What fresh policies that were cloned from it return, or None while that is unknown.
        created_with: Version of each package that took part, see `package_versions`.
        source: Free text.
        seed: Seed of the run.
        format: Version of the file format that it needs, whatever is given: 2 where `cloning` is None or has learned
            step sizes, otherwise 1.

    Raises:
        ValueError: `max_episode_steps` is not positive, or a seed does not fit into 64 bits.

    Example:
        >>> metadata = FileMetadata(
        ...     env="brax/hopper", max_episode_steps=1000, method="hades-r", observation_normalization="none",
        ...     action_selection="mode", cloning=CloningSettings(), env_options={"backend": "spring"})
        >>> metadata.env_options["backend"]
        'spring'
        >>> hash(metadata) == hash(metadata)
        True
    """

    env: str
    max_episode_steps: int
    method: str
    observation_normalization: Normalization
    action_selection: ActionSelection
    cloning: CloningSettings | None
    env_options: Mapping[str, Any] = field(default_factory=FrozenDict)
    init_seed: int | None = None
    evaluation: EvaluationSummary | None = None
    created_with: Mapping[str, str] = field(default_factory=FrozenDict)
    source: str = ""
    seed: int = 0
    format: int = 1

    def __post_init__(self) -> None:
        """Refuses numbers out of range, and makes the mappings immutable."""
        require_positive("max_episode_steps", self.max_episode_steps)
        for name in ("init_seed", "seed"):
            seed = getattr(self, name)
            if seed is not None and not -(2**63) <= seed < 2**63:
                raise ValueError(f"{name}: expected an integer of 64 bits, got {seed!r:.60}")
        first = self.cloning is not None and self.cloning.step_sizes == "fixed"
        object.__setattr__(self, "format", 1 if first else 2)
        object.__setattr__(self, "env_options", _freeze(self.env_options))
        object.__setattr__(self, "created_with", _freeze(self.created_with))

    def require_cloning(self, where: str = "metadata") -> CloningSettings:
        """The cloning settings, for work that cannot do without.

        Args:
            where: What a refusal is about, such as the name of the file.

        Raises:
            ValueError: There are none.
        """
        if self.cloning is None:
            raise ValueError(
                f"{where}: expected cloning settings, got none, because it was made with an inner loop of the user's "
                "own; bring that inner loop, or one of another kind"
            )
        return self.cloning


def package_versions(env: str) -> dict[str, str]:
    """Versions to write into a dataset file's `created_with`; scores are comparable only within one simulator version.

    Args:
        env: Name of the environment; the part before the slash says which simulator it runs in.

    Returns:
        The versions of hades, of jax, and of the simulator's packages where they are installed.

    Example:
        >>> sorted(package_versions("gymnax/CartPole-v1"))
        ['gymnax', 'hades', 'jax']
    """
    versions = {"hades": __version__, "jax": jax.__version__}
    for package in _SIMULATORS.get(env.partition("/")[0], ()):
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _freeze(value: Any) -> Any:
    """An immutable, hashable form of JSON values in which the order of keys plays no part."""
    if isinstance(value, Mapping):
        return FrozenDict({key: _freeze(value[key]) for key in sorted(value)})
    return tuple(_freeze(item) for item in value) if isinstance(value, (list, tuple)) else value


def metadata_to_array(metadata: FileMetadata, least_format: int = 1) -> np.ndarray:
    """Metadata as the 0-d text array that stands in a file.

    Args:
        metadata: Metadata.
        least_format: Version of the file format that the arrays beside it need.

    Raises:
        ValueError: A value cannot be written as JSON.
    """
    data = to_dict(metadata)
    data["format"] = max(data["format"], least_format)
    # Format 1 was first written without them.
    later = {
        "batch_size": None,
        "action_distribution": "gaussian",
        "weight_decay": 1e-4,
        "step_sizes": "fixed",
        "head_gain": 0.01,
        "initial_log_std": 0.0,
    }
    for name, default in later.items():
        if data["cloning"] is not None and data["cloning"][name] == default:
            del data["cloning"][name]
    try:
        return np.array(json.dumps(data, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata: expected values that JSON can hold ({error})") from None


def metadata_from_array(array: np.ndarray) -> FileMetadata:
    """Reads and checks the array `metadata` of a file.

    Raises:
        ValueError: It is not JSON text, of another format, or a key is missing or wrong; the message names the key.
    """
    if array.dtype.kind != "U" or array.ndim != 0:
        raise ValueError(f"metadata: expected 0-d text, got {array.dtype} of shape {array.shape}")
    try:
        data = json.loads(str(array))
        # Reading takes NaN and numbers that overflow to infinity, writing refuses them.
        json.dumps(data, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"metadata: expected a JSON object, got text that is not JSON ({error})") from None
    if isinstance(data, dict):
        # The format comes first: under another one, other keys may be right.
        found = data.get("format", 1)
        if type(found) is not int or found not in FORMATS:
            raise ValueError(f"metadata.format: expected {' or '.join(map(str, FORMATS))}, got {found!r:.60}")
        for entry in fields(FileMetadata):
            if entry.name not in data:
                raise ValueError(f"metadata.{entry.name}: missing, expected in every dataset file")
        if found == 1 and data["cloning"] is None:
            raise ValueError("metadata.cloning: expected an object in a file of format 1, got None")
    return from_dict(FileMetadata, data, where="metadata", ignore_unknown=True)
