"""Evolution strategies of evosax as the outer loop. The one place where a sign flips: evosax minimises."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import optax
from flax import struct

from hades._validation import require_positive
from hades.types import Metrics, PyTree

FitnessShaping = Literal["raw", "centered_rank", "z_score"]
Perturbations = Literal["stored", "regenerated", "low_rank"]


@dataclass(frozen=True)
class EvolutionSettings:
    """How an evolution strategy moves a solution: the outer loop."""

    strategy: str = "Open_ES"
    """Name of a distribution-based strategy of evosax: Open_ES, SNES, Sep_CMA_ES, PGPE, ..."""
    sigma: float = 0.1
    """Standard deviation of the search distribution, at the start where the strategy adapts it."""
    learning_rate: float = 0.05
    """Step size of the outer optimiser, for strategies that take one."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Outer optimiser, for strategies that take one."""
    adam_b1: float = 0.9
    """Decay of adam's first moment."""
    fitness_shaping: FitnessShaping | None = None
    """How returns become weights; none is the strategy's own way."""
    temperature: float | None = None
    """Recombination weights softmax(-20 sigmoid(temperature * rank)); none is the strategy's own weights."""
    perturbations: Perturbations = "stored"
    """stored keeps the whole population in memory; regenerated draws it from its keys, chunk by chunk, twice; low_rank
    does so with matrices of low rank. The last two know Open_ES and SNES."""
    rank: int = 4
    """Rank of low_rank perturbations."""

    def __post_init__(self) -> None:
        """Refuses a sigma, learning rate or temperature that is not positive."""
        require_positive("sigma", self.sigma)
        require_positive("learning_rate", self.learning_rate)
        if not 0 <= self.adam_b1 < 1:
            raise ValueError(f"adam_b1: expected a number in [0, 1), got {self.adam_b1}")
        require_positive("rank", self.rank)
        if self.temperature is not None:
            require_positive("temperature", self.temperature)


Objective: TypeAlias = Callable[[PyTree], tuple[jax.Array, Metrics]]
"""Maps candidates, `[candidates]` in front of each leaf, to values `[candidates]`, higher is better, and to what else
it counted of each, also `[candidates]`."""


@struct.dataclass
class EvolutionState:
    """State of the search distribution.

    Attributes:
        strategy: State of the evosax algorithm.
    """

    strategy: PyTree


class Evolution:
    """An evosax strategy that maximises.

    Built once, outside of the loop: evosax compiles its methods for each instance.

    Attributes:
        population_size: Candidates of a generation.
    """

    def __init__(self, solution: PyTree, population_size: int, settings: EvolutionSettings) -> None:
        """Builds the strategy for solutions that look like `solution`.

        Raises:
            ValueError: evosax has no distribution-based strategy of that name, or the population size does not suit it.
        """
        self.population_size = population_size
        self._strategy = build_strategy(solution, population_size, settings)
        self._params = strategy_params(self._strategy, population_size, settings)

    def init(self, key: jax.Array, solution: PyTree) -> EvolutionState:
        """The search distribution around a first solution."""
        return EvolutionState(_strong(self._strategy.init(key, solution, self._params)))

    def step(
        self, key: jax.Array, state: EvolutionState, objective: Objective
    ) -> tuple[EvolutionState, dict[str, jax.Array]]:
        """One generation: ask, evaluate, tell.

        Args:
            key: Key of this generation.
            state: Search distribution.
            objective: Evaluates a population; not finite values are counted and stand as the worst finite one.

        Returns:
            The new distribution, and the scalars of `summarize`.
        """
        ask_key, tell_key = jax.random.split(key)
        population, strategy = self._strategy.ask(ask_key, state.strategy, self._params)
        values, metrics = summarize(*objective(population))
        strategy, _ = self._strategy.tell(tell_key, population, -values, strategy, self._params)
        return EvolutionState(_strong(strategy)), metrics

    def solution(self, state: EvolutionState) -> PyTree:
        """The mean of the search distribution."""
        return self._strategy.get_mean(state.strategy)


