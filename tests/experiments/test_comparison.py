"""Benchmarks that compare methods: scores by hand, resumable runs, and files that a reader can open."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import running
from experiments.bench import iteration, ppo, roofline, throughput, time_to_return
from experiments.bench._lib import runs
from experiments.bench._lib.runs import METHODS, Job, method_flags, small_preset, split_flags
from experiments.bench._lib.seeds import parse_seeds
from experiments.bench.budget import summarize
from experiments.bench.neuroevolution import compare, together
from experiments.curves import Curve, read_curve
from experiments.settings import PPOCommandSettings
from hades._run_directory import RunDirectory
from hades.dataset import SyntheticDataset
from hades.policies import NetworkSettings
from hades.rl import PPOSettings
from tests.experiments.command import Outcome, exit_code

TINY = (
    "--flags=--iterations-per-call 1 --evaluate-every 1 --evaluation-inits 2 --evaluation-episodes 2"
    " --statistics-episodes 4"
)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs start in this process: another one imports for seconds."""

    def start(arguments: Sequence[str], variables: Mapping[str, str]) -> None:
        assert exit_code(*arguments) == 0

    monkeypatch.setattr(runs, "start_process", start)


def curve(steps: list[float], seconds: list[float], returns: list[float]) -> Curve:
    summary = {"evaluations": {"untrained policy": {"mean": -1.0}}}
    return Curve(np.array(steps), np.array(seconds), np.array(returns), summary)


@pytest.mark.parametrize(("text", "seeds"), [("0-4", (0, 1, 2, 3, 4)), ("7", (7,)), ("0,2,5-6", (0, 2, 5, 6))])
def test_seeds(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "3-1", "1,,2", "-"])
def test_seeds_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="seeds: expected numbers and ranges such as 0-4"):
        parse_seeds(text)


def test_a_curve_says_what_was_known_at_a_place() -> None:
    known = curve([10, 20], [1, 3], [5.0, 7.0]).at("env_steps", np.array([5, 10, 19, 20, 99]))
    np.testing.assert_array_equal(known, [-1, 5, 5, 7, 7])


def test_seconds_of_a_run_count_every_iteration_of_a_row(tmp_path: Path) -> None:
    rows = [
        {"iteration": 4, "seconds_per_iteration": 0.5, "total_env_steps": 40, "evaluation_mean": 1.0},
        {"iteration": 8, "seconds_per_iteration": 0.25, "total_env_steps": 80},
        {"iteration": 9, "seconds_per_iteration": 1.0, "total_env_steps": 90, "evaluation_mean": 2.0},
    ]
    directory = RunDirectory(tmp_path / "run")
    directory.create({"settings": {}})
    directory.append_metrics(rows)
    directory.write_summary({})
    np.testing.assert_array_equal(read_curve(directory).seconds, [2, 4])


def test_comparison_by_hand() -> None:
    curves = {
        # The quickest run ends after 2 seconds.
        "es": [curve([10, 20], [1, 2], [1.0, 4.0]), curve([10, 20], [1, 2], [3.0, 6.0])],
        "ppo": [curve([10, 20], [2, 9], [2.0, 5.0]), curve([10, 20], [3, 9], [0.0, 3.0])],
    }
    found = compare(curves, 20)  # type: ignore[arg-type]
    assert found["equal_seconds"] == 2
    assert found["methods"]["es"]["at_equal_steps"]["scores"] == [4, 6]
    assert found["methods"]["es"]["at_equal_steps"]["iqm"] == 5
    assert found["methods"]["es"]["at_equal_seconds"]["iqm"] == 5
    # The second run of PPO was first evaluated after 3 seconds: before, it was untrained.
    assert found["methods"]["ppo"]["at_equal_seconds"]["scores"] == [2, -1]
    assert found["methods"]["ppo"]["steps_per_second"] == pytest.approx(20 / 9)
    # 4 beats 3, 6 beats 5 and 3.
    assert found["probability_of_improvement"]["es"]["ppo"]["probability"] == 0.75
    assert found["probability_of_improvement"]["ppo"]["es"]["probability"] == 0.25


