"""Checks that anybody can run on their own parts of the framework, in a test or a notebook."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hades import policies
from hades._environment_contract import conform, is_key
from hades.dataset import SyntheticDataset
from hades.fitness import Minibatches, PresentPolicies
from hades.normalization import Normalizer
from hades.policies import Policy
from hades.types import (
    AnyEnvironment,
    Continuous,
    Environment,
    HostEnvironment,
    InnerLoop,
    Metrics,
    Objective,
    OuterLoop,
    Parametrization,
    Params,
    PyTree,
)

__all__ = [
    "check_environment",
    "check_inner_loop",
    "check_objective",
    "check_outer_loop",
    "check_parametrization",
]

P = ParamSpec("P")
R = TypeVar("R")

_CANDIDATES, _INITS = 2, 3
_SHOWN = ("first observation", "observation", "reward", "terminated", "truncated")


def check_environment(env: AnyEnvironment, num_steps: int = 10) -> None:
    """Checks an environment against the contract of `hades.Environment` or `hades.types.HostEnvironment`.

    Beyond the shapes and dtypes that every run checks when it is built, plays some steps of a few episodes with random
    actions, twice.

    Args:
        env: The environment.
        num_steps: Steps to play.

    Raises:
        ValueError: It breaks the contract: also where equal keys (seeds) give different episodes, a first observation
            is not finite, or a step is both terminated and truncated.

    Example:
        >>> import envs
        >>> check_environment(envs.make("diagnostic/match"))
    """
    env = conform(env)
    first, second = (
        _play_host(env, num_steps) if isinstance(env, HostEnvironment) else _play(env, num_steps) for _ in "ab"
    )
    for name, value in first.items():
        if not np.array_equal(value, second[name], equal_nan=value.dtype.kind == "f"):
            raise ValueError(f"{env.name}: {name}: expected the same from equal keys, got different values")
    if not np.isfinite(first["first observation"]).all():
        raise ValueError(f"{env.name}: reset: expected finite observations, got some that are not")
    if (first["terminated"] & first["truncated"]).any():
        raise ValueError(f"{env.name}: truncated: expected it false where terminated, got both in one step")


def _play(env: Environment, num_steps: int, num_episodes: int = 4) -> dict[str, np.ndarray]:
    """Arrays of a few episodes by name, after their ends as well."""
    actions = policies.uniform(env).apply((), jnp.zeros(env.observation_shape))

    def advance(carry: Any, key: jax.Array) -> Any:
        action_key, step_key = jax.random.split(key)
        step = env.step(step_key, carry, actions.sample(action_key))
        return step.state, (step.observation, step.reward, step.terminated, step.truncated)

    def episode(key: jax.Array) -> Any:
        reset_key, steps_key = jax.random.split(key)
        state, observation = env.reset(reset_key)
        leaves = [jax.random.key_data(leaf) if is_key(leaf) else leaf for leaf in jax.tree.leaves(state)]
        _, shown = jax.lax.scan(advance, state, jax.random.split(steps_key, num_steps))
        return leaves, (observation, *shown)

    leaves, shown = jax.device_get(jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), num_episodes)))
    states = {f"leaf {index} of the first state": np.asarray(leaf) for index, leaf in enumerate(leaves)}
    return dict(zip(_SHOWN, map(np.asarray, shown), strict=True)) | states


def _play_host(env: HostEnvironment, num_steps: int, num_episodes: int = 3) -> dict[str, np.ndarray]:
    """Arrays of a few episodes in a host simulator, by name."""
    with contextlib.closing(env.simulate(np.arange(num_episodes, dtype=np.uint32))) as simulator:
        space, generator = env.action_space, np.random.default_rng(0)
        low, high = (space.low, space.high) if isinstance(space, Continuous) else ((0.0,), (0.0,))
        rows, first = [], np.array(simulator.observations)
        shape = (num_episodes, *env.observation_shape)
        for _ in range(num_steps):
            step = simulator.step(generator.uniform(low, high, (num_episodes, len(low))).astype(np.float32))
            told = {name: value for name, value in step._asdict().items() if name != "succeeded" or value is not None}
            for name, value in told.items():
                expected = shape if name == "observations" else shape[:1]
                if np.shape(value) != expected:
                    raise ValueError(f"{env.name}: {name} of a step: expected shape {expected}, got {np.shape(value)}")
            rows.append(
                [np.array(getattr(step, name)) for name in ("observations", "rewards", "terminated", "truncated")]
            )
            if not simulator.alive.any():
                break
    if simulator.alive.any():
        raise ValueError(f"{env.name}: close: expected no episode alive after it, got {int(simulator.alive.sum())}")
    return dict(zip(_SHOWN, (first, *map(np.stack, zip(*rows, strict=True))), strict=True))


def check_parametrization(parametrization: Parametrization) -> None:
    """Checks a parametrisation against the contract of `hades.types.Parametrization`.

    Args:
        parametrization: The parametrisation.

    Raises:
        ValueError: It breaks the contract: solutions or what they decode to are not finite, equal keys give different
            solutions, `decode` cannot be vmapped or differentiated, or a dataset is not one.

    Example:
        >>> import envs, hades
        >>> check_parametrization(hades.parametrizations.free_pairs(envs.make("diagnostic/match"), dataset_size=3))
    """
    name = _name(parametrization)
    key, other = jax.random.split(jax.random.key(0))
    solution = jax.jit(parametrization.init)(key)
    for leaf in jax.tree.leaves(solution):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(f"{name}: init: expected floating-point arrays, got {jnp.result_type(leaf)}")
    with _contract(f"{name}: init: expected the same solution from equal keys, finite and not empty"):
        chex.assert_trees_all_equal(solution, jax.jit(parametrization.init)(key))
        chex.assert_tree_all_finite(solution)
        assert jax.tree.leaves(solution), "an empty solution"
    solutions = jax.tree.map(lambda *leaves: jnp.stack(leaves), solution, jax.jit(parametrization.init)(other))
    decoded, many = jax.jit(parametrization.decode)(solution), jax.jit(jax.vmap(parametrization.decode))(solutions)
    with _contract(f"{name}: decode: expected vmap to give what each solution gives by itself"):
        _assert_close(jax.tree.map(lambda leaf: leaf[0], many), decoded)
    if isinstance(decoded, SyntheticDataset):
        _check_pairs(name, decoded)
    with _contract(f"{name}: decode: expected finite arrays and gradients"):
        chex.assert_tree_all_finite(decoded)
        chex.assert_tree_all_finite(jax.jit(jax.grad(lambda x: _squares(parametrization.decode(x))))(solution))


def check_inner_loop(inner: InnerLoop, dataset: SyntheticDataset | Params, differentiable: bool = True) -> None:
    """Checks an inner loop against the contract of `hades.types.InnerLoop`.

    Args:
        inner: The inner loop.
        dataset: Something to train on: a dataset, or the parameters that `hades.inner.Identity` hands on.
        differentiable: Whether gradients of the trained parameters with respect to the dataset are checked, which
            meta-gradients take and evolution does not.

    Raises:
        ValueError: It breaks the contract: equal keys give different parameters, `init` or `fit` cannot be vmapped, the
            policy cannot act with what was trained, or parameters or gradients are not finite.

    Example:
        >>> import envs, hades
        >>> env = envs.make("diagnostic/match")
        >>> pairs = SyntheticDataset(jnp.eye(3), action_probabilities=jnp.eye(3))
        >>> check_inner_loop(hades.behaviour_cloning(hades.policies.mlp(env, (4,)), num_steps=5), pairs)
    """
    name = _name(inner)
    init_keys, fit_keys = jax.random.split(jax.random.key(0), (2, _INITS))
    init, fit = jax.jit(inner.init), jax.jit(inner.fit)
    params = init(init_keys[0])
    with _contract(f"{name}: init: expected the same parameters from equal keys"):
        chex.assert_trees_all_equal(params, init(init_keys[0]))
    trained = fit(fit_keys[0], params, dataset)
    with _contract(f"{name}: fit: expected the same finite parameters from equal keys"):
        chex.assert_trees_all_equal(trained, fit(fit_keys[0], params, dataset))
        chex.assert_tree_all_finite(trained)

    @_traced_once
    def fit_all(datasets: PyTree) -> Params:
        over_inits = jax.vmap(inner.fit, in_axes=(0, 0, None))
        return jax.vmap(over_inits, in_axes=(None, None, 0))(fit_keys, jax.vmap(inner.init)(init_keys), datasets)

    with _contract(f"{name}: fit: expected vmap over candidates and inits to give what each gives by itself"):
        datasets = jax.tree.map(lambda leaf: jnp.stack([leaf] * _CANDIDATES), dataset)
        many = fit_all(datasets)
        fit_all(datasets)
        for candidate in range(_CANDIDATES):
            _assert_close(jax.tree.map(lambda leaf, index=candidate: leaf[index, 0], many), trained)
    if isinstance(dataset, SyntheticDataset):
        modes = jax.jit(lambda params, seen: inner.policy.apply(params, seen).mode())(trained, dataset.observations)
        if modes.shape[:1] != dataset.observations.shape[:1] or not np.isfinite(modes).all():
            raise ValueError(
                f"{name}: policy: expected a finite action for each of {dataset.observations.shape[0]} observations, "
                f"got an array of shape {modes.shape}"
            )
    if differentiable:
        gradient = jax.jit(jax.grad(lambda data: _squares(inner.fit(fit_keys[0], params, data)), allow_int=True))
        with _contract(f"{name}: fit: expected finite gradients with respect to the dataset"):
            chex.assert_tree_all_finite(gradient(dataset))


def check_objective(objective: Objective, policy: Policy, differentiable: bool = False) -> None:
    """Checks an objective against the contract of `hades.types.Objective`.

    Args:
        objective: The objective.
        policy: Architecture that it values, with parameters as they are initialised.
        differentiable: Whether gradients with respect to the parameters are checked, which meta-gradients take.

    Raises:
        ValueError: It breaks the contract: values are not `[candidates, inits]`, counts are not `[candidates]` or lack
            `env_steps`, equal keys give different problems or values, a candidate's values depend on its place or on
            the others, or the state changes its structure.

    Example:
        >>> import envs, hades
        >>> env = envs.make("diagnostic/match")
        >>> policy = hades.policies.mlp(env, (4,))
        >>> check_objective(hades.objectives.EpisodicReturn(env, policy), policy)
    """
    name = _name(objective)
    init_key, draw_key, *keys = jax.random.split(jax.random.key(0), 2 + _CANDIDATES * _INITS)
    one = [jax.jit(policy.init)(key) for key in keys]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *one)
    params = jax.tree.map(lambda leaf: leaf.reshape(_CANDIDATES, _INITS, *leaf.shape[1:]), stacked)
    state = jax.jit(objective.init)(init_key)

    present = jax.tree.map(lambda leaf: leaf[0], params)

    def draw_and_value(key: jax.Array, state: Any, params: Params) -> Any:
        problem, after, drawn = objective.draw(key, state, PresentPolicies(_INITS, lambda: present))
        whole = problem.part() if isinstance(problem, Minibatches) else problem
        return after, drawn, objective.value(whole, params)

    evaluate = _traced_once(draw_and_value)

    with _contract(
        f"{name}: draw: expected a state of the same structure, shapes and dtypes, so that a loop can carry it"
    ):
        after, drawn, (values, counts) = evaluate(draw_key, state, params)
        assert _kinds(after) == _kinds(state), f"{_kinds(after)} after {_kinds(state)}"
    with _contract(f"{name}: value: expected values [candidates, inits]"):
        chex.assert_shape(values, (_CANDIDATES, _INITS))
        chex.assert_type(values, float)
    _check_counts(name, counts, drawn)
    with _contract(f"{name}: value: expected the same values from equal keys"):
        chex.assert_trees_all_equal((values, counts), evaluate(draw_key, state, params)[2])
    with _contract(f"{name}: value: expected a candidate's values to be independent of its place and of the others"):
        reversed_params = jax.tree.map(lambda leaf: leaf[::-1], params)
        _assert_close(
            evaluate(draw_key, state, reversed_params)[2], jax.tree.map(lambda leaf: leaf[::-1], (values, counts))
        )
    if not isinstance(objective.normalizer(state), Normalizer):
        raise ValueError(
            f"{name}: normalizer: expected a Normalizer, got a {type(objective.normalizer(state)).__name__}"
        )
    if differentiable:
        gradient = jax.jit(jax.grad(lambda params: jnp.sum(draw_and_value(draw_key, state, params)[2][0])))
        with _contract(f"{name}: value: expected finite gradients with respect to the parameters"):
            chex.assert_tree_all_finite(gradient(params))


def check_outer_loop(outer: OuterLoop, num_steps: int = 100) -> None:
    """Checks an outer loop against the contract of `hades.types.OuterLoop`: among others, that it climbs.

    Args:
        outer: The outer loop.
        num_steps: Iterations on a concave quadratic, whose value must rise; more of them for a small step size.

    Raises:
        ValueError: It breaks the contract: it does not climb, equal keys give different states, the state changes its
            structure or dtypes, a metric is missing or no scalar, or a value that is not finite reaches the solution.

    Example:
        >>> import hades
        >>> check_outer_loop(hades.outer.Evolution(population_size=16))
    """
    name, key = _name(outer), jax.random.key(0)
    start = {"matrix": jnp.zeros((2, 3)), "vector": jnp.zeros(2)}

    def value(solutions: Any, spoiled: jax.Array | float = 0.0) -> Any:
        chex.assert_trees_all_equal_structs(solutions, start)
        candidates = solutions["vector"].shape[0]
        chex.assert_shape((solutions["matrix"], solutions["vector"]), ((candidates, 2, 3), (candidates, 2)))
        flat = jnp.concatenate([leaf.reshape(candidates, -1) for leaf in solutions.values()], axis=1)
        values = -jnp.sum(jnp.square(flat - 1), axis=1)
        return values.at[0].add(spoiled), {"env_steps": jnp.ones(candidates, jnp.int32)}

    @_traced_once
    def step(key: jax.Array, state: Any, spoiled: jax.Array) -> Any:
        return outer.step(key, state, lambda solutions: value(solutions, spoiled))

    with _contract(f"{name}: expected states and solutions of one structure, dtype and weak type, traced once"):
        first = jax.jit(outer.init)(key, start)
        assert _kinds(outer.solution(first)) == _kinds(start), f"solution {_kinds(outer.solution(first))}"
        state, metrics = step(key, first, jnp.float32(0.0))
        again, _ = step(key, first, jnp.float32(0.0))
        assert _kinds(state) == _kinds(first), f"{_kinds(state)} after {_kinds(first)}"
    with _contract(f"{name}: step: expected the same state from equal keys"):
        chex.assert_trees_all_equal(state, again)
    for label in ("fitness_mean", "fitness_best", "fitness_worst", "non_finite"):
        if label not in metrics or jnp.shape(metrics[label]):
            raise ValueError(f"{name}: step: expected the scalar metric {label}, got {', '.join(sorted(metrics))}")
    if "env_steps" not in metrics:
        raise ValueError(f"{name}: step: expected the counts of value, env_steps, among the metrics")
    for index in range(num_steps):
        state, _ = step(jax.random.fold_in(key, index), state, jnp.float32(0.0))
    before, after = (
        float(value(jax.tree.map(lambda leaf: leaf[None], outer.solution(at)))[0][0]) for at in (first, state)
    )
    if not after > before:
        raise ValueError(
            f"{name}: step: expected it to climb in {num_steps} iterations, got {after:.4g} from {before:.4g}"
        )
    state, metrics = step(key, state, jnp.float32(jnp.nan))
    with _contract(f"{name}: step: expected a value that is not finite to be counted and to leave the solution finite"):
        chex.assert_tree_all_finite(outer.solution(state))
        assert int(metrics["non_finite"]) >= 1, "non_finite 0"


def _check_counts(name: str, counts: Metrics, drawn: Metrics) -> None:
    if "env_steps" not in {**counts, **drawn}:
        raise ValueError(
            f"{name}: value: expected the count env_steps there or in the metrics of draw, got "
            f"{', '.join((*counts, *drawn)) or 'none'}"
        )
    for label, metric in drawn.items():
        with _contract(f"{name}: draw: expected the metric {label} to be a scalar"):
            chex.assert_shape(metric, ())
    for label, count in counts.items():
        with _contract(f"{name}: value: expected {label} [candidates]"):
            chex.assert_shape(count, (_CANDIDATES,))


def _check_pairs(name: str, dataset: SyntheticDataset) -> None:
    actions, probabilities = dataset.actions, dataset.action_probabilities
    if (actions is None) == (probabilities is None):
        raise ValueError(f"{name}: decode: expected either actions or action_probabilities, got both or none")
    targets = probabilities if actions is None else actions
    with _contract(f"{name}: decode: expected a target [pairs, width] for each observation, and no statistics"):
        chex.assert_rank(targets, 2)
        chex.assert_equal_shape_prefix((dataset.observations, targets), 1)
        assert dataset.normalizer().mean is None, "observation statistics"
    if probabilities is not None:
        with _contract(f"{name}: decode: expected probabilities that sum to 1"):
            np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-5)


def _traced_once(function: Callable[P, R]) -> Callable[P, R]:
    """The function, jitted; a second trace of it, by other types than the first, fails an assertion."""
    traces: list[int] = []

    @jax.jit
    def counted(*arguments: P.args, **named: P.kwargs) -> R:
        traces.append(1)
        assert len(traces) == 1, "a second trace, which would be compiled again"
        return function(*arguments, **named)

    return counted


@contextlib.contextmanager
def _contract(sentence: str) -> Iterator[None]:
    """Says what was expected where an assertion fails, with the assertion's first line behind it."""
    try:
        yield
    except AssertionError as error:
        found = next((line.strip() for line in str(error).splitlines() if line.strip()), "another")
        raise ValueError(f"{sentence}, got: {found}") from None


def _assert_close(found: PyTree, expected: PyTree) -> None:
    chex.assert_trees_all_close(found, expected, rtol=1e-3, atol=1e-4)


def _kinds(tree: PyTree) -> list[tuple[str, tuple[int, ...], str, bool]]:
    """Path, shape, dtype and weak type of each leaf: by them JAX decides whether to compile again."""
    leaves = jax.tree.leaves_with_path(jax.eval_shape(lambda: tree))
    return [(jax.tree_util.keystr(path), leaf.shape, str(leaf.dtype), leaf.weak_type) for path, leaf in leaves]


def _squares(tree: PyTree) -> jax.Array:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.sum(jnp.stack([jnp.sum(jnp.square(leaf)) for leaf in leaves]))


def _name(part: Any) -> str:
    return type(part).__name__
