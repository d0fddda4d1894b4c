"""The objective of HaDES-PG: the clipped surrogate of PPO on steps that the trained policies collected themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from flax import struct

from hades import policies
from hades._environment_contract import is_key
from hades._rows import swapped
from hades._validation import require_positive_fields
from hades.fitness import Minibatches
from hades.normalization import Normalizer, RunningStatistics
from hades.outer._metrics import summarize
from hades.policies import NetworkSettings, Policy, ValueNetwork
from hades.rl.experience import gather, make_batch, minibatch_rows, present_normalizer, standardize_advantages
from hades.rl.losses import Batch, clipped_surrogate, value_loss
from hades.rl.settings import OnPolicySettings
from hades.rollouts.auto_reset import (
    AutoResetRollout,
    CollectedSteps,
    CollectionNoise,
    RunningEpisodes,
    begin_episodes,
    make_auto_reset_rollout,
)
from hades.rollouts.statistics import episode_statistics, initial_normalizer
from hades.types import Environment, Metrics, Params, Policies, PyTree, require_pure


@dataclass(frozen=True)
class PolicyGradientSettings(OnPolicySettings):
    """Collection of steps, their advantages, and the surrogate of a policy gradient."""

    num_envs: int = 64
    """Environments of all initialisations together, played at once."""
    num_minibatches: int = 2
    """Parts that each pass over the collected steps is split into, at random; one gradient step each."""
    restart_episodes: bool = False
    """Whether every iteration begins new episodes, rather than going on with those under way."""
    normalize_advantages: bool = True
    """Whether the advantages of an iteration are shifted and scaled to mean 0 and standard deviation 1."""
    critic: NetworkSettings = NetworkSettings(hidden_sizes=(128, 128))
    """Architecture of the one critic of all initialisations."""
    critic_learning_rate: float = 1e-3
    """Step size of the critic's adam."""
    critic_epochs: int = 4
    """Passes of an iteration over the collected steps that train the critic."""
    critic_minibatches: int = 4
    """Parts that each of these passes is split into."""

    def __post_init__(self) -> None:
        """Refuses also sizes of the critic's training that are out of range, or do not split the collection."""
        super().__post_init__()
        require_positive_fields(self, "critic_epochs", "critic_minibatches", "critic_learning_rate")
        self._require_divisors("critic_minibatches")

    def require_shares(self, num_inits: int) -> None:
        """Refuses environments and minibatches that initialisations cannot share evenly.

        Raises:
            ValueError: They cannot; the message names the field.
        """
        if self.num_envs % num_inits:
            raise ValueError(f"num_envs: expected a multiple of num_inits = {num_inits}, got {self.num_envs}")
        steps = self.env_steps // num_inits
        if steps % self.num_minibatches:
            raise ValueError(
                f"num_minibatches: expected a divisor of the {steps} steps of an initialisation, "
                f"got {self.num_minibatches}"
            )


@struct.dataclass
class PolicyGradientState:
    """State of the objective between two iterations.

    Attributes:
        normalizer: Normalisation that was given or measured first.
        critic: Parameters of the value network.
        optimizer: State of its adam.
        episodes: Environments in the middle of their episodes, those of an initialisation side by side, `[envs]`.
        observation_statistics: Of all raw observations so far, and of the random play before; None unless normalisation
            is running.
        reward_statistics: Of the discounted returns so far; None unless rewards are normalised.
        discounted_returns: Discounted rewards of the episodes under way, `[envs]`.
    """

    normalizer: Normalizer
    critic: PyTree
    optimizer: PyTree
    episodes: RunningEpisodes
    observation_statistics: RunningStatistics | None
    reward_statistics: RunningStatistics | None
    discounted_returns: jax.Array


