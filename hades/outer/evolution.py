"""Evolution strategies of evosax as the outer loop."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import optax
from flax import struct

from hades._environment_contract import strong
from hades._validation import require_below_one, require_fraction, require_positive_fields
from hades.optimizers import OptimizerName, make_optimizer
from hades.outer._metrics import summarize
from hades.sharding import Devices, replicate_within
from hades.types import Metrics, PyTree, Solution, Value

FitnessShaping = Literal["raw", "centered_rank", "z_score"]
Perturbations = Literal["stored", "regenerated", "low_rank"]

# Strategies of which a device can draw its own candidates alone; of others, devices would gather what they share.
_DRAWN_BY_ROW = ("Open_ES", "SNES", "Sep_CMA_ES")
# Numbers of a population, below which every device draws all of it: that costs nothing, and the same order of sums
# gives the same bytes on any number of devices.
_DIVIDED_FROM = 2**16


@dataclass(frozen=True)
class EvolutionSettings:
    """Evolution strategy of the outer loop."""

    strategy: str = "Open_ES"
    """Name of a distribution-based strategy of evosax: Open_ES, SNES, Sep_CMA_ES, PGPE, ..."""
    sigma: float = 0.1
    """Standard deviation of the search distribution, at the start where the strategy adapts it."""
    learning_rate: float | None = None
    """Step size of the outer optimiser, for strategies that take one; default: 1 for sgd under recombination weights
    (SNES, xNES, ...), otherwise 0.05."""
    optimizer: Literal["adam", "sgd"] | None = None
    """Outer optimiser, for strategies that take one; default: sgd for those with recombination weights (SNES, xNES,
    ...), adam for the others."""
    adam_b1: float = 0.9
    """Decay of adam's first moment."""
    fitness_shaping: FitnessShaping | None = None
    """Transformation of returns into weights; default: the strategy's own."""
    temperature: float | None = None
    """Recombination weights softmax(-20 sigmoid(temperature * rank)); default: the strategy's own weights."""
    perturbations: Perturbations = "stored"
    """stored keeps the population in memory, each device its share of Open_ES, SNES, Sep_CMA_ES; regenerated draws it
    from its keys, chunk by chunk, twice; low_rank does so with matrices of low rank. The last two know Open_ES and
    SNES."""
    rank: int = 4
    """Rank of low_rank perturbations."""
    sigma_decay: float = 1.0
    """Factor of the standard deviation from one iteration to the next, for strategies that do not adapt it; 1 keeps
    it."""
    learning_rate_decay: float = 1.0
    """Factor of the step size from one iteration to the next; 1 keeps it."""

    def __post_init__(self) -> None:
        """Refuses a sigma, learning rate or temperature that is not positive, and decays that let one grow."""
        require_positive_fields(self, "sigma", "learning_rate", "rank", "temperature")
        require_fraction("sigma_decay", self.sigma_decay)
        require_fraction("learning_rate_decay", self.learning_rate_decay)
        require_below_one("adam_b1", self.adam_b1)

    def resolved(self) -> EvolutionSettings:
        """Settings with the defaults of the strategy filled in.

        Raises:
            ValueError: evosax has no distribution-based strategy of that name.
        """
        weighted = _has_weights(self.strategy)
        optimizer = self.optimizer or ("sgd" if weighted else "adam")
        rate = self.learning_rate or (1.0 if weighted and optimizer == "sgd" else 0.05)
        return replace(self, optimizer=optimizer, learning_rate=rate)


@struct.dataclass
class EvolutionState:
    """State of the search distribution.

    Attributes:
        strategy: State of the strategy.
        structure: Structure of solutions, static.
    """

    strategy: PyTree
    structure: Structure = struct.field(pytree_node=False)


@dataclass(frozen=True)
class Structure:
    """Structure, shapes and types of solutions, by which a strategy is built.

    Attributes:
        tree: Structure.
        leaves: Shape and type of each leaf.
    """

    tree: Any
    leaves: tuple[tuple[tuple[int, ...], str], ...]

    @classmethod
    def of(cls, solution: Solution) -> Structure:
        """Structure of a solution."""
        leaves, tree = jax.tree.flatten(solution)
        return cls(tree, tuple((tuple(leaf.shape), str(leaf.dtype)) for leaf in map(jnp.asarray, leaves)))

    def zeros(self) -> Solution:
        """A solution of zeros."""
        return jax.tree.unflatten(self.tree, [jnp.zeros(shape, dtype) for shape, dtype in self.leaves])


