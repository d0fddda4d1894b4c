"""Protocols of the library: environments with their spaces, and the four parts that a method is a choice of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np

if TYPE_CHECKING:
    from hades.dataset import SyntheticDataset
    from hades.normalization import Normalizer
    from hades.policies import Policy

PyTree = Any
"""Any nest of arrays that JAX can flatten."""

Metrics: TypeAlias = dict[str, jax.Array]
"""Arrays by name; of a generation or update scalars."""


@dataclass(frozen=True)
class Discrete:
    """A finite set of actions, the integers `0 .. num_actions - 1`.

    Attributes:
        num_actions: How many actions there are.
    """

    num_actions: int


@dataclass(frozen=True)
class Continuous:
    """Real-valued actions inside a box, in the environment's own units.

    Attributes:
        low: Lower bound of each component, `[action_dim]`.
        high: Upper bound of each component, `[action_dim]`.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuses bounds of different lengths, infinite ones, and a lower bound that is not below its upper one."""
        if len(self.low) != len(self.high):
            raise ValueError(f"low has {len(self.low)} components and high has {len(self.high)}: expected the same")
        for index, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(f"action component {index}: expected finite bounds with low < high, got {low}, {high}")

    @property
    def action_dim(self) -> int:
        """Number of components of an action."""
        return len(self.low)


ActionSpace = Discrete | Continuous
"""Action space: `Discrete` or `Continuous`."""


class Step(NamedTuple):
    """Result of one step of an environment. All fields are of a single, unbatched environment.

    Attributes:
        state: The environment's state after the step, any pytree.
        observation: `[*observation_shape]` float32, of `state`; never that of a new episode.
        reward: `[]` float32.
        terminated: `[]` bool, the episode reached an end that is part of the task.
        truncated: `[]` bool, the episode was cut off by its time limit without having terminated.
    """

    state: PyTree
    observation: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array


class _Simulated(Protocol):
    """Description of an environment, simulated in JAX or outside of it."""

    @property
    def name(self) -> str: ...

    @property
    def options(self) -> Mapping[str, Any]: ...

    @property
    def observation_shape(self) -> tuple[int, ...]: ...

    @property
    def action_space(self) -> ActionSpace: ...

    @property
    def max_steps(self) -> int: ...


@runtime_checkable
class Environment(_Simulated, Protocol):
    """A simulator of single episodes, as pure functions of explicit keys; `jax.vmap` makes it parallel.

    An environment never resets itself: what it returns after `terminated` or `truncated` is undefined but
    finite in shape, and callers mask it. Any object with these members is an environment, no base class needed.

    Attributes:
        name: Identifier that is written into dataset files, such as `"brax/hopper"`.
        options: What besides the name it takes to make this environment again, such as `{"backend": "spring"}`.
        observation_shape: Shape of one observation.
        action_space: `Discrete` or `Continuous`.
        max_steps: Steps after which an episode is truncated.
    """

    def reset(self, key: jax.Array) -> tuple[PyTree, jax.Array]:
        """Begins an episode.

        Args:
            key: A typed key.

        Returns:
            The first state, any pytree, and the first observation, `[*observation_shape]` float32.
        """
        ...

    def step(self, key: jax.Array, state: PyTree, action: jax.Array) -> Step:
        """Advances one episode by one step.

        Args:
            key: A typed key for what is random in the transition.
            state: What `reset` or the last `step` returned.
            action: `[]` integer, or `[action_dim]` float, which the environment clips to its bounds.
        """
        ...


class HostStep(NamedTuple):
    """Result of one step of all episodes of a `HostSimulator`; of episodes that had ended, the last observation.

    Attributes:
        observations: `[episodes, *observation_shape]` float32; never those of a new episode.
        rewards: `[episodes]` float64, 0 where the episode had ended before.
        terminated: `[episodes]` bool, the episode ended in this step, as part of the task.
        truncated: `[episodes]` bool, the episode was cut off in this step without having terminated.
        succeeded: `[episodes]` bool, the task is solved in this state; None where the simulator does not say.
    """

    observations: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    succeeded: np.ndarray | None = None


class HostSimulator(Protocol):
    """Episodes that a simulator outside of JAX plays side by side; one that has ended is no longer simulated.

    Attributes:
        observations: Of the present states, `[episodes, *observation_shape]` float32.
        alive: Which episodes have not ended, `[episodes]` bool.
    """

    @property
    def observations(self) -> np.ndarray: ...  # noqa: D102

    @property
    def alive(self) -> np.ndarray: ...  # noqa: D102

    def step(self, actions: np.ndarray) -> HostStep:
        """Advances every living episode by one step.

        Args:
            actions: `[episodes, action_dim]`, which are clipped to the bounds; one that is not finite ends its episode
                with a reward that is not a number.
        """
        ...

    def close(self) -> None:
        """Gives up the episodes that are still alive."""
        ...


@runtime_checkable
class HostEnvironment(_Simulated, Protocol):
    """A simulator outside of JAX, such as real MuJoCo: it can be played in, but neither jitted nor vmapped.

    Attributes:
        name: As of `Environment`, such as `"gymnasium/Hopper-v4"`.
        options: As of `Environment`.
        observation_shape: As of `Environment`.
        action_space: As of `Environment`.
        max_steps: As of `Environment`.
    """

    def simulate(self, seeds: np.ndarray) -> HostSimulator:
        """Begins one episode for each seed.

        Args:
            seeds: `[episodes]` unsigned integers; equal seeds and actions give equal episodes.
        """
        ...


AnyEnvironment: TypeAlias = Environment | HostEnvironment
"""Environment of pure functions, or one that is simulated on the host."""


def require_pure(env: AnyEnvironment) -> Environment:
    """Returns the environment where it is one of pure functions.

    Raises:
        ValueError: It is simulated outside of JAX.
    """
    if isinstance(env, HostEnvironment):
        raise ValueError(
            f"env: expected an environment of pure functions, such as those of brax and gymnax, got {env.name}, in "
            f"which policies can only be evaluated and data collected"
        )
    return env


Solution: TypeAlias = Any
"""A pytree of arrays that an outer loop moves."""

Params: TypeAlias = Any
"""A pytree of arrays, the parameters of a policy's network."""

