"""The host loop of every run: compiled calls of several iterations, evaluation, logs, checkpoints and resuming."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic

import jax
import jax.numpy as jnp
import numpy as np

from hades._checkpointing import Checkpoints
from hades._history import History, Row
from hades._progress import Progress, with_prefix
from hades._run_directory import RunDirectory
from hades._serialization import to_dict
from hades._validation import require_positive
from hades.callbacks import Callback, as_callback
from hades.dataset import SyntheticDataset
from hades.evaluation import Evaluation
from hades.keys import Stream, stream
from hades.policy_file import TrainedPolicy
from hades.run import OUTCOMES, Evaluator, Outcome, Run, RunState
from hades.sharding import replicate
from hades.types import Metrics, PyTree

# Counts of a row are sums over its iterations, all other metrics means.
_COUNTS = ("env_steps", "non_finite", "skipped", "masked_steps")


class DivergedError(ValueError):
    """A run's outcome is no longer finite; the message says since which iteration, and where the last good one is."""


@dataclass(frozen=True)
class LoopSettings:
    """Intervals and limits of the host loop; none of them changes an iteration."""

    iterations_per_call: int = field(default=10, metadata={"formerly": ("generations_per_call",)})
    """Iterations of one compiled call; progress, logs and interrupts come between calls."""
    log_every: int = 1
    """Iterations of one row of metrics, at most those of a call: counts are their sums, all else their means."""
    evaluate_every: int | None = 50
    """Iterations between evaluations on fresh keys, rounded to whole calls; none never evaluates."""
    evaluation_inits: int = 8
    """Fresh policies of such an evaluation of a dataset."""
    evaluation_episodes: int = 4
    """Episodes of each of them; a baseline's policy plays as many as all of them together."""
    checkpoint_seconds: float = 60.0
    """Seconds between checkpoints; there is always one at the end."""
    max_env_steps: int | None = None
    """Environment steps after which the run ends, at the end of a compiled call; default: no limit."""
    max_seconds: float | None = None
    """Seconds, compilation and evaluation counted in, after which the run ends likewise; default: no limit."""
    keep_snapshots: bool = False
    """Keeps the outcome of every evaluation on fresh keys, and of the beginning, in the run directory's snapshots/."""

    def __post_init__(self) -> None:
        """Refuses counts and limits that are not positive, and rows that do not divide a call."""
        for name in ("iterations_per_call", "log_every", "evaluation_inits", "evaluation_episodes"):
            require_positive(name, getattr(self, name))
        for name in ("evaluate_every", "max_env_steps", "max_seconds"):
            if getattr(self, name) is not None:
                require_positive(name, getattr(self, name))
        if self.iterations_per_call % self.row_length:
            raise ValueError(
                f"log_every: expected a divisor of iterations_per_call {self.iterations_per_call}, got {self.log_every}"
            )
        if not self.checkpoint_seconds >= 0:
            raise ValueError(f"checkpoint_seconds: expected a number of at least 0, got {self.checkpoint_seconds}")

    @property
    def row_length(self) -> int:
        """Iterations of a row, which ends with its call."""
        return min(self.log_every, self.iterations_per_call)

    @property
    def evaluation_interval(self) -> int | None:
        """Iterations between evaluations, in whole calls."""
        if self.evaluate_every is None:
            return None
        return max(1, round(self.evaluate_every / self.iterations_per_call)) * self.iterations_per_call


