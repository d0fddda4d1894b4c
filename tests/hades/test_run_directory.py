"""The folder of a run, and files that are never seen by half."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from hades import _run_directory
from hades._files import write_atomically
from hades._run_directory import RunDirectory, RunDirectoryError, git_commit

ROWS = [{"generation": index, "fitness_mean": 0.1 * index} for index in range(1, 6)]


@pytest.fixture
def directory(tmp_path):
    directory = RunDirectory(tmp_path / "deep" / "run")
    directory.create({"settings": {"dataset_size": 4}})
    return directory


def test_a_new_folder_holds_settings_and_versions(tmp_path):
    directory = RunDirectory(tmp_path / "deep" / "run")
    assert not directory.holds_run
    assert not directory.path.exists()
    directory.create({"settings": {"dataset_size": 4}})
    assert directory.holds_run
    assert directory.read_config() == {"settings": {"dataset_size": 4}}
    versions = json.loads(directory.versions.read_text())
    assert set(versions) == {"packages", "python", "platform", "devices", "git_commit"}
    assert {"hades", "jax", "evosax", "numpy"} <= set(versions["packages"])
    assert len(versions["devices"]) >= 1
    assert sorted(path.name for path in directory.path.iterdir()) == ["config.json", "versions.json"]


def test_a_folder_without_its_config_holds_no_run(directory):
    directory.config.unlink()
    assert not directory.holds_run
    with pytest.raises(RunDirectoryError, match="expected a run directory with a config.json, found none"):
        directory.read_config()


@pytest.mark.parametrize("content", [b'{"a": ', b"[1, 2]", b"\xff\xfe", b""])
def test_a_config_that_is_none_is_refused(directory, content):
    directory.config.write_bytes(content)
    with pytest.raises(RunDirectoryError, match="config.json: expected"):
        directory.read_config()


def test_metrics_grow_row_by_row(directory):
    assert directory.read_metrics() == []
    directory.append_metrics(ROWS[:2])
    directory.append_metrics(ROWS[2:])
    assert directory.read_metrics() == ROWS
    assert [json.loads(line) for line in directory.metrics.read_text().splitlines()] == ROWS


def test_a_line_cut_short_is_passed_over_and_truncation_removes_it(directory):
    directory.append_metrics(ROWS)
    whole = directory.metrics.read_bytes()
    directory.metrics.write_bytes(whole[:-7])
    assert directory.read_metrics() == ROWS[:4]
    assert directory.truncate_metrics(4) == ROWS[:4]
    directory.append_metrics(ROWS[4:])
    assert directory.metrics.read_bytes() == whole


@pytest.mark.parametrize("generation", [0, 3, 9])
def test_truncation_drops_what_lies_behind_a_generation(directory, generation):
    directory.append_metrics(ROWS)
    assert directory.truncate_metrics(generation) == ROWS[:generation]
    assert directory.read_metrics() == ROWS[:generation]


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, "before")

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space left"):
            write_atomically(path, "after")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
    write_atomically(path, b"after")
    assert path.read_text() == "after"


def test_the_commit_is_known_only_in_a_source_tree(monkeypatch):
    def absent(*arguments, **named):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", absent)
    assert git_commit() is None
    failed = subprocess.CompletedProcess([], 128, stdout="", stderr="not a git repository")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **named: failed)
    assert git_commit() is None
    assert _run_directory.installed_versions()["git_commit"] is None
