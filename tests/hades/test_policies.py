"""Architectures: shapes, batch axes, initialisation, and the convolution against an ordinary one."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hades import policies
from hades.distributions import Categorical, DiagonalGaussian
from hades.inner.cloning import CloningSettings
from hades.policies import NetworkSettings
from hades.types import Continuous, Discrete

VECTOR = SimpleNamespace(observation_shape=(5,), action_space=Discrete(3))
CONTINUOUS = SimpleNamespace(observation_shape=(5,), action_space=Continuous((-1.0, -2.0), (1.0, 2.0)))
IMAGE = SimpleNamespace(observation_shape=(4, 6, 2), action_space=Discrete(3))

ARCHITECTURES = {
    "mlp": (policies.mlp, VECTOR),
    "mlp-continuous": (policies.mlp, CONTINUOUS),
    "mlp-image": (policies.mlp, IMAGE),
    "linear": (partial(policies.mlp, hidden_sizes=()), VECTOR),
    "residual": (policies.residual_mlp, CONTINUOUS),
    "cnn": (policies.cnn, IMAGE),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_leading_axes_are_batch_axes(name):
    build, env = ARCHITECTURES[name]
    policy = build(env, kernel_init="he_normal")

    @jax.jit
    def play(key):
        params = policy.init(key)
        observations = jax.random.normal(key, (2, 3, *env.observation_shape))
        one_by_one = [jax.tree.leaves(policy.apply(params, observations[1, index]))[0] for index in range(3)]
        return jax.tree.leaves(policy.apply(params, observations))[0], jnp.stack(one_by_one)

    with jax.default_matmul_precision("highest"):
        batched, one_by_one = play(jax.random.key(0))
    assert batched.shape == (2, 3, 2 if isinstance(env.action_space, Continuous) else 3)
    np.testing.assert_allclose(batched[1], one_by_one, rtol=1e-5, atol=1e-6)
    assert np.std(batched, axis=(0, 1)).min() > 0


def test_mlp_is_the_composition_of_its_layers():
    policy = policies.mlp(CONTINUOUS, hidden_sizes=(7, 6), activation="relu", kernel_init="glorot_uniform")
    params = jax.jit(policy.init)(jax.random.key(0))
    observation = np.linspace(-1, 1, 5)
    layers = [params["torso"]["Dense_0"], params["torso"]["Dense_1"]]
    features = observation
    for layer in layers:
        features = np.maximum(features @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"]), 0)
    mean = features @ np.asarray(params["head"]["kernel"]) + np.asarray(params["head"]["bias"])
    distribution = jax.jit(policy.apply)(params, jnp.asarray(observation))
    np.testing.assert_allclose(distribution.mean, mean, rtol=1e-5)
    np.testing.assert_array_equal(distribution.log_std, np.zeros(2))


def test_residual_mlp_adds_every_hidden_layer_but_the_first():
    policy = policies.residual_mlp(VECTOR, hidden_sizes=(6, 6, 6), activation="tanh", kernel_init="lecun_normal")
    params = jax.jit(policy.init)(jax.random.key(0))
    observation = np.linspace(-1, 1, 5)
    first, *others = (params["torso"][f"Dense_{index}"] for index in range(3))
    features = np.tanh(observation @ np.asarray(first["kernel"]) + np.asarray(first["bias"]))
    for layer in others:
        features = features + np.tanh(features @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"]))
    logits = features @ np.asarray(params["head"]["kernel"]) + np.asarray(params["head"]["bias"])
    np.testing.assert_allclose(jax.jit(policy.apply)(params, jnp.asarray(observation)).logits, logits, rtol=1e-5)


def test_cnn_is_an_ordinary_convolution():
    policy = policies.cnn(IMAGE, hidden_sizes=(7,), channels=4, kernel_init="he_normal")
    params = jax.jit(policy.init)(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (3, *IMAGE.observation_shape))

    @jax.jit
    def by_convolution(params):
        convolution, dense, head = params["torso"]["Dense_0"], params["torso"]["Dense_1"], params["head"]
        # Patches hold the channels outermost: [channel, row, column].
        kernel = convolution["kernel"].reshape(2, 3, 3, 4).transpose(1, 2, 0, 3)
        layout = ("NHWC", "HWIO", "NHWC")
        features = jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=layout)
        features = nn.relu(features + convolution["bias"]).reshape(3, -1)
        return nn.relu(features @ dense["kernel"] + dense["bias"]) @ head["kernel"] + head["bias"]

    with jax.default_matmul_precision("highest"):
        expected, found = by_convolution(params), jax.jit(policy.apply)(params, images).logits
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_orthogonal_initialisation_has_the_published_gains():
    params = jax.jit(policies.mlp(CONTINUOUS, hidden_sizes=(5, 5)).init)(jax.random.key(0))
    for name in ("Dense_0", "Dense_1"):
        kernel = np.asarray(params["torso"][name]["kernel"])
        np.testing.assert_allclose(kernel.T @ kernel, 2 * np.eye(5), atol=1e-5)
    head = np.asarray(params["head"]["kernel"])
    np.testing.assert_allclose(head.T @ head, 1e-4 * np.eye(2), atol=1e-8)
    np.testing.assert_array_equal(params["log_std"], np.zeros(2))


def test_uniform_knows_nothing():
    discrete = policies.uniform(VECTOR).apply((), jnp.ones((7, 5)))
    assert isinstance(discrete, Categorical)
    np.testing.assert_allclose(jnp.exp(discrete.log_probs()), np.full((7, 3), 1 / 3), rtol=1e-6)
    continuous = policies.uniform(CONTINUOUS).apply((), jnp.ones((7, 5)))
    np.testing.assert_array_equal(continuous.low, np.tile([-1.0, -2.0], (7, 1)))
    np.testing.assert_array_equal(continuous.high, np.tile([1.0, 2.0], (7, 1)))


def test_from_settings_builds_what_they_say():
    settings = CloningSettings(policy="residual_mlp", hidden_sizes=(6, 6), activation="elu", kernel_init="he_normal")
    named = policies.from_settings(CONTINUOUS, settings)
    direct = policies.residual_mlp(CONTINUOUS, (6, 6), "elu", "he_normal")

    @jax.jit
    def play(key):
        observations = jnp.ones((2, 5))
        return [policy.apply(policy.init(key), observations) for policy in (named, direct)]

    found, expected = play(jax.random.key(0))
    assert isinstance(found, DiagonalGaussian)
    np.testing.assert_array_equal(found.mean, expected.mean)


@pytest.mark.parametrize(
    ("build", "env", "message"),
    [
        (partial(policies.residual_mlp, hidden_sizes=(8, 9)), VECTOR, "equal widths"),
        (partial(policies.residual_mlp, hidden_sizes=()), VECTOR, "equal widths"),
        (policies.cnn, VECTOR, "height, width, channels"),
    ],
)
def test_architectures_that_cannot_be_are_refused(build, env, message):
    with pytest.raises(ValueError, match=message):
        build(env)


@pytest.mark.parametrize(
    ("policy", "env"), [("mlp", VECTOR), ("mlp", IMAGE), ("residual_mlp", CONTINUOUS), ("cnn", IMAGE)]
)
def test_a_critic_has_the_torso_of_the_policy_and_a_head_of_gain_1(policy, env):
    settings = NetworkSettings(policy=policy, hidden_sizes=(8, 8))
    actor, critic = policies.from_settings(env, settings), policies.value_network(env, settings)
    params = jax.jit(critic.init)(jax.random.key(0))
    expected = jax.eval_shape(actor.init, jax.random.key(0))["torso"]
    assert jax.tree.map(jnp.shape, params["torso"]) == jax.tree.map(jnp.shape, expected)
    np.testing.assert_allclose(np.linalg.norm(params["head"]["kernel"]), 1.0, rtol=1e-5)
    assert critic.apply(params, jnp.ones((2, 3, *env.observation_shape))).shape == (2, 3)


def test_a_critic_of_a_wrong_shape_is_refused():
    with pytest.raises(ValueError, match="cnn needs observations"):
        policies.value_network(VECTOR, NetworkSettings(policy="cnn"))
