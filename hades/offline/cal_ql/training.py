"""Cal-QL as pure functions of states and data: compile them, scan them, map them over seeds."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from hades._initializers import orthogonal
from hades.normalization import Normalizer
from hades.offline.cal_ql.losses import (
    DrawnActions,
    actor_loss,
    conservative_gap,
    critic_targets,
    returns_of_data,
    temperature_loss,
)
from hades.offline.cal_ql.settings import CalQLSettings
from hades.offline.teacher import Layers, Teacher
from hades.offline.transitions import FLAG_KEYS, FLOAT_KEYS, OfflineDataError, Transitions, check_arrays
from hades.types import Continuous, Metrics, PyTree

Critics = tuple[Layers, Layers]

_FIRST_LOG_STD = -1.0
_LAST_LAYER_GAIN = 0.01


@struct.dataclass
class Experience:
    """The data as training sees them.

    Attributes:
        observations: Raw, `[transitions, observation_dim]`.
        actions: `[transitions, action_dim]`.
        rewards: Scaled, `[transitions]`.
        next_observations: `[transitions, observation_dim]`.
        terminals: `[transitions]` bool.
        returns: V^mu(s): discounted rewards to the end of the trajectory, `[transitions]`.
        normalizer: Statistics of the observations, `[observation_dim]`; None in a minibatch.
    """

    observations: jax.Array
    actions: jax.Array
    rewards: jax.Array
    next_observations: jax.Array
    terminals: jax.Array
    returns: jax.Array
    normalizer: Normalizer | None = None


@struct.dataclass
class Actor:
    """Parameters of the policy: layers, and the two scalars that its log-std is made with."""

    layers: Layers
    log_std_multiplier: jax.Array
    log_std_offset: jax.Array


@struct.dataclass
class CalQLNetworks:
    """Trained parts, or one number for each of them."""

    actor: Actor
    critics: Critics
    log_temperature: jax.Array


@struct.dataclass
class CalQLState:
    """State of training after an update.

    Attributes:
        update: Finished updates, `[]` int32.
        networks: What is trained.
        target_critics: Followers of the critics.
        optimizer: State of Adam.
        observation_mean: Of the data, `[observation_dim]`; 0 without normalisation.
        observation_std: Likewise; 1 without normalisation.
    """

    update: jax.Array
    networks: CalQLNetworks
    target_critics: Critics
    optimizer: PyTree
    observation_mean: jax.Array
    observation_std: jax.Array


@dataclass(frozen=True)
class CalQL:
    """Cal-QL for one action space. Made by `make_cal_ql`.

    Attributes:
        action_space: Bounds of actions.
        settings: Static settings.
    """

    action_space: Continuous
    settings: CalQLSettings

    def prepare(self, transitions: Transitions) -> Experience:
        """Scales rewards and sums them up to returns; once for all updates.

        Raises:
            OfflineDataError: There are no transitions, they are not finite, or their actions are not of the action
                space.
        """
        check_transitions(transitions, self.action_space)
        rewards = self.settings.reward_scale * jnp.asarray(transitions.rewards) + self.settings.reward_bias
        returns = returns_of_data(transitions, rewards, self.settings.discount, self.settings.after_timeout)
        observations, following = (
            jnp.asarray(array).reshape(len(rewards), -1)
            for array in (transitions.observations, transitions.next_observations)
        )
        actions, terminals = jnp.asarray(transitions.actions), jnp.asarray(transitions.terminals)
        return Experience(observations, actions, rewards, following, terminals, returns, self._normalizer(transitions))

    def init(self, key: jax.Array, experience: Experience) -> CalQLState:
        """Draws fresh networks.

        Args:
            key: Key of the initialisation.
            experience: What `prepare` returned, for the statistics of its observations.
        """
        dim, action_dim = experience.observations.shape[-1], self.action_space.action_dim
        keys = jax.random.split(key, 3)
        layers = _init_layers(keys[0], (dim, *self.settings.actor_hidden_sizes, 2 * action_dim))
        first, second = (
            _init_layers(key, (dim + action_dim, *self.settings.critic_hidden_sizes, 1)) for key in keys[1:]
        )
        actor = Actor(layers, jnp.float32(1.0), jnp.float32(_FIRST_LOG_STD))
        networks = CalQLNetworks(actor, (first, second), jnp.float32(0.0))
        found: Any = experience.normalizer
        return CalQLState(jnp.int32(0), networks, networks.critics, _ADAM.init(networks), found.mean, found.std)

    def teacher(self, state: CalQLState) -> Teacher:
        """Teacher made of the networks of a state."""
        return self._teacher(state, state.networks.actor, state.networks.critics)

    def update(self, key: jax.Array, state: CalQLState, experience: Experience) -> tuple[CalQLState, Metrics]:
        """One step of Adam on a minibatch; returns the new state and scalars of the minibatch."""
        batch_key, actor_key, critic_key = jax.random.split(key, 3)
        rows = jax.random.randint(batch_key, (self.settings.batch_size,), 0, experience.rewards.shape[0])
        batch = jax.tree.map(lambda leaf: leaf[rows], dataclasses.replace(experience, normalizer=None))
        networks = state.networks
        (_, (log_probs, seen)), actor_gradient = jax.value_and_grad(self._actor_loss, has_aux=True)(
            networks.actor, actor_key, state, batch
        )
        critic_gradient, metrics = jax.grad(self._critic_loss, has_aux=True)(networks.critics, critic_key, state, batch)
        temperature_gradient = jax.grad(temperature_loss)(networks.log_temperature, log_probs, self._target_entropy)
        gradient = CalQLNetworks(actor_gradient, critic_gradient, temperature_gradient)
        updates, optimizer = _ADAM.update(gradient, state.optimizer)
        actor_rate, critic_rate = self.settings.actor_learning_rate, self.settings.critic_learning_rate
        networks = CalQLNetworks(
            optax.tree.add_scale(networks.actor, -actor_rate, updates.actor),
            optax.tree.add_scale(networks.critics, -critic_rate, updates.critics),
            networks.log_temperature - actor_rate * updates.log_temperature,
        )
        targets = optax.incremental_update(networks.critics, state.target_critics, self.settings.polyak)
        metrics |= {
            "actor_value": jnp.mean(seen),
            "entropy": -jnp.mean(log_probs),
            "temperature": jnp.exp(networks.log_temperature),
        }
        after = dataclasses.replace(
            state, update=state.update + 1, networks=networks, target_critics=targets, optimizer=optimizer
        )
        return after, metrics

    @property
    def _target_entropy(self) -> float:
        dim = self.action_space.action_dim
        unit = -float(dim) if self.settings.target_entropy is None else self.settings.target_entropy
        # Densities are those of actions in the environment's units.
        return unit + sum(math.log((high - low) / 2) for low, high in self._bounds)

    @property
    def _bounds(self) -> list[tuple[float, float]]:
        return list(zip(self.action_space.low, self.action_space.high, strict=True))

    def _normalizer(self, transitions: Transitions) -> Normalizer:
        found = jax.tree.map(jnp.ravel, transitions.statistics(self.settings.std_offset))
        if self.settings.normalize_observations:
            return found
        return dataclasses.replace(found, mean=jnp.zeros_like(found.mean), std=jnp.ones_like(found.std))

    def _teacher(self, state: CalQLState, actor: Actor, critics: Critics) -> Teacher:
        """Teacher of these networks, which see observations as those of a state do."""
        return Teacher(
            actor.layers,
            critics,
            state.observation_mean,
            state.observation_std,
            actor.log_std_multiplier,
            actor.log_std_offset,
            jnp.array(self.action_space.low),
            jnp.array(self.action_space.high),
        )

    def _actor_loss(
        self, actor: Actor, key: jax.Array, state: CalQLState, batch: Experience
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        teacher = self._teacher(state, actor, state.networks.critics)
        policy = teacher.policy(batch.observations)
        actions, log_probs = policy.sample_with_log_prob(key)
        values = worth = teacher.q(batch.observations, actions)
        if self.settings.cloning_updates:
            cloning = state.update < self.settings.cloning_updates
            worth = jnp.where(cloning, policy.log_prob(batch.actions), values)
        loss = actor_loss(log_probs, worth, jnp.exp(state.networks.log_temperature))
        return loss, (log_probs, values)

    def _critic_loss(
        self, critics: Critics, key: jax.Array, state: CalQLState, batch: Experience
    ) -> tuple[jax.Array, Metrics]:
        """Squared errors of both critics, with the conservative term of each."""
        settings = self.settings
        target_key, *keys = jax.random.split(key, 4)
        targets = self._targets(target_key, state, batch)
        teacher = self._teacher(state, state.networks.actor, critics)
        data_values = teacher.critic_values(batch.observations, batch.actions)
        errors = [jnp.mean(jnp.square(values - targets)) for values in data_values]
        metrics = {"critic_error": (errors[0] + errors[1]) / 2, "data_value": jnp.mean(jnp.minimum(*data_values))}
        loss = errors[0] + errors[1]
        if settings.conservative_weight:
            actions, log_densities = self._draw(keys, state, batch)
            values = [teacher.critic_values(batch.observations, part) for part in jax.tree.leaves(actions)]
            densities = log_densities if settings.importance_sampling else None
            returns = batch.returns if settings.calibrated else None
            temperature = settings.conservative_temperature
            gaps = [
                jnp.mean(conservative_gap(of_data, DrawnActions(*of_drawn), densities, returns, temperature))
                for of_data, of_drawn in zip(data_values, zip(*values, strict=True), strict=True)
            ]
            loss += settings.conservative_weight * (gaps[0] + gaps[1])
            metrics["conservative_gap"] = (gaps[0] + gaps[1]) / 2
        return loss, metrics

    def _targets(self, key: jax.Array, state: CalQLState, batch: Experience) -> jax.Array:
        count = self.settings.num_actions if self.settings.max_target_backup else 1
        actions, _ = self._sample(key, state, batch.next_observations, count)
        teacher = self._teacher(state, state.networks.actor, state.target_critics)
        values = teacher.q(batch.next_observations, actions)
        return critic_targets(batch.rewards, batch.terminals, jnp.max(values, axis=0), self.settings.discount)

    def _draw(self, keys: list[jax.Array], state: CalQLState, batch: Experience) -> tuple[DrawnActions, DrawnActions]:
        """Actions `[actions, batch, action_dim]` of the conservative term, and logarithms of their densities."""
        count, size = self.settings.num_actions, self.settings.batch_size
        low, high = jnp.array(self.action_space.low), jnp.array(self.action_space.high)
        uniform = jax.random.uniform(keys[0], (count, size, len(low)), minval=low, maxval=high)
        density = jnp.full((count, size), -sum(math.log(high - low) for low, high in self._bounds))
        current, current_density = self._sample(keys[1], state, batch.observations, count)
        following, following_density = self._sample(keys[2], state, batch.next_observations, count)
        return (
            DrawnActions(uniform, current, following),
            DrawnActions(density, current_density, following_density),
        )

    def _sample(
        self, key: jax.Array, state: CalQLState, observations: jax.Array, count: int
    ) -> tuple[jax.Array, jax.Array]:
        """`count` actions of the policy for each state, `[count, batch, action_dim]`, with log-densities."""
        policy = self.teacher(state).policy(observations)
        shape = (count, *policy.mean.shape)
        mean, log_std = (jnp.broadcast_to(part, shape) for part in (policy.mean, policy.log_std))
        return dataclasses.replace(policy, mean=mean, log_std=log_std).sample_with_log_prob(key)


_ADAM = optax.scale_by_adam()


def make_cal_ql(action_space: Continuous, settings: CalQLSettings | None = None) -> CalQL:
    """Makes Cal-QL for actions within these bounds.

    Args:
        action_space: Of the environment that the data are from.
        settings: The published ones if None.

    Example:
        >>> noise = jax.random.normal(jax.random.key(0), (64, 2))
        >>> ends = jnp.arange(64) % 8 == 7
        >>> data = Transitions(noise, jnp.tanh(noise), noise[:, 0], noise, terminals=~ends & ends, timeouts=ends)
        >>> cal_ql = make_cal_ql(Continuous((-1.0, -1.0), (1.0, 1.0)), CalQLSettings((8,), (8,)))
        >>> experience = cal_ql.prepare(data)
        >>> state = cal_ql.init(jax.random.key(1), experience)
        >>> state, metrics = cal_ql.update(jax.random.key(2), state, experience)
        >>> int(state.update), cal_ql.teacher(state).policy(noise).mode().shape
        (1, (64, 2))
    """
    return CalQL(action_space, settings or CalQLSettings())


def check_transitions(transitions: Transitions, action_space: Continuous) -> None:
    """Refuses data that cannot be learned from.

    Raises:
        OfflineDataError: There are none, they hold numbers that are not finite, or other actions; one sentence.
    """
    check_arrays({name: np.asarray(getattr(transitions, name)) for name in (*FLOAT_KEYS, *FLAG_KEYS)})
    if transitions.action_dim != action_space.action_dim:
        raise OfflineDataError(f"actions: expected {action_space.action_dim} components, got {transitions.action_dim}")
    actions, low, high = np.asarray(transitions.actions), np.array(action_space.low), np.array(action_space.high)
    # Files of float32 may round the bounds themselves.
    slack = 1e-4 * (high - low)
    outside = np.argwhere((actions < low - slack) | (actions > high + slack))
    if len(outside):
        row, column = (int(index) for index in outside[0])
        raise OfflineDataError(
            f"actions: expected numbers from {low[column]:g} to {high[column]:g}, "
            f"got {actions[row, column]:g} at {[row, column]}"
        )


def _init_layers(key: jax.Array, widths: tuple[int, ...]) -> Layers:
    """Orthogonal hidden layers and a small last one, as in Cal-QL's code; biases 0."""
    hidden = orthogonal(math.sqrt(2))
    last = jax.nn.initializers.variance_scaling(_LAST_LAYER_GAIN**2, "fan_avg", "uniform")
    layers = []
    for index, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        initializer = last if index == len(widths) - 2 else hidden
        layers.append((initializer(jax.random.fold_in(key, index), (inputs, outputs)), jnp.zeros(outputs)))
    return tuple(layers)
