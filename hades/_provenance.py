"""Provenance of a result: versions of packages, devices, and the commit of a source tree."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

from hades._version import __version__

_PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "brax",
    "gymnax",
    "gymnasium",
    "evosax",
    "orbax-checkpoint",
    "mujoco",
    "mujoco-mjx",
    "playground",
    "numpy",
)


def installed_versions() -> dict[str, Any]:
    """Packages, Python, processes and devices, and the git commit of the source tree where there is one."""
    packages = {"hades": __version__}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            packages[name] = importlib.metadata.version(name)
    return {
        "packages": packages,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device_count": jax.device_count(),
        "processes": jax.process_count(),
        "devices": [f"{device.platform}: {device.device_kind}" for device in jax.devices()],
        "git_commit": git_commit(),
    }


def git_commit(folder: Path = Path(__file__).parent) -> str | None:
    """Commit of a source tree, with `-dirty` behind it where tracked files were changed; None outside of git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
