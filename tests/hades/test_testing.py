"""Checks of parts: those of the library pass, and each broken contract is named in one sentence."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax
import pytest

from envs.diagnostic import Match, Target
from hades import inner, objectives, outer, parametrizations, policies
from hades.dataset import SyntheticDataset
from hades.normalization import Normalizer
from hades.objectives.states import LabelledStates, OfflineStates
from hades.testing import check_inner_loop, check_objective, check_outer_loop, check_parametrization

MATCH, TARGET = Match(max_steps=2), Target(max_steps=2)
POLICY = policies.mlp(MATCH, (4,), kernel_init="lecun_normal")
LABELS = SyntheticDataset(jnp.eye(3), action_probabilities=jnp.eye(3))
PAIRS = parametrizations.free_pairs(MATCH, 3, init_scale=1.0)
CLONE = inner.behaviour_cloning(POLICY, num_steps=3)
PLAYED = objectives.EpisodicReturn(MATCH, POLICY, statistics=Normalizer())


def offline_states():
    states = LabelledStates(jnp.ones((5, 2)), actions=jnp.zeros((5, 2)))
    policy = policies.mlp(TARGET, (4,), kernel_init="lecun_normal")
    return OfflineStates(states, Normalizer(), None, policy, objectives.dbc, num_states=4), policy


@pytest.mark.parametrize(
    "parametrization",
    [
        PAIRS,
        parametrizations.free_pairs(TARGET, 2),
        parametrizations.FixedLabels((3,), MATCH.action_space, 4),
        parametrizations.WarmStart(LABELS),
        parametrizations.latent_pairs(jax.random.key(0), MATCH, 2, 3, init_scale=1.0),
        parametrizations.RealPairs(jnp.ones((6, 2)), jnp.zeros((6, 2)), None, 3),
        parametrizations.PolicyParameters(POLICY),
    ],
    ids=lambda part: type(part).__name__,
)
def test_parametrisations_of_the_library_pass(parametrization):
    check_parametrization(parametrization)


@pytest.mark.parametrize(
    ("loop", "dataset"),
    [
        (CLONE, LABELS),
        (dataclasses.replace(CLONE, batch_size=2, window=2), LABELS),
        (inner.Identity(POLICY), {"kernel": jnp.ones(2)}),
    ],
    ids=["cloning", "minibatch, window", "identity"],
)
def test_inner_loops_of_the_library_pass(loop, dataset):
    check_inner_loop(loop, dataset)


def test_objectives_of_the_library_pass():
    check_objective(PLAYED, POLICY)
    check_objective(*offline_states(), differentiable=True)


@pytest.mark.parametrize(
    "loop",
    [
        outer.Evolution(16),
        outer.Evolution(16, outer.EvolutionSettings("SNES")),
        outer.RegeneratedEvolution(16, chunk_size=4),
        outer.MetaGradient(optax.adam(0.01)),
        outer.Averaged(outer.MetaGradient(optax.adam(0.01)), 0.9),
    ],
    ids=["Open_ES", "SNES", "regenerated", "meta-gradient", "averaged"],
)
def test_outer_loops_of_the_library_pass(loop):
    check_outer_loop(loop)


def altered(part, **methods):
    """The part with some methods in the place of its own, which they get as first argument."""

    class Altered:
        def __getattr__(self, name):
            return getattr(part, name)

    for name, method in methods.items():
        replaced = lambda self, *arguments, method=method: method(part, *arguments)  # noqa: E731
        setattr(Altered, name, method if isinstance(method, property) else replaced)
    return Altered()


@pytest.mark.parametrize(
    ("methods", "sentence"),
    [
        ({"init": lambda part, key: {"a": jnp.arange(2)}}, "init: expected floating-point arrays, got int32"),
        ({"init": lambda part, key: {"observations": jnp.full((3, 3), jnp.nan)}}, "init: expected .* finite"),
        ({"init": lambda part, key: {}}, "init: .* not empty, got: an empty solution"),
        (
            {"decode": lambda part, solution: SyntheticDataset(solution["observations"])},
            "decode: expected either actions or action_probabilities",
        ),
        (
            {"decode": lambda part, x: SyntheticDataset(x["observations"], action_probabilities=x["action_logits"])},
            "decode: expected probabilities that sum to 1",
        ),
        (
            {"decode": lambda part, x: SyntheticDataset(x["observations"], actions=jnp.zeros((2, 1)))},
            r"decode: expected a target \[pairs, width\] for each observation",
        ),
        (
            {
                "decode": lambda part, x: part.decode(x).replace(
                    observation_mean=jnp.zeros(3), observation_std=jnp.ones(3)
                )
            },
            "and no statistics, got: observation statistics",
        ),
        (
            {"decode": lambda part, x: part.decode(x).replace(observations=jnp.sqrt(0 * x["observations"]))},
            "decode: expected finite arrays and gradients",
        ),
    ],
)
def test_broken_parametrisations_are_named(methods, sentence):
    with pytest.raises(ValueError, match=f"^Altered: .*{sentence}"):
        check_parametrization(altered(PAIRS, **methods))


@pytest.mark.parametrize(
    ("methods", "sentence"),
    [
        (
            {"fit": lambda part, key, params, data: jax.tree.map(lambda leaf: leaf / 0, params)},
            "fit: expected the same finite parameters",
        ),
        (
            {"fit": lambda part, key, params, data: _moved(params, jnp.sqrt(0 * data.observations).sum())},
            "fit: expected finite gradients with respect to the dataset",
        ),
        (
            {
                "policy": property(
                    lambda self: policies.Policy(POLICY.init, lambda params, seen: POLICY.apply(params, seen[0]))
                )
            },
            "policy: expected a finite action for each of 3 observations",
        ),
    ],
)  # fmt: skip
def test_broken_inner_loops_are_named(methods, sentence):
    with pytest.raises(ValueError, match=f"^Altered: .*{sentence}"):
        check_inner_loop(altered(CLONE, **methods), LABELS)
    # Nothing is asked of the gradients of what evolution alone takes.
    if "gradients" in sentence:
        check_inner_loop(altered(CLONE, **methods), LABELS, differentiable=False)


@pytest.mark.parametrize(
    ("methods", "sentence"),
    [
        (
            {"value": lambda part, problem, params: (part.value(problem, params)[0].mean(axis=1), {})},
            r"value: expected values \[candidates, inits\]",
        ),
        ({"value": lambda part, problem, params: (part.value(problem, params)[0], {})}, "expected the count env_steps"),
        (
            {"value": lambda part, problem, params: (part.value(problem, params)[0], {"env_steps": jnp.int32(1)})},
            r"value: expected env_steps \[candidates\]",
        ),
        (
            {"value": lambda part, problem, params: _placed(*part.value(problem, params))},
            "independent of its place and of the others",
        ),
        (
            {"draw": lambda part, key, state, policies: (part.draw(key, state, policies)[0], (state, 1.0), {})},
            "draw: expected a state of the same structure",
        ),
        ({"normalizer": lambda part, state: None}, "normalizer: expected a Normalizer, got a NoneType"),
    ],
)
def test_broken_objectives_are_named(methods, sentence):
    with pytest.raises(ValueError, match=f"^Altered: .*{sentence}"):
        check_objective(altered(PLAYED, **methods), POLICY)


def _placed(values, counts):
    return values + jnp.arange(len(values))[:, None], counts


CLIMBER = outer.MetaGradient(optax.sgd(0.1))


@pytest.mark.parametrize(
    ("methods", "sentence"),
    [
        (
            {"step": lambda part, key, state, value: part.step(key, state, lambda x: (-value(x)[0], value(x)[1]))},
            "step: expected it to climb in 100 iterations, got",
        ),
        (
            {"step": lambda part, *arguments: (part.step(*arguments)[0], {"fitness_mean": jnp.float32(0)})},
            "step: expected the scalar metric fitness_best, got fitness_mean",
        ),
        (
            {"step": lambda part, key, state, value: part.step(key, state, lambda x: (value(x)[0], {}))},
            "step: expected the counts of value, env_steps",
        ),
        (
            {"init": lambda part, key, solution: part.init(key, jax.tree.map(jnp.float16, solution))},
            "expected states and solutions of one structure, dtype",
        ),
        (
            {"step": lambda part, key, state, value: _unguarded(part, key, state, value)},
            "expected a value that is not finite to be counted and to leave the solution finite",
        ),
    ],
)  # fmt: skip
def test_broken_outer_loops_are_named(methods, sentence):
    with pytest.raises(ValueError, match=f"^Altered: .*{sentence}"):
        check_outer_loop(altered(CLIMBER, **methods))


def _unguarded(part, key, state, value):
    after, metrics = part.step(key, state, value)
    return after, metrics | {"non_finite": jnp.int32(0)}


def _moved(params, distance):
    return jax.tree.map(lambda leaf: leaf + distance, params)
