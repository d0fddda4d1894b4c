"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347), as pure functions of keys and states."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from flax import struct

from hades import policies
from hades._cache import kept
from hades._environment_contract import conform
from hades.normalization import Normalizer, PolicyParams, RunningStatistics
from hades.outer import summarize
from hades.policies import Policy, ValueNetwork
from hades.rl.experience import gather, make_batch, minibatch_rows, present_normalizer, standardize_advantages
from hades.rl.losses import Batch, ppo_loss
from hades.rl.settings import PPOSettings
from hades.rollouts.auto_reset import (
    AutoResetRollout,
    CollectedSteps,
    RunningEpisodes,
    begin_episodes,
    make_auto_reset_rollout,
)
from hades.types import Environment, Metrics, PyTree, require_pure

__all__ = [
    "PPO",
    "ActorCritic",
    "Hyperparameters",
    "PPOSettings",
    "PPOState",
    "make_ppo",
]


@struct.dataclass
class Hyperparameters:
    """The settings that are part of the state, so that `jax.vmap` runs over them; each is `[]` float32."""

    learning_rate: jax.Array
    gamma: jax.Array
    gae_lambda: jax.Array
    clip_range: jax.Array
    entropy_coefficient: jax.Array
    value_coefficient: jax.Array
    max_grad_norm: jax.Array

    @classmethod
    def from_settings(cls, settings: PPOSettings) -> Hyperparameters:
        """Hyperparameters of `settings`; no largest norm becomes an infinite one."""
        values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(cls)}
        return cls(**{name: jnp.float32(math.inf if value is None else value) for name, value in values.items()})


@struct.dataclass
class ActorCritic:
    """Parameters that the optimiser moves.

    Attributes:
        actor: Of the policy.
        critic: Of the value network.
    """

    actor: PyTree
    critic: PyTree


@struct.dataclass
class PPOState:
    """State of a run after an update; saving it saves the run.

    Attributes:
        networks: Parameters of actor and critic.
        optimizer: State of adam.
        episodes: The environments, with the returns of the episodes under way and of those that finished last.
        observation_statistics: Of all raw observations so far; None unless normalisation is running.
        reward_statistics: Of the discounted returns so far; None unless rewards are normalised.
        discounted_returns: Discounted rewards of the episodes under way, `[envs]`.
        update: Finished updates, `[]` int32.
        hyperparameters: Of this run.
        normalizer: What the run was given.
    """

    networks: ActorCritic
    optimizer: PyTree
    episodes: RunningEpisodes
    observation_statistics: RunningStatistics | None
    reward_statistics: RunningStatistics | None
    discounted_returns: jax.Array
    update: jax.Array
    hyperparameters: Hyperparameters
    normalizer: Normalizer


@kept
def make_ppo(env: Environment, settings: PPOSettings) -> PPO:
    """Makes the functions of one run.

    Raises:
        ValueError: The architecture does not suit the environment.

    Example:
        >>> import envs, jax
        >>> ppo = make_ppo(envs.make("diagnostic/match"), PPOSettings(num_envs=4, num_steps=8))
        >>> state = ppo.init(jax.random.key(0), Normalizer())
        >>> state, metrics = jax.jit(ppo.step)(jax.random.key(1), state)
        >>> int(state.update), int(metrics["env_steps"])
        (1, 32)
    """
    env = conform(require_pure(env))
    policy = policies.from_settings(env, settings.network)
    critic = policies.value_network(env, settings.network)
    collect = make_auto_reset_rollout(env, policy, settings.num_envs, settings.num_steps)
    return PPO(env, settings, policy, critic, collect, optax.scale_by_adam(eps=settings.adam_eps))


