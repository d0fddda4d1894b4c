"""The policy-gradient objective: collection, masks, gradients through the inner loop, and the steps on its parts."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from envs.diagnostic import Match, Target
from hades import fitness, policies, testing
from hades.fitness import IterationValue, Minibatches, PresentPolicies, Problem, draw_inits, make_fitness
from hades.inner import Identity
from hades.inner.cloning import behaviour_cloning
from hades.normalization import Normalizer
from hades.objectives import PolicyGradient, PolicyGradientSettings
from hades.objectives.policy_gradient import side_by_side
from hades.outer import MetaGradient, MetaGradientSettings
from hades.parametrizations import FreePairs, LearnedSteps, PlayedPairs, PolicyParameters
from hades.policies import NetworkSettings
from hades.rl.losses import Batch, clipped_surrogate
from hades.rollouts.settings import PlaySettings
from hades.types import Continuous, Discrete

CRITIC = NetworkSettings(hidden_sizes=(8,), kernel_init="lecun_normal")
SMALL = PolicyGradientSettings(num_envs=8, num_steps=6, critic=CRITIC, observation_normalization="none")
DISCRETE = SimpleNamespace(observation_shape=(3,), action_space=Discrete(4))
CONTINUOUS = SimpleNamespace(observation_shape=(3,), action_space=Continuous((-1.0, -1.0), (1.0, 1.0)))


def small_policy(env, **options):
    return policies.mlp(env, (6,), kernel_init="lecun_normal", **options)


def make_objective(env=None, **changes):
    env = env or Match(max_steps=5)
    return PolicyGradient(env, small_policy(env), dataclasses.replace(SMALL, **changes))


def drawn(objective, inits=2):
    """Problem, states before and after, metrics and the policies of one draw."""

    @jax.jit
    def draw(key):
        params = jax.vmap(objective.policy.init)(jax.random.split(jax.random.key(5), inits))
        state = objective.init(jax.random.key(1))
        problem, after, metrics = objective.draw(key, state, PresentPolicies(inits, lambda: params))
        return problem, state, after, metrics, params

    return draw(jax.random.key(2))


@pytest.mark.parametrize("env", [Match(max_steps=5), Target(max_steps=5)], ids=["discrete", "continuous"])
def test_keeps_the_contract_of_objectives(env):
    objective = make_objective(env, num_envs=12, normalize_rewards=True, observation_normalization="running")
    testing.check_objective(objective, objective.policy, differentiable=True)


def test_running_statistics_begin_with_those_of_random_play_and_go_on():
    env = Target(max_steps=5)
    objective = make_objective(env, observation_normalization="running", statistics_episodes=400)
    _, before, after, *_ = drawn(objective)
    # Uniform on [-1, 1]: 2000 observations, so that five standard errors are 0.065 and 0.03.
    first, then = (state.observation_statistics for state in (before, after))
    np.testing.assert_allclose(first.mean, np.zeros(2), atol=0.065)
    np.testing.assert_allclose(jnp.sqrt(first.variance), np.full(2, 1 / np.sqrt(3)), atol=0.03)
    assert (float(first.count), float(then.count)) == (2000, 2048)


def test_policies_side_by_side_act_as_each_by_itself():
    policy = small_policy(CONTINUOUS)
    params = jax.vmap(policy.init)(jax.random.split(jax.random.key(0), 3))
    params["log_std"] = jnp.arange(6.0).reshape(3, 2)
    observations = jax.random.normal(jax.random.key(1), (12, 3))
    joint = side_by_side(policy, 3).apply(params, observations)
    for index in range(3):
        own = policy.apply(jax.tree.map(lambda leaf, i=index: leaf[i], params), observations[4 * index : 4 * index + 4])
        chex.assert_trees_all_close(joint.mean[4 * index : 4 * index + 4], own.mean, rtol=1e-5)
        chex.assert_trees_all_equal(joint.log_std[4 * index], own.log_std)


def test_every_initialisation_is_valued_on_the_steps_that_it_collected():
    objective = make_objective()
    problem, _, _, metrics, params = drawn(objective)
    whole = problem.part()
    for index in range(2):
        own = jax.tree.map(lambda leaf, i=index: leaf[i], (params, whole))
        log_probs = objective.policy.apply(own[0], own[1].observations).log_prob(own[1].actions)
        np.testing.assert_allclose(log_probs, own[1].log_probs, atol=1e-5)
    assert not np.allclose(whole.log_probs[0], whole.log_probs[1], atol=1e-3)
    assert int(metrics["env_steps"]) == 48 and int(metrics["masked_steps"]) == 0


def test_every_epoch_sees_every_step_once_and_the_surrogate_begins_at_the_entropy():
    objective = make_objective()
    problem, _, _, _, params = drawn(objective)
    assert problem.rows.shape == (SMALL.num_epochs * SMALL.num_minibatches, 2, 12)
    for epoch in problem.rows.reshape(SMALL.num_epochs, SMALL.num_minibatches, 2, 12):
        for init in range(2):
            assert sorted(epoch[:, init].ravel().tolist()) == list(range(24))
    part = problem.part(3)
    np.testing.assert_array_equal(part.advantages[1], problem.problem.advantages[1][problem.rows[3, 1]])
    advantages = problem.problem.advantages
    np.testing.assert_allclose([advantages.mean(), advantages.std()], [0, 1], atol=1e-4)
    values, metrics = objective.value(problem.part(), jax.tree.map(lambda leaf: leaf[None], params))
    expected = advantages.mean(axis=1).mean() + SMALL.entropy_coefficient * metrics["entropy"][0]
    np.testing.assert_allclose(values.mean(), expected, atol=1e-5)
    np.testing.assert_allclose(metrics["approx_kl"], 0, atol=1e-6)


@pytest.mark.slow
def test_its_gradient_on_a_policys_own_parameters_is_that_of_ppo():
    env = Match(max_steps=5)
    objective = make_objective(env)
    problem, _, _, _, params = drawn(objective, inits=1)
    shifted = jax.tree.map(lambda leaf: leaf[0] + 0.1, params)
    formula = make_fitness(PolicyParameters(objective.policy), Identity(objective.policy), objective)
    value = IterationValue(formula, fitness.Draw((), jax.random.split(jax.random.key(0), 1), problem))
    found = jax.grad(lambda x: value(jax.tree.map(lambda leaf: leaf[None], x), 2)[0][0])(shifted)

    def surrogate(network):
        batch = jax.tree.map(lambda leaf: leaf[0], problem.part(2))
        gain, metrics = clipped_surrogate(objective.policy.apply(network, batch.observations), batch, 0.2)
        return gain + SMALL.entropy_coefficient * metrics["entropy"]

    chex.assert_trees_all_close(found, jax.grad(surrogate)(shifted), rtol=1e-4, atol=1e-7)


def test_episodes_go_on_from_iteration_to_iteration_unless_they_are_to_begin_anew():
    for restart, expected in ((False, 12 % 5), (True, 6 % 5)):
        objective = make_objective(restart_episodes=restart)

        @jax.jit
        def twice(objective=objective):
            params = jax.vmap(objective.policy.init)(jax.random.split(jax.random.key(5), 2))
            state = objective.init(jax.random.key(1))
            for index in range(2):
                _, state, _ = objective.draw(jax.random.key(index), state, PresentPolicies(2, lambda: params))
            return state

        assert set(np.asarray(twice().episodes.lengths).tolist()) == {expected}


class Faulty(Match):
    """Rewards that are not a number every third step."""

    def step(self, key, state, action):
        step = super().step(key, state, action)
        wrong = jax.random.uniform(jax.random.fold_in(key, 1)) < 1 / 3
        return step._replace(reward=jnp.where(wrong, jnp.nan, step.reward))


def test_a_step_that_is_not_finite_is_counted_and_no_minibatch_holds_it():
    objective = make_objective(Faulty(max_steps=5))
    problem, _, after, metrics, params = drawn(objective)
    count = int(metrics["masked_steps"])
    assert 0 < count < 48 and count == int(metrics["non_finite"])
    # The advantage of a step that does not count is 0.
    assert (np.asarray(problem.part().advantages) != 0).all()
    policy = jax.tree.map(lambda leaf: leaf[None], params)
    values = [objective.value(part, policy) for part in (problem.part(0), problem.part())]
    chex.assert_tree_all_finite((after.critic, values))


def test_environments_that_initialisations_cannot_share_are_refused():
    with pytest.raises(ValueError, match=r"^num_envs: expected a multiple of num_inits = 3"):
        drawn(make_objective(), inits=3)
    with pytest.raises(ValueError, match=r"^num_minibatches: expected a divisor of the 24 steps of an initialisation"):
        drawn(make_objective(num_minibatches=16))


# Gradients through the inner loop


def double(env):
    """Inner loop, parametrisation and objective in float64, with learned step sizes."""
    policy = policies.mlp(env, (6,), kernel_init="lecun_normal", param_dtype=jnp.float64)
    loss = "mse" if isinstance(env.action_space, Continuous) else None
    clone = behaviour_cloning(policy, optax.sgd(1.0, momentum=0.5), 6, loss, learned_step_sizes=True)
    pairs = FreePairs(env.observation_shape, env.action_space, 5, 1.0)
    action_dim = 2 if isinstance(env.action_space, Continuous) else None
    return clone, LearnedSteps(pairs, 6, 0.3, action_dim=action_dim), PolicyGradient(env, policy, SMALL)


def random_steps(env, inits=2, count=9):
    generator = np.random.default_rng(0)
    shape = (inits, count)
    discrete = isinstance(env.action_space, Discrete)
    actions = generator.integers(0, 4, shape) if discrete else generator.normal(size=(*shape, 2))
    log_probs = -1.4 if discrete else -2.4
    return Batch(
        generator.normal(size=(*shape, 3)),
        actions,
        log_probs + 0.05 * generator.normal(size=shape),
        np.zeros(shape),
        generator.normal(size=shape),
        np.zeros(shape),
    )


@pytest.mark.parametrize("env", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
def test_gradient_of_the_surrogate_through_six_steps_is_that_of_finite_differences(env):
    with jax.enable_x64(True):
        clone, parametrization, objective = double(env)
        draw = draw_inits(clone, jax.random.key(3), 2).replace(problem=random_steps(env))
        formula = make_fitness(parametrization, clone, objective)

        @jax.jit
        def value(solution):
            return formula(draw, jax.tree.map(lambda leaf: leaf[None], solution))[0][0]

        start = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), parametrization.init(jax.random.key(1)))
        leaves, tree = jax.tree.flatten(start)
        generator = np.random.default_rng(2)
        # Away from the flat start of the labels and step sizes.
        leaves = [leaf + 0.3 * generator.normal(size=leaf.shape) for leaf in leaves]
        gradient = jax.tree.leaves(jax.jit(jax.grad(value))(jax.tree.unflatten(tree, leaves)))
        for place, leaf in enumerate(leaves):
            direction, h = generator.normal(size=leaf.shape), 1e-4
            # Central differences of fourth order.
            weights = {1: 8, -1: -8, 2: -1, -2: 1}

            def at(k, place=place, leaf=leaf, direction=direction, h=h):
                moved = [*leaves]
                moved[place] = leaf + k * h * direction
                return float(value(jax.tree.unflatten(tree, moved)))

            expected = sum(weight * at(k) for k, weight in weights.items()) / (12 * h)
            found = float((np.asarray(gradient[place]) * direction).sum())
            assert abs(expected) > 1e-5
            assert abs(found - expected) <= 1e-6 * abs(expected)


def test_learned_step_sizes_are_those_of_the_inner_steps():
    policy = small_policy(DISCRETE)
    pairs = FreePairs((3,), Discrete(4), 5, 1.0)
    dataset = pairs.decode(pairs.init(jax.random.key(0)))
    params = policy.init(jax.random.key(1))
    learned = behaviour_cloning(policy, optax.sgd(1.0), 3, learned_step_sizes=True)
    found = learned.fit(jax.random.key(2), params, dataclasses.replace(dataset, step_sizes=jnp.array([0.1, 0.5, 0.2])))
    expected = params
    for size in (0.1, 0.5, 0.2):
        expected = behaviour_cloning(policy, optax.sgd(size), 1).fit(jax.random.key(2), expected, dataset)
    chex.assert_trees_all_close(found, expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"step_sizes: expected 3, one for each inner step, got shape None"):
        learned.fit(jax.random.key(2), params, dataset)


@pytest.mark.slow
def test_parametrisations_keep_their_contract_and_the_inner_loop_its_own():
    env = Target(max_steps=5)
    played = PlayedPairs(env, 5, PlaySettings(statistics_episodes=2))
    steps = LearnedSteps(played, 4, first=0.3, bound=2.0, action_dim=env.action_space.action_dim, first_log_std=-0.5)
    for parametrization in (played, steps, PlayedPairs(Match(), 5, PlaySettings(observation_normalization="none"))):
        testing.check_parametrization(parametrization)
    dataset = steps.decode(steps.init(jax.random.key(0)))
    np.testing.assert_allclose(dataset.step_sizes, 0.3, rtol=1e-6)
    np.testing.assert_allclose(dataset.log_std, -0.5)
    testing.check_inner_loop(
        behaviour_cloning(small_policy(env), optax.sgd(1.0), 4, "mse", learned_step_sizes=True), dataset
    )


@pytest.mark.parametrize("window", [None, 2])
def test_the_gradient_reaches_a_log_std_that_training_leaves_alone(window):
    policy = small_policy(CONTINUOUS)
    clone = behaviour_cloning(policy, optax.sgd(0.1), 4, "mse", window=window)
    pairs = FreePairs((3,), CONTINUOUS.action_space, 5, 1.0)
    dataset = dataclasses.replace(pairs.decode(pairs.init(jax.random.key(0))), log_std=jnp.array([0.5, -1.0]))
    params = policy.init(jax.random.key(1))

    def trained(log_std):
        return clone.fit(jax.random.key(2), params, dataclasses.replace(dataset, log_std=log_std))["log_std"]

    np.testing.assert_allclose(trained(dataset.log_std), dataset.log_std)
    np.testing.assert_allclose(jax.jacrev(trained)(dataset.log_std), np.eye(2))


def test_step_sizes_stay_within_their_bound():
    steps = LearnedSteps(FreePairs((3,), Discrete(4), 5), 3, first=0.5, bound=2.0)
    solution = steps.init(jax.random.key(0)) | {"step_sizes": jnp.array([-50.0, 0.01, 50.0])}
    np.testing.assert_allclose(steps.decode(solution).step_sizes, [0.25, 0.5 * np.exp(0.01), 1.0], rtol=1e-3)


# The outer loop on parts


def quadratic(parts=6):
    """F of a divided problem: minus the squared distance to a target of each part, with a KL that grows with it."""
    targets = jnp.arange(float(parts))

    class Value:
        num_parts = parts

        def __call__(self, solutions, part=None):
            distance = jnp.square(solutions - targets[part])
            return -distance, {"approx_kl": solutions, "falls": jnp.full(solutions.shape, 2, jnp.int32)}

    return Value()


def test_an_ascent_takes_one_step_on_every_part():
    ascent = MetaGradient(optax.sgd(0.25))
    state, metrics = jax.jit(lambda state: ascent.step(jax.random.key(1), state, quadratic()))(
        ascent.init(jax.random.key(0), jnp.float32(0.0))
    )
    expected = 0.0
    for target in range(6):
        expected += 0.5 * (target - expected)
    np.testing.assert_allclose(state.solution, expected, rtol=1e-6)
    assert int(metrics["updates"]) == 6
    assert metrics["falls"].tolist() == [12]


def test_a_kl_limit_leaves_out_the_step_that_finds_more_and_those_behind_it():
    ascent = MetaGradient(optax.sgd(0.25), max_kl=1.0)
    state, metrics = ascent.step(jax.random.key(1), ascent.init(jax.random.key(0), jnp.float32(0.0)), quadratic())
    # 0, 0.5 and 1.25 are found; the third step finds more than 1 and is left out.
    np.testing.assert_allclose(state.solution, 1.25)
    assert int(metrics["updates"]) == 3
    np.testing.assert_allclose(metrics["approx_kl"], np.mean([0, 0, 0.5, 1.25]))


def test_a_trust_region_takes_back_the_step_that_led_out_and_halves_the_next_ones():
    ascent = MetaGradient(optax.sgd(0.25), max_kl=1.0, trust_region=True)
    state, metrics = ascent.step(jax.random.key(1), ascent.init(jax.random.key(0), jnp.float32(0.0)), quadratic())
    np.testing.assert_allclose([state.solution, state.scale, metrics["step_scale"]], [0.5, 0.5, 1.0])
    assert int(metrics["updates"]) == 2
    # Steps of a quarter of the way to 0, 1 and 2 leave 0.375, 0.53 and 0.9; the next leads to 1.42, and is found there.
    state, metrics = ascent.step(jax.random.key(1), state, quadratic())
    np.testing.assert_allclose(state.solution, 0.75 * (0.75 * (0.75 * 0.5) + 0.25) + 0.5)
    np.testing.assert_allclose([state.scale, metrics["step_scale"]], [0.25, 0.5])
    # Within the region all steps are taken, and grow again.
    ascent = MetaGradient(optax.sgd(0.25), max_kl=100.0, trust_region=True)
    state, metrics = ascent.step(jax.random.key(1), state, quadratic())
    np.testing.assert_allclose([state.scale, int(metrics["updates"])], [0.3, 6])
    with pytest.raises(ValueError, match="^trust_region: expected a max_kl beside it"):
        MetaGradientSettings(trust_region=True)


def test_a_kl_limit_needs_an_objective_that_reports_the_kl():
    ascent = MetaGradient(optax.sgd(0.25), max_kl=1.0)
    with pytest.raises(ValueError, match=r"^max_kl: expected none, as the objective reports no approx_kl"):
        ascent.step(jax.random.key(1), ascent.init(jax.random.key(0), jnp.float32(0.0)), lambda x: (x, {}))


def test_a_gradient_that_is_not_finite_costs_its_own_part_under_a_kl_limit():
    class Value:
        num_parts = 3

        def __call__(self, solutions, part=None):
            return jnp.where(part == 1, jnp.nan, 1.0) * solutions, {"approx_kl": 0 * solutions}

    ascent = MetaGradient(optax.sgd(0.25), max_kl=1.0)
    state, metrics = ascent.step(jax.random.key(1), ascent.init(jax.random.key(0), jnp.float32(1.0)), Value())
    np.testing.assert_allclose(state.solution, 1.5)
    assert (int(metrics["updates"]), int(metrics["non_finite"])) == (2, 1)


def of_inits(slopes, kls, parts=1):
    """Value of initialisations that are lines through 0, and are as far from the policies that collected as is said."""
    slopes, kls = jnp.asarray(slopes, jnp.float32), jnp.asarray(kls, jnp.float32)

    def formula(draw, solutions):
        far = jnp.full(solutions.shape, jnp.mean(draw.problem))
        return jnp.mean(draw.initial) * solutions, {"approx_kl": far, "falls": jnp.full(solutions.shape, 2, jnp.int32)}

    rows = jnp.zeros((parts, len(slopes), 1), jnp.int32)
    keys = jax.random.split(jax.random.key(0), len(slopes))
    return IterationValue(formula, fitness.Draw(slopes, keys, Minibatches(kls[:, None], rows)))


def test_gradients_are_clipped_for_each_initialisation_before_their_mean_is_taken():
    value = of_inits([1.0, 100.0, np.inf, -3.0], [0.0, 0.0, 0.0, 0.0])
    ascent = MetaGradient(optax.sgd(1.0), max_init_grad_norm=2.0)
    before = ascent.init(jax.random.key(0), jnp.float32(1.0))
    state, metrics = ascent.step(jax.random.key(1), before, value)
    np.testing.assert_allclose([state.solution - 1, metrics["gradient_norm"]], np.mean([1.0, 2.0, 0.0, -2.0]))
    np.testing.assert_allclose([metrics["clipped_inits"], metrics["lost_inits"]], [0.75, 0.25])
    assert (int(metrics["non_finite"]), metrics["falls"].tolist()) == (1, [8])
    # Without a limit for each, the one costs the step; and a step through none that is finite is none.
    for other, slopes in ((MetaGradient(optax.sgd(1.0)), [1.0, np.inf]), (ascent, [np.nan, np.inf])):
        after, metrics = other.step(jax.random.key(1), before, of_inits(slopes, [0.0, 0.0]))
        assert (float(after.solution), int(metrics["non_finite"])) == (1.0, 1)


def test_with_them_the_kl_limit_is_that_of_more_than_half_of_the_initialisations():
    ascent = MetaGradient(optax.sgd(1.0), max_kl=0.1, max_init_grad_norm=2.0)
    for kls, expected in (([0.0, 0.0, 0.0, 1e8], 2), ([0.0, 0.0, 1e8, 1e8], 0)):
        state = ascent.init(jax.random.key(0), jnp.float32(1.0))
        _, metrics = ascent.step(jax.random.key(1), state, of_inits([1.0] * 4, kls, parts=2))
        assert int(metrics["updates"]) == expected
        np.testing.assert_allclose(metrics["inits_beyond_kl"], np.mean(np.asarray(kls) > 0.1))


def test_limits_that_nothing_reaches_change_no_step():
    for problem in (Minibatches(jnp.ones((2, 1)), jnp.zeros((1, 2, 1), jnp.int32)), Problem(jnp.ones((2, 1)))):

        def formula(draw, solutions):
            own = draw.problem.per_init if isinstance(draw.problem, Problem) else draw.problem
            return -jnp.mean(jnp.square(solutions - draw.initial[:, None] * own), axis=0), {}

        draw = fitness.Draw(jnp.array([1.0, -3.0]), jax.random.split(jax.random.key(0), 2), problem)
        steps = []
        for limit in (None, 1e6):
            ascent = MetaGradient(optax.sgd(0.1), max_init_grad_norm=limit)
            before = ascent.init(jax.random.key(0), jnp.float32(4.0))
            steps.append(ascent.step(jax.random.key(1), before, IterationValue(formula, draw)))
        np.testing.assert_allclose(steps[0][0].solution, 4 - 0.1 * np.mean([2 * 3, 2 * 7]), rtol=1e-6)
        np.testing.assert_allclose(steps[1][0].solution, steps[0][0].solution, rtol=1e-6)
        np.testing.assert_allclose(steps[1][1]["fitness_mean"], steps[0][1]["fitness_mean"], rtol=1e-6)


def test_a_limit_for_each_initialisation_needs_a_problem_that_is_divided_among_them():
    ascent = MetaGradient(optax.sgd(0.25), max_init_grad_norm=1.0)
    state = ascent.init(jax.random.key(0), jnp.float32(0.0))
    with pytest.raises(ValueError, match=r"^max_init_grad_norm: expected none, as the value tells no initialisations"):
        ascent.step(jax.random.key(1), state, lambda x: (x, {}))
    whole = IterationValue(lambda draw, x: (x, {}), fitness.Draw((), jax.random.split(jax.random.key(0), 1), ()))
    with pytest.raises(ValueError, match=r"^problem: expected an objective that divides it by initialisation"):
        ascent.step(jax.random.key(1), state, whole)


def test_the_step_size_falls_linearly_to_zero_over_the_iterations_asked_for():
    ascent = MetaGradient(optax.sgd(1.0), anneal_iterations=4)
    state = ascent.init(jax.random.key(0), jnp.float32(0.0))
    moves = []
    for _ in range(5):
        before = state.solution
        state, _ = ascent.step(jax.random.key(1), state, lambda x: (x, {}))
        moves.append(float(state.solution - before))
    np.testing.assert_allclose(moves, [1, 0.75, 0.5, 0.25, 0])


def test_an_undivided_problem_has_one_part():
    draw = fitness.Draw((), jax.random.split(jax.random.key(0), 1), jnp.ones(3))
    value = IterationValue(lambda draw, x: (x * draw.problem.sum(), {}), draw)
    assert value.num_parts == 1 and value(2.0)[0] == 6
    divided = dataclasses.replace(draw, problem=Minibatches(jnp.arange(6.0)[None], jnp.array([[[0, 1]], [[4, 5]]])))
    value = IterationValue(lambda draw, x: (x * draw.problem.sum(), {}), divided)
    assert value.num_parts == 2 and value(1.0, 1)[0] == 9 and value(1.0)[0] == 15


def test_statistics_that_are_given_stand_still():
    given = Normalizer("fixed", jnp.ones(1), jnp.full(1, 2.0))
    env = Target(max_steps=5)
    fixed = dataclasses.replace(SMALL, observation_normalization="fixed")
    objective = PolicyGradient(env, small_policy(env), fixed, given)
    chex.assert_trees_all_equal(objective.normalizer(objective.init(jax.random.key(0))), given)
    with pytest.raises(ValueError, match="^normalizer: expected one of kind none, as observation_normalization says"):
        PolicyGradient(env, small_policy(env), SMALL, given).init(jax.random.key(0))
