"""The four parts put together by hand, and files that say the truth about them."""

from __future__ import annotations

import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

import hades
from envs.diagnostic import Match
from hades import fitness
from hades.fitness import Chunks
from hades.inner import Identity
from hades.keys import iteration_key
from hades.normalization import Normalizer
from hades.objectives import EpisodicReturn
from hades.outer import Evolution, EvolutionSettings
from hades.parametrizations import PolicyParameters, free_pairs
from hades.rollouts.settings import PlaySettings
from hades.training import LoopSettings
from tests.helpers import Watched

ENV = Match(num_actions=3, max_steps=8)
POLICY = hades.policies.mlp(ENV, (), kernel_init="lecun_normal")
INNER = hades.behaviour_cloning(POLICY, optax.rmsprop(0.2), num_steps=10)
LOOP = LoopSettings(iterations_per_call=5, evaluate_every=10, evaluation_inits=2, evaluation_episodes=2)


def make_run(inner=INNER, env=ENV, **named):
    return hades.distillation_run(
        env,
        free_pairs(env, 3),
        inner,
        EpisodicReturn(env, inner.policy, 2, statistics=Normalizer()),
        Evolution(16, EvolutionSettings(sigma=0.5, learning_rate=0.2, fitness_shaping="centered_rank")),
        **named,
    )


@pytest.fixture(scope="module")
def result():
    return hades.distill(jax.random.key(0), make_run(), 200, loop=LOOP, progress=False)


def test_a_run_by_hand_learns_far_above_chance(result):
    returns = hades.evaluate_dataset(jax.random.key(1), ENV, result.dataset, 8, 16, INNER)
    # Whoever knows nothing matches in 8 / 3 of the steps.
    assert returns.mean > 6


def test_its_file_describes_no_inner_loop_that_did_not_train_it(result, tmp_path):
    path = tmp_path / "dataset.npz"
    result.best_dataset.save(path)
    with np.load(path) as file:
        metadata = json.loads(str(file["metadata"]))
    assert (metadata["format"], metadata["cloning"], metadata["method"]) == (2, None, "by hand")
    loaded = hades.SyntheticDataset.load(path)
    with pytest.raises(ValueError, match="cloning") as caught:
        hades.evaluate_dataset(jax.random.key(0), ENV, loaded, 2, 2)
    assert "\n" not in str(caught.value)
    assert hades.evaluate_dataset(jax.random.key(0), ENV, loaded, 2, 2, INNER).returns.shape == (2, 2)


def test_a_run_by_hand_resumes_and_refuses_other_parts(tmp_path):
    arguments = {"out": tmp_path / "run", "loop": LOOP, "progress": False}
    hades.distill(jax.random.key(0), make_run(), 5, **arguments)
    whole = hades.distill(jax.random.key(0), make_run(), 10, loop=LOOP, progress=False)
    resumed = hades.distill(jax.random.key(0), make_run(), 10, **arguments)
    chex.assert_trees_all_equal(resumed.state.outer, whole.state.outer)
    longer = hades.behaviour_cloning(POLICY, optax.rmsprop(0.2), num_steps=11)
    with pytest.raises(ValueError, match="inner.num_steps 10, got 11"):
        hades.distill(jax.random.key(0), make_run(longer), 15, **arguments)
    with pytest.raises(ValueError, match="num_inits 1, got 2"):
        hades.distill(jax.random.key(0), make_run(num_inits=2), 15, **arguments)
    # Whose states have the same shapes.
    faster = hades.behaviour_cloning(POLICY, optax.rmsprop(0.3), num_steps=10)
    with pytest.raises(ValueError, match=r"functions.inner.optimizer"):
        hades.distill(jax.random.key(0), make_run(faster), 15, **arguments)
    relu = hades.policies.mlp(ENV, (), "relu", kernel_init="lecun_normal")
    other = hades.behaviour_cloning(relu, optax.rmsprop(0.2), num_steps=10)
    with pytest.raises(ValueError, match=r"functions.inner.policy"):
        hades.distill(jax.random.key(0), make_run(other), 15, **arguments)


def test_what_the_objective_plays_by_is_what_the_run_is_evaluated_by():
    statistics = Normalizer("running", jnp.zeros(3), jnp.ones(3))
    playing = PlaySettings(observation_normalization="running")
    assert EpisodicReturn(ENV, POLICY, 2, playing, 1, statistics).init(jax.random.key(0)) is statistics
    with pytest.raises(ValueError, match=r"^normalizer: expected one of kind fixed, as observation_normalization says"):
        EpisodicReturn(ENV, POLICY, statistics=statistics).init(jax.random.key(0))
    run = hades.distillation_run(
        ENV, free_pairs(ENV, 3), INNER, EpisodicReturn(ENV, POLICY, 4, playing, 2, statistics), Evolution(4)
    )
    assert (run.play, run.normalization_envs) == (playing, 2)


