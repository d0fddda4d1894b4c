"""Fixtures of the whole suite, and the compilation cache that makes a second run quick."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hades.run import Run

# Set before anything imports JAX (hence the imports within fixtures), and in the environment, so that processes that
# tests start share the cache. Small programs are cached too: runs that tests build more than once compile once.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).resolve().parent.parent / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# Tests compile far longer than they run: without the optimisations of LLVM (those of XLA stay), in half of the time.
# Each program in one piece, as workers keep all cores busy.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1")

# Workers share the cores; as in the command, see `hades_command`.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    # A cache that cannot be read or written costs time, never a test.
    config.addinivalue_line("filterwarnings", "ignore:Error (reading|writing) persistent compilation cache:UserWarning")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Files go to workers in this order, and the longest one would end alone.
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")


@pytest.fixture(scope="module", autouse=True)
def _compiled_programs_of_one_module() -> Iterator[None]:
    """Frees what a module compiled: each program holds memory maps, of which Linux grants a process 65,530."""
    import jax

    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="session")
def small_run() -> Run:
    """HaDES-R on a task whose right answer is shown at every step; a generation takes a millisecond."""
    import hades
    from envs.diagnostic import Match
    from hades.inner.cloning import CloningSettings
    from hades.outer.evolution import EvolutionSettings

    return hades.recipes.hades_r(
        Match(num_actions=3, max_steps=8),
        dataset_size=3,
        population_size=8,
        num_inits=1,
        num_episodes=2,
        observation_normalization="none",
        cloning=CloningSettings(hidden_sizes=(), kernel_init="lecun_normal", learning_rate=0.05, num_steps=10),
        evolution=EvolutionSettings(sigma=0.5, learning_rate=0.2, fitness_shaping="centered_rank"),
    )
