"""Verifying datasets of the zoo: training and scoring them again on other keys, against their cards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import tables
from experiments.environments import make_environment
from experiments.loading import load_dataset
from experiments.zoo.measuring import score_of, time_training, versions_of
from hades.evaluation import dataset_evaluator
from hades.statistics import difference_interval
from hades.zoo import Card, Score, TrainingTime


@dataclass(frozen=True)
class Verification:
    """A dataset scored again, against its card.

    Attributes:
        card: Its card.
        score: Returns on other keys.
        difference: Interval of the mean return less that of the card (Welch), at the confidence that was asked for.
        training: Seconds of training one policy, here.
        versions: Packages whose version is another one than on the card: the one here and that of the card.
    """

    card: Card
    score: Score
    difference: tuple[float, float]
    training: TrainingTime
    versions: dict[str, tuple[str, str]]

    @property
    def passed(self) -> bool:
        """Whether the interval of the difference holds 0."""
        return self.difference[0] <= 0 <= self.difference[1]

    @property
    def sentence(self) -> str:
        """Both returns, the verdict, and versions that differ."""
        here, there = (f"{score.mean:.4g} {tables.interval(score.ci95)}" for score in (self.score, self.card.score))
        verdict = "as" if self.passed else "not as"
        others = "".join(f"; {name} {mine} here, {own} there" for name, (mine, own) in self.versions.items())
        seconds = f"a policy in {self.training.seconds:.2g} s"
        return f"{self.card.name}: {here}, {verdict} its card says, {there}; {seconds}{others}"

    @property
    def result(self) -> dict[str, Any]:
        """The verification as `--json` prints it."""
        return {
            "name": self.card.name,
            "passed": self.passed,
            "mean": self.score.mean,
            "ci95": tables.ends(self.score.ci95),
            "per_init": list(self.score.per_init),
            "card_mean": self.card.score.mean,
            "card_ci95": tables.ends(self.card.score.ci95),
            "difference": tables.ends(self.difference),
            "train_seconds": self.training.seconds,
            "compile_seconds": self.training.compile_seconds,
            "versions": {name: list(pair) for name, pair in self.versions.items()},
        }


def verify(
    card: Card, file: Path, seed: int, confidence: float, num_inits: int | None = None, num_episodes: int | None = None
) -> Verification:
    """Trains fresh policies on a dataset, plays, and compares with its card.

    Args:
        card: Its card.
        file: Its file.
        seed: Of the keys, another one than that of the card.
        confidence: Probability that the interval of the difference covers.
        num_inits: Fresh policies; those of the card if None.
        num_episodes: Episodes of each; those of the card if None.

    Raises:
        ValueError: Its simulator is not installed, or the file does not suit it.
    """
    file, dataset, metadata = load_dataset(file)
    env = make_environment(metadata, None, file)
    evaluator = dataset_evaluator(
        env, dataset, num_inits or card.score.num_inits, num_episodes or card.score.num_episodes
    )
    score = score_of(evaluator(jax.random.key(seed), dataset))
    difference = difference_interval(np.array(score.per_init), np.array(card.score.per_init), confidence)
    return Verification(card, score, difference, time_training(env, dataset), _other_versions(card))


def _other_versions(card: Card) -> dict[str, tuple[str, str]]:
    """Packages of another version here than on a card, but for this one itself."""
    here = versions_of(card.env)
    names = sorted((here.keys() | card.versions.keys()) - {"hades"})
    pairs = {name: (here.get(name, "none"), card.versions.get(name, "none")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
