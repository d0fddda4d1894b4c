"""Runs from beginning to end: the host loop of every method, its settings and its result."""

from __future__ import annotations

import contextlib
import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic

import jax
import jax.numpy as jnp

from hades import multihost
from hades._ahead import Ahead, programs_of
from hades._driver import drive
from hades._history import Row
from hades._host_loop import HostLoop, advance
from hades._progress import Progress
from hades._run_directory import RunDirectory, RunDirectoryError, key_words
from hades._serialization import to_dict
from hades._validation import require_positive, require_positive_fields
from hades.callbacks import Callback, as_callback
from hades.dataset import SyntheticDataset
from hades.policy_file import TrainedPolicy
from hades.run import DivergedError, Evaluator, Outcome, Run, RunState
from hades.sharding import replicate

__all__ = ["DivergedError", "LoopSettings", "Result", "advance", "distill", "distill_seeds", "train"]


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
    target_return: float | None = None
    """Mean of an evaluation with which the run ends, of those that its best outcome is chosen by: other keys may give
    less; default: none."""
    keep_snapshots: bool = False
    """Keeps the outcome of every evaluation on fresh keys, and of the beginning, in the run directory's snapshots/."""

    def __post_init__(self) -> None:
        """Refuses counts and limits that are not positive, and rows that do not divide a call."""
        counts = ("iterations_per_call", "log_every", "evaluation_inits", "evaluation_episodes")
        require_positive_fields(self, *counts, "evaluate_every", "max_env_steps", "max_seconds")
        if self.iterations_per_call % self.row_length:
            raise ValueError(
                f"log_every: expected a divisor of iterations_per_call {self.iterations_per_call}, got {self.log_every}"
            )
        if self.target_return is not None:
            if not math.isfinite(self.target_return):
                raise ValueError(f"target_return: expected a finite number, got {self.target_return}")
            if self.evaluate_every is None:
                raise ValueError("target_return: expected an evaluate_every beside it, as evaluations find it")
        # Settings are kept as JSON, which has no infinity.
        if not 0 <= self.checkpoint_seconds < math.inf:
            found = self.checkpoint_seconds
            raise ValueError(f"checkpoint_seconds: expected a finite number of at least 0, got {found}")

    @property
    def evaluates(self) -> bool:
        """Whether outcomes are evaluated."""
        return self.evaluate_every is not None or self.keep_snapshots

    def without_evaluation(self) -> LoopSettings:
        """The same for a run whose outcomes nothing evaluates."""
        return replace(self, evaluate_every=None, target_return=None)

    def make_evaluators(self, run: Run[Any]) -> tuple[Evaluator | None, Evaluator | None]:
        """Evaluation on fresh keys, and the one that the best outcome is chosen by; None where nothing is evaluated.

        Raises:
            ValueError: Their sizes do not suit the run, or a return is asked for that nothing finds; the message names
                the field.
        """
        if run.env is None and self.target_return is not None:
            raise ValueError(f"target_return: expected none, as the run has no environment, got {self.target_return}")
        if run.env is None or not self.evaluates:
            return None, None
        sizes = self.evaluation_inits, self.evaluation_episodes
        try:
            return run.make_evaluator(*sizes), run.make_selector(*sizes)
        except ValueError as error:
            raise ValueError(re.sub("^num_", "evaluation_", str(error))) from None

    @property
    def row_length(self) -> int:
        """Iterations of a row, which ends with its call."""
        return min(self.log_every, self.iterations_per_call)

    @property
    def call_sizes(self) -> dict[str, int]:
        """Rows of a call, and iterations of each."""
        return {"rows": self.iterations_per_call // self.row_length, "log_every": self.row_length}

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
        best_score: Mean of the evaluation that chose `best_outcome`, better by the choice; None where none was finite.
        evaluator: Compiled evaluation on fresh keys that the run used; None where it evaluated none, and in a pickle.
        finished: Whether the run came to its end, False where it was stopped.
    """

    kind: str
    outcome: Outcome
    best_outcome: Outcome
    history: Sequence[Row]
    state: RunState
    best_iteration: int
    best_score: float | None
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

    A run that was stopped or killed and goes on is, on a CPU, bit for bit the run that was never stopped. An interrupt
    (Ctrl-C) ends it with a checkpoint and a result that is not finished, once its first state is there; any other
    exception leaves a checkpoint, too.

    Args:
        key: The run's key, `jax.random.key(seed)`.
        run: A run that a recipe or `hades.distillation_run` built.
        num_iterations: Iterations of the whole run, those of earlier calls counted in.
        out: Run directory; nothing is written if None.
        loop: How often to evaluate, log and save, and budgets and a return that end the run before
            `num_iterations`.
        config: Content of `config.json`; that of `run.config()` with the key and the loop if None.
        progress: Whether to show progress on stderr.
        callbacks: See each row of metrics once, also across resumes: functions of a row, or `hades.Callback` objects.
        should_stop: Asked before every compiled call; the loop ends with a checkpoint once it returns True.

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
    folders = None if out is None else [out]
    (result,) = _drive(key[None], run, num_iterations, folders, loop, config, progress, [callbacks], should_stop)
    return result


def distill_seeds(
    keys: jax.Array,
    run: Run[Outcome],
    num_iterations: int,
    *,
    out: str | os.PathLike[str] | None = None,
    loop: LoopSettings | None = None,
    progress: bool = True,
    callbacks: Sequence[Sequence[Callback | Callable[[Row], None]]] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Result[Outcome]]:
    """Runs several seeds of a run side by side, as one compiled program by vmap over them.

    Each is evaluated, logged and saved as `distill` does it with its key alone, and the results agree up to rounding.
    Seeds that come to their end earlier, as by a budget of steps, wait for the others, and so do those that diverge.

    Args:
        keys: A key for each seed, `[seeds]`.
        run: A run that a recipe or `hades.distillation_run` built.
        num_iterations: Iterations of each, those of earlier calls counted in.
        out: Folder of the run directories `seed0`, `seed1`, ...; nothing is written if None.
        loop: How often to evaluate, log and save, and budgets and a return that end a seed.
        progress: Whether to show progress on stderr, means over seeds.
        callbacks: Those of each seed, `[seeds]`; none if None.
        should_stop: Asked before every compiled call; the loop ends with checkpoints once it returns True.

    Returns:
        Results `[seeds]`.

    Raises:
        DivergedError: The outcome of a seed is no longer finite; the error names the seed, whose state before that is
            kept, and comes when the other seeds are done.
        OSError: `out` cannot be written.
        ValueError: As of `distill`, or `keys` or `callbacks` do not have the axis of seeds.

    Example:
        >>> import envs, hades
        >>> run = hades.recipes.hades_r(envs.make("diagnostic/match"), dataset_size=2, population_size=8)
        >>> keys = jax.random.split(jax.random.key(0), 3)
        >>> results = hades.distill_seeds(keys, run, num_iterations=2, progress=False)
        >>> [result.dataset.num_pairs for result in results]
        [2, 2, 2]
    """
    if keys.ndim != 1 or not keys.shape[0]:
        raise ValueError(f"keys: expected one or more, [seeds], got shape {keys.shape}")
    seeds = range(keys.shape[0])
    if callbacks is not None and len(callbacks) != len(seeds):
        raise ValueError(f"callbacks: expected {len(seeds)}, those of each seed, got {len(callbacks)}")
    folders = None if out is None else [os.path.join(out, f"seed{index}") for index in seeds]
    own = callbacks or [()] * len(seeds)
    return _drive(keys, run, num_iterations, folders, loop, None, progress, own, should_stop)


def _drive(
    keys: jax.Array,
    run: Run[Outcome],
    num_iterations: int,
    folders: Sequence[str | os.PathLike[str]] | None,
    loop: LoopSettings | None,
    config: Mapping[str, Any] | None,
    progress: bool,
    callbacks: Sequence[Sequence[Callback | Callable[[Row], None]]],
    should_stop: Callable[[], bool],
) -> list[Result[Outcome]]:
    """Drives a run of each key; folders and callbacks are those of each."""
    began = time.monotonic()
    require_positive("num_iterations", num_iterations)
    loop = loop or LoopSettings()
    # What they refuse is refused before anything is written.
    loop.make_evaluators(run)
    directories = [None] * len(keys) if folders is None else [RunDirectory(folder) for folder in folders]
    with contextlib.ExitStack() as locks:
        for key, directory in zip(keys, directories, strict=True):
            if directory is not None:
                known = run.config() | {"key": key_words(key), "num_iterations": num_iterations, "loop": to_dict(loop)}
                _enter(directory, known | dict(config or {}), locks)
        run = replicate(multihost.arrays_of_first(run), run.mesh)
        saved = min(0 if directory is None else directory.saved_iteration for directory in directories)
        report = Progress(num_iterations, "iteration", saved, progress and multihost.is_first())

        def make_hosts() -> list[HostLoop]:
            return [
                HostLoop(key, run, loop, directory, list(map(as_callback, own)), began)
                for key, directory, own in zip(keys, directories, callbacks, strict=True)
            ]

        with Ahead() as ahead:
            # A checkpoint that cannot be read is told of alone.
            hosts = make_hosts() if saved else []
            with report:
                if not saved:
                    ahead.compile(programs_of(run, keys, loop, begins=True))
                    ahead.wait(1)
                    hosts = make_hosts()
                drive(hosts, loop, num_iterations, report, should_stop, ahead)
        results = [_result(run, host) for host in hosts]
        for host, result in zip(hosts, results, strict=True):
            host.tell("end", result)
    return results


def _enter(directory: RunDirectory, config: Mapping[str, Any], locks: contextlib.ExitStack) -> None:
    """Locks a run directory and begins its run, which the first process does for all."""
    with multihost.first_goes_before():
        if multihost.is_first():
            locks.enter_context(directory.lock())
            directory.begin(config)
    if multihost.any_process(not directory.holds_run):
        raise RunDirectoryError(f"{directory.path}: expected a folder that all processes of the run share")


train = distill
"""The same loop under the name that suits baselines, whose outcome is a policy."""


def _result(run: Run[Any], host: HostLoop) -> Result[Any]:
    outcome, course = host.described_outcome(), host.course
    best, iteration = (course.best, course.best_iteration) if course.best else (outcome, host.iteration)
    return Result(
        kind=run.kind,
        outcome=outcome,
        best_outcome=best,
        history=course.history,
        state=host.state,
        best_iteration=iteration,
        best_score=course.known_score,
        evaluator=host.evaluator,
        finished=host.finished,
    )
