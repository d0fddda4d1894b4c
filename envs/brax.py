"""Brax environments: the raw simulator, without its auto-reset and episode wrappers."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs._noise import quiet_import, quiet_load, quiet_trace
from envs._shared import cast_like, check_count, freeze, keyword_names, strong, thaw, trace_step
from hades.types import Continuous, PyTree, Step

BACKENDS = ("positional", "spring", "generalized", "mjx")
"""The physics pipelines of Brax; the first is the default, as in the published experiments."""

DEFAULT_MAX_STEPS = 1000
"""Brax environments have no time limit of their own; this is the `episode_length` that Brax wraps around them."""

_NAMES = (
    "ant",
    "halfcheetah",
    "hopper",
    "humanoid",
    "humanoidstandup",
    "inverted_double_pendulum",
    "inverted_pendulum",
    "pusher",
    "reacher",
    "walker2d",
)

# Brax runs the swimmer on one backend only, where its code for the water fails with every JAX that this project takes.
# It is not listed, but making it is tried: a Brax that is mended needs no change here.
_SUSPECT = "swimmer"
_NOT_LISTED = (_SUSPECT, "fast")


class BraxState(NamedTuple):
    """The carry of an episode.

    Attributes:
        physics: Brax's pipeline state. Brax's own environments need none of its metrics, info, reward and observation
            to step on; those that users registered may, and carry Brax's whole state.
        steps: `[]` int32, how many steps the episode has taken.
    """

    physics: PyTree
    steps: jax.Array


@dataclass(frozen=True)
class BraxEnvironment:
    """A Brax environment as hades sees it. Two of the same name, backend, limit and keywords are equal.

    Attributes:
        name: Such as `"brax/hopper"`.
        backend: The physics pipeline; None where a registered class takes none.
        observation_shape: `(observation_dim,)`.
        action_space: Every Brax environment takes actions in [-1, 1]; those whose actuators have other ranges
            (humanoid, humanoidstandup, inverted_pendulum, pusher) rescale them themselves.
        max_steps: Steps after which an episode is truncated.
        keywords: Keyword arguments of Brax's class, by name, that were given.
        simulator: The raw `brax.envs.Env`.
    """

    name: str
    backend: str | None
    observation_shape: tuple[int, ...]
    action_space: Continuous
    max_steps: int
    keywords: tuple[tuple[str, Any], ...]
    simulator: Any = field(compare=False, repr=False)

    @property
    def options(self) -> Mapping[str, Any]:
        """The backend, if any, the keywords that were given, and `max_steps` where it is not the default."""
        backend: dict[str, Any] = {} if self.backend is None else {"backend": self.backend}
        return backend | thaw(self.keywords, self.max_steps, DEFAULT_MAX_STEPS)

    def reset(self, key: jax.Array) -> tuple[BraxState, jax.Array]:
        """Begins an episode; returns the first state, and the first observation, `[observation_dim]` float32."""
        with quiet_trace():
            raw = self.simulator.reset(key)
        return BraxState(strong(self._carried(raw)), jnp.zeros((), jnp.int32)), jnp.asarray(raw.obs, jnp.float32)

    def step(self, key: jax.Array, state: BraxState, action: jax.Array) -> Step:
        """Advances the episode by one step, which is several of the physics.

        Actions `[action_dim]` are clipped to [-1, 1]; the key is unused, as Brax is deterministic after the reset.
        """
        del key
        from brax.envs import State

        zero = jnp.zeros((), jnp.float32)
        action = jnp.clip(action, jnp.asarray(self.action_space.low), jnp.asarray(self.action_space.high))
        with quiet_trace():
            raw = self.simulator.step(
                state.physics if self._is_registered else State(state.physics, None, zero, zero, {}, {}), action
            )
        steps = state.steps + 1
        terminated = jnp.asarray(raw.done, bool)
        return Step(
            state=BraxState(cast_like(self._carried(raw), state.physics), steps),
            observation=jnp.asarray(raw.obs, jnp.float32),
            reward=jnp.asarray(raw.reward, jnp.float32),
            terminated=terminated,
            truncated=(steps >= self.max_steps) & ~terminated,
        )

    @property
    def _is_registered(self) -> bool:
        return self.name.removeprefix("brax/") not in (*_NAMES, _SUSPECT)

    def _carried(self, raw: Any) -> PyTree:
        return raw if self._is_registered else raw.pipeline_state


def names() -> tuple[str, ...]:
    """The names that `make` takes: those of Brax, and any the user registered there.

    Brax's `fast` is left out, a stub without physics that Brax keeps for its own tests, and so is `swimmer`, which runs
    on no backend with a supported JAX.
    """
    return _NAMES + tuple(name for name in _registered() if name not in (*_NAMES, *_NOT_LISTED))


def _registered() -> tuple[str, ...]:
    module = sys.modules.get("brax.envs")  # not imported: then nothing can have been registered either
    return () if module is None else tuple(module._envs)


def option_names(name: str) -> tuple[str, ...]:
    """The options of a name without the family: `backend`, `max_steps` and the keyword arguments of Brax's class."""
    with quiet_import():
        from brax import envs as brax_envs
    keywords = keyword_names(brax_envs._envs[name], leave_out=("debug",))
    backend = ("backend",) if "backend" in keywords else ()
    return (*backend, "max_steps", *(keyword for keyword in keywords if keyword != "backend"))


