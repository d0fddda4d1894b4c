"""The command as a process: which packages it imports, signals, variables of its environment, and its streams."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import jax
import pytest

from experiments.processes import command, leave_memory, program

ROOT = Path(__file__).resolve().parents[2]
# As pip writes it, but for the folder of the interpreter.
CONSOLE_SCRIPT = "import sys; from hades_command import main; sys.exit(main())"
# A call into C that lets other threads run but, as one of XLA may, neither ends nor lets a signal handler run.
DEAF_PROGRAM = """
import ctypes, sys
from experiments.stopping import end_process_on_signals
end_process_on_signals("hades verb")
print("ready", flush=True)
mutex = ctypes.create_string_buffer(64)
ctypes.CDLL(None).pthread_mutex_lock(mutex)
ctypes.CDLL(None).pthread_mutex_lock(mutex)
"""
# Waits for a process that says which signal reached it.
WAITING_PROGRAM = """
import sys
from experiments.processes import run
from experiments.stopping import end_process_on_signals
end_process_on_signals("hades bench")
other = '''
import signal, time
signal.signal(signal.SIGTERM, lambda *_: (print("asked to stop", flush=True), exit()))
print("ready", flush=True)
time.sleep(60)
'''
run([sys.executable, "-c", other])
"""


def run(
    arguments: Sequence[str], without: Sequence[str] = (), cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in (os.environ | variables).items() if name not in without}
    return subprocess.run(arguments, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=240)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel of this tree installs."""
    pytest.importorskip("hatchling", reason="the build backend is of the extra test")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = run(build, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's folder with packages of the names that this distribution has."""
    for name in ("envs", "experiments"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise SystemExit('{name} of the user was imported')")
    return tmp_path


def test_wheel_has_packages_and_launcher_but_no_results_or_notebooks(site: Path) -> None:
    installed = {path.name for path in site.iterdir() if path.suffix != ".dist-info"}
    assert installed == {"hades", "envs", "experiments", "hades_command.py"}
    inside = {path.name for path in (site / "experiments").iterdir()}
    assert {"cli.py", "commands", "presets"} <= inside
    assert {"page.html", "page.css", "main.js"} <= {
        path.name for path in (site / "experiments/report/template").iterdir()
    }
    assert not {"results", "notebooks"} & inside
    of_the_zoo = {path.name for path in (site / "hades" / "zoo" / "files").iterdir()}
    assert of_the_zoo == {path.name for path in (ROOT / "hades" / "zoo" / "files").iterdir()}
    assert {"cartpole.npz", "cartpole.json"} <= of_the_zoo
    (entry_points,) = site.glob("*.dist-info/entry_points.txt")
    assert "hades = hades_command:main" in entry_points.read_text()


@pytest.mark.parametrize("start", [("-c", CONSOLE_SCRIPT), ("-m", "hades")], ids=["script", "module"])
def test_command_imports_its_own_packages_in_a_folder_that_has_others(
    site: Path, project: Path, start: tuple[str, str]
) -> None:
    arguments = [sys.executable, *start, "distill", "--env", "diagnostic/mach"]
    done = run(arguments, cwd=project, PYTHONPATH=os.pathsep.join([str(project), str(site)]))
    assert done.returncode == 2, done.stderr
    assert done.stderr == (
        "hades distill: unknown environment 'diagnostic/mach': did you mean 'diagnostic/match'?\n"
    ), done.stderr


def test_processes_that_the_command_starts_import_its_own_packages(project: Path) -> None:
    for arguments in (command("--version"), program("experiments.checks.resume", "--help")):
        done = run(arguments, cwd=project, PYTHONPATH=str(project))
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "--kills" in done.stdout


def test_script_that_finds_other_envs_is_told_the_way_to_ours(project: Path) -> None:
    (project / "envs" / "__init__.py").write_text("")
    way = f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
    path = os.pathsep.join([str(project), str(ROOT)])
    lost = run([sys.executable, "-c", "import hades"], cwd=project, PYTHONPATH=path)
    assert lost.returncode == 0
    assert f"UserWarning: import envs finds {project / 'envs'}" in lost.stderr
    assert f"sys.path.insert(0, {str(ROOT)!r})" in lost.stderr
    found = run([sys.executable, "-c", way + "import hades, envs; envs.make"], cwd=project, PYTHONPATH=path)
    assert (found.returncode, found.stderr) == (0, "")


def test_python_m_hades_is_the_command() -> None:
    done = run([sys.executable, "-m", "hades", "--version"], cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == run(command("--version")).stdout


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("seconds", [0.3, 1.5])
def test_signal_while_modules_are_imported_ends_the_process_in_one_line(
    tmp_path: Path, number: signal.Signals, code: int, seconds: float
) -> None:
    arguments = command("distill", "--preset", "cartpole", "--out", str(tmp_path / "run"))
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    process.send_signal(number)
    assert process.communicate(timeout=5) == ("", "hades distill: stopped\n")
    assert process.returncode == code


@pytest.mark.parametrize(
    "verb", [("evaluate", "RUN"), ("train", "RUN"), ("baseline", "ppo", "--preset", "cartpole"), ("bench", "cal-ql")]
)
def test_every_verb_is_ended_by_a_signal(tmp_path: Path, finished_run: Path, verb: tuple[str, ...]) -> None:
    arguments = command(*(str(finished_run) if word == "RUN" else word for word in verb))
    process = subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=5) == ("", f"hades {verb[0]}: stopped\n")
    assert process.returncode == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_a_process_at_once_that_runs_no_python(number: signal.Signals) -> None:
    arguments = [sys.executable, "-c", DEAF_PROGRAM]
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.communicate(timeout=10) == ("", "hades verb: stopped\n")
        assert process.returncode == 128 + number
    finally:
        process.kill()
        process.communicate()


def test_a_process_that_is_ended_ends_those_it_waits_for() -> None:
    arguments = [sys.executable, "-c", WAITING_PROGRAM]
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        # The pipe is at its end once both have ended: the other one holds it, too.
        assert process.communicate(timeout=10) == ("asked to stop\n", "hades bench: stopped\n")
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("given", [None, "true"])
def test_memory_is_left_to_processes_that_take_theirs_as_before(
    monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
    if given is not None:
        monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", given)
    seen: list[str | None] = []
    monkeypatch.setattr(jax, "devices", lambda: seen.append(os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE")))
    leave_memory()
    assert seen == [given or "false"]
    assert os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE") == given


@pytest.mark.parametrize("platforms", ["CPU", "rocm,cpu"])
def test_platforms_that_are_not_there_are_one_sentence(tmp_path: Path, platforms: str) -> None:
    arguments = command("distill", "--env", "diagnostic/match", "--out", str(tmp_path / "run"))
    done = run(arguments, JAX_PLATFORMS=platforms)
    expected = f"hades distill: JAX_PLATFORMS: expected platforms that JAX finds here, such as cpu, got {platforms!r}\n"
    assert (done.returncode, done.stderr) == (1, expected)


def test_variable_of_jax_without_meaning_is_one_sentence() -> None:
    done = run(command("info", "absent.npz"), JAX_ENABLE_X64="perhaps")
    assert done.returncode == 2
    assert done.stderr == "hades info: invalid truth value 'perhaps' for environment 'JAX_ENABLE_X64'\n"


@pytest.mark.slow
def test_without_a_home_directory_there_is_no_cache_and_a_warning(tmp_path: Path) -> None:
    # What Python finds of a user id that has no entry.
    nobody = "import pwd\ndef missing(uid): raise KeyError(uid)\npwd.getpwuid = missing"
    (tmp_path / "sitecustomize.py").write_text(nobody)
    without = ("HOME", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    out = tmp_path / "run"
    flags = ("--env", "diagnostic/match", "--num-iterations", "1", "--population-size", "4", "--out", str(out))
    done = run(command("distill", *flags), without, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("hades distill: no compilation cache, as the home directory is not known; set HOME")
    assert "Traceback" not in done.stderr
    assert (out / "summary.json").is_file()
    done = run(command("info", "~/run"), without, PYTHONPATH=path)
    assert done.returncode == 2
    assert "~/run: expected a path without ~" in " ".join(done.stderr.split())


@pytest.mark.parametrize("arguments", [("--version",), ("info", "--help"), ("info", "RUN")])
def test_reader_that_has_had_enough_is_no_error(arguments: tuple[str, ...], finished_run: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    arguments = tuple(str(finished_run) if argument == "RUN" else argument for argument in arguments)
    done = subprocess.run(
        command(*arguments), stdout=writer, stderr=subprocess.PIPE, text=True, check=False, timeout=240
    )
    os.close(writer)
    assert done.returncode in (0, 141)
    assert done.stderr == ""