@struct.dataclass
class _Collection:
    """Collection of an iteration, `[envs, time]` in front of each leaf.

    Attributes:
        steps: Without the observations that they ended in; of the others the raw ones, None where nothing is gathered
            of them.
        seen: Observations as the policies saw them.
        values: What the critic says of these.
        next_values: What it says of those that the steps ended in.
    """

    steps: CollectedSteps
    seen: jax.Array
    values: jax.Array
    next_values: jax.Array


@struct.dataclass
class PolicyGradient:
    """The clipped surrogate (Schulman et al. 2017, arXiv 1707.06347, eq. 7) of policies that a dataset trains.

    A `hades.types.Objective`. At each iteration the policies that the present dataset trains collect steps; one critic
    for all of them gives advantages (GAE); the problem are minibatches of these steps, on which the surrogate is
    differentiated through the training of the same initialisations.

    Attributes:
        env: Environment.
        policy: Architecture that plays.
        settings: Collection, advantages, surrogate and critic.
        statistics: Given fixed normalisation, in place of the one that `init` would measure.

    Example:
        >>> import envs, hades
        >>> env = envs.make("diagnostic/match")
        >>> settings = PolicyGradientSettings(num_envs=4, num_steps=8)
        >>> objective = PolicyGradient(env, hades.policies.mlp(env), settings)
        >>> objective.init(jax.random.key(0)).episodes.lengths.shape
        (4,)
    """

    env: Environment = struct.field(pytree_node=False)
    policy: Policy = struct.field(pytree_node=False)
    settings: PolicyGradientSettings = struct.field(pytree_node=False, default=PolicyGradientSettings())
    statistics: Normalizer | None = None

    def init(self, key: jax.Array) -> PolicyGradientState:
        """Measures statistics where they are asked for, draws a critic, and begins episodes."""
        statistics_key, critic_key, episode_key = jax.random.split(key, 3)
        env, settings = self._env, self.settings
        if self.statistics is not None:
            settings.require_kind(self.statistics)
        # Running ones, too, begin with those of random play: raw observations may be far larger than what the first
        # step sizes suit.
        running = settings.observation_normalization == "running"
        gathered = episode_statistics(statistics_key, env, settings.statistics_episodes) if running else None
        critic = self._critic.init(critic_key)
        return PolicyGradientState(
            self.statistics or initial_normalizer(statistics_key, env, settings),
            critic,
            self._optimizer.init(critic),
            begin_episodes(episode_key, env, settings.num_envs),
            gathered,
            RunningStatistics.empty(()) if settings.normalize_rewards else None,
            jnp.zeros(settings.num_envs),
        )

    def draw(
        self, key: jax.Array, state: PolicyGradientState, policies: Policies
    ) -> tuple[Minibatches, PolicyGradientState, Metrics]:
        """Collects steps with the present policies, trains the critic, and divides the steps into minibatches.

        Raises:
            ValueError: Environments or minibatches cannot be shared evenly among the initialisations.
        """
        episode_key, collect_key, *learn_keys = jax.random.split(key, 4)
        settings, params, inits = self.settings, policies(), policies.num_inits
        settings.require_shares(inits)
        if settings.restart_episodes:
            begun = begin_episodes(episode_key, self._env, settings.num_envs)
            state = replace(state, episodes=begun, discounted_returns=jnp.zeros_like(state.discounted_returns))
        episodes, collection = self._collect(collect_key, params, state, policies)
        # What follows is small. The environments may hold keys, which stay where they are.
        learner = replace(state, episodes=cast(Any, None))
        learned, learner, metrics = policies.once(partial(self._learn, inits), learn_keys, learner, collection)
        _, fitness = summarize(episodes.scores, {})
        metrics = fitness | metrics | {"env_steps": jnp.int32(settings.env_steps)}
        # Every device has the observations.
        problem = replace(learned.problem, observations=_by_init(collection.seen, inits))
        return replace(learned, problem=problem), replace(learner, episodes=episodes), metrics

    def value(self, problem: Batch, params: Params) -> tuple[jax.Array, Metrics]:
        """The surrogate with the entropy bonus on steps `[inits, steps, ...]`, each on those it collected itself."""

        def score(batch: Batch, network: Params) -> tuple[jax.Array, Metrics]:
            distribution = cast(Any, self.policy.apply(network, batch.observations))
            surrogate, metrics = clipped_surrogate(distribution, batch, self.settings.clip_range)
            return surrogate + self.settings.entropy_coefficient * metrics["entropy"], metrics

        values, metrics = jax.vmap(jax.vmap(score), in_axes=(None, 0))(problem, params)
        return values, jax.tree.map(lambda leaf: jnp.mean(leaf, axis=1), metrics)

    def normalizer(self, state: PolicyGradientState) -> Normalizer:
        """Normalisation that policies see observations by."""
        return present_normalizer(state, self.settings.min_std)

    @property
    def _env(self) -> Environment:
        return require_pure(self.env)

    @property
    def _critic(self) -> ValueNetwork:
        return policies.value_network(self.env, self.settings.critic)

    @property
    def _optimizer(self) -> optax.GradientTransformation:
        return optax.chain(optax.clip_by_global_norm(0.5), optax.adam(self.settings.critic_learning_rate, eps=1e-5))

    def _collect(
        self, key: jax.Array, params: Params, state: PolicyGradientState, policies: Policies
    ) -> tuple[RunningEpisodes, _Collection]:
        """Steps of all environments, of which each device plays and values its share on its own."""

        def rollout(inits: int, envs: int) -> AutoResetRollout:
            return make_auto_reset_rollout(self._env, side_by_side(self.policy, inits), envs, self.settings.num_steps)

        def play(
            params: Params, rows: tuple[RunningEpisodes, CollectionNoise], shared: tuple[Normalizer, PyTree]
        ) -> tuple[RunningEpisodes, _Collection]:
            (episodes, noise), (normalizer, critic) = rows, shared
            inits, envs = jax.tree.leaves(params)[0].shape[0], episodes.lengths.shape[0]
            after, steps = rollout(inits, envs)(swapped(noise), params, normalizer, episodes)
            return after, self._valued(steps, normalizer, critic)

        # Statistics that this iteration gathers serve from the next one on: the ratio begins at 1.
        normalizer, episodes = self.normalizer(state), state.episodes
        whole = rollout(policies.num_inits, self.settings.num_envs)
        noise = whole.draw(key, params, normalizer, episodes)
        if is_key(noise.steps.actions):
            # One key draws the actions of all environments.
            after, steps = policies.gather(whole(noise, params, normalizer, episodes))
            return after, self._valued(steps, normalizer, state.critic)
        shared = (normalizer, state.critic)
        return policies.map_environments(play, params, (episodes, swapped(noise)), shared)

    def _valued(self, steps: CollectedSteps, normalizer: Normalizer, critic: PyTree) -> _Collection:
        """Steps `[time, envs]` with their values, and without the observations that nobody reads behind these."""
        seen, following = normalizer.apply(steps.observations), normalizer.apply(steps.next_observations)
        values, next_values = self._critic.apply(critic, seen), self._critic.apply(critic, following)
        raw = steps.observations if self.settings.observation_normalization == "running" else None
        steps = replace(steps, observations=cast(Any, raw), next_observations=cast(Any, None))
        return swapped(_Collection(steps, seen, values, next_values))

    def _learn(
        self, inits: int, keys: Sequence[jax.Array], state: PolicyGradientState, collection: _Collection
    ) -> tuple[Minibatches, PolicyGradientState, Metrics]:
        """Minibatches of what was collected, but for the observations; the state that has learned; and metrics."""
        critic_key, row_key = keys
        settings = self.settings
        steps, values, next_values = swapped((collection.steps, collection.values, collection.next_values))
        state, rewards = gather(state, steps, settings.gamma)
        steps = replace(steps, observations=cast(Any, None))
        batch, valid = swapped(make_batch(values, next_values, steps, rewards, settings.gamma, settings.gae_lambda))
        # As the policies see them, once for all epochs.
        seen = replace(batch, observations=collection.seen)
        critic, optimizer, error = self._train_critic(critic_key, state, seen, valid)
        if settings.normalize_advantages:
            batch = standardize_advantages(batch, valid)
        metrics = {
            "non_finite": jnp.sum(steps.diverged, dtype=jnp.int32),
            "masked_steps": jnp.sum(~valid, dtype=jnp.int32),
            "value_loss": error,
        }
        return self._divide(row_key, batch, valid, inits), replace(state, critic=critic, optimizer=optimizer), metrics

    def _train_critic(
        self, key: jax.Array, state: PolicyGradientState, batch: Batch, valid: jax.Array
    ) -> tuple[PyTree, PyTree, jax.Array]:
        """The critic after its epochs, the state of its optimiser, and its mean loss."""
        settings = self.settings
        batch, valid = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), (batch, valid))

        def step(carry: tuple[PyTree, PyTree], rows: jax.Array) -> tuple[tuple[PyTree, PyTree], jax.Array]:
            critic, optimizer = carry
            part = jax.tree.map(lambda leaf: leaf[rows], batch)

            def loss(critic: PyTree) -> jax.Array:
                return value_loss(self._critic.apply(critic, part.observations), part, settings.value_clip_range)

            error, gradient = jax.value_and_grad(loss)(critic)
            updates, optimizer = self._optimizer.update(gradient, optimizer, critic)
            return (optax.apply_updates(critic, updates), optimizer), error

        before = (state.critic, state.optimizer)
        rows = minibatch_rows(key, valid, settings.critic_epochs, settings.critic_minibatches)
        after, errors = jax.lax.scan(step, before, rows)
        finite = jnp.any(valid) & jnp.all(jnp.isfinite(errors)) & jnp.isfinite(optax.tree.norm(after[0]))
        critic, optimizer = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, before)
        return critic, optimizer, jnp.mean(errors)

    def _divide(self, key: jax.Array, batch: Batch, valid: jax.Array, inits: int) -> Minibatches:
        """Steps by initialisation, and the rows of each minibatch."""
        batch, valid = _by_init((batch, valid), inits)
        epochs, parts = self.settings.num_epochs, self.settings.num_minibatches
        keys = jax.random.split(key, inits)
        rows = jax.vmap(lambda key, valid: minibatch_rows(key, valid, epochs, parts), out_axes=1)(keys, valid)
        return Minibatches(batch, rows, jax.vmap(_counting)(valid))


