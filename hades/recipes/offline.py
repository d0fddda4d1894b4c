"""DBC, PBC, Av-PBC (Offline Behavior Distillation, arXiv 2410.22728) and SDW (arXiv 2512.06692)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import jax

from hades._validation import require_below_one_fields, require_not_negative_fields, require_positive_fields
from hades.dataset import SyntheticDataset
from hades.distillation import distillation_run
from hades.distributions import ActionSelection
from hades.inner import cloning
from hades.inner.cloning import CloningSettings
from hades.keys import Stream, stream
from hades.objectives import states
from hades.objectives.states import Critic, OfflineStates, StateObjective
from hades.offline.density import AliasTable, DensityName, FlowSettings, estimate_log_density, exponent_of
from hades.offline.initialization import InitializationName
from hades.offline.labels import action_values, label_states, teacher_actions
from hades.offline.teacher import PolicyTeacher, Teacher
from hades.offline.transitions import Transitions
from hades.outer import MetaGradient, MetaGradientSettings
from hades.parametrizations import RealPairs
from hades.policies import Policy
from hades.recipes._resolve import averaged, require_window_within, resolve_loss, with_learned_steps
from hades.rollouts.settings import PlaySettings
from hades.run import Run
from hades.sharding import MeshOrDevices
from hades.types import AnyEnvironment, Continuous, Discrete, InnerLoop, OuterLoop

_INNER_LOOP = CloningSettings(
    hidden_sizes=(64, 64),
    activation="relu",
    kernel_init="lecun_normal",
    action_distribution="tanh_gaussian",
    num_steps=100,
)
_OUTER_LOOP = MetaGradientSettings(max_grad_norm=0.5)


@dataclass(frozen=True)
class OfflineSettings:
    """A behaviour distillation of offline data. The defaults suit a CPU; `paper_offline` has the published settings."""

    dataset_size: int = 64
    """Synthetic state-action pairs N."""
    initialization: InitializationName = "random"
    """The first pairs: random real ones, those of highest action value, of k-means, or noise."""
    first_actions: Literal["auto", "data", "teacher"] = "auto"
    """Actions of the first pairs: of the data or of the teacher; auto is the teacher where the objective asks one."""
    bounded_actions: bool = True
    """Whether synthetic actions are clipped to the bounds of the environment's."""
    num_inits: int = 1
    """Fresh initialisations that each outer step averages over."""
    num_states: int = 512
    """Offline states of an outer step, drawn with replacement."""
    objective_actions: ActionSelection = "mode"
    """Whether the objective compares sampled actions of policy and teacher, or their modes. With sample, the policy's
    spread must be cloned too: --cloning.loss sampled_mse or gaussian_nll."""
    density_exponent: float = 0.25
    """tau of the weights d(s)^-tau of sdw; 0 weighs all states alike."""
    effective_sample_size: float | None = None
    """Fraction of the states that the weights of sdw are to be worth, which chooses tau; default: tau as given."""
    draw_by_weight: bool = False
    """Whether sdw draws states in proportion to their weights, rather than weighing them."""
    density: DensityName = "flow"
    """Estimate of the state density: flow (needs the extra flows) or knn."""
    flow: FlowSettings = FlowSettings()
    """The flow."""
    min_std: float = 1e-3
    """Constant added to the standard deviations of observations."""
    average_decay: float | None = None
    """Decay of a moving average of the pairs, which is the outcome in their place; default: no average. 0.98 gave no
    gain on Walker2d and HalfCheetah (three seeds of 64 pairs)."""
    action_selection: ActionSelection = "mode"
    """Whether policies act by a sample of their distribution or by its mode when they are evaluated."""
    cloning: CloningSettings = _INNER_LOOP
    """The inner loop. Learned step sizes, which are part of the dataset, begin at its learning rate; they gave no gain
    on Walker2d and HalfCheetah (three seeds of 64 pairs)."""
    meta_gradient: MetaGradientSettings = _OUTER_LOOP
    """The outer loop by gradients."""

    def __post_init__(self) -> None:
        """Refuses sizes that are not positive, and a window that is longer than the inner loop."""
        require_positive_fields(self, "dataset_size", "num_inits", "num_states", "min_std")
        require_not_negative_fields(self, "density_exponent")
        require_below_one_fields(self, "average_decay")
        if self.effective_sample_size is not None and not 0 < self.effective_sample_size <= 1:
            raise ValueError(
                f"effective_sample_size: expected a fraction above 0 and at most 1, got {self.effective_sample_size}"
            )
        require_window_within(self.meta_gradient, self.cloning)

    @property
    def weighs_states(self) -> bool:
        """Whether sdw weighs states by their density."""
        return self.density_exponent > 0 or self.effective_sample_size is not None

    @property
    def played(self) -> PlaySettings:
        """Normalisation by the statistics of the data, and the choice of actions."""
        return PlaySettings("fixed", action_selection=self.action_selection)