def test_what_lies_behind_the_budget_does_not_count_and_what_is_not_finite_is_the_worst() -> None:
    curves = {"es": [curve([10, 30], [1, 2], [4.0, 9.0])], "ppo": [curve([10, 20], [1, 2], [2.0, np.nan])]}
    found = compare(curves, 20)  # type: ignore[arg-type]
    assert found["methods"]["es"]["at_equal_steps"]["scores"] == [4]
    assert found["methods"]["ppo"]["at_equal_steps"]["scores"] == [2]
    assert found["probability_of_improvement"]["es"]["ppo"]["probability"] == 1


def test_environments_together_by_hand() -> None:
    def report(untrained: float, scores: dict[str, list[float]]) -> dict[str, Any]:
        methods = {
            name: {"at_equal_steps": {"scores": values, "iqm": float(np.mean(values))}}
            for name, values in scores.items()
        }
        return {"untrained": untrained, "methods": methods}

    found = together(
        {
            "a": report(10, {"es": [110, 110], "ppo": [60, 60]}),
            "b": report(-500, {"es": [-400, -400], "ppo": [-100, -100]}),
            # Nothing was learned.
            "c": report(7, {"es": [5, 5], "ppo": [7, 7]}),
        }
    )
    # es: 1, 1 and 0.25, 0.25; ppo: 0.5, 0.5 and 1, 1. A quarter is cut off at each end.
    assert found["es"] == (pytest.approx(0.625), (pytest.approx(0.625), pytest.approx(0.625)))
    assert found["ppo"][0] == pytest.approx(0.75)


def test_scores_of_sizes_by_hand() -> None:
    evaluations = [
        {"last dataset": {"mean": last}, "best dataset": {"mean": 9.0}, "zero dataset": {"mean": 1.0}}
        for last in (1.0, 2.0, 6.0)
    ]
    entry = summarize(evaluations)
    assert (entry["last dataset"]["iqm"], entry["best dataset"]["ci95"], entry["zero dataset"]) == (3, [9, 9], 1)


@pytest.mark.parametrize("method", METHODS)
def test_methods_share_the_network_of_the_preset(method: str) -> None:
    assert small_preset(method, "gymnax/Breakout-MinAtar") == "breakout"  # type: ignore[arg-type]
    command, flags = split_flags(method_flags(method, "gymnax/Breakout-MinAtar", 81920))  # type: ignore[arg-type]
    settings: Any = running.resolve(command, flags)
    assert settings.env == "gymnax/Breakout-MinAtar"
    assert settings.settings.method == method
    network = settings.settings.cloning if command.name == "distill" else settings.settings.network
    own = method in ("hades-pg", "hades-pg-f", "ppmo")
    assert (network.hidden_sizes, network.activation) == (((128, 128), "tanh") if own else ((64, 64), "relu"))
    if own:
        assert settings.settings.meta_gradient.anneal_iterations == 10
    if method == "ppo":
        assert settings.settings.anneal_updates == 10
    assert small_preset(method, "diagnostic/match") is None  # type: ignore[arg-type]


@pytest.mark.parametrize("env", ["gymnax/CartPole-v1", "gymnax/Pendulum-v1", "brax/hopper"])
def test_ppmo_has_the_published_inner_loop_and_pairs_whatever_the_preset_has(env: str) -> None:
    command, flags = split_flags(method_flags("ppmo", env, 10**6))
    settings: Any = running.resolve(command, flags).settings
    inner = settings.cloning
    assert (settings.dataset_size, inner.num_steps, inner.optimizer, inner.step_sizes) == (64, 1, "sgd", "learned")


@pytest.mark.parametrize("method", ["hades-pg", "ppo"])
def test_step_sizes_fall_to_zero_at_the_end_of_the_budget_whatever_flags_say_of_iterations(method: str) -> None:
    steps = 64 * 32
    flags = ["--num-envs", "many", "--num_envs", "64", "--num-steps=32"]
    command, begin = split_flags(method_flags(method, "gymnax/Breakout-MinAtar", 7 * steps, flags))  # type: ignore[arg-type]
    settings: Any = running.resolve(command, [*begin, *flags[2:]]).settings
    assert settings.env_steps == steps
    assert (settings.anneal_updates if method == "ppo" else settings.meta_gradient.anneal_iterations) == 7


