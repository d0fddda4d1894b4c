"""`hades bench transfer`: other architectures, optimisers and ensembles on the dataset files of several seeds."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import tyro

from experiments import tables
from experiments.bench._lib.base import Bench, BenchSettings, Report, tell
from experiments.bench._lib.files import DatasetFile, TrainingSettings, read_file
from experiments.bench._lib.grid import architecture, optimisers
from experiments.bench._lib.seeds import scale, score_seeds, table_key
from experiments.bench._lib.variants import OWN, UNTRAINED, ZERO, VariantEvaluation, describe, evaluate_variant
from experiments.cli import BadArgumentsError
from hades._serialization import to_dict
from hades.evaluation import DatasetEvaluator, zero_dataset
from hades.inner import cloning
from hades.inner.cloning import CloningSettings
from hades.offline.scores import score_reference
from hades.policies import PolicyName

TableName = Literal["architectures", "optimisers", "ensembles"]
TABLES: tuple[TableName, ...] = get_args(TableName)
_NOTE = (
    "A score of a file is the mean over inits and episodes; iqm and ci95 (trimmed t) are over files. Keys "
    "are the same in all rows. Policies are freshly initialised, also those of a HaDES-F file. What a row does not "
    "name is as in the file: loss, steps and gradient clipping with every optimiser (but for a file of learned step "
    "sizes, where these are the defaults), the rate with every architecture. "
    "adamw has a weight decay of its own flag, where the files are not of adamw. A row "
    "has no iqm where a policy of a file is no longer finite."
)
_HEADER = ("policy", "IQM", "95 % trimmed t interval", "files", "inits x episodes", "diverged")
# What the files of the seeds of one method have in common.
_SHARED = ("env", "env_options", "max_episode_steps", "method", "observation_normalization", "action_selection",
           "cloning")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TransferSettings(BenchSettings, TrainingSettings):
    """Trains policies of other architectures, optimisers and ensembles on the dataset files of several seeds.

    Each file counts as one run: its score is the mean over fresh policies and episodes, normalised where D4RL has
    reference returns of the environment, and a row gives the interquartile mean over files, with a 95 % trimmed t
    interval.
    """

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Dataset files, or run directories: one a seed, of one method and one environment."""
    env: str | None = None
    """Environment to play in; default: the one that the files name."""
    num_inits: int = 4
    """Fresh policies, or ensembles of them, of each file and row."""
    num_episodes: int = 5
    """Episodes of each of them."""
    tables: tuple[TableName, ...] = TABLES
    """Tables to make."""
    depths: tuple[int, ...] = (2, 3, 4, 5, 6)
    """Hidden layers of the mlp policies."""
    width: int | None = None
    """Units of each hidden layer of the other architectures; default: as in the files."""
    residual_depth: int | None = None
    """Hidden layers of the residual_mlp; default: as many as in the files, two at the least."""
    adam_learning_rate: float | None = None
    """Step size of adam and adamw; default: that of the files where they are for one of them, or 0.005."""
    adamw_weight_decay: float = 0.01
    """Weight decay of adamw; the files' own where they are for adamw."""
    sgd_learning_rate: float | None = None
    """Step size of sgd without momentum; default: that of the files where they are for sgd, or 0.1."""
    momentum_learning_rate: float | None = None
    """Step size of sgd with momentum; default: that of sgd."""
    sgd_momentum: float | None = None
    """Momentum of sgd with momentum; default: that of the files, or 0.9 where they have none."""
    ensembles: tuple[int, ...] = (1, 10)
    """Sizes of the ensembles, whose policies act together by the mean of their actions."""

    def __post_init__(self) -> None:
        """Refuses also empty axes, and numbers that are not positive."""
        super().__post_init__()
        for name in ("files", "tables", "depths", "ensembles"):
            if not getattr(self, name):
                raise ValueError(f"{name}: expected at least one, got none")
        self.require_positive("num_inits", "width", "residual_depth", "adam_learning_rate", "sgd_learning_rate",
                              "momentum_learning_rate", "depths", "ensembles")  # fmt: skip
        if self.sgd_momentum is not None and not 0 < self.sgd_momentum < 1:
            raise ValueError(f"sgd_momentum: expected a number between 0 and 1, got {self.sgd_momentum}")


class Variant(NamedTuple):
    """A row of a table.

    Attributes:
        table: Name of the table.
        name: Name of the row.
        cloned: Inner loop.
        ensemble: Policies that act together.
    """

    table: TableName
    name: str
    cloned: CloningSettings
    ensemble: int = 1


def measure(settings: TransferSettings, report: Report) -> None:
    """Measures the references, and every row of every table."""
    files = _Files(settings)
    report.content.update(files.describe())
    evaluator = files.evaluator(files.own, 1)
    own = files.row(OWN, partial(evaluate_variant, evaluator=evaluator))
    zero = files.row(ZERO, lambda key, dataset: evaluate_variant(key, evaluator, zero_dataset(dataset)))
    untrained = files.row(
        UNTRAINED, lambda key, dataset: VariantEvaluation(evaluator.untrained(key, dataset.normalizer()))
    )
    found: dict[TableName, list[dict[str, Any]]] = {name: [] for name in settings.tables}
    report.content.update(references={OWN: own, ZERO: zero, UNTRAINED: untrained}, tables=found)
    measured = {(files.own, 1): own}
    for variant in variants(files.own, settings):
        loop = (variant.cloned, variant.ensemble)
        if loop not in measured:
            other = files.variant_evaluator(variant, evaluator)
            measured[loop] = files.row(variant.name, partial(evaluate_variant, evaluator=other))
        entry = {"name": variant.name, "own": measured[loop] is own, "ensemble": variant.ensemble}
        found[variant.table].append(entry | {"cloning": to_dict(variant.cloned)} | measured[loop])
        report.add(tables=found)


