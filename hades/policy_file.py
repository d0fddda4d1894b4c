"""Policy files: parameters of one trained policy with its normalisation and metadata; an `.npz` without pickle.

| key | shape, dtype | meaning |
|---|---|---|
| `params/...` | float32 | parameters, by their place in the network, such as `params/torso/Dense_0/kernel` |
| `observation_mean`, `observation_std` | observation_shape float32 | only with fixed normalisation |
| `spaces` | 0-d str | JSON: `observation_shape`, and `action_space` with `num_actions` or bounds; may be absent |
| `metadata` | 0-d str | JSON, as in dataset files; its `cloning` is the architecture |
"""

from __future__ import annotations

import json
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
from hades._serialization import from_dict, to_dict
from hades._validation import require_finite
from hades.metadata import FileMetadata, metadata_from_array, metadata_to_array
from hades.normalization import Normalizer, PolicyParams
from hades.policies import NamedSpaces, Policy, PolicySpaces

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
        spaces: Of the environment that it was trained for; None in files of version 0.2 and before.
    """

    params: PolicyParams
    metadata: FileMetadata | None = struct.field(pytree_node=False, default=None)
    spaces: PolicySpaces | None = struct.field(pytree_node=False, default=None)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the policy under exactly this name.

        Raises:
            OSError: The file cannot be written; what was there before is untouched.
            PolicyFileError: There is no metadata, or a parameter is not finite.
        """
        with refusing(path, PolicyFileError):
            arrays = self.arrays()
        write_arrays(path, arrays)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of its file, by key.

        Raises:
            ValueError: There is no metadata, or a parameter is not finite.
        """
        if self.metadata is None:
            raise ValueError("metadata: expected a FileMetadata, got None")
        arrays = {"metadata": metadata_to_array(self.metadata)}
        if self.spaces is not None:
            arrays["spaces"] = np.array(json.dumps(to_dict(self.spaces)))
        for keys, leaf in jax.tree_util.tree_leaves_with_path(self.params.network):
            arrays[_PREFIX + jax.tree_util.keystr(keys, simple=True, separator="/")] = np.asarray(leaf)
        if self.params.normalizer.kind == "fixed":
            arrays["observation_mean"] = np.asarray(self.params.normalizer.mean)
            arrays["observation_std"] = np.asarray(self.params.normalizer.std)
        _require_finite(arrays)
        return arrays

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
            spaces = _spaces_from_array(arrays["spaces"]) if "spaces" in arrays else None
            _require_finite(arrays)
            kind = metadata.observation_normalization
            for name in _STATISTICS:
                if kind == "fixed" and name not in arrays:
                    raise ValueError(f"{name}: missing, expected with fixed normalisation")
        params = {name.removeprefix(_PREFIX): jnp.asarray(arrays[name]) for name in arrays if name.startswith(_PREFIX)}
        mean, std = (jnp.asarray(arrays[name]) if kind == "fixed" else None for name in _STATISTICS)
        return cls(PolicyParams(unflatten_dict(params, sep="/"), Normalizer(kind, mean, std)), metadata, spaces)

    def require_spaces(self) -> PolicySpaces:
        """The spaces, for work that cannot do without.

        Raises:
            PolicyFileError: The file has none.
        """
        if self.spaces is None:
            raise PolicyFileError("spaces: missing, expected the environment of the policy beside its file")
        return self.spaces

    def architecture(self, env: NamedSpaces | None = None) -> Policy:
        """The policy that these are parameters of.

        Args:
            env: An environment, or anything with its spaces and name; None for the spaces of the file.

        Raises:
            PolicyFileError: Parameters or statistics do not fit those spaces, or there are none.
            ValueError: There is no metadata, or it does not describe the network.
        """
        if self.metadata is None:
            raise ValueError("policy: expected metadata, as a loaded policy has")
        spaces, name = (self.require_spaces(), self.metadata.env) if env is None else (PolicySpaces.of(env), env.name)
        policy = policies.from_settings(spaces, self.metadata.require_cloning("policy"))
        expected = jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(policy.init, jax.random.key(0)))
        found = jax.tree.map(lambda leaf: leaf.shape, self.params.network)
        if found != expected:
            raise PolicyFileError(f"params: expected shapes {expected} for {name}, got {found}")
        for side in ("mean", "std"):
            statistics = getattr(self.params.normalizer, side)
            if statistics is not None and statistics.shape != spaces.observation_shape:
                shapes = f"expected an array of shape {spaces.observation_shape}, got {statistics.shape}"
                raise PolicyFileError(f"observation_{side}: {shapes}")
        return policy


def is_policy_file(path: str | os.PathLike[str]) -> bool:
    """Whether there is an archive with parameters at `path`."""
    try:
        return any(name.startswith(_PREFIX) for name in read_arrays(path))
    except ValueError:
        return False


def _spaces_from_array(array: np.ndarray) -> PolicySpaces:
    try:
        data = json.loads(str(array))
    except ValueError:
        raise ValueError(f"spaces: expected a JSON object, got {str(array)!r:.60}") from None
    return from_dict(PolicySpaces, data, where="spaces", ignore_unknown=True)


def _require_finite(arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        # Not np.issubdtype, to which bfloat16 is no float.
        if jnp.issubdtype(array.dtype, jnp.inexact):
            require_finite(name, array)