def test_settings_of_an_own_objective_are_its_own():
    @struct.dataclass
    class Own:
        settings: str = struct.field(pytree_node=False, default="anything")

    run = hades.distillation_run(ENV, free_pairs(ENV, 3), INNER, Own(), Evolution(4))
    assert run.play == PlaySettings(observation_normalization="none")


def test_an_iteration_is_the_formula(result):
    """One step against the parts called by hand, with the keys that the run folds."""
    run = make_run(num_inits=2)
    state = jax.jit(run.init)(jax.random.key(3))
    after, metrics = jax.jit(run.step)(state)
    outer_key, value_key = jax.random.split(iteration_key(state.key, 0))
    init_key, objective_key = jax.random.split(value_key)
    draw = fitness.draw_inits(INNER, init_key, 2)
    problem, objective, _ = run.objective.draw(objective_key, state.objective, fitness.PresentPolicies(2))
    formula = fitness.make_fitness(run.parametrization, INNER, run.objective)
    draw = draw.replace(problem=problem)
    outer, expected = jax.jit(lambda key, state: run.outer.step(key, state, lambda x: formula(draw, x)))(
        outer_key, state.outer
    )
    chex.assert_trees_all_close(after.outer, outer, rtol=1e-5)
    chex.assert_trees_all_close(metrics, expected, rtol=1e-5)
    assert int(after.iteration) == 1
    chex.assert_trees_all_equal(objective, after.objective)


@pytest.mark.slow
def test_chunks_are_those_of_the_whole():
    runs = [make_run(), make_run(chunks=Chunks(cloning=3, rollout=2))]
    states = [jax.jit(run.step)(jax.jit(run.init)(jax.random.key(0))) for run in runs]
    chex.assert_trees_all_close(states[0][1], states[1][1], rtol=1e-5)


@struct.dataclass
class Answers:
    """An objective with a state: the probability of the first action, and how often it was drawn."""

    policy: object = struct.field(pytree_node=False)

    def init(self, key):
        del key
        return {"drawn": jnp.int32(0), "before": jnp.float32(-1)}

    def draw(self, key, state, policies):
        del key
        present = jnp.mean(jax.vmap(self._probability)(policies()))
        return (), {"drawn": state["drawn"] + 1, "before": present}, {"present": present}

    def value(self, problem, params):
        values = jax.vmap(jax.vmap(self._probability))(params)
        return values, {"env_steps": jnp.zeros(values.shape[0], jnp.int32)}

    def normalizer(self, state):
        return Normalizer()

    def _probability(self, params):
        return jnp.exp(self.policy.apply(params, jnp.ones((1, 3))).log_probs()[0, 0])


def test_an_objective_of_ones_own_keeps_a_state_and_may_train_the_present_policies():
    run = dataclasses.replace(make_run(), objective=Answers(POLICY))
    result = hades.distill(jax.random.key(0), run, 30, loop=LOOP, progress=False)
    assert int(result.state.objective["drawn"]) == 30
    assert 0.8 < float(result.state.objective["before"]) <= 1
    assert result.history[-1]["fitness_mean"] > 0.8 > result.history[0]["fitness_mean"]
    assert result.dataset.metadata.cloning is None


def test_policies_are_trained_only_where_an_objective_asks_for_them():
    fits = []

    class Counted:
        policy = POLICY

        def init(self, key):
            return POLICY.init(key)

        def fit(self, key, params, dataset):
            fits.append(1)
            return INNER.fit(key, params, dataset)

    run = make_run(Counted())
    jax.eval_shape(run.step, jax.eval_shape(run.init, jax.random.key(0)))
    assert len(fits) == 1


def test_parameters_in_the_place_of_a_dataset_make_a_policy():
    run = hades.distillation_run(
        ENV,
        PolicyParameters(POLICY),
        Identity(POLICY),
        EpisodicReturn(ENV, POLICY, statistics=Normalizer()),
        Evolution(8, EvolutionSettings(sigma=0.3, learning_rate=0.2)),
    )
    result = hades.train(jax.random.key(0), run, 5, loop=LOOP, progress=False)
    assert run.kind == result.kind == "policy"
    assert result.policy.metadata.cloning is None
    with pytest.raises(ValueError, match="num_inits: expected a number above 0, got 0"):
        make_run(num_inits=0)


@pytest.mark.slow
def test_equal_runs_made_again_are_compiled_once():
    env = Watched(ENV)
    traces = []
    for seed in range(3):
        run = hades.recipes.hades_r(env, dataset_size=2, population_size=4, observation_normalization="none")
        hades.distill(jax.random.key(seed), run, 3, loop=LOOP, progress=False)
        traces.append(env.traces)
    assert traces[0] > 0
    assert traces == traces[:1] * 3
