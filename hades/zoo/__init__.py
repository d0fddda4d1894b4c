"""Distilled datasets that come with the package, of kilobytes, each of which trains a policy within a second.

Each has a card: returns of freshly initialised policies that were trained on it, seconds of their training, and the
commands that made it. `hades zoo verify` measures all of it again.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hades._files import refusing
from hades._serialization import from_dict
from hades._validation import require_positive_fields
from hades.dataset import SyntheticDataset
from hades.statistics import mean_interval

__all__ = ["Card", "Score", "TrainingTime", "card", "cards", "load", "names", "path"]

FOLDER = Path(__file__).parent / "files"
"""Folder of the datasets, `NAME.npz`, and of their cards, `NAME.json`."""


@dataclass(frozen=True)
class Score:
    """Returns of freshly initialised policies on keys that nothing was selected on.

    Attributes:
        per_init: Mean return of each policy, `[inits]`, two or more.
        num_episodes: Episodes of each policy.

    Raises:
        ValueError: There are fewer than two policies, a return is not finite, or `num_episodes` is not positive.

    Example:
        >>> Score((1.0, 2.0, 3.0), num_episodes=8).mean
        2.0
    """

    per_init: tuple[float, ...]
    num_episodes: int

    def __post_init__(self) -> None:
        """Refuses returns that have no interval."""
        require_positive_fields(self, "num_episodes")
        if len(self.per_init) < 2 or not np.isfinite(self.per_init).all():
            raise ValueError(f"per_init: expected two or more finite numbers, got {list(self.per_init)}")

    @property
    def num_inits(self) -> int:
        """Number of policies."""
        return len(self.per_init)

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.per_init))

    @property
    def ci95(self) -> tuple[float, float]:
        """95 % interval of the mean (Student's t) over policies."""
        return mean_interval(np.array(self.per_init))


@dataclass(frozen=True)
class TrainingTime:
    """Wall-clock seconds of training one policy on a dataset.

    Attributes:
        seconds: Of the training, once it is compiled; the median of several.
        compile_seconds: Of its compilation, without a cache.
        device: Kind of the device, such as `"cpu"`.
        cores: CPU cores that the process had.

    Raises:
        ValueError: A number is not positive.
    """

    seconds: float
    compile_seconds: float
    device: str
    cores: int

    def __post_init__(self) -> None:
        """Refuses numbers that are not positive."""
        require_positive_fields(self, "seconds", "compile_seconds", "cores")


@dataclass(frozen=True, kw_only=True)
class Card:
    """Origin of a dataset of the zoo, and measurements of it.

    Attributes:
        name: Name in the zoo.
        group: Kind of its environment, such as `"classic control"`.
        env: Name of its environment, such as `"gymnax/CartPole-v1"`.
        method: Method that distilled it, such as `"hades-r"`.
        num_pairs: State-action pairs.
        num_bytes: Size of the file.
        seed: Seed of the distillation.
        commands: Commands that made it, one after the other, in a shell where `$RUNS` is a folder for what they write,
            `$TEACHERS` the folder of published teachers, and `$HADES_IMAGES` that of folders of images.
        git_commit: Commit of this project at which the last of them ran, None outside of git.
        versions: Version of each package that the score depends on.
        score: Returns of policies that were trained on the dataset.
        zero_dataset: The same of its zero: all observations zero, and actions zero or their probabilities equal.
        untrained_policy: The same of policies as they are initialised.
        evaluation_seed: Seed of the three scores.
        training: Seconds of training one policy.

    Raises:
        ValueError: A count is not positive, or there are no commands.
    """

    name: str
    group: str
    env: str
    method: str
    num_pairs: int
    num_bytes: int
    seed: int
    commands: tuple[str, ...]
    git_commit: str | None
    versions: Mapping[str, str]
    score: Score
    zero_dataset: Score
    untrained_policy: Score
    evaluation_seed: int
    training: TrainingTime

    def __post_init__(self) -> None:
        """Refuses counts that are not positive, and a dataset that nothing made."""
        require_positive_fields(self, "num_pairs", "num_bytes")
        if not self.commands:
            raise ValueError("commands: expected one or more, got none")


def names() -> tuple[str, ...]:
    """Names of all datasets, in alphabetical order.

    Example:
        >>> "cartpole" in names()
        True
    """
    return tuple(sorted(file.stem for file in FOLDER.glob("*.npz")))


def path(name: str) -> Path:
    """File of a dataset.

    Raises:
        ValueError: There is none of that name; the message has the nearest ones.
    """
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.0)
        raise ValueError(f"zoo: there is no {name!r}, the nearest are {', '.join(near)}")
    return FOLDER / f"{name}.npz"


def load(name: str) -> SyntheticDataset:
    """A dataset, with metadata.

    Args:
        name: One of `names()`.

    Returns:
        Its observations `[pairs, *observation_shape]` with the actions `[pairs, action_dim]` or their probabilities
        `[pairs, num_actions]`.

    Raises:
        ValueError: There is none of that name.

    Example:
        >>> load("cartpole").observations.shape
        (2, 4)
    """
    return SyntheticDataset.load(path(name))


def card(name: str) -> Card:
    """Card of a dataset.

    Args:
        name: One of `names()`.

    Raises:
        ValueError: There is none of that name, or its card is malformed.

    Example:
        >>> card("cartpole").env
        'gymnax/CartPole-v1'
    """
    file = path(name).with_suffix(".json")
    with refusing(file, ValueError):
        found = from_dict(Card, json.loads(file.read_text()))
        if found.name != name:
            raise ValueError(f"name: expected {name!r}, got {found.name!r}")
    return found


def cards() -> dict[str, Card]:
    """Cards of all datasets, by name."""
    return {name: card(name) for name in names()}
