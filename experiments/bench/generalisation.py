"""`hades bench generalisation`: returns of policies trained on dataset files under other settings than their own."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np

from experiments.arguments import with_folder
from experiments.bench._lib import generalisation_report
from experiments.bench._lib.base import Bench, BenchSettings, Report, tell, write_page
from experiments.bench._lib.files import DatasetFile, FilesSettings, read_file
from experiments.bench._lib.grid import Grid, Panel, architecture, distinct, make_panels
from experiments.bench._lib.variants import (
    OWN,
    VariantEvaluation,
    describe,
    evaluate_variant,
    references,
    threshold_return,
)
from experiments.pictures.canvas import write_figure
from experiments.pictures.generalisation import generalisation_figure
from experiments.settings import Flat
from hades.inner import cloning
from hades.inner.cloning import CloningSettings

_SUFFIXES = (".png", ".pdf", ".svg")


@dataclass(frozen=True, kw_only=True)
class GeneralisationSettings(BenchSettings, FilesSettings):
    """Trains policies on dataset files under settings around those of the file, and scores each on fresh keys.

    Up to four panels: hidden layers x width, activation x initialiser, optimiser x learning rate, and cloning steps x
    learning rate. All else is as in the file, and its own settings stand in every panel; learned step sizes only where
    the optimiser does not vary. The panels are ours: the grid of figure 4 of the paper (arXiv 2406.15042) is not known.
    Every cell trains freshly drawn initialisations, also of a HaDES-F file, whose own return (what the cells are held
    against) keeps the one that it was made for. A cell with a policy that is no longer finite is called diverged and
    counts as one that does not reach the threshold.
    """

    threshold: float = 0.9
    """Fraction of the file's own return that a cell is to reach."""
    grid: Annotated[Grid, Flat] = Grid()
    """Panels and axes of the grid."""
    picture: Path | None = None
    """File of the heat maps (.png, .pdf or .svg); default: beside --out."""
    out: Path | None = None
    """JSON file to write (.json), beside a table as .md and the picture as .png; default: none."""

    def __post_init__(self) -> None:
        """Refuses also numbers that are not positive, and suffixes that stand for another kind of file."""
        super().__post_init__()
        self.require_positive("num_inits", "threshold")
        if self.out is not None and self.out.suffix != ".json":
            raise ValueError(f"out: expected a name that ends in .json, got {self.out}")
        if self.picture is not None and self.picture.suffix not in _SUFFIXES:
            raise ValueError(f"picture: expected a name that ends in {', '.join(_SUFFIXES)}, got {self.picture}")


def measure(settings: GeneralisationSettings, report: Report) -> None:
    """Trains policies on every file, for every cell of its panels."""
    # All of them first: before hours of work on one file, the next is known to be readable.
    files = [_read(settings, path) for path in settings.files]
    progress = _Progress(files)
    entries: list[dict[str, Any]] = []
    report.content.update(seed=settings.seed, num_inits=settings.num_inits, num_episodes=settings.num_episodes)
    report.content.update(threshold=settings.threshold, grid=asdict(settings.grid), note=generalisation_report.NOTE)
    for index, (file, panels) in enumerate(files):
        entries.append(_measure(settings, file, panels, progress))
        report.add(files=entries, unfinished=[str(other.source) for other, _ in files[index + 1 :]])
        _draw(settings, report)


def _draw(settings: GeneralisationSettings, report: Report) -> None:
    picture = settings.picture or (settings.out and settings.out.with_suffix(".png"))
    if picture is not None:
        write_figure(generalisation_figure(report.content), with_folder(picture))
    if settings.out is not None:
        write_page(settings.out.with_suffix(".md"), *generalisation_report.as_markdown(report.content))


def _read(settings: GeneralisationSettings, path: Path) -> tuple[DatasetFile, list[Panel]]:
    file = read_file(path)
    file.evaluator(settings)
    return file, make_panels(file.own, settings.grid)


def _measure(
    settings: GeneralisationSettings, file: DatasetFile, panels: Sequence[Panel], progress: _Progress
) -> dict[str, Any]:
    key = jax.random.key(settings.seed)
    progress.begin(file)
    evaluator = file.evaluator(settings)
    # A HaDES-F file's own return is that of its one initialisation.
    is_fixed = file.metadata.init_seed is not None
    returns = references(key, file.evaluator(settings, fresh=False) if is_fixed else evaluator, file.dataset)
    if not all(np.isfinite(value.mean) for value in returns.values()):
        raise ValueError(f"{file.source}: expected finite returns under its own settings, got some that are not")
    threshold = threshold_return(returns[OWN].mean, settings.threshold)
    progress.begin_cells()
    found: dict[CloningSettings, VariantEvaluation] = {}
    for cloned, compiles in _cells(file.own, panels):
        if compiles:
            evaluator = file.evaluator(settings, cloned)
        else:
            evaluator = evaluator.with_inner_loop(cloning.from_settings(file.env, cloned))
        found[cloned] = evaluate_variant(key, evaluator, file.dataset)
        progress.tell(cloned, found[cloned])
    return generalisation_report.entry(file, returns, threshold, panels, found)


class _Progress:
    """Progress on stderr: every cell, and an estimate of the time that is left."""

    def __init__(self, files: Sequence[tuple[DatasetFile, list[Panel]]]) -> None:
        """Counts the cells, apart by whether they have to compile a rollout."""
        self._compiles = [compiles for file, panels in files for _, compiles in _cells(file.own, panels)]
        self._seconds: dict[bool, list[float]] = {True: [], False: []}
        self._done = 0
        self._started = time.monotonic()

    def begin(self, file: DatasetFile) -> None:
        """A file begins."""
        self._started = time.monotonic()
        tell(f"{file.source}: its own settings, zeros and untrained policies ...")

    def begin_cells(self) -> None:
        """The first cell of a file begins; its references compiled a rollout too."""
        self._take(compiles=True)

    def tell(self, cloned: CloningSettings, cell: VariantEvaluation) -> None:
        """A cell is done, and the next one begins."""
        self._take(self._compiles[self._done])
        self._done += 1
        value = f"{cell.evaluation.mean:.4g}" if cell.evaluation else f"{cell.num_diverged} diverged"
        name = f"{describe(cloned)}, {cloned.kernel_init}, rate {cloned.learning_rate:.3g}, {cloned.num_steps} steps"
        tell(f"{self._done}/{len(self._compiles)} {name}: {value}, about {self._left()} left")

    def _take(self, compiles: bool) -> None:
        now = time.monotonic()
        self._seconds[compiles].append(now - self._started)
        self._started = now

    def _left(self) -> str:
        means = {kind: float(np.mean(seconds or 0.0)) for kind, seconds in self._seconds.items()}
        left = sum(means[kind] for kind in self._compiles[self._done :])
        return f"{left:.0f} s" if left < 180 else f"{left / 60:.0f} min"


def _cells(own: CloningSettings, panels: Sequence[Panel]) -> list[tuple[CloningSettings, bool]]:
    """Each inner loop, and whether it is the first of its architecture; that of the file is compiled before."""
    pairs = itertools.pairwise((own, *distinct(own, panels)))
    return [(cell, architecture(cell) != architecture(before)) for before, cell in pairs]


BENCH = Bench(GeneralisationSettings, measure, generalisation_report.as_text)
