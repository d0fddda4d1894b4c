"""The Brax adapter against Brax itself."""

import functools
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs._noise import quiet_import, quiet_load, quiet_trace
from envs.brax import BACKENDS, DEFAULT_MAX_STEPS
from hades.types import Continuous

with quiet_import():
    brax_envs: Any = importlib.import_module("brax.envs")

ALL = [name for name in envs.list_environments() if name.startswith("brax/")]
RESCALED = {"brax/humanoid", "brax/humanoidstandup", "brax/inverted_pendulum", "brax/pusher"}


@functools.cache
def side_by_side(name: str, backend: str, max_steps: int) -> tuple[Any, Any]:
    """Compiled reset and step of the adapter and of Brax's own EpisodeWrapper; cached, as compiling is slow."""
    environment = envs.make(name, backend=backend, max_steps=max_steps)
    with quiet_load():
        raw = brax_envs.get_environment(name.removeprefix("brax/"), backend=backend)
    raw = brax_envs.training.EpisodeWrapper(raw, max_steps, 1)

    def reset(key: jax.Array) -> Any:
        with quiet_trace():
            return environment.reset(key), raw.reset(key)

    def step(carry: Any, action: jax.Array) -> Any:
        state, raw_state = carry
        out = environment.step(jax.random.key(0), state, action)
        with quiet_trace():
            raw_state = raw.step(raw_state, jnp.clip(action, -1.0, 1.0))
        shown = (raw_state.obs, raw_state.reward, raw_state.done, raw_state.info["truncation"])
        return (out.state, raw_state), out._replace(state=0), shown

    return jax.jit(reset), jax.jit(step)


def compare(name: str, backend: str, max_steps: int, actions: np.ndarray) -> list[tuple[bool, bool]]:
    """Steps both until an end.

    Args:
        name: With the family.
        backend: The physics pipeline.
        max_steps: Where both truncate.
        actions: One for each component, the same at every step; those beyond the bounds are clipped.

    Returns:
        Each step's terminated and truncated.
    """
    reset, step = side_by_side(name, backend, max_steps)
    (state, first), raw_state = reset(jax.random.key(0))
    np.testing.assert_allclose(first, raw_state.obs, rtol=1e-6)
    carry, ends = (state, raw_state), [(False, False)]
    while ends[-1] == (False, False):
        carry, out, (raw_obs, raw_reward, raw_done, raw_truncation) = step(carry, jnp.asarray(actions, jnp.float32))
        np.testing.assert_allclose(out.observation, raw_obs, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(out.reward, raw_reward, rtol=1e-4, atol=1e-5)
        assert bool(out.truncated) == bool(raw_truncation)
        assert (out.terminated | out.truncated) == bool(raw_done)
        ends.append((bool(out.terminated), bool(out.truncated)))
    return ends[1:]


def test_steps_as_brax_does_to_a_termination() -> None:
    ends = compare("brax/inverted_pendulum", "spring", 20, np.full(1, 3.0))
    assert 1 < len(ends) < 20
    assert ends == [(False, False)] * (len(ends) - 1) + [(True, False)]


def test_steps_as_brax_does_to_a_truncation() -> None:
    assert compare("brax/inverted_pendulum", "spring", 20, np.zeros(1)) == [(False, False)] * 19 + [(False, True)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ALL if name != "brax/inverted_pendulum"])
def test_every_environment_steps_as_brax_does(name: str) -> None:
    dim = envs.make(name, backend="spring").action_space.action_dim  # type: ignore[union-attr]
    assert compare(name, "spring", 4, np.linspace(-0.5, 2.0, dim)) == [(False, False)] * 3 + [(False, True)]


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_steps_as_brax_does(backend: str) -> None:
    ends = compare("brax/inverted_double_pendulum", backend, 3, np.full(1, 0.1))
    assert ends == [(False, False)] * 2 + [(False, True)]


def test_the_list_is_what_brax_registers() -> None:
    assert {name.removeprefix("brax/") for name in ALL} | {"fast", "swimmer"} == set(brax_envs._envs)


@pytest.mark.parametrize("name", ALL)
def test_actions_of_minus_one_to_one_span_the_actuators(name: str) -> None:
    environment: Any = envs.make(name, backend="spring")
    reach = np.abs(np.asarray(environment.simulator.sys.actuator.ctrl_range))
    assert (reach == 1).all() != (name in RESCALED)
    assert environment.action_space == Continuous(low=(-1.0,) * len(reach), high=(1.0,) * len(reach))


def test_options_always_name_the_backend() -> None:
    assert dict(envs.make("brax/inverted_pendulum").options) == {"backend": "positional"}
    environment = envs.make("brax/inverted_pendulum", backend="spring", max_steps=50)
    assert dict(environment.options) == {"backend": "spring", "max_steps": 50}
    assert environment == envs.make("brax/inverted_pendulum", backend="spring", max_steps=50)
    assert environment != envs.make("brax/inverted_pendulum", max_steps=50)
    assert envs.make("brax/inverted_pendulum").max_steps == DEFAULT_MAX_STEPS == 1000


@pytest.mark.parametrize("backend", ["bullet", "Spring", None])
def test_an_unknown_backend_is_refused(backend: object) -> None:
    with pytest.raises(ValueError, match="backend of brax/hopper must be one of positional, spring, generalized, mjx"):
        envs.make("brax/hopper", backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_swimmer_says_why_it_does_not_run(backend: str) -> None:
    with pytest.raises(ValueError, match=f"brax/swimmer does not run on the {backend} backend with jax .*: "):
        envs.make("brax/swimmer", backend=backend)


def test_the_stub_is_refused() -> None:
    with pytest.raises(ValueError, match="brax/fast is a stub"):
        envs.make("brax/fast")
