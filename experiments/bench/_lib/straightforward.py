"""One generation in the straightforward formulation of published code, the reference of `hades bench generation`.

The whole population is vmapped at once, every rollout goes on for the environment's full horizon, what each step
records is stacked over time, and parameters, optimiser states and records of all policies leave the compiled function.
Keys, policies, simulators and settings are those of hades, so that the fitness is the same.

Source: https://github.com/FLAIROx/behaviour-distillation, policy_distillation/distill_minatar.py. Kinder than that
code in two points: environments do not reset themselves at every step, and initialisations are not repeated for each
candidate.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from hades.dataset import SyntheticDataset
from hades.distillation import DatasetRun
from hades.fitness import Draw, PresentPolicies, draw_inits
from hades.inner import cloning
from hades.keys import iteration_key
from hades.normalization import Normalizer
from hades.policies import Policy
from hades.run import RunState
from hades.types import Metrics, PyTree, require_pure


@struct.dataclass
class StepRecords:
    """Records of every step, stacked over time behind the axes of the policies.

    Attributes:
        reward: Reward of the step, zero once the first episode has ended.
        done: Whether the first episode has ended.
        episode_return: Return of the first episode so far.
        episode_length: Steps of the first episode so far.
        timestep: Steps of the environment so far.
    """

    reward: jax.Array
    done: jax.Array
    episode_return: jax.Array
    episode_length: jax.Array
    timestep: jax.Array


@struct.dataclass
class Intermediates:
    """Results of a generation that leave the compiled function, `[population, inits]` in front where not said.

    Attributes:
        solutions: Candidates, `[population, ...]`.
        params: Parameters of the trained policies.
        optimizer_state: State of the optimiser at the end of cloning.
        losses: Loss of each cloning step, `[population, inits, steps]`.
        env_state: State of the environments at the horizon.
        records: Records of every step, `[population, inits, max_steps, episodes]`.
    """

    solutions: PyTree
    params: PyTree
    optimizer_state: optax.OptState
    losses: jax.Array
    env_state: PyTree
    records: StepRecords

    @property
    def values(self) -> jax.Array:
        """Fitness, `[population]`."""
        return jnp.mean(jnp.sum(self.records.reward, axis=2), axis=(1, 2))


def step(run: DatasetRun, state: RunState) -> tuple[RunState, Metrics, Intermediates]:
    """The generation that corresponds to `run.step`: its results, and all others."""
    search_key, draw = draw_generation(run, state)
    found: list[Intermediates] = []

    def value(population: PyTree) -> tuple[jax.Array, Metrics]:
        found.append(fitness(run, draw, population))
        return found[0].values, {}

    outer, metrics = run.outer.step(search_key, state.outer, value)
    return dataclasses.replace(state, iteration=state.iteration + 1, outer=outer), metrics, found[0]


def fitness(run: DatasetRun, draw: Draw, solutions: PyTree) -> Intermediates:
    """Trains and plays a whole population at once.

    Args:
        run: Run of HaDES; chunk sizes are ignored.
        draw: Random numbers of the generation.
        solutions: Candidates, `[population, ...]`.

    Raises:
        ValueError: Normalisation is running, or cloning takes minibatches, which the yardstick does without.
    """
    settings = run.settings
    if settings.observation_normalization == "running" or settings.cloning.batch_size is not None:
        raise ValueError("straightforward: expected full batches, and no or fixed normalisation")
    clone = cloning.from_settings(run.env, settings.cloning)
    # The yardstick draws its noise step by step, from the keys that the episodes of each initialisation share.
    keys, normalizer = draw.problem.per_init.group_keys[:, 0], draw.problem.shared

    def train_and_play(key: jax.Array, initial: PyTree, dataset: SyntheticDataset) -> tuple[Any, ...]:
        params, optimizer_state, losses = _train(clone, initial, dataset)
        env_state, records = _play(run, clone.policy, key, params, normalizer)
        return params, optimizer_state, losses, env_state, records

    over_inits = jax.vmap(train_and_play, in_axes=(0, 0, None))
    over_population = jax.vmap(over_inits, in_axes=(None, None, 0))
    datasets = jax.vmap(run.parametrization.decode)(solutions)
    return Intermediates(solutions, *over_population(keys, draw.initial, datasets))


def _train(
    clone: cloning.BehaviourCloning, initial: PyTree, dataset: SyntheticDataset
) -> tuple[PyTree, optax.OptState, jax.Array]:
    loss_function = clone.loss or cloning.default_loss(dataset)
    assert not isinstance(loss_function, cloning.SampledLoss)  # no case of the benchmark has one

    def loss(params: PyTree) -> jax.Array:
        return loss_function(clone.policy.apply(params, dataset.observations), dataset)

    def step(carry: tuple[PyTree, optax.OptState], _: None) -> tuple[tuple[PyTree, optax.OptState], jax.Array]:
        params, optimizer_state = carry
        value, gradient = jax.value_and_grad(loss)(params)
        updates, optimizer_state = clone.optimizer.update(gradient, optimizer_state, params)
        return (optax.apply_updates(params, updates), optimizer_state), value

    carry = (initial, clone.optimizer.init(initial))
    (params, optimizer_state), losses = jax.lax.scan(step, carry, None, clone.num_steps)
    return params, optimizer_state, losses


def _play(
    run: DatasetRun, policy: Policy, key: jax.Array, params: PyTree, normalizer: Normalizer
) -> tuple[PyTree, StepRecords]:
    env, episodes = require_pure(run.env), run.settings.num_episodes
    # The derivation of keys is that of hades.rollout, or the fitness would be another.
    state, observations = jax.vmap(env.reset)(jax.random.split(jax.random.fold_in(key, 0), episodes))

    def step(carry: tuple[PyTree, jax.Array, StepRecords], time: jax.Array) -> tuple[Any, StepRecords]:
        state, observations, last = carry
        keys = jax.random.split(jax.random.fold_in(key, time + 1), episodes + 1)
        distribution = policy.apply(params, normalizer.apply(observations))
        sampled = run.settings.action_selection == "sample"
        actions = distribution.sample(keys[0]) if sampled else distribution.mode()
        result = jax.vmap(env.step)(keys[1:], state, actions)
        reward = jnp.where(last.done, 0.0, result.reward)
        records = StepRecords(
            reward=reward,
            done=last.done | result.terminated | result.truncated,
            episode_return=last.episode_return + reward,
            episode_length=last.episode_length + ~last.done,
            timestep=last.timestep + 1,
        )
        return (result.state, result.observation, records), records

    zeros, counts = jnp.zeros(episodes), jnp.zeros(episodes, jnp.int32)
    first = StepRecords(zeros, jnp.zeros(episodes, bool), zeros, counts, counts)
    (state, _, _), records = jax.lax.scan(step, (state, observations, first), jnp.arange(env.max_steps))
    return state, records


def draw_generation(run: DatasetRun, state: RunState) -> tuple[jax.Array, Draw]:
    """Random numbers of `run.step` in the generation of a state: key of the search, and draw of the fitness."""
    search_key, value_key = jax.random.split(iteration_key(state.key, state.iteration))
    init_key, objective_key = jax.random.split(value_key)
    draw = draw_inits(run.inner, init_key, run.num_inits, run.init_seed)
    problem, *_ = run.objective.draw(objective_key, state.objective, PresentPolicies(run.num_inits))
    return search_key, dataclasses.replace(draw, problem=problem)
