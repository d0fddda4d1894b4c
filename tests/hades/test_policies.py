"""Architectures: shapes, batch axes, initialisation, and the convolution against an ordinary one."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from hades import policies
from hades._initializers import orthogonal
from hades._networks import _patches
from hades.dataset import SyntheticDataset
from hades.distributions import Categorical, DiagonalGaussian
from hades.inner.cloning import CloningSettings, behaviour_cloning
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
    "convnet": (partial(policies.convnet, hidden_sizes=(4, 3)), IMAGE),
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


@pytest.mark.parametrize("shape", [(4, 6, 2), (1, 3, 1), (1, 1, 3)])
def test_patches_and_their_gradients_are_those_of_jax(shape):
    def of_jax(images):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated_patches(images, (3, 3), (1, 1), "SAME", dimension_numbers=layout)

    # Values are not linear in the images, so that gradients of gradients depend on both.
    def found(patches):
        def value(images, weights):
            return jnp.sum(jnp.tanh(patches(images)) * weights)

        def penalty(images, weights):
            return jnp.sum(jax.grad(value)(images, weights) ** 3)

        gradients = jax.vmap(jax.grad(penalty, argnums=(0, 1)), in_axes=(0, None))
        return jax.jit(jax.vmap(patches))(images), jax.jit(gradients)(images, weights)

    images = jax.random.normal(jax.random.key(0), (2, 3, *shape))
    weights = jax.random.normal(jax.random.key(1), (3, *shape[:2], 9 * shape[2]))
    with jax.default_matmul_precision("highest"):
        expected = found(of_jax)
    chex.assert_trees_all_close(found(_patches), expected, rtol=1e-5, atol=1e-5)


def test_convnet_is_convolution_normalisation_activation_and_pooling():
    image = SimpleNamespace(observation_shape=(5, 6, 2), action_space=Discrete(3))
    policy = policies.convnet(image, hidden_sizes=(4,), kernel_init="he_normal")
    params = jax.jit(policy.init)(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (3, *image.observation_shape))
    kernel = params["torso"]["Dense_0"]["kernel"].reshape(2, 3, 3, 4).transpose(1, 2, 0, 3)
    with jax.default_matmul_precision("highest"):
        layout = ("NHWC", "HWIO", "NHWC")
        features = jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=layout)
        found = jax.jit(policy.apply)(params, images).logits
    features = np.asarray(features, np.float64)
    mean, variance = (function(features, axis=(1, 2), keepdims=True) for function in (np.mean, np.var))
    features = np.maximum((features - mean) / np.sqrt(variance + 1e-5), 0)
    # The fifth row is left out.
    pooled = features[:, :4].reshape(3, 2, 2, 3, 2, 4).mean((2, 4)).reshape(3, -1)
    expected = pooled @ np.asarray(params["head"]["kernel"]) + np.asarray(params["head"]["bias"])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


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
    direct = policies.residual_mlp(CONTINUOUS, (6, 6), "elu", kernel_init="he_normal")

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
        (policies.convnet, VECTOR, "convnet needs observations .height, width, channels"),
    ],
)
def test_architectures_that_cannot_be_are_refused(build, env, message):
    with pytest.raises(ValueError, match=message):
        build(env)


@pytest.mark.parametrize(
    ("policy", "env"),
    [("mlp", VECTOR), ("mlp", IMAGE), ("residual_mlp", CONTINUOUS), ("cnn", IMAGE), ("convnet", IMAGE)],
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


# In a process of its own: what this guards against is a wait for ever, inside of compiled code.
MAPPED_INITIALISERS = """
import jax
import numpy as np
from functools import partial
from jax.sharding import Mesh, PartitionSpec
from types import SimpleNamespace
from hades import policies
from hades.types import Continuous

