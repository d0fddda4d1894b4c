"""`hades bench objectives`: whether the value that an objective gives a policy on offline states predicts its score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments import tables
from experiments.bench._lib.base import Bench, BenchSettings, Report, tell
from experiments.bench._lib.files import DatasetFile, TrainingSettings, read_file
from experiments.bench._lib.seeds import normalize, scale, table_key
from experiments.cli import BadArgumentsError
from experiments.loading import load_teacher, outcome_file
from hades._files import refusing
from hades.evaluation import DatasetEvaluator
from hades.fitness import PresentPolicies
from hades.inner import cloning
from hades.keys import Stream, stream
from hades.normalization import Normalizer
from hades.objectives import states
from hades.objectives.states import Critic, LabelledStates, OfflineStates, StateObjective
from hades.offline import Teacher, Transitions, d4rl
from hades.offline.density import DensityName, FlowSettings, estimate_log_density, exponent_of
from hades.offline.labels import label_states
from hades.offline.scores import score_reference
from hades.statistics import rank_correlation
from hades.types import AnyEnvironment, Discrete, Params

# Those that no density and no critic is at hand for are left out.
_OBJECTIVES = (states.dbc, states.pbc, states.av_pbc, states.sdw_av_pbc, states.critic_value, states.q_pbc)
# Also measured on the states of the best trajectories, where a good policy will be.
_ON_BEST = (states.pbc, states.av_pbc, states.critic_value)
_BEST_FRACTION = 0.25
_NOTE = (
    "Spearman's rank correlation of the value of an objective with the score of the same policies, and 95 % intervals "
    "of Fisher's z, with the jackknife over seeds, whose datasets begin at the same pairs: over datasets, means over "
    "the policies of each; over datasets less the means of their methods; over single policies. States are drawn with "
    "a key that no run has, from the data that were distilled. best quarter: states of the quarter of the trajectories "
    "of the highest returns."
)
_HEADER = ("value of", "datasets", "95 %", "within methods", "95 %", "policies", "95 %")


@dataclass(frozen=True, kw_only=True)
class ObjectivesSettings(BenchSettings, TrainingSettings):
    """Correlates the values of offline objectives with scores, over the policies that dataset files train.

    Files are best those of several methods and seeds on one body, as hades bench offline --datasets writes them.
    """

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Dataset files, or run directories, four or more, of one environment and one offline dataset."""
    data: Path
    """HDF5 file that they were distilled from."""
    teacher: Path | None = None
    """Teacher file, or a policy or a baseline's run, which has no action values; default: none, which leaves dbc."""
    trajectory_steps: int | None = None
    """Steps after which a trajectory of the data is cut off, where the file has no timeouts; default: not at all."""
    env: str | None = None
    """Environment to play in; default: the one that the files name."""
    num_episodes: int = 5
    """Episodes of each policy."""
    num_states: int = 8192
    """Offline states that objectives are valued at, the same for all policies."""
    density: DensityName | None = None
    """Density estimate of sdw-av-pbc: flow or knn; default: none, which leaves it out."""
    effective_sample_size: float = 0.5
    """Fraction of the states that its weights are worth."""
    flow: FlowSettings = FlowSettings()
    """The flow."""

    def __post_init__(self) -> None:
        """Refuses also few files, and numbers out of range."""
        super().__post_init__()
        self.require_positive("num_inits", "num_states", "trajectory_steps")
        if len(self.files) < 4:
            raise ValueError(f"files: expected four or more, got {len(self.files)}")
        if not 0 < self.effective_sample_size <= 1:
            raise ValueError(
                f"effective_sample_size: expected a fraction above 0 and at most 1, got {self.effective_sample_size}"
            )

    def void_flags(self) -> dict[str, str]:
        """Flags of a density that is not estimated."""
        void = {} if self.density == "flow" else {"--flow.": "without --density flow"}
        return void if self.density is not None else {**void, "--effective-sample-size": "without --density"}


