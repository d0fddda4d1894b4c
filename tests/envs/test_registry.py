"""The registry: what is listed, what is made, and what is said when a name or an option is wrong."""

import doctest
import importlib
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs._shared import cast_like
from envs.images import VARIABLE
from hades.types import Continuous, Environment

BRAX = [name for name in envs.list_environments() if name.startswith("brax/")]


def test_every_name_has_a_family_and_is_listed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Those who keep images have a family more.
    monkeypatch.delenv(VARIABLE, raising=False)
    names = envs.list_environments()
    assert len(set(names)) == len(names)
    assert {name.partition("/")[0] for name in names} == {"brax", "gymnasium", "gymnax", "diagnostic", "playground"}


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("CartPole-v1", "'gymnax/CartPole-v1'"),
        ("cartpole", "'gymnax/CartPole-v1'"),
        ("brax/CartPole-v1", "'gymnax/CartPole-v1'"),
        ("hopper", "'brax/hopper'"),
        ("gymnax/Hopper", "'brax/hopper'"),
        ("brax/half_cheetah", "'brax/halfcheetah'"),
        ("Breakout", "'gymnax/Breakout-MinAtar'"),
        ("diagnostic/fixedlength", "'diagnostic/fixed-length'"),
    ],
)
def test_an_unknown_name_suggests_the_nearest_of_any_family(name: str, suggestion: str) -> None:
    with pytest.raises(ValueError, match="unknown environment") as error:
        envs.make(name)
    assert suggestion in str(error.value)


@pytest.mark.parametrize("name", ["", "zzz", "brax/", "/", "gymnax/zzzzzzzz"])
def test_a_name_like_no_other_points_to_the_list(name: str) -> None:
    with pytest.raises(ValueError, match=r"envs\.list_environments\(\)"):
        envs.make(name)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("brax/hopper", "backend, max_steps, forward_reward_weight, .*"),
        ("gymnax/CartPole-v1", "max_steps, gravity, masscart, masspole, .*"),
        ("diagnostic/match", "num_actions, max_steps"),
        ("diagnostic/fixed-length", "length, max_steps"),
    ],
)
def test_an_unknown_option_is_named_with_those_that_exist(name: str, known: str) -> None:
    with pytest.raises(ValueError, match=f"{name} has no option 'max_step': its options are {known}$"):
        envs.make(name, max_step=3)


@pytest.mark.parametrize("name", ["brax/hopper", "gymnax/CartPole-v1", "diagnostic/match", "diagnostic/fixed-length"])
@pytest.mark.parametrize("value", [0, -1, 2.5, "10", None, True, 2**31])
def test_max_steps_must_be_a_count(name: str, value: object) -> None:
    if name.startswith("gymnax") and value is None:
        pytest.skip("None stands for gymnax's own limit")
    with pytest.raises(ValueError, match="must be a whole number of at least 1"):
        envs.make(name, max_steps=value)


def test_simulators_load_late_silently_and_leave_no_log(tmp_path: os.PathLike[str]) -> None:
    code = (
        "import sys, envs; envs.list_environments(); envs.observation_names('gymnax/CartPole-v1');"
        "assert not {'brax', 'gymnasium', 'gymnax', 'mujoco', 'mujoco_playground'} & set(sys.modules);"
        "envs.make('brax/halfcheetah', backend='spring'); envs.action_names('brax/halfcheetah')"
    )
    root = os.path.dirname(os.path.dirname(os.path.abspath(envs.__file__)))
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": root}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert os.listdir(tmp_path) == []


def test_other_output_and_warnings_pass_through(capsys: pytest.CaptureFixture[str]) -> None:
    noise = importlib.import_module("envs._noise")
    with noise.quiet_import():
        print("Failed to import warp: No module named 'warp'")
        print("something else")
    assert capsys.readouterr().out == "something else\n"
    with pytest.warns(UserWarning, match="of another kind"), noise.quiet_load():
        importlib.import_module("warnings").warn("of another kind", UserWarning, stacklevel=1)


@pytest.mark.parametrize("module", ["envs", "envs.diagnostic", "envs.names"])
def test_documentation_examples(module: str) -> None:
    outcome = doctest.testmod(importlib.import_module(module))
    assert outcome.attempted > 0
    assert outcome.failed == 0


@pytest.mark.parametrize("name", ["gymnax/CartPole-v1", "diagnostic/target"])
def test_environments_are_hashable_and_equal_when_made_alike(name: str) -> None:
    first, second, other = envs.make(name), envs.make(name), envs.make(name, max_steps=7)
    assert first == second and hash(first) == hash(second)
    assert first != other
    assert dict(first.options) == {} and dict(other.options) == {"max_steps": 7}


def test_a_step_may_not_change_what_a_loop_carries() -> None:
    like = (jnp.zeros(2), jnp.int32(0))
    kept = cast_like((np.zeros(2, np.float64), 1), like)
    assert [(leaf.dtype, leaf.weak_type) for leaf in kept] == [("float32", False), ("int32", False)]
    with pytest.raises(TypeError, match="turned an array of int32 into one of float32"):
        cast_like((jnp.zeros(2), jnp.zeros(())), like)
    with pytest.raises(ValueError, match=r"of shape \(2,\) into one of shape \(1, 2\)"):
        cast_like((jnp.zeros((1, 2)), 1), like)


def check_contract(environment: Environment) -> None:
    """What every environment promises, checked by tracing alone."""
    assert isinstance(environment, Environment)
    hash(environment)
    key = jax.random.key(0)
    state, observation = jax.eval_shape(environment.reset, key)
    continuous = isinstance(environment.action_space, Continuous)
    action = (
        jax.ShapeDtypeStruct((environment.action_space.action_dim,), "float32")
        if isinstance(environment.action_space, Continuous)
        else jax.ShapeDtypeStruct((), "int32")
    )
    step = jax.eval_shape(environment.step, key, state, action)
    jax.tree.map(lambda before, after: None, state, step.state)  # raises where the structures differ
    before, after = ([(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(tree)] for tree in (state, step.state))
    assert before == after
    assert not any(weak for _, _, weak in before)
    for shown in (observation, step.observation):
        assert (shown.shape, shown.dtype, shown.weak_type) == (environment.observation_shape, "float32", False)
    assert (step.reward.shape, step.reward.dtype, step.reward.weak_type) == ((), "float32", False)
    assert (step.terminated.shape, step.terminated.dtype) == ((), "bool")
    assert (step.truncated.shape, step.truncated.dtype) == ((), "bool")
    assert environment.max_steps >= 1
    assert continuous or environment.action_space.num_actions >= 2  # type: ignore[union-attr]


# Those of gymnasium are simulated outside of JAX, under a contract of their own (test_gymnasium.py).
@pytest.mark.parametrize(
    "name", [name for name in envs.list_environments() if name.startswith(("diagnostic", "gymnax"))]
)
def test_contract(name: str) -> None:
    environment = envs.make(name, max_steps=3)
    check_contract(environment)
    assert envs.make(environment.name, **environment.options) == environment


@pytest.mark.parametrize("name", BRAX)
def test_contract_of_brax(name: str) -> None:
    # Tracing takes a second on the positional backend, the default, and a third of that on spring.
    backend = "positional" if name in ("brax/hopper", "brax/humanoid", "brax/inverted_pendulum") else "spring"
    check_contract(envs.make(name, backend=backend))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["positional", "spring", "generalized", "mjx"])
@pytest.mark.parametrize("name", BRAX)
def test_contract_of_brax_on_every_backend(name: str, backend: str) -> None:
    check_contract(envs.make(name, backend=backend))
