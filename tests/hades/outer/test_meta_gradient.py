"""Gradients through the inner loop: against finite differences, a reverse pass by hand, and as an outer loop."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from hades import policies
from hades.dataset import SyntheticDataset
from hades.fitness import Problem, draw_inits, make_fitness
from hades.inner.cloning import behaviour_cloning
from hades.normalization import Normalizer
from hades.objectives import states as objectives
from hades.objectives.states import LabelledStates, OfflineStates
from hades.optimizers import make_optimizer
from hades.outer import Evolution, EvolutionSettings
from hades.outer.meta_gradient import MetaGradient, MetaGradientSettings
from hades.types import Continuous

SPACES = SimpleNamespace(observation_shape=(3,), action_space=Continuous((-1.0, -1.0), (1.0, 1.0)))
LEARNING_RATE, MOMENTUM, STEPS = 0.1, 0.7, 6
OBJECTIVES = {
    part.name: part
    for part in (
        objectives.dbc,
        objectives.pbc,
        objectives.av_pbc,
        objectives.sdw_pbc,
        objectives.sdw_av_pbc,
        objectives.pbc_mean_weight,
        objectives.q_pbc,
    )
}


def make_clone(hidden_sizes=(6,), rematerialize=False, num_steps=STEPS, window=None):
    policy = policies.mlp(
        SPACES,
        hidden_sizes,
        kernel_init="lecun_normal",
        param_dtype=jnp.float64,
        action_distribution="tanh_gaussian",
    )
    optimizer = optax.sgd(LEARNING_RATE, momentum=MOMENTUM)
    return behaviour_cloning(policy, optimizer, num_steps, "mse", rematerialize=rematerialize, window=window)


def make_pairs(pairs=5):
    generator = np.random.default_rng(0)
    return {
        "observations": generator.normal(size=(pairs, 3)),
        "actions": generator.uniform(-0.9, 0.9, size=(pairs, 2)),
    }


@struct.dataclass
class Smooth:
    """A teacher of which only the action value is asked."""

    def q(self, observations, actions):
        return jnp.sin(observations[..., 0] + actions.sum(-1)) - jnp.square(actions[..., 1])


def make_states(count=9):
    generator = np.random.default_rng(1)
    return LabelledStates(
        generator.normal(size=(count, 3)),
        actions=generator.uniform(-1, 1, size=(count, 2)),
        teacher_actions=generator.uniform(-1, 1, size=(count, 2)),
        action_values=generator.normal(300, 80, size=count),
        state_weights=generator.gamma(2, 0.5, size=count),
        mean_action_value=np.float64(300.0),
        critic=objectives.Critic(Smooth(), Normalizer(), np.float64(3.0)),
    )


class Pairs:
    """Solutions are pairs."""

    def decode(self, pairs):
        return SyntheticDataset(pairs["observations"], actions=pairs["actions"])


def make_value(objective, clone, action_selection="mode", inits=2):
    """F of one candidate on given states."""

    def value(pairs, states):
        chosen = OfflineStates(
            states, Normalizer(), None, clone.policy, OBJECTIVES[objective], action_selection=action_selection
        )
        fitness = make_fitness(Pairs(), clone, chosen)
        problem = Problem(jax.random.split(jax.random.key(4), inits), states)
        draw = draw_inits(clone, jax.random.key(3), inits).replace(problem=problem)
        return fitness(draw, jax.tree.map(lambda leaf: leaf[None], pairs))[0][0]

    return value


@pytest.fixture(scope="module", params=["mode", "sample"])
def weighted_sum(request):
    """Value and gradient of a weighted sum of all objectives, compiled once for all of them."""
    values = [make_value(objective, make_clone(), request.param) for objective in OBJECTIVES]

    def weighted(pairs, states, weights):
        return sum(weight * value(pairs, states) for weight, value in zip(weights, values, strict=True))

    with jax.enable_x64(True):
        return jax.jit(jax.value_and_grad(weighted))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_meta_gradient_is_that_of_finite_differences(weighted_sum, objective):
    with jax.enable_x64(True):
        pairs, states = make_pairs(), make_states()
        chosen = np.array([float(name == objective) for name in OBJECTIVES])
        _, gradient = weighted_sum(pairs, states, chosen)
        generator = np.random.default_rng(2)
        for name, array in pairs.items():
            direction, h = generator.normal(size=array.shape), 1e-4
            # Central differences of fourth order.
            weights = {1: 8, -1: -8, 2: -1, -2: 1}
            values = {
                k: float(weighted_sum({**pairs, name: array + k * h * direction}, states, chosen)[0]) for k in weights
            }
            expected = sum(weights[k] * values[k] for k in weights) / (12 * h)
            found = float((np.asarray(gradient[name]) * direction).sum())
            assert gradient[name].dtype == np.float64
            assert abs(expected) > 1e-3
            assert abs(found - expected) <= 1e-6 * abs(expected)


def reverse_pass_by_hand(pairs, states, kernel, bias):
    """dF/dD of PBC for a linear policy behind tanh and SGD with momentum, in numpy."""
    x, y = pairs["observations"], pairs["actions"]
    tape, momentum_kernel, momentum_bias = [], 0.0, 0.0
    for _ in range(STEPS):
        mode = np.tanh(x @ kernel + bias)
        slope = 1 - mode**2
        error = 2 / len(x) * (mode - y) * slope
        tape.append((kernel, mode, slope, error))
        momentum_kernel = x.T @ error + MOMENTUM * momentum_kernel
        momentum_bias = error.sum(axis=0) + MOMENTUM * momentum_bias
        kernel, bias = kernel - LEARNING_RATE * momentum_kernel, bias - LEARNING_RATE * momentum_bias
    s = states.observations
    acted = np.tanh(s @ kernel + bias)
    outer = -2 / acted.size * (acted - states.teacher_actions) * (1 - acted**2)
    kernel_bar, bias_bar = s.T @ outer, outer.sum(axis=0)
    momentum_kernel_bar, momentum_bias_bar = 0.0, 0.0
    x_bar, y_bar = np.zeros_like(x), np.zeros_like(y)
    for kernel, mode, slope, error in reversed(tape):
        momentum_kernel_bar = momentum_kernel_bar - LEARNING_RATE * kernel_bar
        momentum_bias_bar = momentum_bias_bar - LEARNING_RATE * bias_bar
        # The gradient step is <error, x V + v> with V and v the adjoints of its results.
        pulled = x @ momentum_kernel_bar + momentum_bias_bar
        inner = 2 / len(x) * (slope**2 - 2 * (mode - y) * mode * slope) * pulled
        x_bar += inner @ kernel.T + error @ momentum_kernel_bar.T
        y_bar += -2 / len(x) * slope * pulled
        kernel_bar, bias_bar = kernel_bar + x.T @ inner, bias_bar + inner.sum(axis=0)
        momentum_kernel_bar, momentum_bias_bar = MOMENTUM * momentum_kernel_bar, MOMENTUM * momentum_bias_bar
    return {"observations": x_bar, "actions": y_bar}


def test_meta_gradient_is_a_reverse_pass_by_hand_through_momentum():
    with jax.enable_x64(True):
        clone, pairs, states = make_clone(hidden_sizes=()), make_pairs(), make_states()
        found = jax.jit(jax.grad(make_value("pbc", clone, inits=1)))(pairs, states)
        fresh = jax.tree.map(lambda leaf: leaf[0], draw_inits(clone, jax.random.key(3), 1).initial)["head"]
        expected = reverse_pass_by_hand(pairs, states, np.asarray(fresh["kernel"]), np.asarray(fresh["bias"]))
    for name, array in expected.items():
        assert np.abs(np.asarray(found[name]) - array).max() <= 1e-10 * np.abs(array).max()


def test_rematerialisation_changes_no_meta_gradient():
    with jax.enable_x64(True):
        pairs, states = make_pairs(), make_states()
        plain, again = (
            jax.jit(jax.grad(make_value("av-pbc", make_clone(rematerialize=remat), inits=1)))(pairs, states)
            for remat in (False, True)
        )
    for name in plain:
        assert np.abs(np.asarray(plain[name]) - np.asarray(again[name])).max() <= 1e-12 * np.abs(plain[name]).max()


def test_a_window_of_all_steps_is_no_window_and_a_shorter_one_cuts_the_gradient():
    pairs, states = make_pairs(), make_states()
    with jax.enable_x64(True):
        gradients = {
            window: jax.jit(jax.grad(make_value("pbc", make_clone(window=window), inits=1)))(pairs, states)
            for window in (None, STEPS, 2)
        }
    for name in pairs:
        np.testing.assert_allclose(gradients[STEPS][name], gradients[None][name], rtol=1e-12)
        assert np.abs(np.asarray(gradients[2][name]) - np.asarray(gradients[None][name])).max() > 1e-3


def test_a_window_ends_at_every_step_that_it_may_and_sees_the_parameters_of_that_step():
    window, policy_steps = 2, 5
    clone = make_clone(num_steps=policy_steps, window=window)
    with jax.enable_x64(True):
        pairs = make_pairs()
        dataset = SyntheticDataset(pairs["observations"], actions=pairs["actions"])
        fresh = clone.policy.init(jax.random.key(0))
        fit = jax.jit(lambda key: clone.fit(key, fresh, dataset)["head"]["bias"])
        found = {tuple(np.asarray(fit(jax.random.key(seed))).round(9).tolist()) for seed in range(60)}
        expected = set()
        for steps in range(window, policy_steps + 1):
            params = make_clone(num_steps=steps).fit(jax.random.key(0), fresh, dataset)
            expected.add(tuple(np.asarray(params["head"]["bias"]).round(9).tolist()))
    assert found == expected


@pytest.mark.parametrize("window", [0, STEPS + 1])
def test_a_window_outside_of_the_inner_loop_is_refused(window):
    with pytest.raises(ValueError, match=f"window: expected a number from 1 to {STEPS}.*got {window}"):
        make_clone(window=window)


def quadratic(population):
    return -jnp.sum(jnp.square(population - jnp.array([1.0, -2.0])), axis=-1), {
        "counted": jnp.ones(len(population), jnp.int32)
    }


@pytest.mark.parametrize(
    "outer",
    [
        MetaGradient.from_settings(MetaGradientSettings(learning_rate=0.1)),
        Evolution(32, EvolutionSettings(sigma=0.1, learning_rate=0.1)),
    ],
    ids=["meta-gradient", "evolution"],
)
def test_outer_loops_take_each_others_place(outer):

    def step(state, key):
        return outer.step(key, state, quadratic)

    state, metrics = jax.lax.scan(
        step, outer.init(jax.random.key(0), jnp.zeros(2)), jax.random.split(jax.random.key(1), 200)
    )
    np.testing.assert_allclose(outer.solution(state), [1.0, -2.0], atol=0.1)
    assert metrics["fitness_mean"][-1] > -0.1 > -4 > metrics["fitness_mean"][0]
    assert metrics["counted"].shape == (200, 1 if isinstance(outer, MetaGradient) else 32)


def test_outer_optimiser_is_that_of_optax_with_the_norm_clipped():
    settings = MetaGradientSettings(optimizer="sgd", learning_rate=0.1, momentum=0.9, max_grad_norm=0.5)
    outer = MetaGradient.from_settings(settings)
    state, solution = outer.init(jax.random.key(0), jnp.zeros(2)), np.zeros(2)
    velocity = 0.0
    for _ in range(3):
        state, metrics = outer.step(jax.random.key(0), state, quadratic)
        gradient = -2 * (solution - np.array([1.0, -2.0]))
        norm = np.linalg.norm(gradient)
        velocity = gradient * min(1, 0.5 / norm) + 0.9 * velocity
        solution = solution + 0.1 * velocity
        np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-6)
        np.testing.assert_allclose(outer.solution(state), solution, rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_inner_steps_of_no_gradient_have_a_derivative(name):
    ours, theirs = (make_optimizer(name, 0.1, max_grad_norm=0.5, differentiable=flag) for flag in (True, False))

    def moved(gradient, optimizer):
        return optimizer.update(gradient, optimizer.init(gradient), jnp.zeros(2))[0]

    for gradient in ([0.0, 0.0], [0.1, 0.2], [3.0, -4.0]):
        gradient = jnp.array(gradient)
        np.testing.assert_allclose(moved(gradient, ours), moved(gradient, theirs), rtol=1e-5)
        assert np.isfinite(jax.jacobian(moved)(gradient, ours)).all()
    # Where it clips, the length does not matter.
    plain, long = make_optimizer("sgd", 1.0, max_grad_norm=0.5, differentiable=True), jnp.array([3.0, -4.0])
    np.testing.assert_allclose(jax.jacobian(moved)(long, plain) @ long, 0, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_gradient_that_is_not_finite_moves_nothing_and_is_counted(optimizer):
    outer = MetaGradient.from_settings(MetaGradientSettings(optimizer=optimizer, max_grad_norm=None))

    def objective(population):
        # The value is finite, its derivative at 0 is not.
        return jnp.sum(jnp.sqrt(jnp.abs(population)), axis=-1), {}

    before = outer.init(jax.random.key(0), jnp.zeros(2))
    after, metrics = outer.step(jax.random.key(0), before, objective)
    assert int(metrics["non_finite"]) == 1
    assert all(np.array_equal(*leaves) for leaves in zip(*map(jax.tree.leaves, (before, after)), strict=True))
