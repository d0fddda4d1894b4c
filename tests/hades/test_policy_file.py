"""The file of a policy: round trips, and what is refused."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from hades import policies
from hades._npz import read_arrays, write_arrays
from hades.inner.cloning import CloningSettings
from hades.metadata import FileMetadata
from hades.normalization import Normalizer, PolicyParams
from hades.policy_file import PolicyFileError, TrainedPolicy

CLONING = CloningSettings(hidden_sizes=(4,), loss="cross_entropy")


@pytest.fixture(scope="module")
def env():
    return envs.make("diagnostic/match")


@pytest.fixture
def policy(env):
    network = policies.from_settings(env, CLONING).init(jax.random.key(0))
    statistics = jnp.zeros(env.observation_shape), jnp.ones(env.observation_shape)
    metadata = FileMetadata(
        env=env.name,
        max_episode_steps=10,
        method="by hand",
        observation_normalization="fixed",
        action_selection="mode",
        cloning=CLONING,
    )
    return TrainedPolicy(PolicyParams(network, Normalizer("fixed", *statistics)), metadata)


def with_network(policy, change):
    return policy.replace(params=PolicyParams(jax.tree.map(change, policy.params.network), policy.params.normalizer))


def test_round_trip(tmp_path, env, policy):
    policy.save(tmp_path / "policy.npz")
    loaded = TrainedPolicy.load(tmp_path / "policy.npz")
    assert loaded.metadata == policy.metadata
    assert jax.tree.all(jax.tree.map(np.array_equal, loaded.params, policy.params))
    loaded.architecture(env)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nothing_that_is_not_finite_is_written(tmp_path, policy, value):
    path = tmp_path / "policy.npz"
    policy.save(path)
    before = path.read_bytes()
    bad_mean = policy.replace(
        params=policy.params.replace(normalizer=Normalizer("fixed", value * jnp.ones(3), jnp.ones(3)))
    )
    for bad in (with_network(policy, lambda leaf: leaf + value), bad_mean):
        with pytest.raises(PolicyFileError, match=r"policy.npz: .*: expected finite numbers of float32, got (nan|inf)"):
            bad.save(path)
    assert path.read_bytes() == before


def test_a_file_with_numbers_that_are_not_finite_is_refused(tmp_path, policy):
    path = tmp_path / "policy.npz"
    policy.save(path)
    arrays = read_arrays(path)
    name = next(name for name in arrays if name.startswith("params/"))
    write_arrays(path, arrays | {name: arrays[name] * np.nan})
    with pytest.raises(PolicyFileError, match=f"{name}: expected finite numbers"):
        TrainedPolicy.load(path)


def test_a_policy_without_metadata_is_not_written(tmp_path, policy):
    with pytest.raises(PolicyFileError, match="policy.npz: metadata: expected a FileMetadata, got None"):
        policy.replace(metadata=None).save(tmp_path / "policy.npz")


def test_a_network_that_no_settings_describe_is_kept_and_not_guessed_at(tmp_path, env, policy):
    by_hand = policy.replace(metadata=dataclasses.replace(policy.metadata, cloning=None))
    by_hand.save(tmp_path / "policy.npz")
    loaded = TrainedPolicy.load(tmp_path / "policy.npz")
    assert loaded.metadata.format == 2
    with pytest.raises(ValueError, match="^policy: expected cloning settings, got none"):
        loaded.architecture(env)


def test_parameters_of_another_architecture_are_refused(env, policy):
    other = dataclasses.replace(policy.metadata, cloning=dataclasses.replace(CLONING, hidden_sizes=(5,)))
    with pytest.raises(PolicyFileError, match="params: expected shapes .* for diagnostic/match"):
        policy.replace(metadata=other).architecture(env)
