"""One generation written the straightforward way, as published code does it: the yardstick of `hades bench generation`.

The whole population is vmapped at once, every rollout goes on for the environment's full horizon, what each step
reports is stacked over time, and parameters, optimiser states and reports of all policies leave the compiled function.
Keys, policies, simulators and settings are those of hades, so that the fitness is the same.

Source: https://github.com/FLAIROx/behaviour-distillation, policy_distillation/distill_minatar.py. Kinder than that
code in two points: environments do not reset themselves at every step, and initialisations are not repeated for each
candidate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from flax import struct

from hades.dataset import SyntheticDataset
from hades.fitness import FitnessKeys, init_networks
from hades.inner import cloning
from hades.normalization import Normalizer
from hades.outer.evolution import Evolution
from hades.recipes.hades import HadesSettings
from hades.run import Run, RunState
from hades.types import Continuous, Environment, Metrics, PyTree, require_pure


@struct.dataclass
class Reports:
    """What each step reports, stacked over time in front of the axes of the policies.

    Attributes:
        reward: Reward of the step, zero once the first episode has ended.
        done: Whether the first episode has ended.
        episode_return: Return of the first episode so far.
        episode_length: Its steps so far.
        timestep: Steps of the environment so far.
    """

    reward: jax.Array
    done: jax.Array
    episode_return: jax.Array
    episode_length: jax.Array
    timestep: jax.Array


@struct.dataclass
class Everything:
    """What leaves the compiled function. Leading axes of all other leaves than `datasets`: `[population, inits]`.

    Attributes:
        datasets: The candidates, `[population, ...]`.
        params: Of the trained policies.
        optimizer_state: At the end of cloning.
        losses: Of each cloning step, `[population, inits, steps]`.
        env_state: At the horizon.
        reports: `[population, inits, max_steps, episodes]`.
    """

    datasets: SyntheticDataset
    params: PyTree
    optimizer_state: optax.OptState
    losses: jax.Array
    env_state: PyTree
    reports: Reports

    @property
    def values(self) -> jax.Array:
        """Fitness, `[population]`."""
        return jnp.mean(jnp.sum(self.reports.reward, axis=2), axis=(1, 2))


StraightforwardFitness: TypeAlias = Callable[[FitnessKeys, SyntheticDataset, Normalizer], Everything]
"""`fitness(keys, datasets [population], normalizer)`."""


def make_fitness(env: Environment, settings: HadesSettings) -> StraightforwardFitness:
    """Makes the fitness of a population.

    Args:
        env: Environment.
        settings: Resolved settings; chunk sizes are ignored.

    Raises:
        ValueError: Normalisation is running, or cloning takes minibatches, which the yardstick does without.
    """
    if settings.observation_normalization == "running" or settings.cloning.batch_size is not None:
        raise ValueError("straightforward: expected full batches, and no or fixed normalisation")
    clone = cloning.from_settings(env, settings.cloning)
    train = _make_training(clone)
    play = _make_play(env, clone, settings)

    def train_and_play(key: jax.Array, fresh: PyTree, dataset: SyntheticDataset, normalizer: Normalizer) -> Everything:
        params, optimizer_state, losses = train(fresh, dataset)
        env_state, reports = play(key, params, normalizer)
        return Everything(dataset, params, optimizer_state, losses, env_state, reports)

    out_axes = Everything(None, 0, 0, 0, 0, 0)  # type: ignore[arg-type]
    over_inits = jax.vmap(train_and_play, in_axes=(0, 0, None, None), out_axes=out_axes)
    over_population = jax.vmap(over_inits, in_axes=(None, None, 0, None))

    def fitness(keys: FitnessKeys, datasets: SyntheticDataset, normalizer: Normalizer) -> Everything:
        return over_population(keys.episodes, init_networks(clone, keys), datasets.pairs(), normalizer)

    return fitness


def _make_training(clone: cloning.BehaviourCloning) -> Callable[[PyTree, SyntheticDataset], tuple[Any, Any, Any]]:
    def train(fresh: PyTree, dataset: SyntheticDataset) -> tuple[PyTree, optax.OptState, jax.Array]:
        loss_function = clone.loss or cloning.default_loss(dataset)
        assert not isinstance(loss_function, cloning.SampledLoss)  # no case of the benchmark has one

        def loss(params: PyTree) -> jax.Array:
            return loss_function(clone.policy.apply(params, dataset.observations), dataset)

        def step(carry: tuple[PyTree, optax.OptState], _: None) -> tuple[tuple[PyTree, optax.OptState], jax.Array]:
            params, optimizer_state = carry
            value, gradient = jax.value_and_grad(loss)(params)
            updates, optimizer_state = clone.optimizer.update(gradient, optimizer_state, params)
            return (optax.apply_updates(params, updates), optimizer_state), value

        carry = (fresh, clone.optimizer.init(fresh))
        (params, optimizer_state), losses = jax.lax.scan(step, carry, None, clone.num_steps)
        return params, optimizer_state, losses

    return train


def _make_play(
    env: Environment, clone: cloning.BehaviourCloning, settings: HadesSettings
) -> Callable[[jax.Array, PyTree, Normalizer], tuple[PyTree, Reports]]:
    episodes = settings.num_episodes

    def play(key: jax.Array, params: PyTree, normalizer: Normalizer) -> tuple[PyTree, Reports]:
        # The derivation of keys is that of hades.rollout, or the fitness would be another.
        (key,) = jax.random.split(key, 1)
        state, observations = jax.vmap(env.reset)(jax.random.split(jax.random.fold_in(key, 0), episodes))
        zeros = jnp.zeros(episodes)

        def step(carry: tuple[PyTree, jax.Array, Reports], time: jax.Array) -> tuple[Any, Reports]:
            state, observations, last = carry
            keys = jax.random.split(jax.random.fold_in(key, time + 1), episodes + 1)
            distribution = clone.policy.apply(params, normalizer.apply(observations))
            sampled = settings.action_selection == "sample"
            actions = distribution.sample(keys[0]) if sampled else distribution.mode()
            result = jax.vmap(env.step)(keys[1:], state, actions)
            reward = jnp.where(last.done, 0.0, result.reward)
            reports = Reports(
                reward=reward,
                done=last.done | result.terminated | result.truncated,
                episode_return=last.episode_return + reward,
                episode_length=last.episode_length + ~last.done,
                timestep=last.timestep + 1,
            )
            return (result.state, result.observation, reports), reports

        counts = jnp.zeros(episodes, jnp.int32)
        first = Reports(zeros, jnp.zeros(episodes, bool), zeros, counts, counts)
        (state, _, _), reports = jax.lax.scan(step, (state, observations, first), jnp.arange(env.max_steps))
        return state, reports

    return play


StraightforwardStep: TypeAlias = Callable[[RunState], tuple[RunState, Metrics, Everything]]
"""`step(state)`, one generation: what `Run.step` returns, and everything else."""


def make_step(run: Run, state: RunState) -> StraightforwardStep:
    """Makes the generation that corresponds to `run.step`; `state` is any state of the run."""
    settings = run.settings
    env = require_pure(run.env)
    fitness = make_fitness(env, settings)
    evolution = Evolution(solution_of(run.dataset(state), settings), settings.population_size, settings.evolution)

    def step(state: RunState) -> tuple[RunState, Metrics, Everything]:
        search_key, keys = generation_keys(state, settings)

        seen: list[Everything] = []

        def objective(population: PyTree) -> tuple[jax.Array, Metrics]:
            seen.append(fitness(keys, datasets_of(population, env), state.normalizer))
            return seen[0].values, {}

        outer, metrics = evolution.step(search_key, state.outer, objective)
        return dataclasses.replace(state, generation=state.generation + 1, outer=outer), metrics, seen[0]

    return step


def generation_keys(state: RunState, settings: HadesSettings) -> tuple[jax.Array, FitnessKeys]:
    """The keys that `Run.step` uses in the generation of `state`: of the search, and of the fitness."""
    search_key, fitness_key = jax.random.split(jax.random.fold_in(state.key, state.generation))
    return search_key, FitnessKeys.draw(fitness_key, settings.num_inits, settings.init_seed)


def solution_of(dataset: SyntheticDataset, settings: HadesSettings) -> PyTree:
    """The solution that stands for a dataset; what `datasets_of` undoes."""
    solution = {"observations": dataset.observations}
    if dataset.actions is not None:
        solution["actions"] = dataset.actions
    elif settings.learn_labels:
        solution["action_logits"] = jnp.log(dataset.action_probabilities)  # type: ignore[arg-type]
    return solution


def datasets_of(population: PyTree, env: Environment) -> SyntheticDataset:
    """The datasets of a population of solutions, `[population, pairs, ...]`."""
    observations = population["observations"]
    if isinstance(env.action_space, Continuous):
        return SyntheticDataset(observations, actions=population["actions"])
    if "action_logits" in population:
        return SyntheticDataset(observations, action_probabilities=jax.nn.softmax(population["action_logits"]))
    labels = jnp.arange(observations.shape[1]) % env.action_space.num_actions
    one_hot = jax.nn.one_hot(labels, env.action_space.num_actions)
    return SyntheticDataset(
        observations, action_probabilities=jnp.broadcast_to(one_hot, (observations.shape[0], *one_hot.shape))
    )
