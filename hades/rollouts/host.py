"""Rollouts in simulators outside of JAX: the policy compiled on batches of all episodes, only living ones simulated."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.stages import Lowered, Wrapped

from hades._cache import kept
from hades._environment_contract import conform
from hades._rows import swapped
from hades.distributions import ActionSelection
from hades.images.environment import ImageClassification
from hades.normalization import Normalizer
from hades.policies import Policy
from hades.rollouts.first_episode import (
    EpisodeReturns,
    GroupObservations,
    Rollout,
    act,
    fold_in_all,
    group_size_of,
    make_rollout,
    num_candidates,
    over_all,
    split_all,
)
from hades.rollouts.images import make_image_rollout
from hades.rollouts.recorded import Act, RecordedEpisodes, View, no_view
from hades.sharding import Devices, own_copy, replicate, replicated_shapes, spans_several
from hades.types import AnyEnvironment, HostEnvironment, HostStep, PyTree


@kept
def compiled_rollout(
    env: AnyEnvironment,
    policy: Policy,
    num_episodes: int,
    action_selection: ActionSelection = "sample",
    normalization_envs: int | None = None,
    mesh: Mesh | None = None,
) -> Rollout:
    """The rollout that suits the environment, compiled: `make_rollout`, `make_host_rollout` or `make_image_rollout`.

    Arguments are those of all. The devices of a mesh share the policies of one candidate; a simulator on the host, and
    images, ask one of them.
    """
    env = conform(env)
    arguments = (policy, num_episodes, action_selection, normalization_envs)
    if isinstance(env, HostEnvironment):
        images = isinstance(env, ImageClassification)
        make: Callable[..., Rollout] = make_image_rollout if images else make_host_rollout
        alone = make(env, *arguments)
        return lambda keys, params, normalizer: alone(keys, own_copy(params), normalizer)
    rollout = make_rollout(env, *arguments)

    def play(own: tuple[jax.Array, PyTree], normalizer: Normalizer) -> EpisodeReturns:
        keys, params = own
        return swapped(rollout(keys, swapped(params), normalizer))

    @jax.jit
    def play_all(keys: jax.Array, params: PyTree, normalizer: Normalizer) -> EpisodeReturns:
        if not spans_several(mesh):
            return rollout(keys, params, normalizer)
        return swapped(Devices(mesh).map(play, (keys, swapped(params)), normalizer))

    return CompiledRollout(play_all, mesh if spans_several(mesh) else None)


@dataclass(frozen=True)
class CompiledRollout:
    """A rollout that is one compiled program: a `Rollout`.

    Attributes:
        program: The rollout, jitted.
        mesh: Devices that share the policies, which have all arrays whole; None where arrays stay where they are.
    """

    program: Wrapped
    mesh: Mesh | None = None

    def __call__(self, keys: jax.Array, params: PyTree, normalizer: Normalizer) -> EpisodeReturns:
        """Plays."""
        played: EpisodeReturns = self.program(*replicate((keys, params, normalizer), self.mesh))
        return played

    def lower(self, keys: PyTree, params: PyTree, normalizer: Normalizer) -> Lowered:
        """The program, traced for arrays of such shapes but not compiled."""
        return self.program.lower(*replicated_shapes((keys, params, normalizer), self.mesh))


class _HostEpisodes:
    """First episodes in a host simulator, under the rules of `hades.rollouts`: truncation at `max_steps`, divergence.

    Attributes:
        simulator: Plays the episodes.
        observations: Of the present states, `[episodes, *observation_shape]` float32.
        alive: Which episodes have not ended, `[episodes]` bool.
        diverged: Which episodes have diverged, `[episodes]` bool.
        succeeded: Which episodes have solved the task at any step, `[episodes]` bool; None where none of them says.
    """

    def __init__(self, env: HostEnvironment, seeds: np.ndarray) -> None:
        """Begins an episode for each of the seeds `[episodes]`."""
        self.simulator = env.simulate(seeds)
        self._steps_left = env.max_steps
        self.observations = self.simulator.observations.copy()
        self.diverged = ~_all_finite(self.observations)
        self.succeeded: np.ndarray | None = None
        self.alive = self.simulator.alive & ~self.diverged

    def step(self, actions: np.ndarray, invalid: np.ndarray) -> HostStep:
        """Advances every living episode by one step.

        Args:
            actions: `[episodes, action_dim]`.
            invalid: Which of them are not finite, `[episodes]` bool.

        Returns:
            The step; rewards are 0 where the episode had ended before and NaN where it diverges, and an episode that
            diverges is neither terminated nor truncated.
        """
        # An action that is not finite makes a simulator end an episode: also one that is over here, but not there.
        if np.issubdtype(actions.dtype, np.floating):
            actions = np.where((self.alive & ~invalid)[:, None], actions, np.nan)
        alive, out = self.alive, self.simulator.step(actions)
        self._steps_left -= 1
        # Rewards are recorded as float32.
        finite = _all_finite(out.observations) & np.isfinite(out.rewards.astype(np.float32))
        diverged = alive & (invalid | ~finite)
        terminated = alive & out.terminated & ~diverged
        truncated = alive & (out.truncated | (self._steps_left == 0)) & ~diverged & ~terminated
        self.observations, self.diverged = out.observations.copy(), self.diverged | diverged
        self.alive = alive & ~(diverged | terminated | truncated)
        if out.succeeded is not None:
            before = np.zeros_like(alive) if self.succeeded is None else self.succeeded
            self.succeeded = before | (alive & out.succeeded & ~diverged)
        rewards = np.where(alive, np.where(diverged, np.nan, out.rewards), 0.0)
        return HostStep(self.observations, rewards, terminated, truncated, out.succeeded)


def _all_finite(rows: np.ndarray) -> np.ndarray:
    return np.isfinite(rows).reshape(len(rows), -1).all(axis=1)


def make_host_rollout(
    env: HostEnvironment,
    policy: Policy,
    num_episodes: int,
    action_selection: ActionSelection = "sample",
    normalization_envs: int | None = None,
) -> Rollout:
    """Makes the function that plays episodes with a batch of policies in a simulator outside of JAX.

    As with `make_rollout`, candidates share the keys of their inits, and with them seeds and noise, which is also the
    noise that `make_rollout` draws. Arguments as of that.

    Returns:
        A function of keys `[inits]`, network parameters with leading axes `[candidates, inits]`, and a normalizer. It
        cannot be jitted; its `returns` are sums in float64.

    Raises:
        ValueError: `num_episodes` is not positive, or not a multiple of `normalization_envs`.
    """
    group_size = group_size_of(num_episodes, normalization_envs)
    groups = num_episodes // group_size
    act_all = _make_act_all(policy, action_selection)

    @jax.jit
    def start(keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Keys of the groups `[inits, groups]`, and seeds of their episodes `[inits, groups, envs]`."""
        group_keys = split_all(keys, groups)
        seeds = jax.vmap(jax.vmap(lambda key: jax.random.bits(key, (group_size,))))(fold_in_all(group_keys, 0))
        return group_keys, seeds

    def rollout(keys: jax.Array, params: PyTree, normalizer: Normalizer) -> EpisodeReturns:
        group_keys, seeds = start(keys)
        batch = (num_candidates(params), keys.shape[0], groups)
        shape = (*batch, group_size)
        episodes = _HostEpisodes(env, np.broadcast_to(np.asarray(seeds), shape).ravel())
        returns = np.where(episodes.diverged, np.nan, 0.0)
        lengths = np.zeros(returns.shape, np.int32)
        empty = normalizer.empty_statistics(env.observation_shape)
        statistics = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, batch + leaf.shape), empty)
        time = 0
        with closing(episodes.simulator):
            while episodes.alive.any():
                observations = episodes.observations.reshape(shape + tuple(env.observation_shape))
                alive = episodes.alive.reshape(shape)
                seen = GroupObservations(jnp.asarray(observations), jnp.asarray(alive), statistics)
                time += 1
                actions, invalid, statistics = act_all(np.int32(time), group_keys, seen, params, normalizer)
                lengths += episodes.alive
                step = episodes.step(np.asarray(actions).reshape(len(returns), -1), np.asarray(invalid).ravel())
                returns += step.rewards
        final = (*batch[:2], num_episodes)
        solved = None if episodes.succeeded is None else episodes.succeeded.reshape(final)
        return EpisodeReturns(
            returns.reshape(final),  # type: ignore[arg-type]
            lengths.reshape(final),  # type: ignore[arg-type]
            statistics,
            solved,  # type: ignore[arg-type]
        )

    return rollout


