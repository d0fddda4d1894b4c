"""The host loop of Cal-QL: compiled calls of many updates, evaluation, checkpoints and resuming."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hades._checkpointing import Checkpoints
from hades._progress import Progress
from hades._serialization import to_dict
from hades._validation import require_positive
from hades.evaluation import Evaluation, evaluate
from hades.normalization import Normalizer, PolicyParams
from hades.offline.cal_ql import CalQL, CalQLState, Experience
from hades.offline.teacher import PLAYER, Teacher
from hades.offline.transitions import Transitions
from hades.types import AnyEnvironment

Row = dict[str, Any]
EvaluateTeacher = Callable[[jax.Array, Teacher], Evaluation]
"""Plays with a teacher on a fresh key."""

_EVALUATION_STREAM = np.uint32(2**32 - 2)


@dataclass(frozen=True)
class TeachingLoop:
    """How often the host looks at training; not what an update computes."""

    updates_per_call: int = 1000
    """Updates of one compiled call; progress, logs and interrupts come between calls."""
    evaluate_every: int | None = None
    """Updates between evaluations in the simulator, rounded up to whole calls; none never plays."""
    checkpoint_seconds: float = 60.0
    """Seconds between checkpoints; there is always one at the end."""

    def __post_init__(self) -> None:
        """Refuses counts that are not positive."""
        require_positive("updates_per_call", self.updates_per_call)
        if self.evaluate_every is not None:
            require_positive("evaluate_every", self.evaluate_every)
        if not self.checkpoint_seconds >= 0:
            raise ValueError(f"checkpoint_seconds: expected a number of at least 0, got {self.checkpoint_seconds}")


@dataclass(frozen=True)
class Lesson:
    """What `teach` returns.

    Attributes:
        teacher: Of the networks at the end.
        state: The state at the end.
        history: A row for each compiled call: `update`, `seconds`, means of the call's scalars, and where it was
            evaluated `evaluation_mean`, `evaluation_ci_low` and `evaluation_ci_high`.
        finished: Whether all updates were done, False where `should_stop` ended the loop.
    """

    teacher: Teacher
    state: CalQLState
    history: list[Row]
    finished: bool


def teach(
    key: jax.Array,
    cal_ql: CalQL,
    transitions: Transitions,
    num_updates: int,
    *,
    checkpoints: str | os.PathLike[str] | None = None,
    loop: TeachingLoop | None = None,
    evaluate_teacher: EvaluateTeacher | None = None,
    progress: bool = True,
    should_stop: Callable[[], bool] = lambda: False,
) -> Lesson:
    """Trains a teacher on offline data, and goes on with the training that `checkpoints` holds.

    Training that was stopped or killed and goes on is bit for bit the one that was never stopped.

    Args:
        key: Of the whole training, `jax.random.key(seed)`.
        cal_ql: What `make_cal_ql` made.
        transitions: The data.
        num_updates: Updates of the whole training, those of earlier calls counted in.
        checkpoints: Folder of checkpoints; nothing is written if None.
        loop: How often to evaluate and save.
        evaluate_teacher: How; needed where `loop` has `evaluate_every`.
        progress: Whether to show progress on stderr.
        should_stop: Asked after every compiled call; the loop ends with a checkpoint once it returns True.

    Raises:
        OSError: `checkpoints` cannot be written.
        ValueError: The data do not suit, training diverged, or `checkpoints` holds training of other data or settings.

    Example:
        >>> import jax.numpy as jnp
        >>> from hades.offline.cal_ql import CalQLSettings, make_cal_ql
        >>> from hades.types import Continuous
        >>> ends, ones = jnp.array([False, True]), jnp.ones((2, 1))
        >>> data = Transitions(ones, 0 * ones, ones[:, 0], ones, terminals=ends, timeouts=ends & ~ends)
        >>> cal_ql = make_cal_ql(Continuous((-1.0,), (1.0,)), CalQLSettings((4,), (4,), batch_size=8))
        >>> lesson = teach(jax.random.key(0), cal_ql, data, num_updates=3, progress=False)
        >>> lesson.teacher.observation_shape, lesson.history[-1]["update"]
        ((1,), 3)
    """
    require_positive("num_updates", num_updates)
    experience = cal_ql.prepare(transitions)
    teaching = _Teaching(key, cal_ql, experience, loop or TeachingLoop(), evaluate_teacher)
    with _open(checkpoints) as folder:
        if folder and folder.latest is not None:
            teaching.resume(folder)
            if teaching.done > num_updates:
                raise ValueError(f"num_updates: expected at least {teaching.done}, which are done, got {num_updates}")
        try:
            with Progress(num_updates, "update", teaching.done, progress) as report:
                while teaching.done < num_updates and not should_stop():
                    row, seconds = teaching.advance(num_updates)
                    report.update(teaching.done, _status(row), 1.0 / max(seconds, 1e-9))
                    if folder and teaching.is_due:
                        teaching.save(folder)
        finally:
            # Also after Ctrl-C: the state is that of the last whole call.
            if folder:
                teaching.save(folder)
    return Lesson(cal_ql.teacher(teaching.state), teaching.state, teaching.history, teaching.done >= num_updates)


def make_teacher_evaluator(env: AnyEnvironment, num_episodes: int) -> EvaluateTeacher:
    """Episodes of the teacher's most probable actions, in any simulator."""

    def play(key: jax.Array, teacher: Teacher) -> Evaluation:
        return evaluate(key, env, PLAYER, PolicyParams(teacher, Normalizer()), num_episodes, "mode")

    return play