def measure(settings: ObjectivesSettings, report: Report) -> None:
    """Trains, values and plays with the policies of every file, and correlates."""
    files = [read_file(path, settings.env) for path in settings.files]
    env = files[0].env
    measures = _Measures(settings, env, files)
    reference = score_reference(env.name)
    report.content.update(
        env=env.name, scale=scale(reference), data=d4rl.load_attributes(settings.data), note=_NOTE,
        num_states=settings.num_states, num_inits=settings.num_inits, num_episodes=settings.num_episodes,
    )  # fmt: skip
    rows: list[dict[str, Any]] = []
    for index, file in enumerate(files):
        # One environment for all files shares the compiled rollout.
        inner = cloning.from_settings(env, file.own)
        evaluator = DatasetEvaluator(
            env, inner, settings.num_inits, settings.num_episodes, file.metadata.action_selection
        )
        key = table_key(settings.seed, index)
        policies = evaluator.train(key, file.dataset)
        played = evaluator.play(key, policies, file.dataset.normalizer())
        scores = normalize(played.returns, reference).mean(axis=1)
        values = {name: value(inner.policy, policies) for name, value in measures.values.items()}
        row = {"file": str(file.source), "method": file.metadata.method, "seed": file.metadata.seed}
        rows.append({**row, "scores": scores.tolist(), "values": values})
        tell(f"{file.source}: {scores.mean():.1f}")
        report.add(files=rows)
    report.add(spread=spread(rows), correlations={name: correlate(rows, name) for name in measures.values})


class _Measures:
    """Objectives on one draw of labelled states.

    Attributes:
        values: Functions of a policy and of parameters `[1, inits, ...]`, by name: values of the inits.
    """

    def __init__(self, settings: ObjectivesSettings, env: AnyEnvironment, files: Sequence[DatasetFile]) -> None:
        self._settings = settings
        self._key = stream(jax.random.key(settings.seed), Stream.REPORT)
        transitions = d4rl.load(settings.data, None, settings.trajectory_steps)
        with refusing(f"--data: {settings.data}", BadArgumentsError):
            transitions.check_fits(env)
        statistics = _statistics(transitions, settings.data, files)
        labelled = self._label(transitions, statistics, env)
        known = [objective for objective in _OBJECTIVES if self._has(labelled, objective)]
        best = labelled.take(jnp.asarray(_of_best_trajectories(transitions)))
        self.values = {objective.name: self._valued(objective, labelled, statistics) for objective in known}
        for objective in _ON_BEST:
            if objective in known:
                self.values[f"{objective.name}, best quarter"] = self._valued(objective, best, statistics)

    def _has(self, labelled: LabelledStates, objective: StateObjective) -> bool:
        if objective.needs_density and self._settings.density is None:
            return False
        return all(getattr(labelled, name) is not None for name in objective.needs)

    def _label(self, transitions: Transitions, statistics: Normalizer, env: AnyEnvironment) -> LabelledStates:
        settings, teacher, log_density, exponent = self._settings, None, None, 0.0
        if settings.teacher is not None:
            teacher = load_teacher(outcome_file(settings.teacher), env)
            with refusing(f"--teacher: {settings.teacher}", BadArgumentsError):
                teacher.check_fits(env)
        if settings.density is not None:
            normalized = statistics.apply(transitions.observations)
            key = stream(self._key, Stream.DENSITY)
            log_density = estimate_log_density(key, normalized, settings.density, settings.flow)
            exponent = exponent_of(log_density, settings.effective_sample_size)
        num_actions = env.action_space.num_actions if isinstance(env.action_space, Discrete) else None
        labelled = label_states(transitions, statistics, teacher, log_density, exponent, None, num_actions)
        if isinstance(teacher, Teacher) and labelled.action_values is not None:
            labelled = replace(labelled, critic=Critic.of(teacher, statistics, labelled.action_values))
        return labelled

    def _valued(
        self, objective: StateObjective, labelled: LabelledStates, statistics: Normalizer
    ) -> Callable[[Any, Params], list[float]]:
        """Values of the inits of a policy by one objective, on states that every call shares."""

        def build(policy: Any) -> OfflineStates:
            return OfflineStates(labelled, statistics, None, policy, objective, self._settings.num_states)

        policies = PresentPolicies(self._settings.num_inits)
        problem, _, _ = build(None).draw(stream(self._key, Stream.LABELS), (), policies)
        value = jax.jit(lambda policy, problem, params: build(policy).value(problem, params)[0], static_argnums=0)

        def of_inits(policy: Any, params: Params) -> list[float]:
            found: list[float] = np.asarray(value(policy, problem, params)[0]).tolist()
            return found

        return of_inits