env = SimpleNamespace(observation_shape=(5,), action_space=Continuous((-1.0, -2.0), (1.0, 2.0)))
init = policies.mlp(env, (256, 256)).init
keys = jax.random.split(jax.random.key(0), 32)
mesh = Mesh(np.array(jax.devices()), ("inits",))
over_devices = partial(jax.shard_map, mesh=mesh, in_specs=PartitionSpec("inits"), out_specs=PartitionSpec("inits"))
found = {
    "vmap": jax.jit(jax.vmap(init))(keys),
    "nested": jax.tree.map(
        lambda leaf: leaf.reshape(32, *leaf.shape[2:]), jax.jit(jax.vmap(jax.vmap(init)))(keys.reshape(4, 8))
    ),
    "shard_map": jax.jit(over_devices(jax.vmap(init), check_vma=False))(keys),
    "scan": jax.tree.map(
        lambda leaf: leaf.reshape(32, *leaf.shape[2:]),
        jax.jit(lambda keys: jax.lax.scan(lambda _, keys: (None, jax.vmap(init)(keys)), None, keys)[1])(
            keys.reshape(4, 8)
        ),
    ),
}
expected = jax.jit(lambda keys: jax.lax.map(init, keys))(keys)
for name, params in found.items():
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6, err_msg=name), params, expected)
"""


@pytest.mark.slow
def test_mapped_orthogonal_initialisers_neither_wait_for_ever_nor_change():
    subprocess.run([sys.executable, "-c", MAPPED_INITIALISERS], check=True, timeout=240)


@pytest.mark.parametrize("shape", [(5, 7), (7, 5), (3, 3, 2, 4)])
def test_a_single_orthogonal_initialiser_is_that_of_jax(shape):
    key = jax.random.key(3)
    expected = jax.nn.initializers.orthogonal(0.3)(key, shape)
    np.testing.assert_array_equal(orthogonal(0.3)(key, shape), expected)


def test_equal_spaces_and_arguments_give_the_same_policy():
    same = SimpleNamespace(observation_shape=[5], action_space=Continuous((-1, -2), (1, 2)))
    for build in (policies.mlp, policies.residual_mlp, policies.uniform):
        assert build(CONTINUOUS) is build(same)
    assert policies.cnn(IMAGE, [8], channels=4) is policies.cnn(IMAGE, (8,), channels=4)
    cloning, network = CloningSettings(num_steps=3), NetworkSettings()
    assert policies.from_settings(same, cloning) is policies.from_settings(CONTINUOUS, network)
    assert policies.value_network(same, cloning) is policies.value_network(CONTINUOUS, network)
    policy = policies.mlp(CONTINUOUS, param_dtype="float32")
    assert policies.ensemble(policy, 3) is policies.ensemble(policies.mlp(same, (64, 64), "tanh"), 3)
    others = [policies.mlp(VECTOR), policies.mlp(CONTINUOUS, (64,)), policies.mlp(CONTINUOUS, activation="relu")]
    assert len({policy, *others, policies.mlp(CONTINUOUS, action_distribution="tanh_gaussian")}) == 5


class Unhashable(nn.Module):
    """A module with an attribute that cannot be hashed."""

    options: dict[str, int]

    @nn.compact
    def __call__(self, observations):
        return nn.Dense(self.options["outputs"])(observations.reshape(len(observations), -1))

    __hash__ = None


LINEN = {
    "vector": (nn.Dense(3), VECTOR),
    "continuous": (nn.Sequential([nn.Dense(4), nn.tanh, nn.Dense(2)]), CONTINUOUS),
    "image": (
        nn.Sequential([nn.Conv(2, (3, 3)), lambda features: features.reshape(len(features), -1), nn.Dense(3)]),
        IMAGE,
    ),
    "unhashable": (Unhashable({"outputs": 3}), IMAGE),
}


def make_two_layers(rngs):
    return nnx.Sequential(nnx.Linear(5, 4, rngs=rngs), jnp.tanh, nnx.Linear(4, 2, rngs=rngs))


@pytest.mark.parametrize("name", [*LINEN, "nnx"])
def test_modules_of_users_become_policies(name):
    if name == "nnx":
        env, policy = CONTINUOUS, policies.from_nnx(CONTINUOUS, make_two_layers)
        assert policies.from_nnx(CONTINUOUS, make_two_layers) is policy
    else:
        module, env = LINEN[name]
        policy = policies.from_linen(env, module)

    @jax.jit
    def play(key):
        params = jax.vmap(policy.init)(jax.random.split(key, 2))
        observations = jax.random.normal(key, (3, 4, *env.observation_shape))
        distribution = jax.vmap(policy.apply, in_axes=(0, None))(params, observations)
        single = policy.apply(jax.tree.map(lambda leaf: leaf[1], params), observations[2, 3])
        return distribution, single, params

    distribution, single, params = play(jax.random.key(0))
    outputs, expected = (jax.tree.leaves(each)[0] for each in (distribution, single))
    assert outputs.shape == (2, 3, 4, 2 if env is CONTINUOUS else 3)
    np.testing.assert_allclose(outputs[1, 2, 3], expected, rtol=1e-5, atol=1e-6)
    assert ("log_std" in params) == (env is CONTINUOUS)
    # The names that a file would give them are text.
    assert all(isinstance(key.key, str) for path, _ in jax.tree_util.tree_leaves_with_path(params) for key in path)


def test_an_nnx_policy_computes_what_its_module_does():
    policy, key = policies.from_nnx(CONTINUOUS, make_two_layers), jax.random.key(2)
    module, observations = make_two_layers(nnx.Rngs(key)), jnp.ones((3, 5))
    np.testing.assert_allclose(policy.apply(policy.init(key), observations).mean, module(observations), rtol=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: policies.from_linen(VECTOR, nn.Dense(2)), r"expected outputs of shape \(2, 3\)"),
        (lambda: policies.from_linen(VECTOR, nn.BatchNorm(use_running_average=True)), "params, got batch_stats"),
        (lambda: policies.from_nnx(VECTOR, lambda rngs: nnx.Linear(5, 4, rngs=rngs)), r"shape \(2, 3\)"),
        (lambda: policies.from_nnx(VECTOR, lambda rngs: nnx.BatchNorm(5, rngs=rngs)), "nnx.Param only, got also mean"),
    ],
)
def test_modules_that_are_no_policies_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_an_activation_may_be_drawn_with_each_initialisation():
    policy = policies.mlp(VECTOR, (4, 4), "tanh_or_relu")
    params = jax.vmap(policy.init)(jax.random.split(jax.random.key(0), 8))
    drawn = np.asarray(params["torso"]["relu"])
    assert set(drawn) == {0.0, 1.0}
    observations = jax.random.normal(jax.random.key(1), (4, 5))
    for index, gate in enumerate(drawn):
        own = jax.tree.map(lambda leaf, i=index: leaf[i], params)
        plain = policies.mlp(VECTOR, (4, 4), "relu" if gate else "tanh")
        torso = {name: leaf for name, leaf in own["torso"].items() if name != "relu"}
        expected = plain.apply({**own, "torso": torso}, observations).logits
        np.testing.assert_allclose(policy.apply(own, observations).logits, expected, rtol=1e-6)
    trained = behaviour_cloning(policy, optax.adam(0.1), num_steps=3).fit(
        jax.random.key(2),
        jax.tree.map(lambda leaf: leaf[0], params),
        SyntheticDataset(observations, action_probabilities=jnp.full((4, 3), 1 / 3)),
    )
    assert trained["torso"]["relu"] == drawn[0]
