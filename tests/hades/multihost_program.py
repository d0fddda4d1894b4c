"""Run as `multihost_program.py FOLDER [ADDRESS NUM_PROCESSES PROCESS_ID]`: a run and what its processes agree on."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

import envs
import hades
from hades import multihost
from hades.inner.cloning import CloningSettings
from hades.multihost import MultihostSettings
from hades.normalization import Normalizer


def main(folder: Path, *job: str) -> dict[str, object]:
    if job:
        multihost.initialize(MultihostSettings(True, job[0], int(job[1]), int(job[2])))
    process = jax.process_index()
    run = hades.recipes.hades_r(
        envs.make("diagnostic/target", max_steps=3),
        dataset_size=2,
        population_size=8,
        cloning=CloningSettings(hidden_sizes=(4,), kernel_init="lecun_normal", num_steps=3),
    )
    loop = hades.LoopSettings(
        iterations_per_call=2, evaluate_every=2, evaluation_inits=4, evaluation_episodes=2, checkpoint_seconds=0
    )
    rows: list[int] = []
    arguments = {"out": folder / "run", "loop": loop, "progress": False, "callbacks": [lambda row: rows.append(1)]}
    key = jax.random.key(0)
    hades.distill(key, run, 4, **arguments)
    # The last process asks for a stop, and all of them stop.
    asks = process == jax.process_count() - 1
    stopped = hades.distill(key, run, 8, **arguments, should_stop=lambda: asks)
    result = hades.distill(key, run, 6, **arguments)
    reached = hades.distill(key, run, 8, loop=replace(loop, target_return=-1e9), progress=False)
    told = {"process": process, "big": 2**40 + 0.25, "text": "é" * 100}
    return {
        "devices": jax.device_count(),
        "reached": [reached.finished, len(reached.history)],
        "stopped": [stopped.finished, len(stopped.history)],
        "history": [row["iteration"] for row in result.history],
        "evaluation": result.history[-1]["evaluation_mean"],
        "rows_seen": len(rows),
        "is_first": multihost.is_first(),
        "from_first": multihost.from_first(told) == told | {"process": 0},
        "any": [multihost.any_process(process == 0), multihost.any_process(False)],
        "least": multihost.least(2**40 + 0.25 - process),
        "refusal": refusal(folder, process),
        "unshared": unshared(folder, run, process),
        "arrays": [arrays(process), refused(np.zeros(2 + process))],
        "cache": [cache(folder / "cache"), cache(folder / f"cache{process}")],
        "rounded": rounded(process),
    }


def arrays(number: int) -> list[object]:
    """What all have of arrays that hold a number of each process, and of what is none."""
    tree = {
        "numbers": np.array([-0.0, np.nan, number], np.float32),
        "flag": jax.numpy.array(number == 0),
        "key": jax.random.key(number),
        "text": f"of {number}",
    }
    found = multihost.arrays_of_first(tree)
    words = np.asarray(jax.random.key_data(found["key"])).tolist()
    signs = np.signbit(found["numbers"]).tolist()
    return [signs, float(found["numbers"][2]), bool(found["flag"]), words, found["text"]]


def refused(tree: object) -> str:
    """Why arrays are not those of process 0."""
    try:
        multihost.arrays_of_first(tree)
    except ValueError as error:
        return str(error)
    return ""


def cache(folder: Path) -> bool:
    """Whether processes share a folder of compiled programs."""
    config: Any = jax.config
    before = config.jax_compilation_cache_dir
    config.update("jax_compilation_cache_dir", str(folder))
    is_shared = multihost._is_cache_shared()
    config.update("jax_compilation_cache_dir", before)
    return is_shared


def rounded(process: int) -> list[float]:
    """Fitness of a run whose given statistics each process has rounded otherwise, and of that of process 0."""
    env = envs.make("diagnostic/target", max_steps=3)

    def fitness(number: int) -> float:
        mean = np.full(env.observation_shape, 0.1 + 0.2 * number, np.float32)
        normalizer = Normalizer("fixed", mean, np.ones_like(mean))
        run = hades.recipes.hades_r(
            env,
            dataset_size=2,
            population_size=8,
            normalizer=normalizer,
            cloning=CloningSettings(hidden_sizes=(4,), kernel_init="lecun_normal", num_steps=3),
        )
        result = hades.distill(jax.random.key(0), run, 2, progress=False)
        return float(result.history[-1]["fitness_mean"])

    return [fitness(process), fitness(0)]


def refusal(folder: Path, process: int) -> str:
    """What each process is told where the first one alone fails."""
    try:
        with multihost.first_goes_before():
            if process == 0:
                raise ValueError("no such thing")
            Path(folder, "entered").touch()
    except ValueError as error:
        return str(error)
    return ""


def unshared(folder: Path, run: hades.Run, process: int) -> str:
    """What the others are told where folders differ between hosts."""
    if not multihost.are_several():
        return ""
    try:
        hades.distill(jax.random.key(0), run, 2, out=folder / f"host{process}", progress=False)
    except ValueError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *sys.argv[2:])))
