"""The synthetic dataset: a pytree that inner and outer loops differentiate and vmap, and the file that holds it."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from flax.core import FrozenDict

from hades._version import __version__
from hades.normalization import Normalizer
from hades.npz import read_arrays, write_arrays
from hades.settings import ActionSelection, CloningSettings, Normalization, from_dict, require_positive, to_dict

FORMAT = 1
"""Version of the file format that this module writes and reads."""

_SIMULATORS = ("brax", "gymnax", "gymnasium")
_PROBABILITY_TOLERANCE = 1e-3


class DatasetError(ValueError):
    """A dataset or its file is not what the format says; the message is one sentence that says where and how."""


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
        """Refuses what no evaluation can have measured."""
        if not math.isfinite(self.mean):
            raise ValueError(f"mean: expected a finite number, got {self.mean}")
        if self.ci95 is not None and not -math.inf < self.ci95[0] <= self.ci95[1] < math.inf:
            raise ValueError(f"ci95: expected two finite numbers in ascending order, got {list(self.ci95)}")
        for name in ("num_inits", "num_episodes", "normalization_envs"):
            if getattr(self, name) is not None:
                require_positive(name, getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class DatasetMetadata:
    """Where a dataset comes from and how a policy is trained on it; hashable, so that it can be static under `jax.jit`.

    The defaults are for Python: a file holds every field. Only those of its cloning settings may be absent there.

    Attributes:
        env: Name of the environment, such as `"brax/hopper"`.
        max_episode_steps: Steps after which an episode is truncated.
        method: How it was distilled, free text such as `"hades-r"`.
        observation_normalization: How raw observations become those of the dataset.
        action_selection: Whether policies sample their actions or take the mode.
        cloning: The inner loop that it was distilled for.
        env_options: What else makes the environment; a mapping of JSON values, kept in an immutable form.
        init_seed: Seed of the one initialisation that it was distilled for (HaDES-F), or None when it serves any.
        evaluation: What fresh policies that were cloned from it return, or None while that is unknown.
        created_with: Version of each package that took part, see `package_versions`.
        source: Free text.
        seed: Seed of the run.
        format: Version of the file format.

    Raises:
        ValueError: `max_episode_steps` is not positive, or a seed does not fit into 64 bits.

    Example:
        >>> metadata = DatasetMetadata(
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
    cloning: CloningSettings
    env_options: Mapping[str, Any] = field(default_factory=FrozenDict)
    init_seed: int | None = None
    evaluation: EvaluationSummary | None = None
    created_with: Mapping[str, str] = field(default_factory=FrozenDict)
    source: str = ""
    seed: int = 0
    format: int = FORMAT

    def __post_init__(self) -> None:
        """Refuses numbers out of range, and makes the mappings immutable."""
        require_positive("max_episode_steps", self.max_episode_steps)
        for name in ("init_seed", "seed"):
            seed = getattr(self, name)
            if seed is not None and not -(2**63) <= seed < 2**63:
                raise ValueError(f"{name}: expected an integer of 64 bits, got {seed!r:.60}")
        object.__setattr__(self, "env_options", _freeze(self.env_options))
        object.__setattr__(self, "created_with", _freeze(self.created_with))


def package_versions(env: str) -> dict[str, str]:
    """Versions to write into a dataset file's `created_with`; scores are comparable only within one simulator version.

    Args:
        env: Name of the environment; the part before the slash says which simulator it runs in.

    Returns:
        The versions of hades, of jax, and of the simulator's package where it is an installed one.

    Example:
        >>> sorted(package_versions("gymnax/CartPole-v1"))
        ['gymnax', 'hades', 'jax']
    """
    versions = {"hades": __version__, "jax": jax.__version__}
    simulator = env.partition("/")[0]
    if simulator in _SIMULATORS:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[simulator] = importlib.metadata.version(simulator)
    return versions


@struct.dataclass
class SyntheticDataset:
    """A few state-action pairs that train a policy.

    A pytree, in which `jax.vmap` may put leading axes before the shapes below. Nothing is checked when one is made,
    only when it is saved or loaded. The metadata is static, hence part of the key under which `jax.jit` caches: two
    files of equal shapes compile twice, unless `without_metadata()` is passed instead.

    Attributes:
        observations: `[pairs, *observation_shape]` float32, in the space the policy sees, that is after normalisation.
        actions: `[pairs, action_dim]` float32, target actions of a continuous environment, otherwise None.
        action_probabilities: `[pairs, num_actions]` float32, target distributions of a discrete environment, whose rows
            sum to 1, otherwise None.
        observation_mean: `[*observation_shape]` float32 with fixed normalisation, otherwise None.
        observation_std: `[*observation_shape]` float32 with fixed normalisation, otherwise None.
        metadata: Where it comes from; needed for saving.

    Example:
        >>> import tempfile
        >>> metadata = DatasetMetadata(
        ...     env="gymnax/CartPole-v1", max_episode_steps=500, method="by hand", observation_normalization="none",
        ...     action_selection="mode", cloning=CloningSettings(loss="cross_entropy"))
        >>> dataset = SyntheticDataset(jnp.ones((2, 4)), action_probabilities=jnp.eye(2), metadata=metadata)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     dataset.save(f"{folder}/cartpole.npz")
        ...     loaded = SyntheticDataset.load(f"{folder}/cartpole.npz")
        >>> loaded.num_pairs, loaded.metadata == metadata
        (2, True)
    """

    observations: jax.Array
    actions: jax.Array | None = None
    action_probabilities: jax.Array | None = None
    observation_mean: jax.Array | None = None
    observation_std: jax.Array | None = None
    metadata: DatasetMetadata | None = struct.field(pytree_node=False, default=None)

    @property
    def num_pairs(self) -> int:
        """Number of state-action pairs, also where `jax.vmap` has added leading axes."""
        targets = self.action_probabilities if self.actions is None else self.actions
        if targets is None:
            raise ValueError("expected actions or action_probabilities, got neither")
        return targets.shape[-2]

    def without_metadata(self) -> SyntheticDataset:
        """The same arrays without metadata, so that one compiled function serves all datasets of these shapes."""
        return replace(self, metadata=None)

    def pairs(self) -> SyntheticDataset:
        """The state-action pairs alone, without statistics and metadata: every leaf has the leading axis `[pairs]`."""
        return SyntheticDataset(self.observations, self.actions, self.action_probabilities)

    def normalizer(self) -> Normalizer:
        """How raw observations become those of the dataset; read off the statistics where there is no metadata."""
        if self.metadata is not None:
            kind = self.metadata.observation_normalization
        else:
            kind = "none" if self.observation_mean is None else "fixed"
        return Normalizer(kind, self.observation_mean, self.observation_std)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes an `.npz` file that numpy alone can read; equal content gives equal bytes.

        What was at `path` is replaced at once when the new file is whole on disk, and is untouched if anything fails.

        Args:
            path: Where to write, under exactly this name.

        Raises:
            DatasetError: It is not what `load` would accept, for example because it has no metadata.
            OSError: The file cannot be written, for example because the disk is full.
        """
        present = {name: value for name, value in vars(self).items() if value is not None}
        try:
            if self.metadata is None:
                raise ValueError("metadata: expected a DatasetMetadata, got None")
            present["metadata"] = _to_json(self.metadata)
            arrays = {name: np.asarray(value) for name, value in present.items()}
            arrays, metadata = _check(arrays)
        except ValueError as error:
            _refuse(path, error)
        arrays["metadata"] = np.array(_to_json(metadata))
        write_arrays(path, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SyntheticDataset:
        """Reads a file that `save` wrote, or that follows the same format; never unpickles anything.

        Arrays of any floating type are taken and become float32; integers are refused, as they may stand for something
        else, such as the index of an action. Arrays and metadata keys that the format does not know are passed over.

        Args:
            path: The file.

        Returns:
            The dataset, with metadata.

        Raises:
            DatasetError: There is no such file, or it is not a whole and consistent dataset; one sentence that names
                the file, the key and what was expected.
        """
        try:
            arrays, metadata = _check(read_arrays(path))
        except ValueError as error:
            _refuse(path, error)
        del arrays["metadata"]
        return cls(**{name: jnp.asarray(array) for name, array in arrays.items()}, metadata=metadata)


def _refuse(path: str | os.PathLike[str], error: ValueError) -> NoReturn:
    raise DatasetError(f"{os.fspath(path)}: {error}".replace("\n", " ")) from None


def _freeze(value: Any) -> Any:
    """An immutable, hashable form of JSON values in which the order of keys plays no part."""
    if isinstance(value, Mapping):
        return FrozenDict({key: _freeze(value[key]) for key in sorted(value)})
    return tuple(_freeze(item) for item in value) if isinstance(value, (list, tuple)) else value


def _to_json(metadata: DatasetMetadata) -> str:
    data = to_dict(metadata)
    # Format 1 was first written without it.
    if data["cloning"]["batch_size"] is None:
        del data["cloning"]["batch_size"]
    try:
        return json.dumps(data, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata: expected values that JSON can hold ({error})") from None


def _check(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], DatasetMetadata]:
    """The one validator, for reading and writing, of what a file holds or is about to hold.

    Returns:
        The arrays of the format in one order and type, and the metadata, its loss filled in from the kind of actions.

    Raises:
        ValueError: Something is missing or not as the format says; `"key: what was expected"`.
    """
    for name in ("metadata", "observations"):
        if name not in arrays:
            raise ValueError(f"{name}: missing, expected in every dataset file, got {', '.join(arrays) or 'no arrays'}")
    metadata = _parse_metadata(arrays["metadata"])
    checked = {"metadata": arrays["metadata"], "observations": _numbers("observations", arrays["observations"])}
    observation_shape = checked["observations"].shape[1:]
    if not observation_shape:
        raise ValueError(f"observations: expected at least 2 axes, got shape {checked['observations'].shape}")
    checked |= _check_targets(arrays, len(checked["observations"]))
    metadata = replace(metadata, cloning=_check_loss(metadata.cloning, "actions" in checked))
    checked |= _check_statistics(arrays, observation_shape, metadata.observation_normalization)
    return checked, metadata


def _check_targets(arrays: Mapping[str, np.ndarray], num_pairs: int) -> dict[str, np.ndarray]:
    present = [name for name in ("actions", "action_probabilities") if name in arrays]
    if len(present) != 1:
        found = "both" if present else f"only {', '.join(arrays)}"
        raise ValueError(f"actions: expected exactly one of actions and action_probabilities, got {found}")
    name = present[0]
    targets = _numbers(name, arrays[name])
    if targets.ndim != 2:
        raise ValueError(f"{name}: expected 2 axes, got shape {targets.shape}")
    if len(targets) != num_pairs:
        raise ValueError(f"{name}: expected {num_pairs} rows as in observations, got {len(targets)}")
    if name == "action_probabilities":
        if targets.min() < 0:
            raise ValueError(f"{name}: expected no negative probability, got {targets.min()}")
        sums = targets.sum(axis=-1)
        worst = int(np.argmax(np.abs(sums - 1)))
        if abs(sums[worst] - 1) > _PROBABILITY_TOLERANCE:
            raise ValueError(f"{name}: expected rows that sum to 1, got {sums[worst]:.6g} in row {worst}")
    return {name: targets}


def _check_statistics(
    arrays: Mapping[str, np.ndarray], shape: tuple[int, ...], normalization: str
) -> dict[str, np.ndarray]:
    names = ("observation_mean", "observation_std")
    if normalization != "fixed":
        present = [name for name in names if name in arrays]
        if present:
            raise ValueError(f"{present[0]}: expected only with fixed normalisation, got {normalization} normalisation")
        return {}
    checked = {}
    for name in names:
        if name not in arrays:
            raise ValueError(f"{name}: missing, expected with fixed normalisation")
        checked[name] = _numbers(name, arrays[name])
        if checked[name].shape != shape:
            raise ValueError(f"{name}: expected shape {shape} as in observations, got {checked[name].shape}")
    if not checked["observation_std"].min() > 0:
        raise ValueError(f"observation_std: expected numbers above 0, got {checked['observation_std'].min()}")
    return checked


def _check_loss(cloning: CloningSettings, continuous: bool) -> CloningSettings:
    if cloning.loss is None:
        return replace(cloning, loss="gaussian_nll" if continuous else "cross_entropy")
    if continuous == (cloning.loss == "cross_entropy"):
        expected = "gaussian_nll or mse with actions" if continuous else "cross_entropy with action_probabilities"
        raise ValueError(f"metadata.cloning.loss: expected {expected}, got {cloning.loss}")
    return cloning


def _numbers(name: str, array: np.ndarray) -> np.ndarray:
    """The array as finite float32 in C order."""
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{name}: expected float32, got {array.dtype}")
    if array.size == 0:
        raise ValueError(f"{name}: expected at least one number along every axis, got shape {array.shape}")
    # What is too large for float32 becomes infinite, and is refused below.
    with np.errstate(over="ignore"):
        numbers = array.astype("<f4", order="C")
    finite = np.isfinite(numbers)
    if not finite.all():
        index = tuple(int(axis) for axis in np.argwhere(~finite)[0])
        raise ValueError(f"{name}: expected finite numbers of float32, got {array[index]} at {list(index)}")
    return numbers


def _parse_metadata(array: np.ndarray) -> DatasetMetadata:
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
        found = data.get("format", FORMAT)
        if type(found) is not int or found != FORMAT:
            raise ValueError(f"metadata.format: expected {FORMAT}, the one known format, got {found!r:.60}")
        for entry in fields(DatasetMetadata):
            if entry.name not in data:
                raise ValueError(f"metadata.{entry.name}: missing, expected in every dataset file")
    return from_dict(DatasetMetadata, data, where="metadata", ignore_unknown=True)
