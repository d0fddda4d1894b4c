"""Finished runs that many tests look at, and the command itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.experiments.command import Outcome, exit_code, make_run


@pytest.fixture
def hades(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Runs `hades ARGUMENTS` in this process and an empty folder."""
    folder = tmp_path / "working-folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: str | Path) -> Outcome:
        capfd.readouterr()
        code = exit_code(*arguments)
        return Outcome(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a HaDES-R run on `diagnostic/match`, not to be changed."""
    return make_run(tmp_path_factory.mktemp("runs") / "finished")


@pytest.fixture(scope="session")
def fixed_init_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a HaDES-F run on `diagnostic/target`, not to be changed."""
    flags = ("--env", "diagnostic/target", "--method", "hades-f", "--init-seed", "7")
    return make_run(tmp_path_factory.mktemp("runs") / "fixed-init", *flags)
