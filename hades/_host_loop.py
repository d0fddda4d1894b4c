"""Compiled calls of several iterations, and the host's part of them: evaluation, logs, checkpoints, resuming."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from hades import multihost
from hades._history import History, Row
from hades._run_directory import RunDirectory, RunDirectoryError, key_words
from hades.callbacks import Callback
from hades.evaluation import Evaluation
from hades.keys import Stream, stream
from hades.run import OUTCOMES, DivergedError, Run, RunState
from hades.sharding import own_copy, replicate, replicate_within
from hades.types import Metrics

if TYPE_CHECKING:
    from hades._checkpointing import Checkpoints
    from hades.training import LoopSettings


@partial(jax.jit, static_argnames=("rows", "log_every"))
def advance(run: Run[Any], state: RunState, count: jax.Array, *, rows: int, log_every: int) -> tuple[RunState, Metrics]:
    """Several iterations in one compiled call; how many is no part of what is compiled.

    Args:
        run: Run.
        state: State before.
        count: Iterations, `[]` int32, at most `rows * log_every`.
        rows: Rows of metrics.
        log_every: Iterations of a row.

    Returns:
        The state after, and sums of the metrics of each row's iterations, `[rows, ...]`.
    """
    # Compiled, so that the loop takes up the trace that told the shapes.
    step = jax.jit(run.step, inline=True)
    shapes = jax.eval_shape(step, state)[1]
    sums = jax.tree.map(lambda leaf: jnp.zeros((rows, *leaf.shape), leaf.dtype), shapes)

    def body(carry: tuple[jax.Array, RunState, Metrics]) -> tuple[jax.Array, RunState, Metrics]:
        index, state, sums = carry
        state, metrics = step(state)
        return index + 1, state, jax.tree.map(lambda total, leaf: total.at[index // log_every].add(leaf), sums, metrics)

    _, state, sums = jax.lax.while_loop(lambda carry: carry[0] < count, body, (jnp.int32(0), state, sums))
    # The compiler may have divided among devices what goes from one iteration to the next.
    return replicate_within((state, sums), run.mesh)


Advance: TypeAlias = Callable[[Run[Any], RunState, Any], tuple[RunState, Metrics]]
"""`advance(run, state, count)` of a fixed number of rows."""


@cache
def sized_advance(rows: int, log_every: int) -> Advance:
    """The same function for the same sizes, as a static argument of compiled functions."""
    return partial(advance, rows=rows, log_every=log_every)


def _checkpoints(folder: Path) -> Checkpoints:
    # Imported late: orbax takes as long to import as flax and optax, and only runs with a folder need it.
    from hades._checkpointing import Checkpoints

    return Checkpoints(folder)


@jax.jit
def initial(run: Run[Any], key: jax.Array) -> RunState:
    """The first state, compiled."""
    return run.init(key)


@jax.jit
def outcome_of(run: Run[Any], state: RunState) -> Any:
    """The outcome of a state, compiled."""
    return run.outcome(state)


@jax.jit
def _is_finite(outcome: Any) -> jax.Array:
    leaves = [leaf for leaf in jax.tree.leaves(outcome) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


@dataclass
class Course:
    """Knowledge of the host beyond the state, saved with every checkpoint."""

    seconds: float = 0.0
    best_score: float = -np.inf
    best_iteration: int = -1
    env_steps: int = 0
    history: History = field(default_factory=History)
    best: Any = None

    @property
    def known_score(self) -> float | None:
        """The best score, None before there is a finite one."""
        return self.best_score if np.isfinite(self.best_score) else None

    def to_json(self) -> dict[str, Any]:
        """Numbers that a checkpoint keeps; history and best outcome have files of their own."""
        return {"seconds": self.seconds, "best_score": self.known_score, "best_iteration": self.best_iteration}


class HostLoop:
    """One run on the host.

    Attributes:
        key: Key of the run.
        run: The run, its arrays on every device of its mesh.
        state: State after the last whole call.
        course: Knowledge of the host beyond the state.
        evaluator: Evaluation on fresh keys; None without an environment, or where the loop evaluates nothing.
        selector: Evaluation that the best outcome is chosen by.
        finished: Whether the run came to its end.
        started: Monotonic time that the clock of the run counts from.
    """

    def __init__(
        self,
        key: jax.Array,
        run: Run[Any],
        loop: LoopSettings,
        directory: RunDirectory | None,
        callbacks: Sequence[Callback],
        began: float,
    ) -> None:
        """Takes up the newest checkpoint, or draws the first state; `began` is when, in monotonic time."""
        self.key, self._loop, self._directory = key, loop, directory
        # All processes compute and read; the first one alone writes and tells.
        self._written = directory if multihost.is_first() else None
        self._callbacks = callbacks if multihost.is_first() else ()
        self.run = run
        self._own_run = own_copy(self.run)
        self._checkpoints = _checkpoints(directory.checkpoints) if directory else None
        self.evaluator, self.selector = loop.make_evaluators(self.run)
        self.course = Course()
        # Rows up to here were seen by callbacks before a resume, which computes them again.
        self._seen = 0
        with multihost.first_goes_before():
            restored = self._restored()
        self._best_on_disk = self.course.best
        self._require_same_start(0 if restored is None else int(restored.iteration))
        self.state: RunState = replicate(multihost.arrays_of_first(restored or initial(self._own_run, key)), run.mesh)
        self.started = began - self.course.seconds
        self._saved = time.monotonic()
        self.finished = False

    def _require_same_start(self, iteration: int) -> None:
        if multihost.differs(iteration) and self._directory:
            raise RunDirectoryError(
                f"{self._directory.checkpoints}: expected checkpoints that all processes of the run read alike, "
                f"got iteration {iteration} in process {jax.process_index()}"
            )

    def _restored(self) -> RunState | None:
        """State of the newest checkpoint, None where there is none."""
        if self._checkpoints is None or self._directory is None:
            return None
        last = self._directory.last_row()
        self._seen = last["iteration"] if last else 0
        if self._checkpoints.latest is None:
            self._history_until(0)
            return None
        template = jax.eval_shape(self.run.init, self.key)
        iteration, state, saved = self._checkpoints.restore(
            template, formerly=self.run.former_names, dropped=self.run.dropped_names
        )
        history = self._history_until(iteration)
        newest: Row = history[-1] if history else {"iteration": 0}
        # A teacher's training of version 0.1 had no rows, nor a score.
        if "best_score" in saved and newest["iteration"] != iteration:
            raise RunDirectoryError(
                f"{self._directory.metrics}: expected rows up to iteration {iteration}, as its checkpoint has it, "
                f"got them up to {newest['iteration']}"
            )
        score = -np.inf if saved.get("best_score") is None else saved["best_score"]
        best_iteration = saved.get("best_iteration", saved.get("best_generation", -1))
        best = OUTCOMES[self.run.kind].load(self._file("best_")) if best_iteration >= 0 else None
        steps = newest.get("total_env_steps", 0)
        self.course = Course(saved["seconds"], score, best_iteration, steps, history, best)
        return state

    def _history_until(self, iteration: int) -> History:
        """Rows of metrics up to an iteration; those behind it are dropped, and will be written again."""
        assert self._directory is not None
        return self._written.truncate_metrics(iteration) if self._written else self._directory.read_metrics()

    @property
    def iteration(self) -> int:
        """Finished iterations."""
        return int(self.state.iteration)

    def begin(self) -> None:
        """Tells callbacks of the start, and keeps the snapshot of a run that has done nothing."""
        self.tell("start", self.run, self.state)
        if self.iteration == 0 and self._loop.keep_snapshots and self.selector:
            outcome = self._outcome_of(self.state)
            self._keep_snapshot(outcome, self.selector(stream(self.key, Stream.SELECTION), outcome))

    def is_done(self, num_iterations: int) -> bool:
        """Whether all iterations are done, a budget is used up, or the return is what is asked for."""
        steps, seconds, target = self._loop.max_env_steps, self._loop.max_seconds, self._loop.target_return
        return (
            self.iteration >= num_iterations
            or (steps is not None and self.course.env_steps >= steps)
            or (seconds is not None and self.course.seconds >= seconds)
            or (target is not None and self.course.best_score >= target)
        )

    @property
    def advance(self) -> Advance:
        """`advance` with the rows of a call."""
        return sized_advance(**self._loop.call_sizes)

    def next_count(self, num_iterations: int) -> int:
        """Iterations of the next call, 0 where all are done.

        Calls end at multiples of their length, wherever a run is taken up: evaluations stay where they were.
        """
        if self.is_done(num_iterations):
            return 0
        call = self._loop.iterations_per_call
        return min(call - self.iteration % call, num_iterations - self.iteration)

    def clock(self) -> float:
        """Seconds of the run so far, those before a resume counted in; of several processes those of the first."""
        return multihost.from_first(time.monotonic() - self.started)

    def take(
        self, count: int, state: RunState, metrics: Metrics, before: float, after: float, num_iterations: int
    ) -> list[Row]:
        """The host's part of a call: checks its outcome, evaluates, logs and saves.

        A checkpoint holds all of a call or nothing of it, never a state without its evaluation and metrics.

        Args:
            count: Iterations of the call.
            state: State after it.
            metrics: Sums of its metrics, as `advance` returns them.
            before: Reading of the clock before it.
            after: Reading of the clock after it.
            num_iterations: Iterations of the whole run.

        Returns:
            Its rows of metrics.

        Raises:
            DivergedError: The outcome is no longer finite; the state stays the one before the call.
        """
        earlier, course, length = self.state, replace(self.course), len(self.course.history)
        try:
            return self._take(count, state, metrics, before, after, num_iterations)
        except BaseException:
            self.state, self.course = earlier, course
            self.course.history.truncate(length)
            raise

    def _take(
        self, count: int, state: RunState, metrics: Metrics, before: float, after: float, num_iterations: int
    ) -> list[Row]:
        first, outcome = self.iteration, self._outcome_of(state)
        if not self._is_finite(outcome, metrics):
            raise self._diverged(count)
        self.state = state
        rows = self._rows(first, count, jax.device_get(metrics), before, after)
        self.course.seconds, self.course.env_steps = after, rows[-1].get("total_env_steps", 0)
        interval = self._loop.evaluation_interval
        evaluated = self.evaluator and interval and (self.iteration % interval == 0 or self.is_done(num_iterations))
        if evaluated:
            rows[-1] |= self._evaluate(outcome)
        self.course.history.extend(rows)
        if evaluated:
            # Not otherwise: a budget that is found used up here would end the run without its last evaluation.
            self.course.seconds = self.clock()
        self._write(rows, bool(evaluated))
        return rows

    def _is_finite(self, outcome: Any, metrics: Metrics) -> bool:
        watched = own_copy([metrics[name] for name in self.run.finite_metrics])
        return not multihost.any_process(not _is_finite((outcome, watched)))

    def _outcome_of(self, state: RunState) -> Any:
        """Outcome of a state, in arrays of this process."""
        return outcome_of(self._own_run, own_copy(state))

    def _rows(self, first: int, count: int, sums: Mapping[str, np.ndarray], before: float, after: float) -> list[Row]:
        """Rows of a call; one clock reading for each call, spread evenly over its iterations.

        Integers are counts, whose sum over the iterations stands in a row, of all others the mean.
        """
        every, each = self._loop.row_length, (after - before) / count
        total, rows = self.course.env_steps, []
        for index in range(-(-count // every)):
            iterations = min(every, count - index * every)
            last = index * every + iterations
            row: Row = {"iteration": first + last, "seconds": before + each * last, "seconds_per_iteration": each}
            if "env_steps" in sums:
                total += int(np.sum(sums["env_steps"][index], dtype=np.int64))
                row["total_env_steps"] = total
            for name, values in sums.items():
                if np.issubdtype(values.dtype, np.integer):
                    row[name] = int(np.sum(values[index], dtype=np.int64))
                else:
                    row[name] = (values[index] / iterations if iterations > 1 else values[index]).item()
            rows.append(row)
        return rows

    def _diverged(self, count: int) -> DivergedError:
        """The error of a call whose outcome is not finite, which is made again step by step to find the first."""
        state = self.state
        for _ in range(count):
            state, metrics = self.advance(self.run, state, np.int32(1))
            if not self._is_finite(self._outcome_of(state), metrics):
                break
        good = f"the last good one, of iteration {self.iteration}, is in the state"
        if self._directory:
            good = f"the last good one, of iteration {self.iteration}, is in {self._file('')}"
        if not self.iteration:
            good = "no call before it ended, so that there is no good one"
        return DivergedError(
            f"the run diverged: its {self.run.kind} is not finite since iteration {int(state.iteration)}; {good}"
        )

    def _evaluate(self, outcome: Any) -> Row:
        """Scores the outcome on fresh keys, the same each time, and keeps it if it is the best so far."""
        assert self.evaluator is not None
        assert self.selector is not None
        evaluation = self.selector(stream(self.key, Stream.SELECTION), outcome)
        self._keep_snapshot(outcome, evaluation)
        self.tell("evaluation", self.iteration, outcome, evaluation)
        # Simulators on several hosts may differ in the last digit, and all must come to the same confirmations.
        told = multihost.from_first(evaluation.mean if np.isfinite(evaluation.mean) else None)
        score = -np.inf if told is None else told
        course = self.course
        if course.best is None or score >= course.best_score:
            # Ties go to the later one, which had longer to become robust. The score that chose an outcome is too good
            # by the choice, so that what is written comes from other keys.
            confirmed = self.evaluator(stream(self.key, Stream.CONFIRMATION, self.iteration), outcome)
            course.best_score, course.best_iteration = score, self.iteration
            course.best = self._describe(outcome, confirmed)
            # Behind a checkpoint it waits for the next one: a run that is killed goes on with the best outcome that
            # its checkpoint knows of.
            if self._checkpoints and self._checkpoints.latest is None:
                self._save_best()
        low, high = evaluation.ci95
        return {"evaluation_mean": evaluation.mean, "evaluation_ci_low": low, "evaluation_ci_high": high}

    def _write(self, rows: list[Row], evaluated: bool) -> None:
        # Callbacks go first: a process that is killed in between gives them these rows again, and none is lost.
        new = [row for row in rows if row["iteration"] > self._seen]
        for row in new:
            self.tell("row", row)
        if new:
            self.tell("flush")
        if self._written is None:
            return
        self._written.append_metrics(rows)
        if evaluated:
            self.described_outcome().save(self._file(""))
        if time.monotonic() - self._saved >= self._loop.checkpoint_seconds:
            self.save_checkpoint()

    def _keep_snapshot(self, outcome: Any, evaluation: Evaluation) -> None:
        if self._written is None or not self._loop.keep_snapshots:
            return
        self._written.snapshots.mkdir(exist_ok=True)
        self._describe(outcome, evaluation).save(self._written.snapshot(self.run.kind, self.iteration))

    def _file(self, prefix: str) -> Path:
        assert self._directory is not None
        return self._directory.path / f"{prefix}{self.run.kind}.npz"

    def _describe(self, outcome: Any, evaluation: Evaluation | None) -> Any:
        summary = evaluation.summary() if evaluation is not None and evaluation.is_finite else None
        return self.run.describe(outcome, seed_of(self.key), summary)

    def save_checkpoint(self) -> None:
        """Saves the state and the outcome, so that the run can be taken up from here."""
        if self._checkpoints and self._written and self.iteration and self._checkpoints.latest != self.iteration:
            self.described_outcome().save(self._file(""))
            self._save_best()
            self._written.sync_metrics()
            self._checkpoints.save(self.iteration, own_copy(self.state), self.course.to_json())
            self._saved = time.monotonic()
            self.tell("checkpoint", self.iteration)

    def _save_best(self) -> None:
        """Writes the best outcome, unless its file holds it."""
        if self._written and self.course.best is not self._best_on_disk:
            self.course.best.save(self._file("best_"))
            self._best_on_disk = self.course.best

    def described_outcome(self) -> Any:
        """Present outcome, with the metadata that a file needs but for an evaluation."""
        return self._describe(self._outcome_of(self.state), None)

    def tell(self, event: str, *arguments: Any) -> None:
        """Calls a hook of every callback."""
        for callback in self._callbacks:
            getattr(callback, event)(*arguments)


def seed_of(key: jax.Array) -> int:
    """Seed of `jax.random.key(seed)`; for a key that was derived another way, its bits as one integer."""
    seed = 0
    for word in key_words(key)[:2]:
        seed = (seed << 32) | word
    return seed if seed < 2**63 else seed - 2**64
