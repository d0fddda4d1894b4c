"""Policies outside of JAX: NumPy observations in, NumPy actions out, for gymnasium and stable-baselines3."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hades._cache import kept
from hades._files import refusing
from hades.distributions import ActionSelection
from hades.normalization import Normalizer, PolicyParams, RunningStatistics
from hades.policies import NamedSpaces, Policy, PolicySpaces, Spaces
from hades.policy_file import PolicyFileError, TrainedPolicy
from hades.rollouts.first_episode import GroupObservations, act
from hades.types import Continuous, PyTree

__all__ = ["HostPolicy", "load_policy"]


class HostPolicy:
    """A policy as a function of NumPy observations, with the memory that an episode needs.

    Calling it serves loops over one gymnasium environment or a vector of them; `predict` is the method that
    stable-baselines3's `evaluate_policy` asks for. Observations are raw, and actions clipped to the bounds. With
    running normalisation every environment gathers statistics of its own.

    Example:
        >>> import envs
        >>> from hades import policies
        >>> env = envs.make("diagnostic/match", num_actions=3)
        >>> policy = policies.mlp(env, (4,))
        >>> player = HostPolicy(policy, PolicyParams(policy.init(jax.random.key(0))), env)
        >>> player(np.zeros(3)).shape, player(np.zeros((5, 3))).shape
        ((), (5,))
    """

    def __init__(
        self,
        policy: Policy,
        params: PolicyParams,
        env: Spaces,
        action_selection: ActionSelection = "mode",
        seed: int = 0,
    ) -> None:
        """Makes a policy of the host.

        Args:
            policy: Architecture.
            params: Its parameters with their normalisation.
            env: Environment, or anything with its spaces.
            action_selection: How it acts where it is called: by the mode of its distribution, or by a sample.
            seed: Seed of the samples.
        """
        self.spaces = PolicySpaces.of(env)
        self.action_selection = action_selection
        self._params = params
        self._act = _compiled(policy, self.spaces)
        self._key = jax.random.key(seed)
        self._steps = 0
        self._statistics: RunningStatistics | None = None

    def __call__(self, observations: Any) -> np.ndarray:
        """Actions of one environment or of a vector, `[]` or `[action_dim]`, with `[envs]` in front of a vector's.

        Args:
            observations: Raw, `[*observation_shape]` or `[envs, *observation_shape]`.
        """
        actions, self._statistics = self._choose(observations, self._statistics, None, self.action_selection)
        return actions

    def reset(self) -> None:
        """Begins episodes: without running normalisation there is nothing to forget, and it need not be called."""
        self._statistics = None

    def predict(
        self,
        observation: Any,
        state: RunningStatistics | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, RunningStatistics | None]:
        """Actions and the memory of the episodes, by the protocol of stable-baselines3's models.

        Args:
            observation: Raw, `[*observation_shape]` or `[envs, *observation_shape]`.
            state: Memory that the last call returned; None at the start.
            episode_start: Which episodes begin with these observations, `[envs]` bool; None where none does but at the
                start.
            deterministic: Whether the policy acts by the mode of its distribution rather than by a sample.
        """
        return self._choose(observation, state, episode_start, "mode" if deterministic else "sample")

    def _choose(
        self, observations: Any, statistics: Any, starts: np.ndarray | None, selection: ActionSelection
    ) -> tuple[np.ndarray, Any]:
        shape = self.spaces.observation_shape
        rows = np.asarray(observations, np.float32)
        if rows.shape[-len(shape) :] != shape or rows.ndim not in (len(shape), len(shape) + 1):
            raise ValueError(f"observation: expected shape {shape}, or (envs, *{shape}), got {rows.shape}")
        single = rows.ndim == len(shape)
        rows = rows[None] if single else rows
        starts = np.zeros(len(rows), bool) if starts is None else np.asarray(starts, bool).reshape(-1)
        before = len(rows) if statistics is None else len(jax.tree.leaves(statistics)[0])
        if {len(starts), before} != {len(rows)}:
            raise ValueError(
                f"observation: expected as many as there are starts, {len(starts)}, and as in the last call, {before}, "
                f"got {len(rows)}; reset() begins anew"
            )
        normalizer = self._params.normalizer
        if statistics is None:
            empty = normalizer.empty_statistics(shape)
            statistics = jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf)[None], len(rows), axis=0), empty)
        self._steps += 1
        actions, statistics = self._act(
            self._key, np.uint32(self._steps), rows, starts, statistics, self._params.network, normalizer, selection
        )
        chosen = np.asarray(actions)
        return (chosen[0] if single else chosen), statistics


@kept
def _compiled(policy: Policy, spaces: PolicySpaces) -> Callable[..., Any]:
    """Compiles the actions of a vector of environments, each with statistics of its own."""
    space = spaces.action_space

    def act_all(
        key: jax.Array,
        steps: jax.Array,
        observations: jax.Array,
        starts: jax.Array,
        statistics: RunningStatistics | None,
        network: PyTree,
        normalizer: Normalizer,
        selection: ActionSelection,
    ) -> tuple[jax.Array, RunningStatistics | None]:
        empty = normalizer.empty_statistics(spaces.observation_shape)

        def act_one(key: jax.Array, observation: jax.Array, start: jax.Array, gathered: Any) -> tuple[jax.Array, Any]:
            gathered = jax.tree.map(lambda old, new: jnp.where(start, new, old), gathered, empty)
            seen = GroupObservations(observation[None], jnp.ones(1, bool), gathered)
            actions, _, gathered = act(key, policy, selection, seen, network, normalizer)
            return actions[0], gathered

        keys = jax.random.split(jax.random.fold_in(key, steps), len(observations))
        actions, statistics = jax.vmap(act_one)(keys, observations, starts, statistics)
        if isinstance(space, Continuous):
            actions = jnp.clip(actions, jnp.array(space.low), jnp.array(space.high))
        return actions, statistics

    return jax.jit(act_all, static_argnames="selection")


def load_policy(
    path: str | os.PathLike[str],
    env: NamedSpaces | None = None,
    action_selection: ActionSelection | None = None,
    seed: int = 0,
) -> HostPolicy:
    """The policy of a file as a function of NumPy observations.

    Args:
        path: Policy file, such as `hades train` writes.
        env: Environment, or anything with its spaces and name; None for the spaces of the file, which those of version
            0.2 and before do not have.
        action_selection: How it acts where it is called; None for what the file says.
        seed: Seed of the samples.

    Raises:
        PolicyFileError: It is not a policy file, has no spaces or does not fit those of `env`.
        ValueError: It does not describe its network.
    """
    trained = TrainedPolicy.load(path)
    assert trained.metadata is not None  # a loaded policy has it
    with refusing(path, PolicyFileError):
        policy = trained.architecture(env)
        spaces = trained.require_spaces() if env is None else env
    return HostPolicy(policy, trained.params, spaces, action_selection or trained.metadata.action_selection, seed)