Value: TypeAlias = Callable[[Solution], tuple[jax.Array, Metrics]]
"""`value(solutions)`: F of candidates `[candidates, ...]` as `[candidates]`, higher is better, and counts of each such
as `env_steps`, `[candidates]`. One iteration's random numbers are in it, the same for all candidates."""


class Parametrization(Protocol):
    """The part that moves: solutions of an outer loop, and the dataset that each stands for.

    `hades.testing.check_parametrization` checks an object against this contract.
    """

    def init(self, key: jax.Array) -> Solution:
        """Draws the solution that a run begins with, any pytree of floating-point arrays."""
        ...

    def decode(self, solution: Solution) -> SyntheticDataset | Params:
        """Dataset of one solution, or the parameters of a network where a method evolves these themselves.

        Pure, differentiable, and vmapped over candidates. Statistics of observations are the objective's matter.
        """
        ...


class InnerLoop(Protocol):
    """The part A of F(D): a policy, its initialisation, and training on a dataset.

    `hades.testing.check_inner_loop` checks an object against this contract.

    Attributes:
        policy: Architecture, which plays with what `fit` returns.
    """

    @property
    def policy(self) -> Policy: ...  # noqa: D102

    def init(self, key: jax.Array) -> Params:
        """Draws theta_0; candidates of an iteration share it."""
        ...

    def fit(self, key: jax.Array, params: Params, dataset: SyntheticDataset) -> Params:
        """Trains theta_0 to theta_T; pure, vmapped over inits and candidates, differentiable for a meta-gradient."""
        ...


