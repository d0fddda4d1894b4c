"""Images as an environment, the synthetic ones, and the objective: contracts and values known by hand."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hades
from hades.distributions import Categorical
from hades.evaluation import DatasetEvaluator
from hades.fitness import Problem
from hades.images import ImageClassification, ImagePairs, LabelledImages
from hades.normalization import Normalizer
from hades.objectives import Classification
from hades.policies import Policy
from hades.rollouts import compiled_rollout
from hades.testing import check_environment, check_objective, check_parametrization
from hades.types import require_pure
from tests.images import CLASSES, TEST, TRAIN, make_data

ENV = ImageClassification("images/bands", make_data(TEST, 1))
KEY = jax.random.key(3)


def reading() -> Policy:
    """Names the class of the brightest band, plus the parameter, modulo the classes; NaN where that is NaN."""

    def apply(params: jax.Array, observations: jax.Array) -> Categorical:
        side = observations.shape[-2] // CLASSES
        bands = observations.reshape(*observations.shape[:-3], CLASSES, side, -1).mean((-2, -1))
        shift = jnp.nan_to_num(params).astype(jnp.int32)
        return Categorical(100 * jnp.roll(bands, shift, axis=-1) + 0 * params)

    return Policy(lambda key: jnp.float32(0), apply)


def test_the_environment_keeps_the_contract_and_nobody_trains_in_it() -> None:
    check_environment(ENV)
    assert (ENV.observation_shape, ENV.action_space.num_actions, ENV.max_steps) == ((6, 6, 1), CLASSES, 1)
    assert (ENV.options, dataclasses.replace(ENV, split="train").options) == ({}, {"split": "train"})
    with pytest.raises(ValueError, match="can only be evaluated"):
        require_pure(ENV)


def test_as_many_episodes_as_images_are_each_image_once() -> None:
    rollout = compiled_rollout(ENV, reading(), TEST, "mode")
    episodes = rollout(jax.random.split(KEY, 3), jnp.array([[0.0, 1.0, jnp.nan]]), Normalizer())
    assert episodes.returns.shape == (1, 3, TEST)
    named = np.argmax(np.asarray(ENV.data.images).reshape(TEST, CLASSES, -1).mean(-1), axis=-1)
    for index, shift in enumerate((0, 1)):
        expected = (named + shift) % CLASSES == np.asarray(ENV.data.labels)
        np.testing.assert_array_equal(episodes.returns[0, index], expected)
    assert np.asarray(episodes.returns[0, 0]).mean() > 0.9
    # It has diverged, which an integer would hide.
    assert np.isnan(episodes.returns[0, 2]).all()
    assert np.asarray(episodes.lengths == 1).all()


def test_fewer_episodes_are_drawn_without_replacement_and_shared_by_candidates() -> None:
    # Labels are all different, so that a policy's hits tell which images it has seen.
    data = LabelledImages(jnp.arange(30.0).reshape(30, 1, 1, 1) / 30, jnp.arange(30), 30)
    env = ImageClassification("images/numbers", data)

    def apply(params: jax.Array, observations: jax.Array) -> Categorical:
        return Categorical(jnp.broadcast_to(jax.nn.one_hot(params, 30), (*observations.shape[:-3], 30)))

    rollout = compiled_rollout(env, Policy(lambda key: jnp.int32(0), apply), 10, "mode")
    candidates = jnp.broadcast_to(jnp.arange(30)[:, None], (30, 2))
    returns = np.asarray(rollout(jax.random.split(KEY, 2), candidates, Normalizer()).returns)
    # Each of the ten images is hit by one candidate, and no image stands twice.
    np.testing.assert_array_equal(returns.sum(axis=0), np.ones((2, 10)))
    assert returns.max() == 1 and set(returns.sum(axis=2).ravel()) == {0.0, 1.0}
    assert (returns[:, 0] != returns[:, 1]).any()
    with pytest.raises(ValueError, match="num_episodes: expected at most 30, the images of images/numbers, got 31"):
        compiled_rollout(env, reading(), 31)
    with pytest.raises(ValueError, match="normalization_envs: expected none"):
        compiled_rollout(env, reading(), 10, normalization_envs=5)


def test_an_evaluation_is_the_accuracy_of_trained_networks() -> None:
    policy = hades.policies.mlp(ENV, (16,), "relu", head_gain=1.0)
    inner = hades.behaviour_cloning(policy, num_steps=60)
    real = ImagePairs(make_data()).references(KEY)
    evaluator = DatasetEvaluator(ENV, inner, 4, TEST, "mode", more_references=lambda key: real)
    dataset = real["class means"]
    assert evaluator(KEY, dataset).mean > 0.9
    references = evaluator.references(KEY, dataset)
    assert set(references) == {"random real images", "class means", "zero dataset", "untrained policy"}
    assert references["zero dataset"].mean < 0.6


@pytest.mark.parametrize("per_class", [1, 4])
@pytest.mark.parametrize("first", ["class_means", "real"])
@pytest.mark.parametrize("learn_labels", [True, False])
def test_synthetic_images_begin_at_real_ones_or_their_means(per_class: int, first: str, learn_labels: bool) -> None:
    data = make_data()
    pairs = ImagePairs(data, per_class, first, learn_labels)
    check_parametrization(pairs)
    dataset = pairs.decode(pairs.init(KEY))
    images, labels = np.asarray(dataset.observations), np.asarray(dataset.action_probabilities)
    np.testing.assert_array_equal(labels.argmax(-1), np.arange(per_class * CLASSES) % CLASSES)
    np.testing.assert_allclose(labels.max(-1), 0.9 + 0.1 / CLASSES if learn_labels else 1.0, rtol=1e-6)
    own = np.asarray(data.images)
    for number in range(CLASSES):
        of_class, real = images[number::CLASSES], own[np.asarray(data.labels) == number]
        if first == "real":
            # One row of the class each, no two the same.
            rows = [int(np.abs(real - image).sum((1, 2, 3)).argmin()) for image in of_class]
            np.testing.assert_array_equal(real[rows], of_class)
            assert len(set(rows)) == per_class
        else:
            # Parts of equal size: the mean of their means is that of the class.
            np.testing.assert_allclose(of_class.mean(0), real.mean(0), rtol=1e-5)
            assert len({image.tobytes() for image in of_class}) == per_class


def test_pixels_are_clipped_and_gradients_are_not() -> None:
    solution = {"observations": jnp.array([-1.0, 0.5, 2.0]).reshape(3, 1, 1, 1)}
    data = LabelledImages(jnp.zeros((3, 1, 1, 1)), jnp.arange(3), 3)
    for bounded, expected in ((True, [0.0, 0.5, 1.0]), (False, [-1.0, 0.5, 2.0])):
        pairs = ImagePairs(data, learn_labels=False, bounded=bounded)
        assert pairs.decode(solution).observations.ravel().tolist() == expected
        gradient = jax.grad(lambda x, pairs=pairs: pairs.decode(x).observations.sum())(solution)
        assert gradient["observations"].ravel().tolist() == [1.0, 1.0, 1.0]


def test_the_objective_is_minus_the_cross_entropy_or_the_accuracy() -> None:
    data = LabelledImages(jnp.zeros((3, 1, 1, 1)), jnp.array([0, 1, 1]), 2)
    policy = Policy(lambda key: jnp.zeros(2), lambda logits, images: Categorical(logits + 0 * images[..., 0, 0]))
    problem = Problem(jnp.array([[0, 1, 2, 2]]))
    params = jnp.log(jnp.array([[[0.25, 0.75]], [[0.5, 0.5]]]))
    values, counts = Classification(data, policy).value(problem, params)
    expected = [[(np.log(0.25) + 3 * np.log(0.75)) / 4], [np.log(0.5)]]
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    # Of a tie the first class is named.
    assert counts["accuracy"].tolist() == [0.75, 0.25]
    values, _ = Classification(data, policy, measure="accuracy").value(problem, params)
    assert values.tolist() == [[0.75], [0.25]]


@pytest.mark.parametrize("measure", ["cross_entropy", "accuracy"])
def test_a_network_that_diverged_has_no_value_and_names_no_image(measure) -> None:
    data = LabelledImages(jnp.zeros((3, 1, 1, 1)), jnp.array([0, 0, 1]), 2)
    policy = Policy(lambda key: jnp.zeros(2), lambda logits, images: Categorical(logits + 0 * images[..., 0, 0]))
    params = jnp.array([[[jnp.nan, jnp.nan]], [[1.0, 0.0]]])
    values, counts = Classification(data, policy, measure=measure).value(Problem(jnp.array([[0, 1]])), params)
    assert np.isnan(values).tolist() == [[True], [False]]
    # Its mode is class 0, which both images are of.
    assert counts["accuracy"].tolist() == [0.0, 1.0]


def test_the_objective_keeps_its_contract() -> None:
    policy = hades.policies.mlp(ENV, (4,))
    objective = Classification(make_data(), policy, num_images=8)
    check_objective(objective, policy)
    problem, state, metrics = objective.draw(KEY, (), hades.fitness.PresentPolicies(3))
    assert (problem.per_init.shape, state, metrics) == ((3, 8), (), {})
    assert 0 <= int(problem.per_init.min()) <= int(problem.per_init.max()) < TRAIN