@pytest.mark.parametrize("method", ["hades-r", "hades-pg", "es", "ppo"])
def test_flags_may_say_another_budget_and_a_finer_cadence(method: str) -> None:
    flags = ["--max-env-steps", str(7 * 64 * 32), "--num-envs", "64", "--num-steps", "32", "--evaluate-every", "2"]
    flags = flags if method in ("hades-pg", "ppo") else [*flags[:2], *flags[-2:]]
    command, begin = split_flags(method_flags(method, "gymnax/Breakout-MinAtar", 10**8, flags))  # type: ignore[arg-type]
    resolved: Any = running.resolve(command, [*begin, *flags])
    assert resolved.loop.evaluation_interval == 2
    if method == "hades-pg":
        assert resolved.settings.meta_gradient.anneal_iterations == 7
    if method == "ppo":
        assert resolved.settings.anneal_updates == 7


def test_runs_of_other_settings_are_no_other_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_run", lambda job, variables: None)
    jobs = [Job("es", "diagnostic/match", seed, tmp_path / f"es-seed{seed}", 5) for seed in range(3)]
    for job, gamma in zip(jobs, (0.99, 0.99, 0.995), strict=True):
        job.out.mkdir()
        RunDirectory(job.out).write_config({"settings": {"gamma": gamma}, "options": {}, "seed": job.seed})
    runs.run_all(jobs[:2], 1)
    with pytest.raises(ValueError, match=r"es-seed2: expected the settings of the other seeds, .* has gamma 0.99, got"):
        runs.run_all(jobs, 1)


def test_runs_at_the_same_time_share_the_memory_of_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Mapping[str, str]] = []
    monkeypatch.setattr(runs, "start_process", lambda arguments, variables: given.append(variables))
    monkeypatch.setattr(runs, "read_curve", lambda directory: None)
    monkeypatch.setattr(runs, "_require_same_settings", lambda jobs: None)
    jobs = [Job("es", "diagnostic/match", seed, tmp_path / str(seed), 5) for seed in range(5)]
    for job in jobs:
        job.out.mkdir()
    runs.run_all(jobs[:1], 1)
    # Three at once, of which there are but two.
    runs.run_all(jobs[1:3], 3)
    monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", "0.2")
    runs.run_all(jobs[3:], 2)
    half = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.375"}
    assert given == [{}, half, half, {}, {}]


def test_ppo_has_one_device_whatever_the_flags_of_all_methods_say(tmp_path: Path) -> None:
    for method, count in (("ppo", 1), ("es", 4)):
        line = Job(method, "diagnostic/match", 0, tmp_path / method, 5, ("--devices", "4")).command  # type: ignore[arg-type]
        command, flags = split_flags(line)
        assert running.resolve(command, flags).devices == count


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_neuroevolution_of_every_command(hades: Callable[..., Outcome], tmp_path: Path) -> None:
    methods = ("hades-r", "hades-pg", "es", "ppo")
    flags = ("--env", "diagnostic/match", "--seeds", "0", "--env-steps", "2600", "--runs", tmp_path / "runs")
    flags = (*flags, "--methods", *methods)
    assert hades("bench", "neuroevolution", *flags, "--out", tmp_path / "out", TINY).code == 0
    # What is there is not run again.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.npz")}
    again = hades("bench", "neuroevolution", *flags, "--out", tmp_path / "out", TINY, "--json")
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.npz")}
    result = again.json["environments"]["diagnostic/match"]
    assert set(result["methods"]) == set(methods)
    for run in result["runs"]:
        assert run["env_steps"][-1] >= 2600
        assert len(run["returns"]) == len(run["seconds"]) == len(run["env_steps"])
    saved = json.loads((tmp_path / "out" / "diagnostic-match.json").read_text())
    assert saved["methods"] == result["methods"]
    assert (tmp_path / "out" / "diagnostic-match.png").read_bytes().startswith(b"\x89PNG")
    table = (tmp_path / "out" / "diagnostic-match.md").read_text()
    assert all(f"| {method} |" in table for method in methods)


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_budget(hades: Callable[..., Outcome], tmp_path: Path) -> None:
    flags = ("--env", "diagnostic/match", "--values", "2", "3", "--seeds", "0", "--env-steps", "1000")
    assert hades("bench", "budget", *flags, "--runs", tmp_path / "runs", "--out", tmp_path / "out", TINY).code == 0
    assert set(json.loads((tmp_path / "out" / "diagnostic-match.json").read_text())["values"]) == {"2", "3"}
    words = ("--setting", "cloning.optimizer", "--values", "sgd", "adam --cloning.learning-rate 0.1", *flags[5:])
    words = ("--env", "diagnostic/match", *words)
    assert hades("bench", "budget", *words, "--runs", tmp_path / "runs", "--out", tmp_path / "out", TINY).code == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    stems = ("diagnostic-match", "diagnostic-match.cloning.optimizer")
    assert names == {f"{stem}.{suffix}" for stem in stems for suffix in ("json", "md", "png")}