def _statistics(transitions: Transitions, data: Path, files: Sequence[DatasetFile]) -> Normalizer:
    """Statistics of the files, which are those of the data, and of one environment.

    Raises:
        BadArgumentsError: They are others.
    """
    found, mean = files[0].dataset.normalizer(), np.asarray(transitions.statistics().mean)
    for file in files:
        own = file.dataset.normalizer()
        if file.env.name != files[0].env.name:
            raise BadArgumentsError(
                f"{file.source}: expected the env of {files[0].source}, {files[0].env.name}, got {file.env.name}"
            )
        if own.mean is None or not np.allclose(own.mean, mean, rtol=1e-3, atol=1e-4):
            raise BadArgumentsError(f"{file.source}: expected a dataset that was distilled from {data}")
    return found


def _of_best_trajectories(transitions: Transitions) -> np.ndarray:
    """Indices of the transitions of the quarter of the trajectories with the highest returns."""
    trajectories = transitions.trajectories()
    returns = np.asarray(transitions.trajectory_returns())
    best = returns >= np.quantile(returns, 1 - _BEST_FRACTION)
    return np.flatnonzero(np.repeat(best, np.asarray(trajectories.lengths)))


def spread(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Standard deviations of scores over the inits of a dataset and over datasets.

    Args:
        rows: Of each file `scores` `[inits]`.

    Returns:
        `inits` (root mean square over datasets), `datasets`, and `by_inits_alone`, that of the means of datasets which
        are all alike; None where there is one init.
    """
    scores = np.array([row["scores"] for row in rows])
    found = {"inits": None, "datasets": float(scores.mean(axis=1).std(ddof=1)), "by_inits_alone": None}
    if scores.shape[1] == 1:
        return found
    own = float(np.sqrt(scores.var(axis=1, ddof=1).mean()))
    return {**found, "inits": own, "by_inits_alone": own / scores.shape[1] ** 0.5}


def correlate(rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Rank correlations of the values of one objective with scores.

    Args:
        rows: Of each file `method`, `seed`, `scores` `[inits]` and `values`, a list `[inits]` by the objective's name.
        name: Name of the objective.

    Returns:
        `datasets`, `within_methods` and `policies`, each a `correlation` and its `ci95`, None where it is unknown.
    """
    values = np.array([row["values"][name] for row in rows])
    scores = np.array([row["scores"] for row in rows])
    means = values.mean(axis=1), scores.mean(axis=1)
    methods, seeds = (np.array([row[field] for row in rows]) for field in ("method", "seed"))
    own = [np.array([series[methods == method].mean() for method in methods]) for series in means]
    found = {
        "datasets": rank_correlation(*means, seeds),
        "within_methods": rank_correlation(means[0] - own[0], means[1] - own[1], seeds),
        "policies": rank_correlation(values.ravel(), scores.ravel(), np.repeat(seeds, scores.shape[1])),
    }
    return {
        kind: {"correlation": None if np.isnan(correlation) else correlation, "ci95": tables.ends(interval)}
        for kind, (correlation, interval) in found.items()
    }


def render(result: Mapping[str, Any]) -> str:
    """Table of the correlations."""
    files, inits = len(result["files"]), result["num_inits"]
    title = f"rank correlation with {result['scale']} in {result['env']}, {files} datasets, {files * inits} policies"
    rows = [(name, *sum(map(_cells, found.values()), ())) for name, found in result["correlations"].items()]
    text, own = tables.table(title, _HEADER, rows), result["spread"]
    if own["inits"] is None:
        return text
    return f"""{text}
standard deviation of scores: {own["inits"]:.1f} over the inits of a dataset, {own["datasets"]:.1f} over the means of \
datasets, which inits alone would make {own["by_inits_alone"]:.1f}"""


def _cells(entry: Mapping[str, Any]) -> tuple[str, str]:
    correlation, ends = entry["correlation"], entry["ci95"]
    interval = "-" if ends is None else f"[{ends[0]:.2f}, {ends[1]:.2f}]"
    return "-" if correlation is None else f"{correlation:.2f}", interval


BENCH = Bench(ObjectivesSettings, measure, render)
