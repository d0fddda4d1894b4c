"""Collecting offline data: whole trajectories of noisy policies, in simulators of both kinds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from hades import policies
from hades._environment_contract import conform
from hades._validation import require_not_negative_fields, require_positive
from hades.distributions import ActionSelection, choose
from hades.normalization import PolicyParams
from hades.offline.transitions import FLOAT_KEYS, Transitions
from hades.policies import Policy
from hades.rollouts.host import make_host_recorded_rollout
from hades.rollouts.recorded import Act, RecordedEpisodes, make_recorded_rollout
from hades.types import AnyEnvironment, Discrete, HostEnvironment, PyTree

NUM_ENVS = 64
"""Episodes that are played at once."""


@dataclass(frozen=True, eq=False)
class Behaviour:
    """Policy that collects data, with its noise and its share of uniform actions.

    Attributes:
        policy: Policy.
        params: Its parameters and normalisation, which may not be running.
        noise: Standard deviation of the Gaussian noise on its actions, in halves of the action range; 0 of discrete
            ones.
        epsilon: Probability of a uniform action in its place, at each step.
        action_selection: Whether it acts by a sample of its distribution or by its mode.
        weight: Its share of the transitions, relative to those of the others.

    Raises:
        ValueError: A number is out of range, or normalisation is running.
    """

    policy: Policy
    params: PolicyParams
    noise: float = 0.0
    epsilon: float = 0.0
    action_selection: ActionSelection = "mode"
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuses numbers out of range, and statistics that would change as it plays."""
        require_not_negative_fields(self, "noise")
        if not 0 <= self.epsilon <= 1:
            raise ValueError(f"epsilon: expected a probability, got {self.epsilon}")
        require_positive("weight", self.weight)
        if self.params.normalizer.kind == "running":
            raise ValueError("policy: expected no or fixed normalisation of its observations, got a running one")


def uniform_behaviour(env: policies.Spaces, weight: float = 1.0) -> Behaviour:
    """Uniformly random actions."""
    return Behaviour(policies.uniform(env), PolicyParams(()), action_selection="sample", weight=weight)


def collect(
    key: jax.Array,
    env: AnyEnvironment,
    behaviours: Sequence[Behaviour],
    num_transitions: int,
    num_envs: int = NUM_ENVS,
    on_steps: Callable[[int], None] | None = None,
) -> Transitions:
    """Collects transitions with several behaviours, a share with each, one behaviour behind the other.

    Trajectories stay whole and in order. The last one of each share is cut off, and counts as timed out, as does one
    that a time limit ends. One that diverges (an action, observation or reward that is not finite, a NaN in the state)
    counts as timed out before that step, which is left out.

    Args:
        key: Key.
        env: Environment.
        behaviours: Who collects.
        num_transitions: Transitions of all shares together.
        num_envs: Episodes that are played at once.
        on_steps: Called with the number of environment steps since the last call, for progress.

    Raises:
        ValueError: A number is not positive, there is no behaviour or less than a transition for each, discrete actions
            are to have noise, the environment breaks its contract, or nothing finite could be collected.
    """
    env = conform(env)
    require_positive("num_transitions", num_transitions)
    require_positive("num_envs", num_envs)
    if isinstance(env.action_space, Discrete) and any(behaviour.noise for behaviour in behaviours):
        raise ValueError(
            f"noise: expected 0, as actions of {env.name} are discrete; epsilon makes some of them uniform"
        )
    if not 1 <= len(behaviours) <= num_transitions:
        raise ValueError(
            f"num_transitions: expected at least one for each of the behaviours, of which there must be one, "
            f"got {num_transitions} for {len(behaviours)}"
        )
    make_record = cache(partial(_make_record, env, num_envs, on_steps or (lambda steps: None)))
    parts: list[_Trajectory] = []
    for index, (behaviour, quota) in enumerate(zip(behaviours, _quotas(behaviours, num_transitions), strict=True)):
        record = make_record(behaviour.policy, behaviour.action_selection)
        parts += _collect_share(jax.random.fold_in(key, index), env, record, behaviour, quota, num_envs)
    joined = map(np.concatenate, zip(*(part.columns for part in parts), strict=True))
    columns = {name: jnp.asarray(column) for name, column in zip(FLOAT_KEYS, joined, strict=True)}
    terminals, timeouts = np.zeros(num_transitions, bool), np.zeros(num_transitions, bool)
    ends = np.cumsum([part.length for part in parts]) - 1
    terminals[ends] = [part.terminated for part in parts]
    timeouts[ends] = [not part.terminated for part in parts]
    return Transitions(**columns, terminals=jnp.asarray(terminals), timeouts=jnp.asarray(timeouts), env=env.name)


def _quotas(behaviours: Sequence[Behaviour], num_transitions: int) -> list[int]:
    """Whole numbers in proportion to the weights, which add up to `num_transitions`."""
    ends = np.cumsum([behaviour.weight for behaviour in behaviours])
    rounded = np.round(ends / ends[-1] * num_transitions).astype(int)
    return [int(count) for count in np.diff(rounded, prepend=0)]


