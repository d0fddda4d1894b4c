"""Networks behind policies and critics, and the parametric functions that Flax modules become."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hades._initializers import orthogonal
from hades.types import PyTree

if TYPE_CHECKING:
    from hades.policies import Activation, KernelInit

_NORM_EPSILON = 1e-5

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": jnp.tanh,
    "relu": nn.relu,
    "gelu": nn.gelu,
    "silu": nn.silu,
    "elu": nn.elu,
}


def _initializer(name: KernelInit, orthogonal_scale: float) -> Callable[..., jax.Array]:
    if name == "orthogonal":
        return orthogonal(orthogonal_scale)
    return {
        "lecun_normal": nn.initializers.lecun_normal,
        "he_normal": nn.initializers.he_normal,
        "glorot_uniform": nn.initializers.glorot_uniform,
    }[name]()


def _activation(module: Torso | ConvTorso, name: Activation) -> Callable[[jax.Array], jax.Array]:
    """The nonlinearity of a name, of a module that is being applied."""
    if name != "tanh_or_relu":
        return ACTIVATIONS[name]
    # A parameter, so that each initialisation draws its own; training leaves it alone.
    drawn = module.param("relu", lambda key: jax.random.bernoulli(key).astype(module.param_dtype))
    relu = jax.lax.stop_gradient(drawn) > 0
    return lambda hidden: jnp.where(relu, nn.relu(hidden), jnp.tanh(hidden))


# Shifts of a 3x3 window, in the order of `jax.lax.conv_general_dilated_patches`.
_SHIFTS = [(row, column) for row in range(3) for column in range(3)]


@jax.custom_vjp
def _patches(images: jax.Array) -> jax.Array:
    """The 3x3 neighbourhood of each pixel, zeros beyond the border: `[images, height, width, channels * 9]`.

    A convolution is a product with them: vmapped over parameters it stays a batched product, where XLA would make a
    grouped convolution of it, which the CPU backend runs many times slower. They are gathered, and their gradient is a
    sum of shifted copies, as a CPU is several times slower in concatenating copies, and in adding what was gathered.
    """
    count, height, width, channels = images.shape
    bordered = np.full((height + 2, width + 2, channels), height * width * channels)
    bordered[1:-1, 1:-1] = np.arange(height * width * channels).reshape(height, width, channels)
    places = np.stack([bordered[row : row + height, column : column + width] for row, column in _SHIFTS], axis=-1)
    with_zero = jnp.pad(images.reshape(count, -1), ((0, 0), (0, 1)))
    return with_zero[:, places.ravel()].reshape(count, height, width, -1)


@jax.custom_vjp
def _summed_patches(patches: jax.Array) -> jax.Array:
    """The transpose of `_patches`: each pixel's part of all neighbourhoods, `[images, height, width, channels]`."""
    apart = patches.reshape(*patches.shape[:3], -1, len(_SHIFTS))
    shifted = [
        jnp.pad(apart[..., index], ((0, 0), (row, 2 - row), (column, 2 - column), (0, 0)))
        for index, (row, column) in enumerate(_SHIFTS)
    ]
    return sum(shifted[1:], shifted[0])[:, 1:-1, 1:-1]


_patches.defvjp(lambda images: (_patches(images), None), lambda _, cotangent: (_summed_patches(cotangent),))
_summed_patches.defvjp(lambda patches: (_summed_patches(patches), None), lambda _, cotangent: (_patches(cotangent),))


