"""Measurements in processes of their own, whose memory and compilation nothing else has touched.

As a program: `python -m experiments.bench._lib.apart MODULE FUNCTION ARGUMENTS`.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments import processes
from experiments.bench._lib.base import tell


def measure_apart(
    function: Callable[..., dict[str, Any]],
    arguments: Sequence[str],
    label: str,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Calls a function of a module in a process of its own.

    Args:
        function: Takes strings, and returns what JSON can hold.
        arguments: Its arguments.
        label: Name of the measurement, for progress and messages.
        environment: Variables of the process that differ from those of this one.

    Raises:
        ValueError: The process failed; the message begins with `label` and has its last words.
    """
    tell(f"measuring {label} ...")
    line = processes.program(__name__, function.__module__, function.__name__, *arguments)
    variables = os.environ | dict(environment or {})
    done = processes.run(line, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ValueError(f"{label}: {reason[0]}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def main(module: str, function: str, *arguments: str) -> None:
    """Calls a function, and prints its result as the last line."""
    print(json.dumps(getattr(importlib.import_module(module), function)(*arguments)))


if __name__ == "__main__":
    main(*sys.argv[1:])
