"""Policy files: parameters of one trained policy with its normalisation and metadata; an `.npz` without pickle."""

from __future__ import annotations

import os
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from flax.traverse_util import unflatten_dict

from hades import policies
from hades._files import refusing
from hades._npz import read_arrays, write_arrays
from hades._validation import require_finite
from hades.metadata import FileMetadata, metadata_from_array, metadata_to_array
from hades.normalization import Normalizer, PolicyParams
from hades.policies import NamedSpaces, Policy

_PREFIX = "params/"
_STATISTICS = ("observation_mean", "observation_std")


class PolicyFileError(ValueError):
    """Error of a policy file that does not follow the format: one sentence with file, key and expectation."""


@struct.dataclass
class TrainedPolicy:
    """One trained policy with its normalisation and metadata.

    Attributes:
        params: Parameters of a policy of `hades.policies`, and their normalisation.
        metadata: Where it comes from, `cloning` being its architecture and, where it was cloned, how; None until it is
            known.
    """

    params: PolicyParams
    metadata: FileMetadata | None = struct.field(pytree_node=False, default=None)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the policy under exactly this name.

        Raises:
            OSError: The file cannot be written; what was there before is untouched.
            PolicyFileError: There is no metadata, or a parameter is not finite.
        """
        with refusing(path, PolicyFileError):
            if self.metadata is None:
                raise ValueError("metadata: expected a FileMetadata, got None")
            arrays = {"metadata": metadata_to_array(self.metadata)}
            for keys, leaf in jax.tree_util.tree_leaves_with_path(self.params.network):
                arrays[_PREFIX + jax.tree_util.keystr(keys, simple=True, separator="/")] = np.asarray(leaf)
            if self.params.normalizer.kind == "fixed":
                arrays["observation_mean"] = np.asarray(self.params.normalizer.mean)
                arrays["observation_std"] = np.asarray(self.params.normalizer.std)
            _require_finite(arrays)
        write_arrays(path, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TrainedPolicy:
        """Reads a policy.

        Raises:
            PolicyFileError: It is not a policy file, or a parameter is not finite.
        """
        with refusing(path, PolicyFileError):
            arrays = read_arrays(path)
            if "metadata" not in arrays or not any(name.startswith(_PREFIX) for name in arrays):
                raise ValueError(f"expected metadata and params/..., got {', '.join(arrays) or 'no arrays'}")
            metadata = metadata_from_array(arrays["metadata"])
            _require_finite(arrays)
            kind = metadata.observation_normalization
            for name in _STATISTICS:
                if kind == "fixed" and name not in arrays:
                    raise ValueError(f"{name}: missing, expected with fixed normalisation")
        params = {name.removeprefix(_PREFIX): jnp.asarray(arrays[name]) for name in arrays if name.startswith(_PREFIX)}
        mean, std = (jnp.asarray(arrays[name]) if kind == "fixed" else None for name in _STATISTICS)
        return cls(PolicyParams(unflatten_dict(params, sep="/"), Normalizer(kind, mean, std)), metadata)

    def architecture(self, env: NamedSpaces) -> Policy:
        """The policy that these are parameters of, for the spaces of `env`.

        Raises:
            PolicyFileError: Parameters or statistics do not fit those spaces.
            ValueError: There is no metadata, or it does not describe the network.
        """
        if self.metadata is None:
            raise ValueError("policy: expected metadata, as a loaded policy has")
        policy = policies.from_settings(env, self.metadata.require_cloning("policy"))
        expected = jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(policy.init, jax.random.key(0)))
        found = jax.tree.map(lambda leaf: leaf.shape, self.params.network)
        if found != expected:
            raise PolicyFileError(f"params: expected shapes {expected} for {env.name}, got {found}")
        for name in ("mean", "std"):
            statistics = getattr(self.params.normalizer, name)
            if statistics is not None and statistics.shape != tuple(env.observation_shape):
                shapes = f"expected an array of shape {env.observation_shape}, got {statistics.shape}"
                raise PolicyFileError(f"observation_{name}: {shapes}")
        return policy


def is_policy_file(path: str | os.PathLike[str]) -> bool:
    """Whether there is an archive with parameters at `path`."""
    try:
        return any(name.startswith(_PREFIX) for name in read_arrays(path))
    except ValueError:
        return False


def _require_finite(arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        # Not np.issubdtype, to which bfloat16 is no float.
        if jnp.issubdtype(array.dtype, jnp.inexact):
            require_finite(name, array)
