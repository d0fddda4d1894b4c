"""Action distributions, which policies return. Pytrees whose leading axes are batch axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, Protocol, TypeGuard

import jax
import jax.numpy as jnp
from flax import struct

from hades._finite import all_finite, any_nan

ActionSelection = Literal["sample", "mode"]


class Distribution(Protocol):
    """Interface of distributions over actions; `[...]` are batch axes."""

    def sample(self, key: jax.Array) -> jax.Array:
        """Draws one action for each batch element."""
        ...

    def mode(self) -> jax.Array:
        """The most probable action of each batch element."""
        ...

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Log-probability (or log-density) of an action, `[...]`."""
        ...


class Reparametrized:
    """Base of distributions whose samples are a function of noise that depends on their shape alone.

    The noise of many steps can then be drawn at once, before anything is known of the policies that act in them.
    """

    def noise(self, key: jax.Array) -> jax.Array:
        """Draws standard noise for each batch element, `[..., noise_dim]`; looks at shapes and dtypes alone."""
        raise NotImplementedError

    def transform(self, noise: jax.Array) -> jax.Array:
        """The actions that such noise stands for."""
        raise NotImplementedError

    def sample(self, key: jax.Array) -> jax.Array:
        """Draws one action for each batch element."""
        return self.transform(self.noise(key))


def choose(randomness: jax.Array, distribution: Distribution, action_selection: ActionSelection) -> jax.Array:
    """Actions of a policy's distribution: its mode, or samples of a key or of noise that `draw_noise` gave."""
    if action_selection == "mode":
        return distribution.mode()
    if jnp.issubdtype(randomness.dtype, jax.dtypes.prng_key):
        return distribution.sample(randomness)
    assert isinstance(distribution, Reparametrized)  # others keep their key, see `draw_noise`
    return distribution.transform(randomness)


def invalid_actions(distribution: Distribution, actions: jax.Array) -> jax.Array:
    """Actions that are not finite, or that a distribution with a NaN among its parameters gave, `[envs]` bool.

    An integer is always finite, so that policies over discrete actions show only in their distribution that they have
    diverged.
    """
    if jnp.issubdtype(actions.dtype, jnp.floating):
        return ~all_finite(actions)
    parameters = [leaf for leaf in jax.tree.leaves(distribution) if leaf.shape[:1] == actions.shape[:1]]
    return any_nan(parameters) | jnp.zeros(actions.shape[:1], bool)


def is_reparametrized(distribution: object) -> TypeGuard[Reparametrized]:
    """Whether samples are those of `Reparametrized`: a subclass that samples in a way of its own needs keys."""
    return isinstance(distribution, Reparametrized) and type(distribution).sample is Reparametrized.sample


def draw_noise(key: jax.Array, distribution: object) -> jax.Array:
    """Draws what `choose` needs of the random numbers of a key: noise, or the key where a distribution has none.

    Args:
        key: Key.
        distribution: A `Reparametrized` distribution, whose leaves may be `jax.ShapeDtypeStruct`, or anything else.

    Example:
        >>> key, normal = jax.random.key(0), DiagonalGaussian(jnp.array([1.0, 5.0]), jnp.zeros(2))
        >>> bool(jnp.all(choose(draw_noise(key, normal), normal, "sample") == normal.sample(key)))
        True
    """
    return distribution.noise(key) if is_reparametrized(distribution) else key


def shapes_for_noise(make: Callable[[], Distribution]) -> Reparametrized | None:
    """Shapes and dtypes of the distribution that a function would make, for `draw_noise`.

    Nothing is computed. None where the distribution has no noise of its own.
    """

    def made() -> Reparametrized | None:
        distribution = make()
        return distribution if is_reparametrized(distribution) else None

    shapes: Reparametrized | None = jax.eval_shape(made)
    return shapes


@struct.dataclass
class Categorical(Reparametrized):
    """A distribution over the integers `0 .. num_actions - 1`.

    Attributes:
        logits: Unnormalised log-probabilities, `[..., num_actions]`.

    Example:
        >>> int(Categorical(jnp.array([0.0, 2.0, 1.0])).mode())
        1
    """

    logits: jax.Array

    def noise(self, key: jax.Array) -> jax.Array:
        """Draws standard Gumbel noise, `[..., num_actions]`."""
        return jax.random.gumbel(key, self.logits.shape, self.logits.dtype)

    def transform(self, noise: jax.Array) -> jax.Array:
        """Actions of Gumbel noise, `[...]` int32: the Gumbel-max trick."""
        return jnp.argmax(noise + self.logits, axis=-1).astype(jnp.int32)

    def mode(self) -> jax.Array:
        """The most probable actions, `[...]` int32."""
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

    def log_probs(self) -> jax.Array:
        """Log-probabilities of all actions, `[..., num_actions]`."""
        return jax.nn.log_softmax(self.logits)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Log-probability of actions `[...]`."""
        return jnp.take_along_axis(self.log_probs(), action[..., None], axis=-1)[..., 0]

    def entropy(self) -> jax.Array:
        """Entropy in nats, `[...]`."""
        log_probs = self.log_probs()
        # p log p is 0 where p is, and selecting before the product keeps its gradient finite there.
        finite = jnp.where(log_probs > -jnp.inf, log_probs, 0.0)
        return -jnp.sum(jnp.exp(log_probs) * finite, axis=-1)


@struct.dataclass
class DiagonalGaussian(Reparametrized):
    """Independent normal components.

    Attributes:
        mean: `[..., action_dim]`.
        log_std: Natural logarithm of the standard deviation, broadcast against `mean`.

    Example:
        >>> normal = DiagonalGaussian(jnp.zeros(2), jnp.zeros(2))
        >>> round(float(normal.log_prob(jnp.zeros(2))), 4)
        -1.8379
    """

    mean: jax.Array
    log_std: jax.Array

    def noise(self, key: jax.Array) -> jax.Array:
        """Draws standard normal noise, `[..., action_dim]`."""
        return jax.random.normal(key, self.mean.shape, self.mean.dtype)

    def transform(self, noise: jax.Array) -> jax.Array:
        """Actions of normal noise, `[..., action_dim]`."""
        return self.mean + jnp.exp(self.log_std) * noise

    def mode(self) -> jax.Array:
        """The means, `[..., action_dim]`."""
        return self.mean

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Log-density of actions `[..., action_dim]`, summed over components."""
        standardized = (action - self.mean) * jnp.exp(-self.log_std)
        return jnp.sum(-0.5 * (jnp.square(standardized) + math.log(2 * math.pi)) - self.log_std, axis=-1)

    def entropy(self) -> jax.Array:
        """Differential entropy in nats, summed over components, `[...]`."""
        log_std = jnp.broadcast_to(self.log_std, self.mean.shape)
        return jnp.sum(log_std + 0.5 * math.log(2 * math.pi * math.e), axis=-1)


