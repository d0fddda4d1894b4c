"""The host loop: compiled calls of several generations, evaluation on fresh keys, logs, checkpoints and resuming."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

import jax
import numpy as np

from hades._checkpointing import Checkpoints
from hades._progress import Progress, with_prefix
from hades._run_directory import RunDirectory
from hades._serialization import to_dict
from hades._validation import require_positive
from hades.dataset import SyntheticDataset
from hades.evaluation import Evaluation
from hades.policy_file import TrainedPolicy
from hades.run import OUTCOMES, Evaluator, Outcome, OutcomeKind, Run, RunState
from hades.types import Metrics, PyTree


@dataclass(frozen=True)
class LoopSettings:
    """How often the host loop looks at a run, and how long it may take; not what a generation computes."""

    generations_per_call: int = 10
    """Generations of one compiled call; progress, logs and interrupts come between calls."""
    evaluate_every: int = 50
    """Generations between evaluations on fresh keys, rounded to whole calls."""
    evaluation_inits: int = 8
    """Fresh policies of such an evaluation of a dataset."""
    evaluation_episodes: int = 4
    """Episodes of each of them; a baseline's policy plays as many as all of them together."""
    checkpoint_seconds: float = 60.0
    """Seconds between checkpoints; there is always one at the end."""
    max_env_steps: int | None = None
    """Environment steps after which the run ends, at the end of a compiled call; none is no such limit."""
    max_seconds: float | None = None
    """Seconds, compilation and evaluation counted in, after which the run ends likewise; none is no such limit."""
    keep_snapshots: bool = False
    """Keeps what every evaluation on fresh keys scored, and the beginning, in the run directory's snapshots/."""

    def __post_init__(self) -> None:
        """Refuses counts and limits that are not positive."""
        for name in ("generations_per_call", "evaluate_every", "evaluation_inits", "evaluation_episodes"):
            require_positive(name, getattr(self, name))
        for name in ("max_env_steps", "max_seconds"):
            if getattr(self, name) is not None:
                require_positive(name, getattr(self, name))
        if not self.checkpoint_seconds >= 0:
            raise ValueError(f"checkpoint_seconds: expected a number of at least 0, got {self.checkpoint_seconds}")


Row = dict[str, Any]
Callback = Callable[[RunState, Row], None]
"""Called after every compiled call with the state and the newest row of metrics."""

# Streams of keys that are apart from each other and from those of generations, which count from 0 up.
_SELECTION_STREAM, _CONFIRMATION_STREAM = np.uint32(2**32 - 2), np.uint32(2**32 - 3)


@dataclass
class Result(Generic[Outcome]):
    """What `distill` returns.

    Attributes:
        kind: What the run made, `"dataset"` or `"policy"`.
        outcome: It, at the end: of an evolution the mean of the search distribution.
        best_outcome: The best by fresh-key evaluation; its metadata has the return on keys that did not select it.
        history: A row of metrics for each generation, the rows of the file `metrics.jsonl`.
        state: The state at the end; `run.step` takes it further.
        best_generation: Generation of `best_outcome`.
        evaluator: The compiled evaluation on fresh keys that the run used.
        finished: Whether the run came to its end, False where `should_stop` ended the loop.
    """

    kind: OutcomeKind
    outcome: Outcome
    best_outcome: Outcome
    history: list[Row]
    state: RunState
    best_generation: int
    evaluator: Evaluator
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

    def _of_kind(self, kind: OutcomeKind, outcome: Any) -> Any:
        if self.kind != kind:
            raise AttributeError(f"this run made a {self.kind}, not a {kind}")
        return outcome


@dataclass
class _Progress:
    """What the host knows beyond the state: it is saved with every checkpoint."""

    seconds: float = 0.0
    best_score: float = -np.inf
    best_generation: int = -1
    history: list[Row] = field(default_factory=list)
    best: SyntheticDataset | TrainedPolicy | None = None

    @property
    def env_steps(self) -> int:
        return int(self.history[-1]["total_env_steps"]) if self.history else 0

    def to_json(self) -> dict[str, Any]:
        score = self.best_score if np.isfinite(self.best_score) else None
        return {"seconds": self.seconds, "best_score": score, "best_generation": self.best_generation}