class Torso(nn.Module):
    """Dense layers, optionally residual, optionally behind one 3x3 convolution; returns features `[..., width]`."""

    hidden_sizes: tuple[int, ...]
    activation: Activation
    kernel_init: KernelInit
    residual: bool
    channels: int | None
    param_dtype: Any

    @nn.compact
    def __call__(self, observations: jax.Array, batch_axes: int) -> jax.Array:
        activation = _activation(self, self.activation)
        initializer = _initializer(self.kernel_init, math.sqrt(2))
        batch = observations.shape[:batch_axes]
        if self.channels is not None:
            images = observations.reshape(-1, *observations.shape[batch_axes:])
            observations = activation(self._dense(self.channels, initializer)(_patches(images)))
        features = observations.reshape(*batch, -1)
        for index, size in enumerate(self.hidden_sizes):
            hidden = activation(self._dense(size, initializer)(features))
            features = features + hidden if self.residual and index > 0 else hidden
        return features

    def _dense(self, features: int, initializer: Callable[..., jax.Array]) -> nn.Dense:
        return nn.Dense(features, kernel_init=initializer, param_dtype=self.param_dtype)


class ConvTorso(nn.Module):
    """Blocks of a 3x3 convolution, instance normalisation, activation and 2x2 average pooling; returns features.

    The network of Dataset Condensation (Zhao et al. 2021, arXiv 2006.05929, section 4.1) in front of its linear head.
    A side of odd length loses its last row in pooling, one of length 1 is not pooled.
    """

    channels: tuple[int, ...]
    activation: Activation
    kernel_init: KernelInit
    param_dtype: Any

    @nn.compact
    def __call__(self, observations: jax.Array, batch_axes: int) -> jax.Array:
        activation = _activation(self, self.activation)
        initializer = _initializer(self.kernel_init, math.sqrt(2))
        batch = observations.shape[:batch_axes]
        images = observations.reshape(-1, *observations.shape[batch_axes:])
        for channels in self.channels:
            images = nn.Dense(channels, kernel_init=initializer, param_dtype=self.param_dtype)(_patches(images))
            images = nn.InstanceNorm(epsilon=_NORM_EPSILON, param_dtype=self.param_dtype)(images)
            images = _pooled(activation(images))
        return images.reshape(*batch, -1)


def _pooled(images: jax.Array) -> jax.Array:
    """Means of 2x2 pixels, `[images, height / 2, width / 2, channels]`."""
    for axis in (1, 2):
        half = images.shape[axis] // 2
        if half:
            images = jax.lax.slice_in_dim(images, 0, 2 * half, axis=axis)
            images = jnp.mean(images.reshape(*images.shape[:axis], half, 2, *images.shape[axis + 1 :]), axis=axis + 1)
    return images


class Network(nn.Module):
    """A torso and a linear head; returns `[..., outputs]`."""

    torso: Torso | ConvTorso
    outputs: int
    head_gain: float

    @nn.compact
    def __call__(self, observations: jax.Array, batch_axes: int) -> jax.Array:
        features = self.torso(observations, batch_axes)
        initializer = _initializer(self.torso.kernel_init, self.head_gain)
        dtype = self.torso.param_dtype
        return nn.Dense(self.outputs, kernel_init=initializer, param_dtype=dtype, name="head")(features)


class Function(NamedTuple):
    """A function with parameters, a dict, of observations `[..., *observation_shape]`; returns `[..., outputs]`."""

    init: Callable[[jax.Array], dict[str, PyTree]]
    apply: Callable[[dict[str, PyTree], jax.Array], jax.Array]


def network_function(shape: tuple[int, ...], torso: Torso | ConvTorso, outputs: int, head_gain: float) -> Function:
    """The function of a torso with a linear head, for observations of a shape.

    Args:
        shape: Shape of an observation.
        torso: Layers before the head.
        outputs: Outputs of the head.
        head_gain: Gain of an orthogonal initialisation of the head.
    """
    network = Network(torso, outputs, head_gain)

    def init(key: jax.Array) -> dict[str, PyTree]:
        return dict(network.init(key, jnp.zeros(shape), 0)["params"])

    def apply(params: dict[str, PyTree], observations: jax.Array) -> jax.Array:
        return network.apply({"params": params}, observations, observations.ndim - len(shape))  # type: ignore[return-value]

    return Function(init, apply)
