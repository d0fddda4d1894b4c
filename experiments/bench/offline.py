"""`hades bench offline`: DBC, PBC, Av-PBC and SDW on one offline dataset, several seeds at once, and their scores."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np

from experiments import tables, void
from experiments.bench._lib.base import Bench, Report, SeededBenchSettings, tell
from experiments.bench._lib.memory import peak_bytes
from experiments.bench._lib.seeds import normalize, scale, score_seeds, table_key
from experiments.cli import BadArgumentsError
from experiments.environments import EnvironmentOptions, environment_of
from experiments.loading import load_teacher, outcome_file
from experiments.registry import OBJECTIVES
from experiments.settings import Flat, choice
from hades._serialization import to_dict
from hades.dataset import SyntheticDataset
from hades.distillation import DatasetRun
from hades.evaluation import DatasetEvaluator, Evaluation, evaluate, zero_dataset
from hades.inner import cloning
from hades.inner.cloning import CloningLoss, CloningSettings
from hades.keys import Stream, stream
from hades.normalization import PolicyParams
from hades.objectives.states import StateObjective, av_pbc, dbc, pbc
from hades.offline import PolicyTeacher, Teacher, Transitions, d4rl
from hades.offline.density import estimate_log_density
from hades.offline.labels import teacher_actions
from hades.offline.scores import score_reference
from hades.offline.teacher import teacher_policy
from hades.policy_file import is_policy_file
from hades.recipes._resolve import resolve_loss
from hades.recipes.offline import OfflineSettings, offline_run
from hades.run import Run
from hades.statistics import mean_interval
from hades.training import LoopSettings, distill_seeds
from hades.types import AnyEnvironment, Discrete

METHODS = ("dbc", "pbc", "pbc-mean-weight", "av-pbc", "sdw-pbc", "sdw-av-pbc")
_INTERVAL = "95 % trimmed t interval"
_HEADER = ("", "IQM", _INTERVAL, "mean", "outer steps", "seconds", "ESS", "success", "95 % t interval")
_CALL_STEPS = 20
_SUCCESS = "success"
_ESS = "effective_sample_size"
_RANDOM = "random real pairs"


@dataclass(frozen=True, kw_only=True)
class OfflineBenchSettings(SeededBenchSettings):
    """Distils one offline dataset by several objectives, and scores fresh policies beside references.

    All seeds of an objective run at once, by vmap. Scored is the last iterate. In the same table: an untrained policy,
    an all-zero dataset, random real pairs, random states with the teacher's actions, behaviour cloning on all of the
    data and of the teacher on all of their states, and the teacher.
    """

    data: Path
    """HDF5 file in D4RL's layout."""
    teacher: Path | None = None
    """Teacher file, or a policy or a baseline's run, which has no action values; default: none, which leaves dbc and
    the references that need none."""
    trajectory_steps: int | None = None
    """Steps after which a trajectory of the data is cut off, where the file has no timeouts; default: not at all."""
    env: str | None = None
    """Environment to play in; default: the one that the data file names."""
    options: Annotated[EnvironmentOptions, Flat] = EnvironmentOptions()
    """Options of the environment."""
    methods: tuple[Annotated[str, choice(OBJECTIVES)], ...] | None = None
    """Objectives; default: all of the papers and the control; dbc and pbc where the teacher is a policy; dbc where
    there is none."""
    num_seeds: int = 5
    """Seeds of each."""
    num_steps: int = 2000
    """Outer steps of each."""
    seconds: float | None = None
    """Seconds after which an objective ends with the steps that it has done; default: no such limit."""
    evaluation_inits: int = 4
    """Fresh policies of each seed's dataset."""
    evaluation_episodes: int = 5
    """Episodes of each."""
    ensemble: int = 10
    """Policies of the ensembles that are trained on the pairs of av-pbc; 1 leaves that row out."""
    all_data_steps: int = 5000
    """Steps of cloning on all states, with minibatches of 256 and adam; 0 leaves these rows out."""
    settings: Annotated[OfflineSettings, Flat] = OfflineSettings()
    """All else of the methods."""
    datasets: Path | None = None
    """Folder for the dataset of every objective and seed, OBJECTIVE-seedN.npz; default: none."""

    def __post_init__(self) -> None:
        """Refuses also counts that are not positive, and unknown objectives."""
        super().__post_init__()
        self.require_positive("num_seeds", "num_steps", "evaluation_inits", "evaluation_episodes", "ensemble")
        for name in self.chosen:
            if name not in OBJECTIVES:
                raise ValueError(f"methods: expected some of {', '.join(OBJECTIVES)}, got {name!r}")
            if self.teacher is None and OBJECTIVES[name].needs_teacher:
                raise ValueError(f"teacher: {name} needs one, such as hades offline teach trains, got none")

    @property
    def chosen(self) -> tuple[str, ...]:
        """Objectives to compare."""
        if self.methods is not None:
            return self.methods
        if self.teacher is None:
            return (dbc.name,)
        return (dbc.name, pbc.name) if is_policy_file(outcome_file(self.teacher)) else METHODS

    def void_flags(self) -> dict[str, str]:
        """Flags of optimisers that do not read them, and of a density that no objective asks for."""
        method = self.settings
        return {
            **void.optimizer_flags("cloning", method.cloning),
            **void.optimizer_flags("meta-gradient", method.meta_gradient),
            **void.density_flags(method, any(OBJECTIVES[name].needs_density for name in self.chosen)),
        }