@pytest.mark.slow
def test_cost_of_a_dataset_and_of_a_policy(hades: Callable[..., Outcome]) -> None:
    flags = ("--env", "diagnostic/match", "--methods", "hades-r", "es", "--num-iterations", "2")
    methods = hades("bench", "cost", *flags, "--flags=--population-size 4", "--json").json["methods"]
    for entry in methods.values():
        assert entry["compile_seconds"] > 0
        assert entry["steps_per_second"] > 0
        assert entry["peak_bytes"] >= entry["imports_bytes"] > 0
    assert methods["hades-r"]["policy_seconds"] > 0
    assert methods["es"]["policy_seconds"] is None


@pytest.mark.slow
def test_scaling_over_forced_devices(hades: Callable[..., Outcome]) -> None:
    flags = ("--env", "diagnostic/match", "--devices", "1", "2", "--num-iterations", "2")
    result = hades("bench", "scaling", *flags, "--flags=--population-size 4", "--json").json
    one, two = result["devices"]["1"], result["devices"]["2"]
    assert (one["mesh"], two["mesh"]) == ({"population": 1, "inits": 1}, {"population": 2, "inits": 1})
    assert two["fitness_mean"] == pytest.approx(one["fitness_mean"], rel=1e-5)
    for entry in (one, two):
        assert min(entry["compile_seconds"], entry["seconds_per_iteration"], entry["cpu_seconds_per_iteration"]) > 0


@pytest.mark.slow
def test_throughput_of_two_checkouts_in_turns(
    hades: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput, "CASES", {"cartpole": ("hades-r", "diagnostic/match", "--population-size 4")})
    here = Path(throughput.__file__).resolve().parents[2]
    for name in ("hades", "envs", "experiments", "hades_command.py"):
        (tmp_path / name).symlink_to(here / name)
    out = tmp_path / "throughput.json"
    flags = ("--cases", "cartpole", "--repeats", "2", "--out", out)
    outcome = hades("bench", "throughput", *flags, "--json")
    assert list(outcome.json["cases"]["cartpole"]["checkouts"]) == ["this"]
    entry = outcome.json["cases"]["cartpole"]["checkouts"]["this"]
    assert min(entry[f"{name}_median"] for name in ("seconds", "cpu_seconds")) > 0
    assert len(entry["turns"]) == 2
    # Episodes of ten steps, of four candidates with one initialisation and two episodes.
    assert entry["env_steps"] == 80
    # Links lead to this checkout, and Python says where the code really is.
    other = hades("bench", "throughput", *flags, "--against", tmp_path)
    assert other.code == 1
    assert f"expected the code of {tmp_path}, but Python imports {here}" in other.err.splitlines()[-1]


