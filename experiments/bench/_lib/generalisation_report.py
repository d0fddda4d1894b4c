"""The result of `hades bench generalisation` as an object for JSON, and as tables of plain text and of Markdown."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments import tables
from experiments.bench._lib.files import DatasetFile
from experiments.bench._lib.grid import Panel, distinct
from experiments.bench._lib.variants import OWN, UNTRAINED, ZERO, VariantEvaluation
from hades._serialization import to_dict
from hades.evaluation import Evaluation
from hades.inner.cloning import CloningSettings

NOTE = (
    "Each cell is the mean return of freshly drawn initialisations that were trained on the file, also of a HaDES-F "
    "file, whose own return keeps the initialisation that it was made for. Fractions count each combination of "
    "settings once, the file's own among them. The grid is ours, the one of the paper's figure 4 is not known."
)
_HEADER = ("dataset", "own", "zeros", "untrained", "threshold", "cells reaching it", "fraction", "diverged")


def entry(
    file: DatasetFile,
    returns: Mapping[str, Evaluation],
    threshold: float,
    panels: Sequence[Panel],
    found: Mapping[CloningSettings, VariantEvaluation],
) -> dict[str, Any]:
    """Part of the result for one file.

    Args:
        file: The file.
        returns: Its own return, and those of zeros and untrained policies.
        threshold: Return that a cell is to reach.
        panels: Panels of the grid.
        found: Evaluation of every inner loop of the grid.
    """
    metadata, num_pairs = file.metadata, file.dataset.num_pairs
    cells = {cloned: _cell(file.own, cloned, variant, threshold) for cloned, variant in found.items()}
    return {
        "file": str(file.source),
        "name": f"{metadata.env}, {num_pairs} pairs by {metadata.method}",
        "env": metadata.env,
        "method": metadata.method,
        "num_pairs": num_pairs,
        "init_seed": metadata.init_seed,
        "cloning": to_dict(file.own),
        "references": {name: tables.summary(value) for name, value in returns.items()},
        "threshold_return": threshold,
        **_counts([cells[cloned] for cloned in distinct(file.own, panels)]),
        "panels": [_panel(panel, file.own, cells) for panel in panels],
    }


def _panel(panel: Panel, own: CloningSettings, cells: Mapping[CloningSettings, dict[str, Any]]) -> dict[str, Any]:
    counts = _counts([cells[cloned] for cloned in distinct(own, [panel])])
    return {**vars(panel), **counts, "cells": [[cells[cloned] for cloned in row] for row in panel.cells]}


def _cell(
    own: CloningSettings, cloned: CloningSettings, variant: VariantEvaluation, threshold: float
) -> dict[str, Any]:
    settings, base = to_dict(cloned), to_dict(own)
    evaluation = variant.evaluation
    return {
        "own": cloned == own,
        "changes": {name: value for name, value in settings.items() if value != base[name]},
        "num_diverged": variant.num_diverged,
        "reaches": evaluation is not None and evaluation.mean >= threshold,
        "mean": None,
        **({} if evaluation is None else tables.summary(evaluation)),
    }


def _counts(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    reaching = sum(cell["reaches"] for cell in cells)
    diverged = sum(cell["num_diverged"] > 0 for cell in cells)
    count = len(cells)
    return {"num_cells": count, "num_reaching": reaching, "num_diverged": diverged, "fraction": reaching / count}


def as_text(result: Mapping[str, Any]) -> str:
    """Tables of a result as plain text: one for each panel of each file, and one of the files."""
    parts = []
    for number, file in enumerate(result["files"]):
        # A title inside of a table is broken at the table's width.
        parts += [f"{title}\n{tables.table('', header, rows)}\n" for title, header, rows in _panel_tables(file, number)]
    summary = [_summary_row(file, number) for number, file in enumerate(result["files"])]
    parts.append(tables.table("generalisation", _HEADER, summary))
    return "\n".join([*parts, *_legend(result)])


def as_markdown(result: Mapping[str, Any]) -> list[str]:
    """Tables of a result in Markdown, that of the files first, and what stands between them."""
    summary = [_summary_row(file, number) for number, file in enumerate(result["files"])]
    parts = ["# Generalisation of dataset files", f"`{shlex.join(result['command'])}`", "\n".join(_legend(result))]
    parts.append(tables.markdown(_HEADER, summary))
    for number, file in enumerate(result["files"]):
        parts.append(f"## {_name(file, number)}\n\n`{file['file']}`")
        for title, header, rows in _panel_tables(file, number):
            parts += [f"{title}:", tables.markdown(header, rows)]
    return parts


def _legend(result: Mapping[str, Any]) -> list[str]:
    return [
        f"{result['num_inits']} inits x {result['num_episodes']} episodes a cell, seed {result['seed']}. "
        f"Own: the file's own settings; +: at least {result['threshold']:.0%} of the file's own return; "
        "diverged: some policy is not finite, which counts as a miss.",
        result["note"],
        *(f"Not finished: {source}." for source in result["unfinished"]),
    ]


def _name(file: Mapping[str, Any], number: int) -> str:
    return f"{number + 1}. {file['name']}"


def _summary_row(file: Mapping[str, Any], number: int) -> tuple[str, ...]:
    returns = (f"{file['references'][name]['mean']:.4g}" for name in (OWN, ZERO, UNTRAINED))
    reaching = f"{file['num_reaching']} of {file['num_cells']}"
    threshold = f"{file['threshold_return']:.4g}"
    return (_name(file, number), *returns, threshold, reaching, f"{file['fraction']:.2f}", str(file["num_diverged"]))


def _panel_tables(file: Mapping[str, Any], number: int) -> Iterator[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """Title, header and rows of each panel."""
    for panel in file["panels"]:
        share = f"{panel['num_reaching']} of {panel['num_cells']} reach the threshold"
        title = f"{_name(file, number)}: {panel['row_label']} and {panel['column_label']}; {share}"
        rows = [(name, *map(_text, cells)) for name, cells in zip(panel["rows"], panel["cells"], strict=True)]
        yield title, (panel["row_label"], *panel["columns"]), rows


def _text(cell: Mapping[str, Any]) -> str:
    value = "diverged" if cell["mean"] is None else f"{cell['mean']:.4g}"
    return ("own " if cell["own"] else "") + value + (" +" if cell["reaches"] else "")
