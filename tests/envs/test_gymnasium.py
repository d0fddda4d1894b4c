"""Gymnasium environments: what raw gymnasium plays, through both kinds of ends, silently, and clear refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import envs
import hades
from envs._noise import quiet_gymnasium
from envs.gymnasium import GymnasiumEnvironment, GymnasiumSimulator
from experiments import tables
from hades.evaluation import PolicyEvaluator
from hades.normalization import PolicyParams
from hades.policy_file import TrainedPolicy
from hades.types import Continuous, Environment, HostEnvironment

gymnasium = pytest.importorskip("gymnasium", reason="the extra mujoco is not installed")
pytest.importorskip("mujoco", reason="the extra mujoco is not installed")


def actions_of(env: HostEnvironment, episodes: int, seed: int = 0) -> np.ndarray:
    """Random actions in bounds, `[max_steps, episodes, action_dim]` float32."""
    space = env.action_space
    assert isinstance(space, Continuous)
    shape = (env.max_steps, episodes, space.action_dim)
    return np.random.default_rng(seed).uniform(space.low, space.high, shape).astype(np.float32)


def play_raw(name: str, max_steps: int, seed: int, actions: np.ndarray) -> tuple[list[np.ndarray], list[float], str]:
    """Observations, rewards and the kind of end of one episode of raw gymnasium."""
    with quiet_gymnasium():
        env = gymnasium.make(name, max_episode_steps=max_steps)
    observation, _ = env.reset(seed=seed)
    observations, rewards = [observation], []
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(action)
        observations.append(observation)
        rewards.append(reward)
        if terminated or truncated:
            return observations, rewards, "terminated" if terminated else "truncated"
    raise AssertionError("the episode did not end")


@pytest.mark.parametrize(
    ("name", "max_steps", "end"),
    [("Hopper-v4", 1000, "terminated"), ("Walker2d-v5", 1000, "terminated"), ("HalfCheetah-v4", 15, "truncated")],
)
def test_episodes_are_those_of_raw_gymnasium(name: str, max_steps: int, end: str) -> None:
    env = envs.make(f"gymnasium/{name}", max_steps=max_steps)
    assert isinstance(env, HostEnvironment) and not isinstance(env, Environment)
    assert (env.max_steps, dict(env.options)) == (max_steps, {} if max_steps == 1000 else {"max_steps": max_steps})
    seeds = np.array([3, 2**32 - 1, 7], np.uint32)
    actions = actions_of(env, len(seeds))
    # Twice: the second time in simulators that have played before.
    for _ in range(2):
        simulator = env.simulate(seeds)
        observations, rewards, ends = [simulator.observations], [], []
        while simulator.alive.any():
            step = simulator.step(actions[len(rewards)])
            observations.append(step.observations)
            rewards.append(step.rewards)
            ends.append((step.terminated, step.truncated))
        for index, seed in enumerate(seeds):
            expected_observations, expected_rewards, expected_end = play_raw(
                name, max_steps, int(seed), actions[:, index]
            )
            length = len(expected_rewards)
            found = np.stack(observations)[: length + 1, index]
            np.testing.assert_array_equal(found, np.asarray(expected_observations, np.float32))
            np.testing.assert_array_equal(np.stack(rewards)[:length, index], expected_rewards)
            # After its end an episode stands still and earns nothing.
            assert not np.stack(rewards)[length:, index].any()
            np.testing.assert_array_equal(observations[-1][index], observations[length][index])
            flags = np.asarray(ends)[:, :, index]
            assert flags.sum() == 1 and flags[length - 1].tolist() == [end == "terminated", end == "truncated"]
            assert expected_end == end


def test_actions_are_clipped_and_one_that_is_not_finite_ends_its_episode() -> None:
    env = envs.make("gymnasium/Hopper-v4")
    assert isinstance(env, HostEnvironment)
    simulator, clipped = env.simulate(np.array([0, 0])), env.simulate(np.array([0, 0]))
    step = simulator.step(np.array([[9.0, -9.0, 0.5], [0.0, np.nan, 0.0]]))
    expected = clipped.step(np.array([[1.0, -1.0, 0.5], [0.0, 0.0, 0.0]]))
    np.testing.assert_array_equal(step.observations[0], expected.observations[0])
    assert step.rewards[0] == expected.rewards[0] and np.isnan(step.rewards[1])
    assert simulator.alive.tolist() == [True, False] and step.terminated.tolist() == [False, True]
    simulator.close()
    assert not simulator.alive.any()


def test_any_environment_of_boxes_can_be_made_and_has_its_own_bounds_and_limit() -> None:
    env = envs.make("gymnasium/Pendulum-v1")
    assert (env.observation_shape, env.action_space, env.max_steps) == ((3,), Continuous((-2.0,), (2.0,)), 200)
    same, other = envs.make("gymnasium/Pendulum-v1"), envs.make("gymnasium/Pendulum-v1", max_steps=9)
    assert env == same and hash(env) == hash(same) and env != other


@pytest.mark.parametrize("name", ["Ant-v4", "Humanoid-v5", "Reacher-v4", "Swimmer-v5", "InvertedDoublePendulum-v5"])
def test_listed_names_can_be_played(name: str) -> None:
    assert f"gymnasium/{name}" in envs.list_environments()
    env = envs.make(f"gymnasium/{name}")
    assert isinstance(env, HostEnvironment)
    simulator = env.simulate(np.arange(2))
    step = simulator.step(actions_of(env, 2)[0])
    assert step.observations.shape == (2, *env.observation_shape) and step.observations.dtype == np.float32
    assert np.isfinite(step.observations).all() and np.isfinite(step.rewards).all()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("CartPole-v1", r"gymnasium/CartPole-v1 is not supported: its action space is Discrete\(2\), not a Box"),
        ("FrozenLake-v1", "its observation space is Discrete"),
        ("Pusher-v4", "gymnasium/Pusher-v4 cannot be made: .*mujoco<3"),
        ("Hopper-v9", "unknown environment 'gymnasium/Hopper-v9': did you mean"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        envs.make(f"gymnasium/{name}")


@pytest.mark.parametrize("value", [0, -1, 2.5, "10", True])
def test_max_steps_must_be_a_count(value: object) -> None:
    with pytest.raises(ValueError, match="max_steps of gymnasium/Hopper-v4 must be a whole number of at least 1"):
        envs.make("gymnasium/Hopper-v4", max_steps=value)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise gymnasium.error.DependencyNotInstalled("MuJoCo is not installed")

    monkeypatch.setattr(gymnasium, "make", fail)
    with pytest.raises(ValueError, match=r"needs MuJoCo: pip install 'hades-distillation\[mujoco\]'"):
        envs.make("gymnasium/Hopper-v4")
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ValueError, match=r"needs gymnasium and MuJoCo: pip install 'hades-distillation\[mujoco\]'"):
        envs.make("gymnasium/Hopper-v4")


def test_making_is_silent_and_leaves_no_log(tmp_path: Path) -> None:
    code = (
        "import sys, envs; envs.list_environments(); assert 'gymnasium' not in sys.modules\n"
        "import numpy as np; envs.make('gymnasium/Hopper-v4').simulate(np.arange(2)); envs.make('gymnasium/Hopper-v5')"
    )
    root = os.path.dirname(os.path.dirname(os.path.abspath(envs.__file__)))
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": root}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["HalfCheetah-v4", "Hopper-v5", "Walker2d-v4"])
def test_components_have_the_names_of_the_robots_joints(name: str) -> None:
    with quiet_gymnasium():
        model = gymnasium.make(name).unwrapped.model
    joints = [model.joint(index).name for index in range(model.njnt)]
    observations = envs.observation_names(f"gymnasium/{name}")
    actions = envs.action_names(f"gymnasium/{name}")
    assert observations is not None and actions is not None
    # Where the robot is along the track is not observed; its height is named for what it is in some.
    assert len(observations) == 2 * len(joints) - 1
    assert all(shown.startswith(joint) for shown, joint in zip(observations[1:], joints[2:], strict=False))
    assert list(actions) == [model.joint(model.actuator_trnid[index, 0]).name for index in range(model.nu)]


@pytest.fixture(scope="module")
def robotics() -> None:
    pytest.importorskip("gymnasium_robotics", reason="the extra robotics is not installed")


@pytest.mark.usefixtures("robotics")
def test_robotics_are_found_without_their_module_and_play_as_raw_gymnasium() -> None:
    env = envs.make("gymnasium/AdroitHandDoor-v1", max_steps=5)
    assert (env.observation_shape, env.action_space.action_dim) == ((39,), 28)
    actions = actions_of(env, 1)
    simulator = env.simulate(np.array([3], np.uint32))
    found = [simulator.observations[0], *(simulator.step(action).observations[0] for action in actions)]
    assert not simulator.alive.any()
    # The door is closed at first, and the simulator says so.
    first = env.simulate(np.array([3], np.uint32)).step(actions[0])
    assert first.succeeded is not None and not first.succeeded.any()
    expected, _, end = play_raw("AdroitHandDoor-v1", 5, 3, actions[:, 0])
    assert end == "truncated"
    np.testing.assert_array_equal(found, np.asarray(expected, np.float32))


@pytest.mark.parametrize("key", ["success", "is_success"])
def test_success_is_what_the_simulator_says_at_any_step(key: str, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "my_tasks.py").write_text(
        "import gymnasium\n"
        "class Sometimes(gymnasium.envs.classic_control.PendulumEnv):\n"
        "    'Solved in the third step of what begins on the left, and in no other.'\n"
        "    def reset(self, **keywords):\n"
        "        observation, info = super().reset(**keywords)\n"
        "        self.steps, self.left = 0, observation[0] < 0\n"
        "        return observation, info\n"
        "    def step(self, action):\n"
        "        self.steps += 1\n"
        f"        info = {{{key!r}: self.left and self.steps == 3}}\n"
        "        return *super().step(action)[:4], info\n"
        f"gymnasium.register('Sometimes-{key}-v0', Sometimes, max_episode_steps=5)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_tasks", raising=False)
    env = envs.make(f"gymnasium/Sometimes-{key}-v0", module="my_tasks")
    seen = {}

    def simulate(seeds: np.ndarray) -> Any:
        seen["simulator"] = simulator = GymnasiumSimulator(env, seeds)
        seen["left"] = simulator.observations[:, 0] < 0
        return simulator

    monkeypatch.setattr(GymnasiumEnvironment, "simulate", lambda self, seeds: simulate(seeds))
    policy = hades.policies.mlp(env, hidden_sizes=(4,), kernel_init="lecun_normal")
    evaluator = PolicyEvaluator(env, policy, num_inits=3, num_episodes=8)
    trained = TrainedPolicy(PolicyParams(policy.init(jax.random.key(0))))
    played = evaluator(jax.random.key(1), trained)
    assert played.successes is not None and played.success_rate == seen["left"].mean()
    np.testing.assert_array_equal(played.successes.ravel(), seen["left"])
    assert 0 < seen["left"].sum() < 24
    low, high = played.success_ci95
    assert low < played.success_rate < high
    assert tables.summary(played)["success_rate"] == played.success_rate
    assert f"{played.success_rate:.0%}" in tables.render("", {"policy": played})


@pytest.mark.usefixtures("robotics")
def test_dictionaries_of_observations_by_their_keys() -> None:
    keys = ["desired_goal", "observation"]
    env = envs.make("gymnasium/PointMaze_UMaze-v3", observation_keys=keys, max_steps=4)
    assert env.observation_shape == (6,)
    assert dict(env.options) == {"observation_keys": keys, "max_steps": 4}
    raw = gymnasium.make("PointMaze_UMaze-v3")
    simulator, (observation, _) = env.simulate(np.array([7], np.uint32)), raw.reset(seed=7)
    for action in actions_of(env, 1):
        expected = np.concatenate([observation[key] for key in keys]).astype(np.float32)
        np.testing.assert_array_equal(simulator.observations[0], expected)
        observation, *_ = raw.step(action[0])
        simulator.step(action)
    for options, words in (
        ({}, "not a Box; expected observation_keys, some of achieved_goal, desired_goal, observation"),
        ({"observation_keys": ["goal"]}, "observation_keys: expected some of .* got 'goal'"),
        ({"observation_keys": []}, "observation_keys|expected observation_keys"),
    ):
        with pytest.raises(ValueError, match=words):
            envs.make("gymnasium/PointMaze_UMaze-v3", **options)
    with pytest.raises(ValueError, match="observation_keys: expected none, as observations of gymnasium/Hopper-v4"):
        envs.make("gymnasium/Hopper-v4", observation_keys=["goal"])


def test_modules_that_register_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_bodies.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('MyPendulum-v0', 'gymnasium.envs.classic_control:PendulumEnv', max_episode_steps=7)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    env = envs.make("gymnasium/MyPendulum-v0", module="my_bodies")
    assert (env.observation_shape, env.max_steps, dict(env.options)) == ((3,), 7, {"module": "my_bodies"})
    with pytest.raises(ValueError, match="gymnasium/Hopper-v4 needs the module not_there"):
        envs.make("gymnasium/Hopper-v4", module="not_there")
