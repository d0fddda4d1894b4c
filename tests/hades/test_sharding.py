"""One generation over 1, 2 and 8 forced host devices: the same returns, of the same population."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from hades.sharding import population_mesh

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def results():
    devices = "--xla_force_host_platform_device_count=8"
    flags = {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {devices}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    program = Path(__file__).with_name("sharding_program.py")
    done = subprocess.run(
        [sys.executable, str(program)], env=os.environ | flags, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("name", "population", "count"),
    [
        ("cartpole", 16, "8"),
        ("pendulum", 16, "2"),
        ("pendulum", 16, "8"),
        ("pendulum-uneven", 11, "8"),
    ],
)
def test_fitness_does_not_depend_on_the_number_of_devices(results, name, population, count):
    one, many = results[name]["1"], results[name][count]
    assert np.shape(many["values"]) == np.shape(many["env_steps"]) == (population,)
    np.testing.assert_allclose(many["values"], one["values"], rtol=1e-5)
    np.testing.assert_array_equal(many["env_steps"], one["env_steps"])
    # Candidates differ, so that a permuted or repeated population would be seen.
    assert len(set(one["values"])) > population // 2


METHODS = ("hades", "es, stored", "es, regenerated", "es, low_rank")


@pytest.mark.parametrize("method", METHODS)
def test_a_generation_does_not_depend_on_the_number_of_devices(results, method):
    one, many = results[method]["1"], results[method]["8"]
    np.testing.assert_allclose(many["fitness_mean"], one["fitness_mean"], rtol=1e-5)
    for left, right in zip(many["outcome"], one["outcome"], strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-6)
    # An update that does nothing would not depend on devices either.
    assert any(np.abs(np.subtract(*leaves)).max() > 0 for leaves in zip(one["outcome"], one["before"], strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_what_crosses_devices_is_fitness_or_one_solution(results, method):
    one, many = results[method]["1"], results[method]["8"]
    solution = sum(np.size(leaf) for leaf in one["outcome"])
    # Twelve candidates are filled up to two on each of eight devices; the population would be twelve solutions.
    assert one["collectives"] == [] and 0 < max(many["collectives"]) <= max(16, solution) < 12 * solution


def test_several_devices_compile_the_loop_once_for_fresh_and_resumed_runs(results):
    assert results["run"]["devices"] == 4
    # A second call and a resumed run find the program of the first.
    assert results["run"]["advance"] == [1, 0, 0]
    # No compilation is booked as time of an iteration: no call takes far longer than another.
    assert max(results["run"]["seconds"]) < 50 * min(results["run"]["seconds"]) + 0.05


def test_the_mesh_has_one_axis_over_all_devices():
    assert population_mesh().axis_names == ("population",)
    assert population_mesh().size == len(jax.devices())