def measure(settings: OfflineBenchSettings, report: Report) -> None:
    """Measures every row."""
    table = _Table(settings)
    rows: dict[str, Any] = {}
    report.content.update(table.describe())
    for name, measure_row in table.rows().items():
        started = time.monotonic()
        rows[name] = measure_row() | {"total_seconds": time.monotonic() - started}
        tell(f"{name}: {rows[name]['iqm']:.1f} {tables.interval(rows[name]['ci95'])}")
        report.add(rows=rows, peak_bytes=peak_bytes())


class _Table:
    """Data, teacher and evaluation that all rows of the table share."""

    def __init__(self, settings: OfflineBenchSettings) -> None:
        self._settings = settings
        self._transitions: Transitions = d4rl.load(settings.data, None, settings.trajectory_steps)
        self.env: AnyEnvironment = environment_of(settings.data, settings.env, settings.options)
        self._teacher: Teacher | PolicyTeacher | None = None
        if settings.teacher is not None:
            self._teacher = load_teacher(outcome_file(settings.teacher), self.env)
        try:
            self._transitions.check_fits(self.env)
            if self._teacher is not None:
                self._teacher.check_fits(self.env)
        except ValueError as error:
            raise BadArgumentsError(str(error)) from None
        self._normalizer = self._transitions.statistics(settings.settings.min_std)
        own = d4rl.load_attributes(settings.data) if self.env.name == self._transitions.env else None
        self._reference = score_reference(self.env.name, own)
        self._cloning = resolve_loss(self.env, settings.settings.cloning, "mse")
        # Seed i of the table is the run of `hades offline distill --seed i` where --seed is 0.
        self._keys = jnp.stack([jax.random.key(settings.seed + index) for index in range(settings.num_seeds)])
        self._evaluator = self._make_evaluator(1)
        self._log_density: jax.Array | None = None
        self._distilled: dict[str, list[SyntheticDataset]] = {}

    def describe(self) -> dict[str, Any]:
        """Parts of the result beside its rows."""
        returns = normalize(np.asarray(self._transitions.trajectory_returns()), self._reference)
        return {
            "env": self.env.name,
            "scale": scale(self._reference),
            "num_transitions": self._transitions.num_transitions,
            "data": d4rl.load_attributes(self._settings.data),
            "data_trajectories": len(returns),
            "data_mean_score": float(returns.mean()),
            "settings": to_dict(dataclasses.replace(self._settings.settings, cloning=self._cloning)),
            "num_seeds": self._settings.num_seeds,
            "evaluation": {"inits": self._settings.evaluation_inits, "episodes": self._settings.evaluation_episodes},
        }

    def rows(self) -> dict[str, Callable[[], dict[str, Any]]]:
        """Functions that measure the rows, by name, in the order of the table."""
        settings, teacher = self._settings, self._teacher
        rows: dict[str, Callable[[], dict[str, Any]]] = {
            "untrained policy": self._untrained,
            "zero dataset": lambda: self._evaluate([zero_dataset(pairs) for pairs in self._references[_RANDOM]]),
            **{name: partial(self._evaluate_reference, name) for name in self._references},
            **{method: partial(self._distil, method) for method in settings.chosen},
        }
        if av_pbc.name in settings.chosen and settings.ensemble > 1:
            rows[f"{av_pbc.name}, ensemble of {settings.ensemble}"] = self._ensemble
        if settings.all_data_steps:
            rows["behaviour cloning on all data"] = lambda: self._all_data(self._transitions.actions)
        if settings.all_data_steps and teacher is not None:
            rows["cloning the teacher on all states"] = lambda: self._all_data(
                teacher_actions(teacher, self._transitions.observations)
            )
        if teacher is not None:
            rows["teacher"] = partial(self._play_teacher, teacher)
        return rows

    def _make_evaluator(self, ensemble: int) -> DatasetEvaluator:
        clone = cloning.from_settings(self.env, self._cloning)
        return DatasetEvaluator(
            self.env,
            clone,
            self._settings.evaluation_inits,
            self._settings.evaluation_episodes,
            self._settings.settings.action_selection,
            ensemble=ensemble,
        )

    def _evaluate(
        self, datasets: Sequence[SyntheticDataset], evaluator: DatasetEvaluator | None = None
    ) -> dict[str, Any]:
        """Scores of a dataset of each seed, by the shared evaluator where there is no other."""
        evaluator = evaluator or self._evaluator
        return self._score([evaluator(self._key(index), dataset) for index, dataset in enumerate(datasets)])

    def _score(self, evaluations: Sequence[Evaluation]) -> dict[str, Any]:
        """Scores of each seed's evaluation, and its rate of success where the simulator says it."""
        row = score_seeds([evaluation.returns for evaluation in evaluations], self._reference)
        rates = [evaluation.success_rate for evaluation in evaluations if evaluation.success_rate is not None]
        if not rates:
            return row
        # The mean, as an interquartile one leaves rare successes out.
        low, high = np.clip(mean_interval(np.array(rates)), 0, 1)
        return row | {_SUCCESS: {"rates": rates, "mean": float(np.mean(rates)), "ci95": tables.ends((low, high))}}

    def _key(self, index: int) -> jax.Array:
        """Key of an evaluation, the same for all methods."""
        return table_key(self._settings.seed, index)

    def _make_run(self, method: str) -> Run[SyntheticDataset]:
        objective = OBJECTIVES[method]
        settings = _settings_for(objective, self._settings.settings)
        key = stream(jax.random.key(self._settings.seed), Stream.DENSITY)
        if objective.needs_density and settings.weighs_states and self._log_density is None:
            # Once for all objectives; a run of `hades offline distill` estimates the same.
            normalized = self._normalizer.apply(self._transitions.observations)
            density_key = stream(key, Stream.DENSITY)
            self._log_density = estimate_log_density(density_key, normalized, settings.density, settings.flow)
        try:
            return offline_run(
                self.env,
                self._transitions,
                objective,
                settings,
                self._teacher,
                log_density=self._log_density,
                key=key,
            )
        except ValueError as error:
            raise BadArgumentsError(str(error)) from None

    def _distil(self, method: str) -> dict[str, Any]:
        run = self._make_run(method)
        datasets, row = run_seeds(run, self._keys, self._settings.num_steps, self._settings.seconds)
        self._distilled[method] = datasets
        if self._settings.datasets is not None:
            self._settings.datasets.mkdir(parents=True, exist_ok=True)
            for index, dataset in enumerate(datasets):
                dataset.save(self._settings.datasets / f"{method}-seed{index}.npz")
        return row | self._evaluate(datasets)

    @cached_property
    def _references(self) -> dict[str, list[SyntheticDataset]]:
        """Pairs of every seed that the data give without distillation, by name."""
        # Pairs of any objective; this one labels no states.
        labels: Literal["data", "teacher"] = "data" if self._teacher is None else "teacher"
        own = _settings_for(dbc, self._settings.settings)
        settings = dataclasses.replace(own, initialization="random", first_actions=labels)
        run = cast(DatasetRun, offline_run(self.env, self._transitions, dbc, settings, self._teacher))
        drawn = [run.references(key) for key in self._keys]
        return {name: [found[name] for found in drawn] for name in drawn[0]}

    def _evaluate_reference(self, name: str) -> dict[str, Any]:
        return self._evaluate(self._references[name])

    def _untrained(self) -> dict[str, Any]:
        seeds = range(len(self._keys))
        return self._score([self._evaluator.untrained(self._key(index), self._normalizer) for index in seeds])

    def _ensemble(self) -> dict[str, Any]:
        return self._evaluate(self._distilled[av_pbc.name], self._make_evaluator(self._settings.ensemble))

    def _all_data(self, actions: jax.Array) -> dict[str, Any]:
        """Scores of cloning on all states; discrete actions are numbers `[transitions]` or have probabilities."""
        steps, network = self._settings.all_data_steps, vars(self._cloning.network_settings)
        space = self.env.action_space
        loss: CloningLoss = "cross_entropy" if isinstance(space, Discrete) else "mse"
        budget = CloningSettings(**network, loss=loss, learning_rate=1e-3, num_steps=steps, batch_size=256)
        evaluator = self._evaluator.with_inner_loop(cloning.from_settings(self.env, budget))
        data, normalizer = self._transitions, self._normalizer
        if isinstance(space, Discrete) and actions.ndim == 1:
            actions = jax.nn.one_hot(actions, space.num_actions)
        everything = SyntheticDataset(
            normalizer.apply(data.observations),
            None if isinstance(space, Discrete) else actions,
            actions if isinstance(space, Discrete) else None,
            normalizer.mean,
            normalizer.std,
        )
        return self._evaluate([everything] * len(self._keys), evaluator)

    def _play_teacher(self, teacher: Teacher | PolicyTeacher) -> dict[str, Any]:
        episodes = self._settings.evaluation_inits * self._settings.evaluation_episodes
        policy, params = teacher_policy, PolicyParams(teacher)
        if isinstance(teacher, PolicyTeacher):
            policy, params = teacher.architecture, teacher.params
        played = evaluate(self._key(0), self.env, policy, params, episodes * len(self._keys), "mode")
        shares = np.split(np.arange(played.num_episodes), len(self._keys))
        return self._score([played.over_episodes(partial(np.take, indices=share, axis=1)) for share in shares])


