"""`hades bench transfer`: other architectures, optimisers and ensembles on the dataset files of several seeds."""

from __future__ import annotations

import dataclasses
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import jax
import tyro

from experiments import tables
from experiments.arguments import parse
from experiments.bench._lib.grid import architecture, optimisers
from experiments.bench._lib.results import deliver, provenance, write
from experiments.bench._lib.seeds import fresh_key, scale, score_seeds
from experiments.bench._lib.variants import OWN, UNTRAINED, ZERO, Score, describe, score
from experiments.cli import BadArgumentsError
from experiments.environments import make_environment
from experiments.loading import check_dataset_fits, load_dataset
from experiments.settings import EvaluationSettings
from hades._serialization import to_dict
from hades._validation import require_positive
from hades.dataset import SyntheticDataset
from hades.evaluation import DatasetEvaluator, dataset_evaluator, zero_dataset
from hades.inner import cloning
from hades.inner.cloning import CloningSettings
from hades.multitask.merging import is_merged
from hades.offline.scores import score_reference
from hades.policies import PolicyName

TableName = Literal["architectures", "optimisers", "ensembles"]
TABLES: tuple[TableName, ...] = get_args(TableName)
_NOTE = (
    "A score of a file is the mean over inits and episodes; iqm and ci95 (trimmed t) are over files. Keys "
    "are the same in all rows. Policies are freshly initialised, also those of a HaDES-F file. What a row does not "
    "name is as in the file: loss, steps and gradient clipping with every optimiser, the rate with every architecture. "
    "adamw has a weight decay of its own flag, where the files are not of adamw. A row "
    "has no iqm where a policy of a file is no longer finite."
)
_HEADER = ("policy", "IQM", "95 % trimmed t interval", "files", "inits x episodes", "diverged")
# What the files of the seeds of one method have in common.
_SHARED = ("env", "env_options", "max_episode_steps", "method", "observation_normalization", "action_selection",
           "cloning")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TransferSettings(EvaluationSettings):
    """Trains policies of other architectures, optimisers and ensembles on the dataset files of several seeds.

    Each file counts as one run: its score is the mean over fresh policies and episodes, normalised where D4RL has
    reference returns of the environment, and a row gives the interquartile mean over files with a 95 % interval.
    """

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Dataset files, or run directories: one a seed, of one method and one environment."""
    env: str | None = None
    """Environment to play in; none is the one that the files name."""
    num_inits: int = 4
    """Fresh policies, or ensembles of them, of each file and row."""
    num_episodes: int = 5
    """Episodes of each of them."""
    tables: tuple[TableName, ...] = TABLES
    """Which tables there are."""
    depths: tuple[int, ...] = (2, 3, 4, 5, 6)
    """Hidden layers of the mlp policies."""
    width: int | None = None
    """Units of each hidden layer of the other architectures; none is as in the files."""
    residual_depth: int | None = None
    """Hidden layers of the residual_mlp; none is as many as in the files, two at the least."""
    adam_learning_rate: float | None = None
    """Step size of adam and adamw; none is that of the files where they are for one of them, or 0.005."""
    adamw_weight_decay: float = 0.01
    """Weight decay of adamw; the files' own where they are for adamw."""
    sgd_learning_rate: float | None = None
    """Step size of sgd without momentum; none is that of the files where they are for sgd, or 0.1."""
    momentum_learning_rate: float | None = None
    """Step size of sgd with momentum; none is that of sgd."""
    sgd_momentum: float | None = None
    """Momentum of sgd with momentum; none is that of the files, or 0.9 where they have none."""
    ensembles: tuple[int, ...] = (1, 10)
    """Sizes of the ensembles, whose policies act together by the mean of their actions."""
    out: Path | None = None
    """Where to write the JSON object, after every row; none writes nothing."""

    def __post_init__(self) -> None:
        """Refuses empty axes, and numbers that are not positive."""
        super().__post_init__()
        for name in ("files", "tables", "depths", "ensembles"):
            if not getattr(self, name):
                raise ValueError(f"{name}: expected at least one, got none")
        for name in ("num_inits", "width", "residual_depth", "adam_learning_rate", "sgd_learning_rate",
                     "momentum_learning_rate"):  # fmt: skip
            if getattr(self, name) is not None:
                require_positive(name, getattr(self, name))
        for name in ("depths", "ensembles"):
            for value in getattr(self, name):
                require_positive(name, value)
        if self.sgd_momentum is not None and not 0 < self.sgd_momentum < 1:
            raise ValueError(f"sgd_momentum: expected a number between 0 and 1, got {self.sgd_momentum}")


