"""Transitions: trajectories, returns, statistics, and taking and joining."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.diagnostic import Match
from hades.offline.transitions import OfflineDataError, Transitions
from hades.types import Continuous
from tests.hades.offline.malformed_hdf5 import KEYS, valid_arrays


def make_transitions(env: str | None = None) -> Transitions:
    return Transitions.from_arrays(valid_arrays(), env)


def test_trajectories_end_by_terminal_timeout_and_with_the_data() -> None:
    transitions = make_transitions()
    trajectories = transitions.trajectories()
    assert trajectories.starts.tolist() == [0, 3, 7]
    assert trajectories.ends.tolist() == [3, 7, 9]
    assert trajectories.lengths.tolist() == [3, 4, 2]
    assert transitions.trajectory_returns().tolist() == [1 + 2 + 4, 8 + 16 + 32 + 64, 128 + 256]


def test_an_end_at_the_last_transition_starts_no_empty_trajectory() -> None:
    transitions = dataclasses.replace(make_transitions(), terminals=jnp.arange(9) == 8, timeouts=jnp.arange(9) == 8)
    assert transitions.trajectories().ends.tolist() == [9]
    assert transitions.trajectory_returns().tolist() == [511]


def test_no_transitions_have_no_trajectories() -> None:
    nothing = make_transitions().take(jnp.arange(0))
    assert nothing.trajectories().ends.shape == (0,)
    assert nothing.trajectory_returns().shape == (0,)
    with pytest.raises(ValueError, match="at least one, got none"):
        nothing.statistics()


def test_returns_keep_their_digits_behind_large_ones() -> None:
    """Differences of a running sum in float32 would be off by up to 64 here."""
    rewards = np.where(np.arange(2000) < 1000, 1e6, 0.1).astype(np.float32)
    arrays = {name: np.zeros((2000, 1), np.float32) for name in ("observations", "actions", "next_observations")}
    arrays |= {"rewards": rewards, "terminals": np.arange(2000) % 100 == 99, "timeouts": np.zeros(2000, bool)}
    returns = Transitions.from_arrays(arrays).trajectory_returns()
    np.testing.assert_allclose(returns, np.repeat([1e8, 10.0], 10), rtol=1e-5)


def test_statistics_z_score() -> None:
    arrays = valid_arrays()
    arrays["observations"] = np.float32([[1, 100], [3, 100], [5, 100], [3, 100]])
    for name in ("actions", "rewards", "terminals", "timeouts", "next_observations"):
        arrays[name] = arrays[name][:4] if name != "next_observations" else arrays["observations"]
    transitions = Transitions.from_arrays(arrays)
    normalizer = transitions.statistics(min_std=0.5)
    assert normalizer.kind == "fixed"
    assert normalizer.mean.tolist() == [3, 100]
    # Of the population: the variance of 1, 3, 5, 3 is (4 + 0 + 4 + 0) / 4.
    np.testing.assert_allclose(normalizer.std, [np.sqrt(2) + 0.5, 0.5], rtol=1e-7)
    np.testing.assert_array_equal(normalizer.apply(transitions.observations)[:, 1], np.zeros(4))


@pytest.mark.parametrize("value", [0.0, 0.1, -1e4, 3e7])
def test_constant_components_become_zero_and_no_gain_is_above_the_inverse(value: float) -> None:
    observations = np.random.default_rng(0).normal(size=(5000, 3)).astype(np.float32)
    observations[:, 1] = value
    observations[:, 2] *= 1e-6
    zeros = np.zeros(5000, np.float32)
    transitions = Transitions.from_arrays(
        {
            "observations": observations, "actions": zeros[:, None], "rewards": zeros,
            "next_observations": observations, "terminals": zeros > 0, "timeouts": zeros > 0,
        }
    )  # fmt: skip
    normalizer = transitions.statistics()
    assert normalizer.std is not None
    assert (1 / np.asarray(normalizer.std, np.float64)).max() <= 1000 * (1 + 1e-6)
    normalized = np.asarray(normalizer.apply(transitions.observations))
    np.testing.assert_array_equal(normalized[:, 1], 0)
    assert normalized[:, 0].std() == pytest.approx(1, abs=2e-3)
    assert abs(normalized[:, 2]).max() < 0.01


def test_statistics_are_exact_to_float32_far_from_zero() -> None:
    observations = (1e4 + np.random.default_rng(0).normal(size=(100_000, 1))).astype(np.float32)
    transitions = dataclasses.replace(make_transitions(), observations=observations, rewards=np.zeros(100_000))
    normalizer = transitions.statistics()
    exact = observations.astype(np.float64)
    np.testing.assert_allclose(normalizer.mean, exact.mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose(normalizer.std, exact.std(axis=0) + 1e-3, rtol=1e-6)


@pytest.mark.parametrize("min_std", [0.0, -1.0, np.nan])
def test_statistics_refuse_a_smallest_std_that_is_not_positive(min_std: float) -> None:
    with pytest.raises(ValueError, match="min_std: expected a number above 0"):
        make_transitions().statistics(min_std)


def test_take_within_jit_and_vmap() -> None:
    transitions = make_transitions("gymnasium/Hopper-v4")
    indices = jnp.array([[8, 0], [3, 3]])
    taken = jax.jit(jax.vmap(Transitions.take, in_axes=(None, 0)))(transitions, indices)
    assert taken.env == "gymnasium/Hopper-v4"
    for name in KEYS:
        np.testing.assert_array_equal(getattr(taken, name), np.asarray(getattr(transitions, name))[indices])


def test_random_subset_has_no_transition_twice() -> None:
    transitions = make_transitions()
    drawn = [transitions.random_subset(jax.random.key(seed), 5) for seed in range(4)]
    for subset in drawn:
        # Powers of two: the reward says which transition it is.
        indices = np.log2(np.asarray(subset.rewards)).astype(int)
        assert len(set(indices)) == 5
        np.testing.assert_array_equal(subset.observations, transitions.observations[indices])
    assert len({tuple(subset.rewards.tolist()) for subset in drawn}) > 1
    assert sorted(transitions.random_subset(jax.random.key(0), 9).rewards) == sorted(transitions.rewards)
    for count in (0, 10):
        with pytest.raises(ValueError, match=f"num_transitions: expected 1 to 9, got {count}"):
            transitions.random_subset(jax.random.key(0), count)


def test_concatenate_keeps_trajectories_apart() -> None:
    known, unknown = make_transitions("gymnasium/Hopper-v4"), make_transitions()
    joined = Transitions.concatenate([unknown, known.take(jnp.arange(3)), known])
    assert joined.env == "gymnasium/Hopper-v4"
    assert joined.num_transitions == 21
    assert joined.trajectory_returns().tolist() == [7, 120, 384, 7, 7, 120, 384]
    # Not where the part ends by itself.
    assert np.flatnonzero(joined.timeouts).tolist() == [6, 8, 18, 20]
    assert Transitions.concatenate([unknown]).env is None


def test_concatenate_refuses_what_does_not_fit() -> None:
    transitions = make_transitions("gymnasium/Hopper-v4")
    with pytest.raises(ValueError, match="at least one, got none"):
        Transitions.concatenate([])
    with pytest.raises(ValueError, match="one environment, got gymnasium/Hopper-v4, brax/hopper"):
        Transitions.concatenate([transitions, dataclasses.replace(transitions, env="brax/hopper")])
    with pytest.raises(ValueError, match=r"parts\[1\]: expected observations of shape \(3,\)"):
        Transitions.concatenate([transitions, dataclasses.replace(transitions, observations=jnp.zeros((9, 4)))])


def test_image_observations() -> None:
    images = np.zeros((9, 5, 5, 2), np.float32)
    transitions = Transitions.from_arrays(valid_arrays() | {"observations": images, "next_observations": images})
    assert transitions.observation_shape == (5, 5, 2)
    assert transitions.statistics().apply(transitions.observations).shape == images.shape


def test_arrays_without_next_observations_are_refused() -> None:
    with pytest.raises(OfflineDataError, match="next_observations: missing"):
        Transitions.from_arrays(valid_arrays(next_observations=False))


@dataclasses.dataclass(frozen=True)
class Spaces:
    """What of an environment data must fit."""

    name: str = "test/spaces"
    observation_shape: tuple[int, ...] = (3,)
    action_space: Continuous = Continuous((-1.0, -1.0), (1.0, 1.0))


def test_environments_that_fit_and_that_do_not() -> None:
    transitions = make_transitions()
    transitions.check_fits(Spaces())
    with pytest.raises(OfflineDataError, match=r"observations: expected shape \(4,\) as of test/spaces, got \(3,\)"):
        transitions.check_fits(Spaces(observation_shape=(4,)))
    with pytest.raises(OfflineDataError, match="actions: expected those of test/spaces"):
        transitions.check_fits(Spaces(action_space=Continuous((-1.0,), (1.0,))))
    with pytest.raises(OfflineDataError, match="actions: expected those of diagnostic/match, Discrete"):
        transitions.check_fits(Match(num_actions=3, max_steps=8))
