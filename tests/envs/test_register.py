"""Environments of users: registered by name, as a family, or by plug-ins, and options of simulators."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import envs
from envs import _plugins, _registry, gymnax
from envs.diagnostic import Match
from hades._environment_contract import conform
from hades.types import Continuous
from tests.helpers import Walk

ROOT = Path(envs.__file__).resolve().parent.parent
PLUGIN = """
import envs
from envs.diagnostic import Match

class Easy(Match):
    name = {name!r}

envs.register({name!r}, Easy)
"""


@pytest.fixture(autouse=True)
def empty_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_registry, "_factories", {})
    monkeypatch.setattr(_registry, "_families", {})
    monkeypatch.setattr(_plugins, "_loaded", set())
    monkeypatch.delenv("HADES_PLUGINS", raising=False)


class Easy(Match):
    name = "mine/easy"  # type: ignore[assignment]


def test_a_registered_environment_is_made_listed_and_suggested() -> None:
    envs.register("mine/easy", Easy)
    envs.register("test/walk", Walk)
    assert envs.make("mine/easy", num_actions=4) == Easy(num_actions=4)
    assert {"mine/easy", "test/walk"} <= set(envs.list_environments())
    with pytest.raises(ValueError, match="unknown environment 'easi': did you mean 'mine/easy'"):
        envs.make("easi")
    with pytest.raises(ValueError, match="mine/easy has no option 'size': its options are num_actions, max_steps"):
        envs.make("mine/easy", size=3)


def test_a_bare_name_serves_and_a_second_registration_replaces_the_first() -> None:
    envs.register("walk", lambda: Walk(name="walk"))
    envs.register("walk", lambda **options: Walk(name="walk", **options))
    assert envs.make("walk", max_steps=3).max_steps == 3


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: envs.register("", Easy), "name: expected that of an environment, such as 'mine/walk', got ''"),
        (
            lambda: envs.register("diagnostic/match", Easy),
            "name: expected one that is not taken, got 'diagnostic/match'",
        ),
        (lambda: envs.register("mine/easy", 3), "factory of mine/easy: expected a function"),  # type: ignore[arg-type]
        (lambda: envs.register_family("brax", gymnax), "name: expected a prefix without a slash, none of brax"),
        (lambda: envs.register_family("a/b", gymnax), "name: expected a prefix without a slash"),
        (lambda: envs.register_family("mine", object()), "family mine: .*none named names, knows, option_names, make"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_registered_is_refused_in_a_sentence(call: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()


def test_an_environment_must_bear_the_name_of_its_registration() -> None:
    envs.register("mine/other", Easy)
    with pytest.raises(ValueError, match="mine/other: expected .* the name under which it is registered.* 'mine/easy'"):
        envs.make("mine/other")


def test_a_family_is_found_by_its_prefix() -> None:
    class Walks:
        def names(self) -> tuple[str, ...]:
            return ("short", "long")

        def knows(self, name: str) -> bool:
            return name in self.names()

        def option_names(self, name: str) -> tuple[str, ...]:
            return ("max_steps",)

        def make(self, name: str, max_steps: int | None = None) -> Walk:
            return Walk(max_steps or {"short": 3, "long": 30}[name], name=f"walks/{name}")

    envs.register_family("walks", Walks())
    assert envs.make("walks/long").max_steps == 30 and envs.make("walks/short", max_steps=5).max_steps == 5
    assert "walks/short" in envs.list_environments()
    with pytest.raises(ValueError, match="did you mean 'walks/short'"):
        envs.make("walks/shrt")
    with pytest.raises(ValueError, match="walks/long has no option 'pace': its options are max_steps"):
        envs.make("walks/long", pace=1)


def run(code: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=cwd)


def test_plugins_are_loaded_in_a_process_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN.format(name="mine/easy"))
    package = tmp_path / "installed"
    package.mkdir()
    (package / "their_envs.py").write_text(PLUGIN.format(name="theirs"))
    code = (
        "import envs; print(envs.make('mine/easy', max_steps=3).max_steps, envs.make('theirs').max_steps,"
        " [name for name in envs.list_environments() if 'mine' in name or 'theirs' in name])"
    )
    plugins = f"{tmp_path / 'plugin.py'}, their_envs"
    done = run(code, tmp_path, HADES_PLUGINS=plugins, PYTHONPATH=os.pathsep.join([str(ROOT), str(package)]))
    assert (done.returncode, done.stdout) == (0, "3 10 ['mine/easy', 'theirs']\n"), done.stderr[-2000:]


def test_nothing_is_imported_from_the_working_directory_unasked(tmp_path: Path) -> None:
    for name in ("plugin", "hades_plugins", "sitecustom"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    done = run("import envs; envs.list_environments(); envs.make('diagnostic/match')", tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import envs; envs.register('', None)", "ValueError: name: expected"),
        ("def", "SyntaxError: invalid syntax"),
        (None, "FileNotFoundError: expected a file at"),
    ],
)
def test_a_plugin_that_fails_is_named_in_a_sentence(
    text: str | None, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plugin.py"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv("HADES_PLUGINS", str(path))
    for ask in (envs.list_environments, lambda: envs.make("diagnostic/match")):
        with pytest.raises(ValueError, match=rf"^HADES_PLUGINS: .*plugin.py cannot be loaded as a plug-in: {sentence}"):
            ask()
    monkeypatch.setenv("HADES_PLUGINS", "no_such_module_of_mine")
    with pytest.raises(ValueError, match="HADES_PLUGINS: no_such_module_of_mine cannot be .*ModuleNotFoundError"):
        envs.make("diagnostic/match")


def test_entry_points_of_packages_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def register_mine() -> None:
        calls.append(1)
        envs.register("mine/easy", Easy)

    monkeypatch.setitem(sys.modules, "their_package", type(sys)("their_package"))
    monkeypatch.setattr(sys.modules["their_package"], "register", register_mine, raising=False)
    point = importlib.metadata.EntryPoint("theirs", "their_package:register", "hades.environments")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point] if group == point.group else [])
    assert envs.make("mine/easy") == Easy() and "mine/easy" in envs.list_environments()
    assert calls == [1]


def again(env: Any) -> Any:
    return envs.make(env.name, **json.loads(json.dumps(dict(env.options))))


def test_options_of_gymnax_are_passed_and_recorded() -> None:
    heavy = envs.make("gymnax/CartPole-v1", gravity=20.0, max_steps=7)
    assert dict(heavy.options) == {"gravity": 20.0, "max_steps": 7} and again(heavy) == heavy
    assert heavy.simulator.step_env is not None and heavy.parameters.gravity == 20.0  # type: ignore[union-attr]
    assert heavy != envs.make("gymnax/CartPole-v1", max_steps=7)
    deep = envs.make("gymnax/DeepSea-bsuite", size=5)
    assert deep.observation_shape == (5, 5) and again(deep) == deep
    conform(deep)
    for options, sentence in [
        ({"gravity": "down"}, "gravity of gymnax/CartPole-v1: expected one like 9.8, got 'down'"),
        ({"gravity": {}}, "gravity of gymnax/CartPole-v1 must be a number, a string"),
        ({"weight": 1.0}, "gymnax/CartPole-v1 has no option 'weight': its options are max_steps, gravity"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            envs.make("gymnax/CartPole-v1", **options)


def test_options_of_gymnasium_are_passed_and_recorded() -> None:
    pytest.importorskip("mujoco", reason="the extra mujoco is not installed")
    env: Any = envs.make("gymnasium/Ant-v5", terminate_when_unhealthy=False, healthy_z_range=[0.3, 0.9], max_steps=9)
    options = {"healthy_z_range": [0.3, 0.9], "max_steps": 9, "terminate_when_unhealthy": False}
    assert dict(env.options) == options and again(env) == env and hash(again(env)) == hash(env)
    assert env.take().unwrapped._terminate_when_unhealthy is False
    # Also one that is made for another episode.
    assert env.take().unwrapped._healthy_z_range == (0.3, 0.9)
    small = envs.make("gymnasium/Ant-v5", include_cfrc_ext_in_observation=False)
    assert small.observation_shape == (27,)
    with pytest.raises(ValueError, match="gymnasium/Ant-v5 has no option 'healthy': its options are max_steps, module"):
        envs.make("gymnasium/Ant-v5", healthy=1)
    with pytest.raises(ValueError, match="gymnasium/Ant-v5 cannot be made with frame_skip='fast': "):
        envs.make("gymnasium/Ant-v5", frame_skip="fast")


def test_environments_registered_with_brax_are_found() -> None:
    brax_envs: Any = envs.make("brax/inverted_pendulum", backend="spring") and sys.modules["brax.envs"]
    State = sys.modules["brax.envs"].State  # noqa: N806

    class Counter(brax_envs.Env):
        """Its state is in Brax's info; it takes no backend."""

        def __init__(self, goal: float = 3.0) -> None:
            self.goal = goal

        def reset(self, rng: jax.Array) -> Any:
            zero = jnp.zeros(())
            return State(None, jnp.zeros(2), zero, zero, {}, {"position": jnp.zeros(2), "rng": rng})

        def step(self, state: Any, action: jax.Array) -> Any:
            position = state.info["position"] + action
            done = (position[0] >= self.goal).astype(float)
            info = {**state.info, "position": position}
            return state.replace(obs=position, reward=position[0], done=done, info=info)

        observation_size, action_size, backend = 2, 2, "none"

    brax_envs.register_environment("counter", Counter)
    try:
        assert "brax/counter" in envs.list_environments()
        env: Any = envs.make("brax/counter", goal=2.0, max_steps=5)
        assert dict(env.options) == {"goal": 2.0, "max_steps": 5} and again(env) == env
        assert env.action_space == Continuous((-1.0,) * 2, (1.0,) * 2) and conform(env) is env
        state, _ = env.reset(jax.random.key(0))
        for expected in (1.0, 2.0):
            state, observation, reward, terminated, _ = env.step(jax.random.key(0), state, jnp.array([9.0, 0.5]))
            assert (float(observation[0]), float(reward), bool(terminated)) == (expected, expected, expected == 2)
        with pytest.raises(ValueError, match="brax/counter has no option 'backend': its options are max_steps, goal"):
            envs.make("brax/counter", backend="spring")
    finally:
        del brax_envs._envs["counter"]


