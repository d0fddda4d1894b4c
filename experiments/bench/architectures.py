"""`hades bench architectures`: returns of other architectures and optimisers trained on one dataset file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from experiments import tables
from experiments.bench._lib.base import Bench, BenchSettings, Report, tell
from experiments.bench._lib.files import TrainingSettings, read_file
from experiments.bench._lib.variants import (
    ADAM_LEARNING_RATE,
    OWN,
    SGD_LEARNING_RATE,
    SGD_MOMENTUM,
    describe,
    references,
    threshold_return,
)
from hades.inner.cloning import CloningSettings
from hades.metadata import FileMetadata
from hades.policies import Activation

HIDDEN_SIZES: tuple[tuple[int, ...], ...] = ((32,), (64, 64), (128, 128, 128))
ACTIVATIONS: tuple[Activation, ...] = ("relu", "tanh")
_HEADER = ("policy", "mean return", "95 % t interval", "inits x episodes", "reaches")


@dataclass(frozen=True, kw_only=True)
class ArchitecturesSettings(BenchSettings, TrainingSettings):
    """Trains policies of twelve architectures and optimisers on a dataset file, and scores each on fresh keys.

    One, two and three hidden layers of 32, 64 and 128 units, with relu and tanh, trained by Adam and by SGD with
    momentum, from fresh initialisations. Beside them stand the file's own architecture, from the initialisation that it
    keeps if it does (HaDES-F), and its returns on zeros and untrained.
    """

    file: Annotated[Path, tyro.conf.Positional]
    """Dataset file, or run directory."""
    env: str | None = None
    """Environment to play in; default: the one that the file names."""
    num_steps: int | None = None
    """Steps of cloning; default: as many as the file says."""
    adam_learning_rate: float | None = None
    """Step size of Adam; default: that of the file, or 0.005 where the file is for SGD."""
    sgd_learning_rate: float = SGD_LEARNING_RATE
    """Step size of SGD."""
    sgd_momentum: float = SGD_MOMENTUM
    """Momentum of SGD."""
    threshold: float = 0.9
    """Fraction of the return of the file's own architecture that a policy is to reach."""

    def __post_init__(self) -> None:
        """Refuses also counts and rates that are not positive."""
        super().__post_init__()
        self.require_positive("num_inits", "num_steps", "adam_learning_rate", "sgd_learning_rate", "threshold")
        if not 0 <= self.sgd_momentum < 1:
            raise ValueError(f"sgd_momentum: expected a number in [0, 1), got {self.sgd_momentum}")


def measure(settings: ArchitecturesSettings, report: Report) -> None:
    """Trains and scores every combination."""
    file, key = read_file(settings.file, settings.env), jax.random.key(settings.seed)
    scores = references(key, file.evaluator(settings, fresh=False), file.dataset)
    threshold = threshold_return(scores[OWN].mean, settings.threshold)
    report.add(
        file=str(file.source),
        env=file.env.name,
        threshold=settings.threshold,
        threshold_return=threshold,
        references={name: tables.summary(value) for name, value in scores.items()},
    )
    entries: list[dict[str, Any]] = []
    for cloned in combinations(file.metadata, settings):
        tell(f"training {describe(cloned)} ...")
        evaluation = file.evaluator(settings, cloned)(key, file.dataset)
        entries.append(
            {
                "name": describe(cloned),
                "hidden_sizes": list(cloned.hidden_sizes),
                "activation": cloned.activation,
                "optimizer": cloned.optimizer,
                "learning_rate": cloned.learning_rate,
                "momentum": cloned.momentum,
                "num_steps": cloned.num_steps,
                "reaches": evaluation.mean >= threshold,
                **tables.summary(evaluation),
            }
        )
        report.add(combinations=entries, num_reaching=sum(entry["reaches"] for entry in entries))


def combinations(metadata: FileMetadata, settings: ArchitecturesSettings) -> Iterator[CloningSettings]:
    """The twelve inner loops, all else as in the file."""
    own = metadata.require_cloning().with_fixed_steps
    adam_rate = settings.adam_learning_rate or (ADAM_LEARNING_RATE if own.optimizer == "sgd" else own.learning_rate)
    adam = dataclasses.replace(own, optimizer="adam", learning_rate=adam_rate, momentum=0.0)
    sgd = dataclasses.replace(
        own, optimizer="sgd", learning_rate=settings.sgd_learning_rate, momentum=settings.sgd_momentum
    )
    for optimizer in (adam, sgd):
        for hidden_sizes in HIDDEN_SIZES:
            for activation in ACTIVATIONS:
                yield dataclasses.replace(
                    optimizer,
                    policy="mlp",
                    hidden_sizes=hidden_sizes,
                    activation=activation,
                    num_steps=settings.num_steps or own.num_steps,
                )


def render(result: Mapping[str, Any]) -> str:
    """Table of the combinations below their references."""
    entries = result["combinations"]
    named = [(name, entry, "") for name, entry in result["references"].items()]
    named += [(entry["name"], entry, "yes" if entry["reaches"] else "no") for entry in entries]
    rows = [(name, *tables.estimate(entry), tables.counts(entry), reaches) for name, entry, reaches in named]
    reaching = f"{result['num_reaching']} of {len(entries)} return at least {result['threshold_return']:.4g}"
    table = tables.table(f"other architectures, {result['env']}", _HEADER, rows)
    return f"{table}\n{reaching}, {result['threshold']:g} of the file's own"


BENCH = Bench(ArchitecturesSettings, measure, render)