def dbc(env: AnyEnvironment, transitions: Transitions, **settings: Any) -> Run[SyntheticDataset]:
    """Data-based behaviour cloning. Arguments and errors of `av_pbc`, without a teacher."""
    return offline_run(env, transitions, states.dbc, OfflineSettings(**settings))


def pbc(
    env: AnyEnvironment, transitions: Transitions, teacher: Teacher | PolicyTeacher, **settings: Any
) -> Run[SyntheticDataset]:
    """Policy-based behaviour cloning. Arguments and errors of `av_pbc`."""
    return offline_run(env, transitions, states.pbc, OfflineSettings(**settings), teacher)


def av_pbc(env: AnyEnvironment, transitions: Transitions, teacher: Teacher, **settings: Any) -> Run[SyntheticDataset]:
    """Action-value weighted PBC (arXiv 2410.22728, equation 6).

    Args:
        env: Evaluates, and gives spaces and names; training does not play in it.
        transitions: Offline data.
        teacher: Near-expert policy and action values.
        **settings: Fields of `OfflineSettings`.

    Raises:
        ValueError: A setting, the data or the teacher does not suit the environment; the message names it.
    """
    return offline_run(env, transitions, states.av_pbc, OfflineSettings(**settings), teacher)


def sdw(env: AnyEnvironment, transitions: Transitions, teacher: Teacher, **settings: Any) -> Run[SyntheticDataset]:
    """State density weighting of Av-PBC (arXiv 2512.06692). Arguments and errors of `av_pbc`.

    Clipping, normalisation and exponent of the weights are ours: the paper's could not be recovered.
    """
    return offline_run(env, transitions, states.sdw_av_pbc, OfflineSettings(**settings), teacher)


def offline_run(
    env: AnyEnvironment,
    transitions: Transitions,
    objective: StateObjective,
    settings: OfflineSettings = OfflineSettings(),
    teacher: Teacher | PolicyTeacher | None = None,
    *,
    inner: InnerLoop | None = None,
    outer: OuterLoop | None = None,
    log_density: jax.Array | None = None,
    key: jax.Array | None = None,
    mesh: MeshOrDevices | None = None,
) -> Run[SyntheticDataset]:
    """Distils offline data by any objective at single states.

    Args:
        env: Evaluates, and gives spaces and names; training does not play in it.
        transitions: Offline data.
        objective: Value of a policy's actions, with the labels that it needs.
        settings: Settings.
        teacher: Near-expert policy and action values, where the objective or the first pairs need one; any policy where
            they need no values, which is what teaches discrete actions.
        inner: Inner loop; the cloning of `settings` if None, which a meta-gradient rematerialises and windows.
        outer: Outer loop; the meta-gradient of `settings` if None.
        log_density: log d(s) of each transition's state, `[transitions]`; estimated here where the objective needs it.
        key: Key of that estimate and of sampled labels; `jax.random.key(0)` if None. No other than the run's own.
        mesh: Devices that candidates and inits are spread over; all that JAX has if None.

    Raises:
        ValueError: A setting, the data or the teacher does not suit the environment; the message names it.
    """
    _check(env, transitions, objective, settings, teacher)
    settings = replace(settings, cloning=resolve_loss(env, settings.cloning, "mse"))
    key = jax.random.key(0) if key is None else key
    evaluation_inner = None
    if inner is None:
        inner = evaluation_inner = cloning.from_settings(env, settings.cloning)
        if outer is None or isinstance(outer, MetaGradient):
            ascent = settings.meta_gradient
            inner = replace(inner, rematerialize=ascent.rematerialize, window=ascent.window)
    num_actions = env.action_space.num_actions if isinstance(env.action_space, Discrete) else None
    problem = _label(key, transitions, objective, settings, teacher, log_density, inner.policy, num_actions)
    outer = outer or MetaGradient.from_settings(settings.meta_gradient)
    pairs = _first_pairs(env, transitions, objective, settings, teacher, problem)
    return distillation_run(
        env,
        with_learned_steps(pairs, inner),
        inner,
        problem,
        averaged(outer, settings.average_decay),
        num_inits=settings.num_inits,
        evaluation_inner=evaluation_inner,
        play=settings.played,
        mesh=mesh,
        method=objective.name,
        settings=settings,
    )


