"""Several processes of one run over loopback: one run, the same as that of one process on as many devices."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.processes import forced_devices, free_address
from hades import multihost
from hades.multihost import LostProcessError, MultihostSettings

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("multihost_program.py")


def start(folder: Path, devices: int, *job: object) -> subprocess.Popen[str]:
    flags = {
        **forced_devices([devices]),
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    arguments = [sys.executable, str(PROGRAM), str(folder), *map(str, job)]
    return subprocess.Popen(
        arguments, env=os.environ | flags, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("one")


@pytest.fixture(scope="module")
def results(folders):
    """What two processes of one device tell, and one process of two devices."""
    address = free_address()
    processes = [start(folders[0], 1, address, 2, index) for index in range(2)] + [start(folders[1], 2)]
    found = []
    for process in processes:
        out, error = process.communicate(timeout=300)
        assert process.returncode == 0, error[-3000:]
        # Gloo writes to stdout, too.
        found.append(json.loads(out.splitlines()[-1]))
    return found


def test_processes_share_their_devices(results):
    assert [result["devices"] for result in results] == [2, 2, 2]
    assert [result["is_first"] for result in results] == [True, False, True]


def test_a_stop_that_one_process_asks_for_stops_all_with_a_checkpoint(results):
    for result in results:
        assert result["stopped"] == [False, 4]
        assert result["history"] == [1, 2, 3, 4, 5, 6]


def test_a_return_that_is_reached_ends_the_run_in_all(results):
    # At the first evaluation.
    assert [result["reached"] for result in results] == [[True, 2]] * 3


def test_the_first_process_alone_writes_and_tells(results, folders):
    assert [result["rows_seen"] for result in results] == [6, 0, 6]
    lines = (folders[0] / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_the_run_is_that_of_one_process_on_as_many_devices(results, folders):
    two, one = folders
    for name in ("dataset.npz", "best_dataset.npz"):
        assert (two / "run" / name).read_bytes() == (one / "run" / name).read_bytes()
    assert results[0]["evaluation"] == results[1]["evaluation"] == results[2]["evaluation"]
    rows = [
        [{name: value for name, value in json.loads(line).items() if "seconds" not in name} for line in lines]
        for lines in ((folder / "run" / "metrics.jsonl").read_text().splitlines() for folder in (two, one))
    ]
    assert rows[0] == rows[1]


def test_values_and_flags_are_agreed(results):
    assert all(result["from_first"] for result in results)
    # Of one process alone both are its own.
    assert [result["any"] for result in results] == [[True, False]] * 3
    # Two have the lesser number of the second.
    assert [result["least"] for result in results] == [2**40 - 0.75, 2**40 - 0.75, 2**40 + 0.25]


def test_arrays_are_those_of_the_first_process(results):
    key = np.asarray(jax.random.key_data(jax.random.key(0))).tolist()
    for process, result in enumerate(results[:2]):
        others, refused = result["arrays"]
        assert others == [[True, False, False], 0.0, True, key, f"of {process}"]
        assert refused == "multihost: expected arrays of the same shapes and types in every process"
    # Of one process alone they are its own.
    assert results[2]["arrays"] == [[[True, False, False], 0.0, True, key, "of 0"], ""]


def test_processes_that_round_otherwise_score_by_what_the_first_one_has(results):
    own, first = zip(*(result["rounded"] for result in results), strict=True)
    assert own[0] == own[1] == first[0] == own[2]


def test_the_compilation_cache_is_used_where_processes_share_its_folder(results, folders):
    assert [result["cache"] for result in results] == [[True, False], [True, False], [True, True]]
    assert not list((folders[0] / "cache").iterdir())


def test_a_failure_of_the_first_process_is_told_to_all_before_they_go_on(results, folders):
    assert [result["refusal"] for result in results[:2]] == ["no such thing", "process 0: no such thing"]
    assert not (folders[0] / "entered").exists()


def test_folders_that_hosts_do_not_share_are_refused_by_all(results):
    for index in range(2):
        assert results[index]["unshared"].endswith(
            f"host{index}: expected a folder that all processes of the run share"
        )


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"num_processes": 2}, "num_processes: expected none without multihost"),
        ({"multihost": True, "coordinator": "n1:1"}, "num_processes: expected one beside coordinator"),
        ({"multihost": True, "process_id": 0}, "coordinator: expected one beside process_id"),
        (
            {"multihost": True, "coordinator": "n1", "num_processes": 2, "process_id": 0},
            "coordinator: expected HOST:PORT, got 'n1'",
        ),
        (
            {"multihost": True, "coordinator": "n1:1", "num_processes": 2, "process_id": 2},
            "process_id: expected 0 to 1, got 2",
        ),
        ({"multihost": True, "connect_seconds": 0}, "connect_seconds: expected a number above 0, got 0"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        MultihostSettings(**settings)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("coordinator_address should be defined."), "multihost: expected a job that JAX detects"),
        (jax.errors.JaxRuntimeError("UNKNOWN: Failed to start"), "coordinator: expected an address at which process 0"),
        (RuntimeError("must be called before"), "multihost: expected a process in which JAX has done nothing yet"),
    ],
)
def test_what_jax_refuses_is_one_sentence(monkeypatch, error, sentence):
    def refuse(*arguments, **named):
        raise error

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    with pytest.raises(ValueError, match=f"^{sentence}"):
        multihost.initialize(MultihostSettings(multihost=True))


def test_a_gpu_that_slurm_hides_from_a_task_is_told(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("SLURM_LOCALID", "1")
    with pytest.raises(ValueError, match="CUDA_VISIBLE_DEVICES=0 hides those of others; give the job --gres=gpu:N"):
        multihost.initialize(MultihostSettings(multihost=True))


@pytest.mark.parametrize(
    ("visible", "task", "tasks", "devices"),
    [
        ("0,1,2,3,4,5,6,7", "0", "1(x2)", list(range(8))),
        ("0,1,2,3", "1", "2", [2, 3]),
        ("4,5", "1", "2(x8)", [1]),
        ("0,1", "1", "2,1", None),
        ("0", "0", "", None),
        (None, "1", "2", None),
        ("0,1", None, "2", None),
    ],
)
def test_a_task_of_slurm_takes_its_share_of_the_gpus_of_its_node(visible, task, tasks, devices):
    found = {"CUDA_VISIBLE_DEVICES": visible, "SLURM_LOCALID": task, "SLURM_STEP_TASKS_PER_NODE": tasks}
    environment = {name: value for name, value in found.items() if value is not None}
    assert multihost._devices_of_task(environment) == devices


@pytest.mark.parametrize("others", [{"JAX_PLATFORMS": "cpu"}, {"JAX_LOCAL_DEVICE_IDS": "0"}])
def test_gpus_of_a_task_are_left_to_jax_where_it_is_told(others):
    environment = {"CUDA_VISIBLE_DEVICES": "0,1,2", "SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "2"}
    assert multihost._devices_of_task(environment | others) is None


def test_gpus_by_task_are_for_one_task():
    environment = {"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_LOCALID": "0", "SLURM_GPUS_PER_TASK": "h100:2"}
    assert multihost._devices_of_task(environment | {"SLURM_STEP_TASKS_PER_NODE": "1(x4)"}) == [0, 1]
    for tasks in ("2", "2,1"):
        with pytest.raises(ValueError, match="rather than --gpus-per-task"):
            multihost._devices_of_task(environment | {"SLURM_STEP_TASKS_PER_NODE": tasks})
    # Nothing is hidden where tasks are not bound to theirs.
    unbound = environment | {"SLURM_GPUS_PER_TASK": "1", "SLURM_STEP_TASKS_PER_NODE": "2"}
    assert multihost._devices_of_task(unbound) == [0]


def test_gpus_that_tasks_cannot_share_are_told():
    environment = {"CUDA_VISIBLE_DEVICES": "0,1,2", "SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "2"}
    with pytest.raises(ValueError, match="that the 2 tasks of a node share evenly, got CUDA_VISIBLE_DEVICES=0,1,2"):
        multihost._devices_of_task(environment)


@pytest.mark.parametrize(
    ("nodes", "first"), [("n1", "n1"), ("n1,n3", "n1"), ("n[1-4,7]", "n1"), ("n[003,7],m", "n003")]
)
def test_the_first_host_of_a_slurm_job_is_found(nodes, first):
    found = multihost._coordinator_of(MultihostSettings(), {"SLURM_STEP_NODELIST": nodes, "SLURM_PROCID": "3"})
    assert found == (first, 3)


def test_a_host_that_waits_in_vain_says_so_and_ends():
    program = (
        "from hades import multihost;"
        f"multihost.initialize(multihost.MultihostSettings(True, '{free_address()}', 2, 1, connect_seconds=1))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "hades: multihost: waited 1 s for the other processes at 127.0.0.1: which is this host itself; expected "
        "process 0 to start here, or its address that other hosts reach"
    )


def test_sigterm_ends_a_process_that_is_connected_and_has_no_run_yet():
    program = (
        "import os, signal, time;"
        "from hades import multihost;"
        f"multihost.initialize(multihost.MultihostSettings(True, '{free_address()}', 1, 0));"
        "os.kill(os.getpid(), signal.SIGTERM);"
        "time.sleep(1)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == -signal.SIGTERM, done.stderr


def test_a_lost_process_is_told_from_other_errors(monkeypatch):
    monkeypatch.setattr(multihost, "are_several", lambda: True)
    with (
        pytest.raises(LostProcessError, match="another process of the run has ended"),
        multihost.noticing_lost_processes(),
    ):
        raise ValueError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer")
    with pytest.raises(ValueError, match="^sigma"), multihost.noticing_lost_processes():
        raise ValueError("sigma: expected more")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="^UNKNOWN"), multihost.noticing_lost_processes():
        raise ValueError("UNKNOWN: with one process there is no other")


def test_one_process_waits_for_nobody():
    assert multihost.is_first() and not multihost.are_several()
    assert multihost.from_first({"seconds": 0.1}) == {"seconds": 0.1}
    assert multihost.any_process(True) is True
    assert multihost.least(0.1) == 0.1
    np.testing.assert_equal(multihost.from_first(float("inf")), np.inf)