def distill(
    key: jax.Array,
    run: Run[Outcome],
    num_generations: int,
    *,
    out: str | os.PathLike[str] | None = None,
    loop: LoopSettings | None = None,
    config: Mapping[str, Any] | None = None,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> Result[Outcome]:
    """Runs a distillation or a baseline, and goes on with the one that `out` holds.

    A run that was stopped or killed and goes on is bit for bit the run that was never stopped.

    Args:
        key: The run's key, `jax.random.key(seed)`.
        run: What a recipe built.
        num_generations: Generations of the whole run, those of earlier calls counted in.
        out: Run directory; nothing is written if None.
        loop: How often to evaluate, log and save, and budgets that end the run before `num_generations`.
        config: What `config.json` is to hold; the run's settings if None.
        progress: Whether to show progress on stderr.
        callbacks: Called after every compiled call.
        should_stop: Asked after every compiled call; the loop ends with a checkpoint once it returns True.

    Raises:
        OSError: `out` cannot be written.
        ValueError: `num_generations` is below 1, or `out` holds a run of other shapes.

    Example:
        >>> import envs, hades
        >>> run = hades.recipes.hades_r(envs.make("diagnostic/match"), dataset_size=2, population_size=8)
        >>> result = hades.distill(jax.random.key(0), run, num_generations=2, progress=False)
        >>> result.dataset.num_pairs, len(result.history)
        (2, 2)
    """
    if num_generations < 1:
        raise ValueError(f"num_generations: expected at least 1, got {num_generations}")
    directory = None if out is None else RunDirectory(out)
    if directory and not directory.holds_run:
        directory.create(config or {"settings": to_dict(run.settings), "num_generations": num_generations})
    distillation = _Distillation(key, run, loop or LoopSettings(), directory)
    try:
        distillation.start()
        with Progress(num_generations, "generation", distillation.generation, progress) as report:
            while not distillation.is_done(num_generations) and not should_stop():
                rows = distillation.advance(num_generations)
                env_steps = float(np.mean([row["env_steps"] for row in rows]))
                rate = 1.0 / max(rows[-1]["seconds_per_generation"], 1e-9)
                report.update(distillation.generation, _status(rows[-1], env_steps * rate), rate)
                for callback in callbacks:
                    callback(distillation.state, rows[-1])
    except KeyboardInterrupt:
        distillation.save_checkpoint()
        raise
    distillation.save_checkpoint()
    return distillation.result(finished=distillation.is_done(num_generations))


train = distill
"""The same loop under the name that suits baselines, whose outcome is a policy."""


class _Distillation:
    """One run on the host: its state, and what is written of it."""

    def __init__(self, key: jax.Array, run: Run[Any], loop: LoopSettings, directory: RunDirectory | None) -> None:
        self._key = key
        self._seed = _seed_of(key)
        self._run = run
        self._loop = loop
        self._directory = directory
        self._checkpoints = Checkpoints(directory.checkpoints) if directory else None
        self._evaluator = run.make_evaluator(loop.evaluation_inits, loop.evaluation_episodes)
        self._on_data = run.with_data
        self._advance = jax.jit(self._generations, static_argnums=2)
        self._outcome = jax.jit(run.outcome)
        self._compiled: set[int] = set()
        self._progress = _Progress()
        self.state = jax.jit(self._on_data.init)(self._on_data.data, key)
        self._started = self._saved = time.monotonic()

    @property
    def generation(self) -> int:
        return int(self.state.generation)

    def is_done(self, num_generations: int) -> bool:
        """Whether all generations are done, or a budget is used up."""
        steps, seconds = self._loop.max_env_steps, self._loop.max_seconds
        return (
            self.generation >= num_generations
            or (steps is not None and self._progress.env_steps >= steps)
            or (seconds is not None and self._progress.seconds >= seconds)
        )

    def start(self) -> None:
        """Takes up the newest checkpoint, if there is one."""
        if self._checkpoints is None or self._directory is None:
            return
        if self._checkpoints.latest is None:
            self._directory.truncate_metrics(0)
            if self._loop.keep_snapshots:
                outcome = self._outcome(self.state)
                self._keep_snapshot(outcome, self._evaluator(self._stream(_SELECTION_STREAM), outcome))
            return
        generation, self.state, saved = self._checkpoints.restore(self.state)
        score = -np.inf if saved["best_score"] is None else saved["best_score"]
        history = list(self._directory.truncate_metrics(generation))
        best = OUTCOMES[self._run.kind].load(self._best_file) if saved["best_generation"] >= 0 else None
        self._progress = _Progress(saved["seconds"], score, saved["best_generation"], history, best)
        self._started = time.monotonic() - self._progress.seconds

    def _generations(self, data: PyTree, state: RunState, count: int) -> tuple[RunState, Metrics]:
        def body(state: RunState, _: None) -> tuple[RunState, Metrics]:
            return self._on_data.step(data, state)

        return jax.lax.scan(body, state, None, length=count)

    def advance(self, num_generations: int) -> list[Row]:
        """One compiled call, and what follows from it on the host; returns its rows of metrics."""
        before = self.state, dataclasses.replace(self._progress)
        try:
            return self._call(num_generations)
        except BaseException:
            # A checkpoint holds all of a call or nothing of it, never a state without its evaluation and metrics.
            self.state, self._progress = before
            raise

    def _call(self, num_generations: int) -> list[Row]:
        first = self.generation
        # Calls end at multiples of their length, wherever a run is taken up: evaluations stay where they were.
        length = self._loop.generations_per_call - first % self._loop.generations_per_call
        length = min(length, num_generations - first)
        if length not in self._compiled:
            # Ahead of the clock reading, so that rates are those of the steady state; the call below finds it compiled.
            self._advance.lower(self._on_data.data, self.state, length).compile()
            self._compiled.add(length)
        before = time.monotonic() - self._started
        self.state, metrics = jax.block_until_ready(self._advance(self._on_data.data, self.state, length))
        after = time.monotonic() - self._started
        rows = _rows(first, self._progress.env_steps, jax.device_get(metrics), before, after)
        self._progress.history = self._progress.history + rows
        self._progress.seconds = after
        if self.generation % self._evaluate_every == 0 or self.is_done(num_generations):
            rows[-1] |= self._evaluate()
        self._progress.seconds = time.monotonic() - self._started
        if self._directory:
            self._directory.append_metrics(rows)
            self._describe(self._outcome(self.state), None).save(getattr(self._directory, self._run.kind))
            if time.monotonic() - self._saved >= self._loop.checkpoint_seconds:
                self.save_checkpoint()
        return rows

    @property
    def _evaluate_every(self) -> int:
        calls = max(1, round(self._loop.evaluate_every / self._loop.generations_per_call))
        return calls * self._loop.generations_per_call

    def _evaluate(self) -> Row:
        """Scores the outcome on fresh keys, and keeps it if it is the best so far."""
        outcome = self._outcome(self.state)
        evaluation = self._evaluator(self._stream(_SELECTION_STREAM), outcome)
        self._keep_snapshot(outcome, evaluation)
        score = evaluation.mean if np.isfinite(evaluation.mean) else -np.inf
        progress = self._progress
        if progress.best is None or score >= progress.best_score:
            # Ties go to the later one, which had longer to become robust. The score that chose an outcome is too good
            # by the choice, so that what is written comes from other keys.
            confirmed = self._evaluator(self._stream(_CONFIRMATION_STREAM), outcome)
            progress.best_score, progress.best_generation = score, self.generation
            progress.best = self._describe(outcome, confirmed)
            if self._directory:
                progress.best.save(self._best_file)
        low, high = evaluation.ci95
        return {"evaluation_mean": evaluation.mean, "evaluation_ci_low": low, "evaluation_ci_high": high}

    def _keep_snapshot(self, outcome: Any, evaluation: Evaluation) -> None:
        if self._directory is None or not self._loop.keep_snapshots:
            return
        self._directory.snapshots.mkdir(exist_ok=True)
        path = self._directory.snapshot(self._run.kind, self.generation)
        self._describe(outcome, evaluation).save(path)

    def _stream(self, stream: np.uint32) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(self._key, stream), self.generation)

    @property
    def _best_file(self) -> Path:
        return getattr(self._directory, f"best_{self._run.kind}")

    def _describe(self, outcome: Any, evaluation: Evaluation | None) -> Any:
        finite = evaluation is not None and bool(np.isfinite(evaluation.returns).all())
        return self._run.describe(outcome, self._seed, evaluation.summary() if evaluation and finite else None)

    def save_checkpoint(self) -> None:
        """Saves the state, so that the run can be taken up from here."""
        if self._checkpoints and self.generation:
            self._checkpoints.save(self.generation, self.state, self._progress.to_json())
            self._saved = time.monotonic()

    def result(self, finished: bool) -> Result[Any]:
        """What the run came to."""
        outcome = self._describe(self._outcome(self.state), None)
        progress = self._progress
        best, generation = (progress.best, progress.best_generation) if progress.best else (outcome, self.generation)
        return Result(
            self._run.kind, outcome, best, progress.history, self.state, generation, self._evaluator, finished
        )


