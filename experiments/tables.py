"""Results as tables for a terminal, and as JSON."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from hades.evaluation import Evaluation


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """What `hades evaluate --json` says of an evaluation.

    Returns:
        `mean`, `std`, `ci95`, `per_init` (mean return of each init), `num_inits`, `num_episodes`.
    """
    return {
        "mean": evaluation.mean,
        "std": evaluation.std,
        "ci95": list(evaluation.ci95),
        "per_init": evaluation.per_init,
        "num_inits": evaluation.num_inits,
        "num_episodes": evaluation.num_episodes,
    }


def render(title: str, evaluations: Mapping[str, Evaluation]) -> str:
    """A table of returns, one row each."""
    rows = [
        (
            name,
            f"{evaluation.mean:.4g}",
            f"[{evaluation.ci95[0]:.4g}, {evaluation.ci95[1]:.4g}]",
            f"{evaluation.std:.3g}",
            f"{evaluation.num_inits} x {evaluation.num_episodes}",
        )
        for name, evaluation in evaluations.items()
    ]
    return table(title, ("", "mean return", "95 % interval", "std", "inits x episodes"), rows)


def table(title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A plain-text table; the first column is left-aligned, the others right-aligned."""
    grid = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for index, name in enumerate(header):
        grid.add_column(name, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    buffer = io.StringIO()
    Console(file=buffer, width=120).print(grid)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    r"""The lines of a Markdown table; the first column is left-aligned, the others right-aligned.

    Example:
        >>> print("\n".join(markdown(("a", "b"), [("x", "1")])))
        | a | b |
        |:--|--:|
        | x | 1 |
    """
    alignment = "|:--|" + "--:|" * (len(header) - 1)
    return [f"| {' | '.join(header)} |", alignment, *(f"| {' | '.join(row)} |" for row in rows)]
