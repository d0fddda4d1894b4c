"""DBC, PBC, Av-PBC (Offline Behavior Distillation, arXiv 2410.22728) and SDW (arXiv 2512.06692)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hades._validation import require_positive
from hades.dataset import SyntheticDataset
from hades.distributions import ActionSelection
from hades.evaluation import DatasetEvaluator, Evaluation
from hades.fitness import FitnessKeys
from hades.inner import cloning
from hades.inner.cloning import BehaviourCloning, CloningSettings
from hades.metadata import EvaluationSummary
from hades.normalization import Normalization, Normalizer
from hades.objectives.states import OBJECTIVES, LabelledStates, ObjectiveName, make_offline_fitness
from hades.offline.density import DensityName, FlowSettings, estimate_log_density
from hades.offline.initialization import InitializationName, initial_pairs
from hades.offline.labels import action_values, label_states, sample_teacher
from hades.offline.teacher import Teacher
from hades.offline.transitions import Transitions
from hades.outer import make_outer
from hades.outer.evolution import EvolutionSettings
from hades.outer.meta_gradient import MetaGradientSettings
from hades.recipes._shared import FIRST_STREAM, describe_run
from hades.run import OnData, Run, RunState
from hades.types import AnyEnvironment, Metrics, PyTree

# Streams of keys apart from each other and from what `split` makes of the same key.
_LABEL_STREAM, _PAIRS_STREAM = np.uint32(2**32 - 5), np.uint32(2**32 - 6)

_INNER_LOOP = CloningSettings(
    hidden_sizes=(64, 64),
    activation="relu",
    kernel_init="lecun_normal",
    action_distribution="tanh_gaussian",
    loss="mse",
    optimizer="sgd",
    learning_rate=0.05,
    num_steps=100,
)
_OUTER_LOOP = MetaGradientSettings(optimizer="sgd", learning_rate=0.4, momentum=0.9, max_grad_norm=0.5)


@dataclass(frozen=True)
class OfflineSettings:
    """A behaviour distillation of offline data. The defaults suit a CPU; `paper_offline` has the published settings."""

    objective: ObjectiveName = "av-pbc"
    """dbc imitates the data; pbc the teacher; av-pbc weighs states by the teacher's action value; sdw- also by inverse
    state density; pbc-mean-weight is pbc times the mean weight of av-pbc, the control."""
    dataset_size: int = 64
    """Synthetic state-action pairs N."""
    initialization: InitializationName = "random"
    """The first pairs: random real ones, those of highest action value, of k-means, or noise."""
    num_inits: int = 1
    """Fresh initialisations that each outer step averages over."""
    num_states: int = 512
    """Offline states of an outer step, drawn with replacement."""
    objective_actions: ActionSelection = "mode"
    """Whether the objective compares sampled actions of policy and teacher, or their modes. With sample, the policy's
    spread must be cloned too: --cloning.loss sampled_mse or gaussian_nll."""
    density_exponent: float = 0.25
    """tau of the weights d(s)^-tau of sdw; 0 weighs all states alike."""
    density: DensityName = "flow"
    """Estimate of the state density: flow (needs the extra flows) or knn."""
    flow: FlowSettings = FlowSettings()
    """The flow."""
    min_std: float = 1e-3
    """What is added to the standard deviations of observations."""
    action_selection: ActionSelection = "mode"
    """Whether policies act by a sample of their distribution or by its mode when they are evaluated."""
    cloning: CloningSettings = _INNER_LOOP
    """The inner loop."""
    outer: Literal["meta-gradient", "evolution"] = "meta-gradient"
    """What moves the dataset."""
    meta_gradient: MetaGradientSettings = _OUTER_LOOP
    """The outer loop by gradients."""
    evolution: EvolutionSettings = EvolutionSettings()
    """The outer loop by evolution."""
    population_size: int = 64
    """Candidates of a generation of the evolution."""

    def __post_init__(self) -> None:
        """Refuses sizes that are not positive, and a window that is longer than the inner loop."""
        for name in ("dataset_size", "num_inits", "num_states", "population_size", "min_std"):
            require_positive(name, getattr(self, name))
        if self.density_exponent < 0:
            raise ValueError(f"density_exponent: expected a number of at least 0, got {self.density_exponent}")
        window = self.meta_gradient.window
        if window is not None and window > self.cloning.num_steps:
            raise ValueError(f"window: expected at most {self.cloning.num_steps}, the inner steps, got {window}")

    @property
    def method(self) -> str:
        """Name of the method in files."""
        return self.objective

    @property
    def observation_normalization(self) -> Normalization:
        """Statistics of the data, fixed."""
        return "fixed"

    @property
    def needs_teacher(self) -> bool:
        """Whether a teacher is asked for."""
        return self.objective != "dbc" or "highest_q" in self.initialization

    @property
    def needs_density(self) -> bool:
        """Whether the density of states is asked for."""
        return self.objective.startswith("sdw") and self.density_exponent > 0


def dbc(env: AnyEnvironment, transitions: Transitions, **settings: Any) -> Run[SyntheticDataset]:
    """Data-based behaviour cloning. Arguments and errors of `av_pbc`, without a teacher."""
    return offline_run(env, transitions, OfflineSettings(**settings, objective="dbc"))


def pbc(env: AnyEnvironment, transitions: Transitions, teacher: Teacher, **settings: Any) -> Run[SyntheticDataset]:
    """Policy-based behaviour cloning. Arguments and errors of `av_pbc`."""
    return offline_run(env, transitions, OfflineSettings(**settings, objective="pbc"), teacher)


def av_pbc(env: AnyEnvironment, transitions: Transitions, teacher: Teacher, **settings: Any) -> Run[SyntheticDataset]:
    """Action-value weighted PBC (arXiv 2410.22728, equation 6).

    Args:
        env: Evaluates, and gives spaces and names; training does not play in it.
        transitions: The offline data.
        teacher: Near-expert policy and action values.
        **settings: Fields of `OfflineSettings`.

    Raises:
        ValueError: A setting, the data or the teacher does not suit the environment; the message names it.
    """
    return offline_run(env, transitions, OfflineSettings(**settings, objective="av-pbc"), teacher)


def sdw(env: AnyEnvironment, transitions: Transitions, teacher: Teacher, **settings: Any) -> Run[SyntheticDataset]:
    """State density weighting of Av-PBC (arXiv 2512.06692). Arguments and errors of `av_pbc`.

    Clipping, normalisation and exponent of the weights are ours: the paper's could not be recovered.
    """
    return offline_run(env, transitions, OfflineSettings(**settings, objective="sdw-av-pbc"), teacher)


def offline_run(
    env: AnyEnvironment,
    transitions: Transitions,
    settings: OfflineSettings,
    teacher: Teacher | None = None,
    *,
    log_density: jax.Array | None = None,
    key: jax.Array | None = None,
) -> Run[SyntheticDataset]:
    """A distillation of offline data with given settings.

    Args:
        env: Evaluates, and gives spaces and names; training does not play in it.
        transitions: The offline data.
        settings: Settings.
        teacher: Near-expert policy and action values, for all objectives but DBC.
        log_density: log d(s) of each transition's state, `[transitions]`; estimated here where SDW needs it.
        key: Key of that estimate and of sampled labels; `jax.random.key(0)` if None. No other than the run's own.

    Raises:
        ValueError: A setting, the data or the teacher does not suit the environment; the message names it.
    """
    _check(env, transitions, settings, teacher)
    data = _prepare(jax.random.key(0) if key is None else key, transitions, settings, teacher, log_density)
    problem = _Problem(env, settings, data)

    def dataset(state: RunState) -> SyntheticDataset:
        mean = problem.as_dataset(problem.outer.solution(state.outer))
        return dataclasses.replace(mean, observation_mean=state.normalizer.mean, observation_std=state.normalizer.std)

    def describe(dataset: SyntheticDataset, seed: int, evaluation: EvaluationSummary | None = None) -> SyntheticDataset:
        metadata = describe_run(env, settings, settings.method, settings.cloning, seed, evaluation)
        return dataclasses.replace(dataset, metadata=metadata)

    def make_evaluator(num_inits: int, num_episodes: int) -> DatasetEvaluator:
        return _Evaluator(problem, data, num_inits, num_episodes)

    return Run(
        env,
        settings,
        "dataset",
        partial(problem.init, data),
        partial(problem.step, data),
        dataset,
        describe,
        make_evaluator,
        on_data=OnData(data, problem.init, problem.step),
    )


@struct.dataclass
class _Data:
    """All arrays that the steps of a run look things up in.

    Attributes:
        states: All states of the data.
        normalizer: Their statistics.
        teacher: Where its actions are sampled anew at every step, otherwise None.
        pair_values: q*(s, a) of the data's own actions, `[transitions]`, where the first pairs are chosen by it.
    """

    states: LabelledStates
    normalizer: Normalizer
    teacher: Teacher | None
    pair_values: jax.Array | None


def _prepare(
    key: jax.Array,
    transitions: Transitions,
    settings: OfflineSettings,
    teacher: Teacher | None,
    log_density: jax.Array | None,
) -> _Data:
    """Labels the states once for the whole run."""
    normalizer = transitions.statistics(settings.min_std)
    if settings.needs_density and log_density is None:
        normalized = normalizer.apply(transitions.observations)
        log_density = estimate_log_density(key, normalized, settings.density, settings.flow)
    sampled = settings.objective_actions == "sample"
    states = label_states(
        transitions,
        normalizer,
        teacher,
        log_density,
        settings.density_exponent,
        jax.random.fold_in(key, _LABEL_STREAM) if sampled else None,
    )
    _check_action_values(settings, states)
    pair_values = None
    if teacher is not None and "highest_q" in settings.initialization:
        pair_values = action_values(teacher, transitions.observations, transitions.actions)
    return _Data(states, normalizer, teacher if sampled else None, pair_values)


class _Problem:
    """F(D) of one objective, and the outer loop that climbs it."""

    def __init__(self, env: AnyEnvironment, settings: OfflineSettings, data: _Data) -> None:
        self.env, self.settings = env, settings
        by_gradient = settings.outer == "meta-gradient"
        differentiated = by_gradient and settings.meta_gradient.rematerialize
        self.clone: BehaviourCloning = cloning.from_settings(env, settings.cloning, rematerialize=differentiated)
        self._fitness = make_offline_fitness(
            self.clone,
            OBJECTIVES[settings.objective],
            settings.objective_actions,
            settings.meta_gradient.window if by_gradient else None,
        )
        shapes = jax.eval_shape(self.first, data, jax.random.key(0))
        blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        outer = settings.meta_gradient if by_gradient else settings.evolution
        self.outer = make_outer(blank, settings.population_size, outer)

    def first(self, data: _Data, key: jax.Array) -> PyTree:
        """The pairs that a run begins with."""
        return self._pairs(data, key, self.settings.initialization)

    def random_pairs(self, data: _Data, key: jax.Array) -> SyntheticDataset:
        """Real pairs of the data, drawn at random, with its statistics."""
        pairs = self.as_dataset(self._pairs(data, key, "random"))
        return dataclasses.replace(pairs, observation_mean=data.normalizer.mean, observation_std=data.normalizer.std)

    def _pairs(self, data: _Data, key: jax.Array, kind: InitializationName) -> PyTree:
        observations, actions = data.states.observations, data.states.actions
        assert actions is not None  # `label_states` takes them from the data
        size = self.settings.dataset_size
        observations, actions = initial_pairs(key, kind, observations, actions, size, data.pair_values)
        return {"observations": observations, "actions": actions}

    def as_dataset(self, solution: PyTree) -> SyntheticDataset:
        """The pairs of one solution, or of many."""
        return SyntheticDataset(solution["observations"], actions=solution["actions"])

    def init(self, data: _Data, key: jax.Array) -> RunState:
        search_key, solution_key = jax.random.split(jax.random.fold_in(key, FIRST_STREAM))
        outer = self.outer.init(search_key, self.first(data, solution_key))
        return RunState(key, jnp.int32(0), outer, data.normalizer)

    def step(self, data: _Data, state: RunState) -> tuple[RunState, Metrics]:
        search_key, fitness_key, batch_key = jax.random.split(jax.random.fold_in(state.key, state.generation), 3)
        keys = FitnessKeys.draw(fitness_key, self.settings.num_inits)
        states = self._draw(data, batch_key)

        def objective(population: PyTree) -> tuple[jax.Array, Metrics]:
            values = jnp.mean(self._fitness(keys, self.as_dataset(population), states), axis=1)
            return values, {"env_steps": jnp.zeros(values.shape, jnp.int32)}

        outer, metrics = self.outer.step(search_key, state.outer, objective)
        return dataclasses.replace(state, generation=state.generation + 1, outer=outer), metrics

    def _draw(self, data: _Data, key: jax.Array) -> LabelledStates:
        index_key, action_key = jax.random.split(key)
        count = data.states.observations.shape[0]
        states = data.states.take(jax.random.randint(index_key, (self.settings.num_states,), 0, count))
        return states if data.teacher is None else sample_teacher(action_key, data.teacher, states, data.normalizer)


class _Evaluator(DatasetEvaluator):
    """Fresh-key evaluation whose references also have random real pairs."""

    def __init__(self, problem: _Problem, data: _Data, num_inits: int, num_episodes: int) -> None:
        super().__init__(
            problem.env, problem.clone, num_inits, num_episodes, action_selection=problem.settings.action_selection
        )
        self._random_pairs = partial(jax.jit(problem.random_pairs), data)

    def references(self, key: jax.Array, dataset: SyntheticDataset) -> dict[str, Evaluation]:
        """Those of `DatasetEvaluator`, and as many random real pairs of the data, one draw of them."""
        pairs = self._random_pairs(jax.random.fold_in(key, _PAIRS_STREAM))
        return {"random real pairs": self(key, pairs), **super().references(key, dataset)}


def _check_action_values(settings: OfflineSettings, states: LabelledStates) -> None:
    """Refuses action values under which a weighted objective would mostly send policies away from the teacher."""
    mean = states.mean_action_value
    if settings.objective in ("av-pbc", "sdw-av-pbc", "pbc-mean-weight") and mean is not None and not float(mean) > 0:
        raise ValueError(
            f"teacher: {settings.objective} weighs states by action values, expected a mean above 0, got "
            f"{float(mean):.4g}; teach it with rewards shifted by --reward-bias, or take pbc"
        )


def _check(env: AnyEnvironment, transitions: Transitions, settings: OfflineSettings, teacher: Teacher | None) -> None:
    transitions.check_fits(env)
    if settings.dataset_size > transitions.num_transitions:
        raise ValueError(
            f"dataset_size: expected at most {transitions.num_transitions}, the transitions of the data, "
            f"got {settings.dataset_size}"
        )
    if settings.needs_teacher and teacher is None:
        asking = settings.objective if settings.objective != "dbc" else f"initialization {settings.initialization}"
        raise ValueError(f"teacher: {asking} needs one, got none")
    if teacher is not None:
        teacher.check_fits(env)
    if settings.cloning.loss == "cross_entropy":
        raise ValueError("loss: expected gaussian_nll, mse or sampled_mse for continuous actions, got cross_entropy")
