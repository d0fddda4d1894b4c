"""Merged datasets: padding by hand, round trips, what is refused, and joint policies that play every task."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.diagnostic import Match, Target
from hades import policies
from hades.dataset import SyntheticDataset
from hades.distributions import Categorical, DiagonalGaussian
from hades.evaluation import Evaluation, evaluate, evaluate_dataset
from hades.inner.cloning import BehaviourCloning, CloningSettings, from_settings
from hades.metadata import EvaluationSummary, FileMetadata
from hades.multitask import merging as multitask
from hades.multitask.evaluation import TaskScores, evaluate_policy, evaluate_tasks
from hades.normalization import PolicyParams
from hades.policies import Policy
from hades.statistics import mean_interval

CLONING = CloningSettings(hidden_sizes=(32,), learning_rate=0.03, num_steps=150)
ARRAYS = ("observations", "actions", "action_probabilities", "observation_mean", "observation_std")


def metadata(env: str, **changes: Any) -> FileMetadata:
    values = {
        "env": env, "max_episode_steps": 9, "method": "by hand", "observation_normalization": "none",
        "action_selection": "mode", "cloning": CLONING,
    }  # fmt: skip
    return FileMetadata(**values | changes)


IMAGE = SyntheticDataset(
    jnp.arange(8.0).reshape(2, 2, 1, 2),
    action_probabilities=jnp.array([[0.25, 0.75], [1.0, 0.0]]),
    observation_mean=jnp.array([[[0.1, -0.0]], [[1e-30, 3.3]]]),
    observation_std=jnp.array([[[0.7, 1.0]], [[2.0, 1 / 3]]]),
    metadata=metadata(
        "gymnax/Image",
        observation_normalization="fixed",
        env_options={"sizes": [1, {"deep": None}]},
        max_episode_steps=40,
        cloning=CloningSettings(policy="residual_mlp", hidden_sizes=(7,), max_grad_norm=0.5, batch_size=2),
        evaluation=EvaluationSummary(1.5, (1.0, 2.0), 2, 3),
        source="a test",
        created_with={"gymnax": "1.0.1"},
        seed=5,
    ),
)
RUNNING = SyntheticDataset(
    jnp.array([[0.3], [-0.0], [1e-20]]),
    action_probabilities=jnp.eye(3),
    metadata=metadata(
        "gymnax/Running",
        observation_normalization="running",
        action_selection="sample",
        evaluation=EvaluationSummary(0.0, None, 2, 4, 2),
    ),
)
SHORT = SyntheticDataset(jnp.array([[2.0]]), actions=jnp.array([[0.5, -0.5]]), metadata=metadata("x/short"))
LONG = SyntheticDataset(jnp.array([[3.0, 4.0]]), actions=jnp.array([[0.25]]), metadata=metadata("x/long"))


def constant_policy(distribution: Categorical | DiagonalGaussian) -> Policy:
    return Policy(lambda key: {}, lambda params, observations: distribution)


def assert_same(found: SyntheticDataset, expected: SyntheticDataset) -> None:
    assert found.metadata == expected.metadata
    for name in ARRAYS:
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert ours.shape == theirs.shape
            assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()


def test_continuous_rows_by_hand():
    merged = multitask.merge([SHORT, LONG], task_one_hot=True)
    np.testing.assert_array_equal(merged.observations, [[2, 0, 0, 1, 0], [0, 3, 4, 0, 1]])
    np.testing.assert_array_equal(merged.actions, [[0.5, -0.5, 0], [0, 0, 0.25]])
    assert merged.action_probabilities is None
    joint = multitask.spaces(merged.metadata)
    assert (joint.observation_shape, joint.action_space.action_dim) == ((5,), 3)
    plain = multitask.merge([SHORT, LONG], shared_places=True)
    np.testing.assert_array_equal(plain.observations, [[2, 0], [3, 4]])
    np.testing.assert_array_equal(plain.actions, [[0.5, -0.5], [0.25, 0]])
    assert multitask.spaces(plain.metadata).observation_shape == (2,)


def test_discrete_rows_by_hand():
    merged = multitask.merge([RUNNING, IMAGE], shared_places=True, task_one_hot=True)
    np.testing.assert_array_equal(merged.observations[3:], [[0, 1, 2, 3, 0, 1], [4, 5, 6, 7, 0, 1]])
    np.testing.assert_array_equal(merged.observations[0], np.array([0.3, 0, 0, 0, 1, 0], np.float32))
    np.testing.assert_array_equal(merged.action_probabilities[3:], [[0.25, 0.75, 0], [1, 0, 0]])
    assert merged.metadata.cloning.loss == "cross_entropy"
    assert multitask.spaces(merged.metadata).action_space.num_actions == 3


def test_merged_metadata_say_how_to_train_and_what_the_tasks_are():
    merged = multitask.merge([IMAGE, RUNNING]).metadata
    assert multitask.is_merged(merged)
    assert not multitask.is_merged(IMAGE.metadata)
    assert (merged.env, merged.method, merged.observation_normalization) == ("multitask", "multitask", "none")
    assert (merged.max_episode_steps, merged.init_seed, merged.evaluation) == (40, None, None)
    assert merged.cloning == dataclasses.replace(IMAGE.metadata.cloning, loss="cross_entropy", num_steps=500)
    assert multitask.joint_cloning(CloningSettings(num_steps=501)) == CloningSettings(num_steps=501)
    given = CloningSettings(hidden_sizes=(9,))
    chosen = multitask.merge([IMAGE, RUNNING], cloning=given).metadata.cloning
    assert chosen == dataclasses.replace(given, loss="cross_entropy")
    image, running = multitask.tasks(merged)
    assert (image.num_pairs, image.observation_shape, image.action_dim) == (2, (2, 1, 2), 2)
    assert (running.num_pairs, running.observation_shape, running.action_dim) == (3, (1,), 3)
    assert running.normalizer().kind == "running"
    np.testing.assert_array_equal(image.normalizer().std, IMAGE.observation_std)


@pytest.mark.parametrize(("shared_places", "task_one_hot"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("datasets", [(IMAGE, RUNNING), (RUNNING, IMAGE, RUNNING), (SHORT, LONG)])
def test_split_gives_back_what_was_merged(
    tmp_path: Path, datasets: tuple[SyntheticDataset, ...], shared_places: bool, task_one_hot: bool
):
    merged = multitask.merge(datasets, shared_places=shared_places, task_one_hot=task_one_hot)
    merged.save(tmp_path / "merged.npz")
    with np.load(tmp_path / "merged.npz", allow_pickle=False) as archive:
        assert len(archive.files) == 3
    for whole in (merged, SyntheticDataset.load(tmp_path / "merged.npz")):
        parts = multitask.split(whole)
        assert len(parts) == len(datasets)
        for found, expected in zip(parts, datasets, strict=True):
            assert_same(found, expected)


def test_what_cannot_be_merged():
    fixed_init = dataclasses.replace(LONG, metadata=metadata("x/long", init_seed=3))
    for datasets, words in (
        ([], "datasets: expected two or more to merge, got 0"),
        ([SHORT], "datasets: expected two or more to merge, got 1"),
        ([SHORT, LONG.without_metadata()], r"datasets\[1\]: expected metadata and actions"),
        ([SHORT, RUNNING], r"datasets\[1\]: expected continuous actions as in the first dataset, got discrete"),
        (
            [RUNNING, RUNNING, SHORT],
            r"datasets\[2\]: expected discrete actions as in the first dataset, got continuous",
        ),
        ([SHORT, fixed_init], r"datasets\[1\]: metadata.init_seed: expected none, .* got 3"),
        ([multitask.merge([SHORT, LONG]), SHORT], r"datasets\[0\]: metadata.env: .* got a merged dataset"),
    ):
        with pytest.raises(ValueError, match=words):
            multitask.merge(datasets)
    with pytest.raises(ValueError, match=r"cloning.policy: expected mlp or residual_mlp.* got cnn"):
        multitask.merge([SHORT, LONG], cloning=CloningSettings(policy="cnn"))


def test_losses_for_the_other_kind_of_actions_are_refused():
    wrong = metadata("gymnax/Running", cloning=CloningSettings(loss="mse"))
    datasets = [dataclasses.replace(RUNNING, metadata=wrong), RUNNING]
    with pytest.raises(ValueError, match=r"tasks\[0\].metadata.cloning.loss: .* as cross_entropy, got mse"):
        multitask.merge(datasets, cloning=CLONING)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (["tasks"], [], "metadata.env_options.tasks: expected two or more, got 0"),
        (["tasks"], "both", "metadata.env_options.tasks: expected a list, got 'both'"),
        (["tasks", 1], 3, "tasks[1]: expected an object, got 3"),
        (["task_one_hot"], "yes", "task_one_hot: expected true or false, got 'yes'"),
        (["task_one_hot"], False, "observations: expected shape (5,) for the tasks, got (7,)"),
        (["shared_places"], True, "observations: expected shape (6,) for the tasks, got (7,)"),
        (["tasks", 0, "num_pairs"], 0, "tasks[0].num_pairs: expected a number above 0"),
        (["tasks", 0, "num_pairs"], 5, "expected 8 pairs, as many as the tasks have, got 5"),
        (["tasks", 0, "action_dim"], 1, "action_probabilities: expected those of the tasks"),
        (["tasks", 0, "observation_shape"], [], "observation_shape: expected a number above 0, got 0"),
        (["tasks", 0, "observation_shape"], [2, 1], "observation_mean: expected 2 numbers, got 4"),
        (["tasks", 0, "observation_mean"], None, "tasks[0].observation_mean: expected 4 numbers, got none"),
        (["tasks", 0, "observation_std", 1], 0.0, "tasks[0].observation_std: expected numbers above 0, got 0.0"),
        (["tasks", 1, "observation_mean"], [0.0], "tasks[1].observation_mean: expected no numbers, got 1"),
        (["tasks", 1, "metadata", "env"], "multitask", "tasks[1].metadata.env: expected the environment of a single"),
        (["tasks", 1, "metadata", "max_episode_steps"], 0, "tasks[1].metadata.max_episode_steps: expected a number"),
        (["tasks", 1, "metadata", "cloning", "loss"], "mse", "tasks[1].metadata.cloning.loss: expected one for"),
    ],
)
def test_malformed_merged_metadata_are_one_sentence(path: list[Any], value: Any, words: str):
    merged = multitask.merge([IMAGE, RUNNING], task_one_hot=True)
    options = json.loads(json.dumps(dataclasses.asdict(merged.metadata)["env_options"], default=dict))
    place = options
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    broken = dataclasses.replace(merged, metadata=dataclasses.replace(merged.metadata, env_options=options))
    with pytest.raises(ValueError) as caught:
        multitask.split(broken)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_merged_dataset_is_not_split():
    with pytest.raises(ValueError, match="metadata.env: expected multitask, as of a merged dataset, got x/short"):
        multitask.split(SHORT)
    with pytest.raises(ValueError, match="dataset: expected metadata"):
        multitask.split(SHORT.without_metadata())


def test_a_task_sees_its_padded_observations():
    joint = multitask.spaces(multitask.merge([RUNNING, IMAGE], task_one_hot=True).metadata)
    seen = []
    policy = Policy(lambda key: {}, lambda params, observations: seen.append(observations) or Categorical(jnp.zeros(3)))
    multitask.task_policy(policy, joint, 1).apply({}, jnp.arange(8.0).reshape(2, 1, 2, 1, 2))
    np.testing.assert_array_equal(seen[0], [[[0, 0, 1, 2, 3, 0, 1]], [[0, 4, 5, 6, 7, 0, 1]]])
    multitask.task_policy(policy, joint, 0).apply({}, jnp.array([5.0]))
    np.testing.assert_array_equal(seen[1], [5, 0, 0, 0, 0, 1, 0])


def test_a_task_has_its_own_actions():
    discrete = multitask.spaces(multitask.merge([IMAGE, RUNNING]).metadata)
    wide = constant_policy(Categorical(jnp.log(jnp.array([0.1, 0.3, 0.6]))))
    image = multitask.task_policy(wide, discrete, 0).apply({}, jnp.zeros((2, 1, 2)))
    np.testing.assert_allclose(jnp.exp(image.log_probs()), [0.25, 0.75], rtol=1e-6)
    assert int(image.mode()) == 1
    running = multitask.task_policy(wide, discrete, 1).apply({}, jnp.zeros(1))
    assert int(running.mode()) == 2
    continuous = multitask.spaces(multitask.merge([SHORT, LONG]).metadata)
    normal = constant_policy(DiagonalGaussian(jnp.array([[0.5, -1.0, 4.0]]), jnp.array([-2.0, 3.0, 7.0])))
    long = multitask.task_policy(normal, continuous, 1).apply({}, jnp.zeros((1, 2)))
    np.testing.assert_array_equal(long.mean, [[4.0]])
    np.testing.assert_array_equal(long.log_std, [7.0])


MATCHES = (Match(num_actions=2), Match(num_actions=4))


def match_dataset(env: Match, normalization: str = "none", shift: int = 0) -> SyntheticDataset:
    """Pairs that show the answer; `shift` teaches the action after it instead, which is never right."""
    said = metadata(
        env.name,
        env_options=env.options,
        max_episode_steps=env.max_steps,
        observation_normalization=normalization,
        evaluation=EvaluationSummary(0.0, None, 2, 4, 2),
    )
    shown = jnp.eye(env.num_actions)
    return SyntheticDataset(shown, action_probabilities=jnp.roll(shown, shift, axis=1), metadata=said)


def test_a_joint_policy_plays_what_single_policies_play():
    parts = [match_dataset(env) for env in MATCHES]
    merged = multitask.merge(parts)
    scores = evaluate_tasks(jax.random.key(0), MATCHES, merged, num_inits=3, num_episodes=4)
    for env, part, score in zip(MATCHES, parts, scores, strict=True):
        # The best that there is, in every episode.
        np.testing.assert_array_equal(score.joint.returns, np.full((3, 4), 10.0))
        expected = evaluate_dataset(jax.random.key(0), env, part, 3, 4)
        np.testing.assert_array_equal(score.single.returns, expected.returns)
        np.testing.assert_array_equal(score.single.returns, score.joint.returns)
        assert (score.ratio, score.fraction) == pytest.approx((1.0, 1.0))
        assert score.zero.mean < 7.5
        assert score.untrained.returns.shape == (3, 4)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [{}, {"shared_places": True, "task_one_hot": True}])
def test_places_and_the_one_hot_tell_tasks_apart_that_look_alike(flags: dict[str, bool]):
    env = MATCHES[1]
    # What is right in the first task is wrong in the second, for the same observations.
    merged = multitask.merge([match_dataset(env), match_dataset(env, shift=1)], **flags)
    right, wrong = evaluate_tasks(jax.random.key(0), (env, env), merged, num_inits=2, num_episodes=4)
    assert (right.joint.mean, wrong.joint.mean) == (10.0, 0.0)
    assert math.isnan(wrong.fraction)
    blind = multitask.merge([match_dataset(env), match_dataset(env, shift=1)], shared_places=True)
    first, second = evaluate_tasks(jax.random.key(0), (env, env), blind, num_inits=2, num_episodes=4)
    assert first.joint.mean == second.joint.mean < 10


def test_running_normalisation_is_that_of_the_task():
    parts = [match_dataset(MATCHES[0], "running"), match_dataset(MATCHES[1])]
    merged = multitask.merge(parts)
    scores = evaluate_tasks(jax.random.key(0), MATCHES, merged, num_inits=2, num_episodes=4)
    assert [score.joint.normalization_envs for score in scores] == [2, None]
    assert [score.single.normalization_envs for score in scores] == [2, None]
    with pytest.raises(ValueError, match="num_episodes: expected a multiple of 2"):
        evaluate_tasks(jax.random.key(0), MATCHES, merged, num_inits=2, num_episodes=3)
    # The same pairs without normalisation are played otherwise: the running mean of one-hots is not zero.
    joint, clone, params = train(merged)
    found = evaluate_policy(jax.random.key(1), MATCHES, joint, clone.policy, params, 4)
    task = multitask.task_policy(clone.policy, joint, 0)
    own = PolicyParams(params.network, parts[0].normalizer())
    expected = evaluate(jax.random.key(1), MATCHES[0], task, own, 4, "mode", normalization_envs=2)
    assert found[0].normalization_envs == 2
    np.testing.assert_array_equal(found[0].returns, expected.returns)


def train(merged: SyntheticDataset) -> tuple[multitask.JointSpaces, BehaviourCloning, PolicyParams]:
    joint = multitask.spaces(merged.metadata)
    clone = from_settings(joint, merged.metadata.cloning)
    return joint, clone, jax.jit(clone)(jax.random.key(0), merged)


@pytest.mark.slow
def test_fixed_statistics_are_those_of_the_task():
    env = Target(action_dim=1, max_steps=20)
    said = metadata(env.name, observation_normalization="fixed", cloning=dataclasses.replace(CLONING, loss="mse"))
    # The first task sees observations ten times larger: the same behaviour in another space.
    pairs = jnp.linspace(-10.0, 10.0, 9)[:, None]
    first = SyntheticDataset(pairs, pairs / 20, None, jnp.zeros(1), jnp.full(1, 0.1), metadata=said)
    wide = Target(action_dim=2, max_steps=20)
    plain = metadata(wide.name, cloning=dataclasses.replace(CLONING, loss="mse"))
    corners = jnp.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0], [0.0, 0.0]])
    second = SyntheticDataset(corners, corners / 2, metadata=plain)
    merged = multitask.merge([first, second])
    scores = evaluate_tasks(jax.random.key(0), (env, wide), merged, num_inits=2, num_episodes=4)
    # Always answering 0 expects -1/12 a step and component: -1.67 and -3.33.
    assert scores[0].joint.mean > -0.5
    assert scores[1].joint.mean > -1.0
    assert min(score.fraction for score in scores) > 0.7
    assert {score.ratio for score in scores} == {None}


def test_tasks_that_do_not_fit_their_environment_are_refused():
    merged = multitask.merge([match_dataset(env) for env in MATCHES])
    with pytest.raises(ValueError, match=r"env: observations of diagnostic/match have shape \(4,\), the dataset's"):
        evaluate_tasks(jax.random.key(0), MATCHES[::-1], merged)


def test_scores_by_hand():
    def evaluation(*per_init: float) -> Evaluation:
        return Evaluation(np.array([[value, value] for value in per_init]), np.ones((len(per_init), 2), int))

    low = evaluation(-200.0, -200.0)
    scores = TaskScores(evaluation(-100.0, -50.0), evaluation(-50.0, -50.0), low, low)
    assert scores.ratio is None
    np.testing.assert_allclose(scores.fraction_per_init, [100 / 150, 1.0])
    assert scores.fraction == pytest.approx(125 / 150)
    # Of a reference that spreads, too, an initialisation has its own share.
    spread = dataclasses.replace(scores, single=evaluation(-60.0, -40.0))
    assert spread.fraction == pytest.approx(125 / 150)
    np.testing.assert_allclose(spread.fraction_per_init, 125 / 150 + np.array([-25 + 25 / 3, 25 - 25 / 3]) / 150)
    above = dataclasses.replace(scores, joint=evaluation(30.0, 10.0), single=evaluation(40.0, 40.0))
    assert above.ratio == 0.5


def test_interval_of_a_fraction_covers():
    draws = np.random.default_rng(0)
    inits, covered, trials = 16, 0, 400

    def returns(mean: float, std: float) -> Evaluation:
        return Evaluation(draws.normal(mean, std, (inits, 1)), np.ones((inits, 1), int))

    for _ in range(trials):
        # The references spread far more than the joint policies.
        joint, single, zero = returns(80.0, 4.0), returns(100.0, 20.0), returns(0.0, 10.0)
        low, high = mean_interval(TaskScores(joint, single, zero, zero).fraction_per_init)
        covered += low <= 0.8 <= high
    assert covered / trials > 0.92


def test_policies_without_slices_are_refused():
    joint = multitask.spaces(multitask.merge([SHORT, LONG]).metadata)
    uniform = policies.uniform(joint)
    with pytest.raises(TypeError, match="expected a Categorical or DiagonalGaussian policy, got Uniform"):
        multitask.task_policy(uniform, joint, 0).apply((), jnp.zeros(1))
