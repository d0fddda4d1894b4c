"""Cal-QL (arXiv 2303.05479) as a run: the teacher that offline distillation asks for, from offline data alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from typing_extensions import override

from hades import policies
from hades.evaluation import Evaluation, evaluate
from hades.keys import Stream, iteration_key, stream
from hades.metadata import EvaluationSummary
from hades.normalization import Normalizer, PolicyParams
from hades.offline.cal_ql import CalQL, CalQLSettings, Experience, make_cal_ql
from hades.offline.teacher import Teacher, teacher_policy
from hades.offline.transitions import Transitions
from hades.run import Run, RunState, evaluation_status
from hades.types import AnyEnvironment, Continuous, Metrics


def cal_ql(
    transitions: Transitions, action_space: Continuous, env: AnyEnvironment | None = None, **settings: Any
) -> Run[Teacher]:
    """Calibrated Q-learning (Nakamoto et al. 2023, arXiv 2303.05479) on offline data.

    Args:
        transitions: Offline data.
        action_space: Bounds of actions.
        env: Environment that teachers are evaluated in; without one nothing is evaluated.
        **settings: Fields of `CalQLSettings`.

    Raises:
        ValueError: The data do not suit, or a setting is out of range; the message names it.

    Example:
        >>> import hades
        >>> ends, ones = jnp.array([False, True]), jnp.ones((2, 1))
        >>> data = Transitions(ones, 0 * ones, ones[:, 0], ones, terminals=ends, timeouts=ends & ~ends)
        >>> run = cal_ql(data, Continuous((-1.0,), (1.0,)), actor_hidden_sizes=(4,), critic_hidden_sizes=(4,))
        >>> result = hades.train(jax.random.key(0), run, num_iterations=3, progress=False)
        >>> result.outcome.observation_shape, result.history[-1]["iteration"]
        ((1,), 3)
    """
    return cal_ql_run(transitions, action_space, CalQLSettings(**settings), env)


def cal_ql_run(
    transitions: Transitions,
    action_space: Continuous,
    settings: CalQLSettings,
    env: AnyEnvironment | None = None,
) -> Run[Teacher]:
    """Cal-QL with given settings; an iteration is one update. Arguments and errors of `cal_ql`."""
    algorithm = make_cal_ql(action_space, settings)
    return CalQLRun("cal-ql", env, settings, None, algorithm, algorithm.prepare(transitions))


@dataclass(frozen=True, eq=False)
class CalQLRun(Run[Teacher]):
    """Cal-QL as a run, made by `cal_ql_run`; its data are leaves."""

    method: str
    env: AnyEnvironment | None
    settings: CalQLSettings
    mesh: Mesh | None
    algorithm: CalQL
    experience: Experience

    kind: ClassVar[str] = "teacher"
    former_names: ClassVar[Mapping[str, str]] = {"iteration": "update", "outer": ""}
    # An error that overflows leaves Adam's moments infinite and the networks where they are.
    finite_metrics: ClassVar[tuple[str, ...]] = ("critic_error", "data_value")

    @override
    def init(self, key: jax.Array) -> RunState:
        return RunState(key, jnp.int32(0), self.algorithm.init(stream(key, Stream.INIT), self.experience))

    @override
    def step(self, state: RunState) -> tuple[RunState, Metrics]:
        key = iteration_key(state.key, state.iteration)
        outer, metrics = self.algorithm.update(key, state.outer, self.experience)
        return dataclasses.replace(state, iteration=state.iteration + 1, outer=outer), metrics

    @override
    def outcome(self, state: RunState) -> Teacher:
        return self.algorithm.teacher(state.outer)

    @override
    def describe(self, outcome: Teacher, seed: int, evaluation: EvaluationSummary | None = None) -> Teacher:
        """The teacher as it is: its file names no run."""
        del seed, evaluation
        return outcome

    @override
    def status(self, row: Mapping[str, Any]) -> str:
        return f"value {row['data_value']:.4g}, error {row['critic_error']:.3g}" + evaluation_status(row)

    @override
    def make_evaluator(self, num_inits: int, num_episodes: int) -> TeacherEvaluator:
        if self.env is None:
            raise ValueError("env: expected an environment to evaluate the teacher in, got none")
        return TeacherEvaluator(self.env, num_inits * num_episodes)


@dataclass(frozen=True)
class TeacherEvaluator:
    """Fresh-key evaluation of teachers, by the modes of their actions.

    Attributes:
        env: Environment.
        num_episodes: Episodes.
    """

    env: AnyEnvironment
    num_episodes: int

    def __call__(self, key: jax.Array, teacher: Teacher) -> Evaluation:
        """Plays with a teacher; returns are `[1, episodes]`."""
        return evaluate(key, self.env, teacher_policy, PolicyParams(teacher, Normalizer()), self.num_episodes, "mode")

    def references(self, key: jax.Array, teacher: Teacher) -> dict[str, Evaluation]:
        """Returns of uniformly random actions."""
        del teacher
        uniform = policies.uniform(self.env)
        return {"random actions": evaluate(key, self.env, uniform, PolicyParams(()), self.num_episodes)}
