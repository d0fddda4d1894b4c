"""Policies: pairs of pure functions, `init` and `apply`, over observations and action distributions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from hades._validation import require_positive
from hades.distributions import Categorical, Deterministic, DiagonalGaussian, Distribution, TanhGaussian, Uniform
from hades.types import ActionSpace, Discrete, PyTree

PolicyName = Literal["mlp", "residual_mlp", "cnn"]
Activation = Literal["tanh", "relu", "gelu", "silu", "elu"]
KernelInit = Literal["orthogonal", "lecun_normal", "he_normal", "glorot_uniform"]
ActionDistribution = Literal["gaussian", "tanh_gaussian"]


@dataclass(frozen=True)
class NetworkSettings:
    """Architecture of a policy."""

    policy: PolicyName = "mlp"
    """Architecture of the policy."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers (of the dense layers behind the convolution, for cnn)."""
    activation: Activation = "tanh"
    """Nonlinearity of the hidden layers."""
    kernel_init: KernelInit = "orthogonal"
    """Initialiser of the weights."""
    action_distribution: ActionDistribution = "gaussian"
    """Of continuous actions: gaussian, or tanh_gaussian, which stays inside of the environment's bounds."""

    def __post_init__(self) -> None:
        """Refuses widths that are not positive."""
        for size in self.hidden_sizes:
            require_positive("hidden_sizes", size)


class Spaces(Protocol):
    """The two things that a policy needs to know of an environment; every `Environment` has them."""

    @property
    def observation_shape(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def action_space(self) -> ActionSpace: ...  # noqa: D102


class NamedSpaces(Spaces, Protocol):
    """Spaces with a name for messages; every `Environment` has them."""

    @property
    def name(self) -> str: ...  # noqa: D102


class Policy(NamedTuple):
    """A policy of any architecture.

    Attributes:
        init: `init(key)` draws fresh parameters, any pytree.
        apply: `apply(params, observations)` takes observations `[..., *observation_shape]`, in the space that the
            policy sees (after normalisation), and returns a distribution with batch axes `[...]`.
    """

    init: Callable[[jax.Array], PyTree]
    apply: Callable[[PyTree, jax.Array], Distribution]


class ValueNetwork(NamedTuple):
    """An estimate of the return that follows an observation.

    Attributes:
        init: `init(key)` draws fresh parameters, any pytree.
        apply: `apply(params, observations)` takes observations `[..., *observation_shape]`, in the space that the
            policy sees, and returns values `[...]`.
    """

    init: Callable[[jax.Array], PyTree]
    apply: Callable[[PyTree, jax.Array], jax.Array]


_CHANNELS = 16

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": jnp.tanh,
    "relu": nn.relu,
    "gelu": nn.gelu,
    "silu": nn.silu,
    "elu": nn.elu,
}


def _initializer(name: KernelInit, orthogonal_scale: float) -> Callable[..., jax.Array]:
    if name == "orthogonal":
        return nn.initializers.orthogonal(orthogonal_scale)
    return {
        "lecun_normal": nn.initializers.lecun_normal,
        "he_normal": nn.initializers.he_normal,
        "glorot_uniform": nn.initializers.glorot_uniform,
    }[name]()


