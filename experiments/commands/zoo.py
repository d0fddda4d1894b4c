"""`hades zoo`: the datasets that come with the package."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from experiments.arguments import parse, print_json
from experiments.cli import BadArgumentsError, launch_named
from experiments.loading import ZOO_PREFIX, outcome_file
from experiments.processes import leave_memory
from experiments.settings import OutputSettings, SeededSettings
from experiments.zoo import listing
from experiments.zoo.recipes import RECIPES
from hades import zoo

if TYPE_CHECKING:
    from experiments.zoo.verification import Verification

_SUMMARIES = {
    "list": "list the datasets with their returns; as without a name",
    "show": "tell what a dataset holds and its card says, as hades info zoo:NAME does",
    "verify": "train and score datasets again, and compare with their cards",
    "make": "distil datasets and measure them again",
}


@dataclass(frozen=True, kw_only=True)
class ListSettings(OutputSettings):
    """Lists the datasets that come with the package, with the returns of policies that are trained on them.

    Seconds are those of training one policy, compiled. Wherever a dataset file is expected, zoo:NAME is one.
    """

    markdown: Literal["full", "compact"] | None = None
    """Prints the table of the documentation, or the compact one of the README, instead."""


@dataclass(frozen=True, kw_only=True)
class VerifySettings(SeededSettings):
    """Trains fresh policies on datasets of the zoo, plays on other keys than those of the cards, and compares.

    A dataset passes where the interval of the difference of the two mean returns (Welch) holds 0.
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Datasets; default: all."""
    num_inits: int | None = None
    """Fresh policies of each; default: as many as on its card."""
    num_episodes: int | None = None
    """Episodes of each policy; default: as many as on the card."""
    level: float = 0.01
    """Probability that a zoo which is as its cards say does not pass, divided by the number of datasets for each."""

    def __post_init__(self) -> None:
        """Refuses also counts and levels out of range."""
        super().__post_init__()
        self.require_positive("num_inits", "num_episodes")
        if self.num_inits == 1:
            raise ValueError("num_inits: expected two or more, got 1")
        if not 0 < self.level < 1:
            raise ValueError(f"level: expected a number between 0 and 1, got {self.level}")


@dataclass(frozen=True, kw_only=True)
class MakeSettings(OutputSettings):
    """Distils datasets of the zoo by the commands on their cards, and measures them; runs that are there go on."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Datasets, or all."""
    runs: Path = Path("runs/zoo")
    """Folder of the run directories and of offline data."""
    teachers: Path = Path("teachers")
    """Folder of published teachers, for datasets from offline data."""
    out: Path = Path("runs/zoo/files")
    """Folder of datasets and cards; in a clone hades/zoo/files is that of the package."""


def main(arguments: Sequence[str]) -> int:
    """Runs `hades zoo NAME ...`, or lists where no name is given, and returns its exit code.

    Raises:
        BadArgumentsError: There is no command of that name.
    """
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments = ["list", *arguments]
    return launch_named("hades zoo", "a command", _SUMMARIES, arguments, _launch)


def _launch(name: str, arguments: Sequence[str]) -> int:
    return {"list": _list, "show": _show, "verify": _verify, "make": _make}[name](arguments)


def _list(arguments: Sequence[str]) -> int:
    settings = parse(ListSettings, "zoo list", arguments)
    cards = zoo.cards()
    tables = {None: listing.table, "full": listing.markdown, "compact": listing.compact}
    print(tables[settings.markdown](cards))
    if settings.json:
        print_json({"datasets": [listing.describe(card) for card in listing.in_order(cards)]})
    return 0


def _show(arguments: Sequence[str]) -> int:
    from experiments.commands import info

    if not arguments:
        raise BadArgumentsError(f"show: expected the name of a dataset, one of {', '.join(zoo.names())}")
    name, rest = arguments[0], arguments[1:]
    return info.main([name if name.startswith("-") else f"{ZOO_PREFIX}{name}", *rest])


def _verify(arguments: Sequence[str]) -> int:
    # Simulators are asked for here, and not where datasets are listed.
    from experiments.zoo.verification import verify

    settings = parse(VerifySettings, "zoo verify", arguments)
    names = settings.names or zoo.names()
    files = {name: outcome_file(Path(f"{ZOO_PREFIX}{name}")) for name in names}
    cards = {name: zoo.card(name) for name in files}
    if settings.seed in {card.evaluation_seed for card in cards.values()}:
        raise BadArgumentsError(f"--seed: expected another one than that of the cards, got {settings.seed}")
    counts = (settings.num_inits, settings.num_episodes)
    found: list[Verification] = []
    failures = []
    for name, card in cards.items():
        try:
            found.append(verify(card, files[name], settings.seed, 1 - settings.level / len(cards), *counts))
        except ValueError as error:
            failures.append(f"{name}: {error}")
            continue
        print(found[-1].sentence, flush=True)
        if not found[-1].passed:
            failures.append(found[-1].sentence)
    passed = len(cards) - len(failures)
    print(f"{passed} of {len(cards)} are as their cards say, at level {settings.level:g} for all together")
    for failure in failures:
        print(f"hades zoo verify: {failure}", file=sys.stderr)
    if settings.json:
        results = [verification.result for verification in found]
        print_json({"passed": not failures, "level": settings.level, "datasets": results, "failures": failures})
    return 1 if failures else 0


def _make(arguments: Sequence[str]) -> int:
    from experiments.zoo import making

    settings = parse(MakeSettings, "zoo make", arguments)
    names = tuple(RECIPES) if settings.names == ("all",) else settings.names
    unknown = [name for name in names if name not in RECIPES]
    if unknown or not names:
        found = unknown[0] if unknown else "none"
        raise BadArgumentsError(f"make: expected all, or some of {', '.join(RECIPES)}, got {found}")
    leave_memory()
    folders = making.Folders(settings.runs, settings.teachers, settings.out)
    cards = {name: making.make(name, folders) for name in names}
    print(listing.table(cards))
    if settings.json:
        print_json({"datasets": [listing.describe(card) for card in cards.values()]})
    return 0