class Variant(NamedTuple):
    """A row of a table.

    Attributes:
        table: Which one.
        name: Of the row.
        cloned: The inner loop.
        ensemble: Policies that act together.
    """

    table: TableName
    name: str
    cloned: CloningSettings
    ensemble: int = 1


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark and returns its exit code."""
    settings = parse(TransferSettings, "bench transfer", arguments)
    bench = _Bench(settings)
    report = provenance("transfer", arguments) | bench.describe()
    for _ in bench.measure(report):
        if settings.out is not None:
            # After every row, so that what is stopped leaves what it has measured.
            write(report, settings.out)
    print(bench.render(report))
    print(f"{report['scale']}; {shlex.join(report['command'])}")
    deliver(report, settings.out, settings.json)
    return 0


def variants(own: CloningSettings, settings: TransferSettings) -> list[Variant]:
    """The rows of the tables; what they do not name is as in the file.

    Raises:
        BadArgumentsError: Other architectures are to have the width of the file, whose layers have several.
    """
    rows: list[Variant] = []
    if "architectures" in settings.tables:
        shapes: list[tuple[PolicyName, int]] = [("mlp", depth) for depth in settings.depths]
        for policy, depth in (*shapes, ("residual_mlp", _residual_depth(own, settings))):
            cloned = dataclasses.replace(own, policy=policy, hidden_sizes=(_width(own, settings),) * depth)
            rows.append(Variant("architectures", describe(cloned), cloned))
    if "optimisers" in settings.tables:
        rates = (settings.adam_learning_rate, settings.sgd_learning_rate)
        loops = optimisers(
            own, *rates, settings.sgd_momentum, settings.momentum_learning_rate, settings.adamw_weight_decay
        )
        for loop in loops:
            cloned = dataclasses.replace(own, learning_rate=loop.base_rate, **loop.changes)
            rows.append(Variant("optimisers", f"{loop.label}, rate {loop.base_rate:g}", cloned))
    if "ensembles" in settings.tables:
        rows += [Variant("ensembles", f"ensemble of {size}", own, size) for size in settings.ensembles]
    return rows


def _width(own: CloningSettings, settings: TransferSettings) -> int:
    widths = {settings.width} if settings.width is not None else set(own.hidden_sizes)
    if len(widths) != 1:
        raise BadArgumentsError(
            f"--width: expected a number, as the hidden layers of the files, {own.hidden_sizes}, do not have one width"
        )
    return widths.pop()


def _residual_depth(own: CloningSettings, settings: TransferSettings) -> int:
    # With one layer there would be nothing to add to.
    return settings.residual_depth or max(2, len(own.hidden_sizes))


class _Bench:
    """Files, environment and evaluation that all rows share."""

    def __init__(self, settings: TransferSettings) -> None:
        self._settings = settings
        self._sources, self._datasets = _load(settings.files)
        metadata = self._datasets[0].metadata
        assert metadata is not None  # a loaded dataset has it
        self._env = make_environment(metadata, settings.env, self._sources[0])
        for source, dataset in zip(self._sources, self._datasets, strict=True):
            check_dataset_fits(self._env, dataset, source, settings.env)
        self._metadata = dataclasses.replace(metadata, init_seed=None)
        self._own = metadata.require_cloning()
        self._variants = variants(self._own, settings)
        self._reference = score_reference(self._env.name)
        self._keys = [fresh_key(settings.seed, index) for index in range(len(self._datasets))]

    def describe(self) -> dict[str, Any]:
        """What the file says beside its rows."""
        seeds = [dataset.metadata.seed for dataset in self._datasets if dataset.metadata is not None]
        return {
            "env": self._env.name,
            "scale": scale(self._reference),
            "method": self._metadata.method,
            "files": [str(source) for source in self._sources],
            "file_seeds": seeds,
            "num_pairs": [dataset.num_pairs for dataset in self._datasets],
            "own": to_dict(self._own),
            "seed": self._settings.seed,
            "num_inits": self._settings.num_inits,
            "num_episodes": self._settings.num_episodes,
            "note": _NOTE,
        }

    def measure(self, report: dict[str, Any]) -> Iterator[None]:
        """Adds `references` and `tables` to a report, and yields after every row."""
        evaluator = self._evaluator(self._own, 1)
        own = self._row(OWN, lambda *case: score(case[0], evaluator, case[1]))
        zero = self._row(ZERO, lambda *case: score(case[0], evaluator, zero_dataset(case[1])))
        untrained = self._row(UNTRAINED, lambda *case: Score(evaluator.untrained(case[0], case[1].normalizer())))
        report["references"] = {OWN: own, ZERO: zero, UNTRAINED: untrained}
        report["tables"] = {name: [] for name in self._settings.tables}
        measured = {(self._own, 1): own}
        for variant in self._variants:
            what = (variant.cloned, variant.ensemble)
            if what not in measured:
                measured[what] = self._measure(variant, evaluator)
            entry = {"name": variant.name, "own": measured[what] is own, "ensemble": variant.ensemble}
            report["tables"][variant.table].append(entry | {"cloning": to_dict(variant.cloned)} | measured[what])
            yield

    def _measure(self, variant: Variant, own: DatasetEvaluator) -> dict[str, Any]:
        if variant.ensemble == 1 and architecture(variant.cloned) == architecture(self._own):
            evaluator = own.with_inner_loop(cloning.from_settings(self._env, variant.cloned))
        else:
            evaluator = self._evaluator(variant.cloned, variant.ensemble)
        return self._row(variant.name, lambda *case: score(case[0], evaluator, case[1]))

    def _row(self, name: str, measure: Callable[[jax.Array, SyntheticDataset], Score]) -> dict[str, Any]:
        started = time.monotonic()
        scores = [measure(key, dataset) for key, dataset in zip(self._keys, self._datasets, strict=True)]
        returns = [None if it.evaluation is None else it.evaluation.returns for it in scores]
        row = score_seeds(returns, self._reference) | {"num_diverged": [it.num_diverged for it in scores]}
        row["seconds"] = time.monotonic() - started
        print(f"{name}: {_iqm(row)}, {row['seconds']:.1f} s", file=sys.stderr, flush=True)
        return row

    def _evaluator(self, cloned: CloningSettings, ensemble: int) -> DatasetEvaluator:
        settings = self._settings
        dataset = dataclasses.replace(self._datasets[0], metadata=self._metadata)
        try:
            clone = cloning.from_settings(self._env, cloned)
            return dataset_evaluator(
                self._env, dataset, settings.num_inits, settings.num_episodes, clone, ensemble=ensemble
            )
        except ValueError as error:
            raise BadArgumentsError(str(error)) from None

    def render(self, report: dict[str, Any]) -> str:
        """The tables as text, one behind the other."""
        anchors = [self._cells(name, row) for name, row in report["references"].items()]
        texts = []
        for name, rows in report["tables"].items():
            title = f"{name}, {report['method']} in {report['env']}, {len(self._sources)} files"
            named = [self._cells(row["name"] + (" (own)" if row["own"] else ""), row) for row in rows]
            texts.append(tables.table(title, _HEADER, [*anchors, *named]))
        return "\n".join(texts)

    def _cells(self, name: str, row: dict[str, Any]) -> tuple[str, ...]:
        ends = "-" if row["ci95"] is None else tables.interval(row["ci95"])
        counts = f"{self._settings.num_inits} x {self._settings.num_episodes}"
        return name, _iqm(row), ends, str(len(self._sources)), counts, str(sum(row["num_diverged"]))


def _iqm(row: dict[str, Any]) -> str:
    return "-" if row["iqm"] is None else f"{row['iqm']:.4g}"


def _load(paths: Sequence[Path]) -> tuple[list[Path], list[SyntheticDataset]]:
    """Files and datasets, which have to be different seeds of one thing."""
    loaded = [load_dataset(path) for path in paths]
    first, _, expected = loaded[0]
    known: set[Path] = set()
    for source, _, metadata in loaded:
        if is_merged(metadata):
            raise BadArgumentsError(f"{source}: expected a file of a single task, got a merged one")
        if source.resolve() in known:
            raise BadArgumentsError(f"files: expected each file once, got {source} twice")
        known.add(source.resolve())
        for name in _SHARED:
            ours, theirs = getattr(metadata, name), getattr(expected, name)
            if ours != theirs:
                raise BadArgumentsError(f"{source}: expected the {name} of {first}, {theirs}, got {ours}")
    return [source for source, *_ in loaded], [dataset for _, dataset, _ in loaded]
