"""A run as pure functions: what recipes build and what the host loop drives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

import jax
from flax import struct

from hades.dataset import SyntheticDataset
from hades.evaluation import Evaluation
from hades.normalization import Normalizer
from hades.policy_file import TrainedPolicy
from hades.types import AnyEnvironment, Metrics, PyTree

OutcomeKind: TypeAlias = Literal["dataset", "policy"]

Outcome = TypeVar("Outcome", SyntheticDataset, TrainedPolicy)
"""What a run makes: a distillation a dataset, a baseline a policy. Both have `save`, `load` and metadata."""

OUTCOMES: dict[OutcomeKind, type[SyntheticDataset] | type[TrainedPolicy]] = {
    "dataset": SyntheticDataset,
    "policy": TrainedPolicy,
}


class Evaluator(Protocol):
    """Compiled evaluation on fresh keys: `DatasetEvaluator` or `PolicyEvaluator`."""

    def __call__(self, key: jax.Array, outcome: Any, /) -> Evaluation:
        """What an outcome returns."""
        ...

    def references(self, key: jax.Array, outcome: Any, /) -> dict[str, Evaluation]:
        """What those return that know nothing, by name."""
        ...


@struct.dataclass
class RunState:
    """All that a run is at the end of a generation; saving it is saving the run.

    Attributes:
        key: The run's key, the same all the way; generation g uses `fold_in(key, g)`.
        generation: Finished generations (of PPO: updates), `[]` int32.
        outer: State of the outer loop.
        normalizer: Observation normalisation of every rollout.
    """

    key: jax.Array
    generation: jax.Array
    outer: PyTree
    normalizer: Normalizer


class OnData(NamedTuple):
    """The functions of a run with the data that they look things up in as an argument.

    A compiled program holds a copy of every array that a function closes over; offline data are too large for that.

    Attributes:
        data: Arrays.
        init: `init(data, key)`, as `Run.init`.
        step: `step(data, state)`, as `Run.step`.
    """

    data: PyTree
    init: Callable[[Any, jax.Array], RunState]
    step: Callable[[Any, RunState], tuple[RunState, Metrics]]


@dataclass(frozen=True, eq=False)
class Run(Generic[Outcome]):
    """One distillation or baseline. The functions are pure: jit them, vmap them over seeds, scan them, or loop.

    Attributes:
        env: Environment that fitness comes from, or that offline distillation is evaluated in.
        settings: All static settings, a frozen dataclass.
        kind: What the run makes, `"dataset"` or `"policy"`.
        init: `init(key)` returns the state before the first generation.
        step: `step(state)` is one generation; returns the new state and scalars, among them `fitness_mean`,
            `fitness_best`, `fitness_worst`, `non_finite` and `env_steps`.
        outcome: `outcome(state)` is what the run has made so far, without metadata: of an evolution the mean of the
            search distribution.
        describe: `describe(outcome, seed, evaluation)` adds the metadata that a file needs.
        make_evaluator: `make_evaluator(num_inits, num_episodes)` compiles fresh-key evaluation. A dataset trains
            `num_inits` policies; a policy plays as many episodes as all of those together.
        on_data: `init` and `step` once more, for runs that look things up in large arrays; None for all others.

    Example:
        >>> import envs, hades, jax
        >>> run = hades.recipes.hades_r(envs.make("diagnostic/match"), dataset_size=2, population_size=8)
        >>> state = run.init(jax.random.key(0))
        >>> state, metrics = jax.jit(run.step)(state)
        >>> int(state.generation), metrics["fitness_mean"].shape
        (1, ())
    """

    env: AnyEnvironment
    settings: Any
    kind: OutcomeKind
    init: Callable[[jax.Array], RunState]
    step: Callable[[RunState], tuple[RunState, Metrics]]
    outcome: Callable[[RunState], Outcome]
    describe: Callable[..., Outcome]
    make_evaluator: Callable[[int, int], Evaluator]
    on_data: OnData | None = None

    @property
    def with_data(self) -> OnData:
        """`on_data`, or the same of a run without data."""
        init, step = self.init, self.step
        return self.on_data or OnData((), lambda _, key: init(key), lambda _, state: step(state))

    @property
    def dataset(self) -> Callable[[RunState], SyntheticDataset]:
        """`outcome`, of a distillation. Raises `AttributeError` for a run that makes a policy."""
        return self._outcome_of_kind("dataset")

    @property
    def policy(self) -> Callable[[RunState], TrainedPolicy]:
        """`outcome`, of a baseline. Raises `AttributeError` for a run that makes a dataset."""
        return self._outcome_of_kind("policy")

    def _outcome_of_kind(self, kind: OutcomeKind) -> Callable[[RunState], Any]:
        if self.kind != kind:
            raise AttributeError(f"this run makes a {self.kind}, not a {kind}")
        return self.outcome
