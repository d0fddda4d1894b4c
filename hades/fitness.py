"""F(D), the one equation of the library, and its evaluation in chunks of candidates."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias, cast

import jax
import jax.numpy as jnp
from flax import struct

from hades._rows import pad_rows, swapped
from hades._validation import require_positive
from hades.sharding import Devices, mean_or_sum, replicate_within
from hades.types import InnerLoop, Metrics, Objective, Parametrization, Params, PyTree, Solution, Value

# Initialisations that one device has, beside the axis of a mesh that divides all of them.
_OWN_INITS = "own_inits"


@struct.dataclass
class Draw:
    """Random numbers k of one iteration, which all candidates share (common random numbers).

    Attributes:
        initial: Parameters theta_0(k), `[inits, ...]`.
        fit_keys: Keys of training, `[inits]`.
        problem: Problem of the objective, see `hades.types.Objective.draw`.
    """

    initial: Params
    fit_keys: jax.Array
    problem: Any = ()


@dataclass(frozen=True)
class Fitness:
    """F(D) = E_k[ J( A_T( theta_0(k), D ), k ) ] of candidates.

    Attributes:
        decode: `decode(solutions [candidates])`: datasets D `[candidates, ...]`.
        train: `train(draw, datasets)`: A_T, parameters theta_T `[candidates, inits, ...]`.
        value: `value(problem, params)`: J, values `[candidates, inits]` and counts `[candidates]`.
    """

    decode: Callable[[Solution], PyTree]
    train: Callable[[Draw, PyTree], Params]
    value: Callable[[Any, Params], tuple[jax.Array, Metrics]]

    def __call__(self, draw: Draw, solutions: Solution) -> tuple[jax.Array, Metrics]:
        """Values `[candidates]`, higher is better, and counts `[candidates]`, of solutions `[candidates, ...]`."""
        params = self.train(draw, self.decode(solutions))
        values, counts = self.value(draw.problem, params)
        return jnp.mean(values, axis=1), counts


@struct.dataclass
class Problem:
    """A problem of which each initialisation has a part of its own.

    Attributes:
        per_init: Parts, `[inits, ...]` in each leaf.
        shared: Everything that all initialisations share.
    """

    per_init: Any
    shared: Any = ()


@dataclass(frozen=True)
class PresentPolicies:
    """The policies of the present solution: the `hades.types.Policies` that an objective's `draw` gets.

    Attributes:
        num_inits: Initialisations of an iteration.
        train: Trains them, `[inits, ...]`; None where no objective may ask.
        devices: Devices to spread their work over.
    """

    num_inits: int
    train: Callable[[], Params] | None = None
    devices: Devices = Devices()

    def __call__(self) -> Params:
        """Trains them: parameters `[inits, ...]`."""
        if self.train is None:
            raise ValueError("policies: expected an objective that does not train them as it draws")
        return self.train()

    def map_environments(
        self, function: Callable[[Params, PyTree, PyTree], PyTree], params: Params, rows: PyTree, shared: PyTree = ()
    ) -> PyTree:
        """Results of a function of policies and their environments, of which each device takes its share."""
        envs, inits, devices = jax.tree.leaves(rows)[0].shape[0], self.num_inits, self.devices.size
        if envs % inits:
            raise ValueError(f"rows: expected a multiple of {inits}, the policies, got {envs} environments")
        # Where devices are more than policies, or not shared evenly, several take environments of the same one.
        parts = math.gcd(devices // math.gcd(devices, inits), envs // inits)
        groups = inits * parts

        # Sizes are given in full: a simulator's arrays may have no elements.
        def apart(leaf: jax.Array) -> jax.Array:
            return leaf.reshape(leaf.shape[0] * groups // envs, envs // groups, *leaf.shape[1:])

        def together(leaf: jax.Array) -> jax.Array:
            return leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:])

        def share(own: tuple[Params, PyTree], shared: PyTree) -> PyTree:
            params, grouped = own
            return jax.tree.map(apart, function(params, jax.tree.map(together, grouped), shared))

        repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf, parts, axis=0), params)
        return jax.tree.map(together, self.devices.map(share, (repeated, jax.tree.map(apart, rows)), shared))

    def gather(self, tree: PyTree) -> PyTree:
        """Arrays that every device holds whole."""
        return replicate_within(tree, self.devices.mesh)

    def once(self, function: Callable[..., PyTree], *arguments: PyTree) -> PyTree:
        """Result of a function that one device calls."""
        return self.devices.once(function, *arguments)


@struct.dataclass
class Minibatches:
    """A problem that an outer loop sees part by part, such as the epochs of minibatches of a policy gradient.

    Attributes:
        problem: All rows, `[inits, rows, ...]` in each leaf.
        rows: Rows of each part, `[parts, inits, size]` integer.
        whole: Rows of the whole problem, `[inits, size]` integer; all of them if None.
    """

    problem: Any
    rows: jax.Array
    whole: jax.Array | None = None

    def part(self, index: jax.Array | int | None = None) -> Any:
        """The problem of one part, `[inits, size, ...]` in each leaf; the whole one if None."""
        return self.untaken(index).take()

    def untaken(self, index: jax.Array | int | None) -> Part:
        """The part before its rows are taken."""
        return Part(self.problem, self.whole if index is None else self.rows[index])


@struct.dataclass
class Part:
    """Part of a problem whose rows are still to be taken, by each device those of its own initialisations.

    Attributes:
        problem: All rows, `[inits, rows, ...]` in each leaf.
        rows: Those to take, `[inits, size]` integer; all of them if None.
    """

    problem: Any
    rows: jax.Array | None

    def take(self) -> Any:
        """The rows, `[inits, size, ...]` in each leaf."""
        if self.rows is None:
            return self.problem
        return jax.tree.map(lambda leaf: jax.vmap(lambda own, rows: own[rows])(leaf, self.rows), self.problem)


@struct.dataclass
class IterationValue:
    """F under the random numbers of one iteration: the `hades.types.Value` that an outer loop climbs.

    Attributes:
        fitness: F.
        draw: Random numbers.
        devices: Devices that candidates are spread over.
    """

    fitness: FitnessFunction = struct.field(pytree_node=False)
    draw: Draw
    devices: Devices = struct.field(pytree_node=False, default=Devices())

    @property
    def num_parts(self) -> int:
        """Parts of the problem, 1 where the objective has not divided it."""
        problem = self.draw.problem
        return problem.rows.shape[0] if isinstance(problem, Minibatches) else 1

    def __call__(self, solutions: Solution, part: jax.Array | int | None = None) -> tuple[jax.Array, Metrics]:
        """Values and counts of solutions `[candidates, ...]` on one part of the problem, or on all of it."""
        draw, by_init = self._divided(part)
        if by_init is None:
            # Nobody says which initialisation needs what of the problem: devices share candidates alone.
            return self.devices.map(self._evaluate, solutions, draw)
        return self.devices.map_means(self._evaluate, solutions, draw, by_init)

    def mean_over_inits(
        self, function: Callable[[Value, Solution], PyTree], solutions: Solution, part: jax.Array | int | None = None
    ) -> PyTree:
        """Means over initialisations of what a function makes of the value under each alone.

        Args:
            function: `function(value, solutions)`: arrays `[candidates, ...]`; `value(solutions)` is this value, had
                there been that initialisation alone.
            solutions: Solutions, `[candidates, ...]`.
            part: Part of the problem; all of it if None.

        Returns:
            The means, of integers the sums, `[candidates, ...]`.

        Raises:
            ValueError: The objective does not say what each initialisation needs of its problem.
        """
        draw, by_init = self._divided(part)
        if by_init is None:
            raise ValueError("problem: expected an objective that divides it by initialisation")
        axes = jax.tree.map(lambda divides: 0 if divides else None, by_init)

        def alone(divides: bool, branch: PyTree) -> PyTree:
            return jax.tree.map(lambda leaf: leaf[None], branch) if divides else branch

        def share(solutions: Solution, own: Draw) -> PyTree:
            def of_one(own: Draw) -> PyTree:
                one = jax.tree.map(alone, by_init, own)
                found = function(lambda solutions: self._evaluate(solutions, one), solutions)
                return jax.tree.map(partial(mean_or_sum, axis=_OWN_INITS), found)

            return jax.vmap(of_one, in_axes=(axes,), out_axes=None, axis_name=_OWN_INITS)(own)

        return self.devices.map_means(share, solutions, draw, by_init)

    def _divided(self, part: jax.Array | int | None) -> tuple[Draw, Any]:
        """Random numbers of one part, and which branches of them have the axis of inits; None where nobody says."""
        draw: Draw = self.draw
        divided: Any = None
        if isinstance(draw.problem, Minibatches):
            draw, divided = replace(draw, problem=draw.problem.untaken(part)), True
        elif isinstance(draw.problem, Problem):
            divided = Problem(True, False)
        return draw, None if divided is None else Draw(cast(Any, True), cast(Any, True), divided)

    def _evaluate(self, solutions: Solution, draw: Draw) -> tuple[jax.Array, Metrics]:
        if isinstance(draw.problem, Part):
            draw = replace(draw, problem=draw.problem.take())
        return self.fitness(draw, solutions)

    @property
    def local(self) -> IterationValue:
        """The same on one device, for an outer loop that divides the work itself, as `devices.map` and `sum` do."""
        return replace(self, devices=Devices())


FitnessFunction: TypeAlias = Callable[[Draw, Solution], tuple[jax.Array, Metrics]]
"""`fitness(draw, solutions)`, as `Fitness`: chunking returns functions of this type."""


def make_fitness(parametrization: Parametrization, inner: InnerLoop, objective: Objective) -> Fitness:
    """Makes F of three parts."""
    return Fitness(jax.vmap(parametrization.decode), partial(fit_all, inner), objective.value)


def draw_inits(inner: InnerLoop, key: jax.Array, num_inits: int, init_seed: int | None = None) -> Draw:
    """Draws theta_0 and the keys of training.

    Args:
        inner: Inner loop.
        key: Key of the iteration's inits.
        num_inits: Inits.
        init_seed: Seed of the one initialisation that all inits are (HaDES-F); fresh ones if None.
    """
    fresh = jax.random.split(key, num_inits)
    keys = fresh if init_seed is None else jnp.stack([jax.random.key(init_seed)] * num_inits)
    init_keys, fit_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    return Draw(jax.vmap(inner.init)(init_keys), fit_keys)


def fit_all(inner: InnerLoop, draw: Draw, datasets: PyTree) -> Params:
    """Trains every init on every dataset: parameters `[candidates, inits, ...]` from datasets `[candidates, ...]`."""
    over_inits = jax.vmap(inner.fit, in_axes=(0, 0, None))
    return jax.vmap(over_inits, in_axes=(None, None, 0))(draw.fit_keys, draw.initial, datasets)


def fit_over(devices: Devices, inner: InnerLoop, draw: Draw, datasets: PyTree) -> Params:
    """As `fit_all`, of which each device trains its share of the inits."""

    def fit(own: Draw, datasets: PyTree) -> Params:
        return swapped(fit_all(inner, own, datasets))

    return swapped(devices.map(fit, draw, datasets))


@dataclass(frozen=True)
class Chunks:
    """Candidates that exist at once on a device.

    Cloning wants a working set that fits a cache, and a chunk of rollouts ends with its own last living episode,
    however long those of other chunks go on.

    Attributes:
        cloning: Candidates that are trained at once; all of them if None.
        rollout: Candidates whose policies are valued at once; all of them if None.
    """

    cloning: int | None = None
    rollout: int | None = None

    def __post_init__(self) -> None:
        """Refuses sizes that are not positive."""
        for name in ("cloning", "rollout"):
            if getattr(self, name) is not None:
                require_positive(f"{name}_chunk_size", getattr(self, name))


def in_chunks(fitness: Fitness, chunks: Chunks) -> FitnessFunction:
    """Evaluates F in chunks of candidates, one after the other, with the same values.

    Parameters live for the larger of the two chunks alone, not for all candidates.
    """

    def train(draw: Draw, datasets: PyTree) -> Params:
        return map_chunks(partial(fitness.train, draw), datasets, chunks.cloning)

    def value(problem: Any, params: Params) -> tuple[jax.Array, Metrics]:
        return map_chunks(partial(fitness.value, problem), params, chunks.rollout)

    whole = chunks.cloning is None or chunks.rollout is None
    largest = None if whole else max(chunks.cloning or 1, chunks.rollout or 1)
    smaller = replace(fitness, train=train, value=value)

    def chunked(draw: Draw, solutions: Solution) -> tuple[jax.Array, Metrics]:
        return map_chunks(partial(smaller, draw), solutions, largest)

    return chunked


def map_chunks(function: Callable[[PyTree], PyTree], xs: PyTree, chunk_size: int | None) -> PyTree:
    """Applies a batched function to chunks of the leading axis, one after the other.

    Unlike `jax.lax.map(batch_size=...)` it does not vmap: a loop inside of `function` keeps its scalar predicate.

    Args:
        function: Takes and returns pytrees with a leading axis, row by row independent of each other.
        xs: Pytree with leading axis `[rows]`.
        chunk_size: Rows of a chunk; the last one is filled with copies of the first row. None is one chunk.

    Returns:
        Results of `function`, `[rows, ...]`.
    """
    rows = jax.tree.leaves(xs)[0].shape[0]
    if chunk_size is None or chunk_size >= rows:
        return function(xs)
    padded = pad_rows(xs, chunk_size)
    chunks = jax.tree.map(lambda leaf: leaf.reshape(-1, chunk_size, *leaf.shape[1:]), padded)
    results = jax.lax.map(function, chunks)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:rows], results)