@struct.dataclass
class Uniform:
    """Independent components, uniform between bounds.

    Attributes:
        low: `[..., action_dim]`.
        high: `[..., action_dim]`.
    """

    low: jax.Array
    high: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        """Draws actions, `[..., action_dim]`."""
        return jax.random.uniform(key, self.low.shape, self.low.dtype, self.low, self.high)

    def mode(self) -> jax.Array:
        """The midpoints, `[..., action_dim]`."""
        return 0.5 * (self.low + self.high)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Log-density of actions `[..., action_dim]`: minus infinity outside of the bounds."""
        inside = (action >= self.low) & (action <= self.high)
        return jnp.sum(jnp.where(inside, -jnp.log(self.high - self.low), -jnp.inf), axis=-1)


@struct.dataclass
class Deterministic:
    """Distribution with all of its mass on one action.

    Attributes:
        action: `[..., action_dim]`.
    """

    action: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        """The actions, `[..., action_dim]`."""
        del key
        return self.action

    def mode(self) -> jax.Array:
        """The actions, `[..., action_dim]`."""
        return self.action

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Log-probability of actions `[..., action_dim]`: 0 for the one, minus infinity for all others."""
        return jnp.where(jnp.all(action == self.action, axis=-1), 0.0, -jnp.inf)


@struct.dataclass
class TanhGaussian(Reparametrized):
    """Independent normal components, squashed by tanh and scaled into bounds.

    Attributes:
        mean: Mean before tanh, `[..., action_dim]`.
        log_std: Natural logarithm of the standard deviation before tanh, broadcast against `mean`.
        low: Lower bound of actions, broadcast against `mean`.
        high: Upper bound of actions, broadcast against `mean`.

    Example:
        >>> squashed = TanhGaussian(jnp.zeros(1), jnp.zeros(1), low=jnp.array([0.0]), high=jnp.array([4.0]))
        >>> squashed.mode().tolist()
        [2.0]
    """

    mean: jax.Array
    log_std: jax.Array
    low: jax.Array | float = -1.0
    high: jax.Array | float = 1.0

    def noise(self, key: jax.Array) -> jax.Array:
        """Draws standard normal noise, `[..., action_dim]`."""
        return self._before_tanh.noise(key)

    def transform(self, noise: jax.Array) -> jax.Array:
        """Actions of normal noise, `[..., action_dim]`."""
        return self._squash(self._before_tanh.transform(noise))

    def sample_with_log_prob(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Draws actions `[..., action_dim]`; their log-density `[...]` is exact however near they are to a bound."""
        inner = self._before_tanh.sample(key)
        return self._squash(inner), self._log_prob_of_inner(inner)

    def mode(self) -> jax.Array:
        """The squashed means, `[..., action_dim]`: the medians, which stand for the mode as is usual."""
        return self._squash(self.mean)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Log-density of actions `[..., action_dim]`, summed over components."""
        unit = (action - self._center) / self._scale
        limit = 1 - float(jnp.finfo(unit.dtype).eps)
        return self._log_prob_of_inner(jnp.arctanh(jnp.clip(unit, -limit, limit)))

    @property
    def _before_tanh(self) -> DiagonalGaussian:
        return DiagonalGaussian(self.mean, self.log_std)

    @property
    def _center(self) -> jax.Array | float:
        return 0.5 * (self.low + self.high)

    @property
    def _scale(self) -> jax.Array | float:
        return 0.5 * (self.high - self.low)

    def _squash(self, inner: jax.Array) -> jax.Array:
        return self._center + self._scale * jnp.tanh(inner)

    def _log_prob_of_inner(self, inner: jax.Array) -> jax.Array:
        # log(1 - tanh(x)^2) without cancellation.
        log_slope = 2 * (math.log(2) - inner - jax.nn.softplus(-2 * inner)) + jnp.log(self._scale)
        return self._before_tanh.log_prob(inner) - jnp.sum(log_slope, axis=-1)
