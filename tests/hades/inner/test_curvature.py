"""Curvature against dense Hessians, and steps on either side of the largest that descent bears."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import hades
from hades.dataset import SyntheticDataset
from hades.inner.cloning import BehaviourCloning, CloningLoss
from hades.inner.curvature import StableStep, largest_curvature
from hades.parametrizations import LearnedSteps, WarmStart
from hades.policies import Policy, PolicySpaces
from hades.types import Continuous, Discrete

SPACES = {
    "mse": PolicySpaces((3,), Continuous((-1.0, -1.0), (1.0, 1.0))),
    "gaussian_nll": PolicySpaces((3,), Continuous((-1.0, -1.0), (1.0, 1.0))),
    "cross_entropy": PolicySpaces((3,), Discrete(2)),
}


def pairs(loss: str) -> SyntheticDataset:
    observation_key, action_key = jax.random.split(jax.random.key(3))
    observations, targets = jax.random.normal(observation_key, (5, 3)), jax.random.normal(action_key, (5, 2))
    if loss == "cross_entropy":
        return SyntheticDataset(observations, action_probabilities=jax.nn.softmax(targets))
    # A dataset's own spread of actions takes the place of the policy's, by which the likelihood is steeper.
    return SyntheticDataset(observations, actions=targets, log_std=jnp.array([-0.5, 0.2]))


def same_init(policy: Policy) -> Policy:
    """The policy, which begins at the same parameters under every key."""
    return Policy(lambda key: policy.init(jax.random.key(7)), policy.apply)


def clone(loss: CloningLoss) -> BehaviourCloning:
    policy = same_init(hades.policies.mlp(SPACES[loss], hidden_sizes=(4,)))
    return hades.behaviour_cloning(policy, loss=loss, num_steps=3)


@pytest.mark.parametrize("loss", SPACES)
def test_it_is_the_largest_eigenvalue_of_the_hessian(loss):
    inner, dataset = clone(loss), pairs(loss)
    params = inner.init(jax.random.key(0))
    if dataset.log_std is not None:
        params = {**params, "log_std": dataset.log_std}
    flat, as_tree = ravel_pytree(params)

    def plain(flat):
        distribution = inner.policy.apply(as_tree(flat), dataset.observations)
        if loss == "mse":
            return jnp.mean(jnp.sum((distribution.mode() - dataset.actions) ** 2, axis=1))
        if loss == "gaussian_nll":
            return -jnp.mean(distribution.log_prob(dataset.actions))
        return -jnp.mean(jnp.sum(dataset.action_probabilities * distribution.log_probs(), axis=1))

    largest = np.abs(np.linalg.eigvalsh(np.asarray(jax.hessian(plain)(flat), np.float64))).max()
    found = jax.jit(lambda key: largest_curvature(key, inner, dataset))(jax.random.key(1))
    np.testing.assert_allclose(found, largest, rtol=0.02)
    assert found > 0.1


def test_it_is_the_largest_of_four_initialisations():
    # The curvature of scale * x^2 is twice the scale, of which each initialisation draws one.
    def drawn(key):
        return {"x": jnp.zeros(1), "scale": jax.random.uniform(key, minval=1.0, maxval=9.0)}

    policy = Policy(drawn, lambda params, seen: jax.lax.stop_gradient(params["scale"]) * params["x"] ** 2)
    inner = hades.behaviour_cloning(policy, loss=lambda values, batch: jnp.sum(values), num_steps=1)
    keys = jax.random.split(jax.random.key(0), 200)
    found = jax.vmap(lambda key: largest_curvature(key, inner, pairs("mse")))(keys)
    # The largest of four uniform numbers is four fifths of the way up on average, one alone half of it.
    np.testing.assert_allclose(jnp.mean(found), 2 + 0.8 * 16, rtol=0.05)


def test_networks_whose_convolutions_see_parameters_have_one_too():
    spaces = PolicySpaces((8, 8, 1), Discrete(2))
    network = hades.policies.convnet(spaces, hidden_sizes=(2, 2), kernel_init="lecun_normal")
    inner = hades.behaviour_cloning(network, num_steps=1)
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    found = largest_curvature(jax.random.key(1), inner, SyntheticDataset(images, action_probabilities=jnp.eye(2)))
    assert 0 < found < jnp.inf


def trained_loss(size: float, num_steps: int) -> float:
    """Quadratic loss after steps of a size relative to the largest that descent bears."""
    rate = 0.1
    policy = same_init(hades.policies.mlp(SPACES["mse"], hidden_sizes=()))
    inner = hades.behaviour_cloning(policy, optax.sgd(rate), num_steps, loss="mse", learned_step_sizes=True)
    dataset = dataclasses.replace(pairs("mse"), log_std=None)
    first = StableStep(inner, rate, fraction=size)(jax.random.key(0), dataset)
    dataset = dataclasses.replace(dataset, step_sizes=jnp.full(num_steps, first))
    params = inner.fit(jax.random.key(1), inner.init(jax.random.key(0)), dataset)
    return float(inner.loss_of_step(jax.random.key(2), params, dataset.pairs(), 0))


def test_descent_diverges_above_two_over_the_curvature_and_not_below():
    assert trained_loss(0.97, 200) < trained_loss(0.97, 1)
    assert trained_loss(1.03, 200) > 10 * trained_loss(1.03, 1)


def test_a_flat_loss_bears_any_step():
    policy = Policy(lambda key: {"x": jnp.zeros(2)}, lambda params, seen: params["x"])
    inner = hades.behaviour_cloning(policy, loss=lambda values, batch: jnp.sum(values), num_steps=1)
    assert StableStep(inner)(jax.random.key(0), pairs("mse")) == 1


def test_a_curvature_that_is_no_number_leaves_the_learning_rate_as_it_is():
    inner = clone("mse")
    spoiled = dataclasses.replace(pairs("mse"), observations=jnp.full((5, 3), jnp.nan))
    with jax.debug_nans(False):
        assert StableStep(inner)(jax.random.key(0), spoiled) == 1


@pytest.mark.parametrize("changes", [{"fraction": 0.0}, {"learning_rate": -1.0}])
def test_numbers_that_are_not_positive_are_refused(changes):
    with pytest.raises(ValueError, match=f"{next(iter(changes))}: expected"):
        StableStep(clone("mse"), **changes)


def test_learned_steps_begin_there_and_the_measured_size_stays():
    inner = clone("cross_entropy")
    first = StableStep(inner, learning_rate=0.5)
    steps = LearnedSteps(WarmStart(pairs("cross_entropy")), 3, first, bound=2.0)
    solution = steps.init(jax.random.key(5))
    decoded = steps.decode(solution)
    np.testing.assert_allclose(decoded.step_sizes, float(first(jax.random.key(5), decoded)), rtol=0.02)
    assert decoded.step_sizes.shape == (3,)

    gradient = jax.grad(lambda solution: steps.decode(solution).step_sizes.sum())(solution)
    assert gradient["log_first"] == 0 and np.all(gradient["step_sizes"] > 0)
    # Reaching the bound is a factor of it, as of a first size that is given.
    far = steps.decode({**solution, "step_sizes": jnp.full(3, 100.0)})
    np.testing.assert_allclose(far.step_sizes, 2 * decoded.step_sizes, rtol=1e-5)