@dataclass(frozen=True)
class Evolution:
    """A strategy of evosax that maximises: an outer loop whose population is stored.

    Attributes:
        population_size: Candidates of an iteration, even.
        settings: Strategy and its parameters.

    Raises:
        ValueError: The population size is odd or below 2.

    Example:
        >>> loop = Evolution(64, EvolutionSettings(sigma=0.5, learning_rate=0.5))
        >>> state = loop.init(jax.random.key(0), jnp.array([3.0]))
        >>> for index in range(60):
        ...     state, metrics = loop.step(jax.random.key(index), state, lambda x: (-jnp.square(x[:, 0]), {}))
        >>> abs(float(loop.solution(state)[0])) < 0.5
        True
    """

    population_size: int = 64
    settings: EvolutionSettings = EvolutionSettings()

    def __post_init__(self) -> None:
        """Refuses a population that cannot be mirrored."""
        check_population_size(self.population_size)

    def init(self, key: jax.Array, solution: Solution) -> EvolutionState:
        """Search distribution around a first solution.

        Raises:
            ValueError: evosax has no distribution-based strategy of that name, or a setting does not suit it.
        """
        structure = Structure.of(solution)
        algorithm, params = self._built(structure)
        strategy = _initial(algorithm, key, solution, params)
        if self.settings.sigma_decay != 1:
            # The schedule begins with the second iteration.
            strategy = strategy.replace(std=jnp.full_like(strategy.std, self.settings.resolved().sigma))
        return EvolutionState(strategy, structure)

    def step(self, key: jax.Array, state: EvolutionState, value: Value) -> tuple[EvolutionState, Metrics]:
        """One iteration: ask, evaluate, tell.

        Args:
            key: Key of this iteration.
            state: Search distribution.
            value: Evaluates a population; not finite values are counted and stand as the worst finite one.

        Returns:
            The new distribution, and the metrics of `hades.outer.summarize`.
        """
        ask_key, tell_key = jax.random.split(key)
        algorithm, params = self._built(state.structure)
        population, strategy = algorithm.ask(ask_key, state.strategy, params)
        numbers = sum(leaf.size for leaf in jax.tree.leaves(population))
        if self.settings.strategy not in _DRAWN_BY_ROW or numbers < _DIVIDED_FROM:
            population = replicate_within(population, devices_of(value).mesh)
        values, metrics = summarize(*value(population))
        # evosax minimises.
        told, _ = algorithm.tell(tell_key, population, -values, strategy, params)
        # Nobody reads the best candidate, which devices that share candidates would have to gather.
        strategy = told.replace(best_solution=strategy.best_solution)
        # evosax gives other leaves a weak type in `init` than in `tell`, and a step would be compiled twice.
        return EvolutionState(strong(strategy), state.structure), metrics

    def solution(self, state: EvolutionState) -> Solution:
        """Mean of the search distribution."""
        algorithm, _ = self._built(state.structure)
        return algorithm.get_mean(state.strategy)

    def _built(self, structure: Structure) -> tuple[Any, Any]:
        return build_strategy(structure, self.population_size, self.settings)


@partial(jax.jit, static_argnums=0)
def _initial(algorithm: Any, key: jax.Array, solution: Solution, params: Any) -> PyTree:
    state = algorithm.init(key, solution, params)
    # evosax marks the best solution before the first one as NaN, which debug_nans would take for a fault.
    return strong(state.replace(best_solution=jnp.nan_to_num(state.best_solution)))


def devices_of(value: Value) -> Devices:
    """Devices that a value spreads candidates over; this one alone where it does not say."""
    devices: Devices = getattr(value, "devices", Devices())
    return devices


@functools.cache
def strategy_names() -> tuple[str, ...]:
    """Names of the distribution-based strategies of evosax that need no more than a solution and a population size."""
    from evosax.algorithms import distribution_based_algorithms

    def needs(algorithm: type) -> set[str]:
        parameters = inspect.signature(algorithm.__init__).parameters.values()  # type: ignore[misc]
        return {parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty}

    given = {"self", "population_size", "solution"}
    return tuple(name for name, algorithm in distribution_based_algorithms.items() if needs(algorithm) <= given)


def check_population_size(population_size: int) -> None:
    """Raises `ValueError` unless a population can be mirrored."""
    if population_size < 2 or population_size % 2:
        raise ValueError(f"population_size: expected an even number above 1, got {population_size}")


