"""Policy files: the parameters of one trained policy, with all that playing it takes; an `.npz` without pickle."""

from __future__ import annotations

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hades import policies
from hades.metadata import DatasetMetadata, metadata_from_array, metadata_to_array
from hades.normalization import Normalizer, PolicyParams
from hades.npz import read_arrays, write_arrays
from hades.policies import NamedSpaces, Policy

_PREFIX = "params/"


class PolicyFileError(ValueError):
    """A policy file is not what the format says; the message is one sentence that says where and how."""


def save_policy(path: str | os.PathLike[str], params: PolicyParams, metadata: DatasetMetadata) -> None:
    """Writes a policy.

    Args:
        path: Where to write, under exactly this name.
        params: Parameters of a policy of `hades.policies`, and their normalisation.
        metadata: Of the dataset that it was cloned from, its `cloning` being what trained this policy.

    Raises:
        OSError: The file cannot be written; what was there before is untouched.
    """
    arrays = {"metadata": metadata_to_array(metadata)}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(params.network):
        arrays[_PREFIX + "/".join(str(key.key) for key in keys)] = np.asarray(leaf)
    if params.normalizer.kind == "fixed":
        arrays["observation_mean"] = np.asarray(params.normalizer.mean)
        arrays["observation_std"] = np.asarray(params.normalizer.std)
    write_arrays(path, arrays)


def is_policy_file(path: str | os.PathLike[str]) -> bool:
    """Whether there is an archive with parameters at `path`."""
    try:
        return any(name.startswith(_PREFIX) for name in read_arrays(path))
    except ValueError:
        return False


def load_policy_metadata(path: str | os.PathLike[str]) -> DatasetMetadata:
    """What a policy file says of itself.

    Raises:
        PolicyFileError: It is not a policy file.
    """
    return _read(path)[1]


def load_policy(path: str | os.PathLike[str], env: NamedSpaces) -> tuple[Policy, PolicyParams, DatasetMetadata]:
    """Reads a policy that is to play in `env`.

    Raises:
        PolicyFileError: It is not a policy file, or its parameters do not fit the spaces of `env`.
    """
    arrays, metadata = _read(path)
    policy = policies.from_settings(env, metadata.cloning)
    network: dict[str, Any] = {}
    for name in arrays:
        if name.startswith(_PREFIX):
            *folders, leaf = name.removeprefix(_PREFIX).split("/")
            place = network
            for folder in folders:
                place = place.setdefault(folder, {})
            place[leaf] = jnp.asarray(arrays[name])
    expected = jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(policy.init, jax.random.key(0)))
    found = jax.tree.map(lambda leaf: leaf.shape, network)
    if found != expected:
        raise PolicyFileError(f"{os.fspath(path)}: params: expected shapes {expected} for {env.name}, got {found}")
    kind = metadata.observation_normalization
    if kind != "fixed":
        return policy, PolicyParams(network, Normalizer(kind)), metadata
    for name in ("observation_mean", "observation_std"):
        if name not in arrays or arrays[name].shape != tuple(env.observation_shape):
            raise PolicyFileError(f"{os.fspath(path)}: {name}: expected an array of shape {env.observation_shape}")
    normalizer = Normalizer(kind, jnp.asarray(arrays["observation_mean"]), jnp.asarray(arrays["observation_std"]))
    return policy, PolicyParams(network, normalizer), metadata


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], DatasetMetadata]:
    try:
        arrays = read_arrays(path)
        if "metadata" not in arrays or not any(name.startswith(_PREFIX) for name in arrays):
            raise ValueError(f"expected metadata and params/..., got {', '.join(arrays) or 'no arrays'}")
        return arrays, metadata_from_array(arrays["metadata"])
    except ValueError as error:
        raise PolicyFileError(f"{os.fspath(path)}: {error}") from None