def test_options_of_brax_are_passed_and_recorded() -> None:
    env: Any = envs.make("brax/hopper", backend="spring", terminate_when_unhealthy=False, healthy_z_range=[0.5, 2.0])
    options = {"backend": "spring", "healthy_z_range": [0.5, 2.0], "terminate_when_unhealthy": False}
    assert dict(env.options) == options and again(env) == env and env != envs.make("brax/hopper", backend="spring")
    assert env.simulator._terminate_when_unhealthy is False and env.simulator._healthy_z_range == (0.5, 2.0)
    with pytest.raises(ValueError, match="brax/hopper has no option 'healthy': its options are backend, max_steps, "):
        envs.make("brax/hopper", healthy=True)


@pytest.mark.slow
def test_gymnax_runs_where_numbers_have_64_bits(tmp_path: Path) -> None:
    code = """
import envs, jax, jax.numpy as jnp
from hades import policies
from hades._environment_contract import conform
from hades.normalization import Normalizer
from hades.rollouts import make_rollout
for name in ("DiscountingChain-bsuite", "Freeway-MinAtar", "GaussianBandit-misc", "MetaMaze-misc", "CartPole-v1"):
    env = envs.make(f"gymnax/{name}", max_steps=3)
    assert conform(env) is env
    rollout = jax.jit(make_rollout(env, policies.uniform(env), 2))
    returns = rollout(jax.random.split(jax.random.key(0), 1), (), Normalizer()).returns
    assert jnp.isfinite(returns).all(), name
print(jnp.zeros(()).dtype)
"""
    done = run(code, tmp_path, JAX_ENABLE_X64="1")
    assert (done.returncode, done.stdout) == (0, "float64\n"), done.stderr[-3000:]
