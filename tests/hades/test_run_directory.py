"""The folder of a run, and files that are never seen by half."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

from hades import _provenance, _run_directory
from hades._files import write_atomically
from hades._run_directory import OtherRunError, RunDirectory, RunDirectoryError, key_words

ROWS = [{"iteration": index, "fitness_mean": 0.1 * index} for index in range(1, 6)]


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
    assert set(versions) == {"packages", "python", "platform", "processes", "device_count", "devices", "git_commit"}
    assert {"hades", "jax", "evosax", "numpy"} <= set(versions["packages"])
    assert versions["processes"] == 1
    assert versions["device_count"] == len(versions["devices"]) >= 1
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


@pytest.mark.parametrize("name", ["summary", "versions"])
def test_other_files_that_are_none_are_refused_by_name(directory, name):
    file, read = getattr(directory, name), getattr(directory, f"read_{name}")
    for content, words in ((None, "found nothing there"), ("{", "expected JSON"), ("[]", "expected a JSON object")):
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_text(content)
        with pytest.raises(RunDirectoryError) as failure:
            read()
        assert str(failure.value).startswith(f"{file}: ") and words in str(failure.value)


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


@pytest.mark.parametrize("iteration", [0, 3, 9])
def test_truncation_drops_what_lies_behind_an_iteration(directory, iteration):
    directory.append_metrics(ROWS)
    assert directory.truncate_metrics(iteration) == ROWS[:iteration]
    assert directory.read_metrics() == ROWS[:iteration]


def test_rows_of_the_version_before_are_read_by_the_present_name(directory):
    directory.metrics.write_text('{"generation": 1, "fitness_mean": NaN}\n{"generation": 2, "fitness_mean": 3.5}\n')
    rows = [{"iteration": 1, "fitness_mean": None}, {"iteration": 2, "fitness_mean": 3.5}]
    assert directory.read_metrics() == rows
    assert directory.last_row() == rows[1]
    before = directory.metrics.read_bytes()
    assert directory.truncate_metrics(2) == rows
    assert directory.metrics.read_bytes() == before
    directory.append_metrics([{"iteration": 3}])
    assert directory.read_metrics() == [*rows, {"iteration": 3}]


def test_doubled_rows_are_dropped(directory):
    directory.append_metrics(ROWS[:3] + ROWS[1:4])
    assert directory.truncate_metrics(9) == ROWS[:4]
    assert directory.read_metrics() == ROWS[:4]


def refuse_constants(name):
    raise AssertionError(f"{name} is no JSON")


def test_numbers_that_are_not_finite_are_null_everywhere(tmp_path):
    directory = RunDirectory(tmp_path)
    worst = {"a": float("nan"), "b": [float("inf"), {"c": -float("inf")}], "d": np.float32("nan"), "e": np.int32(3)}
    nulls = {"a": None, "b": [None, {"c": None}], "d": None, "e": 3}
    directory.create(worst)
    directory.write_summary(worst)
    directory.append_metrics([{"iteration": 1, **worst}])
    for path in (directory.config, directory.summary):
        assert json.loads(path.read_text(), parse_constant=refuse_constants) == nulls
    row = json.loads(directory.metrics.read_text(), parse_constant=refuse_constants)
    assert row == {"iteration": 1, **nulls} == directory.read_metrics()[0]


def test_the_last_row_is_found_without_reading_the_rest(directory, monkeypatch):
    assert directory.last_row() is None
    directory.metrics.write_text("")
    assert directory.last_row() is None
    # Shorter and longer than a stretch that is read at once.
    monkeypatch.setattr(_run_directory, "_TAIL_BYTES", 16)
    for count in range(1, 6):
        directory.append_metrics(ROWS[count - 1 : count])
        assert directory.last_row() == ROWS[count - 1]
    directory.metrics.write_bytes(directory.metrics.read_bytes()[:-1])
    assert directory.last_row() == ROWS[3]
    directory.metrics.write_text("half a li")
    assert directory.last_row() is None
    directory.metrics.write_text("no row\n")
    with pytest.raises(RunDirectoryError, match="the last line: expected a JSON object with an iteration"):
        directory.last_row()


def test_the_last_of_many_rows_is_found_at_once(directory):
    with directory.metrics.open("w") as file:
        file.write("not looked at\n" * 2_000_000)
    directory.append_metrics(ROWS)
    began = time.perf_counter()
    assert directory.last_row() == ROWS[-1]
    assert time.perf_counter() - began < 0.1


_HOLDER = """
import sys, time
from hades._run_directory import RunDirectory
with RunDirectory(sys.argv[1]).lock():
    print("locked", flush=True)
    time.sleep(600)
