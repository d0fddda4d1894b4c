"""The benchmarks at tiny sizes: the yardstick computes the same fitness, and results have what they promise."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

import envs
from experiments import bench, cli
from experiments.bench import architectures, generation, iteration
from experiments.bench._lib import apart, base, straightforward, timing, variants
from experiments.bench._lib.cases import CASES, FIRST, TRAINED, Case, prepare
from experiments.cli import BadArgumentsError
from hades import recipes
from hades.dataset import SyntheticDataset
from hades.distillation import DatasetRun
from hades.inner.cloning import CloningSettings
from hades.outer.evolution import EvolutionSettings
from hades.recipes.hades import HadesSettings, resolve
from hades.run import RunState

SETTINGS = HadesSettings(
    dataset_size=2,
    population_size=4,
    num_inits=2,
    num_episodes=2,
    observation_normalization="none",
    init_scale=0.5,
    cloning=CloningSettings(hidden_sizes=(8,), kernel_init="lecun_normal", learning_rate=0.03, num_steps=3),
    evolution=EvolutionSettings(sigma=0.5),
    cloning_chunk_size=2,
    rollout_chunk_size=2,
)
TINY = {
    "match": Case("diagnostic/match", SETTINGS, trained=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))),
    "target": Case("diagnostic/target", SETTINGS, env_options={"max_steps": 3}),
    "cartpole": Case(
        "gymnax/CartPole-v1",
        dataclasses.replace(SETTINGS, learn_labels=False, observation_normalization="fixed", statistics_episodes=4),
        env_options={"max_steps": 30},
    ),
}


@pytest.fixture
def dataset_file(tmp_path: Path) -> Path:
    env = envs.make("diagnostic/match")
    run = recipes.from_settings(env, SETTINGS)
    dataset = SyntheticDataset(3 * jnp.eye(3), action_probabilities=jnp.eye(3))
    path = tmp_path / "match.npz"
    run.describe(dataset, seed=0).save(path)
    return path


@pytest.mark.parametrize("name", ["target", pytest.param("cartpole", marks=pytest.mark.slow)])
def test_straightforward_generation_is_that_of_hades(name: str) -> None:
    run, states = prepare(TINY[name], seed=0)
    step = generation.make_step("straightforward", run)

    @jax.jit
    def both(state: RunState) -> Any:
        after, metrics, intermediates = step(state)
        values = generation.hades_values(run, state, intermediates.solutions)
        return (after, metrics), run.step(state), intermediates, values

    (after, metrics), (expected, expected_metrics), intermediates, values = both(states[FIRST])
    np.testing.assert_allclose(intermediates.values, values, atol=1e-4)
    assert len(set(values.tolist())) == 4
    np.testing.assert_allclose(metrics["fitness_best"], expected_metrics["fitness_best"], atol=1e-4)
    close = functools.partial(np.testing.assert_allclose, atol=1e-4)
    jax.tree.map(close, (after.outer, after.iteration), (expected.outer, expected.iteration))
    records = intermediates.records
    assert records.reward.shape == (4, 2, run.env.max_steps, 2)
    assert intermediates.losses.shape == (4, 2, 3)
    np.testing.assert_allclose(records.episode_return[:, :, -1], records.reward.sum(axis=2), atol=1e-5)
    assert records.done[:, :, -1].all()


def test_straightforward_refuses_running_statistics() -> None:
    settings = dataclasses.replace(SETTINGS, observation_normalization="running")
    run = recipes.from_settings(envs.make("diagnostic/match"), settings)
    with pytest.raises(ValueError, match="normalisation"):
        straightforward.step(cast(DatasetRun, run), run.init(jax.random.key(0)))


def test_trained_state_stands_for_the_dataset_of_its_case() -> None:
    run, states = prepare(TINY["match"], seed=0)
    trained, first = (run.outcome(states[name]) for name in (TRAINED, FIRST))
    np.testing.assert_allclose(trained.observations, TINY["match"].trained)
    np.testing.assert_array_equal(trained.action_probabilities, first.action_probabilities)


def test_generation_writes_and_prints_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(CASES, "cartpole", lambda: TINY["match"])
    peaks = {"baseline_bytes": 1, "compiled_bytes": 2, "peak_bytes": 3, "peak_rss_bytes": 2}
    monkeypatch.setattr(generation, "peak_memory", lambda *_: dict(peaks))
    out = tmp_path / "results" / "generation.json"
    assert cli.main(["bench", "generation", "--cases", "cartpole", "--repeats", "2", "--out", str(out), "--json"]) == 0
    printed = capfd.readouterr()
    result = json.loads(printed.out)
    assert "cartpole, first generation" in printed.err
    assert result == json.loads(out.read_text())
    assert {"command", "git_commit", "device", "versions", "cases"} < set(result)
    assert result["command"][:3] == ["hades", "bench", "generation"]
    _check_case(result["cases"]["cartpole"])


def _check_case(case: dict[str, Any]) -> None:
    assert set(case["populations"]) == {FIRST, TRAINED}
    for population in case["populations"].values():
        assert population["fitness_max_abs_difference"] < 1e-4
        assert population["fitness_mean"]["hades"] == pytest.approx(population["fitness_mean"]["straightforward"])
        for formulation in generation.FORMULATIONS:
            seconds = population["seconds"][formulation]
            assert len(seconds["all"]) == 2
            assert 0 < seconds["min"] <= seconds["median"]
    assert case["memory"]["hades"]["total_bytes"] > 0
    assert case["memory"]["ratio"] < 1
    assert case["memory"]["peak_rss_ratio"] == 1
    assert case["compile_seconds"]["hades"] > 0
    assert case["targets"]["memory_met"] is True


def test_memory_is_measured_before_and_after(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(CASES, "cartpole", lambda: TINY["match"])
    apart.main("experiments.bench.generation", "one_generation", "cartpole", "hades", "0")
    measured = json.loads(capsys.readouterr().out)
    assert 0 < measured["baseline_bytes"] <= measured["compiled_bytes"]
    assert measured["peak_bytes"] > 0


def test_a_measurement_says_why_its_process_failed() -> None:
    with pytest.raises(ValueError, match="memory of nothing, hades: KeyError"):
        generation.peak_memory("nothing", "hades", 0)


def test_real_cases_suit_their_environments() -> None:
    for name, build in CASES.items():
        case = build()
        assert resolve(envs.make(case.env, **case.env_options), case.settings), name


@pytest.mark.slow
def test_architectures_compares_policies_with_the_file(
    dataset_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(architectures, "HIDDEN_SIZES", ((4, 4),))
    out = tmp_path / "architectures.json"
    flags = ["--num-inits", "1", "--num-episodes", "2", "--num-steps", "40", "--out", str(out), "--json"]
    assert cli.main(["bench", "architectures", str(dataset_file), *flags]) == 0
    printed = capfd.readouterr()
    result = json.loads(printed.out)
    assert result == json.loads(out.read_text())
    assert len(result["combinations"]) == 4
    assert set(result["references"]) == {variants.OWN, variants.ZERO, variants.UNTRAINED}
    assert result["threshold_return"] == pytest.approx(0.9 * result["references"][variants.OWN]["mean"])
    assert result["num_reaching"] == sum(
        entry["mean"] >= result["threshold_return"] for entry in result["combinations"]
    )
    first = result["combinations"][0]
    assert (first["name"], first["num_steps"], first["learning_rate"]) == ("mlp 2x4 relu, adam", 40, 0.03)
    last = result["combinations"][-1]
    assert (last["optimizer"], last["learning_rate"], last["momentum"]) == ("sgd", 0.1, 0.9)
    assert "mlp 2x4 tanh, sgd" in printed.err


@pytest.mark.parametrize(
    "flags", [["--threshold", "0"], ["--sgd-momentum", "1"], ["--num-steps", "0"], ["--num-inits", "0"]]
)
def test_architectures_refuses_bad_flags(flags: list[str], dataset_file: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench.main(["architectures", str(dataset_file), *flags])


def test_help_names_the_benchmarks(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--help"]) == 0
    assert "architectures" in capsys.readouterr().out


@pytest.mark.parametrize("name", bench.BENCHES)
def test_registered_benchmarks_have_help_for_every_flag(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"experiments.bench.{name.replace('-', '_')}")
    with pytest.raises(SystemExit, match="0"):
        bench.main([name, "--help"])
    printed = capsys.readouterr().out
    assert f"hades bench {name}" in printed
    fields = {field.name.replace("_", "-") for field in dataclasses.fields(module.BENCH.settings)}
    nested = {"cal-ql", "grid", "options", "settings"}
    positional = {"file", "files"}
    assert all(f"--{name}" in printed for name in fields - nested - positional)


def test_every_benchmark_is_registered() -> None:
    folder = Path(bench.__file__).parent
    modules = {path.stem.replace("_", "-") for path in folder.glob("*.py") if path.stem != "__init__"}
    assert modules == set(bench.BENCHES)


def test_cpu_is_divided_before_a_benchmark_asks_for_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(base, "divide_cpu", calls.append)
    monkeypatch.setattr(base, "provenance", lambda *_: calls.append("devices") or {"device": ["cpu"], "command": []})
    measured = dataclasses.replace(iteration.BENCH, measure=lambda *_: None, render=lambda _: "")
    base.launch("iteration", measured, ["--devices", "3"])
    assert calls == [3, "devices"]


def test_benchmarks_leave_memory_to_processes_that_they_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(base, "leave_memory", lambda: calls.append("left"))
    monkeypatch.setattr(base, "provenance", lambda *_: calls.append("devices") or {"device": ["cpu"], "command": []})
    for in_processes in (False, True):
        measured = base.Bench(base.BenchSettings, lambda *_: None, lambda _: "", in_processes=in_processes)
        base.launch("name", measured, [])
    assert calls == ["devices", "left", "devices"]


@pytest.mark.parametrize("arguments", [[], ["speed"]])
def test_unknown_benchmark_is_a_bad_argument_that_names_the_known(arguments: list[str]) -> None:
    assert cli.main(["bench", *arguments]) == 2
    with pytest.raises(BadArgumentsError, match="one of agreement, architectures, budget"):
        bench.main(arguments)


def test_repeats_must_be_positive() -> None:
    with pytest.raises(SystemExit, match="2"):
        bench.main(["generation", "--repeats", "0"])


def test_the_same_function_is_compiled_each_time_that_its_compilation_is_timed() -> None:
    traced = []

    def step(x: jax.Array) -> jax.Array:
        traced.append(x)
        return 5 * x

    for _ in range(2):
        timing.compile_step(step, jnp.arange(3.0))
    assert len(traced) == 2


def test_compilation_is_timed_without_the_cache(tmp_path: Path) -> None:
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    try:
        for name, value in zip(names, (str(tmp_path), 0.0), strict=True):
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        argument = jnp.arange(3.0)

        def programs() -> int:
            return len(list(tmp_path.glob("*-cache")))

        jax.jit(lambda x: 2 * x)(argument)
        first = programs()
        _, seconds = timing.compile_step(lambda x: 3 * x, argument)
        assert (programs(), seconds > 0) == (first, True)
        jax.jit(lambda x: 4 * x)(argument)
        assert programs() == first + 1 > 1
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
