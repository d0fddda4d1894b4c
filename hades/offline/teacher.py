"""Teachers: a near-expert policy pi*(s) and its action values q*(s, a), read from and written to one `.npz` layout."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hades._files import refusing
from hades._npz import read_arrays, write_arrays
from hades.distributions import Distribution, TanhGaussian
from hades.normalization import PolicyParams
from hades.offline._checks import few, finite_float32
from hades.policies import NamedSpaces, Policy
from hades.types import Continuous

Layers: TypeAlias = tuple[tuple[jax.Array, jax.Array], ...]
"""Weights `[inputs, outputs]` and biases `[outputs]` of the layers of a perceptron, from the first to the last."""

LOG_STD_BOUNDS = (-20.0, 2.0)
"""Bounds that a teacher's log-std is clipped to."""


class TeacherError(ValueError):
    """Error of a teacher file that does not follow the layout, or belongs to another environment: one sentence."""


@struct.dataclass
class Teacher:
    """A tanh-Gaussian actor and twin critics, relu perceptrons on normalised observations.

    The layout of its file, an `.npz` without pickle:

    | key | shape | meaning |
    |---|---|---|
    | `actor_w0` ... | (outputs, inputs) | weights; the last layer gives mean and raw log-std, one behind the other |
    | `actor_b0` ... | (outputs,) | biases |
    | `critic1_w0` ..., `critic2_w0` ... | likewise | on observation and action, one behind the other; one output |
    | `obs_mean`, `obs_std` | (observation_dim,) | both networks see (observation - mean) / std |
    | `log_std_multiplier`, `log_std_offset` | () | log_std = clip(multiplier * raw + offset, -20, 2) |
    | `action_low`, `action_high` | (action_dim,) | bounds of actions; -1 and 1 where absent |

    Attributes:
        actor: Layers of the actor.
        critics: Layers of each of the two critics. They see actions in the environment's own units.
        observation_mean: `[observation_dim]`.
        observation_std: `[observation_dim]`.
        log_std_multiplier: `[]`.
        log_std_offset: `[]`.
        action_low: `[action_dim]`.
        action_high: `[action_dim]`.
    """

    actor: Layers
    critics: tuple[Layers, Layers]
    observation_mean: jax.Array
    observation_std: jax.Array
    log_std_multiplier: jax.Array
    log_std_offset: jax.Array
    action_low: jax.Array
    action_high: jax.Array

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        return tuple(self.observation_mean.shape)

    @property
    def action_space(self) -> Continuous:
        """Bounds of its actions."""
        return Continuous(tuple(self.action_low.tolist()), tuple(self.action_high.tolist()))

    def policy(self, observations: jax.Array) -> TanhGaussian:
        """The action distribution pi*(. | s) at raw observations `[..., observation_dim]`."""
        outputs = apply_layers(self.actor, self._normalize(observations))
        mean, raw = jnp.split(outputs, 2, axis=-1)
        log_std = jnp.clip(self.log_std_multiplier * raw + self.log_std_offset, *LOG_STD_BOUNDS)
        return TanhGaussian(mean, log_std, self.action_low, self.action_high)

    def q(self, observations: jax.Array, actions: jax.Array) -> jax.Array:
        """Action values q*(s, a), `[...]`: the smaller one of the two critics.

        Args:
            observations: Raw, `[..., observation_dim]`.
            actions: `[..., action_dim]`, in the environment's units.
        """
        return jnp.minimum(*self.critic_values(observations, actions))

    def critic_values(self, observations: jax.Array, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Action values of each critic, `[...]`, also of actions with more batch axes in front than observations."""
        seen = self._normalize(observations)
        seen = jnp.broadcast_to(seen, (*actions.shape[:-1], seen.shape[-1]))
        inputs = jnp.concatenate([seen, actions], axis=-1)
        first, second = (apply_layers(layers, inputs)[..., 0] for layers in self.critics)
        return first, second

    def _normalize(self, observations: jax.Array) -> jax.Array:
        return (observations - self.observation_mean) / self.observation_std

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the teacher under exactly this name; what was there is replaced when the new file is whole.

        Raises:
            OSError: The file cannot be written.
            TeacherError: A parameter is not finite, or shapes do not fit together.
        """
        arrays = {
            **_layers_to_arrays("actor", self.actor),
            **_layers_to_arrays("critic1", self.critics[0]),
            **_layers_to_arrays("critic2", self.critics[1]),
            "log_std_multiplier": self.log_std_multiplier,
            "log_std_offset": self.log_std_offset,
            "obs_mean": self.observation_mean,
            "obs_std": self.observation_std,
            "action_low": self.action_low,
            "action_high": self.action_high,
        }
        plain = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
        with refusing(path, TeacherError):
            _build(plain)
        write_arrays(path, plain)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Teacher:
        """Reads a teacher file.

        Raises:
            TeacherError: It is not one, or not whole; the message names the file, the key and what was expected.
        """
        with refusing(path, TeacherError):
            return _build(read_arrays(path))

    def check_fits(self, env: NamedSpaces) -> None:
        """Refuses an environment whose observations or actions have other shapes or bounds.

        Raises:
            TeacherError: They have.
        """
        if self.observation_shape != tuple(env.observation_shape):
            raise TeacherError(
                f"teacher: expected observations of shape {tuple(env.observation_shape)} as of {env.name}, "
                f"got a teacher for {self.observation_shape}"
            )
        space = env.action_space
        if not isinstance(space, Continuous):
            raise TeacherError(f"teacher: expected continuous actions, got {env.name} with {space}")
        own = self.action_space
        if own.action_dim != space.action_dim or not np.allclose((own.low, own.high), (space.low, space.high)):
            raise TeacherError(f"teacher: expected actions of {env.name}, {space}, got a teacher for {own}")


@struct.dataclass
class PolicyTeacher:
    """Any trained policy as a teacher, which has no action values: for PBC, also of discrete actions.

    Attributes:
        architecture: Architecture of the policy.
        params: Its parameters and normalisation, which may not be running.
        spaces: Observations and actions that it was trained for.
    """

    architecture: Policy = struct.field(pytree_node=False)
    params: PolicyParams
    spaces: NamedSpaces = struct.field(pytree_node=False)

    def policy(self, observations: jax.Array) -> Distribution:
        """The action distribution pi*(. | s) at raw observations `[..., *observation_shape]`."""
        return self.architecture.apply(self.params.network, self.params.normalizer.apply(observations))

    def check_fits(self, env: NamedSpaces) -> None:
        """Refuses an environment of other observations or actions, and normalisation that would change.

        Raises:
            TeacherError: They are others.
        """
        own = (tuple(self.spaces.observation_shape), self.spaces.action_space)
        if own != (tuple(env.observation_shape), env.action_space):
            raise TeacherError(
                f"teacher: expected observations of shape {tuple(env.observation_shape)} and {env.action_space} as of "
                f"{env.name}, got a policy for {own[0]} and {own[1]}"
            )
        if self.params.normalizer.kind == "running":
            raise TeacherError("teacher: expected no or fixed normalisation of its observations, got a running one")


teacher_policy = Policy(lambda key: (), lambda teacher, observations: teacher.policy(observations))
"""Policy whose parameters are a `Teacher`."""


def is_teacher_file(path: str | os.PathLike[str]) -> bool:
    """Whether there is an archive with the parameters of an actor at `path`."""
    try:
        return "actor_w0" in read_arrays(path)
    except ValueError:
        return False


def apply_layers(layers: Layers, inputs: jax.Array) -> jax.Array:
    """A perceptron with relu between its layers, `[..., inputs]` to `[..., outputs]`."""
    for index, (kernel, bias) in enumerate(layers):
        inputs = (jax.nn.relu(inputs) if index else inputs) @ kernel + bias
    return inputs


def _layers_to_arrays(name: str, layers: Layers) -> dict[str, jax.Array]:
    kernels = {f"{name}_w{index}": kernel.T for index, (kernel, _) in enumerate(layers)}
    return kernels | {f"{name}_b{index}": bias for index, (_, bias) in enumerate(layers)}


def _build(arrays: Mapping[str, np.ndarray]) -> Teacher:
    """Checks the arrays of a file and builds the teacher.

    Raises:
        ValueError: Something is missing or not as the layout says; `"key: what was expected"`.
    """
    mean = _numbers(arrays, "obs_mean", (None,))
    observation_dim = len(mean)
    std = _numbers(arrays, "obs_std", (observation_dim,))
    if not (std > 0).all():
        raise ValueError(f"obs_std: expected numbers above 0, got {std.min()}")
    actor = _layers_from_arrays(arrays, "actor", observation_dim)
    outputs = actor[-1][1].shape[0]
    if outputs % 2:
        raise ValueError(f"actor_b{len(actor) - 1}: expected mean and log-std of each action, got {outputs} outputs")
    action_dim = outputs // 2
    critics = [_layers_from_arrays(arrays, name, observation_dim + action_dim) for name in ("critic1", "critic2")]
    for name, layers in zip(("critic1", "critic2"), critics, strict=True):
        if layers[-1][1].shape != (1,):
            raise ValueError(f"{name}_b{len(layers) - 1}: expected one output, got {layers[-1][1].shape[0]}")
    bounds = {"action_low": -np.ones(action_dim), "action_high": np.ones(action_dim)}
    low, high = (_numbers({**bounds, **arrays}, name, (action_dim,)) for name in bounds)
    if not (low < high).all():
        raise ValueError(f"action_low: expected numbers below action_high, got {low.tolist()} and {high.tolist()}")
    scalars = (_numbers(arrays, name, ()) for name in ("log_std_multiplier", "log_std_offset"))
    return Teacher(actor, (critics[0], critics[1]), *map(jnp.asarray, (mean, std, *scalars, low, high)))


def _layers_from_arrays(arrays: Mapping[str, np.ndarray], name: str, inputs: int) -> Layers:
    layers: list[tuple[jax.Array, jax.Array]] = []
    while not layers or f"{name}_w{len(layers)}" in arrays:
        kernel = _numbers(arrays, f"{name}_w{len(layers)}", (None, inputs))
        bias = _numbers(arrays, f"{name}_b{len(layers)}", (len(kernel),))
        layers.append((jnp.asarray(kernel.T), jnp.asarray(bias)))
        inputs = len(kernel)
    return tuple(layers)


def _numbers(arrays: Mapping[str, np.ndarray], name: str, shape: Sequence[int | None]) -> np.ndarray:
    """An array of this shape, None standing for any length above 0, as finite float32."""
    if name not in arrays:
        found = few(arrays, 5, "no arrays")
        raise ValueError(f"{name}: missing, expected in every teacher file, got {found}")
    array = arrays[name]
    fits = array.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, array.shape, strict=True))
    if not fits or array.size == 0:
        expected = "(" + ", ".join("any" if length is None else str(length) for length in shape) + ")"
        raise ValueError(f"{name}: expected shape {expected}, got {array.shape}")
    return finite_float32(name, array)
