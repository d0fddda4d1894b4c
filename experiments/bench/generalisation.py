"""`hades bench generalisation`: what policies learn from dataset files under settings that they were not made for."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro

from experiments.arguments import parse
from experiments.bench._lib import generalisation_report as report
from experiments.bench._lib.grid import Grid, Panel, architecture, distinct, make_panels
from experiments.bench._lib.results import deliver, provenance, write
from experiments.bench._lib.variants import OWN, Score, describe, references, score, threshold_return
from experiments.cli import BadArgumentsError
from experiments.environments import make_environment
from experiments.loading import check_dataset_fits, load_dataset
from experiments.pictures.canvas import write_figure
from experiments.pictures.generalisation import generalisation_figure
from experiments.settings import EvaluationSettings
from hades._files import write_atomically
from hades._validation import require_positive
from hades.dataset import SyntheticDataset
from hades.evaluation import DatasetEvaluator, dataset_evaluator
from hades.inner import cloning
from hades.inner.cloning import CloningSettings
from hades.metadata import FileMetadata
from hades.types import AnyEnvironment

_SUFFIXES = (".png", ".pdf", ".svg")


@dataclass(frozen=True, kw_only=True)
class GeneralisationSettings(EvaluationSettings):
    """Trains policies on dataset files under settings around those of the file, and scores each on fresh keys.

    Up to four panels: hidden layers x width, activation x initialiser, optimiser x learning rate, and cloning steps x
    learning rate. All else is as in the file, and its own settings stand in every panel. The panels are ours: the grid
    of figure 4 of the paper (arXiv 2406.15042) is not known. Every cell trains freshly drawn initialisations, also of
    a HaDES-F file, whose own return (what the cells are held against) keeps the one that it was made for. A cell with
    a policy that is no longer finite is called diverged and counts as one that does not reach the threshold.
    """

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Dataset files, or run directories."""
    num_inits: int = 8
    """Fresh policies of each cell."""
    threshold: float = 0.9
    """Fraction of the file's own return that a cell is to reach."""
    grid: Annotated[Grid, tyro.conf.arg(name="")] = Grid()
    """How far the grid reaches."""
    picture: Path | None = None
    """Where to draw the heat maps (.png, .pdf or .svg); none is beside --out."""
    out: Path | None = None
    """Where to write the JSON object (.json); a table goes beside it as .md, the picture as .png. None writes none."""

    def __post_init__(self) -> None:
        """Refuses empty axes, numbers that are not positive, and suffixes that stand for another kind of file."""
        super().__post_init__()
        for name in ("num_inits", "threshold"):
            require_positive(name, getattr(self, name))
        for name, values in vars(self.grid).items():
            if not values:
                raise ValueError(f"{name}: expected at least one value, got none")
            for value in values if name != "panels" else ():
                require_positive(name, value)
        if not self.files:
            raise ValueError("files: expected at least one dataset file or run directory, got none")
        if self.out is not None and self.out.suffix != ".json":
            raise ValueError(f"out: expected a name that ends in .json, got {self.out}")
        if self.picture is not None and self.picture.suffix not in _SUFFIXES:
            raise ValueError(f"picture: expected a name that ends in {', '.join(_SUFFIXES)}, got {self.picture}")


