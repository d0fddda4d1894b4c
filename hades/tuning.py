"""Choice of the candidates that exist at once on a device, by what programs need and by how long they take.

The sizes change nothing but rounding. They are chosen once, before a run begins, and are settings of it from there on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import jax
from jax.sharding import Mesh

from hades import multihost
from hades._files import write_atomically
from hades._serialization import from_dict, to_dict
from hades.recipes.population import CHUNK_FIELDS, CHUNK_SIZES, PopulationSettings, with_chunk_sizes
from hades.run import Run, RunState
from hades.sharding import POPULATION_AXIS, replicate, usable_cores

__all__ = [
    "CHUNK_FIELDS",
    "CHUNK_SIZES",
    "DoesNotFitError",
    "Trial",
    "compiled_bytes",
    "tune_chunks",
    "unless_exhausted",
]

Settings = TypeVar("Settings", bound=PopulationSettings)
T = TypeVar("T")

_FILE = "hades_chunk_sizes.json"
_CONTROL_GROUP = Path("/sys/fs/cgroup")
# Iterations of a trial: so many, and more of short ones.
_REPEATS, _SECONDS = 3, 0.5
# Smaller chunks have to gain more than what differs from one measurement to the next.
_GAIN = 0.97
# What a compiled program asks for is not all that a device holds.
_SHARE = 0.9


class DoesNotFitError(ValueError):
    """The error of an evolution that no size of chunks makes fit its devices; one sentence says by how much."""


@dataclass(frozen=True)
class Trial:
    """One iteration under some sizes of chunks.

    Attributes:
        sizes: Fields of the settings: candidates of a device that exist at once, None for all.
        num_bytes: Memory that the compiled iteration asks for on a device.
        seconds: Of the quickest of several iterations; None where it does not fit the memory.
    """

    sizes: dict[str, int | None]
    num_bytes: int
    seconds: float | None


def tune_chunks(
    settings: Settings,
    make_run: Callable[[Settings], Run[Any]],
    *,
    key: jax.Array | None = None,
    limit_bytes: int | None = None,
    report: Callable[[Trial], None] = lambda trial: None,
) -> Settings:
    """Settings with the chunk sizes under which an iteration fits the device and takes the least time.

    All candidates at once are tried first, then half of them and so on, for rollouts and cloning together, until it
    gains nothing any more; from there on cloning alone, whose working set is another. Sizes are measured on the first
    iteration, whose episodes may be shorter than later ones. Where JAX has a persistent compilation cache, the choice
    is kept there, by settings, environment and device.

    Args:
        settings: Those of an evolution; chunk sizes that they have are passed over.
        make_run: Makes the run of such settings.
        key: Key of the measured iteration; `jax.random.key(0)` if None.
        limit_bytes: Memory of a device; what it says, of a CPU the free memory shared by its devices, if None. Of
            several processes the least counts.
        report: Called with every trial; with none where the choice was kept from before.

    Raises:
        DoesNotFitError: No size fits.

    Example:
        >>> import envs, hades
        >>> from hades.recipes import HadesSettings, hades_run
        >>> env = envs.make("diagnostic/match")
        >>> settings = tune_chunks(HadesSettings(population_size=2), lambda settings: hades_run(env, settings))
        >>> settings.population_size
        2
    """
    fields = [name for name in CHUNK_SIZES if hasattr(settings, name)]
    whole = with_chunk_sizes(settings, dict.fromkeys(fields))
    run = make_run(whole)
    # One process whose memory does not suffice would leave the others waiting within a step.
    limit = int(multihost.least(_SHARE * (_limit_of(run.mesh) if limit_bytes is None else limit_bytes)))
    description = _description(run)
    best = _recall(description, fields)
    if best is not None and best.num_bytes <= limit:
        return with_chunk_sizes(settings, best.sizes)
    state = replicate(jax.jit(run.init)(jax.random.key(0) if key is None else key), run.mesh)
    trials: list[Trial] = []

    def attempt(sizes: dict[str, int | None]) -> Trial:
        trials.append(_measure(make_run(with_chunk_sizes(whole, sizes)), state, sizes, limit))
        report(trials[-1])
        return trials[-1]

    devices = run.mesh.shape.get(POPULATION_AXIS, 1) if run.mesh else 1
    best = _search(attempt, fields, -(-settings.population_size // devices))
    if best is None:
        least = min(trial.num_bytes for trial in trials)
        raise DoesNotFitError(
            f"population_size: one candidate at a time takes {least / 2**20:,.1f} MiB of a device, expected at most "
            f"{limit / 2**20:,.1f}"
        )
    _remember(description, best)
    return with_chunk_sizes(settings, best.sizes)


def compiled_bytes(compiled: Any) -> dict[str, int]:
    """Bytes of a device that a compiled function sets aside.

    Returns:
        `temporary_bytes`, `output_bytes` and their sum `total_bytes`.
    """
    analysis = compiled.memory_analysis()
    temporary, output = int(analysis.temp_size_in_bytes), int(analysis.output_size_in_bytes)
    return {"temporary_bytes": temporary, "output_bytes": output, "total_bytes": temporary + output}


def unless_exhausted(function: Callable[[], T]) -> T | None:
    """The result of a function, None where the memory of this or of another process did not suffice."""
    found = None
    try:
        found = function()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
    return None if multihost.any_process(found is None) else found


Attempt: TypeAlias = Callable[[dict[str, int | None]], Trial]


def _search(attempt: Attempt, fields: list[str], per_device: int) -> Trial | None:
    """The quickest trial that fits: all fields alike, then the last of several alone."""
    best = _halve(attempt, dict.fromkeys(fields), fields, per_device)
    return best if best is None or len(fields) == 1 else _halve(attempt, best.sizes, fields[1:], per_device, best)


def _halve(
    attempt: Attempt, sizes: dict[str, int | None], moved: list[str], per_device: int, best: Trial | None = None
) -> Trial | None:
    """The best trial, `best` being that of `sizes`, while some of them are halved until two halvings gain nothing."""
    size, idle = sizes[moved[0]], 0
    if best is not None:
        size = (size or per_device) // 2
    while idle < 2 and size != 0:
        trial = attempt({**sizes, **dict.fromkeys(moved, size)})
        if trial.seconds is not None:
            gains = best is None or best.seconds is None or trial.seconds < _GAIN * best.seconds
            best, idle = (trial, 0) if gains else (best, idle + 1)
        size = (size or per_device) // 2
    return best


def _measure(run: Run[Any], state: RunState, sizes: dict[str, int | None], limit: int) -> Trial:
    run = replicate(run, run.mesh)
    # An argument, as in the host loop: arrays that are on other processes, too, cannot be constants of a program.
    step = unless_exhausted(lambda: jax.jit(lambda run, state: run.step(state)).lower(run, state).compile())
    if step is None:
        return Trial(sizes, limit + 1, None)
    num_bytes = multihost.from_first(compiled_bytes(step)["total_bytes"])

    def take() -> float:
        started = time.perf_counter()
        jax.block_until_ready(step(run, state))
        return time.perf_counter() - started

    first = None if num_bytes > limit else unless_exhausted(take)
    if first is None:
        return Trial(sizes, num_bytes, None)
    # Steps of several processes wait for each other: all take as many.
    repeats = multihost.from_first(max(_REPEATS, round(_SECONDS / first)))
    seconds = unless_exhausted(lambda: min(take() for _ in range(repeats)))
    return Trial(sizes, num_bytes, None if seconds is None else multihost.from_first(seconds))


def _limit_of(mesh: Mesh | None) -> int:
    """Bytes of memory that a program may take on each device."""
    device = jax.local_devices()[0] if mesh is None else mesh.local_devices[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit is not None:
        return int(limit)
    # A CPU says nothing, and its devices share the machine's.
    return _available_bytes() // (1 if mesh is None else len(mesh.local_devices))


def _available_bytes() -> int:
    """Memory of the machine that is free, in a container that of its control group (v2), or all where none says."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    # Without a limit the first file holds "max".
    with contextlib.suppress(OSError, ValueError):
        most, taken = (int((_CONTROL_GROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        found.append(most - taken + _cached_bytes())
    return min(found)


def _cached_bytes() -> int:
    """Memory of the control group that holds contents of files, and gives way."""
    with contextlib.suppress(OSError, ValueError):
        lines = (_CONTROL_GROUP / "memory.stat").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith(("active_file ", "inactive_file ")))
    return 0


def _description(run: Run[Any]) -> str:
    """Digest of everything that the best sizes depend on, of a run that has none."""
    devices = jax.devices() if run.mesh is None else list(run.mesh.devices.flat)
    content = {
        "run": run.config(),
        "max_steps": run.env and run.env.max_steps,
        "devices": sorted({device.device_kind for device in devices}),
        "mesh": None if run.mesh is None else dict(run.mesh.shape),
        "processes": jax.process_count(),
        "machine": [platform.machine(), usable_cores()],
        "jax": jax.__version__,
        "matmul_precision": jax.config.jax_default_matmul_precision,  # type: ignore[attr-defined]
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _file() -> Path | None:
    folder = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    return Path(folder, _FILE) if folder else None


def _read(file: Path) -> dict[str, Any]:
    # A file that cannot be read is one without content.
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(file.read_text())
        if isinstance(found, dict):
            return found
    return {}


def _recall(description: str, fields: list[str]) -> Trial | None:
    """The trial that was chosen before, None where none was."""
    file, trial = _file(), None
    with contextlib.suppress(ValueError):
        trial = None if file is None else from_dict(Trial, _read(file).get(description))
    known = trial is not None and sorted(trial.sizes) == sorted(fields)
    found = multihost.from_first(to_dict(trial) if known else None)
    return None if found is None else from_dict(Trial, found)


def _remember(description: str, trial: Trial) -> None:
    file = _file()
    if file is None or not multihost.is_first():
        return
    # Whoever cannot write measures again.
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(_read(file) | {description: to_dict(trial)}, indent=1) + "\n")