def test_times_to_a_return_by_hand() -> None:
    quick = [curve([10, 20], [1, 2], [4.0, 9.0]), curve([10, 20], [1, 4], [9.0, 9.0]), curve([10], [9], [0.0])]
    slow = [curve([10, 20], [1, 3], [0.0, 9.0]), curve([10, 20], [1, 3], [0.0, 0.0])]
    found = time_to_return.compare({"quick": quick, "slow": slow}, target=8.0)
    assert (found["quick"]["reached"], found["quick"]["seconds"], found["quick"]["env_steps"]) == (2, 2, 20)
    # One of two: the median is not known.
    assert (found["slow"]["reached"], found["slow"]["seconds"]) == (1, None)
    # The quickest run ends after 2 seconds.
    assert found["quick"]["at_equal_seconds"]["scores"] == [9, 9, -1]
    # The policies of a last stage that begins behind it are not known.
    staged = time_to_return.compare({"quick": quick, "slow": slow}, 8.0, staged=["quick", "slow"])
    assert staged["quick"]["at_equal_seconds"] is None
    assert staged["slow"] == found["slow"]
    both = time_to_return.continued(curve([10, 20], [1, 2], [4.0, 5.0]), curve([10], [3], [9.0]))
    np.testing.assert_array_equal((both.env_steps, both.seconds, both.returns), ([30], [5], [9]))


@pytest.mark.usefixtures("in_process")
def test_a_stage_begins_at_the_best_dataset_of_the_one_before(hades: Callable[..., Outcome], tmp_path: Path) -> None:
    still = "hades-r --evolution.sigma 1e-7 --evolution.learning-rate 1e-7"
    variants = ("--variants", "plain=hades-r --population-size 4", f"two=hades-r --population-size 4 then {still}")
    places = ("--runs", tmp_path / "runs", "--out", tmp_path / "out")
    budget = ("--env", "diagnostic/match", "--env-steps", "100", "--seeds", "0", "--target", "0")
    outcome = hades(
        "bench", "time-to-return", *variants, *places, *budget, TINY.replace(" --statistics-episodes 4", ""), "--json"
    )
    assert outcome.code == 0, outcome.err
    plain, two = outcome.json["variants"]["plain"], outcome.json["variants"]["two"]
    # What the first stage returns does not count.
    assert plain["reached"] == two["reached"] == 1
    assert two["env_steps"] > plain["env_steps"]
    folder = tmp_path / "runs" / "diagnostic-match"
    before, after = (
        SyntheticDataset.load(folder / name / "best_dataset.npz") for name in ("two-seed0", "two-then1-seed0")
    )
    np.testing.assert_allclose(after.observations, before.observations, atol=1e-4)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"diagnostic-match.json", "diagnostic-match.md"}


def test_roofline_counts_the_work_of_the_parts(hades: Callable[..., Outcome]) -> None:
    flags = "--flags=--population-size 4 --cloning.hidden-sizes 8 --cloning.num-steps 30"
    sizes = ("--matrix-size", "64", "--copy-megabytes", "1", "--repeats", "1")
    outcome = hades("bench", "roofline", "--env", "diagnostic/match", *sizes, flags, "--json")
    assert outcome.code == 0, outcome.err
    parts, rates = outcome.json["parts"], outcome.json["rates"]
    assert outcome.json["env"] == "diagnostic/match"
    assert list(parts) == ["iteration", "cloning", "rollout", "inference", "physics"]
    assert min(part["seconds"] for part in parts.values()) > 0 < min(rates.values())
    # Of loops, XLA counts no more than one step.
    assert "flops" not in parts["iteration"] and "flops" not in parts["rollout"]
    # Episodes of ten steps.
    assert parts["inference"]["units"] == parts["physics"]["units"] == 10
    # Two dense layers, 2 x 8 and 8 x 2, of 4 candidates and 2 episodes, two operations a weight, at each step.
    assert parts["inference"]["flops"] >= 10 * 8 * 2 * (2 * 8 + 8 * 2)
    ones = jnp.ones((32, 32))
    work = roofline.measure_part(roofline.Part.step(jnp.matmul, ones, ones, times=3), repeats=1)
    assert (work["units"], work["flops"]) == (3, 3 * 2 * 32**3)
    assert float(roofline.Part.step(jnp.add, 2.0, 1.0, times=3).function((2.0, 1.0))) == 7.0
    twice = roofline.Part(lambda x: x, jnp.ones(2), unit=lambda x: x @ jnp.ones((2, 2)), units=5)
    assert roofline.measure_part(twice, repeats=1)["flops"] == 5 * 2 * 4


