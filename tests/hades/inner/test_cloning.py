"""The inner loop: against a plain Python loop of optax, and its gradient against finite differences."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hades import policies
from hades.dataset import SyntheticDataset
from hades.inner import cloning
from hades.inner.cloning import CloningSettings, behaviour_cloning, gaussian_nll
from hades.inner.described import settings_of
from hades.inner.identity import Identity
from hades.optimizers import make_optimizer
from hades.policies import NetworkSettings
from hades.types import Continuous, Discrete

CONTINUOUS = SimpleNamespace(observation_shape=(3,), action_space=Continuous((-1.0, -1.0), (1.0, 1.0)))
DISCRETE = SimpleNamespace(observation_shape=(3,), action_space=Discrete(4))
LOSSES = {"gaussian_nll": CONTINUOUS, "mse": CONTINUOUS, "cross_entropy": DISCRETE}

OPTIMIZERS = {
    "adam-clip": (
        CloningSettings(optimizer="adam", learning_rate=0.03, max_grad_norm=0.5),
        optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.03, b1=0.9, b2=0.999, eps=1e-5)),
    ),
    "sgd-momentum": (CloningSettings(optimizer="sgd", learning_rate=0.1, momentum=0.9), optax.sgd(0.1, momentum=0.9)),
}


def optimizer_of(settings):
    """The optimiser that an inner loop of these settings has."""
    return cloning.from_settings(CONTINUOUS, settings).optimizer


def make_policy(env, param_dtype=jnp.float32):
    return policies.mlp(env, hidden_sizes=(6,), kernel_init="lecun_normal", param_dtype=param_dtype)


def make_dataset(env, pairs=5, dtype=np.float32):
    generator = np.random.default_rng(0)
    observations = generator.normal(size=(pairs, 3)).astype(dtype)
    if env is DISCRETE:
        return SyntheticDataset(observations, action_probabilities=generator.dirichlet(np.ones(4), pairs).astype(dtype))
    return SyntheticDataset(observations, actions=generator.normal(size=(pairs, 2)).astype(dtype))


def reference_loss(name, distribution, dataset):
    """The three losses as formulas of their own."""
    if name == "cross_entropy":
        log_probs = distribution.logits - jax.nn.logsumexp(distribution.logits, axis=1, keepdims=True)
        return -(dataset.action_probabilities * log_probs).sum() / len(log_probs)
    error = dataset.actions - distribution.mean
    if name == "mse":
        return (error**2).sum() / len(error)
    std = jnp.exp(distribution.log_std)
    return (error**2 / (2 * std**2) + jnp.log(std) + 0.5 * np.log(2 * np.pi)).sum() / len(error)


# Five rows of five pairs, with replacement: the reference is compiled once for both.
@pytest.mark.parametrize("batch_size", [None, 5], ids=["full", "minibatch"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_kernel_is_a_plain_loop_of_optax(loss, optimizer, batch_size):
    settings, reference_optimizer = OPTIMIZERS[optimizer]
    env, num_steps = LOSSES[loss], 7
    policy, dataset = make_policy(env), make_dataset(env)
    clone = behaviour_cloning(policy, optimizer_of(settings), num_steps, loss, batch_size)
    key = jax.random.key(3)

    @jax.jit
    def update(params, state, batch):
        def objective(params):
            return reference_loss(loss, policy.apply(params, batch.observations), batch)

        updates, state = reference_optimizer.update(jax.grad(objective)(params), state, params)
        return optax.apply_updates(params, updates), state

    with jax.default_matmul_precision("highest"):
        found = jax.jit(clone)(key, dataset).network
        init_key, batch_key = jax.random.split(key)
        fresh = params = jax.jit(policy.init)(init_key)
        state = reference_optimizer.init(params)
        for step in range(num_steps):
            batch = dataset
            if batch_size:
                rows = jax.random.randint(jax.random.fold_in(batch_key, step), (batch_size,), 0, dataset.num_pairs)
                batch = jax.tree.map(lambda leaf: leaf[np.asarray(rows)], dataset)  # noqa: B023
            params, state = update(params, state, batch)

    for path, leaf in jax.tree.leaves_with_path(found):
        expected = dict(jax.tree.leaves_with_path(params))[path]
        np.testing.assert_allclose(leaf, expected, rtol=0, atol=1e-6, err_msg=str(path))
    moved = jax.tree.map(lambda new, old: float(jnp.abs(new - old).max()), found, fresh)
    assert moved["head"]["kernel"] > 0.01


def test_minibatches_are_drawn_anew_at_every_step_and_follow_the_key():
    policy, dataset = make_policy(CONTINUOUS), make_dataset(CONTINUOUS, pairs=20)
    seen = []

    def loss(distribution, batch):
        jax.debug.callback(lambda rows: seen.append(np.asarray(rows)), batch.observations[:, 0])
        return gaussian_nll(distribution, batch)

    clone = behaviour_cloning(policy, optax.sgd(0.1), num_steps=4, loss=loss, batch_size=3)
    fit = jax.jit(clone.fit)
    params = jax.jit(policy.init)(jax.random.key(0))
    for seed in (0, 0, 1):
        jax.block_until_ready(fit(jax.random.key(seed), params, dataset))
        jax.effects_barrier()
    first, again, other = ({tuple(row.tolist()) for row in seen[start : start + 4]} for start in range(0, len(seen), 4))
    assert len(seen) == 12
    assert len(first) == 4
    assert first == again
    assert first != other
    assert set(np.concatenate(seen).tolist()) <= set(dataset.observations[:, 0].tolist())


def test_a_sampled_loss_draws_anew_at_every_step_and_clones_the_spread():
    # E (mean + std * noise - target)^2 = (mean - target)^2 + std^2: the spread shrinks, where mse leaves it alone.
    policy, dataset = make_policy(CONTINUOUS), make_dataset(CONTINUOUS)
    fits = {
        loss: jax.jit(behaviour_cloning(policy, optax.adam(0.03), 150, loss))(jax.random.key(0), dataset).network
        for loss in ("mse", "sampled_mse")
    }
    np.testing.assert_array_equal(fits["mse"]["log_std"], 0)
    assert np.all(np.asarray(fits["sampled_mse"]["log_std"]) < -1)
    mode = policy.apply(fits["sampled_mse"], dataset.observations).mode()
    assert float(jnp.mean(jnp.square(mode - dataset.actions))) < 0.5 * float(jnp.mean(jnp.square(dataset.actions)))
    again = jax.jit(behaviour_cloning(policy, optax.adam(0.03), 150, "sampled_mse"))(jax.random.key(1), dataset)
    assert not np.allclose(again.network["log_std"], fits["sampled_mse"]["log_std"])


def meta_objective(env, loss, rematerialize=False, dtype=jnp.float64, num_steps=20):
    """A scalar of cloned parameters, as a function of the dataset."""
    policy = make_policy(env, dtype)
    optimizer = optimizer_of(OPTIMIZERS["adam-clip"][0])
    clone = behaviour_cloning(policy, optimizer, num_steps, loss, rematerialize=rematerialize)

    def objective(dataset):
        distribution = policy.apply(clone(jax.random.key(0), dataset).network, jnp.linspace(-1, 1, 3, dtype=dtype))
        return sum(jnp.sum(jnp.sin(leaf + 0.3)) for leaf in jax.tree.leaves(distribution))

    return objective


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_with_respect_to_the_dataset_is_that_of_finite_differences(loss):
    with jax.enable_x64(True):
        dataset = make_dataset(LOSSES[loss], dtype=np.float64)
        objective = jax.jit(jax.value_and_grad(meta_objective(LOSSES[loss], loss)))
        _, gradient = objective(dataset)
        assert gradient.observations.dtype == np.float64
        generator = np.random.default_rng(1)
        for name in ("observations", "action_probabilities" if loss == "cross_entropy" else "actions"):
            array, slope = getattr(dataset, name), np.asarray(getattr(gradient, name))
            for _ in range(3):
                direction = generator.normal(size=array.shape)
                h = 1e-5
                # Central differences of fourth order: a step of 1e-5 leaves 1e-10 of rounding, and less of truncation.
                weights = {1: 8, -1: -8, 2: -1, -2: 1}
                values = {k: float(objective(dataset.replace(**{name: array + k * h * direction}))[0]) for k in weights}
                expected = sum(weights[k] * values[k] for k in weights) / (12 * h)
                assert abs(expected) > 1e-3
                assert abs((slope * direction).sum() - expected) <= 1e-6 * abs(expected)


def test_rematerialisation_changes_nothing_but_memory():
    results, memory = [], []
    with jax.enable_x64(True):
        dataset = make_dataset(CONTINUOUS, pairs=200, dtype=np.float64)
        for rematerialize in (False, True):
            gradient = jax.value_and_grad(meta_objective(CONTINUOUS, "gaussian_nll", rematerialize))
            compiled = jax.jit(gradient).lower(dataset).compile()
            results.append(compiled(dataset))
            memory.append(compiled.memory_analysis().temp_size_in_bytes)
    for plain, recomputed in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(recomputed, plain, rtol=1e-12, atol=1e-14)
    # A hidden layer is 200 x 6 numbers at every step, while the parameters, which are kept in both, are 40.
    assert memory[1] < 0.5 * memory[0]


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "default"])
def test_meta_gradient_is_finite_where_a_parameter_has_no_gradient(optimizer):
    # The derivative of the square root in Adam's denominator is infinite there: log_std under mse, weights of silent
    # units, and the first layer on observations that are zero, as datasets begin.
    settings = None if optimizer == "default" else optimizer_of(CloningSettings(optimizer=optimizer))
    policy = make_policy(CONTINUOUS)
    clone = behaviour_cloning(policy, settings, num_steps=3, loss="mse")
    zeros = SyntheticDataset(jnp.zeros((2, 3)), actions=jnp.ones((2, 2)))

    def objective(dataset):
        return jnp.sum(policy.apply(clone(jax.random.key(0), dataset).network, jnp.ones(3)).mean)

    gradient = jax.jit(jax.grad(objective))(zeros)
    assert np.isfinite(gradient.observations).all()
    assert np.abs(gradient.actions).min() > 0


def test_only_parameters_come_out():
    policy, dataset = make_policy(CONTINUOUS), make_dataset(CONTINUOUS)
    clone = behaviour_cloning(policy, optax.adam(0.01), num_steps=2)
    found = jax.eval_shape(clone, jax.random.key(0), dataset)
    assert jax.tree.leaves(found.normalizer) == []
    expected = jax.eval_shape(policy.init, jax.random.key(0))
    assert jax.tree.structure(found.network) == jax.tree.structure(expected)
    assert jax.tree.leaves(found.network) == jax.tree.leaves(expected)


def test_fixed_statistics_travel_with_the_parameters_and_do_not_touch_training():
    dataset, clone = make_dataset(CONTINUOUS), behaviour_cloning(make_policy(CONTINUOUS), num_steps=2)
    fixed = dataset.replace(observation_mean=np.full(3, 9.0, np.float32), observation_std=np.full(3, 0.1, np.float32))
    plain, normalized = (jax.jit(clone)(jax.random.key(0), data) for data in (dataset, fixed))
    assert normalized.normalizer.kind == "fixed"
    np.testing.assert_array_equal(normalized.normalizer.mean, fixed.observation_mean)
    jax.tree.map(np.testing.assert_array_equal, normalized.network, plain.network)


def test_a_loss_of_ones_own_takes_the_place_of_the_named_ones():
    def to_seven(distribution, dataset):
        return jnp.mean(jnp.square(distribution.mean - 7.0))

    policy = make_policy(CONTINUOUS)
    clone = behaviour_cloning(policy, optax.adam(0.05), num_steps=300, loss=to_seven)
    params = jax.jit(clone)(jax.random.key(0), make_dataset(CONTINUOUS))
    np.testing.assert_allclose(policy.apply(params.network, make_dataset(CONTINUOUS).observations).mean, 7.0, atol=0.05)


@pytest.mark.parametrize(("env", "name"), [(CONTINUOUS, "gaussian_nll"), (DISCRETE, "cross_entropy")])
def test_the_default_loss_follows_the_kind_of_targets(env, name):
    assert cloning.default_loss(make_dataset(env)) is cloning.LOSSES[name]
    policy, key = make_policy(env), jax.random.key(0)
    implied, named = (jax.jit(behaviour_cloning(policy, num_steps=3, loss=loss)) for loss in (None, name))
    jax.tree.map(np.testing.assert_array_equal, implied(key, make_dataset(env)), named(key, make_dataset(env)))


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_settings_describe_the_optimizer(optimizer):
    settings = CloningSettings(optimizer=optimizer, learning_rate=0.02, adam_eps=1e-3, momentum=0.5)
    expected = {"adam": optax.adam(0.02, eps=1e-3), "adamw": optax.adamw(0.02, eps=1e-3), "sgd": optax.sgd(0.02, 0.5)}
    params = {"x": jnp.array([1.0, -3.0])}

    @jax.jit
    def two_updates():
        results = []
        for build in (optimizer_of(settings), expected[optimizer]):
            state = build.init(params)
            for gradient in ({"x": jnp.array([0.3, 2.0])}, {"x": jnp.array([-0.1, 5.0])}):
                updates, state = build.update(gradient, state, params)
            results.append(updates["x"])
        return results

    np.testing.assert_allclose(*two_updates(), rtol=1e-6)


def test_settings_clip_the_global_norm():
    optimizer = optimizer_of(CloningSettings(optimizer="sgd", learning_rate=1.0, max_grad_norm=0.5))
    updates, _ = optimizer.update(jnp.array([3.0, 4.0]), optimizer.init(jnp.zeros(2)), jnp.zeros(2))
    np.testing.assert_allclose(updates, [-0.3, -0.4], rtol=1e-6)


@pytest.mark.parametrize("optimizer", [optax.sgd(0.1), optax.adam(0.1)])
def test_a_spread_multiplies_all_steps_of_a_training_by_one_factor(optimizer):
    dataset, keys = make_dataset(DISCRETE), jax.random.split(jax.random.key(4), 64)
    clone = behaviour_cloning(make_policy(DISCRETE), optimizer, num_steps=3, step_size_spread=3.0)
    factors = np.array([clone._step_size_factor(key) for key in keys])
    assert 1 / 3 <= factors.min() < 0.5 and 2 < factors.max() <= 3
    assert abs(np.log(factors).mean()) < 3 * np.log(3) / np.sqrt(3 * len(keys))
    params = clone.init(jax.random.key(0))
    scaled = optax.chain(optimizer, optax.scale(float(factors[0])))
    chex.assert_trees_all_close(
        clone.fit(keys[0], params, dataset),
        dataclasses.replace(clone, optimizer=scaled, step_size_spread=1.0).fit(keys[1], params, dataset),
        rtol=1e-5,
    )


def test_a_spread_below_one_is_refused():
    with pytest.raises(ValueError, match="^step_size_spread: expected a number of at least 1, got 0.5"):
        behaviour_cloning(make_policy(DISCRETE), step_size_spread=0.5)


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="num_steps: expected at least 1, got 0"):
        behaviour_cloning(make_policy(CONTINUOUS), num_steps=0)


def test_an_empty_minibatch_is_refused():
    with pytest.raises(ValueError, match="^batch_size: expected a number above 0, got 0"):
        behaviour_cloning(make_policy(DISCRETE), batch_size=0)


def test_an_unknown_loss_is_refused():
    with pytest.raises(
        ValueError, match="loss: expected one of gaussian_nll, mse, sampled_mse, cross_entropy, got 'huber'"
    ):
        behaviour_cloning(make_policy(CONTINUOUS), loss="huber")


def test_equal_settings_give_equal_inner_loops_and_an_unknown_optimiser_is_refused():
    settings = CloningSettings(loss="mse", max_grad_norm=0.5)
    assert cloning.from_settings(CONTINUOUS, settings) == cloning.from_settings(CONTINUOUS, settings)
    assert hash(cloning.from_settings(CONTINUOUS, settings)) == hash(cloning.from_settings(CONTINUOUS, settings))
    assert cloning.from_settings(CONTINUOUS, settings) != cloning.from_settings(DISCRETE, CloningSettings())
    with pytest.raises(ValueError, match="optimizer: expected adam, adamw or sgd, got 'lion'"):
        make_optimizer("lion", 0.1)


@pytest.mark.parametrize(
    ("changes", "described"),
    [
        ({}, True),
        ({"rematerialize": True}, True),
        ({"window": 3}, True),
        ({"num_steps": 7}, False),
        ({"optimizer": optax.sgd(0.1)}, False),
        ({"loss": gaussian_nll, "batch_size": 2}, False),
        ({"step_size_spread": 2.0}, False),
    ],
)
def test_files_describe_an_inner_loop_only_by_settings_that_are_true(changes, described):
    settings = CloningSettings(hidden_sizes=(4,), loss="mse", num_steps=5)
    loop = dataclasses.replace(cloning.from_settings(CONTINUOUS, settings), **changes)
    assert settings_of(loop, CONTINUOUS) == (settings if described else None)


def test_inner_loops_by_hand_and_policies_of_ones_own_are_not_described():
    assert settings_of(behaviour_cloning(make_policy(CONTINUOUS)), CONTINUOUS) is None
    network = NetworkSettings(hidden_sizes=(4,))
    policy = policies.from_settings(CONTINUOUS, network)
    assert settings_of(Identity(policy, network), CONTINUOUS).hidden_sizes == (4,)
    assert settings_of(Identity(policy), CONTINUOUS) is None
    assert settings_of(Identity(make_policy(CONTINUOUS), network), CONTINUOUS) is None
