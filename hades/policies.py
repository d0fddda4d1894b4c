"""Policies: pairs of pure functions, `init` and `apply`, over observations and action distributions.

Equal spaces and arguments give the same policy, so that what was compiled for one is found again for the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypedDict, Unpack

import flax.linen as nn
import jax
import jax.numpy as jnp

from hades._cache import kept
from hades._flax_modules import linen_function, nnx_function
from hades._networks import ConvTorso, Function, Torso, network_function
from hades._validation import require_positive
from hades.distributions import Categorical, Deterministic, DiagonalGaussian, Distribution, TanhGaussian, Uniform
from hades.types import ActionSpace, Continuous, Discrete, PyTree

if TYPE_CHECKING:
    from flax import nnx

PolicyName = Literal["mlp", "residual_mlp", "cnn", "convnet"]
Activation = Literal["tanh", "relu", "gelu", "silu", "elu", "tanh_or_relu"]
KernelInit = Literal["orthogonal", "lecun_normal", "he_normal", "glorot_uniform"]
ActionDistribution = Literal["gaussian", "tanh_gaussian"]


@dataclass(frozen=True)
class NetworkSettings:
    """Architecture of a policy."""

    policy: PolicyName = "mlp"
    """Architecture of the policy."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers (of the dense layers behind the convolution, for cnn; channels of the blocks, for
    convnet)."""
    activation: Activation = "tanh"
    """Nonlinearity of the hidden layers; tanh_or_relu is either, drawn with each initialisation."""
    kernel_init: KernelInit = "orthogonal"
    """Initialiser of the weights."""
    action_distribution: ActionDistribution = "gaussian"
    """Of continuous actions: gaussian, or tanh_gaussian, which stays inside of the environment's bounds."""
    head_gain: float = 0.01
    """Gain of an orthogonal initialisation of the last layer; the hidden ones have sqrt(2)."""
    initial_log_std: float = 0.0
    """First log standard deviation of continuous actions."""

    def __post_init__(self) -> None:
        """Refuses widths and a gain that are not positive."""
        for size in self.hidden_sizes:
            require_positive("hidden_sizes", size)
        require_positive("head_gain", self.head_gain)

    @property
    def network_settings(self) -> NetworkSettings:
        """These fields alone, of settings that add to them."""
        return NetworkSettings(**{field.name: getattr(self, field.name) for field in fields(NetworkSettings)})


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


class ArchitectureOptions(TypedDict, total=False):
    """Arguments that `mlp`, `residual_mlp`, `cnn` and `convnet` have in common.

    Attributes:
        kernel_init: Initialiser of the weights (default: orthogonal).
        action_distribution: Of continuous actions: Gaussian (default), or squashed by tanh into the bounds.
        head_gain: Gain of an orthogonal initialisation of the last layer (default: 0.01).
        initial_log_std: First log standard deviation of continuous actions (default: 0).
        param_dtype: Type of the parameters (default: float32).
    """

    kernel_init: KernelInit
    action_distribution: ActionDistribution
    head_gain: float
    initial_log_std: float
    param_dtype: Any


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
_VALUE_GAIN = 1.0


@dataclass(frozen=True)
class PolicySpaces:
    """The two spaces of a policy in plain numbers, which can be hashed and written into files.

    Attributes:
        observation_shape: Shape of one observation.
        action_space: `Discrete` or `Continuous`.

    Example:
        >>> import envs
        >>> PolicySpaces.of(envs.make("diagnostic/match")).action_space
        Discrete(num_actions=3)
    """

    observation_shape: tuple[int, ...]
    action_space: ActionSpace

    @classmethod
    def of(cls, env: Spaces) -> PolicySpaces:
        """The spaces of an environment, or of anything that has them."""
        space = env.action_space
        if isinstance(space, Discrete):
            space = Discrete(int(space.num_actions))
        else:
            space = Continuous(tuple(map(float, space.low)), tuple(map(float, space.high)))
        return cls(tuple(map(int, env.observation_shape)), space)

    @property
    def outputs(self) -> int:
        """Outputs of a policy's network: logits, or means."""
        space = self.action_space
        return space.num_actions if isinstance(space, Discrete) else space.action_dim


def _torso(shape: Sequence[int], settings: NetworkSettings, param_dtype: Any, channels: int) -> Torso | ConvTorso:
    """The hidden layers that `settings` names, for observations of a shape that suits them."""
    sizes, dtype = tuple(settings.hidden_sizes), jnp.dtype(param_dtype)
    residual, convolves = settings.policy == "residual_mlp", settings.policy == "cnn"
    if residual and len(set(sizes)) != 1:
        raise ValueError(f"hidden_sizes: a residual_mlp needs one or more equal widths, got {sizes}")
    if settings.policy in ("cnn", "convnet") and len(shape) != 3:
        raise ValueError(f"policy: {settings.policy} needs observations (height, width, channels), got {shape}")
    if settings.policy == "convnet":
        return ConvTorso(sizes, settings.activation, settings.kernel_init, dtype)
    return Torso(sizes, settings.activation, settings.kernel_init, residual, channels if convolves else None, dtype)