class Policies(Protocol):
    """The policies that the present solution trains, as an objective sees them when it draws.

    Attributes:
        num_inits: Initialisations of an iteration.
    """

    @property
    def num_inits(self) -> int: ...  # noqa: D102

    def __call__(self) -> Params:
        """Trains them: parameters `[inits, ...]`; costs nothing unless it is called."""
        ...

    def map_environments(
        self, function: Callable[[Params, PyTree, PyTree], PyTree], params: Params, rows: PyTree, shared: PyTree = ()
    ) -> PyTree:
        """Results of a function of policies and their environments, of which each device takes its share.

        Args:
            function: `function(params, rows, shared)` of some policies `[policies, ...]` and the rows of their
                environments, those of a policy side by side, `[envs, ...]`; each environment's results, `[envs, ...]`,
                depend on no other. A policy whose environments are divided stands there once for each part of them.
            params: All policies, `[inits, ...]`.
            rows: Rows of all environments, `[envs, ...]`, those of a policy side by side.
            shared: Arrays that every share takes whole.

        Returns:
            Results `[envs, ...]`, which every device holds whole.

        Raises:
            ValueError: Policies do not have as many environments each.
        """
        ...

    def gather(self, tree: PyTree) -> PyTree:
        """Arrays that every device holds whole from here on."""
        ...

    def once(self, function: Callable[..., PyTree], *arguments: PyTree) -> PyTree:
        """Result, a pytree of arrays that every device holds, of a function that one device calls for all."""
        ...


class Objective(Protocol):
    """The part J of F(D): a value of trained policies, higher is better.

    `hades.testing.check_objective` checks an object against this contract. Large arrays, such as offline data, are
    leaves of an objective that is a pytree (`flax.struct.dataclass`): compiled programs then take them as arguments.
    """

    def init(self, key: jax.Array) -> Any:
        """Draws the state before the first iteration, such as statistics or a critic; `()` where there is none."""
        ...

    def draw(self, key: jax.Array, state: Any, policies: Policies) -> tuple[Any, Any, Metrics]:
        """Draws the problem of one iteration, which all candidates share.

        Args:
            key: Key of this iteration.
            state: State of the objective.
            policies: The present solution's policies, trained where they are called for.

        Returns:
            The problem, such as keys, a batch or collected steps; the new state; and metrics of the draw, scalars that
            take the place of the outer loop's of the same name, such as the returns of collected episodes. A problem
            that is a `hades.fitness.Minibatches` is shown to the outer loop in parts, and one whose initialisations
            have parts of their own, such as keys, is a `hades.fitness.Problem`: devices can share its initialisations.
        """
        ...

    def value(self, problem: Any, params: Params) -> tuple[jax.Array, Metrics]:
        """Values of policies.

        Args:
            problem: The problem of this iteration.
            params: Trained parameters, `[candidates, inits, ...]`.

        Returns:
            Values `[candidates, inits]`, and counts `[candidates]` by name, integers as sums over the initialisations
            and floating-point numbers as means; `env_steps` is one of them, or of the metrics of `draw`.
        """
        ...

    def normalizer(self, state: Any) -> Normalizer:
        """Normalisation of raw observations that policies are trained and played with."""
        ...


class OuterLoop(Protocol):
    """The part that climbs F: an evolution strategy, or an optimiser on its gradient.

    `hades.testing.check_outer_loop` checks an object against this contract.
    """

    def init(self, key: jax.Array, solution: Solution) -> Any:
        """State at a first solution."""
        ...

    def step(self, key: jax.Array, state: Any, value: Value) -> tuple[Any, Metrics]:
        """One iteration towards higher values.

        Args:
            key: Key of this iteration.
            state: State of the outer loop.
            value: F, to be maximised. Where its problem is divided, `value.num_parts` is more than 1, and
                `value(solutions, part)` is F on one part of it.

        Returns:
            The new state, and metrics: the scalars `fitness_mean`, `fitness_best`, `fitness_worst` and `non_finite`,
            and the counts of `value`, integers, whose sum is logged.
        """
        ...

    def solution(self, state: Any) -> Solution:
        """Present solution, the outcome of a run: of an evolution the mean of its search distribution.

        Where the next iteration begins elsewhere, a method `position` says where, as of `hades.outer.Averaged`.
        """
        ...
