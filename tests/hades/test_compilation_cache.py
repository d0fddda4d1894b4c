"""Programs kept on disk: that a process which has compiled begins to, and which folder they are kept in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hades.compilation_cache import configure_environment

PROGRAM = """
import jax, hades

def compiled(factor):
    return jax.jit(lambda x: factor * jax.numpy.sin(x))(1.0)

hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith("cache_hits") else None)
compiled(2.0).block_until_ready()
hits.clear()
print(hades.enable_compilation_cache())
jax.clear_caches()
compiled(3.0).block_until_ready()
print(len(hits))
"""


def outcome(home: Path, **variables: str) -> list[str]:
    names = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "XDG_CACHE_HOME")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=kept | {"HOME": str(home)} | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_a_second_process_finds_what_the_first_compiled(tmp_path: Path) -> None:
    folder = str(tmp_path / ".cache" / "hades" / "jax")
    assert outcome(tmp_path) == [folder, "0"]
    assert int(outcome(tmp_path)[1]) > 0


def test_a_folder_that_jax_was_given_is_kept(tmp_path: Path) -> None:
    assert outcome(tmp_path, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own")) == [str(tmp_path / "own"), "0"]
    assert any((tmp_path / "own").iterdir())
    assert not (tmp_path / ".cache").exists()


def test_variables_name_the_folder_of_all_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    for name in names:
        # Set and deleted, so that what the function sets is taken back.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    configure_environment()
    assert [os.environ[name] for name in names] == [str(tmp_path / "hades" / "jax"), "0"]
