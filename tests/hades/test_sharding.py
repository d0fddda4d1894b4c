"""One iteration over 1, 2 and 8 forced host devices: the same returns, and no more that crosses than is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from experiments.processes import forced_devices
from hades import sharding
from hades.sharding import population_mesh, usable_cores

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def results():
    """What a part of the program gives; those of the tests that run first are made in one process."""
    found: dict[str, Any] = {}

    def result(name: str) -> Any:
        if name not in found:
            found.update(run_program(*(QUICK if name in QUICK else SLOW)))
        return found[name]

    return result


def run_program(*names: str) -> Any:
    flags = {
        **forced_devices([8]),
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    program = Path(__file__).with_name("sharding_program.py")
    done = subprocess.run(
        [sys.executable, str(program), *names],
        env=os.environ | flags,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


RUNS = {"run, hades": 4, "run, hades-pg": 4, "run, es, stored": 4, "run, alone": 1, "run, precise": 1}
OTHERS = ("hades", "hades, whole", "hades, four inits", "es, stored", "es, regenerated", "av-pbc", "own objective")
QUICK = ("elsewhere", "once", "map", "environments", "pendulum-uneven", *RUNS, *OTHERS)
SLOW = (
    *("cartpole", "pendulum", "seeds", "hades-pg", "hades-pg, clipped"),
    *("es, stored SNES", "es, stored Sep_CMA_ES", "es, mirrored halves", "es, low_rank"),
)


def cases(*arguments: tuple[Any, ...]) -> list[Any]:
    """Parameters of a test, slow where the part of the program that they name first is."""
    return [pytest.param(*case, marks=[pytest.mark.slow] if case[0] in SLOW else []) for case in arguments]


@pytest.mark.parametrize(
    ("name", "population", "count"),
    cases(("cartpole", 16, "8"), ("pendulum", 16, "2"), ("pendulum", 16, "8"), ("pendulum-uneven", 11, "8")),
)
def test_fitness_does_not_depend_on_the_number_of_devices(results, name, population, count):
    one, many = results(name)["1"], results(name)[count]
    assert np.shape(many["values"]) == np.shape(many["env_steps"]) == (population,)
    np.testing.assert_allclose(many["values"], one["values"], rtol=1e-5)
    np.testing.assert_array_equal(many["env_steps"], one["env_steps"])
    # Candidates differ, so that a permuted or repeated population would be seen.
    assert len(set(one["values"])) > population // 2


def test_one_device_calls_for_all(results):
    one, many = results("once")["1"], results("once")["8"]
    assert one["calls"] == many["calls"] == 1
    assert many["held"] == 8 * one["held"] and many["whole"] == 3


DRAWN_BY_ROW = ("es, stored", "es, stored SNES", "es, stored Sep_CMA_ES")
EVOLUTIONS = cases(
    *((method,) for method in ("hades", *DRAWN_BY_ROW, "es, mirrored halves", "es, regenerated", "es, low_rank"))
)
OVER_INITS = cases(("hades, four inits",), ("av-pbc",))


@pytest.mark.parametrize(
    "method", [*EVOLUTIONS, *OVER_INITS, *cases(("hades-pg",), ("hades-pg, clipped",), ("own objective",))]
)
def test_an_iteration_does_not_depend_on_the_number_of_devices(results, method):
    one, many = results(method)["1"], results(method)["8"]
    np.testing.assert_allclose(many["fitness_mean"], one["fitness_mean"], rtol=1e-5)
    for left, right in zip(many["outcome"], one["outcome"], strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-6)
    # An update that does nothing would not depend on devices either.
    assert any(np.abs(np.subtract(*leaves)).max() > 0 for leaves in zip(one["outcome"], one["before"], strict=True))


@pytest.mark.parametrize(
    ("method", "axes"),
    cases(
        ("hades", {"population": 6, "inits": 1}),
        ("hades, four inits", {"population": 2, "inits": 4}),
        ("hades-pg", {"population": 1, "inits": 4}),
        ("av-pbc", {"population": 1, "inits": 4}),
    ),
)
def test_devices_are_divided_among_candidates_and_inits(results, method, axes):
    # A device more than these would leave as much to the busiest.
    assert results(method)["8"]["mesh"] == axes
    assert results(method)["1"]["mesh"] == {"population": 1, "inits": 1}


@pytest.mark.parametrize("method", OVER_INITS)
def test_over_inits_no_more_crosses_than_a_sum_of_the_size_of_a_solution(results, method):
    many = results(method)["8"]
    assert 0 < max(many["collectives"]) <= sum(np.size(leaf) for leaf in many["outcome"])


@pytest.mark.slow
def test_seeds_of_a_run_that_takes_one_device_share_all_of_them(results):
    together, alone = results("seeds")["together"], results("seeds")["alone"]
    assert len(set(together)) == 5
    np.testing.assert_allclose(together[0], alone[0], rtol=1e-5)
    assert results("seeds")["compiled"] == [1, 1, 1]


def test_a_run_on_a_chosen_device_is_worked_on_there(results):
    found = results("elsewhere")
    assert found["devices"] == [3]
    assert found["chosen"] == found["default"]


@pytest.mark.parametrize("method", EVOLUTIONS)
def test_over_candidates_no_more_crosses_than_fitness_or_one_solution(results, method):
    one, many = results(method)["1"], results(method)["8"]
    solution = sum(np.size(leaf) for leaf in one["outcome"])
    # The population would be twelve solutions.
    assert one["collectives"] == [] and 0 < max(many["collectives"]) <= max(12, solution) < 12 * solution


def test_a_small_population_gives_the_same_numbers_on_any_devices(results):
    one, many = results("hades, whole")["1"], results("hades, whole")["8"]
    assert many["outcome"] == one["outcome"] != one["before"]


@pytest.mark.parametrize("method", cases(*((method,) for method in DRAWN_BY_ROW)))
def test_a_device_has_the_stored_perturbations_of_its_own_candidates_alone(results, method):
    one, many = results(method)["1"], results(method)["8"]
    population = 12 * sum(np.size(leaf) for leaf in one["outcome"])
    assert one["largest_array"] == population
    # Six devices have two candidates each.
    assert many["largest_array"] == population / 6


def test_rows_of_any_type_are_gathered_as_one_device_has_them(results):
    one, many = results("map")["1"], results("map")["8"]
    assert one.keys() == many.keys() and len(one["long"]) == 11
    for name, rows in one.items():
        assert many[name] == rows, name


@pytest.mark.parametrize(
    ("devices", "policies", "envs"), [(1, 4, 24), (3, 4, 8), (4, 1, 6), (5, 1, 6), (6, 2, 4), (8, 1, 3)]
)
def test_environments_are_played_with_the_policies_that_they_belong_to(results, devices, policies, envs):
    found = results("environments")[str(devices)]
    assert found["numbers"] == [100 * (env // 6) + 2 * env for env in range(24)]
    # Three devices take four thirds of a policy each, six take two thirds, and the fifth of five has none to take.
    assert found["share"] == [policies, envs]


@pytest.mark.parametrize("name", RUNS)
def test_loop_and_evaluation_are_compiled_once_for_fresh_and_resumed_runs(results, name):
    run = results(name)
    assert run["devices"] == RUNS[name]
    # What is compiled ahead is what is called, a second time and in a resumed run as well.
    first, *later = run["compiled"]
    assert "advance" in first and len(set(first)) == len(first)
    assert later == [[], []]
    # No compilation is booked as time of an iteration: no call takes far longer than another.
    assert max(run["seconds"]) < 50 * min(run["seconds"]) + 0.05
    # A checkpoint holds what every device has, and not the share of one.
    assert run["resumed"] == run["whole"]


def test_the_mesh_has_one_axis_over_all_devices():
    assert population_mesh().axis_names == ("population",)
    assert population_mesh().size == len(jax.devices())


@pytest.mark.parametrize(("quota", "cores"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 4), (None, 4)])
def test_usable_cores_are_those_of_affinity_and_quota(tmp_path, monkeypatch, quota, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(sharding, "_CPU_QUOTA", tmp_path / "cpu.max")
    if quota is not None:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert usable_cores() == cores


@pytest.mark.parametrize(
    ("flags", "first"), [("", min(usable_cores(), 16)), ("--xla_force_host_platform_device_count=3", 3)]
)
def test_a_cpu_is_divided_before_it_is_used_and_never_again(flags, first):
    program = (
        "import jax; from hades.sharding import divide_cpu\n" + 2 * "divide_cpu(COUNT); print(jax.device_count())\n"
    )
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    program = program.replace("COUNT", "", 1).replace("COUNT", "5")
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(first)] * 2


def test_devices_wait_for_an_hour_where_nobody_says_how_long(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_executable_terminate_timeout=7")
    sharding.let_devices_wait()
    assert os.environ["XLA_FLAGS"].split() == [
        "--xla_gpu_executable_terminate_timeout=7",
        "--xla_cpu_collective_call_terminate_timeout_seconds=3600",
        "--xla_gpu_first_collective_call_terminate_timeout_seconds=3600",
    ]


def test_the_platform_is_that_of_the_devices_that_are_chosen():
    devices = jax.devices()
    for mesh in (None, devices, population_mesh(devices)):
        assert sharding.platform_of(mesh) == devices[0].platform


UNEVEN = """
import time
import jax
from jax.sharding import PartitionSpec
from hades.sharding import divide_cpu, population_mesh

divide_cpu(2)

def wait(seconds):
    time.sleep(float(seconds[0]))
    return seconds

def share(seconds):
    done = jax.pure_callback(wait, jax.ShapeDtypeStruct((1,), "float32"), seconds)
    return jax.lax.psum(done, "population")

rows = PartitionSpec("population")
together = jax.shard_map(share, mesh=population_mesh(), in_specs=rows, out_specs=PartitionSpec())
print(jax.jit(together)(jax.numpy.array([SECONDS, 0.0]))[0])
"""


@pytest.mark.parametrize(
    ("flags", "seconds", "printed"),
    [
        pytest.param("", "70.0", "70.0", marks=pytest.mark.slow),
        (
            "--xla_cpu_collective_call_warn_stuck_timeout_seconds=1 "
            "--xla_cpu_collective_call_terminate_timeout_seconds=1",
            "5.0",
            "",
        ),
    ],
)
def test_devices_of_a_cpu_wait_for_each_other_for_longer_than_xla_would(flags, seconds, printed):
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    program = UNEVEN.replace("SECONDS", seconds)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == printed, done.stderr[-500:]
    assert (done.returncode == 0) == bool(printed)