@functools.lru_cache(maxsize=64)
def build_strategy(structure: Structure, population_size: int, settings: EvolutionSettings) -> tuple[Any, Any]:
    """The evosax algorithm that settings name, with the optimiser and fitness shaping that it takes; its parameters.

    The algorithm compiles its methods for each instance.
    """
    settings = settings.resolved()
    offered = {
        "optimizer": make_optimizer(
            cast(OptimizerName, settings.optimizer),
            cast(float, settings.learning_rate),
            adam_b1=settings.adam_b1,
            decay=settings.learning_rate_decay,
        ),
        "std_schedule": _sigma_schedule(settings),
        "fitness_shaping_fn": settings.fitness_shaping and _shaping(settings.fitness_shaping),
    }
    algorithm = _algorithm(settings.strategy)
    accepted = inspect.signature(algorithm.__init__).parameters
    if settings.sigma_decay != 1 and "std_schedule" not in accepted:
        raise ValueError(f"sigma_decay: expected 1, as {settings.strategy} adapts sigma, got {settings.sigma_decay}")
    if settings.learning_rate_decay != 1 and "optimizer" not in accepted:
        found = settings.learning_rate_decay
        raise ValueError(f"learning_rate_decay: expected 1, as {settings.strategy} has no optimiser, got {found}")
    arguments = {name: value for name, value in offered.items() if name in accepted and value is not None}
    # Also where a step is being traced, whose values must not be kept.
    with jax.ensure_compile_time_eval():
        try:
            strategy = algorithm(population_size=population_size, solution=structure.zeros(), **arguments)
        except AssertionError as error:
            raise ValueError(f"strategy: {settings.strategy} refuses these settings: {error}") from None
        return strategy, _strategy_params(strategy, population_size, settings)


def _sigma_schedule(settings: EvolutionSettings) -> optax.Schedule:
    if settings.sigma_decay == 1:
        return optax.constant_schedule(settings.sigma)
    # evosax asks for the deviation of the next iteration by the number of this one.
    return optax.exponential_decay(settings.sigma * settings.sigma_decay, 1, settings.sigma_decay)


def _algorithm(name: str) -> Any:
    from evosax.algorithms import distribution_based_algorithms

    if name not in strategy_names():
        raise ValueError(f"strategy: expected one of {', '.join(strategy_names())}, got {name!r}")
    return _neighbouring_mirrors() if name == "Open_ES" else distribution_based_algorithms[name]


@functools.cache
def _neighbouring_mirrors() -> Any:
    from evosax.algorithms import Open_ES

    class NeighbouringMirrors(Open_ES):
        """Open_ES with each candidate next to its mirror, so that devices draw the perturbations of their own alone."""

        def _ask(self, key: jax.Array, state: Any, params: Any) -> tuple[jax.Array, Any]:
            del params
            z = jax.random.normal(key, (self.population_size // 2, self.num_dims))
            mirrored = jnp.stack([z, -z], axis=1).reshape(self.population_size, self.num_dims)
            return state.mean + state.std * mirrored, state

    return NeighbouringMirrors


def _has_weights(name: str) -> bool:
    """Whether a strategy weighs candidates by their ranks."""
    from evosax.core.fitness_shaping import weights_fitness_shaping_fn

    parameter = inspect.signature(_algorithm(name).__init__).parameters.get("fitness_shaping_fn")
    return parameter is not None and parameter.default is weights_fitness_shaping_fn


def _strategy_params(strategy: Any, population_size: int, settings: EvolutionSettings) -> Any:
    """Parameters of an evosax algorithm; a temperature needs recombination weights, fitness shaping none."""
    from evosax.algorithms.distribution_based.discovered_es import get_weights

    params = strategy.default_params
    names = {field.name for field in fields(params)}
    if "std_init" in names:
        params = params.replace(std_init=jnp.float32(settings.sigma))
    if settings.fitness_shaping is not None and "weights" in names:
        # Its update takes weights that are large for the best; shaped values would send it to the worst.
        known = f"{settings.strategy} weighs candidates by its own ranks, expected none"
        raise ValueError(f"fitness_shaping: {known}, got {settings.fitness_shaping}")
    if settings.temperature is not None:
        if "weights" not in names:
            raise ValueError(f"temperature: {settings.strategy} has no recombination weights to temper")
        params = params.replace(weights=get_weights(population_size, settings.temperature))
    return params


def _shaping(name: FitnessShaping) -> Callable[..., jax.Array]:
    from evosax.core import fitness_shaping

    return {
        "raw": fitness_shaping.identity_fitness_shaping_fn,
        "centered_rank": fitness_shaping.centered_rank_fitness_shaping_fn,
        "z_score": fitness_shaping.standardize_fitness_shaping_fn,
    }[name]