@dataclass(frozen=True)
class Case:
    """A dataset file made ready: where it is from, its environment and its panels."""

    source: Path
    dataset: SyntheticDataset
    metadata: FileMetadata
    env: AnyEnvironment
    panels: list[Panel]

    def evaluator(
        self, settings: GeneralisationSettings, fresh: bool = True, cloned: CloningSettings | None = None
    ) -> DatasetEvaluator:
        """Of an inner loop, or of the file's own; `fresh` draws initialisations also where the file keeps one."""
        metadata = replace(self.metadata, init_seed=None) if fresh else self.metadata
        dataset = replace(self.dataset, metadata=metadata)
        clone = cloning.from_settings(self.env, cloned or self.metadata.require_cloning())
        return dataset_evaluator(self.env, dataset, settings.num_inits, settings.num_episodes, clone)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark and returns its exit code."""
    settings = parse(GeneralisationSettings, "bench generalisation", arguments)
    cases = [_load(settings, path) for path in settings.files]
    progress = _Progress(cases)
    result = provenance("generalisation", arguments)
    result |= {"seed": settings.seed, "num_inits": settings.num_inits, "num_episodes": settings.num_episodes}
    result |= {"threshold": settings.threshold, "grid": asdict(settings.grid), "note": report.NOTE, "files": []}
    for index, case in enumerate(cases):
        result["files"].append(_measure(settings, case, progress))
        result["unfinished"] = [str(other.source) for other in cases[index + 1 :]]
        # After each file: the next one may take an hour, and be stopped.
        _write(settings, result)
    print(report.as_text(result))
    print(shlex.join(result["command"]))
    deliver(result, settings.out, settings.json)
    return 0


def _write(settings: GeneralisationSettings, result: dict[str, Any]) -> None:
    picture = settings.picture or (settings.out and settings.out.with_suffix(".png"))
    if picture is not None:
        picture.parent.mkdir(parents=True, exist_ok=True)
        write_figure(generalisation_figure(result), picture)
    if settings.out is not None:
        write(result, settings.out)
        write_atomically(settings.out.with_suffix(".md"), report.as_markdown(result))


def _load(settings: GeneralisationSettings, path: Path) -> Case:
    source, dataset, metadata = load_dataset(path)
    env = make_environment(metadata, source=source)
    check_dataset_fits(env, dataset, source, None)
    case = Case(source, dataset, metadata, env, make_panels(metadata.require_cloning(), settings.grid))
    try:
        # Before hours of work on the files in front of it.
        case.evaluator(settings)
    except ValueError as error:
        raise BadArgumentsError(f"{source}: {error}") from None
    return case


def _measure(settings: GeneralisationSettings, case: Case, progress: _Progress) -> dict[str, Any]:
    key, own = jax.random.key(settings.seed), case.metadata.require_cloning()
    progress.begin(case)
    evaluator = case.evaluator(settings)
    # A HaDES-F file's own return is that of its one initialisation.
    is_fixed = case.metadata.init_seed is not None
    anchors = references(key, case.evaluator(settings, fresh=False) if is_fixed else evaluator, case.dataset)
    if not all(np.isfinite(anchor.mean) for anchor in anchors.values()):
        raise ValueError(f"{case.source}: expected finite returns under its own settings, got some that are not")
    threshold = threshold_return(anchors[OWN].mean, settings.threshold)
    progress.begin_cells()
    scores: dict[CloningSettings, Score] = {}
    compiled = architecture(own)
    for cloned in distinct(own, case.panels):
        if architecture(cloned) == compiled:
            evaluator = evaluator.with_inner_loop(cloning.from_settings(case.env, cloned))
        else:
            evaluator, compiled = case.evaluator(settings, cloned=cloned), architecture(cloned)
        scores[cloned] = score(key, evaluator, case.dataset)
        progress.tell(cloned, scores[cloned])
    return report.entry(case.source, case.dataset, anchors, threshold, case.panels, scores)


class _Progress:
    """Tells of every cell on stderr, and how long the others will take."""

    def __init__(self, cases: Sequence[Case]) -> None:
        """Counts the cells, apart by whether they have to compile a rollout."""
        self._compiles = [first for case in cases for first in _compiles(case)]
        self._seconds: dict[bool, list[float]] = {True: [], False: []}
        self._done = 0
        self._started = time.monotonic()

    def begin(self, case: Case) -> None:
        """A file begins."""
        self._started = time.monotonic()
        print(f"{case.source}: its own settings, zeros and untrained policies ...", file=sys.stderr, flush=True)

    def begin_cells(self) -> None:
        """The first cell of a file begins; what went before compiled a rollout too."""
        self._take(compiles=True)

    def tell(self, cloned: CloningSettings, cell: Score) -> None:
        """A cell is done, and the next one begins."""
        self._take(self._compiles[self._done])
        self._done += 1
        value = f"{cell.evaluation.mean:.4g}" if cell.evaluation else f"{cell.num_diverged} diverged"
        name = f"{describe(cloned)}, {cloned.kernel_init}, rate {cloned.learning_rate:.3g}, {cloned.num_steps} steps"
        place = f"{self._done}/{len(self._compiles)}"
        print(f"{place} {name}: {value}, about {self._left()} left", file=sys.stderr, flush=True)

    def _take(self, compiles: bool) -> None:
        now = time.monotonic()
        self._seconds[compiles].append(now - self._started)
        self._started = now

    def _left(self) -> str:
        means = {kind: float(np.mean(seconds or 0.0)) for kind, seconds in self._seconds.items()}
        left = sum(means[kind] for kind in self._compiles[self._done :])
        return f"{left:.0f} s" if left < 180 else f"{left / 60:.0f} min"


def _compiles(case: Case) -> Iterator[bool]:
    """For each cell in turn whether it is the first of its architecture; that of the file is compiled before."""
    known = architecture(case.metadata.require_cloning())
    for cloned in distinct(case.metadata.require_cloning(), case.panels):
        yield architecture(cloned) != known
        known = architecture(cloned)