@dataclass
class Result(Generic[Outcome]):
    """Outcome of a run, and its course.

    Attributes:
        kind: Kind of the outcome, `"dataset"`, `"policy"` or `"teacher"`.
        outcome: Outcome at the end: of an evolution the mean of the search distribution.
        best_outcome: Best by fresh-key evaluation; its metadata has the return on keys that did not select it.
        history: Rows of metrics, those of the file `metrics.jsonl`.
        state: State at the end; `run.step` takes it further.
        best_iteration: Iteration of `best_outcome`.
        evaluator: Compiled evaluation on fresh keys that the run used; None without an environment, and in a pickle.
        finished: Whether the run came to its end, False where it was stopped.
    """

    kind: str
    outcome: Outcome
    best_outcome: Outcome
    history: Sequence[Row]
    state: RunState
    best_iteration: int
    evaluator: Evaluator | None
    finished: bool

    @property
    def dataset(self) -> SyntheticDataset:
        """`outcome`, of a distillation."""
        return self._of_kind("dataset", self.outcome)

    @property
    def best_dataset(self) -> SyntheticDataset:
        """`best_outcome`, of a distillation."""
        return self._of_kind("dataset", self.best_outcome)

    @property
    def policy(self) -> TrainedPolicy:
        """`outcome`, of a baseline."""
        return self._of_kind("policy", self.outcome)

    @property
    def best_policy(self) -> TrainedPolicy:
        """`best_outcome`, of a baseline."""
        return self._of_kind("policy", self.best_outcome)

    def _of_kind(self, kind: str, outcome: Any) -> Any:
        if self.kind != kind:
            raise AttributeError(f"this run made a {self.kind}, not a {kind}")
        return outcome

    def __getstate__(self) -> dict[str, Any]:
        """Fields on the host, typed keys as their data, and no compiled functions."""
        key = self.state.key
        saved = dict(vars(self), evaluator=None)
        saved["state"] = jax.device_get(replace(self.state, key=jax.random.key_data(key)))
        saved["outcome"], saved["best_outcome"] = jax.device_get((self.outcome, self.best_outcome))
        return saved | {"key_impl": str(jax.random.key_impl(key))}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        """Makes the typed key again."""
        impl = saved.pop("key_impl")
        vars(self).update(saved)
        self.state = replace(self.state, key=jax.random.wrap_key_data(jnp.asarray(self.state.key), impl=impl))