def _policy(
    spaces: PolicySpaces, function: Function, action_distribution: ActionDistribution, dtype: Any, log_std: float = 0.0
) -> Policy:
    """The policy whose logits or means a function returns; the log-std of continuous actions stands beside them."""
    space = spaces.action_space
    if isinstance(space, Discrete):
        return Policy(function.init, lambda params, observations: Categorical(function.apply(params, observations)))

    def init(key: jax.Array) -> PyTree:
        return {**function.init(key), "log_std": jnp.full(space.action_dim, log_std, dtype)}

    def apply(params: PyTree, observations: jax.Array) -> Distribution:
        others = {name: leaf for name, leaf in params.items() if name != "log_std"}
        mean, spread = function.apply(others, observations), params["log_std"]
        if action_distribution == "gaussian":
            return DiagonalGaussian(mean, spread)
        low, high = (jnp.array(side, dtype) for side in (space.low, space.high))
        return TanhGaussian(mean, spread, low, high)

    return Policy(init, apply)


@cache
def _build(
    spaces: PolicySpaces,
    torso: Torso | ConvTorso,
    action_distribution: ActionDistribution,
    head_gain: float,
    log_std: float,
) -> Policy:
    network = network_function(spaces.observation_shape, torso, spaces.outputs, head_gain)
    return _policy(spaces, network, action_distribution, torso.param_dtype, log_std)


def from_settings(
    env: Spaces, settings: NetworkSettings, param_dtype: Any = jnp.float32, channels: int = _CHANNELS
) -> Policy:
    """The policy that `settings` names, for the spaces of `env`.

    Args:
        env: An environment, or anything with its `observation_shape` and `action_space`.
        settings: Architecture.
        param_dtype: Type of the parameters.
        channels: Output channels of the convolution of a cnn.

    Raises:
        ValueError: The architecture does not suit the observations.
    """
    spaces = PolicySpaces.of(env)
    torso = _torso(spaces.observation_shape, settings, param_dtype, channels)
    return _build(spaces, torso, settings.action_distribution, settings.head_gain, settings.initial_log_std)


def _named(
    env: Spaces,
    policy: PolicyName,
    hidden_sizes: Sequence[int],
    activation: Activation,
    channels: int = _CHANNELS,
    **options: Unpack[ArchitectureOptions],
) -> Policy:
    settings = NetworkSettings(
        policy,
        tuple(hidden_sizes),
        activation,
        options.get("kernel_init", "orthogonal"),
        options.get("action_distribution", "gaussian"),
        options.get("head_gain", NetworkSettings.head_gain),
        options.get("initial_log_std", NetworkSettings.initial_log_std),
    )
    return from_settings(env, settings, options.get("param_dtype", jnp.float32), channels)


def mlp(
    env: Spaces,
    hidden_sizes: Sequence[int] = (64, 64),
    activation: Activation = "tanh",
    **options: Unpack[ArchitectureOptions],
) -> Policy:
    """A multilayer perceptron on flattened observations.

    Continuous actions get a diagonal Gaussian, before tanh if so asked, whose log-std is a parameter of its own;
    discrete ones a categorical distribution. With orthogonal initialisation the hidden layers have gain sqrt(2) and the
    head 0.01 if nothing else is said, as in the published runs (Behaviour Distillation, arXiv 2406.15042).

    Args:
        env: An environment, or anything with its `observation_shape` and `action_space`.
        hidden_sizes: Widths of the hidden layers; empty for a linear policy.
        activation: Nonlinearity of the hidden layers.
        **options: `kernel_init`, `action_distribution`, `head_gain`, `initial_log_std` and `param_dtype`, see
            `ArchitectureOptions`.

    Raises:
        ValueError: A width is not positive.
    """
    return _named(env, "mlp", hidden_sizes, activation, **options)


def residual_mlp(
    env: Spaces,
    hidden_sizes: Sequence[int] = (64, 64),
    activation: Activation = "tanh",
    **options: Unpack[ArchitectureOptions],
) -> Policy:
    """A perceptron whose hidden layers after the first add to their input. Arguments as of `mlp`.

    Raises:
        ValueError: A width is not positive, or the widths differ.
    """
    return _named(env, "residual_mlp", hidden_sizes, activation, **options)


def cnn(
    env: Spaces,
    hidden_sizes: Sequence[int] = (128,),
    activation: Activation = "relu",
    channels: int = _CHANNELS,
    **options: Unpack[ArchitectureOptions],
) -> Policy:
    """One 3x3 convolution and dense layers, for image-like observations `[height, width, channels]`.

    Args:
        env: As of `mlp`.
        hidden_sizes: Widths of the dense layers behind the convolution.
        activation: As of `mlp`.
        channels: Output channels of the convolution.
        **options: As of `mlp`.

    Raises:
        ValueError: A width is not positive, or the observations do not have three axes.
    """
    return _named(env, "cnn", hidden_sizes, activation, channels, **options)


