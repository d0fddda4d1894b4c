"""Evaluation: intervals that cover, keys that are what they should be, and datasets that do not fit."""

from __future__ import annotations

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.diagnostic import Countdown, Match, Nan, Target
from hades import policies
from hades.dataset import SyntheticDataset
from hades.evaluation import (
    DatasetEvaluator,
    Evaluation,
    check_fits,
    dataset_evaluator,
    evaluate,
    evaluate_dataset,
    zero_dataset,
)
from hades.inner.cloning import CloningSettings, behaviour_cloning
from hades.metadata import EvaluationSummary, FileMetadata
from hades.normalization import Normalizer, PolicyParams
from hades.rollouts.host import compiled_rollout
from tests.helpers import Watched

ENV = Target(action_dim=1, max_steps=3)
CLONING = CloningSettings(hidden_sizes=(4,), kernel_init="lecun_normal", loss="gaussian_nll", num_steps=5)
METADATA = FileMetadata(
    env="diagnostic/target",
    max_episode_steps=3,
    method="test",
    observation_normalization="none",
    action_selection="mode",
    cloning=CLONING,
)
PAIRS = SyntheticDataset(jnp.array([[-1.0], [1.0]]), actions=jnp.array([[-0.5], [0.5]]), metadata=METADATA)


def test_statistics_of_an_evaluation():
    returns = np.array([[1.0, 3.0], [5.0, 7.0], [9.0, 11.0]])
    evaluation = Evaluation(returns, np.ones((3, 2), int))
    assert (evaluation.mean, evaluation.per_init) == (6.0, [2.0, 6.0, 10.0])
    assert evaluation.std == pytest.approx(np.sqrt(35 / 3))
    # Of policies, not of episodes: Student's t of their means 2, 6 and 10, at two degrees of freedom.
    reach = 4.302653 * 4 / np.sqrt(3)
    np.testing.assert_allclose(evaluation.ci95, (6 - reach, 6 + reach), rtol=1e-6)
    single = Evaluation(returns[:1], np.ones((1, 2), int))
    np.testing.assert_allclose(single.ci95, (2 - 12.7062, 2 + 12.7062), rtol=1e-5)
    assert evaluation.summary() == EvaluationSummary(6.0, evaluation.ci95, 3, 2)
    assert Evaluation(returns[:1, :1], np.ones((1, 1), int)).summary().ci95 is None


def test_policies_are_those_that_the_kernel_clones():
    evaluator = dataset_evaluator(ENV, PAIRS, num_inits=3, num_episodes=4)
    found = evaluator(jax.random.key(5), PAIRS)
    assert found.returns.shape == (3, 4)
    assert found.normalization_envs is None
    assert len(set(found.returns.ravel().tolist())) == 12
    again = evaluator(jax.random.key(5), PAIRS)
    np.testing.assert_array_equal(again.returns, found.returns)
    other = evaluator(jax.random.key(6), PAIRS)
    assert (other.returns != found.returns).all()
    named = evaluate_dataset(jax.random.key(5), ENV, PAIRS, 3, 4)
    np.testing.assert_array_equal(named.returns, found.returns)


def test_a_dataset_of_one_initialisation_is_scored_with_exactly_that_one(monkeypatch):
    clone = behaviour_cloning(policies.mlp(ENV, (4,), kernel_init="lecun_normal"), num_steps=5)
    expected = jax.jit(clone)(jax.random.key(11), PAIRS).network
    played = []

    def watching(*arguments, **named):
        rollout = compiled_rollout(*arguments, **named)

        def watched(keys, params, normalizer):
            played.append(params)
            return rollout(keys, params, normalizer)

        return watched

    monkeypatch.setattr("hades.evaluation.compiled_rollout", watching)
    dataset = dataclasses.replace(PAIRS, metadata=dataclasses.replace(METADATA, init_seed=11, cloning=CLONING))
    found = evaluate_dataset(jax.random.key(0), ENV, dataset, num_inits=2, num_episodes=3)
    (params,) = played
    for index in range(2):
        jax.tree.map(
            lambda leaf, one: np.testing.assert_allclose(leaf[0, index], one, rtol=1e-5, atol=1e-6),  # noqa: B023
            params,
            expected,
        )
    # The same policy twice, but in episodes of its own.
    assert len(set(found.returns.ravel().tolist())) == 6


def test_inner_loops_of_one_architecture_share_a_rollout():
    env = Watched(ENV)
    other = behaviour_cloning(policies.mlp(ENV, (4,), kernel_init="he_normal"), num_steps=9)
    evaluator = dataset_evaluator(env, PAIRS, 2, 3)
    first = evaluator(jax.random.key(5), PAIRS)
    traces = env.traces
    assert traces > 0
    shared = evaluator.with_inner_loop(other)
    found = shared(jax.random.key(5), PAIRS)
    assert env.traces == traces
    expected = evaluate_dataset(jax.random.key(5), ENV, PAIRS, 2, 3, other)
    np.testing.assert_array_equal(found.returns, expected.returns)
    assert (found.returns != first.returns).all()
    # The evaluator that it comes from stays as it was.
    np.testing.assert_array_equal(evaluator(jax.random.key(5), PAIRS).returns, first.returns)
    with pytest.raises(ValueError, match="inner: expected a policy of the same architecture"):
        evaluator.with_inner_loop(behaviour_cloning(policies.mlp(ENV, (5,))))


