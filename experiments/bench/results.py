"""Where a result comes from, and the file that it is kept in."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hades.files import write_atomically
from hades.run_directory import installed_versions


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


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Writes a result as indented JSON, and makes the folder.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(result, indent=2) + "\n")
    print(f"written to {path}")