def _make_act_all(policy: Policy, action_selection: ActionSelection) -> Callable[..., Any]:
    """Compiles `act` for all episodes at one point in time, `[candidates, inits, groups, envs, action_dim]`."""

    def act_one(key: jax.Array, seen: GroupObservations, params: PyTree, normalizer: Normalizer) -> Any:
        # The jitted rollout gives the other keys to the environments; with this one the noise on actions is the same.
        act_key = jax.random.split(key, len(seen.alive) + 1)[0]
        return act(act_key, policy, action_selection, seen, params, normalizer)

    return jax.jit(lambda time, keys, *arguments: over_all(act_one)(fold_in_all(keys, time), *arguments))


HostRecordedRollout: TypeAlias = Callable[[jax.Array, PyTree, int], RecordedEpisodes]
"""`rollout(key, params, num_episodes)`, see `make_host_recorded_rollout`."""


def make_host_recorded_rollout(
    env: HostEnvironment,
    act: Act,
    num_envs: int,
    on_steps: Callable[[int], None] = lambda steps: None,
    view: View = no_view,
) -> HostRecordedRollout:
    """Makes the function that records first episodes in a simulator outside of JAX.

    Args:
        env: The environment; rolled for at most its `max_steps`.
        act: Chooses the actions of all episodes at one point in time; compiled for `num_envs` of them.
        num_envs: The most episodes that are played at once.
        on_steps: Called with the number of steps simulated since its last call, for progress.
        view: What is recorded of the simulator besides observations, in arrays that later steps leave as they are.

    Returns:
        A function of a key, whatever parameters `act` takes, and how many episodes to play, at most `num_envs`.
    """
    compiled = jax.jit(lambda key, time, params, seen: act(jax.random.fold_in(key, time), params, seen))

    def rollout(key: jax.Array, params: PyTree, num_episodes: int) -> RecordedEpisodes:
        seed_key, action_key = jax.random.split(key)
        episodes = _HostEpisodes(env, np.asarray(jax.random.bits(seed_key, (num_envs,)))[:num_episodes])
        seen = np.zeros((num_envs, *env.observation_shape), np.float32)
        rows: list[tuple[Any, ...]] = []
        lengths, terminated = np.zeros(num_episodes, int), np.zeros(num_episodes, bool)
        with closing(episodes.simulator):
            while episodes.alive.any():
                alive, observations, viewed = episodes.alive, episodes.observations, view(episodes.simulator)
                seen[:num_episodes] = observations
                actions = np.asarray(compiled(action_key, np.int32(len(rows)), params, seen))[:num_episodes]
                step = episodes.step(actions, ~_all_finite(actions))
                rows.append((observations, actions, step.rewards.astype(np.float32), step.observations, viewed))
                lengths += alive & ~episodes.diverged
                terminated |= step.terminated
                on_steps(int(alive.sum()))
        # Without a single step there is nothing to stack: every episode has diverged from the start.
        nothing: Any = (np.zeros((0, num_episodes)),) * 5
        columns = jax.tree.map(lambda *leaves: np.stack(leaves), *rows) if rows else nothing
        before, actions, rewards, after, views = columns
        ends = [jnp.asarray(column) for column in (lengths, terminated, episodes.diverged)]
        return RecordedEpisodes(before, actions, rewards, after, ends[0], ends[1], ends[2], views)

    return rollout