def test_zero_datasets_keep_shapes_and_statistics():
    fixed = dataclasses.replace(PAIRS, observation_mean=jnp.ones(1), observation_std=jnp.ones(1))
    zero = zero_dataset(fixed)
    np.testing.assert_array_equal(zero.observations, np.zeros((2, 1)))
    np.testing.assert_array_equal(zero.actions, np.zeros((2, 1)))
    np.testing.assert_array_equal(zero.observation_mean, [1.0])
    assert zero.action_probabilities is None
    discrete = zero_dataset(SyntheticDataset(jnp.ones((2, 3)), action_probabilities=jnp.eye(4)[:2]))
    np.testing.assert_array_equal(discrete.action_probabilities, np.full((2, 4), 0.25))
    assert discrete.actions is None


def test_untrained_policies_of_a_task_that_they_cannot_know():
    env = Match(num_actions=4, max_steps=20)
    policy = policies.mlp(env, (4,))  # orthogonal, with a head of gain 0.01: all but uniform
    evaluator = DatasetEvaluator(env, behaviour_cloning(policy, num_steps=1), num_inits=8, num_episodes=64)
    found = evaluator.untrained(jax.random.key(0), Normalizer())
    assert found.returns.shape == (8, 64)
    # 10,240 answers, right with probability 1/4: five standard errors are 0.43 of 20.
    assert abs(found.mean - 5.0) < 0.45


def test_single_policies_are_scored_episode_by_episode():
    env = Countdown(longest=5)
    policy = policies.mlp(env, (), kernel_init="lecun_normal")
    clone = behaviour_cloning(policy, num_steps=1)
    dataset = SyntheticDataset(jnp.ones((1, 1)), action_probabilities=jnp.ones((1, 2)) / 2)
    found = evaluate(jax.random.key(0), env, policy, clone(jax.random.key(1), dataset), num_episodes=200)
    assert found.returns.shape == (1, 200)
    np.testing.assert_array_equal(found.returns, found.lengths)
    assert set(found.returns.ravel().tolist()) == {1.0, 2.0, 3.0, 4.0, 5.0}
    # Uniform on 1..5: five standard errors of 200 are 0.5.
    assert abs(found.mean - 3.0) < 0.5
    assert found.ci95[0] < found.mean < found.ci95[1]


def test_running_statistics_are_shared_as_the_metadata_says():
    metadata = dataclasses.replace(
        METADATA, observation_normalization="running", evaluation=EvaluationSummary(0.0, None, 2, 4, 2)
    )
    dataset = dataclasses.replace(PAIRS, metadata=metadata)
    found = evaluate_dataset(jax.random.key(0), ENV, dataset, num_inits=2, num_episodes=4)
    assert found.normalization_envs == 2
    assert found.summary().normalization_envs == 2
    with pytest.raises(ValueError, match="num_episodes: expected a multiple of 2"):
        evaluate_dataset(jax.random.key(0), ENV, dataset, num_inits=2, num_episodes=3)
    with pytest.raises(ValueError, match="^num_inits: expected a number above 0, got 0"):
        evaluate_dataset(jax.random.key(0), ENV, dataset, num_inits=0)
    unknown = dataclasses.replace(dataset, metadata=dataclasses.replace(metadata, evaluation=None))
    assert evaluate_dataset(jax.random.key(0), ENV, unknown, 1, 3).normalization_envs == 3


def test_returns_that_are_no_numbers_have_no_interval():
    evaluation = Evaluation(np.array([[1.0, np.nan]]), np.ones((1, 2), int))
    with pytest.raises(ValueError, match="mean: expected a finite number"):
        evaluation.summary()


@pytest.mark.parametrize(
    ("env", "dataset", "message"),
    [
        (Target(action_dim=2), PAIRS, r"observations of diagnostic/target have shape \(2,\), the dataset's \(1,\)"),
        (Nan(), PAIRS, "diagnostic/nan has Discrete.*, but the dataset's actions are continuous, 1 wide"),
        (ENV, dataclasses.replace(PAIRS, actions=jnp.ones((2, 3))), "actions are continuous, 3 wide"),
        (ENV, SyntheticDataset(jnp.ones((2, 1)), action_probabilities=jnp.eye(2)), "actions are discrete, 2 wide"),
        (Nan(), SyntheticDataset(jnp.ones((2, 1)), action_probabilities=jnp.eye(3)[:2]), "are discrete, 3 wide"),
    ],
)
def test_datasets_that_do_not_fit_the_environment_are_refused(env, dataset, message):
    with pytest.raises(ValueError, match=message):
        check_fits(env, dataset)


