"""Environments and policies whose behaviour is known exactly, and what inspects a traced program."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import hades
from hades.dataset import SyntheticDataset
from hades.distributions import Categorical
from hades.offline import Teacher, Transitions
from hades.policies import Policy
from hades.run import RunState
from hades.types import Continuous, Discrete, Environment, HostStep, Step


@dataclass(frozen=True)
class GoOn:
    """Goes on while the action is 1; every step that is played is worth 1, and all after the end is NaN.

    The observation is the number of steps taken.
    """

    max_steps: int = 47
    name: str = "test/go-on"
    observation_shape: tuple[int, ...] = (1,)
    action_space: Discrete = Discrete(2)

    @property
    def options(self) -> dict[str, Any]:
        return {}

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        del key
        return (jnp.float32(0), jnp.bool_(False)), jnp.zeros(1)

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Step:
        del key
        steps, over = state
        steps = jnp.where(over, jnp.nan, steps + 1)
        terminated = action == 0
        truncated = (steps >= self.max_steps) & ~terminated
        reward = jnp.where(over, jnp.nan, 1.0)
        return Step((steps, over | terminated), steps[None], reward, terminated, truncated)


def lifetime_policy() -> Policy:
    """Plays `GoOn` for as many steps as its one parameter says (1 at the least), with certainty."""

    def apply(params: jax.Array, observations: jax.Array) -> Categorical:
        goes_on = observations[..., 0] + 1 < params
        logit = jnp.where(goes_on, 1e6, -1e6)
        return Categorical(jnp.stack([jnp.zeros_like(logit), logit], axis=-1))

    return Policy(lambda key: jax.random.uniform(key), apply)


@dataclass(frozen=True)
class Noisy:
    """Everything is random: the length of an episode, the first state, the transitions, and what an action is worth.

    All after the end is NaN, observations as well as rewards.
    """

    longest: int = 9
    max_steps: int = 6
    name: str = "test/noisy"
    observation_shape: tuple[int, ...] = (2,)
    action_space: Discrete = Discrete(3)

    @property
    def options(self) -> dict[str, Any]:
        return {}

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        length_key, position_key = jax.random.split(key)
        left = jax.random.randint(length_key, (), 1, self.longest + 1)
        position = jax.random.normal(position_key, (2,))
        return (left, jnp.int32(0), position), position

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Step:
        left, steps, position = state
        reward = position[0] * (action + 1.0)
        left, steps = left - 1, steps + 1
        position = position + jax.random.normal(key, (2,)) + action
        terminated = left <= 0
        truncated = (steps >= self.max_steps) & ~terminated
        # What follows the last step is poisoned; the last step itself still counts.
        over = (left < 0) | (steps > self.max_steps)
        position = jnp.where(over, jnp.nan, position)
        return Step((left, steps, position), position, jnp.where(over, jnp.nan, reward), terminated, truncated)


class Watched:
    """An environment that counts how often its step is traced, and if asked to, how often one is played."""

    def __init__(self, env: Environment, count_steps: bool = False) -> None:
        self._env = env
        self._count_steps = count_steps
        self.traces = 0
        self.steps = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Step:
        self.traces += 1
        step = self._env.step(key, state, action)
        if self._count_steps:
            # Called once for each episode of a batch, for those that are over as well.
            jax.debug.callback(self._count, step.reward)
        return step

    def _count(self, reward: jax.Array) -> None:
        del reward
        self.steps += 1


def shapes(jaxpr: Any) -> Iterator[tuple[int, ...]]:
    """Shapes of all values of a traced program, those of its loops and calls included."""
    for equation in jaxpr.eqns:
        for variable in (*equation.invars, *equation.outvars):
            yield tuple(getattr(variable.aval, "shape", ()))
        for parameter in equation.params.values():
            for inner in parameter if isinstance(parameter, (tuple, list)) else (parameter,):
                if hasattr(inner, "jaxpr"):
                    yield from shapes(inner.jaxpr)
                elif hasattr(inner, "eqns"):
                    yield from shapes(inner)


@dataclass(frozen=True)
class Walk:
    """Nothing is random: actions move a position, which is the reward; beyond 2 the episode terminates.

    The observation is the position and a tenth of the steps taken.
    """

    max_steps: int = 12
    name: str = "test/walk"
    observation_shape: tuple[int, ...] = (2,)
    action_space: Continuous = Continuous((-1.0,), (3.0,))

    @property
    def options(self) -> dict[str, Any]:
        return {}

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        del key
        return jnp.zeros(2), jnp.zeros(2)

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Step:
        del key
        state = state + jnp.stack([jnp.clip(action[0], -1, 3), jnp.float32(0.1)])
        terminated = jnp.abs(state[0]) > 2
        truncated = (state[1] > 0.1 * self.max_steps - 0.05) & ~terminated
        return Step(state, state, state[0], terminated, truncated)


@dataclass(frozen=True)
class OnHost:
    """`Walk` as an environment outside of JAX."""

    walk: Walk = Walk()
    name: str = "test/walk-on-host"

    @property
    def max_steps(self) -> int:
        return self.walk.max_steps

    @property
    def options(self) -> dict[str, Any]:
        return {}

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return self.walk.observation_shape

    @property
    def action_space(self) -> Continuous:
        return self.walk.action_space

    def simulate(self, seeds: np.ndarray) -> WalkSimulator:
        return WalkSimulator(self.walk, len(seeds))


class WalkSimulator:
    """Episodes of `Walk`."""

    def __init__(self, walk: Walk, episodes: int) -> None:
        self.observations = np.zeros((episodes, 2), np.float32)
        self.alive = np.ones(episodes, bool)
        self.simulated = 0
        self._step = jax.jit(jax.vmap(walk.step, in_axes=(None, 0, 0)))

    def step(self, actions: np.ndarray) -> HostStep:
        alive = self.alive
        self.simulated += int(alive.sum())
        out = jax.device_get(self._step(jax.random.key(0), self.observations, jnp.asarray(actions)))
        self.observations = np.where(alive[:, None], out.observation, self.observations)
        terminated, truncated = alive & out.terminated, alive & out.truncated
        self.alive = alive & ~(terminated | truncated)
        return HostStep(self.observations, np.where(alive, out.reward, 0.0).astype(float), terminated, truncated)

    def close(self) -> None:
        self.alive = np.zeros_like(self.alive)


def uniform_transitions(env: str | None = "diagnostic/target", count: int = 400, dim: int = 2) -> Transitions:
    """Data that know nothing of their task: observations and actions are uniform, and all is one trajectory."""
    generator = np.random.default_rng(0)
    observations, actions = (generator.uniform(-1, 1, (count, dim)).astype(np.float32) for _ in range(2))
    none = np.zeros(count, bool)
    return Transitions.from_arrays(
        {
            "observations": observations,
            "actions": actions,
            "rewards": np.zeros(count, np.float32),
            "next_observations": observations,
            "terminals": none,
            "timeouts": none,
        },
        env=env,
    )


def one_step_transitions(count=64, seed=0, **changes):
    """One-step episodes whose reward is minus the squared distance of the action from half of the observation."""
    generator = np.random.default_rng(seed)
    observations = generator.uniform(-1, 1, (count, 1)).astype(np.float32)
    actions = generator.uniform(-1, 1, (count, 1)).astype(np.float32)
    arrays = {
        "observations": observations,
        "actions": actions,
        "rewards": -np.square(actions - observations / 2)[:, 0],
        "next_observations": observations,
        "terminals": np.ones(count, bool),
        "timeouts": np.zeros(count, bool),
    }
    return Transitions(**{name: jnp.asarray(array) for name, array in (arrays | changes).items()})


def make_teacher(observation_dim: int = 2, action_dim: int = 2) -> Teacher:
    """Acts by tanh(observation / 2), nearly what `diagnostic/target` wants, and values every action at 100."""
    kernel = jnp.concatenate([0.5 * jnp.eye(observation_dim, action_dim), jnp.zeros((observation_dim, action_dim))], 1)
    critic = ((jnp.zeros((observation_dim + action_dim, 1)), jnp.full(1, 100.0)),)
    return Teacher(
        ((kernel, jnp.zeros(2 * action_dim)),),
        (critic, critic),
        jnp.zeros(observation_dim),
        jnp.ones(observation_dim),
        jnp.ones(()),
        jnp.full((), -3.0),
        -jnp.ones(action_dim),
        jnp.ones(action_dim),
    )


@dataclass(frozen=True, eq=False)
class Counting(hades.Run):
    """A run that reports whatever it is told to, and makes a dataset of its iteration."""

    method: str = "counting"
    env: object = None
    settings: object = None
    mesh: object = None
    reward: float = 1.0
    diverges_after: int = 10**9
    steps: int = 2**30

    kind = "dataset"

    def init(self, key):
        return RunState(key, jnp.int32(0), jnp.float32(0))

    def step(self, state):
        iteration = state.iteration + 1
        outer = jnp.where(iteration > self.diverges_after, jnp.inf, state.outer + 1)
        metrics = {
            "fitness_mean": jnp.float32(self.reward),
            "fitness_best": jnp.float32(iteration),
            "fitness_worst": jnp.float32(0),
            "non_finite": jnp.int32(1),
            "env_steps": jnp.full(4, self.steps, jnp.int32),
            "falls": jnp.arange(3),
        }
        return state.replace(iteration=iteration, outer=outer), metrics

    def outcome(self, state):
        return SyntheticDataset(jnp.full((1, 1), state.outer), actions=jnp.zeros((1, 1)))

    def describe(self, outcome, seed, evaluation=None):
        metadata = hades.FileMetadata(
            env="test/none", max_episode_steps=1, method=self.method, observation_normalization="none",
            action_selection="mode", cloning=None, evaluation=evaluation, seed=seed,
        )  # fmt: skip
        return replace(outcome, metadata=metadata)
