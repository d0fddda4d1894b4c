"""Seeds side by side: each is the run of its key alone, stopped and resumed, in the folder of its own."""

from __future__ import annotations

import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hades
from envs.diagnostic import Match
from hades import recipes
from hades._driver import _advance_seeds
from hades._run_directory import RunDirectory
from hades.inner.cloning import CloningSettings
from tests.helpers import Counting, Walk

LOOP = hades.LoopSettings(
    iterations_per_call=3, log_every=3, evaluate_every=6, evaluation_inits=2, evaluation_episodes=2
)
KEYS = jax.random.split(jax.random.key(7), 3)


def make_run():
    return recipes.hades_r(
        Match(max_steps=4),
        dataset_size=2,
        population_size=8,
        observation_normalization="none",
        cloning=CloningSettings(hidden_sizes=(4,), kernel_init="lecun_normal", num_steps=4, learning_rate=0.1),
    )


def distill_seeds(num_iterations=12, **changes):
    return hades.distill_seeds(KEYS, make_run(), num_iterations, **({"loop": LOOP, "progress": False} | changes))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    seen = [[] for _ in KEYS]
    return out, seen, distill_seeds(out=out, callbacks=[[rows.append] for rows in seen])


def assert_states_equal(left, right):
    chex.assert_trees_all_equal(
        *(dataclasses.replace(state, key=jax.random.key_data(state.key)) for state in (left, right))
    )


def test_each_seed_is_the_run_of_its_key_alone(whole):
    out, seen, results = whole
    for index, (key, result) in enumerate(zip(KEYS, results, strict=True)):
        single = hades.distill(key, make_run(), 12, loop=LOOP, progress=False)
        assert [row["iteration"] for row in result.history] == [3, 6, 9, 12] and result.finished
        for ours, alone in zip(result.history, single.history, strict=True):
            for name in ("fitness_mean", "fitness_best", "total_env_steps"):
                np.testing.assert_allclose(ours[name], alone[name], rtol=1e-4)
        # Adam makes much of what rounding leaves of a gradient near zero; seeds are further apart.
        np.testing.assert_allclose(result.dataset.observations, single.dataset.observations, atol=0.01)
        assert result.best_iteration == single.best_iteration
        assert seen[index] == list(result.history)
        rows = [json.loads(line) for line in (out / f"seed{index}/metrics.jsonl").read_text().splitlines()]
        assert rows == seen[index] and (out / f"seed{index}/best_dataset.npz").exists()
    # They are different runs.
    assert len({result.history[-1]["fitness_mean"] for result in results}) == len(KEYS)


def test_seeds_that_halve_their_rollouts_at_different_steps_are_those_of_their_keys():
    settings = {"dataset_size": 2, "population_size": 8, "observation_normalization": "none", "init_scale": 1.0}
    cloning = CloningSettings(hidden_sizes=(), kernel_init="lecun_normal", num_steps=2)
    run = recipes.hades_r(Walk(max_steps=40), cloning=cloning, action_selection="mode", rollout_halvings=2, **settings)
    loop = hades.LoopSettings(evaluate_every=None)
    results = hades.distill_seeds(KEYS, run, 1, loop=loop, progress=False)
    fitness = [result.history[-1]["fitness_mean"] for result in results]
    alone = [hades.distill(key, run, 1, loop=loop, progress=False).history[-1]["fitness_mean"] for key in KEYS]
    np.testing.assert_allclose(fitness, alone, rtol=1e-5)
    assert len({round(value, 3) for value in alone}) == len(KEYS)


@pytest.mark.parametrize("stop", [1, 2])
def test_seeds_that_were_stopped_go_on_bit_for_bit(whole, tmp_path, stop):
    calls = iter(range(9))
    stopped = distill_seeds(out=tmp_path, should_stop=lambda: next(calls) >= stop)
    assert [(result.finished, int(result.state.iteration)) for result in stopped] == [(False, 3 * stop)] * len(KEYS)
    for result, expected in zip(distill_seeds(out=tmp_path), whole[2], strict=True):
        assert_states_equal(result.state, expected.state)
        assert result.best_iteration == expected.best_iteration and result.finished


def test_a_seed_that_is_ahead_waits_for_the_others(whole, tmp_path):
    distill_seeds(6, out=tmp_path)
    alone = hades.distill(KEYS[1], make_run(), 12, loop=LOOP, progress=False, out=tmp_path / "seed1")
    results = distill_seeds(out=tmp_path)
    for index in (0, 2):
        assert_states_equal(results[index].state, whole[2][index].state)
    assert_states_equal(results[1].state, alone.state)
    assert [len(result.history) for result in results] == [4, 4, 4]


