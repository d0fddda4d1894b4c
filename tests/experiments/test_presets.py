"""Presets: each of them parses, stands for what its name says, and builds a run that can be traced."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import pytest

from experiments import running
from experiments.commands.distill import COMMAND, POLICY_GRADIENT
from experiments.environments import EnvironmentOptions
from experiments.presets import PRESETS, get_preset
from hades import recipes
from hades.types import Environment
from tests.experiments.command import Outcome

NAMES = tuple(PRESETS["distill"])
PAPER = tuple(name for name in NAMES if name.startswith("paper/"))
TRACED = ("cartpole", "pendulum")


@functools.cache
def make(options: EnvironmentOptions, env: str) -> Environment:
    return options.make(env)


def test_the_published_settings_are_all_there() -> None:
    assert len(PAPER) == 2 * (8 + 4)
    assert {"cartpole", "acrobot", "pendulum", "mountaincar", "hopper", "inverted-pendulum"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_preset_parses_and_builds_its_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = running.resolve(COMMAND, ["--preset", name])
    assert settings.preset == name
    assert settings.settings == get_preset("distill", name).settings
    assert str(settings.out).startswith("runs/")
    assert settings.env is not None
    if settings.env.startswith("playground/"):
        pytest.importorskip("mujoco_playground", reason="the extra playground is not installed")
    run = recipes.from_settings(make(settings.options, settings.env), settings.settings)
    assert run.settings.method == ("hades-f" if name.endswith("-f") else "hades-r")
    # A step of Brax takes seconds to trace, as it is when fixed statistics are measured on random episodes; HaDES-F has
    # the state of HaDES-R.
    slow = settings.env.startswith("brax/") and settings.settings.observation_normalization == "fixed"
    if slow or name.endswith("-f"):
        return
    state = jax.eval_shape(run.init, jax.random.key(0))
    dataset = jax.eval_shape(run.dataset, state)
    assert dataset.num_pairs == settings.settings.dataset_size
    assert dataset.observations.shape[1:] == run.env.observation_shape
    if name in TRACED:
        after, metrics = jax.eval_shape(run.step, state)
        assert jax.tree.map(lambda leaf: leaf.shape, after) == jax.tree.map(lambda leaf: leaf.shape, state)
        assert metrics["fitness_mean"].shape == ()


@pytest.mark.parametrize("name", PRESETS["distill hades-pg"])
def test_preset_of_policy_gradients_parses_and_builds_its_run(name: str) -> None:
    settings = running.resolve(POLICY_GRADIENT, ["--preset", name, "--out", "runs/x"])
    assert settings.settings == get_preset("distill hades-pg", name).settings
    assert settings.settings.meta_gradient.anneal_iterations == settings.num_iterations
    # Each body takes ten seconds to trace, and hopper stands for them.
    if settings.env.startswith(("brax/", "playground/")) and name != "hopper":
        return
    run = recipes.from_settings(make(settings.options, settings.env), settings.settings)
    assert run.method == "hades-pg"
    if name in ("cartpole", "pendulum", "breakout", "breakout-cnn", "breakout-general"):
        dataset = jax.eval_shape(lambda key: run.dataset(run.init(key)), jax.random.key(0))
        assert dataset.num_pairs == settings.settings.dataset_size
        learned = settings.settings.cloning.step_sizes == "learned"
        assert learned == (name in ("cartpole", "breakout", "breakout-cnn"))
        assert not learned or dataset.step_sizes.shape == (settings.settings.cloning.num_steps,)


def test_flags_override_a_preset() -> None:
    arguments = ["--seed", "3", "--preset", "cartpole", "--dataset-size=5", "--cloning.hidden-sizes", "8", "9"]
    settings = running.resolve(COMMAND, arguments)
    assert (settings.settings.dataset_size, settings.settings.cloning.hidden_sizes) == (5, (8, 9))
    assert settings.settings.population_size == get_preset("distill", "cartpole").settings.population_size
    assert str(settings.out) == "runs/cartpole-seed3"


@pytest.mark.parametrize(("name", "near"), [("cartpol", "cartpole"), ("paper/hoper-r", "paper/hopper-r"), ("", ",")])
def test_unknown_preset_is_refused_with_the_nearest(hades: Callable[..., Outcome], name: str, near: str) -> None:
    outcome = hades("distill", f"--preset={name}")
    assert outcome.code == 2
    assert outcome.complaint.startswith(f"hades distill: --preset: there is no {name!r}, the nearest are ")
    assert near in outcome.complaint
