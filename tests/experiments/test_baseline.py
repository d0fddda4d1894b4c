"""`hades baseline`: the run directory, resuming and errors of `hades distill`, with a policy in place of a dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest

from experiments import running
from experiments.commands.baseline import COMMANDS
from experiments.presets import PRESETS, get_preset
from hades import recipes
from tests.experiments.command import CONTRACT_FILES, TINY_LOOP, Outcome, exit_code

ES = (
    "--env", "diagnostic/match", "--num-generations", "4", "--population-size", "8", "--statistics-episodes", "4",
    "--network.hidden-sizes", "4", *TINY_LOOP,
)  # fmt: skip
FILES = (CONTRACT_FILES - {"dataset.npz", "best_dataset.npz", "dataset.png"}) | {"policy.npz", "best_policy.npz"}
PPO = (
    "--env", "diagnostic/match", "--num-generations", "4", "--num-envs", "4", "--num-steps", "8",
    "--network.hidden-sizes", "4", *TINY_LOOP,
)  # fmt: skip
TINY = {"es": ES, "ppo": PPO}


@pytest.fixture(scope="module", params=tuple(TINY))
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def baseline_run(method: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("baselines") / method
    assert exit_code("baseline", method, *TINY[method], "--out", out) == 0
    return out


def test_run_directory_holds_what_the_contract_says(baseline_run: Path) -> None:
    assert {path.name for path in baseline_run.iterdir()} == FILES


def test_resuming_gives_the_same_policy(
    hades: Callable[..., Outcome], method: str, baseline_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert hades("baseline", method, *TINY[method], "--out", out, "--num-generations", "2").code == 0
    resumed = hades("baseline", method, "--out", out, "--resume", "--num-generations", "4", "--json")
    assert resumed.json["iterations"] == 4
    assert set(resumed.json["evaluations"]) == {"best policy", "last policy", "untrained policy"}
    assert (out / "policy.npz").read_bytes() == (baseline_run / "policy.npz").read_bytes()


def test_evaluate_and_info_take_the_run(hades: Callable[..., Outcome], method: str, baseline_run: Path) -> None:
    evaluated = hades("evaluate", baseline_run, "--num-episodes", "6", "--json").json
    assert (evaluated["source"], evaluated["num_episodes"]) == (str(baseline_run / "best_policy.npz"), 6)
    info = hades("info", baseline_run).out
    assert f"command: baseline {method}" in info
    assert f"method: {method}" in info


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "hades baseline: expected the name of a baseline, one of es, ppo"),
        (("sac",), "hades baseline: expected the name of a baseline, one of es, ppo, got 'sac'"),
        (("es",), "hades baseline: --env: expected an environment, such as gymnax/CartPole-v1, or a --preset"),
        (("es", "--preset", "cartpol"), "hades baseline: --preset: there is no 'cartpol', the nearest are cartpole,"),
    ],
)
def test_bad_arguments_are_one_sentence(
    hades: Callable[..., Outcome], arguments: tuple[str, ...], complaint: str
) -> None:
    outcome = hades("baseline", *arguments)
    assert outcome.code == 2
    assert outcome.complaint.startswith(complaint)


def test_a_run_of_another_command_is_refused(hades: Callable[..., Outcome], finished_run: Path) -> None:
    outcome = hades("baseline", "es", "--out", finished_run, "--resume")
    assert outcome.code == 2
    assert "holds a run of `hades distill`, expected one of baseline es" in outcome.complaint


@pytest.mark.parametrize(
    ("method", "name"), [(method, name) for method in ("es", "ppo") for name in PRESETS[f"baseline {method}"]]
)
def test_preset_parses_and_builds_its_run(
    method: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings: Any = running.resolve(COMMANDS[method], ["--preset", name])
    assert settings.settings == get_preset(f"baseline {method}", name).settings
    if settings.env.startswith("gymnax/"):
        run = recipes.from_settings(settings.options.make(settings.env), settings.settings)
        state = jax.eval_shape(run.init, jax.random.key(0))
        assert jax.eval_shape(run.policy, state).params.network["head"]["bias"].shape