def _by_init(tree: PyTree, inits: int) -> PyTree:
    """Steps `[inits, steps, ...]` of steps `[envs, time, ...]`."""
    return jax.tree.map(lambda leaf: leaf.reshape(inits, -1, *leaf.shape[2:]), tree)


def _counting(valid: jax.Array) -> jax.Array:
    """Rows of all steps, `[steps]`, in which those that do not count give way to others, in their order."""
    places = jnp.arange(valid.shape[0])
    others = jnp.argsort(~valid, stable=True)[places % jnp.maximum(jnp.sum(valid), 1)]
    return jnp.where(valid, places, others)


def side_by_side(policy: Policy, inits: int) -> Policy:
    """Several policies as one, each acting in its share of the environments.

    Args:
        policy: Architecture of each.
        inits: How many; parameters are `[inits, ...]`, and observations `[envs, ...]` of which each sees `envs / inits`
            in a row.
    """

    def apply(params: PyTree, observations: jax.Array) -> Any:
        shared = observations.reshape(inits, -1, *observations.shape[1:])
        # Twice, so that parameters of the distribution that are the same everywhere have the axis of environments, too.
        distributions = jax.vmap(jax.vmap(policy.apply, in_axes=(None, 0)))(params, shared)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), distributions)

    return Policy(policy.init, apply)