def convnet(
    env: Spaces,
    hidden_sizes: Sequence[int] = (128, 128, 128),
    activation: Activation = "relu",
    **options: Unpack[ArchitectureOptions],
) -> Policy:
    """Blocks of a 3x3 convolution, instance normalisation, activation and 2x2 average pooling, and a linear head.

    With three blocks of 128 channels it is ConvNet-3, the network that dataset condensation is measured with (Zhao et
    al. 2021, arXiv 2006.05929, section 4.1). Convolutions keep the size of the image.

    Args:
        env: As of `mlp`.
        hidden_sizes: Channels of each block.
        activation: As of `mlp`.
        **options: As of `mlp`.

    Raises:
        ValueError: A width is not positive, or the observations do not have three axes.
    """
    return _named(env, "convnet", hidden_sizes, activation, **options)


def from_linen(env: Spaces, module: nn.Module, action_distribution: ActionDistribution = "gaussian") -> Policy:
    """The policy of a Flax module of the linen API.

    Args:
        env: An environment, or anything with its `observation_shape` and `action_space`.
        module: Maps observations `[batch, *observation_shape]` to logits `[batch, num_actions]`, or to the means of
            continuous actions, `[batch, action_dim]`, whose log-std becomes another parameter, zero at the start. It
            has parameters only, and draws no random numbers when it is applied.
        action_distribution: Of continuous actions: Gaussian, or squashed by tanh into the bounds.

    Raises:
        ValueError: The module returns another shape, or has other collections than `params`.

    Example:
        >>> import envs
        >>> import flax.linen as nn
        >>> env = envs.make("diagnostic/target", action_dim=2)
        >>> policy = from_linen(env, nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(2)]))
        >>> policy.apply(policy.init(jax.random.key(0)), jnp.zeros((5, 2))).mode().shape
        (5, 2)
    """
    return _from_module(linen_function, PolicySpaces.of(env), module, action_distribution)


def from_nnx(
    env: Spaces, make_module: Callable[[nnx.Rngs], nnx.Module], action_distribution: ActionDistribution = "gaussian"
) -> Policy:
    """The policy of a Flax module of the nnx API.

    Args:
        env: As of `from_linen`.
        make_module: `make_module(rngs)` makes a module that maps observations as that of `from_linen` does. Its state
            are instances of `nnx.Param` only.
        action_distribution: As of `from_linen`.

    Raises:
        ValueError: The module returns another shape, or has other state than parameters.

    Example:
        >>> import envs
        >>> from flax import nnx
        >>> env = envs.make("diagnostic/target", action_dim=2)
        >>> policy = from_nnx(env, lambda rngs: nnx.Linear(2, 2, rngs=rngs))
        >>> policy.apply(policy.init(jax.random.key(0)), jnp.zeros((5, 2))).mode().shape
        (5, 2)
    """
    return _from_module(nnx_function, PolicySpaces.of(env), make_module, action_distribution)


@kept
def _from_module(
    as_function: Callable[..., Function], spaces: PolicySpaces, module: Any, action_distribution: ActionDistribution
) -> Policy:
    function = as_function(module, spaces.observation_shape, spaces.outputs)
    return _policy(spaces, function, action_distribution, jnp.float32)


def uniform(env: Spaces) -> Policy:
    """The policy without parameters that draws every action with the same probability."""
    return _uniform(PolicySpaces.of(env))


@cache
def _uniform(spaces: PolicySpaces) -> Policy:
    shape, action_space = spaces.observation_shape, spaces.action_space

    def apply(params: PyTree, observations: jax.Array) -> Distribution:
        batch = observations.shape[: observations.ndim - len(shape)]
        if isinstance(action_space, Discrete):
            return Categorical(jnp.zeros((*batch, action_space.num_actions)))
        sides = (action_space.low, action_space.high)
        return Uniform(*(jnp.broadcast_to(jnp.array(side), (*batch, len(side))) for side in sides))

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
    return _ensemble(policy, size)


@cache
def _ensemble(policy: Policy, size: int) -> Policy:
    def init(key: jax.Array) -> PyTree:
        return jax.vmap(policy.init)(jax.random.split(key, size))

    def apply(params: PyTree, observations: jax.Array) -> Distribution:
        members = jax.vmap(policy.apply, in_axes=(0, None))(params, observations)
        if isinstance(members, Categorical):
            return Categorical(jax.nn.logsumexp(members.log_probs(), axis=0))
        return Deterministic(jnp.mean(jax.vmap(lambda member: member.mode())(members), axis=0))

    return Policy(init, apply)


def value_network(env: Spaces, settings: NetworkSettings) -> ValueNetwork:
    """A critic with hidden layers as `settings` says, its own; orthogonal initialisation gives the head gain 1.

    Raises:
        ValueError: The architecture does not suit the observations, as for a policy.
    """
    shape = PolicySpaces.of(env).observation_shape
    return _value_network(shape, _torso(shape, settings, jnp.float32, _CHANNELS))


@cache
def _value_network(shape: tuple[int, ...], torso: Torso) -> ValueNetwork:
    network = network_function(shape, torso, 1, _VALUE_GAIN)
    return ValueNetwork(network.init, lambda params, observations: network.apply(params, observations)[..., 0])
