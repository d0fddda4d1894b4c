"""The synthetic dataset: a pytree that inner and outer loops differentiate and vmap, and the file that holds it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hades._files import refusing
from hades._npz import read_arrays, write_arrays
from hades._validation import require_finite
from hades.inner.cloning import CloningSettings
from hades.metadata import FileMetadata, metadata_from_array, metadata_to_array
from hades.normalization import Normalization, Normalizer

_PROBABILITY_TOLERANCE = 1e-3


class DatasetError(ValueError):
    """Error of a dataset or file that does not follow the format: one sentence with file, key and expectation."""


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
        step_sizes: `[steps]` float32, learned step sizes of an inner loop of as many steps, otherwise None.
        log_std: `[action_dim]` float32, learned log standard deviation that training of a policy begins with, otherwise
            None.

    Example:
        >>> import tempfile
        >>> metadata = FileMetadata(
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
    metadata: FileMetadata | None = struct.field(pytree_node=False, default=None)
    step_sizes: jax.Array | None = None
    log_std: jax.Array | None = None

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

    def without_statistics(self) -> SyntheticDataset:
        """The arrays that training sees, without statistics of observations and metadata."""
        return replace(self, observation_mean=None, observation_std=None, metadata=None)

    def normalizer(self, bare: Normalization = "none") -> Normalizer:
        """Normalisation of raw observations, read off the statistics where there is no metadata.

        Args:
            bare: Its kind where there are no statistics either, which a run knows and its outcome does not hold.
        """
        if self.metadata is not None:
            kind = self.metadata.observation_normalization
        else:
            kind = bare if self.observation_mean is None else "fixed"
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
        with refusing(path, DatasetError):
            if self.metadata is None:
                raise ValueError("metadata: expected a FileMetadata, got None")
            present["metadata"] = metadata_to_array(self.metadata)
            arrays, metadata = _check({name: np.asarray(value) for name, value in present.items()})
            arrays["metadata"] = metadata_to_array(metadata, 2 if "log_std" in arrays else 1)
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
        with refusing(path, DatasetError):
            arrays, metadata = _check(read_arrays(path))
        del arrays["metadata"]
        return cls(**{name: jnp.asarray(array) for name, array in arrays.items()}, metadata=metadata)


def _check(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], FileMetadata]:
    """Validates the content of a file, on reading and before writing.

    Returns:
        The arrays of the format in one order and type, and the metadata, its loss filled in from the kind of actions.

    Raises:
        ValueError: Something is missing or not as the format says; `"key: what was expected"`.
    """
    for name in ("metadata", "observations"):
        if name not in arrays:
            raise ValueError(f"{name}: missing, expected in every dataset file, got {', '.join(arrays) or 'no arrays'}")
    metadata = metadata_from_array(arrays["metadata"])
    checked = {"metadata": arrays["metadata"], "observations": _numbers("observations", arrays["observations"])}
    observation_shape = checked["observations"].shape[1:]
    if not observation_shape:
        raise ValueError(f"observations: expected at least 2 axes, got shape {checked['observations'].shape}")
    checked |= _check_targets(arrays, len(checked["observations"]))
    metadata = replace(metadata, cloning=_check_loss(metadata.cloning, "actions" in checked))
    checked |= _check_statistics(arrays, observation_shape, metadata.observation_normalization)
    checked |= _check_learned(arrays, checked, metadata.cloning)
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


def _check_learned(
    arrays: Mapping[str, np.ndarray], checked: Mapping[str, np.ndarray], cloning: CloningSettings | None
) -> dict[str, np.ndarray]:
    """Step sizes and log standard deviation, where the file has them."""
    learned = {name: _numbers(name, arrays[name]) for name in ("step_sizes", "log_std") if name in arrays}
    if cloning is not None and (cloning.step_sizes == "learned") != ("step_sizes" in learned):
        state = "present" if "step_sizes" in learned else "missing"
        raise ValueError(f"step_sizes: {state}, but metadata.cloning.step_sizes says {cloning.step_sizes}")
    expected = {}
    if "step_sizes" in learned:
        expected["step_sizes"] = learned["step_sizes"].shape[:1] if cloning is None else (cloning.num_steps,)
    if "log_std" in learned:
        if "actions" not in checked:
            raise ValueError("log_std: expected only with actions, got action_probabilities")
        expected["log_std"] = checked["actions"].shape[1:]
    for name, shape in expected.items():
        if learned[name].shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {learned[name].shape}")
    return learned


def _check_loss(cloning: CloningSettings | None, continuous: bool) -> CloningSettings | None:
    if cloning is None:
        return None
    if cloning.loss is None:
        return replace(cloning, loss="gaussian_nll" if continuous else "cross_entropy")
    if continuous == (cloning.loss == "cross_entropy"):
        expected = (
            "gaussian_nll, mse or sampled_mse with actions" if continuous else "cross_entropy with action_probabilities"
        )
        raise ValueError(f"metadata.cloning.loss: expected {expected}, got {cloning.loss}")
    return cloning


def _numbers(name: str, array: np.ndarray) -> np.ndarray:
    """The array as finite float32 in C order."""
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{name}: expected float32, got {array.dtype}")
    if array.size == 0:
        raise ValueError(f"{name}: expected at least one number along every axis, got shape {array.shape}")
    # What is too large for float32 becomes infinite, and is refused.
    with np.errstate(over="ignore"):
        numbers = array.astype("<f4", order="C")
    require_finite(name, numbers, array)
    return numbers