def variants(own: CloningSettings, settings: TransferSettings) -> list[Variant]:
    """Rows of the tables; all that they do not name is as in the file.

    Raises:
        BadArgumentsError: Other architectures are to have the width of the file, whose layers have several.
    """
    rows: list[Variant] = []
    if "architectures" in settings.tables:
        shapes: list[tuple[PolicyName, int]] = [("mlp", depth) for depth in settings.depths]
        # Of one layer there would be nothing to add to.
        residual_depth = settings.residual_depth or max(2, len(own.hidden_sizes))
        for policy, depth in (*shapes, ("residual_mlp", residual_depth)):
            cloned = dataclasses.replace(own, policy=policy, hidden_sizes=(_width(own, settings),) * depth)
            rows.append(Variant("architectures", describe(cloned), cloned))
    if "optimisers" in settings.tables:
        rates = (settings.adam_learning_rate, settings.sgd_learning_rate)
        fixed = own.with_fixed_steps
        loops = optimisers(
            fixed, *rates, settings.sgd_momentum, settings.momentum_learning_rate, settings.adamw_weight_decay
        )
        for loop in loops:
            cloned = dataclasses.replace(fixed, learning_rate=loop.base_rate, **loop.changes)
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


class _Files:
    """Files, environment and evaluation that all rows share."""

    def __init__(self, settings: TransferSettings) -> None:
        self._settings = settings
        self._files = _read(settings)
        self.own = self._files[0].own
        # Flags that do not suit the files are refused before the first row.
        variants(self.own, settings)
        self._reference = score_reference(self._files[0].env.name)

    def describe(self) -> dict[str, Any]:
        """Parts of the result beside its rows."""
        first, settings = self._files[0], self._settings
        return {
            "env": first.env.name,
            "scale": scale(self._reference),
            "method": first.metadata.method,
            "files": [str(file.source) for file in self._files],
            "file_seeds": [file.metadata.seed for file in self._files],
            "num_pairs": [file.dataset.num_pairs for file in self._files],
            "own": to_dict(self.own),
            "seed": settings.seed,
            "num_inits": settings.num_inits,
            "num_episodes": settings.num_episodes,
            "note": _NOTE,
        }

    def evaluator(self, cloned: CloningSettings, ensemble: int) -> DatasetEvaluator:
        """Evaluation of fresh policies, or ensembles of them, on any of the files."""
        return self._files[0].evaluator(self._settings, cloned, ensemble=ensemble)

    def variant_evaluator(self, variant: Variant, own: DatasetEvaluator) -> DatasetEvaluator:
        """Evaluation of a variant, which shares the compiled rollout with the files' own where it can."""
        if variant.ensemble == 1 and architecture(variant.cloned) == architecture(self.own):
            return own.with_inner_loop(cloning.from_settings(self._files[0].env, variant.cloned))
        return self.evaluator(variant.cloned, variant.ensemble)

    def row(self, name: str, evaluate: Callable[..., VariantEvaluation]) -> dict[str, Any]:
        """Scores over files of `evaluate(key, dataset=dataset)`, each on the key of its place."""
        started = time.monotonic()
        found = [
            evaluate(table_key(self._settings.seed, index), dataset=file.dataset)
            for index, file in enumerate(self._files)
        ]
        returns = [None if variant.evaluation is None else variant.evaluation.returns for variant in found]
        row = score_seeds(returns, self._reference) | {"num_diverged": [variant.num_diverged for variant in found]}
        row["seconds"] = time.monotonic() - started
        tell(f"{name}: {tables.estimate(row, 'iqm')[0]}, {row['seconds']:.1f} s")
        return row


def _read(settings: TransferSettings) -> list[DatasetFile]:
    """Files, which have to be different seeds of one method.

    Raises:
        BadArgumentsError: They are not.
    """
    files = [read_file(path, settings.env) for path in settings.files]
    first = files[0]
    known: set[Path] = set()
    for file in files:
        if file.source.resolve() in known:
            raise BadArgumentsError(f"files: expected each file once, got {file.source} twice")
        known.add(file.source.resolve())
        for name in _SHARED:
            ours, theirs = getattr(file.metadata, name), getattr(first.metadata, name)
            if ours != theirs:
                raise BadArgumentsError(f"{file.source}: expected the {name} of {first.source}, {theirs}, got {ours}")
    return files


def render(result: Mapping[str, Any]) -> str:
    """Tables as text, one behind the other."""
    references = [_cells(result, name, row) for name, row in result["references"].items()]
    texts = []
    for name, rows in result["tables"].items():
        title = f"{name}, {result['method']} in {result['env']}, {len(result['files'])} files"
        named = [_cells(result, row["name"] + (" (own)" if row["own"] else ""), row) for row in rows]
        texts.append(tables.table(title, _HEADER, [*references, *named]))
    return "\n".join([*texts, result["scale"]])


def _cells(result: Mapping[str, Any], name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    sizes = (str(len(result["files"])), tables.counts(result))
    return name, *tables.estimate(row, "iqm"), *sizes, str(sum(row["num_diverged"]))


BENCH = Bench(TransferSettings, measure, render)