def test_datasets_that_fit_or_lack_metadata():
    check_fits(ENV, PAIRS)
    check_fits(Nan(), SyntheticDataset(jnp.ones((2, 1)), action_probabilities=jnp.eye(2)))
    with pytest.raises(ValueError, match="dataset: expected metadata"):
        evaluate_dataset(jax.random.key(0), ENV, PAIRS.without_metadata())


class Trained:
    """An inner loop that counts how often its training is traced."""

    def __init__(self, inner):
        self.policy, self._inner, self.traces = inner.policy, inner, 0

    def init(self, key):
        return self._inner.init(key)

    def fit(self, key, params, dataset):
        self.traces += 1
        return self._inner.fit(key, params, dataset)


def test_a_second_evaluation_traces_nothing():
    env = Watched(ENV)
    policy = policies.mlp(ENV, (3,), kernel_init="lecun_normal")
    params = PolicyParams(policy.init(jax.random.key(0)))
    traces = []
    for seed in range(3):
        # Made anew each time, as in a notebook cell that is run again.
        evaluate(jax.random.key(seed), env, policies.mlp(ENV, (3,), kernel_init="lecun_normal"), params, 5)
        traces.append(env.traces)
    assert traces[0] > 0
    assert traces == traces[:1] * 3
    began = time.perf_counter()
    evaluate(jax.random.key(9), env, policy, params, 5)
    assert time.perf_counter() - began < 0.1


def test_a_second_evaluation_of_a_dataset_traces_nothing():
    env, inner = (
        Watched(ENV),
        Trained(behaviour_cloning(policies.mlp(ENV, (3,), kernel_init="lecun_normal"), num_steps=2)),
    )
    traces = []
    for seed in range(3):
        other = dataclasses.replace(PAIRS, observations=PAIRS.observations + seed)
        evaluate_dataset(jax.random.key(seed), env, other, 2, 3, inner)
        traces.append((env.traces, inner.traces))
    assert min(traces[0]) > 0
    assert traces == traces[:1] * 3
    # Inner loops that metadata describe are made again for every call.
    described = Watched(ENV)
    for seed in range(2):
        evaluate_dataset(jax.random.key(seed), described, PAIRS, 2, 3)
        traces.append(described.traces)
    assert traces[-1] == traces[-2] > 0


def test_a_dataset_of_one_initialisation_trains_one_policy():
    shapes = []

    class Seen(Trained):
        def fit(self, key, params, dataset):
            jax.debug.callback(lambda _: shapes.append(1), jax.random.key_data(key))
            return super().fit(key, params, dataset)

    inner = Seen(behaviour_cloning(policies.mlp(ENV, (4,), kernel_init="lecun_normal"), num_steps=2))
    dataset = dataclasses.replace(PAIRS, metadata=dataclasses.replace(METADATA, init_seed=11))
    found = evaluate_dataset(jax.random.key(0), ENV, dataset, 5, 3, inner)
    jax.effects_barrier()
    assert found.returns.shape == (5, 3)
    assert len(shapes) == 1
    evaluate_dataset(jax.random.key(0), ENV, PAIRS, 5, 3, inner)
    jax.effects_barrier()
    assert len(shapes) == 1 + 5


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap], ids=["jit", "vmap"])
def test_compiling_an_evaluation_is_refused_in_a_sentence(transform):
    policy = policies.mlp(ENV, (3,))
    keys = jax.random.split(jax.random.key(0), 2)

    def played(key):
        return evaluate(key, ENV, policy, PolicyParams(policy.init(jax.random.key(0)))).returns

    with pytest.raises(TypeError, match="hades.evaluate runs on the host.*; hades.rollouts.make_rollout can be jitted"):
        transform(played)(keys if transform is jax.vmap else keys[0])
    with pytest.raises(TypeError, match="hades.evaluate_dataset runs on the host.*; hades.behaviour_cloning can be"):
        transform(lambda key: evaluate_dataset(key, ENV, PAIRS).returns)(keys if transform is jax.vmap else keys[0])


def test_a_dataset_without_a_described_inner_loop_asks_for_one():
    by_hand = dataclasses.replace(PAIRS, metadata=dataclasses.replace(METADATA, cloning=None))
    with pytest.raises(ValueError, match="cloning"):
        evaluate_dataset(jax.random.key(0), ENV, by_hand, 2, 3)
    inner = behaviour_cloning(policies.mlp(ENV, (4,), kernel_init="lecun_normal"), num_steps=2)
    assert evaluate_dataset(jax.random.key(0), ENV, by_hand, 2, 3, inner).returns.shape == (2, 3)