def _settings_for(objective: StateObjective, settings: OfflineSettings) -> OfflineSettings:
    """Settings of one objective of the table, without those of weights where it weighs no states."""
    if objective.needs_density:
        return settings
    return dataclasses.replace(settings, effective_sample_size=None, draw_by_weight=False)


def run_seeds(
    run: Run[SyntheticDataset], keys: jax.Array, num_steps: int, seconds: float | None = None
) -> tuple[list[SyntheticDataset], dict[str, Any]]:
    """Runs several seeds at once.

    Args:
        run: Run.
        keys: Keys of the runs, `[seeds]`.
        num_steps: Outer steps.
        seconds: Seconds after which no further call begins, compilation counted in.

    Returns:
        The last dataset of each seed; and `outer_steps`, `seconds` (compilation counted in), `seconds_per_step` (median
        over calls), `non_finite` and `objective`, means over calls `[calls, seeds]`.

    Raises:
        KeyboardInterrupt: It was interrupted: what there is of the seeds is no row of a table.
    """
    loop = LoopSettings(
        iterations_per_call=_CALL_STEPS, log_every=_CALL_STEPS, evaluate_every=None, max_seconds=seconds
    )
    results = distill_seeds(keys, run, num_steps, loop=loop, progress=False)
    if not all(result.finished for result in results):
        raise KeyboardInterrupt
    histories = [result.history for result in results]
    calls = list(zip(*histories, strict=True))
    last = calls[-1]
    return [result.dataset for result in results], {
        "outer_steps": last[0]["iteration"],
        "seconds": last[0]["seconds"],
        "seconds_per_step": float(np.median([call[0]["seconds_per_iteration"] for call in calls])),
        "non_finite": sum(row["non_finite"] for call in calls for row in call),
        "objective": [[row["fitness_mean"] for row in call] for call in calls],
        **({_ESS: float(np.mean([row[_ESS] for row in last]))} if _ESS in last[0] else {}),
    }


