"""Choice of chunk sizes: by memory, by seconds, and kept for the next time."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import envs
from hades import tuning
from hades.inner.cloning import CloningSettings
from hades.policies import NetworkSettings
from hades.recipes import HadesSettings, NeuroevolutionSettings, from_settings
from hades.run import Run
from hades.tuning import DoesNotFitError, Trial, tune_chunks

SETTINGS = NeuroevolutionSettings(
    population_size=2,
    observation_normalization="none",
    rollout_chunk_size=3,
    network=NetworkSettings(hidden_sizes=(64,)),
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path) -> Iterator[Path]:
    """A folder of the compilation cache that nothing was chosen for yet."""
    before = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)


def make_run(settings: Any) -> Run[Any]:
    return from_settings(envs.make("diagnostic/match"), settings, mesh=jax.devices()[:1])


def tuned(limit_bytes: int | None = None, settings: Any = SETTINGS) -> tuple[Any, list[Trial]]:
    trials: list[Trial] = []
    return tune_chunks(settings, make_run, limit_bytes=limit_bytes, report=trials.append), trials


def test_chosen_sizes_are_the_quickest_that_were_tried_and_change_no_fitness() -> None:
    settings = HadesSettings(
        cpu_chunk_size=1,
        population_size=2,
        observation_normalization="none",
        cloning=CloningSettings(hidden_sizes=(4,), num_steps=2),
    )
    chosen, trials = tuned(settings=settings)
    sizes = {name: getattr(chosen, name) for name in tuning.CHUNK_SIZES}
    # Nor does a CPU have others.
    assert dataclasses.replace(chosen, **dict.fromkeys(sizes), cpu_chunk_size=1) == settings
    assert chosen.cpu_chunk_size is None
    # All candidates first, then half of them.
    assert [tuple(trial.sizes.values()) for trial in trials[:2]] == [(None, None), (1, 1)]
    (own,) = (trial for trial in trials if trial.sizes == sizes)
    quickest = min(trial.seconds for trial in trials if trial.seconds is not None)
    assert own.seconds is not None and own.seconds <= quickest / tuning._GAIN**2
    fitness = []
    for size in (None, 1):
        run = make_run(dataclasses.replace(settings, rollout_chunk_size=size, cloning_chunk_size=size))
        _, metrics = jax.jit(run.step)(run.init(jax.random.key(1)))
        fitness.append(np.asarray(metrics["fitness_mean"]))
    np.testing.assert_allclose(*fitness, rtol=1e-6)


def test_a_program_that_exhausts_the_memory_does_not_fit() -> None:
    def exhaust() -> float:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    def fail() -> float:
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    assert tuning.unless_exhausted(lambda: 1.0) == 1.0
    assert tuning.unless_exhausted(exhaust) is None
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        tuning.unless_exhausted(fail)


def test_a_container_has_no_more_memory_than_its_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "_CONTROL_GROUP", tmp_path)
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert tuning._available_bytes() > 2**20
    (tmp_path / "memory.max").write_text("5000\n")
    assert tuning._available_bytes() == 4000
    # What is kept of files gives way.
    (tmp_path / "memory.stat").write_text("anon 300\ninactive_file 500\nactive_file 150\nfile_mapped 7\n")
    assert tuning._available_bytes() == 4650


def test_sizes_fit_the_memory() -> None:
    run = make_run(SETTINGS)
    state = run.init(jax.random.key(0))
    sizes = {"rollout_chunk_size": None}
    needed = tuning._measure(run, state, sizes, limit=10**12)
    assert needed.seconds is not None and needed.seconds > 0
    assert tuning._measure(run, state, sizes, limit=needed.num_bytes).seconds is not None
    assert tuning._measure(run, state, sizes, limit=needed.num_bytes - 1).seconds is None
    with pytest.raises(DoesNotFitError, match="population_size: one candidate at a time takes .* MiB of a device"):
        tuned(limit_bytes=1)


def test_a_choice_is_kept_for_the_same_settings_and_device(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        tuning, "_measure", lambda run, state, sizes, limit: Trial(sizes, 1, 1.0 if limit >= 1 else None)
    )
    chosen, _ = tuned()
    again, trials = tuned()
    assert (again, trials) == (chosen, [])
    # Nor is one that needs more than there is now.
    assert tuned(limit_bytes=2)[1] == []
    with pytest.raises(DoesNotFitError):
        tuned(limit_bytes=1)
    # Sizes that the settings have are no part of what they are chosen for; others are.
    assert tuned(settings=dataclasses.replace(SETTINGS, rollout_chunk_size=None))[1] == []
    assert tuned(settings=dataclasses.replace(SETTINGS, num_episodes=3))[1] != []
    file = cache / "hades_chunk_sizes.json"
    assert len(json.loads(file.read_text())) == 2
    known = json.loads(file.read_text())
    other = [{"rollout": 3}, {"sizes": {"rollout": 3}, "num_bytes": 1, "seconds": None}]
    for garbage in ("[]", "{", *(json.dumps(dict.fromkeys(known, entry)) for entry in other)):
        file.write_text(garbage)
        assert tuned()[1] != []


@pytest.mark.parametrize(
    ("seconds", "tried", "best"),
    [
        ({None: 4, 8: 2, 4: 1, 2: 3, 1: 3}, [None, 8, 4, 2, 1], 4),
        # Two halvings that gain nothing are enough, and a gain within what measurements differ by is none.
        ({None: 1, 8: 0.99, 4: 2, 2: 0.1, 1: 0.1}, [None, 8, 4], None),
        ({None: None, 8: None, 4: 2, 2: 3, 1: 1}, [None, 8, 4, 2, 1], 1),
    ],
)
def test_sizes_are_halved_while_it_pays(
    seconds: dict[int | None, float | None], tried: list[int | None], best: int | None
) -> None:
    seen = []

    def attempt(sizes: dict[str, int | None]) -> Trial:
        seen.append(sizes["size"])
        return Trial(sizes, 1, seconds[sizes["size"]])

    found = tuning._search(attempt, ["size"], 16)
    assert found is not None and (seen, found.sizes["size"]) == (tried, best)


def test_the_last_of_two_sizes_is_halved_alone_from_the_best_of_both_on() -> None:
    seconds = {(None, None): 4.0, (4, 4): 2.0, (2, 2): 3.0, (1, 1): 3.0, (4, 2): 1.0, (4, 1): 1.5}
    seen = []

    def attempt(sizes: dict[str, int | None]) -> Trial:
        seen.append((sizes["rollout"], sizes["cloning"]))
        return Trial(sizes, 1, seconds[seen[-1]])

    found = tuning._search(attempt, ["rollout", "cloning"], 8)
    assert seen == list(seconds)
    assert found is not None and found.sizes == {"rollout": 4, "cloning": 2}