def _rows(first: int, env_steps: int, metrics: Mapping[str, np.ndarray], before: float, after: float) -> list[Row]:
    count = len(metrics["fitness_mean"])
    each = (after - before) / count
    total = env_steps + np.cumsum(metrics["env_steps"], dtype=np.int64)
    return [
        {
            "iteration": first + index + 1,
            # One clock reading for each compiled call, spread evenly over its generations.
            "seconds": before + each * (index + 1),
            "seconds_per_generation": each,
            "total_env_steps": int(total[index]),
            **{name: values[index].item() for name, values in metrics.items()},
        }
        for index in range(count)
    ]


def _status(row: Row, steps_per_second: float) -> str:
    text = f"{with_prefix(steps_per_second)} steps/s, " if steps_per_second else ""
    text += f"fitness {row['fitness_mean']:.4g} (best {row['fitness_best']:.4g})"
    if row["non_finite"]:
        text += f", {row['non_finite']} not finite"
    if "evaluation_mean" in row:
        text += f", fresh keys {row['evaluation_mean']:.4g}"
    return text


def _seed_of(key: jax.Array) -> int:
    """The seed of `jax.random.key(seed)`; for a key that was derived another way, its bits as one integer."""
    bits = [int(word) for word in np.asarray(jax.random.key_data(key)).ravel()]
    seed = 0
    for word in bits[:2]:
        seed = (seed << 32) | word
    return seed if seed < 2**63 else seed - 2**64