class _Trajectory(NamedTuple):
    """Arrays of one episode, or of the beginning of one.

    Attributes:
        columns: What `FLOAT_KEYS` names, each `[time, ...]`.
        terminated: Whether it reached an end that is part of the task.
    """

    columns: tuple[np.ndarray, ...]
    terminated: bool

    @property
    def length(self) -> int:
        """Number of steps."""
        return len(self.columns[0])

    def cut(self, length: int) -> _Trajectory:
        """First `length` steps."""
        if length >= self.length:
            return self
        return _Trajectory(tuple(column[:length] for column in self.columns), False)


_Record: TypeAlias = Callable[[jax.Array, Behaviour, int], list[_Trajectory]]
"""`record(key, behaviour, episodes)` plays that many episodes to their ends, at most the `num_envs` it was made for."""


def _collect_share(
    key: jax.Array, env: AnyEnvironment, record: _Record, behaviour: Behaviour, quota: int, num_envs: int
) -> list[_Trajectory]:
    """Whole episodes of one behaviour, in rounds, until there are `quota` transitions; the last is cut."""
    parts: list[_Trajectory] = []
    collected = rounds = 0
    while collected < quota:
        # As many episodes as are missing, judged by their mean length so far.
        length = collected / len(parts) if parts else env.max_steps
        episodes = min(num_envs, math.ceil((quota - collected) / length))
        before = collected
        for trajectory in record(jax.random.fold_in(key, rounds), behaviour, episodes):
            part = trajectory.cut(quota - collected)
            if part.length:
                parts.append(part)
                collected += part.length
        rounds += 1
        if collected == before:
            raise ValueError(f"policy: expected finite actions and rewards in {env.name}, got none in a whole round")
    return parts


def _make_act(env: AnyEnvironment, policy: Policy, action_selection: ActionSelection) -> Act:
    """Chooses actions `[envs, ...]` in bounds; the parameters are those of the policy, noise and epsilon."""
    space = env.action_space
    if isinstance(space, Discrete):
        return _make_choice(space, policy, action_selection)
    low, high = jnp.asarray(space.low, jnp.float32), jnp.asarray(space.high, jnp.float32)

    def act(key: jax.Array, parameters: tuple[PolicyParams, jax.Array, jax.Array], seen: jax.Array) -> jax.Array:
        params, noise, epsilon = parameters
        sample_key, noise_key, uniform_key, choice_key = jax.random.split(key, 4)
        distribution = policy.apply(params.network, params.normalizer.apply(seen))
        actions = choose(sample_key, distribution, action_selection)
        shape = actions.shape
        actions = actions + noise * 0.5 * (high - low) * jax.random.normal(noise_key, shape)
        random = jax.random.uniform(uniform_key, shape, minval=low, maxval=high)
        chosen = jax.random.bernoulli(choice_key, epsilon, shape[:1])
        # Clipping would make an infinite action a finite one.
        clipped = jnp.where(jnp.isfinite(actions), jnp.clip(actions, low, high), jnp.nan)
        return jnp.where(chosen[:, None], random, clipped)

    return act


def _make_choice(space: Discrete, policy: Policy, action_selection: ActionSelection) -> Act:
    def act(key: jax.Array, parameters: tuple[PolicyParams, jax.Array, jax.Array], seen: jax.Array) -> jax.Array:
        params, _, epsilon = parameters
        sample_key, uniform_key, choice_key = jax.random.split(key, 3)
        distribution = policy.apply(params.network, params.normalizer.apply(seen))
        actions = choose(sample_key, distribution, action_selection)
        random = jax.random.randint(uniform_key, actions.shape, 0, space.num_actions)
        return jnp.where(jax.random.bernoulli(choice_key, epsilon, actions.shape), random, actions)

    return act


def _make_record(
    env: AnyEnvironment,
    num_envs: int,
    on_steps: Callable[[int], None],
    policy: Policy,
    action_selection: ActionSelection,
) -> _Record:
    act = _make_act(env, policy, action_selection)
    if isinstance(env, HostEnvironment):
        rollout = make_host_recorded_rollout(env, act, num_envs, on_steps)
    else:
        compiled = jax.jit(make_recorded_rollout(env, act, num_envs))

        def rollout(key: jax.Array, params: PyTree, num_episodes: int) -> RecordedEpisodes:
            episodes: RecordedEpisodes = jax.device_get(compiled(key, params))
            on_steps(int(episodes.lengths[:num_episodes].sum()))
            return episodes

    def record(key: jax.Array, behaviour: Behaviour, episodes: int) -> list[_Trajectory]:
        parameters = behaviour.params, jnp.float32(behaviour.noise), jnp.float32(behaviour.epsilon)
        return _split(rollout(key, parameters, episodes), episodes)

    return record


def _split(recorded: RecordedEpisodes, episodes: int) -> list[_Trajectory]:
    """Trajectories of the first so many episodes."""
    columns = [np.asarray(getattr(recorded, name)) for name in FLOAT_KEYS]
    return [
        _Trajectory(tuple(column[:length, index] for column in columns), bool(recorded.terminated[index]))
        for index, length in enumerate(np.asarray(recorded.lengths)[:episodes])
    ]
