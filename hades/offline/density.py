"""Density of states: a masked autoregressive flow, nearest neighbours as its reference, and weights of rare states."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hades._validation import require_finite, require_positive_fields

LogDensity: TypeAlias = Callable[[jax.Array], jax.Array]
"""`log_density(states)`: natural logarithm of the density, `[states, *observation_shape]` to `[states]`; pure."""

DensityName = Literal["flow", "knn"]

# A column counts as constant where its range is within what rounding to float32 makes of one number.
_CONSTANT_RANGE = 1e-6
_CHUNK_SIZE = 8192
_WEIGHT_PERCENTILES = (1.0, 99.0)


@dataclass(frozen=True)
class FlowSettings:
    """A masked autoregressive flow (Papamakarios et al., arXiv 1705.07057) and how it is fitted."""

    num_layers: int = 5
    """Autoregressive layers, affine, with a random order of columns between them."""
    width: int = 64
    """Hidden units of the network of each layer."""
    epochs: int = 20
    """Passes over the states at most."""
    patience: int = 5
    """Passes without a better validation likelihood after which fitting stops; the best parameters are kept."""
    batch_size: int = 256
    """States of a minibatch."""
    learning_rate: float = 0.001
    """Step size of adam."""
    validation_share: float = 0.1
    """Share of the states that are held out to tell when to stop."""
    max_states: int = 100_000
    """States that the flow is fitted to, drawn at random where there are more; densities are of all."""

    def __post_init__(self) -> None:
        """Refuses counts that are not positive and a share outside of (0, 1)."""
        require_positive_fields(self, "num_layers", "width", "epochs", "patience", "batch_size", "learning_rate")
        require_positive_fields(self, "max_states")
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share: expected a number between 0 and 1, got {self.validation_share}")


def estimate_log_density(
    key: jax.Array, observations: jax.Array, kind: DensityName = "flow", settings: FlowSettings = FlowSettings()
) -> jax.Array:
    """The estimate of log d(s) at every state of a data set, `[states]`.

    Args:
        key: For the flow; neighbours take none.
        observations: Normalised, `[states, *observation_shape]`.
        kind: Which estimate.
        settings: Of the flow.

    Raises:
        ValueError: As of `fit_flow` and `knn_log_density`.
    """
    if kind == "knn":
        return jnp.asarray(knn_log_density(np.asarray(observations)), jnp.float32)
    return jax.jit(fit_flow(key, observations, settings))(observations)


def fit_flow(key: jax.Array, observations: jax.Array, settings: FlowSettings = FlowSettings()) -> LogDensity:
    """Fits a masked autoregressive flow to states by maximum likelihood, with flowjax.

    It sees each column z-scored, and the density is given back in the units of `observations`. Columns that are
    constant have no density: they are left out, so that the density is that of the other columns.

    Args:
        key: For the states it is fitted to, the first parameters and the minibatches.
        observations: `[states, *observation_shape]`, raw or normalised.
        settings: The flow and how it is fitted.

    Returns:
        The log-density, evaluated in chunks, for `jax.jit` too.

    Raises:
        ValueError: flowjax is missing, numbers are not finite, fewer than two columns vary, there are too few states
            to hold some out, or fitting diverged.
    """
    rows = _rows("observations", observations)
    varying = _varying_columns(rows)
    if len(varying) < 2:
        raise ValueError(f"observations: expected at least 2 columns that vary for a flow, got {len(varying)}")
    rows = rows[:, varying].astype(np.float64)
    mean, std = rows.mean(axis=0).astype(np.float32), rows.std(axis=0).astype(np.float32)
    choice_key, flow_key = jax.random.split(key)
    if len(rows) > settings.max_states:
        rows = rows[np.asarray(jax.random.permutation(choice_key, len(rows))[: settings.max_states])]
    flow_log_prob = _train(flow_key, jnp.asarray((rows - mean) / std, jnp.float32), settings)
    log_scale = float(np.log(std.astype(np.float64)).sum())

    def log_density(states: jax.Array) -> jax.Array:
        flat = jnp.reshape(states, (len(states), -1))[:, varying]
        return jax.lax.map(flow_log_prob, (flat - mean) / std, batch_size=_CHUNK_SIZE) - log_scale

    return jax.jit(log_density)


def _train(key: jax.Array, states: jax.Array, settings: FlowSettings) -> LogDensity:
    """Fits a flow to z-scored states `[states, columns]` and returns its log-density."""
    try:
        import paramax
        from flowjax.distributions import Normal
        from flowjax.flows import masked_autoregressive_flow
        from flowjax.train import fit_to_data
    except ImportError:
        raise ValueError("density: flows need flowjax: pip install 'hades-distillation[flows]'") from None

    share, rate = settings.validation_share, settings.learning_rate
    if not 0 < round(share * len(states)) < len(states):
        raise ValueError(f"observations: expected enough states to hold out a share of {share}, got {len(states)}")
    init_key, fit_key = jax.random.split(key)
    untrained = masked_autoregressive_flow(
        init_key,
        base_dist=Normal(jnp.zeros(states.shape[1])),
        flow_layers=settings.num_layers,
        nn_width=settings.width,
    )
    flow, losses = fit_to_data(
        fit_key,
        untrained,
        states,
        learning_rate=rate,
        max_epochs=settings.epochs,
        max_patience=settings.patience,
        batch_size=settings.batch_size,
        val_prop=share,
        show_progress=False,
    )
    if not np.isfinite(losses["val"]).all():
        raise ValueError(f"learning_rate: expected one at which the flow does not diverge, got {rate}")
    # The parameters' constraints are resolved once, not in each evaluation.
    return paramax.unwrap(flow).log_prob


def knn_log_density(states: np.ndarray, queries: np.ndarray | None = None, k: int = 10) -> np.ndarray:
    """Log-density by the distance to the k-th nearest neighbour (Loftsgaarden and Quesenberry, 1965).

    log d(x) = log k - log n - log V - dim log r_k(x), with the volume V of the unit ball and n states; n - 1 for a
    state's own density, which it has no part in itself. Where r_k is 0, because states are given more than once, the
    ball grows to the nearest state elsewhere, and k to the number of states inside. Constant columns are left out, as
    in `fit_flow`. The reference for flows in few dimensions; on the host.

    Args:
        states: `[states, *observation_shape]`.
        queries: Where, `[queries, *observation_shape]`; None is at the states, each left out at its own place.
        k: Neighbours, fewer than there are states.

    Returns:
        `[queries]` float64.

    Raises:
        ValueError: Numbers are not finite, no column varies, or k is not between 1 and the number of states.
    """
    from scipy.spatial import cKDTree

    rows = _rows("states", states)
    points = rows if queries is None else _rows("queries", queries)
    if points.shape[1] != rows.shape[1]:
        raise ValueError(f"queries: expected {rows.shape[1]} columns as in states, got {points.shape[1]}")
    varying = _varying_columns(rows)
    dim, total = len(varying), len(rows) - (queries is None)
    if not dim:
        raise ValueError("states: expected at least one column that varies, got none")
    if not 1 <= k <= total:
        raise ValueError(f"k: expected a number of neighbours from 1 to {total}, got {k}")

    places, counts = np.unique(rows[:, varying].astype(np.float64), axis=0, return_counts=True)
    # One place more than k: the first may be the query's own.
    ranks = np.arange(1, min(k + 1, len(places)) + 1)
    distances, indices = cKDTree(places).query(points[:, varying].astype(np.float64), k=ranks)
    inside = np.cumsum(counts[indices], axis=1) - (queries is None)
    last = np.argmax((inside >= k) & (distances > 0), axis=1)[:, None]
    radius = np.take_along_axis(distances, last, axis=1)[:, 0]
    inside = np.take_along_axis(inside, last, axis=1)[:, 0]
    log_ball = 0.5 * dim * math.log(math.pi) - math.lgamma(0.5 * dim + 1)
    return np.log(inside) - math.log(total) - log_ball - dim * np.log(radius)


def density_weights(log_density: jax.Array, tau: jax.Array | float) -> jax.Array:
    """Weights of states, larger where states are rare: w = d^-tau, clipped, with mean 1.

    The weighting by the reciprocal of the density is that of SDW (arXiv 2512.06692). The exponent, the clipping of
    log-weights to their 1st to 99th percentile and the division by the mean are this project's choice.

    Args:
        log_density: `[states]`; minus infinity counts as the smallest finite one.
        tau: Exponent; 0 weighs all states alike, exactly 1.

    Returns:
        `[states]`.

    Example:
        >>> density_weights(jnp.log(jnp.array([1.0, 2.0, 4.0])), tau=0.0).tolist()
        [1.0, 1.0, 1.0]
    """
    rarest = jnp.min(jnp.where(jnp.isneginf(log_density), jnp.inf, log_density))
    log_weights = -tau * jnp.maximum(log_density, rarest)
    log_weights = jnp.clip(log_weights, *jnp.percentile(log_weights, jnp.array(_WEIGHT_PERCENTILES)))
    weights = jnp.exp(log_weights - jnp.max(log_weights))
    return weights / jnp.mean(weights)


@struct.dataclass
class AliasTable:
    """Draws indices in proportion to weights, exactly and at once (Walker, 1977; Vose, 1991).

    Attributes:
        chances: Probability of staying at an index that was drawn uniformly, `[states]`.
        aliases: Where to go otherwise, `[states]` int32.

    Example:
        >>> AliasTable.of(jnp.array([0.0, 1.0, 0.0])).draw(jax.random.key(0), 4).tolist()
        [1, 1, 1, 1]
    """

    chances: jax.Array
    aliases: jax.Array

    @classmethod
    def of(cls, weights: jax.Array) -> AliasTable:
        """The table of weights `[states]` of at least 0, one of them above; made on the host in float64."""
        scaled = np.asarray(weights, np.float64)
        scaled = scaled * (len(scaled) / scaled.sum())
        chances, aliases = np.ones(len(scaled)), np.arange(len(scaled))
        small, large = list(np.flatnonzero(scaled < 1)), list(np.flatnonzero(scaled >= 1))
        while small and large:
            index, donor = small.pop(), large[-1]
            chances[index], aliases[index] = scaled[index], donor
            scaled[donor] -= 1 - scaled[index]
            if scaled[donor] < 1:
                small.append(large.pop())
        return cls(jnp.asarray(chances, jnp.float32), jnp.asarray(aliases, jnp.int32))

    def draw(self, key: jax.Array, count: int) -> jax.Array:
        """Indices, `[count]` int32, with replacement."""
        index_key, chance_key = jax.random.split(key)
        indices = jax.random.randint(index_key, (count,), 0, len(self.chances))
        stays = jax.random.uniform(chance_key, (count,)) < self.chances[indices]
        return jnp.where(stays, indices, self.aliases[indices])


def effective_sample_size(weights: jax.Array) -> jax.Array:
    """Fraction of the states that weights `[states]` are worth, (sum w)^2 / (n sum w^2) (Kish, 1965), `[]`.

    Example:
        >>> float(effective_sample_size(jnp.array([1.0, 1.0, 0.0, 0.0])))
        0.5
    """
    return jnp.square(jnp.mean(weights)) / jnp.mean(jnp.square(weights))


def exponent_of(log_density: jax.Array, fraction: float) -> float:
    """The exponent tau at which `density_weights` are worth a fraction of the states, by bisection.

    Args:
        log_density: As of `density_weights`.
        fraction: Effective sample size that is asked for, above 0 and at most 1.

    Returns:
        tau.

    Raises:
        ValueError: No tau up to 64 makes the weights worth so little, as the largest are clipped.
    """
    low, high = 0.0, 64.0
    worth = jax.jit(lambda tau: effective_sample_size(density_weights(log_density, tau)))
    if float(worth(high)) > fraction:
        raise ValueError(f"effective_sample_size: expected at least {float(worth(high)):.3g} here, got {fraction:g}")
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if float(worth(middle)) > fraction else (low, middle)
    return low


def _rows(name: str, states: jax.Array | np.ndarray) -> np.ndarray:
    """The states as finite rows `[states, columns]`."""
    array = np.asarray(states)
    if array.ndim < 2 or array.size == 0:
        raise ValueError(f"{name}: expected shape [states, *observation_shape], got {array.shape}")
    require_finite(name, array)
    return array.reshape(len(array), -1)


def _varying_columns(rows: np.ndarray) -> np.ndarray:
    low, high = rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64)
    return np.flatnonzero(high - low > _CONSTANT_RANGE * np.maximum(np.abs(low), np.abs(high)))