class _Torso(nn.Module):
    """Dense layers, optionally residual, optionally behind one 3x3 convolution; returns features `[..., width]`."""

    hidden_sizes: tuple[int, ...]
    activation: Activation
    kernel_init: KernelInit
    residual: bool
    channels: int | None
    param_dtype: Any

    @nn.compact
    def __call__(self, observations: jax.Array, batch_axes: int) -> jax.Array:
        activation = ACTIVATIONS[self.activation]
        initializer = _initializer(self.kernel_init, math.sqrt(2))
        batch = observations.shape[:batch_axes]
        if self.channels is not None:
            # A convolution as a product with patches: vmapped over parameters it stays a batched product, where
            # XLA would make a grouped convolution of it, which the CPU backend runs many times slower.
            images = observations.reshape(-1, *observations.shape[batch_axes:])
            patches = jax.lax.conv_general_dilated_patches(
                images, (3, 3), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            observations = activation(self._dense(self.channels, initializer)(patches))
        features = observations.reshape(*batch, -1)
        for index, size in enumerate(self.hidden_sizes):
            hidden = activation(self._dense(size, initializer)(features))
            features = features + hidden if self.residual and index > 0 else hidden
        return features

    def _dense(self, features: int, initializer: Callable[..., jax.Array]) -> nn.Dense:
        return nn.Dense(features, kernel_init=initializer, param_dtype=self.param_dtype)


class _Network(nn.Module):
    """A torso and a linear head for the action space."""

    torso: _Torso
    action_space: ActionSpace
    action_distribution: ActionDistribution

    @nn.compact
    def __call__(self, observations: jax.Array, batch_axes: int) -> Distribution:
        features = self.torso(observations, batch_axes)
        initializer = _initializer(self.torso.kernel_init, 0.01)
        dtype = self.torso.param_dtype
        if isinstance(self.action_space, Discrete):
            head = nn.Dense(self.action_space.num_actions, kernel_init=initializer, param_dtype=dtype, name="head")
            return Categorical(head(features))
        action_dim = self.action_space.action_dim
        mean = nn.Dense(action_dim, kernel_init=initializer, param_dtype=dtype, name="head")(features)
        log_std = self.param("log_std", nn.initializers.zeros, (action_dim,), dtype)
        if self.action_distribution == "gaussian":
            return DiagonalGaussian(mean, log_std)
        low, high = (jnp.array(side, dtype) for side in (self.action_space.low, self.action_space.high))
        return TanhGaussian(mean, log_std, low, high)


class _Value(nn.Module):
    """A torso and a linear head of one output."""

    torso: _Torso

    @nn.compact
    def __call__(self, observations: jax.Array, batch_axes: int) -> jax.Array:
        features = self.torso(observations, batch_axes)
        initializer = _initializer(self.torso.kernel_init, 1.0)
        return nn.Dense(1, kernel_init=initializer, param_dtype=self.torso.param_dtype, name="head")(features)[..., 0]


def _policy(env: Spaces, torso: _Torso, action_distribution: ActionDistribution) -> Policy:
    network = _Network(torso, env.action_space, action_distribution)
    shape = env.observation_shape

    def init(key: jax.Array) -> PyTree:
        return network.init(key, jnp.zeros(shape), 0)["params"]

    def apply(params: PyTree, observations: jax.Array) -> Distribution:
        return network.apply({"params": params}, observations, observations.ndim - len(shape))  # type: ignore[return-value]

    return Policy(init, apply)


def mlp(
    env: Spaces,
    hidden_sizes: Sequence[int] = (64, 64),
    activation: Activation = "tanh",
    kernel_init: KernelInit = "orthogonal",
    param_dtype: Any = jnp.float32,
    action_distribution: ActionDistribution = "gaussian",
) -> Policy:
    """A multilayer perceptron on flattened observations.

    Continuous actions get a diagonal Gaussian, before tanh if so asked, whose log-std is a parameter of its own, zero
    at the start; discrete ones a categorical distribution. With orthogonal initialisation the hidden layers have gain
    sqrt(2) and the head 0.01, as in the published runs (Behaviour Distillation, arXiv 2406.15042).

    Args:
        env: An environment, or anything with its `observation_shape` and `action_space`.
        hidden_sizes: Widths of the hidden layers; empty for a linear policy.
        activation: Nonlinearity of the hidden layers.
        kernel_init: Initialiser of the weights.
        param_dtype: Type of the parameters.
        action_distribution: Of continuous actions: Gaussian, or squashed by tanh into the bounds.
    """
    return _policy(
        env, _Torso(tuple(hidden_sizes), activation, kernel_init, False, None, param_dtype), action_distribution
    )


def residual_mlp(
    env: Spaces,
    hidden_sizes: Sequence[int] = (64, 64),
    activation: Activation = "tanh",
    kernel_init: KernelInit = "orthogonal",
    param_dtype: Any = jnp.float32,
    action_distribution: ActionDistribution = "gaussian",
) -> Policy:
    """A perceptron whose hidden layers after the first add to their input. Arguments as of `mlp`.

    Raises:
        ValueError: The widths differ.
    """
    if len(set(hidden_sizes)) != 1:
        raise ValueError(f"hidden_sizes: a residual_mlp needs one or more equal widths, got {tuple(hidden_sizes)}")
    return _policy(
        env, _Torso(tuple(hidden_sizes), activation, kernel_init, True, None, param_dtype), action_distribution
    )


def cnn(
    env: Spaces,
    hidden_sizes: Sequence[int] = (128,),
    activation: Activation = "relu",
    kernel_init: KernelInit = "orthogonal",
    param_dtype: Any = jnp.float32,
    action_distribution: ActionDistribution = "gaussian",
    channels: int = _CHANNELS,
) -> Policy:
    """One 3x3 convolution and dense layers, for image-like observations `[height, width, channels]`.

    Args:
        env: As of `mlp`.
        hidden_sizes: Widths of the dense layers behind the convolution.
        activation: As of `mlp`.
        kernel_init: As of `mlp`.
        param_dtype: As of `mlp`.
        action_distribution: As of `mlp`.
        channels: Output channels of the convolution.

    Raises:
        ValueError: The observations do not have three axes.
    """
    if len(env.observation_shape) != 3:
        raise ValueError(f"policy: cnn needs observations (height, width, channels), got {env.observation_shape}")
    return _policy(
        env, _Torso(tuple(hidden_sizes), activation, kernel_init, False, channels, param_dtype), action_distribution
    )


def uniform(env: Spaces) -> Policy:
    """The policy without parameters that draws every action with the same probability."""
    shape, action_space = env.observation_shape, env.action_space

    def apply(params: PyTree, observations: jax.Array) -> Distribution:
        batch = observations.shape[: observations.ndim - len(shape)]
        if isinstance(action_space, Discrete):
            return Categorical(jnp.zeros((*batch, action_space.num_actions)))
        bounds = (
            jnp.broadcast_to(jnp.array(side), (*batch, len(side))) for side in (action_space.low, action_space.high)
        )
        return Uniform(*bounds)

    return Policy(lambda key: (), apply)


def ensemble(policy: Policy, size: int) -> Policy:
    """Several policies that act as one: by the mean of their modes, or by the mean of their action probabilities.

    Its parameters are those of `policy` with a leading axis of `size` members. Continuous actions do not depend on
    whether they are sampled.

    Raises:
        ValueError: `size` is not positive.

    Example:
        >>> import envs
        >>> pair = ensemble(mlp(envs.make("diagnostic/target", action_dim=2), (4,)), 2)
        >>> pair.apply(pair.init(jax.random.key(0)), jnp.zeros((5, 2))).mode().shape
        (5, 2)
    """
    require_positive("size", size)

    def init(key: jax.Array) -> PyTree:
        # Not vmapped: batched orthogonal initialisers can deadlock on the CPU.
        return jax.lax.map(policy.init, jax.random.split(key, size))

    def apply(params: PyTree, observations: jax.Array) -> Distribution:
        members = jax.vmap(policy.apply, in_axes=(0, None))(params, observations)
        if isinstance(members, Categorical):
            return Categorical(jax.nn.logsumexp(members.log_probs(), axis=0))
        return Deterministic(jnp.mean(jax.vmap(lambda member: member.mode())(members), axis=0))

    return Policy(init, apply)


def from_settings(env: Spaces, settings: NetworkSettings) -> Policy:
    """The policy that `settings` names, for the spaces of `env`."""
    build = {"mlp": mlp, "residual_mlp": residual_mlp, "cnn": cnn}[settings.policy]
    return build(
        env,
        settings.hidden_sizes,
        settings.activation,
        settings.kernel_init,
        action_distribution=settings.action_distribution,
    )


def value_network(env: Spaces, settings: NetworkSettings) -> ValueNetwork:
    """A critic with hidden layers as `settings` says, its own; orthogonal initialisation gives the head gain 1.

    Raises:
        ValueError: The architecture does not suit the observations, as for a policy.
    """
    from_settings(env, settings)
    residual, channels = settings.policy == "residual_mlp", _CHANNELS if settings.policy == "cnn" else None
    torso = _Torso(settings.hidden_sizes, settings.activation, settings.kernel_init, residual, channels, jnp.float32)
    network = _Value(torso)
    shape = env.observation_shape

    def init(key: jax.Array) -> PyTree:
        return network.init(key, jnp.zeros(shape), 0)["params"]

    def apply(params: PyTree, observations: jax.Array) -> jax.Array:
        return network.apply({"params": params}, observations, observations.ndim - len(shape))  # type: ignore[return-value]

    return ValueNetwork(init, apply)
