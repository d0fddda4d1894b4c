"""`hades bench offline`: DBC, PBC, Av-PBC and SDW on one offline dataset, several seeds at once, and their scores."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments import tables
from experiments.arguments import parse
from experiments.bench._lib.memory import peak_bytes
from experiments.bench._lib.results import deliver, provenance
from experiments.bench._lib.seeds import fresh_key, normalize, scale, score_seeds
from experiments.cli import BadArgumentsError
from experiments.environments import EnvironmentOptions, environment_of
from hades._serialization import to_dict
from hades._validation import require_positive
from hades.dataset import SyntheticDataset
from hades.evaluation import DatasetEvaluator, evaluate, zero_dataset
from hades.inner import cloning
from hades.inner.cloning import CloningSettings
from hades.normalization import PolicyParams
from hades.objectives.states import ObjectiveName
from hades.offline import Teacher, Transitions, d4rl
from hades.offline.density import estimate_log_density
from hades.offline.scores import score_reference
from hades.offline.teacher import teacher_policy
from hades.recipes.offline import OfflineSettings, offline_run
from hades.run import Run, RunState
from hades.types import AnyEnvironment, Metrics, PyTree

METHODS: tuple[ObjectiveName, ...] = ("dbc", "pbc", "pbc-mean-weight", "av-pbc", "sdw-pbc", "sdw-av-pbc")


@dataclass(frozen=True, kw_only=True)
class OfflineBenchSettings:
    """Distils one offline dataset by several objectives, and scores fresh policies beside what knows nothing.

    All seeds of an objective run at once, by vmap. What is scored is the last iterate. In the same table: random real
    pairs, an all-zero dataset, untrained policies, behaviour cloning on all of the data, and the teacher.
    """

    data: Path
    """HDF5 file in D4RL's layout."""
    teacher: Path
    """Teacher file."""
    env: str | None = None
    """Environment to play in; none is the one that the data file names."""
    options: Annotated[EnvironmentOptions, tyro.conf.arg(name="")] = EnvironmentOptions()
    """What besides its name makes the environment."""
    methods: tuple[ObjectiveName, ...] = METHODS
    """Objectives."""
    num_seeds: int = 5
    """Seeds of each."""
    num_steps: int = 2000
    """Outer steps of each."""
    seconds: float | None = None
    """Seconds after which an objective ends with the steps that it has done; none is no such limit."""
    evaluation_inits: int = 4
    """Fresh policies of each seed's dataset."""
    evaluation_episodes: int = 5
    """Episodes of each."""
    ensemble: int = 10
    """Policies of the ensembles that are trained on the pairs of av-pbc; 1 leaves that row out."""
    all_data_steps: int = 5000
    """Steps of behaviour cloning on all of the data, with minibatches of 256 and adam; 0 leaves that row out."""
    settings: Annotated[OfflineSettings, tyro.conf.arg(name="")] = OfflineSettings()
    """All else of the methods."""
    seed: int = 0
    """Seed of all random numbers."""
    datasets: Path | None = None
    """Folder for the dataset of every objective and seed, OBJECTIVE-seedN.npz; none keeps none."""
    out: Path | None = None
    """JSON file to write."""
    json: bool = False
    """Prints one JSON object as the last line of stdout, and everything else on stderr."""

    def __post_init__(self) -> None:
        """Refuses counts that are not positive."""
        for name in ("num_seeds", "num_steps", "evaluation_inits", "evaluation_episodes", "ensemble"):
            require_positive(name, getattr(self, name))


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark and returns its exit code."""
    settings = parse(OfflineBenchSettings, "bench offline", arguments)
    bench = _Bench(settings)
    rows = {}
    for name, measure in bench.rows().items():
        started = time.monotonic()
        rows[name] = measure() | {"total_seconds": time.monotonic() - started}
        print(f"{name}: {rows[name]['iqm']:.1f} {tables.interval(rows[name]['ci95'])}", flush=True)
        report = provenance("offline", arguments) | bench.describe() | {"rows": rows, "peak_bytes": peak_bytes()}
        if settings.out is not None:
            # After every row, so that what is stopped leaves what it has measured.
            deliver(report, settings.out, as_json=False)
    header = ("", "IQM", "95 % trimmed t interval", "mean", "outer steps", "seconds")
    title = f"{bench.scale} in {bench.env.name}, N = {settings.settings.dataset_size}, {settings.num_seeds} seeds"
    print(tables.table(title, header, [_cells(name, row) for name, row in rows.items()]))
    deliver(report, None, settings.json)
    return 0


def _cells(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    steps, seconds = row.get("outer_steps"), row.get("seconds")
    return (
        name,
        f"{row['iqm']:.1f}",
        tables.interval(row["ci95"]),
        f"{np.mean(row['scores']):.1f}",
        "-" if steps is None else str(steps),
        "-" if seconds is None else f"{seconds:.0f}",
    )


class _Bench:
    """Data, teacher and evaluation that all rows of the table share."""

    def __init__(self, settings: OfflineBenchSettings) -> None:
        self._settings = settings
        self._transitions: Transitions = d4rl.load(settings.data)
        self.env: AnyEnvironment = environment_of(settings.data, settings.env, settings.options)
        self._teacher = Teacher.load(settings.teacher)
        try:
            self._transitions.check_fits(self.env)
            self._teacher.check_fits(self.env)
        except ValueError as error:
            raise BadArgumentsError(str(error)) from None
        self._reference = score_reference(self.env.name)
        # Seed i of the table is the run of `hades offline distill --seed i` where --seed is 0.
        self._keys = jnp.stack([jax.random.key(settings.seed + index) for index in range(settings.num_seeds)])
        self._evaluator = self._make_evaluator(1)
        self._log_density: jax.Array | None = None
        self._ours: dict[str, list[SyntheticDataset]] = {}

    @property
    def scale(self) -> str:
        """What the numbers are."""
        return scale(self._reference)

    def describe(self) -> dict[str, Any]:
        """What the file says beside its rows."""
        returns = normalize(np.asarray(self._transitions.trajectory_returns()), self._reference)
        return {
            "env": self.env.name,
            "scale": self.scale,
            "num_transitions": self._transitions.num_transitions,
            "data": d4rl.load_attributes(self._settings.data),
            "data_trajectories": len(returns),
            "data_mean_score": float(returns.mean()),
            "settings": to_dict(self._settings.settings),
            "num_seeds": self._settings.num_seeds,
            "evaluation": {"inits": self._settings.evaluation_inits, "episodes": self._settings.evaluation_episodes},
        }

    def rows(self) -> dict[str, Callable[[], dict[str, Any]]]:
        """What measures each row, by its name, in the order of the table."""
        settings = self._settings
        rows: dict[str, Callable[[], dict[str, Any]]] = {
            "untrained policy": self._untrained,
            "zero dataset": self._zero,
            "random real pairs": self._random,
        }
        for method in settings.methods:
            rows[method] = lambda method=method: self._distil(method)  # type: ignore[misc]
        if "av-pbc" in settings.methods and settings.ensemble > 1:
            rows[f"av-pbc, ensemble of {settings.ensemble}"] = self._ensemble
        if settings.all_data_steps:
            rows["behaviour cloning on all data"] = self._all_data
        rows["teacher"] = self._play_teacher
        return rows

    def _make_evaluator(self, ensemble: int) -> DatasetEvaluator:
        clone = cloning.from_settings(self.env, self._settings.settings.cloning)
        return DatasetEvaluator(
            self.env,
            clone,
            self._settings.evaluation_inits,
            self._settings.evaluation_episodes,
            self._settings.settings.action_selection,
            ensemble=ensemble,
        )

    def _summary(self, returns: Sequence[np.ndarray]) -> dict[str, Any]:
        """Scores of seeds, whose returns are `[inits, episodes]` each."""
        return score_seeds(returns, self._reference)

    def _evaluate(self, datasets: Sequence[SyntheticDataset], evaluator: DatasetEvaluator) -> dict[str, Any]:
        return self._summary([evaluator(self._fresh(index), dataset).returns for index, dataset in enumerate(datasets)])

    def _fresh(self, index: int) -> jax.Array:
        """Keys that no run has, the same for all methods."""
        return fresh_key(self._settings.seed, index)

    def _make_run(self, method: ObjectiveName) -> Run[SyntheticDataset]:
        settings = dataclasses.replace(self._settings.settings, objective=method)
        if settings.needs_density and self._log_density is None:
            normalized = self._transitions.statistics(settings.min_std).apply(self._transitions.observations)
            key = jax.random.fold_in(jax.random.key(self._settings.seed), np.uint32(2**32 - 7))
            self._log_density = estimate_log_density(key, normalized, settings.density, settings.flow)
        try:
            return offline_run(self.env, self._transitions, settings, self._teacher, log_density=self._log_density)
        except ValueError as error:
            raise BadArgumentsError(str(error)) from None

    def _distil(self, method: ObjectiveName) -> dict[str, Any]:
        run = self._make_run(method)
        states, row = run_seeds(run, self._keys, self._settings.num_steps, self._settings.seconds)
        datasets = _datasets(run, states)
        self._ours[method] = datasets
        if self._settings.datasets is not None:
            self._settings.datasets.mkdir(parents=True, exist_ok=True)
            for index, dataset in enumerate(datasets):
                run.describe(dataset, self._settings.seed + index).save(
                    self._settings.datasets / f"{method}-seed{index}.npz"
                )
        return row | self._evaluate(datasets, self._evaluator)

    @cached_property
    def _random_pairs(self) -> list[SyntheticDataset]:
        # Pairs of any objective; this one labels no states.
        settings = dataclasses.replace(self._settings.settings, objective="dbc", initialization="random")
        run = offline_run(self.env, self._transitions, settings)
        data, init, _ = run.with_data
        return _datasets(run, jax.jit(jax.vmap(init, in_axes=(None, 0)))(data, self._keys))

    def _random(self) -> dict[str, Any]:
        return self._evaluate(self._random_pairs, self._evaluator)

    def _zero(self) -> dict[str, Any]:
        return self._evaluate([zero_dataset(dataset) for dataset in self._random_pairs], self._evaluator)

    def _untrained(self) -> dict[str, Any]:
        normalizer = self._transitions.statistics(self._settings.settings.min_std)
        count = range(len(self._keys))
        return self._summary([self._evaluator.untrained(self._fresh(index), normalizer).returns for index in count])

    def _ensemble(self) -> dict[str, Any]:
        return self._evaluate(self._ours["av-pbc"], self._make_evaluator(self._settings.ensemble))

    def _all_data(self) -> dict[str, Any]:
        inner = self._settings.settings.cloning
        budget = CloningSettings(
            **{field: getattr(inner, field) for field in ("policy", "hidden_sizes", "activation", "kernel_init")},
            action_distribution=inner.action_distribution,
            loss="mse",
            learning_rate=1e-3,
            num_steps=self._settings.all_data_steps,
            batch_size=256,
        )
        evaluator = self._evaluator.with_inner_loop(cloning.from_settings(self.env, budget))
        normalizer = self._transitions.statistics(self._settings.settings.min_std)
        everything = SyntheticDataset(
            normalizer.apply(self._transitions.observations),
            actions=self._transitions.actions,
            observation_mean=normalizer.mean,
            observation_std=normalizer.std,
        )
        return self._evaluate([everything] * len(self._keys), evaluator)

    def _play_teacher(self) -> dict[str, Any]:
        episodes = self._settings.evaluation_inits * self._settings.evaluation_episodes
        params = PolicyParams(self._teacher)
        played = evaluate(self._fresh(0), self.env, teacher_policy, params, episodes * len(self._keys), "mode")
        return self._summary(np.split(played.returns, len(self._keys), axis=1))


def _datasets(run: Run[SyntheticDataset], states: RunState) -> list[SyntheticDataset]:
    """The dataset of each seed of states `[seeds]`."""
    return [run.dataset(jax.tree.map(lambda leaf: leaf[index], states)) for index in range(len(states.generation))]  # noqa: B023


def run_seeds(
    run: Run[SyntheticDataset], keys: jax.Array, num_steps: int, seconds: float | None = None, chunk: int = 20
) -> tuple[RunState, dict[str, Any]]:
    """Runs several seeds at once, compilation apart.

    Args:
        run: The run.
        keys: Keys of the runs, `[seeds]`.
        num_steps: Outer steps, rounded up to whole chunks.
        seconds: After which no further chunk begins.
        chunk: Outer steps of a compiled call.

    Returns:
        States with a leading axis `[seeds]`; and `outer_steps`, `seconds`, `compile_seconds`,
        `seconds_per_step` (median over chunks) and `objective`, means over chunks `[chunks, seeds]`.
    """
    data, init, step = run.with_data

    @jax.jit
    def advance(data: PyTree, states: RunState) -> tuple[RunState, Metrics]:
        def body(states: RunState, _: None) -> tuple[RunState, Metrics]:
            return jax.vmap(step, in_axes=(None, 0))(data, states)

        return jax.lax.scan(body, states, None, length=chunk)

    states = jax.block_until_ready(jax.jit(jax.vmap(init, in_axes=(None, 0)))(data, keys))
    started = time.perf_counter()
    compiled = advance.lower(data, states).compile()
    compile_seconds = time.perf_counter() - started
    times: list[float] = []
    objective, non_finite = [], 0
    while len(times) * chunk < num_steps and (seconds is None or sum(times) < seconds):
        started = time.perf_counter()
        states, metrics = jax.block_until_ready(compiled(data, states))
        times.append(time.perf_counter() - started)
        objective.append(np.asarray(jnp.mean(metrics["fitness_mean"], axis=0)).tolist())
        non_finite += int(jnp.sum(metrics["non_finite"]))
    return states, {
        "outer_steps": len(times) * chunk,
        "seconds": sum(times),
        "compile_seconds": compile_seconds,
        "seconds_per_step": float(np.median(times)) / chunk,
        "non_finite": non_finite,
        "objective": objective,
    }
