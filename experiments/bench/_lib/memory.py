"""Memory of this process, of a device, and of a compiled function."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

import jax

# Other checkouts of the same benches look for it here.
from hades.tuning import compiled_bytes as compiled_bytes


def peak_bytes() -> int:
    """Peak of this process's resident memory so far."""
    # Linux hands ru_maxrss of the parent down to its children, but not this one.
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak() -> None:
    """Sets the peak to what is resident now, where the system lets a process do so."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def device_peak_bytes() -> int | None:
    """Peak of the first device's memory, None where it does not say."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def peaks(imports_bytes: int) -> dict[str, int | None]:
    """Peaks at the end of a measurement in a process of its own.

    Args:
        imports_bytes: `peak_bytes` before compilation.

    Returns:
        `imports_bytes`, `peak_bytes` and `device_peak_bytes`.
    """
    return {"imports_bytes": imports_bytes, "peak_bytes": peak_bytes(), "device_peak_bytes": device_peak_bytes()}


def mebibytes(count: float) -> str:
    """Bytes as text.

    Example:
        >>> mebibytes(3 * 2**20)
        '3.0 MiB'
    """
    return f"{count / 2**20:,.1f} MiB"