def test_roofline_takes_a_preset_in_place_of_an_environment(
    hades: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sizes: list[tuple[int, ...]] = []

    def make_parts(run: Any, state: Any) -> dict[str, roofline.Part]:
        sizes.append((run.outer.population_size, *run.outcome(state).observations.shape))
        return {"iteration": roofline.Part(lambda x: x, jnp.ones(2))}

    monkeypatch.setattr(roofline, "make_parts", make_parts)
    rates = ("--matrix-size", "8", "--copy-megabytes", "1", "--repeats", "1", "--flags=--population-size 4")
    # A run of that preset in its own folder is passed by.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "paper-breakout-f-seed0").mkdir(parents=True)
    (tmp_path / "runs" / "paper-breakout-f-seed0" / "config.json").write_text("{}")
    outcome = hades("bench", "roofline", "--preset", "paper/breakout-f", *rates, "--json")
    assert outcome.code == 0, outcome.err
    assert (outcome.json["method"], outcome.json["env"]) == ("hades-f", "gymnax/Breakout-MinAtar")
    assert sizes == [(4, 16, 10, 10, 4)]
    both = hades("bench", "roofline", "--preset", "acrobot", "--env", "gymnax/CartPole-v1")
    assert both.code != 0 and "env: expected none beside a preset" in both.err


def test_values_of_a_setting_change_the_work_alone(hades: Callable[..., Outcome]) -> None:
    flags = "--flags=--population-size 8 --cloning.hidden-sizes 8 --cloning.num-steps 3"
    values = ("--setting", "rollout-chunk-size", "--values", "None", "2", "--num-iterations", "2", "--after", "1")
    outcome = hades("bench", "iteration", "--env", "gymnax/CartPole-v1", *values, flags, "--json")
    assert outcome.code == 0, outcome.err
    whole, chunks = outcome.json["values"]["None"], outcome.json["values"]["2"]
    assert (whole["fitness_mean"], whole["env_steps"]) == (pytest.approx(chunks["fitness_mean"]), chunks["env_steps"])
    assert len(whole["seconds"]["all"]) == 2 and whole["fits"]
    assert chunks["total_bytes"] < whole["total_bytes"]
    none = outcome.json | {"values": {"None": {"fits": False}, "2": {"fits": False}}}
    assert iteration.render(none).count("does not fit") == 2


@pytest.mark.slow
def test_the_second_time_a_command_compiles_nothing(hades: Callable[..., Outcome]) -> None:
    line = "baseline es --env diagnostic/match --population-size 4 --network.hidden-sizes 4 --evaluation-inits 1"
    outcome = hades("bench", "compile", "--commands", line, "--repeats", "1", "--json")
    assert outcome.code == 0, outcome.err
    measured = outcome.json["commands"][line]
    empty, full = measured["caches"]["empty"], measured["caches"]["full"]
    assert empty["programs"] == full["programs"] == full["cached_programs"] > empty["cached_programs"]
    assert 0 < full["compile_seconds"] < empty["compile_seconds"] < empty["total_seconds"]
    assert measured["cache_bytes"] > 0 < min(outcome.json["import_seconds"].values())
    outcome = hades("bench", "compile", "--commands", "baseline es --env diagnostic/math", "--repeats", "1")
    assert outcome.code == 1
    assert "did you mean" in outcome.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("iteration", "--values", "8", "8"), "values: expected one or more, each once, got 8 8"),
        (("iteration", "--after", "-1"), "after: expected a number of at least 0, got -1"),
        (("iteration", "--flags=--devices 2"), "flags: expected none of devices, which --devices gives"),
        (("iteration", "--method", "ppo", "--devices", "2"), "devices: expected 1, as PPO works on one device, got 2"),
        (("iteration", "--setting", "devices"), "setting: expected one that a process can change, devices are for"),
        (
            ("iteration", "--setting", "matmul-precision", "--values", "bfloat16"),
            "expected no --matmul-precision and no --tune-chunks, which only whole runs have",
        ),
        (("compile", "--commands", "a", "a"), "commands: expected one or more, each once, got a a"),
        (("compile", "--repeats", "0"), "repeats: expected a number above 0, got 0"),
        (("time-to-return", "--variants", "hades-r"), "variants: expected LABEL=METHOD FLAGS, METHOD one of hades-r,"),
        (("time-to-return", "--variants", "a=es", "a=ppo"), "variants: expected labels that each stand once, got a a"),
        (
            ("time-to-return", "--variants", "a=hades-r then ppo"),
            "variants: expected hades-r or hades-f behind then, got 'a=hades-r then ppo'",
        ),
        (("roofline", "--repeats", "0"), "repeats: expected a number above 0, got 0"),
        (("neuroevolution", "--env", "gymnax/CartPole"), "--env: unknown environment 'gymnax/CartPole': did you mean"),
        (("neuroevolution", "--seeds", "x"), "seeds: expected numbers and ranges such as 0-4, each seed once"),
        (("neuroevolution", "--seeds", "0-2,1"), "such as 0-4, each seed once, got '0-2,1'"),
        (("neuroevolution", "--methods", "es", "es"), "--methods: expected one or more, each once, got es es"),
        (("published", "--presets"), "--presets: expected one or more, each once, got none"),
        (("ppo", "--preset", "cartpoles"), "--preset: there is no 'cartpoles', the nearest are cartpole"),
        (("budget", "--values", "2", "2"), "values: expected one or more, each once, got 2 2"),
        (("cost", "--num-iterations", "0"), "num_iterations: expected a number above 0, got 0"),
        (("throughput", "--against", "."), "against: expected the root of a checkout of this project, got ."),
        (("scaling", "--method", "ppo"), "method: expected one that several devices share, got ppo"),
    ],
)
def test_bad_arguments_are_one_sentence(
    hades: Callable[..., Outcome], arguments: tuple[str, ...], complaint: str
) -> None:
    outcome = hades("bench", *arguments)
    assert outcome.code == 2
    assert complaint in outcome.unboxed


