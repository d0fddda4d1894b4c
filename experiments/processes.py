"""Command lines of processes that the command starts itself, which import nothing from the working directory."""

from __future__ import annotations

import sys
from pathlib import Path

_SCRIPT = Path(__file__).resolve().parents[1] / "hades_command.py"


def command(*arguments: str) -> list[str]:
    """The command line of `hades ARGUMENTS` in a process of its own."""
    return [sys.executable, "-P", str(_SCRIPT), *arguments]


def program(module: str, *arguments: str) -> list[str]:
    """The command line that runs one of our modules as a program, such as `"experiments.bench.cost"`."""
    return command("-m", module, *arguments)