def test_seeds_out_of_step_end_together_and_are_evaluated_where_each_is_due(whole, tmp_path):
    distill_seeds(6, out=tmp_path)
    hades.distill(KEYS[0], make_run(), 9, loop=LOOP, progress=False, out=tmp_path / "seed0")
    results = distill_seeds(out=tmp_path)
    for index in (1, 2):
        assert_states_equal(results[index].state, whole[2][index].state)
    for result in results:
        evaluated = [row["iteration"] for row in result.history if "evaluation_mean" in row]
        assert {6, 12} <= set(evaluated) and [row["iteration"] for row in result.history] == [3, 6, 9, 12]


def number_of(state):
    """Seed of a run whose key is `jax.random.key(seed)`."""
    return jax.random.key_data(state.key)[-1].astype(jnp.int32)


class Diverging(Counting):
    """Seed 1 is not finite behind iteration 13."""

    def step(self, state):
        state, metrics = super().step(state)
        bad = (number_of(state) == 1) & (state.iteration > 13)
        return state.replace(outer=jnp.where(bad, jnp.inf, state.outer)), metrics


class Steps(Counting):
    """Seed i takes i + 1 environment steps an iteration."""

    def step(self, state):
        state, metrics = super().step(state)
        return state, metrics | {"env_steps": number_of(state) + 1}


SEEDS = jnp.stack([jax.random.key(seed) for seed in range(3)])
QUIET = hades.LoopSettings(iterations_per_call=10, evaluate_every=None, checkpoint_seconds=1e9)


def test_a_seed_that_diverges_is_named_and_the_others_come_to_their_end(tmp_path):
    run = Diverging()
    words = (
        "^seed 1: the run diverged: its dataset is not finite since iteration 14; the last good one, of iteration 10"
    )
    for _ in range(2):
        with pytest.raises(hades.DivergedError, match=words):
            hades.distill_seeds(SEEDS, run, 50, loop=QUIET, progress=False, out=tmp_path)
        lengths = [len(RunDirectory(tmp_path / f"seed{index}").read_metrics()) for index in range(3)]
        assert lengths == [50, 10, 50]


def test_budgets_of_steps_end_each_seed_and_budgets_of_time_all(tmp_path):
    loop = dataclasses.replace(QUIET, iterations_per_call=1, max_env_steps=6)
    results = hades.distill_seeds(SEEDS, Steps(), 50, loop=loop, progress=False)
    assert [int(result.state.iteration) for result in results] == [6, 3, 2]
    assert all(result.finished for result in results)
    loop = dataclasses.replace(QUIET, iterations_per_call=1, max_seconds=0.3)
    results = hades.distill_seeds(SEEDS, Steps(), 10**6, loop=loop, progress=False, out=tmp_path)
    assert len({int(result.state.iteration) for result in results}) == 1
    # What the host does for one seed is no time of the others.
    clocks = np.array([[row["seconds"] for row in result.history] for result in results])
    np.testing.assert_allclose(clocks, np.broadcast_to(clocks[:1], clocks.shape), atol=0.005)


def test_a_return_that_is_asked_for_ends_each_seed_by_itself(whole):
    means = [[row["evaluation_mean"] for row in result.history if "evaluation_mean" in row] for result in whole[2]]
    target = min(first for first, _ in means) + 1e-6
    assert any(first >= target for first, _ in means)
    expected = [6 if first >= target else 12 for first, _ in means]
    results = distill_seeds(loop=dataclasses.replace(LOOP, target_return=target))
    assert [int(result.state.iteration) for result in results] == expected
    assert all(result.finished for result in results)


def test_the_same_seeds_compile_once(whole):
    before = _advance_seeds._cache_size()
    distill_seeds(3)
    assert _advance_seeds._cache_size() == before


def test_progress_tells_the_means_of_all_seeds(whole, capsys):
    results = distill_seeds(3, progress=True)
    mean = np.mean([result.history[-1]["fitness_mean"] for result in results])
    assert "iteration 3/3" in (text := capsys.readouterr().err) and f"fitness {mean:.4g}" in text


def test_arguments_without_the_axis_of_seeds_are_refused():
    with pytest.raises(ValueError, match=r"^keys: expected one or more, \[seeds\], got shape \(\)"):
        hades.distill_seeds(jax.random.key(0), make_run(), 1)
    with pytest.raises(ValueError, match="^callbacks: expected 3, those of each seed, got 1"):
        distill_seeds(callbacks=[[]])