def test_a_run_that_fails_is_named(hades: Callable[..., Outcome], tmp_path: Path) -> None:
    flags = ("--env", "diagnostic/match", "--methods", "es", "--seeds", "0", "--runs", tmp_path, "--out", tmp_path)
    outcome = hades("bench", "neuroevolution", *flags, "--flags=--population-size 3")
    assert outcome.code == 1
    assert "population_size: expected an even number above 1, got 3" in outcome.err.splitlines()[-1]
    assert Job("es", "diagnostic/match", 0, tmp_path, 5).command[:2] == ["baseline", "es"]


@pytest.mark.slow
def test_seeds_of_ppo_side_by_side(
    hades: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = PPOCommandSettings(
        env="diagnostic/match",
        settings=PPOSettings(network=NetworkSettings(hidden_sizes=(4,)), num_envs=4, num_steps=8),
    )
    monkeypatch.setattr(ppo, "find_preset", lambda flag, command, name: small)
    flags = ("--seeds", "0,3", "--env-steps", "128", "--evaluations", "2", "--num-episodes", "4")
    outcome = hades("bench", "ppo", *flags, "--out", tmp_path / "ppo.json", "--json")
    assert outcome.code == 0, outcome.err
    assert [seed["env_steps"] for seed in outcome.json["seeds"]] == [[64, 128], [64, 128]]
    assert (tmp_path / "ppo.png").read_bytes().startswith(b"\x89PNG")
    # A seed beside another one is that seed alone.
    alone = hades("bench", "ppo", *flags, "--seeds", "3", "--json").json["seeds"][0]
    assert alone["returns"] == outcome.json["seeds"][1]["returns"]
