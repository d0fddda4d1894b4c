"""Sizes of the programs of pages and notebooks, which show sizes that learn where tests ask whether they run."""

from __future__ import annotations

import re

_SIZES = {
    r"num_iterations=\d+": "num_iterations=2",
    r"population_size=\d+": "population_size=8",
    r"Evolution\(\d+": "Evolution(8",
    r"num_steps=\d+": "num_steps=4",
    r"range\(\d\d+\)": "range(2)",
    r"make_evaluator\(16, 8\)": "make_evaluator(2, 2)",
    r"evaluate_every=\d+": "evaluate_every=1",
}


def at_tiny_sizes(source: str) -> str:
    """The program with the least sizes that it runs with."""
    for pattern, replacement in _SIZES.items():
        source = re.sub(pattern, replacement, source)
    return source
