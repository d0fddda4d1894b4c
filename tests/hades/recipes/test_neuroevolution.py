"""Neuroevolution: it learns, resumes bit for bit, and leaves a policy file."""

from __future__ import annotations

import dataclasses

import chex
import jax
import numpy as np
import pytest

import hades
from envs.diagnostic import Match, Target
from hades import recipes
from hades.outer.evolution import EvolutionSettings
from hades.policies import NetworkSettings
from hades.policy_file import PolicyFileError, TrainedPolicy
from hades.training import LoopSettings

LOOP = LoopSettings(iterations_per_call=2, evaluate_every=2, evaluation_inits=2, evaluation_episodes=2)


def match_run(**overrides):
    settings = {
        "network": NetworkSettings(hidden_sizes=(), kernel_init="lecun_normal"),
        "population_size": 16,
        "observation_normalization": "none",
        "evolution": EvolutionSettings(sigma=0.3, learning_rate=0.2, fitness_shaping="centered_rank"),
    }
    return recipes.neuroevolution(Match(num_actions=3, max_steps=8), **{**settings, **overrides})


@pytest.fixture(scope="module")
def run():
    return match_run()


@pytest.mark.parametrize("evolution", [
    EvolutionSettings(sigma=0.3, learning_rate=0.2),
    EvolutionSettings(sigma=0.3, learning_rate=0.2, perturbations="regenerated"),
], ids=["stored", "regenerated"])  # fmt: skip
def test_it_learns_far_above_chance(evolution):
    run = match_run(evolution=evolution, rollout_chunk_size=4)
    result = hades.train(jax.random.key(0), run, num_iterations=60, loop=LOOP, progress=False)
    returns = result.evaluator(jax.random.key(1), result.policy)
    # A policy that knows nothing matches in 8 / 3 of the steps.
    assert result.evaluator.references(jax.random.key(1), result.policy)["untrained policy"].mean < 5
    assert returns.mean > 7
    assert returns.returns.shape == (1, 4)
    with pytest.raises(AttributeError, match="made a policy, not a dataset"):
        _ = result.dataset
    with pytest.raises(AttributeError, match="makes a policy, not a dataset"):
        _ = run.dataset


def test_a_run_that_is_resumed_is_the_run_that_never_stopped(run, tmp_path):
    whole = hades.train(jax.random.key(3), run, 6, out=tmp_path / "whole", loop=LOOP, progress=False)
    hades.train(jax.random.key(3), run, 2, out=tmp_path / "halves", loop=LOOP, progress=False)
    halves = hades.train(jax.random.key(3), run, 6, out=tmp_path / "halves", loop=LOOP, progress=False)
    chex.assert_trees_all_equal(whole.policy.params, halves.policy.params)
    for name in ("policy.npz", "best_policy.npz"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "halves" / name).read_bytes()
    assert not (tmp_path / "whole" / "dataset.npz").exists()
    assert [row["total_env_steps"] for row in halves.history] == [256 * (index + 1) for index in range(6)]


def test_the_policy_file_plays_as_the_run_says(tmp_path):
    env = Target(action_dim=2, max_steps=4)
    run = recipes.neuroevolution(
        env, population_size=4, statistics_episodes=4, network=NetworkSettings(hidden_sizes=(3,))
    )
    result = hades.train(jax.random.key(0), run, 1, loop=LOOP, progress=False)
    result.best_policy.save(tmp_path / "policy.npz")
    loaded = TrainedPolicy.load(tmp_path / "policy.npz")
    assert (loaded.metadata.method, loaded.metadata.observation_normalization) == ("es", "fixed")
    assert loaded.metadata.cloning.hidden_sizes == (3,)
    assert loaded.metadata.evaluation.num_episodes == 4
    key = jax.random.key(5)
    ours, theirs = result.evaluator(key, result.best_policy), result.evaluator(key, loaded)
    np.testing.assert_array_equal(ours.returns, theirs.returns)
    with pytest.raises(PolicyFileError, match="params: expected shapes"):
        loaded.architecture(Target(action_dim=3))
    blank = dataclasses.replace(loaded, metadata=None)
    with pytest.raises(ValueError, match="metadata: expected a FileMetadata, got None"):
        blank.save(tmp_path / "blank.npz")


def test_weights_begin_as_the_network_draws_them_or_at_zero():
    drawn = match_run().policy(match_run().init(jax.random.key(0)))
    zeros = match_run(zero_init=True).policy(match_run(zero_init=True).init(jax.random.key(0)))
    assert np.abs(drawn.params.network["head"]["kernel"]).min() > 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(zeros.params.network))


def test_budgets_end_a_run_and_its_last_iteration_is_evaluated(run):
    limited = dataclasses.replace(LOOP, evaluate_every=100, max_env_steps=600)
    result = hades.train(jax.random.key(0), run, 100, loop=limited, progress=False)
    # 16 candidates play 2 episodes of 8 steps: 256 in a generation, 512 in a call.
    assert result.finished
    assert len(result.history) == 4
    assert "evaluation_mean" in result.history[-1]
    timed = dataclasses.replace(LOOP, max_seconds=1e-6)
    assert len(hades.train(jax.random.key(0), run, 100, loop=timed, progress=False).history) == 2


def test_one_step_is_traced_once(run):
    traces = []

    @jax.jit
    def step(state):
        traces.append(1)
        return run.step(state)

    state = jax.jit(run.init)(jax.random.key(0))
    for _ in range(3):
        state, _ = step(state)
    assert len(traces) == 1


def test_an_activation_that_is_drawn_is_not_evolved():
    with pytest.raises(ValueError, match="^activation: expected one activation"):
        recipes.neuroevolution(Match(), network=NetworkSettings(activation="tanh_or_relu"))


def test_published_settings_are_those_of_the_released_code():
    brax, minatar = recipes.paper_es_brax(), recipes.paper_es_minatar()
    assert (brax.evolution.strategy, brax.evolution.sigma, brax.population_size, brax.num_episodes) == (
        "Open_ES",
        0.03,
        2048,
        4,
    )
    assert brax.network.hidden_sizes == (512, 512)
    assert (minatar.evolution.strategy, minatar.evolution.temperature, minatar.num_episodes) == ("SNES", 20.0, 8)
    assert minatar.network.hidden_sizes == (256, 256)
    assert brax.zero_init
    assert minatar.zero_init
    wide = recipes.paper_es_minatar(network=NetworkSettings(hidden_sizes=(512, 512), activation="relu"))
    assert wide.network.hidden_sizes == (512, 512)
