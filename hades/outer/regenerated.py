"""Evolution whose population never exists as a whole: perturbations are drawn again when they are needed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from hades._rows import pad_with_zeros
from hades.fitness import map_chunks
from hades.outer._metrics import summarize
from hades.outer.evolution import (
    EvolutionSettings,
    EvolutionState,
    Structure,
    build_strategy,
    check_population_size,
    devices_of,
)
from hades.sharding import Devices
from hades.types import Metrics, PyTree, Solution, Value

_STRATEGIES = ("Open_ES", "SNES")


@struct.dataclass
class _Search:
    """The search distribution, of the solution's structure.

    Attributes:
        mean: Its mean.
        std: Standard deviation of each component.
        optimizer: State of the outer optimiser.
    """

    mean: PyTree
    std: PyTree
    optimizer: Any


@dataclass(frozen=True)
class RegeneratedEvolution:
    """Open_ES and SNES in memory for one chunk of candidates, however large the population.

    An iteration draws each perturbation twice from the same key: once to evaluate it, once to weigh it into the update
    (Salimans et al. 2017, section 2.1, where workers do so to spare communication). With low rank, the perturbation of
    a matrix is A B^T / sqrt(rank) with standard normal A and B (EGGROLL, arXiv 2511.16652), which has the same mean and
    covariance as independent components, and takes far fewer random numbers. Updates and their settings are those of
    evosax; only the random numbers differ.

    Attributes:
        population_size: Candidates of an iteration, even.
        settings: Names Open_ES or SNES, and regenerated or low_rank perturbations.
        chunk_size: Candidates that exist at once on a device, rounded down to an even number; all of them if None.

    Raises:
        ValueError: The strategy is another one, or the population size is odd.
    """

    population_size: int = 64
    settings: EvolutionSettings = EvolutionSettings(perturbations="regenerated")
    chunk_size: int | None = None

    def __post_init__(self) -> None:
        """Refuses other strategies, and a population that cannot be mirrored."""
        if self.settings.strategy not in _STRATEGIES:
            known = " or ".join(_STRATEGIES)
            raise ValueError(
                f"strategy: {self.settings.perturbations} perturbations need {known}, got {self.settings.strategy!r}"
            )
        check_population_size(self.population_size)

    @property
    def _signs(self) -> tuple[float, ...]:
        # Open_ES mirrors every perturbation, SNES draws one for each candidate, as evosax does.
        return (1.0, -1.0) if self.settings.strategy == "Open_ES" else (1.0,)

    @property
    def _draws(self) -> int:
        return self.population_size // len(self._signs)

    @property
    def _chunk(self) -> int:
        return self._draws if self.chunk_size is None else max(1, self.chunk_size // len(self._signs))

    @property
    def _adapts_std(self) -> bool:
        return self.settings.strategy == "SNES"

    def _built(self, structure: Structure) -> tuple[Any, Any]:
        return build_strategy(structure, self.population_size, self.settings)

    def init(self, key: jax.Array, solution: Solution) -> EvolutionState:
        """Search distribution around a first solution; nothing is drawn."""
        del key
        mean, structure = jax.tree.map(jnp.asarray, solution), Structure.of(solution)
        # Of half precision a deviation would be too coarse to move by a thousandth.
        std = jax.tree.map(lambda leaf: jnp.full(leaf.shape, self.settings.sigma, _single(leaf)), mean)
        algorithm, _ = self._built(structure)
        return EvolutionState(_Search(mean, std, algorithm.optimizer.init(mean)), structure)

    def step(self, key: jax.Array, state: EvolutionState, value: Value) -> tuple[EvolutionState, Metrics]:
        """One iteration. Arguments and returns of `Evolution.step`; F sees one chunk of candidates after the other.

        Of several devices each draws the perturbations of its own candidates, evaluates them, and weighs them into
        its share of the update: what crosses between them is fitness, and one sum of the solution's size.
        """
        search: _Search = state.strategy
        algorithm, params = self._built(state.structure)
        devices = devices_of(value)

        def evaluate(shared: Any, draws: jax.Array) -> tuple[jax.Array, Metrics]:
            value, key, search = shared
            noise = self._perturbations(key, search.mean, draws)
            sides = [jax.tree.map(partial(_moved, sign), search.mean, search.std, noise) for sign in self._signs]
            results = value(jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *sides))
            # [signs * draws] to [draws, signs].
            return jax.tree.map(lambda leaf: leaf.reshape(len(sides), -1).T, results)

        def evaluate_share(draws: jax.Array, shared: Any) -> tuple[jax.Array, Metrics]:
            return map_chunks(partial(evaluate, shared), draws, self._chunk)

        shared = (getattr(value, "local", value), key, search)
        values, counts = devices.map(evaluate_share, jnp.arange(self._draws), shared)
        values, metrics = summarize(values.reshape(-1), jax.tree.map(jnp.ravel, counts))
        # evosax minimises: Open_ES descends along shaped values, SNES climbs along weights by rank.
        weights = algorithm.fitness_shaping_fn(values[:, None], -values, search, params)
        weights = weights.reshape(self._draws, len(self._signs))
        search = self._tell(key, algorithm, params, search, weights, devices)
        return EvolutionState(search, state.structure), metrics

    def solution(self, state: EvolutionState) -> Solution:
        """Mean of the search distribution."""
        return state.strategy.mean

    def _tell(
        self, key: jax.Array, algorithm: Any, params: Any, search: _Search, weights: jax.Array, devices: Devices
    ) -> _Search:
        """Update for shaped values `[draws, signs]`."""
        first = weights @ jnp.array(self._signs)
        rows = (jnp.arange(self._draws), first, jnp.sum(weights, axis=1))
        moments = devices.sum(self._weighted_moments, rows, (key, search.mean))
        if self._adapts_std:
            gradient = jax.tree.map(lambda std, moment: -std * moment, search.std, moments[0])
            rate = 0.5 * params.lr_std_init
            std = jax.tree.map(lambda std, moment: std * jnp.exp(rate * moment), search.std, moments[1])
        else:
            scale = 1 / self.population_size
            gradient = jax.tree.map(lambda std, moment: scale * moment / std, search.std, moments[0])
            std = jax.tree.map(lambda std: self.settings.sigma_decay * std, search.std)
        gradient = optax.tree.cast_like(gradient, search.mean)
        updates, optimizer = algorithm.optimizer.update(gradient, search.optimizer, search.mean)
        return _Search(optax.apply_updates(search.mean, updates), std, optimizer)

    def _weighted_moments(
        self, rows: tuple[jax.Array, jax.Array, jax.Array], shared: tuple[jax.Array, PyTree]
    ) -> tuple[PyTree, PyTree]:
        """Sums over draws of their first weight times z and, where the deviation adapts, the second times (z^2 - 1).

        Args:
            rows: Numbers of draws and their two weights, `[draws]` each.
            shared: Key of the iteration, and mean of the search distribution.
        """
        key, mean = shared

        def add(sums: tuple[PyTree, PyTree], rows: tuple[jax.Array, ...]) -> tuple[tuple[PyTree, PyTree], None]:
            draws, first, second = rows
            noise = self._perturbations(key, mean, draws)
            linear = jax.tree.map(lambda total, z: total + jnp.tensordot(first, z, 1), sums[0], noise)
            if not self._adapts_std:
                return (linear, sums[1]), None
            square = jax.tree.map(lambda total, z: total + jnp.tensordot(second, z * z - 1, 1), sums[1], noise)
            return (linear, square), None

        chunk = min(self._chunk, rows[0].shape[0])
        chunks = jax.tree.map(lambda leaf: leaf.reshape(-1, chunk), pad_with_zeros(rows, chunk))
        # A sum over many candidates is one of at least single precision.
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, _single(leaf)), mean)
        sums, _ = jax.lax.scan(add, (zeros, zeros if self._adapts_std else ()), chunks)
        return sums

    def _perturbations(self, key: jax.Array, like: PyTree, draws: jax.Array) -> PyTree:
        """Standard normal numbers `[draws, ...]` of the solution's structure, the same for the same draw."""
        leaves, structure = jax.tree.flatten(like)
        rank = self.settings.rank if self.settings.perturbations == "low_rank" else None

        def one(draw: jax.Array) -> list[jax.Array]:
            keys = jax.random.split(jax.random.fold_in(key, draw), len(leaves))
            return [_normal(leaf_key, leaf, rank) for leaf_key, leaf in zip(keys, leaves, strict=True)]

        return jax.tree.unflatten(structure, jax.vmap(one)(draws))


def _single(leaf: jax.Array) -> Any:
    """At least single precision."""
    return jnp.promote_types(leaf.dtype, jnp.float32)


def _moved(sign: float, mean: jax.Array, std: jax.Array, noise: jax.Array) -> jax.Array:
    return (mean + sign * std * noise).astype(mean.dtype)


def _normal(key: jax.Array, like: jax.Array, rank: int | None) -> jax.Array:
    if rank is None or like.ndim != 2 or rank * sum(like.shape) >= like.size:
        return jax.random.normal(key, like.shape, like.dtype)
    rows, columns = like.shape
    factors = jax.random.normal(key, (rows + columns, rank), like.dtype)
    return factors[:rows] @ factors[rows:].T / math.sqrt(rank)
