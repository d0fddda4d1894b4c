"""Collecting offline data: whole trajectories of noisy policies, in simulators of both kinds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from hades import policies
from hades._validation import require_positive
from hades.distributions import ActionSelection, choose
from hades.normalization import PolicyParams
from hades.offline.transitions import Transitions
from hades.policies import Policy
from hades.types import AnyEnvironment, Continuous, Environment, HostEnvironment, PyTree

NUM_ENVS = 64
"""Episodes that are played at once."""


@dataclass(frozen=True, eq=False)
class Behaviour:
    """One policy that collects, and how it departs from what it would do.

    Attributes:
        policy: Policy.
        params: Its parameters and normalisation, which may not be running.
        noise: Standard deviation of the Gaussian noise on its actions, in halves of the action range.
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
        if not 0 <= self.noise < math.inf:
            raise ValueError(f"noise: expected a number of at least 0, got {self.noise}")
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
    that a time limit ends, and one before its first step that is not finite, which is left out.

    Args:
        key: Key.
        env: Environment with continuous actions.
        behaviours: Who collects.
        num_transitions: Transitions of all shares together.
        num_envs: Episodes that are played at once.
        on_steps: Called with the number of environment steps since the last call, for progress.

    Raises:
        ValueError: A number is not positive, there is no behaviour or less than a transition for each, actions are
            discrete, or nothing finite could be collected.
    """
    require_positive("num_transitions", num_transitions)
    require_positive("num_envs", num_envs)
    if not isinstance(env.action_space, Continuous):
        raise ValueError(f"env: expected continuous actions, got {env.name} with {env.action_space}")
    if not 1 <= len(behaviours) <= num_transitions:
        raise ValueError(
            f"num_transitions: expected at least one for each of the behaviours, of which there must be one, "
            f"got {num_transitions} for {len(behaviours)}"
        )
    players: dict[tuple[Policy, ActionSelection], _Player] = {}
    parts: list[_Trajectory] = []
    for index, (behaviour, quota) in enumerate(zip(behaviours, _quotas(behaviours, num_transitions), strict=True)):
        kind = (behaviour.policy, behaviour.action_selection)
        if kind not in players:
            players[kind] = _make_player(env, *kind, num_envs, on_steps or (lambda steps: None))
        parts += _collect_share(jax.random.fold_in(key, index), env, players[kind], behaviour, quota, num_envs)
    joined = (np.concatenate(column) for column in zip(*(part.columns for part in parts), strict=True))
    columns = {name: jnp.asarray(column) for name, column in zip(_COLUMNS, joined, strict=True)}
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


_COLUMNS = ("observations", "actions", "rewards", "next_observations")


class _Trajectory(NamedTuple):
    """One episode, or the beginning of one.

    Attributes:
        columns: What `_COLUMNS` names, each `[time, ...]`.
        terminated: Whether it reached an end that is part of the task.
    """

    columns: tuple[np.ndarray, ...]
    terminated: bool

    @property
    def length(self) -> int:
        """Its steps."""
        return len(self.columns[0])

    def cut(self, length: int) -> _Trajectory:
        """Its first `length` steps."""
        if length >= self.length:
            return self
        return _Trajectory(tuple(column[:length] for column in self.columns), False)

    def finite(self) -> _Trajectory:
        """Its steps before the first that is not finite."""
        finite = [np.isfinite(column).reshape(self.length, -1).all(axis=1) for column in self.columns]
        bad = ~np.logical_and.reduce(finite)
        return self.cut(int(np.argmax(bad))) if bad.any() else self


_Player: TypeAlias = Callable[[jax.Array, Behaviour, int], list[_Trajectory]]
"""`player(key, behaviour, episodes)` plays that many episodes to their ends, at most the `num_envs` it was made for."""


def _collect_share(
    key: jax.Array, env: AnyEnvironment, play: _Player, behaviour: Behaviour, quota: int, num_envs: int
) -> list[_Trajectory]:
    """Whole episodes of one behaviour, in rounds, until there are `quota` transitions; the last is cut."""
    parts: list[_Trajectory] = []
    collected = rounds = 0
    while collected < quota:
        # As many episodes as are missing, judged by their mean length so far.
        length = collected / len(parts) if parts else env.max_steps
        episodes = min(num_envs, math.ceil((quota - collected) / length))
        before = collected
        for trajectory in play(jax.random.fold_in(key, rounds), behaviour, episodes):
            part = trajectory.finite().cut(quota - collected)
            if part.length:
                parts.append(part)
                collected += part.length
        rounds += 1
        if collected == before:
            raise ValueError(f"policy: expected finite actions and rewards in {env.name}, got none in a whole round")
    return parts


def _make_act(env: AnyEnvironment, policy: Policy, action_selection: ActionSelection) -> Callable[..., jax.Array]:
    """`act(key, params, noise, epsilon, observations [envs])` gives the actions `[envs, action_dim]`, in bounds."""
    space = env.action_space
    assert isinstance(space, Continuous)  # collect has refused it otherwise
    low, high = jnp.asarray(space.low, jnp.float32), jnp.asarray(space.high, jnp.float32)

    def act(
        key: jax.Array, params: PolicyParams, noise: jax.Array, epsilon: jax.Array, observations: jax.Array
    ) -> jax.Array:
        sample_key, noise_key, uniform_key, choice_key = jax.random.split(key, 4)
        distribution = policy.apply(params.network, params.normalizer.apply(observations))
        actions = choose(sample_key, distribution, action_selection)
        shape = actions.shape
        actions = actions + noise * 0.5 * (high - low) * jax.random.normal(noise_key, shape)
        random = jax.random.uniform(uniform_key, shape, minval=low, maxval=high)
        chosen = jax.random.bernoulli(choice_key, epsilon, shape[:1])
        return jnp.where(chosen[:, None], random, jnp.clip(actions, low, high))

    return act


def _make_player(
    env: AnyEnvironment,
    policy: Policy,
    action_selection: ActionSelection,
    num_envs: int,
    on_steps: Callable[[int], None],
) -> _Player:
    act = _make_act(env, policy, action_selection)
    if isinstance(env, HostEnvironment):
        return _make_host_player(env, act, num_envs, on_steps)
    return _make_pure_player(env, act, num_envs, on_steps)


def _make_host_player(
    env: HostEnvironment, act: Callable[..., jax.Array], num_envs: int, on_steps: Callable[[int], None]
) -> _Player:
    compiled = jax.jit(lambda key, time, *arguments: act(jax.random.fold_in(key, time), *arguments))

    def play(key: jax.Array, behaviour: Behaviour, episodes: int) -> list[_Trajectory]:
        seed_key, action_key = jax.random.split(key)
        simulator = env.simulate(np.asarray(jax.random.bits(seed_key, (num_envs,)))[:episodes])
        seen = np.zeros((num_envs, *env.observation_shape), np.float32)
        numbers = np.float32(behaviour.noise), np.float32(behaviour.epsilon)
        rows: list[tuple[np.ndarray, ...]] = []
        lengths, terminated = np.zeros(episodes, int), np.zeros(episodes, bool)
        while simulator.alive.any():
            alive = simulator.alive.copy()
            observations = simulator.observations.copy()
            seen[:episodes] = observations
            actions = np.asarray(compiled(action_key, np.int32(len(rows)), behaviour.params, *numbers, seen))[:episodes]
            step = simulator.step(actions)
            rows.append((observations, actions, step.rewards.astype(np.float32), step.observations))
            lengths += alive
            terminated |= step.terminated
            on_steps(int(alive.sum()))
        columns = [np.stack(column, axis=1) for column in zip(*rows, strict=True)]
        return _split(columns, lengths, terminated)

    return play


def _make_pure_player(
    env: Environment, act: Callable[..., jax.Array], num_envs: int, on_steps: Callable[[int], None]
) -> _Player:
    @jax.jit
    def play_all(
        key: jax.Array, params: PolicyParams, noise: jax.Array, epsilon: jax.Array
    ) -> tuple[list[jax.Array], jax.Array, jax.Array]:
        """Columns `[time, envs, ...]`, and lengths and terminations `[envs]` of first episodes."""
        state, observations = jax.vmap(env.reset)(jax.random.split(jax.random.fold_in(key, 0), num_envs))

        def advance(carry: tuple[Any, ...]) -> tuple[Any, ...]:
            time, state, observations, alive, lengths, terminated, columns = carry
            act_key, *step_keys = jax.random.split(jax.random.fold_in(key, time + 1), num_envs + 1)
            actions = act(act_key, params, noise, epsilon, observations)
            step = jax.vmap(env.step)(jnp.stack(step_keys), state, actions)
            row = (observations, actions, step.reward, step.observation)
            columns = [column.at[time].set(value) for column, value in zip(columns, row, strict=True)]
            ended = step.terminated | step.truncated
            lengths, terminated = lengths + alive, terminated | (alive & step.terminated)
            return time + 1, step.state, step.observation, alive & ~ended, lengths, terminated, columns

        def goes_on(carry: tuple[Any, ...]) -> jax.Array:
            return (carry[0] < env.max_steps) & jnp.any(carry[3])

        action_dim = env.action_space.action_dim  # type: ignore[union-attr]
        widths: list[tuple[int, ...]] = [env.observation_shape, (action_dim,), (), env.observation_shape]
        columns: PyTree = [jnp.zeros((env.max_steps, num_envs, *width)) for width in widths]
        alive, lengths = jnp.ones(num_envs, bool), jnp.zeros(num_envs, jnp.int32)
        carry = (jnp.int32(0), state, observations, alive, lengths, ~alive, columns)
        *_, lengths, terminated, columns = jax.lax.while_loop(goes_on, advance, carry)
        return columns, lengths, terminated

    def play(key: jax.Array, behaviour: Behaviour, episodes: int) -> list[_Trajectory]:
        numbers = jnp.float32(behaviour.noise), jnp.float32(behaviour.epsilon)
        columns, lengths, terminated = jax.device_get(play_all(key, behaviour.params, *numbers))
        on_steps(int(lengths[:episodes].sum()))
        return _split([np.swapaxes(column, 0, 1) for column in columns], lengths[:episodes], terminated)

    return play


def _split(columns: Sequence[np.ndarray], lengths: np.ndarray, terminated: np.ndarray) -> list[_Trajectory]:
    """Trajectories of columns `[envs, time, ...]`."""
    return [
        _Trajectory(tuple(column[index, :length] for column in columns), bool(terminated[index]))
        for index, length in enumerate(lengths)
    ]