def render(result: Mapping[str, Any]) -> str:
    """Table of the rows."""
    size, seeds = result["settings"]["dataset_size"], result["num_seeds"]
    title = f"{result['scale']} in {result['env']}, N = {size}, {seeds} seeds"
    rows = [_cells(name, row) for name, row in result["rows"].items()]
    # Not all data weigh states, and few simulators tell success.
    told = [c for c in range(len(_HEADER)) if any(row[c] != "-" for row in rows)]
    return tables.table(title, tuple(_HEADER[c] for c in told), [tuple(row[c] for c in told) for row in rows])


def _cells(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    steps, seconds, worth, success = row.get("outer_steps"), row.get("seconds"), row.get(_ESS), row.get(_SUCCESS)
    return (
        name,
        f"{row['iqm']:.1f}",
        tables.interval(row["ci95"]),
        f"{np.mean(row['scores']):.1f}",
        "-" if steps is None else str(steps),
        "-" if seconds is None else f"{seconds:.0f}",
        "-" if worth is None else f"{worth:.0%}",
        *(("-", "-") if success is None else (f"{success['mean']:.0%}", _percent(success["ci95"]))),
    )


def _percent(ends: Sequence[float] | None) -> str:
    return "-" if ends is None else f"[{ends[0]:.0%}, {ends[1]:.0%}]"


BENCH = Bench(OfflineBenchSettings, measure, render)
