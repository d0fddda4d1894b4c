"""Pairs that are removed, and the visited states that are nearest to them, where the answer is known."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import envs
from experiments.report.pairs import nearest_states, pairs_to_dict
from experiments.report.playing import Actors, Performance, make_actors
from experiments.report.removal import Removals, remove_pairs, without_pair
from experiments.report.subject import Subject
from hades.dataset import SyntheticDataset
from hades.inner.cloning import CloningSettings
from hades.metadata import FileMetadata
from hades.normalization import Normalizer

METADATA = FileMetadata(
    env="diagnostic/match",
    max_episode_steps=10,
    method="by hand",
    observation_normalization="none",
    action_selection="mode",
    cloning=CloningSettings(hidden_sizes=(16,), num_steps=60, learning_rate=0.05, loss="cross_entropy"),
)


@pytest.fixture(scope="module")
def played() -> tuple[SyntheticDataset, Actors, Performance]:
    """One pair for each of three observations, which together tell all that there is to know, and policies of them."""
    dataset = SyntheticDataset(jnp.eye(3), action_probabilities=jnp.eye(3), metadata=METADATA)
    subject = Subject("match", None, dataset=dataset, metadata=METADATA, env=envs.make("diagnostic/match"))  # type: ignore[arg-type]
    actors = make_actors(subject, seed=0, num_inits=4, num_episodes=2)
    return dataset, actors, actors.play(actors.networks)


@pytest.fixture(scope="module")
def removals(played: tuple[SyntheticDataset, Actors, Performance]) -> Removals:
    done: list[int] = []
    found = remove_pairs(*(played[1], played[0], played[2]), order=[2, 0, 1], max_seconds=60, on_pair=done.append)
    assert found is not None and done == [1, 2, 3]
    return found


def test_policies_of_all_pairs_play_and_the_first_episode_is_theirs(played: tuple) -> None:
    _, _, performance = played
    assert performance.evaluation.returns.shape == (4, 2) and (performance.evaluation.returns == 10).all()
    assert len(performance.episode) == 10 and not performance.episode.terminated
    np.testing.assert_array_equal(performance.episode.actions, performance.episode.observations.argmax(1))


def test_every_pair_costs_the_returns_of_the_states_that_it_is_for(removals: Removals, played: tuple) -> None:
    assert removals.pairs.tolist() == [0, 1, 2] and removals.costs.shape == (3, 4)
    # Without its pair the action of a third of the states is a guess.
    assert (removals.costs.mean(axis=1) > 0).all() and (removals.costs <= 10).all()


def test_the_pair_that_acts_is_the_one_for_what_is_shown(removals: Removals, played: tuple) -> None:
    shown = played[2].episode.observations.argmax(axis=1)
    np.testing.assert_array_equal(removals.acting, shown)
    form = removals.to_dict()
    assert form["shares"] == pytest.approx([float(np.mean(shown == pair)) for pair in range(3)])
    assert all(cost["low"] <= cost["mean"] <= cost["high"] for cost in form["costs"])


def test_no_pair_is_removed_after_its_time(played: tuple) -> None:
    dataset, actors, performance = played
    found = remove_pairs(actors, dataset, performance, order=[1, 0, 2], max_seconds=1e-9)
    assert found is not None and found.pairs.tolist() == [1]


def test_a_removed_pair_is_gone_and_all_else_stays() -> None:
    dataset = SyntheticDataset(
        jnp.arange(6.0).reshape(3, 2), actions=jnp.arange(3.0)[:, None], observation_mean=jnp.ones(2),
        observation_std=jnp.ones(2), metadata=METADATA, step_sizes=jnp.ones(60),
    )  # fmt: skip
    left = without_pair(dataset, 1)
    assert left.observations.tolist() == [[0, 1], [4, 5]] and left.actions.tolist() == [[0], [2]]
    assert left.step_sizes.shape == (60,) and left.observation_mean is not None


def test_nearest_states_are_found_in_the_space_that_the_policy_sees() -> None:
    normalizer = Normalizer("fixed", jnp.array([10.0, 0.0]), jnp.array([10.0, 1.0]))
    visited = np.array([[10.0, 0.0], [20.0, 0.0], [30.0, 2.0]])  # (0, 0), (1, 0), (2, 2)
    nearest = nearest_states(np.array([[0.9, 0.1], [2.0, 5.0], [-4.0, 0.0]]), normalizer, visited)
    assert nearest.steps.tolist() == [1, 2, 0]
    np.testing.assert_allclose(nearest.distances, [0.1, 3 / 2**0.5, 4 / 2**0.5], rtol=1e-5)
    assert nearest.shares.tolist() == [1.0, 0.0, 0.0]
    assert nearest.order[0] == 0


def test_pairs_are_in_words_and_units_of_the_environment() -> None:
    metadata = FileMetadata(**{**vars(METADATA), "env": "gymnax/CartPole-v1", "observation_normalization": "fixed"})
    dataset = SyntheticDataset(
        jnp.ones((2, 4)), action_probabilities=jnp.eye(2), metadata=metadata,
        observation_mean=jnp.array([1.0, 2.0, 3.0, 4.0]), observation_std=jnp.array([0.5, 1.0, 1.0, 1.0]),
    )  # fmt: skip
    form = pairs_to_dict(dataset, None, None, np.zeros((3, 4)))
    assert form["observation_names"] == ["cart position", "cart velocity", "pole angle", "pole angular velocity"]
    assert form["values"][0] == [1.5, 3.0, 4.0, 5.0] and form["visited"] == [[0.0] * 4, [0.0] * 4]
    assert form["action_names"] == ["push left", "push right"] and form["discrete"]
    assert "picture" not in form and "nearest" not in form
