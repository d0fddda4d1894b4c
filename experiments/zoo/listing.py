"""Tables of the zoo, for the terminal, the documentation and the README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments import tables
from experiments.zoo.recipes import GROUPS
from hades._serialization import to_dict
from hades.zoo import Card, Score

HEADER = ("name", "return", "zero", "untrained", "seconds", "pairs", "kB", "method", "environment")


def in_order(cards: Mapping[str, Card]) -> list[Card]:
    """Cards by group."""
    order = {group: index for index, group in enumerate(GROUPS)}
    return sorted(cards.values(), key=lambda card: (order.get(card.group, len(order)), card.name))


def describe(card: Card) -> dict[str, Any]:
    """A card as `--json` prints it: its scores with mean and interval in place of the single policies."""
    scores = {
        name: {
            "mean": score.mean,
            "ci95": tables.ends(score.ci95),
            "num_inits": score.num_inits,
            "num_episodes": score.num_episodes,
        }
        for name, score in vars(card).items()
        if isinstance(score, Score)
    }
    return to_dict(card) | scores


def rows(cards: Mapping[str, Card]) -> list[tuple[str, ...]]:
    """A row for each dataset, of the columns of `HEADER`."""
    return [
        (
            card.name,
            f"{card.score.mean:.4g} {tables.interval(card.score.ci95)}",
            _short(card.zero_dataset.mean),
            _short(card.untrained_policy.mean),
            f"{card.training.seconds:.2g}",
            str(card.num_pairs),
            f"{card.num_bytes / 1000:.2g}",
            card.method,
            card.env,
        )
        for card in in_order(cards)
    ]


def table(cards: Mapping[str, Card]) -> str:
    """Table for the terminal."""
    return tables.table(
        f"zoo, {len(cards)} datasets: returns of fresh policies with 95 % t intervals, seconds to train one",
        HEADER,
        rows(cards),
        width=160,
    )


def markdown(cards: Mapping[str, Card]) -> str:
    """Table of the documentation."""
    return tables.markdown(HEADER, rows(cards))


def compact(cards: Mapping[str, Card]) -> str:
    """Table of the README: a row for each group of environments."""
    groups: dict[str, list[Card]] = {}
    for card in in_order(cards):
        groups.setdefault(card.group, []).append(card)
    lines = [_line(("", "mean return of fresh policies", "pairs", "kB", "seconds")), "|:--|:--|--:|--:|--:|"]
    for group, members in groups.items():
        returns = " · ".join(f"`{card.name}` {_short(card.score.mean)}" for card in members)
        pairs = _range([card.num_pairs for card in members])
        size = _range([card.num_bytes / 1000 for card in members])
        lines.append(_line((group, returns, pairs, size, _range([card.training.seconds for card in members]))))
    return "\n".join(lines)


def _short(value: float) -> str:
    """Three digits, or all of a large number's, without an exponent."""
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"


def _range(values: Sequence[float]) -> str:
    """The least and the largest of some numbers."""
    low, high = (f"{value:.2g}" if value < 99.5 else f"{value:.0f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