def _strong(state: PyTree) -> PyTree:
    """Strips weak types: evosax gives other leaves one in `init` than in `tell`, and a step would be compiled twice."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), state)


def summarize(values: jax.Array, counts: Metrics) -> tuple[jax.Array, Metrics]:
    """Mends the values of a generation, and describes them.

    Args:
        values: `[population]`, higher is better.
        counts: What the objective counted of each candidate, `[population]` each.

    Returns:
        The values as `replace_non_finite` leaves them, and scalars: `fitness_mean`, `fitness_best`, `fitness_worst`,
        `fitness_std`, `non_finite`, and the sum of each count.
    """
    values, non_finite = replace_non_finite(values)
    return values, {
        **{name: jnp.sum(count) for name, count in counts.items()},
        "fitness_mean": jnp.mean(values),
        "fitness_best": jnp.max(values),
        "fitness_worst": jnp.min(values),
        "fitness_std": jnp.std(values),
        "non_finite": non_finite,
    }


def replace_non_finite(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Puts the worst finite value of a generation in the place of those that are not finite.

    Args:
        values: `[population]`, higher is better.

    Returns:
        The values, all zero where none was finite, and the number of those replaced, `[]` int32.

    Example:
        >>> replace_non_finite(jnp.array([3.0, jnp.nan, 1.0]))[0].tolist()
        [3.0, 1.0, 1.0]
    """
    finite = jnp.isfinite(values)
    worst = jnp.min(jnp.where(finite, values, jnp.inf))
    return jnp.where(finite, values, jnp.where(jnp.isfinite(worst), worst, 0.0)), jnp.sum(~finite)


def strategy_names() -> tuple[str, ...]:
    """Names of the distribution-based strategies of evosax that need no more than a solution and a population size."""
    from evosax.algorithms import distribution_based_algorithms

    def needs(algorithm: type) -> set[str]:
        parameters = inspect.signature(algorithm.__init__).parameters.values()  # type: ignore[misc]
        return {parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty}

    given = {"self", "population_size", "solution"}
    return tuple(name for name, algorithm in distribution_based_algorithms.items() if needs(algorithm) <= given)


def build_strategy(solution: PyTree, population_size: int, settings: EvolutionSettings) -> Any:
    """The evosax algorithm that settings name, with the optimiser, sigma and fitness shaping that it takes.

    Raises:
        ValueError: There is none of that name, or the population size does not suit it.
    """
    from evosax.algorithms import distribution_based_algorithms

    if settings.strategy not in strategy_names():
        raise ValueError(f"strategy: expected one of {', '.join(strategy_names())}, got {settings.strategy!r}")
    if population_size < 2 or population_size % 2:
        raise ValueError(f"population_size: expected an even number above 1, got {population_size}")
    algorithm = distribution_based_algorithms[settings.strategy]
    offered = {
        "optimizer": _make_optimizer(settings),
        "std_schedule": optax.constant_schedule(settings.sigma),
        "fitness_shaping_fn": settings.fitness_shaping and _shaping(settings.fitness_shaping),
    }
    accepted = inspect.signature(algorithm.__init__).parameters
    arguments = {name: value for name, value in offered.items() if name in accepted and value is not None}
    try:
        return algorithm(population_size=population_size, solution=solution, **arguments)
    except AssertionError as error:
        raise ValueError(f"strategy: {settings.strategy} refuses these settings: {error}") from None


def strategy_params(strategy: Any, population_size: int, settings: EvolutionSettings) -> Any:
    """The parameters of an evosax algorithm.

    Raises:
        ValueError: A temperature is given, and it has no recombination weights; or fitness shaping is, and it has.
    """
    from evosax.algorithms.distribution_based.discovered_es import get_weights

    params = strategy.default_params
    names = {field.name for field in dataclasses.fields(params)}
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


def _make_optimizer(settings: EvolutionSettings) -> optax.GradientTransformation:
    if settings.optimizer == "adam":
        return optax.adam(settings.learning_rate, b1=settings.adam_b1)
    return optax.sgd(settings.learning_rate)


def _shaping(name: FitnessShaping) -> Callable[..., jax.Array]:
    from evosax.core import fitness_shaping

    return {
        "raw": fitness_shaping.identity_fitness_shaping_fn,
        "centered_rank": fitness_shaping.centered_rank_fitness_shaping_fn,
        "z_score": fitness_shaping.standardize_fitness_shaping_fn,
    }[name]
