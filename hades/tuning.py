"""Choice of the candidates that exist at once on a device, by what programs need and by how long they take.

The sizes change nothing but rounding. They are chosen once, before a run begins, and are settings of it from there on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import jax
from jax.sharding import Mesh

from hades import multihost
from hades._files import write_atomically
from hades._serialization import to_dict
from hades.recipes.population import PopulationSettings
from hades.run import Run, RunState
from hades.sharding import POPULATION_AXIS, replicate

__all__ = ["CHUNK_SIZES", "Trial", "compiled_bytes", "tune_chunks"]

Settings = TypeVar("Settings", bound=PopulationSettings)

CHUNK_SIZES = ("rollout_chunk_size", "cloning_chunk_size")
"""Fields of settings that are chosen, those that an evolution has."""

_FILE = "hades_chunk_sizes.json"
# Iterations of a trial: so many, and more of short ones.
_REPEATS, _SECONDS = 3, 0.5
# Smaller chunks have to gain more than what differs from one measurement to the next.
_GAIN = 0.97
# What a compiled program asks for is not all that a device holds.
_SHARE = 0.9


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
        limit_bytes: Memory of a device; what it says, of a CPU the free memory shared by its devices, if None.
        report: Called with every trial; with none where the choice was kept from before.

    Raises:
        ValueError: No size fits.

    Example:
        >>> import envs, hades
        >>> from hades.recipes import HadesSettings, hades_run
        >>> env = envs.make("diagnostic/match")
        >>> settings = tune_chunks(HadesSettings(population_size=8), lambda settings: hades_run(env, settings))
        >>> settings.population_size
        8
    """
    fields = [name for name in CHUNK_SIZES if hasattr(settings, name)]
    whole = _with_sizes(settings, dict.fromkeys(fields))
    run = make_run(whole)
    description = _description(whole, run)
    sizes = _recall(description, fields)
    if sizes is not None:
        return _with_sizes(settings, sizes)
    limit = _limit_of(run.mesh) if limit_bytes is None else limit_bytes
    state = replicate(jax.jit(run.init)(jax.random.key(0) if key is None else key), run.mesh)

    def attempt(sizes: dict[str, int | None]) -> Trial:
        trial = _measure(make_run(_with_sizes(whole, sizes)), state, sizes, limit)
        report(trial)
        return trial

    devices = run.mesh.shape.get(POPULATION_AXIS, 1) if run.mesh else 1
    best = _search(attempt, fields, -(-settings.population_size // devices))
    if best is None:
        raise ValueError(f"population_size: not even one candidate fits the {limit / 2**20:,.0f} MiB of a device")
    _remember(description, best.sizes)
    return _with_sizes(settings, best.sizes)


def compiled_bytes(compiled: Any) -> dict[str, int]:
    """Bytes of a device that a compiled function sets aside.

    Returns:
        `temporary_bytes`, `output_bytes` and their sum `total_bytes`.
    """
    analysis = compiled.memory_analysis()
    temporary, output = int(analysis.temp_size_in_bytes), int(analysis.output_size_in_bytes)
    return {"temporary_bytes": temporary, "output_bytes": output, "total_bytes": temporary + output}


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
    step = jax.jit(replicate(run, run.mesh).step).lower(state).compile()

    def take() -> float:
        started = time.perf_counter()
        jax.block_until_ready(step(state))
        return time.perf_counter() - started

    # What one process decides, all do: their steps wait for each other.
    num_bytes = multihost.from_first(compiled_bytes(step)["total_bytes"])
    if num_bytes > multihost.from_first(_SHARE * limit):
        return Trial(sizes, num_bytes, None)
    try:
        repeats = multihost.from_first(max(_REPEATS, round(_SECONDS / take())))
        seconds = min(take() for _ in range(repeats))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Trial(sizes, num_bytes, None)
    return Trial(sizes, num_bytes, multihost.from_first(seconds))


def _with_sizes(settings: Settings, sizes: dict[str, int | None]) -> Settings:
    return dataclasses.replace(settings, **sizes)  # type: ignore[arg-type]


def _limit_of(mesh: Mesh | None) -> int:
    """Bytes of memory that a program may take on each device."""
    device = jax.local_devices()[0] if mesh is None else mesh.local_devices[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit is not None:
        return int(limit)
    # A CPU says nothing, and its devices share the machine's.
    return _available_bytes() // (1 if mesh is None else len(mesh.local_devices))


def _available_bytes() -> int:
    """Memory of the machine that is free, or all that it has where it does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _description(settings: PopulationSettings, run: Run[Any]) -> str:
    """Digest of everything that the best sizes depend on."""
    devices = jax.devices() if run.mesh is None else list(run.mesh.devices.flat)
    env = run.env
    content = {
        "settings": to_dict(settings),
        "env": None if env is None else [env.name, dict(env.options), env.max_steps],
        "devices": sorted({device.device_kind for device in devices}),
        "num_devices": len(devices),
        "jax": jax.__version__,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _file() -> Path | None:
    folder = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    return None if folder is None else Path(folder, _FILE)


def _read(file: Path) -> dict[str, Any]:
    # A file that cannot be read is one without content.
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(file.read_text())
        if isinstance(found, dict):
            return found
    return {}


def _recall(description: str, fields: list[str]) -> dict[str, int | None] | None:
    """The sizes that were chosen before, None where none were."""
    file = _file()
    found = None if file is None else _read(file).get(description)
    known = isinstance(found, dict) and sorted(found) == sorted(fields)
    return multihost.from_first(found if known else None)


def _remember(description: str, sizes: dict[str, int | None]) -> None:
    file = _file()
    if file is None or not multihost.is_first():
        return
    # Whoever cannot write measures again.
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(_read(file) | {description: sizes}, indent=1) + "\n")