def _first_pairs(
    env: AnyEnvironment,
    transitions: Transitions,
    objective: StateObjective,
    settings: OfflineSettings,
    teacher: Teacher | PolicyTeacher | None,
    problem: OfflineStates,
) -> RealPairs:
    """The synthetic pairs, which begin at pairs of the data."""
    values = labels = None
    if isinstance(teacher, Teacher) and "highest_q" in settings.initialization:
        values = action_values(teacher, transitions.observations, transitions.actions)
    if settings.first_actions == "teacher" or (settings.first_actions == "auto" and objective.needs_teacher):
        assert teacher is not None  # `_check` has refused it otherwise
        # Their modes, also where the objective samples.
        labels = teacher_actions(teacher, transitions.observations)
    space = env.action_space
    return RealPairs(
        problem.states.observations,
        cast(jax.Array, problem.states.actions),
        values,
        settings.dataset_size,
        settings.initialization,
        labels,
        space if settings.bounded_actions and isinstance(space, Continuous) else None,
        isinstance(space, Discrete),
    )


def _label(
    key: jax.Array,
    transitions: Transitions,
    objective: StateObjective,
    settings: OfflineSettings,
    teacher: Teacher | PolicyTeacher | None,
    log_density: jax.Array | None,
    policy: Policy,
    num_actions: int | None,
) -> OfflineStates:
    """The objective on all states of the data, labelled once for the whole run."""
    statistics = transitions.statistics(settings.min_std)
    if objective.needs_density and settings.weighs_states and log_density is None:
        normalized = statistics.apply(transitions.observations)
        log_density = estimate_log_density(stream(key, Stream.DENSITY), normalized, settings.density, settings.flow)
    tau = None
    if settings.effective_sample_size is not None and log_density is not None:
        tau = exponent_of(log_density, settings.effective_sample_size)
    # Of discrete actions the objective compares probabilities.
    sampled = settings.objective_actions == "sample" and num_actions is None
    labelled = label_states(
        transitions,
        statistics,
        teacher if objective.needs_teacher else None,
        log_density,
        settings.density_exponent if tau is None else tau,
        stream(key, Stream.LABELS) if sampled else None,
        num_actions,
    )
    mean = labelled.mean_action_value
    if objective.weighs_by_value and mean is not None and not float(mean) > 0:
        raise ValueError(
            f"teacher: {objective.name} weighs states by action values, expected a mean above 0, got "
            f"{float(mean):.4g}; teach it with rewards shifted by --reward-bias, or take pbc"
        )
    if "critic" in objective.needs:
        values = cast(jax.Array, labelled.action_values)
        labelled = replace(labelled, critic=Critic.of(cast(Teacher, teacher), statistics, values))
    return OfflineStates(
        labelled,
        statistics,
        teacher if sampled and objective.needs_teacher and isinstance(teacher, Teacher) else None,
        policy,
        objective,
        settings.num_states,
        settings.objective_actions,
        AliasTable.of(cast(jax.Array, labelled.state_weights)) if settings.draw_by_weight else None,
    )


def _check(
    env: AnyEnvironment,
    transitions: Transitions,
    objective: StateObjective,
    settings: OfflineSettings,
    teacher: Teacher | PolicyTeacher | None,
) -> None:
    transitions.check_fits(env)
    if settings.dataset_size > transitions.num_transitions:
        raise ValueError(
            f"dataset_size: expected at most {transitions.num_transitions}, the transitions of the data, "
            f"got {settings.dataset_size}"
        )
    if not objective.needs_density and (settings.effective_sample_size is not None or settings.draw_by_weight):
        name = "draw_by_weight" if settings.draw_by_weight else "effective_sample_size"
        raise ValueError(f"{name}: expected none, as {objective.name} weighs no states")
    if teacher is not None:
        teacher.check_fits(env)
        ranks = "highest_q" in settings.initialization
        if (objective.needs_values or ranks) and not isinstance(teacher, Teacher):
            what = settings.initialization if ranks else objective.name
            raise ValueError(f"teacher: {what} needs action values, expected a teacher that has them, got a policy")
        if settings.objective_actions == "sample" and not isinstance(teacher, Teacher) and not transitions.discrete:
            raise ValueError("objective_actions: expected mode, as the teacher is a policy, got sample")
    elif objective.needs_teacher:
        raise ValueError(f"teacher: {objective.name} needs one, such as hades offline teach trains, got none")
    elif "highest_q" in settings.initialization:
        raise ValueError(f"teacher: initialization {settings.initialization} needs one, got none")
    elif settings.first_actions == "teacher":
        raise ValueError("teacher: first_actions teacher needs one, got none")
