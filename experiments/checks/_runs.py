"""Comparison of the files that two runs have left."""

from __future__ import annotations

from typing import Any

from hades._run_directory import RunDirectory


def rows_without_seconds(run: RunDirectory) -> list[dict[str, Any]]:
    """Rows of the metrics but for the seconds in them."""
    timing = ("seconds", "seconds_per_iteration")
    return [{name: value for name, value in row.items() if name not in timing} for row in run.read_metrics()]
