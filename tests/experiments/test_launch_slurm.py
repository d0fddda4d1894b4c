"""Grids that Slurm runs: the script that is submitted, signals within a task, and a real Slurm on this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from experiments.launching.grid import Member, load_grid
from experiments.launching.member_process import MemberFiles
from experiments.launching.slurm_task import Task
from experiments.launching.status import statuses
from experiments.processes import command
from tests.experiments.command import Outcome
from tests.experiments.grids import FLAGS, SEEDS, write_grid

pytest.importorskip("submitit", reason="the extra slurm is not installed")

# Stands for `hades`: ends on Ctrl-C alone, as if it wrote a checkpoint, and would end badly by a second one.
STUB = """
import os, signal, time
def stop(number, frame):
    print("asked to stop", flush=True)
    time.sleep(0.5)
    os._exit(130)
signal.signal(signal.SIGINT, stop)
print("ready", flush=True)
time.sleep(60)
"""
# What submitit does on a node, but for its own handler's requeue.
TASK = """
import pickle, signal, sys
task = pickle.load(open(sys.argv[1], "rb"))
def requeue(number, frame):
    again = task.checkpoint()
    assert again.function == task
    print("requeued", flush=True)
    sys.exit(3)
signal.signal(signal.SIGUSR2, requeue)
task()
"""


def test_dry_run_prints_the_script_and_every_task_and_leaves_nothing(hades: Callable[..., Outcome]) -> None:
    text = (
        SEEDS
        + """
[slurm]
partition = "gpu"
gpus = 4
cpus = 8
memory = "64G"
minutes = 120
grace = 90
parallelism = 1
setup = ["module load cuda"]
parameters = {account = "lab", exclusive = true}
"""
    )
    outcome = hades("launch", "slurm", write_grid(Path(), text), "--dry-run")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    options = """array=0-1%1 partition=gpu gpus-per-node=4 nodes=1 ntasks-per-node=1 cpus-per-task=8 mem=64G time=120
    signal=USR2@90 requeue account=lab exclusive"""
    for option in options.split():
        assert f"#SBATCH --{option}" in lines
    assert "gpus-per-task" not in outcome.out
    assert lines.index("module load cuda") < next(n for n, line in enumerate(lines) if line.startswith("srun "))
    assert "--cpus-per-task=8 env PYTHONSAFEPATH=1 PYTHONPATH=" in outcome.out
    members = load_grid(Path("grid.toml")).members
    assert [line for line in lines if line.startswith("# task ")] == [
        f"# task {index}: hades {' '.join(member.arguments)}" for index, member in enumerate(members)
    ]
    assert not Path("runs").exists()


def test_run_over_several_nodes_is_one_of_several_processes(hades: Callable[..., Outcome]) -> None:
    path = write_grid(Path(), "[grid]\nseed = [0]\n[slurm]\nnodes = 2\ngpus = 4\n")
    outcome = hades("launch", "slurm", path, "--dry-run")
    assert "#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=4\n" in outcome.out
    assert "--array" not in outcome.out
    assert outcome.out.splitlines()[-1].endswith("--out=runs/grid/seed0 --resume --multihost")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('command = "baseline ppo"\n', "--multihost: expected none, as such a run works on one device of one process"),
        ("", "devices: expected none beside multihost"),
    ],
)
def test_runs_that_cannot_have_several_processes_are_refused_before_any_is_submitted(
    hades: Callable[..., Outcome], text: str, sentence: str
) -> None:
    flags = 'flags = {env = "diagnostic/match", num-iterations = 2}\n' if text else FLAGS + "devices = 1\n"
    path = write_grid(Path(), f"{SEEDS}[slurm]\nnodes = 2\n", flags=flags, top=text)
    outcome = hades("launch", "slurm", path, "--dry-run")
    assert outcome.code == 2
    assert f"grid.toml: run seed0: {sentence}" in outcome.err


def test_without_slurm_or_submitit_a_sentence_says_so(
    hades: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_grid(Path())
    monkeypatch.setenv("PATH", "")
    outcome = hades("launch", "slurm", path)
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1].startswith("hades launch: slurm: expected a machine with srun and sbatch")
    monkeypatch.setitem(sys.modules, "submitit", None)
    outcome = hades("launch", "slurm", path, "--dry-run")
    assert outcome.code == 2
    assert "slurm: needs submitit, install hades-distillation[slurm]" in outcome.err


@pytest.mark.parametrize("requeue", [False, True])
def test_task_asks_the_run_to_stop_once_whatever_signals_come(tmp_path: Path, requeue: bool) -> None:
    import cloudpickle

    files = MemberFiles(tmp_path, "seed0")
    task = Task(files, ("distill",), (sys.executable, "-S", "-c", STUB))
    pickled = tmp_path / "task.pkl"
    pickled.write_bytes(cloudpickle.dumps(task))
    root = str(Path(__file__).resolve().parents[2])
    variables = os.environ | {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "PYTHONPATH": root}
    process = subprocess.Popen(
        [sys.executable, "-c", TASK, str(pickled)], env=variables, stdout=subprocess.PIPE, text=True
    )
    while not (files.log.exists() and "ready" in files.log.read_text()):
        time.sleep(0.02)
    record = files.last_record()
    assert record is not None and (record["job"], record["exit_code"]) == ("7_3", None)
    # Slurm may signal what a task has started as well.
    for number in (signal.SIGTERM, signal.SIGUSR2) if requeue else (signal.SIGTERM, signal.SIGTERM):
        os.kill(record["pid"], number)
        process.send_signal(number)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == ((3, "requeued\n") if requeue else (130, ""))
    assert files.log.read_text() == "$ hades distill\nready\nasked to stop\n"
    last = files.last_record()
    assert last is not None and last["exit_code"] == 130


CLUSTER = Path(os.environ.get("HADES_LOCAL_SLURM", Path(__file__).resolve().parents[3] / "shared/slurm/local-cluster"))


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A real Slurm of two nodes on this machine."""
    if os.geteuid() or not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))) or not CLUSTER.exists():
        pytest.skip(f"needs root, slurm-wlm, munge and {CLUSTER}")
    # Other users, such as that of munge, do not reach pytest's folders.
    folder = Path("/tmp") / f"hades-slurm-{os.getpid()}"
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    try:
        subprocess.run(["bash", CLUSTER, "start", folder], check=True, stdout=subprocess.DEVNULL)
        yield
    finally:
        daemons = [Path("/proc", pid) for file in folder.rglob("*.pid") if (pid := file.read_text().strip())]
        subprocess.run(["bash", CLUSTER, "stop", folder], check=True)
        # A controller whose folder is gone while it saves its state never ends, and keeps its port.
        wait_until(lambda: not any(daemon.exists() for daemon in daemons), seconds=60)
        shutil.rmtree(folder, ignore_errors=True)


