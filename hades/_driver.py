"""Host loops from beginning to end: of one run, or of several seeds of it side by side."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hades import multihost
from hades._ahead import Ahead, programs_of
from hades._history import Row
from hades._host_loop import Advance, HostLoop
from hades._progress import Progress, with_prefix
from hades.run import DivergedError, Run, RunState
from hades.sharding import Devices, is_elsewhere, population_mesh, replicate, replicate_within, spans_several
from hades.types import Metrics

if TYPE_CHECKING:
    from hades.training import LoopSettings


def drive(
    hosts: Sequence[HostLoop],
    loop: LoopSettings,
    num_iterations: int,
    report: Progress,
    should_stop: Callable[[], bool],
    ahead: Ahead,
) -> None:
    """Runs to the end, to a budget, or until it is stopped; every way out leaves a checkpoint.

    Args:
        hosts: Seeds of one run, equal but for their keys; their iterations are one compiled call.
        loop: Settings of each.
        num_iterations: Iterations of each, those of earlier calls counted in.
        report: Shows progress.
        should_stop: Asked before every call, the first time once that is compiled.
        ahead: Compiles their programs, and may have begun.
    """
    seeds = _Seeds(hosts, num_iterations)
    try:
        for host in hosts:
            host.begin()
        with multihost.noticing_lost_processes():
            if any(seeds.next_counts()):
                if ahead.is_empty:
                    ahead.compile(programs_of(hosts[0].run, seeds.keys, loop, begins=False))
                ahead.wait()
                seeds.compile()
            while any(counts := seeds.next_counts()) and not multihost.any_process(should_stop()):
                rows = seeds.call(counts)
                if rows:
                    report.update(seeds.iteration, *_status(hosts[0].run, rows, loop.row_length))
        if seeds.diverged:
            raise next(iter(seeds.diverged.values()))
    except KeyboardInterrupt:
        print(f"interrupted at iteration {seeds.iteration} of {num_iterations}", file=sys.stderr)
    finally:
        # One that cannot be saved keeps no other from it.
        with contextlib.ExitStack() as saving:
            for host in hosts:
                saving.callback(host.save_checkpoint)
    for host in hosts:
        host.finished = host.is_done(num_iterations)


class _Seeds:
    """Seeds of one run, whose iterations are one compiled call.

    Attributes:
        diverged: Errors of seeds that diverged, by their index; they wait for the others.
    """

    def __init__(self, hosts: Sequence[HostLoop], num_iterations: int) -> None:
        self._hosts, self._num_iterations = hosts, num_iterations
        self._mesh = _mesh_of_seeds(hosts)
        # The latest clock is that of all.
        started = min(host.started for host in hosts)
        for host in hosts:
            # Where the calls leave them.
            host.state = replicate(host.state, self._mesh)
            host.started = started
        self.diverged: dict[int, DivergedError] = {}

    @property
    def keys(self) -> jax.Array:
        """Keys of the seeds, `[seeds]`."""
        return jnp.stack([host.key for host in self._hosts])

    @property
    def iteration(self) -> int:
        """Iterations that all seeds have finished."""
        return min(host.iteration for host in self._hosts)

    def next_counts(self) -> list[int]:
        """Iterations of each seed's next call, 0 of one that is done or diverged."""
        return [
            0 if index in self.diverged else host.next_count(self._num_iterations)
            for index, host in enumerate(self._hosts)
        ]

    def compile(self) -> None:
        """Compiles the call by one of no iteration, so that rates are those of running."""
        jax.block_until_ready(self._advance([0] * len(self._hosts)))

    def call(self, counts: Sequence[int]) -> list[Row]:
        """One compiled call of so many iterations of each seed, and the hosts' part of it; their last rows."""
        before = self._clock()
        ended = jax.block_until_ready(self._advance(counts))
        # Before the hosts' part, which is no time of an iteration.
        after = self._clock()
        rows = []
        for index, (host, count, (state, metrics)) in enumerate(zip(self._hosts, counts, ended, strict=True)):
            if not count:
                continue
            try:
                rows.append(host.take(count, state, metrics, before, after, self._num_iterations)[-1])
            except DivergedError as error:
                several = len(self._hosts) > 1
                self.diverged[index] = DivergedError(f"seed {index}: {error}") if several else error
        return rows

    def _clock(self) -> float:
        """The one clock of all seeds."""
        return self._hosts[0].clock()

    def _advance(self, counts: Sequence[int]) -> list[tuple[RunState, Metrics]]:
        host = self._hosts[0]
        if len(self._hosts) == 1:
            return [host.advance(host.run, host.state, np.int32(counts[0]))]
        states = _stack([host.state for host in self._hosts])
        after = _advance_seeds(host.advance, self._mesh, host.run, states, np.asarray(counts, np.int32))
        return _unstack(after, len(self._hosts))


def _mesh_of_seeds(hosts: Sequence[HostLoop]) -> Mesh | None:
    """Devices that share several seeds of a run that needs one alone; None otherwise."""
    mesh = hosts[0].run.mesh
    # Seeds of a run on a chosen device stay there.
    alone = not spans_several(mesh) and not is_elsewhere(mesh)
    return population_mesh(jax.local_devices()) if alone and len(hosts) > 1 else None


@partial(jax.jit, static_argnums=(0, 1))
def _advance_seeds(
    advance: Advance, mesh: Mesh | None, run: Run[Any], states: RunState, counts: jax.Array
) -> tuple[RunState, Metrics]:
    """`advance` of states `[seeds, ...]`, which the devices of the mesh share."""

    def over_seeds(own: tuple[RunState, jax.Array], run: Run[Any]) -> tuple[RunState, Metrics]:
        return jax.vmap(advance, in_axes=(None, 0, 0))(run, *own)

    # Under vmap the same within `advance` leaves the axis of seeds to the compiler.
    return replicate_within(Devices(mesh).map(over_seeds, (states, counts), run), run.mesh)


@jax.jit
def _stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@partial(jax.jit, static_argnums=1)
def _unstack(tree: Any, count: int) -> list[Any]:
    return [jax.tree.map(itemgetter(index), tree) for index in range(count)]


def _status(run: Run[Any], rows: Sequence[Row], row_length: int) -> tuple[str, float]:
    """Status line of a call, of several seeds their mean, and iterations per second."""
    row = dict(rows[0])
    if len(rows) > 1:
        # Of seeds at different iterations not all are evaluated at once.
        common = set(row).intersection(*rows)
        row = {name: float(np.mean([other[name] for other in rows])) for name in common}
        if "non_finite" in row:
            row["non_finite"] = sum(other["non_finite"] for other in rows)
    rate = 1.0 / max(row["seconds_per_iteration"], 1e-9)
    steps = rate * len(rows) * row.get("env_steps", 0) / row_length
    text = run.status(row)
    return f"{with_prefix(steps)} steps/s, {text}" if steps else text, rate
