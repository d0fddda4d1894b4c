"""Rollouts of first episodes: masked when they end, ended with the last of them, nothing stacked over time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import struct

from hades._validation import require_not_negative, require_positive
from hades.distributions import (
    ActionSelection,
    Distribution,
    Reparametrized,
    choose,
    draw_noise,
    invalid_actions,
    shapes_for_noise,
)
from hades.normalization import Normalizer, RunningStatistics
from hades.policies import Policy
from hades.rollouts._loop import play_until_ended
from hades.rollouts._parallel import StepNoise, reset_parallel, step_parallel
from hades.types import AnyEnvironment, Environment, PyTree, require_pure


@struct.dataclass
class EpisodeReturns:
    """Return and length of the first episode of every environment.

    Attributes:
        returns: Sum of rewards, not discounted, `[candidates, inits, episodes]`; NaN where the episode diverged.
        lengths: Steps until the episode ended, `[candidates, inits, episodes]` int32.
        statistics: Running statistics of the raw observations at the end, with leading axes
            `[candidates, inits, groups]`; None where none are gathered.
        successes: Whether the task was solved at any step, `[candidates, inits, episodes]` bool; None where the
            simulator does not say.
    """

    returns: jax.Array
    lengths: jax.Array
    statistics: RunningStatistics | None = None
    successes: jax.Array | None = None


@struct.dataclass
class EpisodeNoise:
    """All random numbers of some episodes, drawn before they begin: `PureRollout.draw`.

    Attributes:
        group_keys: `[inits, groups]`.
        steps: Of every step, `[inits, groups, time, ...]` in each leaf.
    """

    group_keys: jax.Array
    steps: StepNoise


Rollout: TypeAlias = Callable[[jax.Array, PyTree, Normalizer], EpisodeReturns]
"""`rollout(keys [inits], params [candidates, inits, ...], normalizer)`, see `make_rollout`."""

MOST_NOISE_BYTES = 2**28
"""Noise beyond this size is drawn step by step."""


@struct.dataclass
class GroupObservations:
    """Observations of parallel episodes that share their running statistics.

    Attributes:
        observations: Raw, `[envs, *observation_shape]`.
        alive: Which episodes have not ended, `[envs]` bool.
        statistics: Of the observations before these; None where none are gathered.
    """

    observations: jax.Array
    alive: jax.Array
    statistics: RunningStatistics | None


@struct.dataclass
class _EpisodeGroup:
    """Parallel episodes of one policy that share their running statistics. Axes of a single group: `[envs]`."""

    state: Any
    seen: GroupObservations
    returns: jax.Array
    lengths: jax.Array


def act(
    randomness: jax.Array,
    policy: Policy,
    action_selection: ActionSelection,
    seen: GroupObservations,
    params: PyTree,
    normalizer: Normalizer,
) -> tuple[jax.Array, jax.Array, RunningStatistics | None]:
    """Chooses the actions of one group, of a key or of noise for `hades.distributions.choose`.

    Returns:
        Actions `[envs]` or `[envs, action_dim]`, which of them are not finite, `[envs]` bool, and running statistics
        with the present observations, None where none are gathered.
    """
    statistics = seen.statistics
    sees_by: Normalizer | RunningStatistics = normalizer
    if statistics is not None:
        statistics = statistics.update(seen.observations, seen.alive)
        if normalizer.kind == "running":
            sees_by = statistics
    distribution = policy.apply(params, sees_by.apply(seen.observations))
    actions = choose(randomness, distribution, action_selection)
    return actions, invalid_actions(distribution, actions), statistics


def over_all(function: Callable[..., Any]) -> Callable[..., Any]:
    """Maps `function(random, group, params, normalizer)` over candidates, inits and groups.

    Keys or noise are `[inits, groups]`, groups `[candidates, inits, groups]` and parameters `[candidates, inits]`.
    """
    # Mapped from the inside out; keys and noise have no candidate axis, so that XLA draws the random numbers of a step
    # once for all candidates.
    over_groups = jax.vmap(function, in_axes=(0, 0, None, None))
    over_inits = jax.vmap(over_groups, in_axes=(0, 0, 0, None))
    return jax.vmap(over_inits, in_axes=(None, 0, 0, None))


def make_rollout(
    env: AnyEnvironment,
    policy: Policy,
    num_episodes: int,
    action_selection: ActionSelection = "sample",
    normalization_envs: int | None = None,
    halvings: int = 0,
    gather_statistics: bool = False,
) -> PureRollout:
    """Makes the function that plays episodes with a batch of policies.

    Candidates share the keys of their inits, so that all of them see the same first states and the same noise
    (common random numbers). Scalar predicates outside of every vmap end the loop, with the last living episode.
    An episode ends where it terminates, after `max_steps` steps, or where it diverges, in which case its return is NaN.

    Args:
        env: The environment; rolled for at most its `max_steps`.
        policy: Plays; its parameters come with each call.
        num_episodes: Episodes of each policy.
        action_selection: Whether actions are drawn from the policy's distribution or are its mode.
        normalization_envs: With running normalisation, how many episodes share statistics; all of them if None.
        halvings: Times that the loop goes on with half of the candidates of a call, once the episodes of the others
            have ended. Steps are saved where episodes end early; each halving is one more copy of the step to compile.
            Under `jax.vmap` each half waits for the slowest row.
        gather_statistics: Whether statistics are gathered, and returned, also where policies do not see by them.

    Returns:
        A function of keys `[inits]`, network parameters with leading axes `[candidates, inits]`, and a normalizer.

    Raises:
        ValueError: `num_episodes` is not positive, or not a multiple of `normalization_envs`, `halvings` is negative,
            or the environment is simulated outside of JAX.
    """
    env = require_pure(env)
    require_not_negative("halvings", halvings)
    group_size = group_size_of(num_episodes, normalization_envs)
    return PureRollout(env, policy, num_episodes, group_size, action_selection, halvings, gather_statistics)


@dataclass(frozen=True, eq=False)
class PureRollout:
    """A rollout, and all of its random numbers at once. Fields as of `make_rollout`."""

    env: Environment
    policy: Policy
    num_episodes: int
    group_size: int
    action_selection: ActionSelection
    halvings: int
    gather_statistics: bool

    def draw(self, keys: jax.Array) -> EpisodeNoise | jax.Array:
        """Draws what a call would draw step by step, to be passed in place of keys.

        Calls in turn, such as those for chunks of candidates, then share it.

        Args:
            keys: `[inits]`.

        Returns:
            The noise, or `keys` where it would fill more than `MOST_NOISE_BYTES`.
        """

        def draw_all(keys: jax.Array) -> EpisodeNoise:
            group_keys = self._group_keys(keys)
            over_time = jax.vmap(functools.partial(self._step_noise, self._distribution), in_axes=(None, 0))
            return EpisodeNoise(group_keys, over_groups(over_time)(group_keys, jnp.arange(self.env.max_steps)))

        leaves = jax.tree.leaves(jax.eval_shape(draw_all, keys))
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
        return draw_all(keys) if size <= MOST_NOISE_BYTES else keys

    def __call__(self, keys: jax.Array | EpisodeNoise, params: PyTree, normalizer: Normalizer) -> EpisodeReturns:
        """Plays, see `make_rollout`."""
        group_keys = keys.group_keys if isinstance(keys, EpisodeNoise) else self._group_keys(keys)
        candidates = num_candidates(params)
        first = over_groups(self._start)(fold_in_all(group_keys, 0), normalizer)
        groups = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (candidates, *leaf.shape)), first)

        def noise_at(time: jax.Array) -> StepNoise:
            if isinstance(keys, EpisodeNoise):
                return jax.tree.map(lambda leaf: leaf[:, :, time], keys.steps)
            return over_groups(functools.partial(self._step_noise, None))(group_keys, time)

        def advance(time: jax.Array, groups: _EpisodeGroup, params: PyTree) -> _EpisodeGroup:
            # Living episodes have all taken `time` steps: one scalar for all of them, which is faster than lengths.
            step = over_all(functools.partial(self._advance, time))
            return step(noise_at(time), groups, params, normalizer)

        returns, lengths, statistics = play_until_ended(
            advance,
            lambda groups: groups.seen.alive,
            lambda groups: (groups.returns, groups.lengths, groups.seen.statistics),
            groups,
            params,
            self.halvings,
        )
        shape = (candidates, group_keys.shape[0], self.num_episodes)
        return EpisodeReturns(returns.reshape(shape), lengths.reshape(shape), statistics)

    def _group_keys(self, keys: jax.Array) -> jax.Array:
        return split_all(keys, self.num_episodes // self.group_size)

    def _step_noise(self, distribution: Reparametrized | None, group_key: jax.Array, time: jax.Array) -> StepNoise:
        keys = jax.random.split(jax.random.fold_in(group_key, time + 1), self.group_size + 1)
        return StepNoise(draw_noise(keys[0], distribution), keys[1:])

    @property
    def _distribution(self) -> Reparametrized | None:
        """Shapes of the distribution over the actions of a group, see `shapes_for_noise`; None by the mode."""
        if self.action_selection == "mode":
            return None

        def first() -> Distribution:
            params = self.policy.init(jax.random.key(0))
            return self.policy.apply(params, jnp.zeros((self.group_size, *self.env.observation_shape)))

        return shapes_for_noise(first)

    def _start(self, key: jax.Array, normalizer: Normalizer) -> _EpisodeGroup:
        state, observations, diverged = reset_parallel(jax.random.split(key, self.group_size), self.env)
        empty = normalizer.empty_statistics(self.env.observation_shape)
        if empty is None and self.gather_statistics:
            empty = RunningStatistics.empty(self.env.observation_shape)
        seen = GroupObservations(observations, ~diverged, empty)
        lengths = jnp.zeros(self.group_size, jnp.int32)
        return _EpisodeGroup(state, seen, jnp.where(diverged, jnp.nan, 0.0), lengths)

    def _advance(
        self, time: jax.Array, noise: StepNoise, group: _EpisodeGroup, params: PyTree, normalizer: Normalizer
    ) -> _EpisodeGroup:
        alive = group.seen.alive
        actions, invalid, statistics = act(
            noise.actions, self.policy, self.action_selection, group.seen, params, normalizer
        )
        step = step_parallel(noise.env_keys, self.env, group.state, actions, invalid, time)
        rewards = jnp.where(step.diverged, jnp.nan, step.rewards)
        return _EpisodeGroup(
            step.state,
            GroupObservations(step.observations, alive & ~step.ended, statistics),
            group.returns + jnp.where(alive, rewards, 0.0),
            group.lengths + alive,
        )


def group_size_of(num_episodes: int, normalization_envs: int | None) -> int:
    """Episodes of a group.

    Raises:
        ValueError: A number is not positive, or `num_episodes` not a multiple of `normalization_envs`.
    """
    require_positive("num_episodes", num_episodes)
    if normalization_envs is not None:
        require_positive("normalization_envs", normalization_envs)
    group_size = normalization_envs or num_episodes
    if num_episodes % group_size:
        raise ValueError(
            f"num_episodes: expected a multiple of {group_size}, the environments that share running statistics, "
            f"got {num_episodes}"
        )
    return group_size


def num_candidates(params: PyTree) -> int:
    """Length of the first axis of parameters `[candidates, inits, ...]`; 1 where a policy has none."""
    leaves = jax.tree.leaves(params)
    return int(leaves[0].shape[0]) if leaves else 1


def over_groups(function: Callable[..., Any]) -> Callable[..., Any]:
    """Maps `function(key, argument)` over keys `[inits, groups]`."""
    return jax.vmap(jax.vmap(function, in_axes=(0, None)), in_axes=(0, None))


def split_all(keys: jax.Array, count: int) -> jax.Array:
    """Splits every one of keys `[inits]`, into `[inits, count]`."""
    return jax.vmap(lambda key: jax.random.split(key, count))(keys)


def fold_in_all(keys: jax.Array, data: jax.Array | int) -> jax.Array:
    """Keys `[inits, groups]` for one point in time."""
    return over_groups(jax.random.fold_in)(keys, data)