def hades_json(*arguments: str) -> tuple[int, dict[str, str]]:
    """Exit code of a command in a process, and the states that it tells of."""
    done = subprocess.run(command(*arguments, "--json"), stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode, {run["name"]: run["state"] for run in json.loads(done.stdout)["runs"]}


def wait_until(holds: Callable[[], bool], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.5)


def preempt(member: Member) -> None:
    """Lets a job of higher priority take both nodes for some seconds, once the member has done iterations."""
    metrics = member.out / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.read_text().count("\n") > 100)
    high = ["sbatch", "--wait", "-p", "high", "-N2", "-n4", "-o", "/dev/null", "--wrap", "sleep 5"]
    subprocess.run(high, check=True, stdout=subprocess.DEVNULL)
    assert (member.files.last_record() or {})["exit_code"] == 130


@pytest.mark.slow
def test_grid_of_twelve_with_one_failed_and_one_preempted(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = """
[grid]
seed = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
[[runs]]
name = "preempted"
num-iterations = 1000000000
max-seconds = 40
[[runs]]
name = "failing"
[slurm]
partition = "low"
cpus = 1
"""
    grid = load_grid(write_grid(tmp_path, text))
    members = {member.name: member for member in grid.members}
    obstacle = members["failing"].out / "versions.json"
    obstacle.mkdir(parents=True)
    code, states = hades_json("launch", "slurm", "grid.toml")
    assert (code, set(states.values()) <= {"waiting", "running"}, len(states)) == (0, True, 12)

    preempt(members["preempted"])
    assert hades_json("launch", "status", "grid.toml")[1]["preempted"] == "waiting"

    def states_now() -> dict[str, str]:
        return {found.member.name: str(found.state) for found in statuses(grid)}

    wait_until(lambda: not set(states_now().values()) & {"waiting", "running"})
    assert states_now() == dict.fromkeys(members, "done") | {"failing": "failed"}
    assert f"{obstacle}: Is a directory" in members["failing"].files.last_words()
    log = members["preempted"].files.log.read_text()
    assert log.count("stopping after this call with a checkpoint") == 1

    obstacle.rmdir()
    records = {name: member.files.record.read_text() for name, member in members.items()}
    assert hades_json("launch", "slurm", "grid.toml")[0] == 0
    wait_until(lambda: set(states_now().values()) == {"done"})
    changed = [name for name, member in members.items() if member.files.record.read_text() != records[name]]
    assert changed == ["failing"]


@pytest.mark.slow
def test_run_over_two_nodes_is_preempted_with_one_checkpoint_and_goes_on(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = """
[[runs]]
name = "both"
num-iterations = 1000000000
max-seconds = 30
[slurm]
nodes = 2
"""
    grid = load_grid(write_grid(tmp_path, text))
    (member,) = grid.members
    assert hades_json("launch", "slurm", "grid.toml")[0] == 0
    preempt(member)
    metrics = member.out / "metrics.jsonl"
    done = metrics.read_text().count("\n")
    wait_until(lambda: [str(found.state) for found in statuses(grid)] == ["done"])
    iterations = [json.loads(line)["iteration"] for line in metrics.read_text().splitlines()]
    assert iterations == list(range(1, len(iterations) + 1)) and len(iterations) > done
    versions = json.loads((member.out / "versions.json").read_text())
    assert (versions["processes"], versions["device_count"]) == (2, 2)
    assert member.files.log.read_text().count("stopping after this call with a checkpoint") == 1
