"""Where a result comes from, and the file that it is kept in."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.arguments import print_json
from hades._files import write_atomically
from hades._run_directory import installed_versions


def provenance(benchmark: str, arguments: Sequence[str]) -> dict[str, Any]:
    """What every result begins with: the command line, versions, git commit and devices.

    Args:
        benchmark: Name of the benchmark.
        arguments: What stood behind its name.
    """
    versions = installed_versions()
    return {
        "benchmark": benchmark,
        "command": ["hades", "bench", benchmark, *arguments],
        "git_commit": versions["git_commit"],
        "device": versions["devices"],
        "cpu_count": os.cpu_count(),
        "versions": versions,
    }


def deliver(result: Mapping[str, Any], out: Path | None, as_json: bool) -> None:
    """Writes a result as indented JSON where there is a path, and prints it as one line where that is asked for.

    Raises:
        OSError: It cannot be written.
    """
    if out is not None:
        write(result, out)
        print(f"written to {out}")
    if as_json:
        print_json(result)


def write(result: Mapping[str, Any], out: Path) -> None:
    """Writes a result as indented JSON, into a folder that is made where there is none.

    Raises:
        OSError: It cannot be written.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, json.dumps(result, indent=2) + "\n")