"""


def test_a_second_process_is_refused_and_the_lock_dies_with_its_holder(tmp_path):
    directory = RunDirectory(tmp_path / "deep" / "run")
    command = [sys.executable, "-c", _HOLDER, str(directory.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        assert directory.lock_file.read_text() == str(holder.pid)
        assert directory.is_locked
        with (
            pytest.raises(RunDirectoryError, match=f"run: expected .*, but process {holder.pid} does$"),
            directory.lock(),
        ):
            pass
        # Reading needs no lock.
        assert directory.read_metrics() == []
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert not directory.is_locked
    with directory.lock():
        assert directory.lock_file.read_text() == str(os.getpid())
    assert directory.lock_file.read_text() == ""


def test_who_asks_whether_a_run_is_locked_keeps_no_process_from_it(directory):
    with directory.lock_file.open("w") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        threading.Timer(0.05, lambda: fcntl.flock(reader, fcntl.LOCK_UN)).start()
        with directory.lock():
            pass


def test_the_lock_ends_with_an_exception_and_can_be_taken_again(directory):
    with pytest.raises(KeyboardInterrupt), directory.lock():
        raise KeyboardInterrupt
    with directory.lock(), pytest.raises(RunDirectoryError, match=f"but process {os.getpid()} does"), directory.lock():
        pass


def test_a_file_system_without_locks_is_named(directory, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", fail)
    words = "expected a file system with locks .Operation not supported."
    with pytest.raises(OSError, match=words) as caught, directory.lock():
        pass
    assert caught.value.filename == str(directory.lock_file)


def config(seed=0, options=None, **changes):
    settings = {"sigma": 0.1, "evolution": {"strategy": "SNES", "rank": 4}, "sizes": [8, 8]}
    options = {"backend": "spring"} if options is None else options
    beside = {"key": key_words(jax.random.key(seed)), "num_iterations": 5 + seed}
    return {"env": "brax/hopper", "env_options": options, **beside, "settings": settings | changes}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (config(sigma=0.3), "has sigma 0.1, got 0.3"),
        (config(evolution={"strategy": "SNES", "rank": 2}), "has evolution.rank 4, got 2"),
        (config(evolution=None), 'has evolution {"strategy": "SNES", "rank": 4}, got null'),
        (config(sizes=[8]), r"has sizes \[8, 8\], got \[8\]"),
        (config(seed=7), r"has key \[0, 0\], got \[0, 7\]"),
        (config(options={}), 'has env_options {"backend": "spring"}, got {}'),
        (config() | {"env": "brax/ant"}, 'has env "brax/hopper", got "brax/ant"'),
        (config(sigma=0.3) | {"env": "brax/ant"}, 'has env "brax/hopper"'),
    ],
)
def test_a_run_of_another_configuration_is_refused(tmp_path, changed, sentence):
    directory = RunDirectory(tmp_path)
    directory.create(config())
    with pytest.raises(OtherRunError, match=f"^the run in {tmp_path} {sentence}"):
        directory.check_same(changed)


def test_the_first_difference_can_be_told_by_its_field(tmp_path):
    directory = RunDirectory(tmp_path)
    with pytest.raises(OtherRunError) as caught:
        directory.check_same(config(sigma=0.3), saved=config())
    assert (caught.value.field, caught.value.saved, caught.value.given) == ("sigma", 0.1, 0.3)


def test_what_is_free_to_change_and_what_only_one_has_is_passed_over(tmp_path):
    directory = RunDirectory(tmp_path)
    directory.create(config() | {"loop": {"checkpoint_seconds": 60.0, "evaluate_every": 5}, "former": 1})
    loop = {"checkpoint_seconds": 1.0, "evaluate_every": 5, "max_seconds": 9.0, "target_return": 5.0}
    directory.check_same(config(sizes=(8, 8), later=3) | {"loop": loop, "num_iterations": 99, "json": True})
    with pytest.raises(OtherRunError, match="has loop.evaluate_every 5, got 6"):
        directory.check_same(config() | {"loop": loop | {"evaluate_every": 6}})
    directory.check_same(config(sigma=0.3), free={"sigma", "num_iterations"})


def test_keys_that_were_derived_differ_from_seeds():
    derived = jax.random.fold_in(jax.random.key(0), 1)
    assert key_words(derived) != key_words(jax.random.key(0))


def test_a_run_directory_of_the_version_before_is_read(tmp_path):
    with zipfile.ZipFile(Path(__file__).parents[1] / "data" / "before" / "evolution_half.zip") as archive:
        archive.extractall(tmp_path)
    directory = RunDirectory(tmp_path / "evolution_half")
    assert directory.read_config()["num_iterations"] == 2
    assert [row["iteration"] for row in directory.read_metrics()] == [1, 2]
    assert directory.last_row() == directory.read_metrics()[-1]
    saved = directory.read_config()
    directory.check_same({"env": "diagnostic/match", "key": [0, 0], "settings": saved["settings"]})
    with pytest.raises(OtherRunError, match="has population_size 4, got 8"):
        directory.check_same({"settings": saved["settings"] | {"population_size": 8}})


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
    assert _provenance.git_commit() is None
    failed = subprocess.CompletedProcess([], 128, stdout="", stderr="not a git repository")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **named: failed)
    assert _provenance.git_commit() is None
    assert _provenance.installed_versions()["git_commit"] is None