def distill(
    key: jax.Array,
    run: Run[Outcome],
    num_iterations: int,
    *,
    out: str | os.PathLike[str] | None = None,
    loop: LoopSettings | None = None,
    config: Mapping[str, Any] | None = None,
    progress: bool = True,
    callbacks: Sequence[Callback | Callable[[Row], None]] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> Result[Outcome]:
    """Runs a distillation, a baseline or a teacher, and goes on with the one that `out` holds.

    A run that was stopped or killed and goes on is bit for bit the run that was never stopped. An interrupt (Ctrl-C)
    ends it with a checkpoint and a result that is not finished; any other exception leaves a checkpoint, too.

    Args:
        key: The run's key, `jax.random.key(seed)`.
        run: A run that a recipe or `hades.distillation_run` built.
        num_iterations: Iterations of the whole run, those of earlier calls counted in.
        out: Run directory; nothing is written if None.
        loop: How often to evaluate, log and save, and budgets that end the run before `num_iterations`.
        config: Content of `config.json`; that of `run.config()` with the key and the loop if None.
        progress: Whether to show progress on stderr.
        callbacks: See each row of metrics once, also across resumes: functions of a row, or `hades.Callback` objects.
        should_stop: Asked after every compiled call; the loop ends with a checkpoint once it returns True.

    Raises:
        DivergedError: The outcome is no longer finite; the state before that is kept.
        OSError: `out` cannot be written.
        ValueError: `num_iterations` is below 1, or `out` holds a run of another environment, other settings or another
            key, or another process runs in it.

    Example:
        >>> import envs, hades
        >>> run = hades.recipes.hades_r(envs.make("diagnostic/match"), dataset_size=2, population_size=8)
        >>> result = hades.distill(jax.random.key(0), run, num_iterations=2, progress=False)
        >>> result.dataset.num_pairs, len(result.history)
        (2, 2)
    """
    require_positive("num_iterations", num_iterations)
    loop = loop or LoopSettings()
    hooks = [as_callback(callback) for callback in callbacks]
    directory = None if out is None else RunDirectory(out)
    if directory is None:
        return _Driver(key, run, loop, None, hooks).drive(num_iterations, progress, should_stop)
    own = run.config() | {"key": key_words(key)}
    config = own | {"num_iterations": num_iterations, "loop": to_dict(loop)} | dict(config or {})
    with directory.lock():
        if directory.holds_run:
            directory.check_same(config)
            # What the command or a notebook that began the run keeps beside it stays.
            directory.write_config(directory.read_config() | config)
        else:
            directory.create(config)
        return _Driver(key, run, loop, directory, hooks).drive(num_iterations, progress, should_stop)


train = distill
"""The same loop under the name that suits baselines, whose outcome is a policy."""


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
    shapes = jax.eval_shape(run.step, state)[1]
    sums = jax.tree.map(lambda leaf: jnp.zeros((rows, *leaf.shape), leaf.dtype), shapes)

    def body(carry: tuple[jax.Array, RunState, Metrics]) -> tuple[jax.Array, RunState, Metrics]:
        index, state, sums = carry
        state, metrics = run.step(state)
        return index + 1, state, jax.tree.map(lambda total, leaf: total.at[index // log_every].add(leaf), sums, metrics)

    _, state, sums = jax.lax.while_loop(lambda carry: carry[0] < count, body, (jnp.int32(0), state, sums))
    return state, sums


@jax.jit
def _initial(run: Run[Any], key: jax.Array) -> RunState:
    return run.init(key)


@jax.jit
def _outcome(run: Run[Any], state: RunState) -> Any:
    return run.outcome(state)


@jax.jit
def _is_finite(outcome: Any) -> jax.Array:
    leaves = [leaf for leaf in jax.tree.leaves(outcome) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


@dataclass
class _Course:
    """Knowledge of the host beyond the state, saved with every checkpoint."""

    seconds: float = 0.0
    best_score: float = -np.inf
    best_iteration: int = -1
    env_steps: int = 0
    history: History = field(default_factory=History)
    best: Any = None

    def to_json(self) -> dict[str, Any]:
        score = self.best_score if np.isfinite(self.best_score) else None
        return {"seconds": self.seconds, "best_score": score, "best_iteration": self.best_iteration}


class _Driver:
    """One run on the host: its state, and its files."""

    def __init__(
        self,
        key: jax.Array,
        run: Run[Any],
        loop: LoopSettings,
        directory: RunDirectory | None,
        callbacks: Sequence[Callback],
    ) -> None:
        self._key, self._loop, self._directory, self._callbacks = key, loop, directory, callbacks
        self._run = run if run.mesh is None or run.mesh.size == 1 else replicate(run, run.mesh)
        self._checkpoints = Checkpoints(directory.checkpoints) if directory else None
        self._evaluator = self._make_evaluator()
        self._course = _Course()
        # Rows up to here were seen by callbacks before a resume, which computes them again.
        self._seen = 0
        self.state = self._restored() or self._placed(_initial(self._run, key))
        self._started = time.monotonic() - self._course.seconds
        self._saved = time.monotonic()

    def _make_evaluator(self) -> Evaluator | None:
        if self._loop.evaluate_every is None and self._run.env is None:
            return None
        return self._run.make_evaluator(self._loop.evaluation_inits, self._loop.evaluation_episodes)

    def _placed(self, tree: PyTree) -> PyTree:
        mesh = self._run.mesh
        return tree if mesh is None or mesh.size == 1 else replicate(tree, mesh)

    def _restored(self) -> RunState | None:
        """State of the newest checkpoint, None where there is none."""
        if self._checkpoints is None or self._directory is None:
            return None
        last = self._directory.last_row()
        self._seen = last["iteration"] if last else 0
        if self._checkpoints.latest is None:
            self._directory.truncate_metrics(0)
            return None
        template = jax.eval_shape(self._run.init, self._key)
        iteration, state, saved = self._checkpoints.restore(
            template, formerly=self._run.former_names, dropped=self._run.dropped_names
        )
        history = self._directory.truncate_metrics(iteration)
        score = -np.inf if saved.get("best_score") is None else saved["best_score"]
        best_iteration = saved.get("best_iteration", saved.get("best_generation", -1))
        best = OUTCOMES[self._run.kind].load(self._file("best_")) if best_iteration >= 0 else None
        steps = history[-1].get("total_env_steps", 0) if history else 0
        self._course = _Course(saved["seconds"], score, best_iteration, steps, history, best)
        return self._placed(state)

    @property
    def iteration(self) -> int:
        return int(self.state.iteration)

    def drive(self, num_iterations: int, progress: bool, should_stop: Callable[[], bool]) -> Result[Any]:
        """Runs to the end, to a budget, or until it is stopped."""
        self._tell("start", self._run, self.state)
        try:
            if self.iteration == 0 and self._loop.keep_snapshots and self._evaluator:
                outcome = _outcome(self._run, self.state)
                self._keep_snapshot(outcome, self._evaluator(stream(self._key, Stream.SELECTION), outcome))
            with Progress(num_iterations, "iteration", self.iteration, progress) as report:
                while not self._is_done(num_iterations) and not should_stop():
                    rows = self._advance(num_iterations)
                    report.update(self.iteration, *self._status(rows))
        except KeyboardInterrupt:
            print(f"interrupted at iteration {self.iteration} of {num_iterations}", file=sys.stderr)
        finally:
            self.save_checkpoint()
        result = self._result(self._is_done(num_iterations))
        self._tell("end", result)
        return result

    def _status(self, rows: list[Row]) -> tuple[str, float]:
        """Status line of a call, and iterations per second."""
        rate = 1.0 / max(rows[-1]["seconds_per_iteration"], 1e-9)
        steps = rate * float(np.mean([row.get("env_steps", 0) for row in rows])) / self._loop.row_length
        text = self._run.status(rows[-1])
        return f"{with_prefix(steps)} steps/s, {text}" if steps else text, rate

    def _is_done(self, num_iterations: int) -> bool:
        """Whether all iterations are done, or a budget is used up."""
        steps, seconds = self._loop.max_env_steps, self._loop.max_seconds
        return (
            self.iteration >= num_iterations
            or (steps is not None and self._course.env_steps >= steps)
            or (seconds is not None and self._course.seconds >= seconds)
        )

    def _advance(self, num_iterations: int) -> list[Row]:
        """One compiled call, and the host's part of it; returns its rows of metrics."""
        before, course, length = self.state, replace(self._course), len(self._course.history)
        try:
            return self._call(num_iterations)
        except BaseException:
            # A checkpoint holds all of a call or nothing of it, never a state without its evaluation and metrics.
            self.state, self._course = before, course
            self._course.history.truncate(length)
            raise

    def _call(self, num_iterations: int) -> list[Row]:
        first, call = self.iteration, self._loop.iterations_per_call
        # Calls end at multiples of their length, wherever a run is taken up: evaluations stay where they were.
        count = min(call - first % call, num_iterations - first)
        compiled = partial(advance, rows=call // self._loop.row_length, log_every=self._loop.row_length)
        # No iteration at all: rates are then those of the steady state.
        jax.block_until_ready(compiled(self._run, self.state, np.int32(0)))
        before = time.monotonic() - self._started
        state, metrics = jax.block_until_ready(compiled(self._run, self.state, np.int32(count)))
        after = time.monotonic() - self._started
        outcome = _outcome(self._run, state)
        if not self._is_finite(outcome, metrics):
            raise self._diverged(compiled, count)
        self.state = state
        rows = self._rows(first, count, jax.device_get(metrics), before, after)
        self._course.seconds, self._course.env_steps = after, rows[-1].get("total_env_steps", 0)
        interval = self._loop.evaluation_interval
        evaluated = self._evaluator and interval and (self.iteration % interval == 0 or self._is_done(num_iterations))
        if evaluated:
            rows[-1] |= self._evaluate(outcome)
        self._course.history.extend(rows)
        self._course.seconds = time.monotonic() - self._started
        self._write(rows, bool(evaluated))
        return rows

    def _is_finite(self, outcome: Any, metrics: Metrics) -> bool:
        return bool(_is_finite((outcome, [metrics[name] for name in self._run.finite_metrics])))

    def _rows(self, first: int, count: int, sums: Mapping[str, np.ndarray], before: float, after: float) -> list[Row]:
        """Rows of a call; one clock reading for each call, spread evenly over its iterations."""
        every, each = self._loop.row_length, (after - before) / count
        total, rows = self._course.env_steps, []
        for index in range(-(-count // every)):
            iterations = min(every, count - index * every)
            last = index * every + iterations
            row: Row = {
                "iteration": first + last,
                "seconds": before + each * last,
                "seconds_per_iteration": each,
            }
            if "env_steps" in sums:
                total += int(np.sum(sums["env_steps"][index], dtype=np.int64))
                row["total_env_steps"] = total
            for name, values in sums.items():
                if name in _COUNTS:
                    row[name] = int(np.sum(values[index], dtype=np.int64))
                else:
                    row[name] = (values[index] / iterations if iterations > 1 else values[index]).item()
            rows.append(row)
        return rows

    def _diverged(self, compiled: Callable[..., Any], count: int) -> DivergedError:
        """The error of a call whose outcome is not finite, which is made again step by step to find the first."""
        state = self.state
        for _ in range(count):
            state, metrics = compiled(self._run, state, np.int32(1))
            if not self._is_finite(_outcome(self._run, state), metrics):
                break
        good = f"the last good one, of iteration {self.iteration}, is in the state"
        if self._directory:
            good = f"the last good one, of iteration {self.iteration}, is in {self._file('')}"
        if not self.iteration:
            good = "no call before it ended, so that there is no good one"
        return DivergedError(
            f"the run diverged: its {self._run.kind} is not finite since iteration {int(state.iteration)}; {good}"
        )

    def _evaluate(self, outcome: Any) -> Row:
        """Scores the outcome on fresh keys, the same each time, and keeps it if it is the best so far."""
        assert self._evaluator is not None
        evaluation = self._evaluator(stream(self._key, Stream.SELECTION), outcome)
        self._keep_snapshot(outcome, evaluation)
        self._tell("evaluation", self.iteration, outcome, evaluation)
        score = evaluation.mean if np.isfinite(evaluation.mean) else -np.inf
        course = self._course
        if course.best is None or score >= course.best_score:
            # Ties go to the later one, which had longer to become robust. The score that chose an outcome is too good
            # by the choice, so that what is written comes from other keys.
            confirmed = self._evaluator(stream(self._key, Stream.CONFIRMATION, self.iteration), outcome)
            course.best_score, course.best_iteration = score, self.iteration
            course.best = self._describe(outcome, confirmed)
            if self._directory:
                course.best.save(self._file("best_"))
        low, high = evaluation.ci95
        return {"evaluation_mean": evaluation.mean, "evaluation_ci_low": low, "evaluation_ci_high": high}

    def _write(self, rows: list[Row], evaluated: bool) -> None:
        # Callbacks go first: a process that is killed in between gives them these rows again, and none is lost.
        new = [row for row in rows if row["iteration"] > self._seen]
        for row in new:
            self._tell("row", row)
        if new:
            self._tell("flush")
        if self._directory:
            self._directory.append_metrics(rows)
            if evaluated:
                self._save_outcome()
        if self._directory and time.monotonic() - self._saved >= self._loop.checkpoint_seconds:
            self.save_checkpoint()

    def _save_outcome(self) -> None:
        self._describe(_outcome(self._run, self.state), None).save(self._file(""))

    def _keep_snapshot(self, outcome: Any, evaluation: Evaluation) -> None:
        if self._directory is None or not self._loop.keep_snapshots:
            return
        self._directory.snapshots.mkdir(exist_ok=True)
        path = self._directory.snapshot(self._run.kind, self.iteration)
        self._describe(outcome, evaluation).save(path)

    def _file(self, prefix: str) -> Path:
        assert self._directory is not None
        return self._directory.path / f"{prefix}{self._run.kind}.npz"

    def _describe(self, outcome: Any, evaluation: Evaluation | None) -> Any:
        summary = evaluation.summary() if evaluation is not None and evaluation.is_finite else None
        return self._run.describe(outcome, seed_of(self._key), summary)

    def save_checkpoint(self) -> None:
        """Saves the state and the outcome, so that the run can be taken up from here."""
        if self._checkpoints and self.iteration and self._checkpoints.latest != self.iteration:
            self._save_outcome()
            self._checkpoints.save(self.iteration, self.state, self._course.to_json())
            self._saved = time.monotonic()
            self._tell("checkpoint", self.iteration)

    def _result(self, finished: bool) -> Result[Any]:
        outcome = self._describe(_outcome(self._run, self.state), None)
        course = self._course
        best, iteration = (course.best, course.best_iteration) if course.best else (outcome, self.iteration)
        return Result(self._run.kind, outcome, best, course.history, self.state, iteration, self._evaluator, finished)

    def _tell(self, event: str, *arguments: Any) -> None:
        for callback in self._callbacks:
            getattr(callback, event)(*arguments)


def key_words(key: jax.Array) -> list[int]:
    """Words of a key's data, by which a run directory knows it."""
    return [int(word) for word in np.asarray(jax.random.key_data(key)).ravel()]


def seed_of(key: jax.Array) -> int:
    """Seed of `jax.random.key(seed)`; for a key that was derived another way, its bits as one integer."""
    seed = 0
    for word in key_words(key)[:2]:
        seed = (seed << 32) | word
    return seed if seed < 2**63 else seed - 2**64