# Hashed by identity: an environment of a user need not be hashable.
@dataclass(frozen=True, eq=False)
class PPO:
    """PPO as pure functions: jit them, vmap them over seeds and hyperparameters, scan them. Made by `make_ppo`.

    Attributes:
        env: Environment.
        settings: All static settings.
        policy: The actor.
        critic: The value network.
        collect: Goes on with the episodes under way.
        optimizer: Adam without its step size, which is a hyperparameter.
    """

    env: Environment
    settings: PPOSettings
    policy: Policy
    critic: ValueNetwork
    collect: AutoResetRollout
    optimizer: optax.GradientTransformation

    def init(self, key: jax.Array, normalizer: Normalizer, hyperparameters: Hyperparameters | None = None) -> PPOState:
        """State before the first update; without hyperparameters they are those of the settings.

        Raises:
            ValueError: The normalizer is not the one that `settings.observation_normalization` asks for.
        """
        settings = self.settings
        settings.require_kind(normalizer)
        actor_key, critic_key, episode_key = jax.random.split(key, 3)
        networks = ActorCritic(self.policy.init(actor_key), self.critic.init(critic_key))
        running = settings.observation_normalization == "running"
        return PPOState(
            networks,
            self.optimizer.init(networks),
            begin_episodes(episode_key, self.env, settings.num_envs),
            RunningStatistics.empty(self.env.observation_shape) if running else None,
            RunningStatistics.empty(()) if settings.normalize_rewards else None,
            jnp.zeros(settings.num_envs),
            jnp.int32(0),
            Hyperparameters.from_settings(settings) if hyperparameters is None else hyperparameters,
            normalizer,
        )

    def params(self, state: PPOState) -> PolicyParams:
        """Parameters that `hades.evaluate` plays with; running statistics are fixed as they are."""
        return PolicyParams(state.networks.actor, present_normalizer(state, self.settings.min_std))

    def step(self, key: jax.Array, state: PPOState) -> tuple[PPOState, Metrics]:
        """One update.

        Returns:
            The new state and scalars: `fitness_mean`, `fitness_best`, `fitness_worst` and `fitness_std` over
            environments (return of the last finished episode, or so far), `non_finite` (steps whose reward or
            observation is not finite), `masked_steps` (steps left out of the update: those, and others whose
            log-probability, value or advantage is not finite or beyond `hades.normalization.LARGEST`), `skipped`
            (gradient steps left out, since their gradient is not finite or no step counts), `env_steps`,
            `learning_rate`, and what `ppo_loss` reports, as means over the gradient steps that were taken.
        """
        collect_key, update_key = jax.random.split(key)
        # Statistics that this update gathers serve from the next one on: the ratio of the loss begins at 1.
        normalizer = present_normalizer(state, self.settings.min_std)
        episodes, transitions = self.collect(collect_key, state.networks.actor, normalizer, state.episodes)
        state, rewards = gather(dataclasses.replace(state, episodes=episodes), transitions, state.hyperparameters.gamma)
        batch, valid = self._batch(state, transitions, rewards, normalizer)
        rate = self._learning_rate(state)
        networks, optimizer, metrics = self._improve(update_key, state, batch, valid, normalizer, rate)
        _, fitness = summarize(episodes.scores, {})
        metrics |= fitness | {
            "non_finite": jnp.sum(transitions.diverged, dtype=jnp.int32),
            "masked_steps": jnp.sum(~valid, dtype=jnp.int32),
            "env_steps": jnp.int32(self.settings.env_steps),
            "learning_rate": rate,
        }
        return dataclasses.replace(state, networks=networks, optimizer=optimizer, update=state.update + 1), metrics

    def _learning_rate(self, state: PPOState) -> jax.Array:
        rate = state.hyperparameters.learning_rate
        if self.settings.anneal_updates is None:
            return rate
        return rate * jnp.maximum(1 - state.update / self.settings.anneal_updates, 0.0)

    def _batch(
        self, state: PPOState, transitions: CollectedSteps, rewards: jax.Array, normalizer: Normalizer
    ) -> tuple[Batch, jax.Array]:
        """Advantages and targets of all steps, and which of these count, `[time * envs]`."""

        def value(observations: jax.Array) -> jax.Array:
            return self.critic.apply(state.networks.critic, normalizer.apply(observations))

        rates = state.hyperparameters
        values, next_values = value(transitions.observations), value(transitions.next_observations)
        made = make_batch(values, next_values, transitions, rewards, rates.gamma, rates.gae_lambda)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), made)

    def _improve(
        self,
        key: jax.Array,
        state: PPOState,
        batch: Batch,
        valid: jax.Array,
        normalizer: Normalizer,
        rate: jax.Array,
    ) -> tuple[ActorCritic, PyTree, Metrics]:
        """Takes all gradient steps of one update; returns the means of the metrics of the steps taken."""
        settings = self.settings

        def step(carry: tuple[ActorCritic, PyTree], rows: jax.Array) -> tuple[tuple[ActorCritic, PyTree], Any]:
            minibatch = jax.tree.map(lambda leaf: leaf[rows], batch)
            return self._gradient_step(*carry, minibatch, normalizer, state.hyperparameters, rate)

        rows = minibatch_rows(key, valid, settings.num_epochs, settings.num_minibatches)
        before = (state.networks, state.optimizer)
        after, (finite, metrics) = jax.lax.scan(step, before, rows)
        networks, optimizer = optax.tree.where(jnp.any(valid), after, before)
        finite &= jnp.any(valid)
        taken = jnp.sum(finite, dtype=jnp.int32)
        means = jax.tree.map(lambda leaf: jnp.sum(jnp.where(finite, leaf, 0.0)) / jnp.maximum(taken, 1), metrics)
        return networks, optimizer, means | {"skipped": len(rows) - taken}

    def _gradient_step(
        self,
        networks: ActorCritic,
        optimizer: PyTree,
        batch: Batch,
        normalizer: Normalizer,
        hyperparameters: Hyperparameters,
        rate: jax.Array,
    ) -> tuple[tuple[ActorCritic, PyTree], tuple[jax.Array, Metrics]]:
        if self.settings.normalize_advantages:
            batch = standardize_advantages(batch)
        seen = normalizer.apply(batch.observations)

        def loss(networks: ActorCritic) -> tuple[jax.Array, Metrics]:
            return ppo_loss(
                cast(Any, self.policy.apply(networks.actor, seen)),
                self.critic.apply(networks.critic, seen),
                batch,
                clip_range=hyperparameters.clip_range,
                value_clip_range=self.settings.value_clip_range,
                entropy_coefficient=hyperparameters.entropy_coefficient,
                value_coefficient=hyperparameters.value_coefficient,
            )

        (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(networks)
        norm = optax.tree.norm(gradient)
        scale = jnp.minimum(1.0, hyperparameters.max_grad_norm / norm)
        updates, moved = self.optimizer.update(optax.tree.scale(scale, gradient), optimizer)
        improved = optax.tree.add_scale(networks, -rate, updates)
        # Nothing moves otherwise, moments neither.
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        carry = optax.tree.where(finite, (improved, moved), (networks, optimizer))
        return carry, (finite, metrics)