def knows(name: str) -> bool:
    """Whether `make` makes a name, which is given without the family, or explains why not."""
    return name in (*names(), *_NOT_LISTED)


def make(name: str, backend: str = BACKENDS[0], max_steps: int = DEFAULT_MAX_STEPS, **keywords: Any) -> BraxEnvironment:
    """Makes a Brax environment. The first takes a few seconds, as Brax is imported; nothing is compiled.

    Args:
        name: Without the family, such as `"hopper"`.
        backend: `"positional"`, `"spring"`, `"generalized"` or `"mjx"`.
        max_steps: Steps after which an episode is truncated.
        keywords: Keyword arguments of Brax's class.

    Raises:
        ValueError: If an option is out of range, or Brax cannot run the environment on that backend.
    """
    full_name = f"brax/{name}"
    if name == "fast":
        raise ValueError("brax/fast is a stub without physics that Brax keeps for its own tests")
    if backend not in BACKENDS:
        raise ValueError(f"backend of {full_name} must be one of {', '.join(BACKENDS)}, got {backend!r}")
    max_steps = check_count(full_name, "max_steps", max_steps)
    frozen = freeze(full_name, keywords)
    given = dict(frozen)
    with quiet_import():
        from brax import envs as brax_envs
    takes_backend = "backend" in option_names(name)
    if takes_backend:
        given["backend"] = backend
    try:
        with quiet_load():
            simulator = brax_envs.get_environment(name, **given)
        environment = _wrap(full_name, backend if takes_backend else None, max_steps, frozen, simulator)
        if name == _SUSPECT:
            trace_step(environment)
    except (TypeError, ValueError, NotImplementedError) as error:
        options = "".join(f" with {key}={value!r}" for key, value in keywords.items())
        raise ValueError(
            f"{full_name} does not run on the {backend} backend{options} with jax {jax.__version__}: {error}"
        ) from error
    return environment


def _wrap(
    full_name: str, backend: str | None, max_steps: int, keywords: tuple[tuple[str, Any], ...], simulator: Any
) -> BraxEnvironment:
    """Asks the simulator for its shapes, by tracing its reset only: tracing a step may take a second."""
    with quiet_trace():
        observation = jax.eval_shape(lambda key: simulator.reset(key).obs, jax.random.key(0))
    action_dim = int(simulator.action_size)
    return BraxEnvironment(
        name=full_name,
        backend=backend,
        observation_shape=tuple(observation.shape),
        action_space=Continuous(low=(-1.0,) * action_dim, high=(1.0,) * action_dim),
        max_steps=max_steps,
        keywords=keywords,
        simulator=simulator,
    )