@dataclass
class _Teaching:
    """Training on the host: its state, and what checkpoints keep beside it."""

    key: jax.Array
    cal_ql: CalQL
    experience: Experience
    loop: TeachingLoop
    evaluate_teacher: EvaluateTeacher | None
    history: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        # What training that goes on must share with the one that began.
        self.origin = {
            "settings": to_dict(self.cal_ql.settings),
            "key": _seed_words(self.key),
            "data": _fingerprint(self.experience),
            "action_space": str(self.cal_ql.action_space),
        }
        self.state = jax.jit(self.cal_ql.init)(self.key, self.experience)
        self._updates = jax.jit(self.cal_ql.updates, static_argnums=2)
        self._compiled: set[int] = set()
        self._started = self._saved = time.monotonic()

    @property
    def done(self) -> int:
        return int(self.state.update)

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self._saved >= self.loop.checkpoint_seconds

    def resume(self, folder: Checkpoints) -> None:
        _, state, saved = folder.restore(self.state)
        for name, own in self.origin.items():
            if saved["origin"][name] != own:
                raise ValueError(f"checkpoints: expected training of the same {name}, {_difference(saved, name, own)}")
        self.state, self.history = state, saved["history"]
        self._started = time.monotonic() - saved["seconds"]

    def save(self, folder: Checkpoints) -> None:
        if not self.done:
            return
        seconds = time.monotonic() - self._started
        folder.save(self.done, self.state, {"origin": self.origin, "history": self.history, "seconds": seconds})
        self._saved = time.monotonic()

    def advance(self, num_updates: int) -> tuple[Row, float]:
        """One compiled call; returns its row and the seconds of an update."""
        # Calls end at multiples of their length, wherever training is taken up.
        length = self.loop.updates_per_call - self.done % self.loop.updates_per_call
        length = min(length, num_updates - self.done)
        if length not in self._compiled:
            # Ahead of the clock reading, so that rates are those of the steady state.
            self._updates.lower(self.state, self.experience, length).compile()
            self._compiled.add(length)
        before = time.monotonic()
        state, metrics = jax.block_until_ready(self._updates(self.state, self.experience, length))
        seconds = (time.monotonic() - before) / length
        row = {name: float(value) for name, value in jax.device_get(metrics).items()}
        bad = [name for name, value in row.items() if not np.isfinite(value)]
        if bad:
            raise ValueError(
                f"training diverged by update {int(state.update)}: {bad[0]} is not finite; "
                "a smaller --critic-learning-rate or --reward-scale may help"
            )
        row = {"update": int(state.update), "seconds": time.monotonic() - self._started, **row}
        row |= self._evaluate(state, num_updates)
        self.state, self.history = state, [*self.history, row]
        return row, seconds

    def _evaluate(self, state: CalQLState, num_updates: int) -> Row:
        every, update = self.loop.evaluate_every, int(state.update)
        if every is None or self.evaluate_teacher is None:
            return {}
        rounded = -(-every // self.loop.updates_per_call) * self.loop.updates_per_call
        if update % rounded and update < num_updates:
            return {}
        key = jax.random.fold_in(jax.random.fold_in(self.key, _EVALUATION_STREAM), update)
        evaluation = self.evaluate_teacher(key, self.cal_ql.teacher(state))
        low, high = evaluation.ci95
        return {"evaluation_mean": evaluation.mean, "evaluation_ci_low": low, "evaluation_ci_high": high}


class _Nothing:
    """Stands for the checkpoints of a training that writes none."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        return None


def _open(folder: str | os.PathLike[str] | None) -> Checkpoints | _Nothing:
    return _Nothing() if folder is None else Checkpoints(Path(folder))


def _seed_words(key: jax.Array) -> list[int]:
    return [int(word) for word in np.asarray(jax.random.key_data(key)).ravel()]


def _fingerprint(experience: Experience) -> str:
    total = 0
    for leaf in jax.tree.leaves(experience):
        total = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), total)
    return f"{len(experience.rewards)} transitions of checksum {total:08x}"


def _difference(saved: dict[str, Any], name: str, own: Any) -> str:
    old = saved["origin"][name]
    if isinstance(own, dict) and isinstance(old, dict):
        changed = next(key for key in own if old.get(key) != own[key])
        return f"but {changed} was {old.get(changed)} there, got {own[changed]}"
    return f"{old} there, got {own}"


def _status(row: Row) -> str:
    text = f"value {row['data_value']:.4g}, error {row['critic_error']:.3g}"
    if "evaluation_mean" in row:
        text += f", return {row['evaluation_mean']:.4g}"
    return text
