"""Behaviour cloning: the inner loop that turns a synthetic dataset into a policy.

It serves the evolution of datasets, meta-gradients through it, and the final training of a policy from a file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hades import policies
from hades._validation import require_positive
from hades.distributions import Categorical, Distribution
from hades.normalization import PolicyParams
from hades.optimizers import OptimizerName
from hades.policies import NetworkSettings, Policy, Spaces
from hades.types import PyTree

if TYPE_CHECKING:
    from hades.dataset import SyntheticDataset

CloningLoss = Literal["gaussian_nll", "mse", "sampled_mse", "cross_entropy"]


@dataclass(frozen=True)
class CloningSettings(NetworkSettings):
    """How a policy is trained on a synthetic dataset: the inner loop, and what a dataset file says of it."""

    loss: CloningLoss | None = None
    """What cloning minimises: mse is of the mode of actions, sampled_mse of samples; none is gaussian_nll for
    continuous actions, cross_entropy for discrete ones."""
    optimizer: OptimizerName = "adam"
    """Optimiser of the inner loop."""
    learning_rate: float = 0.005
    """Step size of the inner loop."""
    adam_eps: float = 1e-5
    """Epsilon in the denominator of adam and adamw."""
    momentum: float = 0.0
    """Momentum of sgd."""
    weight_decay: float = 1e-4
    """Weight decay of adamw: a step takes off so much of each weight, times the learning rate."""
    max_grad_norm: float | None = None
    """Largest global norm of a gradient; none leaves gradients as they are."""
    num_steps: int = 200
    """Optimiser steps of the inner loop."""
    batch_size: int | None = None
    """Pairs in a minibatch, drawn with replacement; none takes the full dataset at every step."""

    def __post_init__(self) -> None:
        """Refuses sizes and rates that are not positive."""
        super().__post_init__()
        require_positive("learning_rate", self.learning_rate)
        require_positive("adam_eps", self.adam_eps)
        require_positive("num_steps", self.num_steps)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: expected a number in [0, 1), got {self.momentum}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay: expected a number of at least 0, got {self.weight_decay}")
        for name in ("max_grad_norm", "batch_size"):
            if getattr(self, name) is not None:
                require_positive(name, getattr(self, name))


LossFunction: TypeAlias = Callable[[Distribution, "SyntheticDataset"], jax.Array]
"""`loss(distribution, dataset)`: one scalar, of the policy's distribution at the dataset's observations."""


def gaussian_nll(distribution: Distribution, dataset: SyntheticDataset) -> jax.Array:
    """Mean negative log-likelihood of the target actions, `[]`."""
    return -jnp.mean(distribution.log_prob(cast(jax.Array, dataset.actions)))


def mse(distribution: Distribution, dataset: SyntheticDataset) -> jax.Array:
    """Mean over pairs of the squared distance between the policy's mode (a Gaussian's mean) and the target, `[]`."""
    return jnp.mean(jnp.sum(jnp.square(distribution.mode() - cast(jax.Array, dataset.actions)), axis=-1))


def cross_entropy(distribution: Distribution, dataset: SyntheticDataset) -> jax.Array:
    """Mean cross-entropy between target and predicted action probabilities, `[]`."""
    log_probs = cast(Categorical, distribution).log_probs()
    return -jnp.mean(jnp.sum(cast(jax.Array, dataset.action_probabilities) * log_probs, axis=-1))


@dataclass(frozen=True)
class SampledLoss:
    """A loss that draws random numbers, anew at every step of the inner loop.

    Attributes:
        function: `function(key, distribution, dataset)`: one scalar.
    """

    function: Callable[[jax.Array, Distribution, SyntheticDataset], jax.Array]


def _sampled_mse(key: jax.Array, distribution: Distribution, dataset: SyntheticDataset) -> jax.Array:
    """Mean over pairs and components of the squared error of one sampled action (released code of arXiv 2410.22728)."""
    return jnp.mean(jnp.square(distribution.sample(key) - cast(jax.Array, dataset.actions)))


LOSSES: dict[CloningLoss, LossFunction | SampledLoss] = {
    "gaussian_nll": gaussian_nll,
    "mse": mse,
    "sampled_mse": SampledLoss(_sampled_mse),
    "cross_entropy": cross_entropy,
}

_Carry: TypeAlias = tuple[PyTree, optax.OptState]
_Carried: TypeAlias = tuple[_Carry, None]

# Apart from the indices of steps, which minibatches fold into the same key.
_WINDOW_STREAM, _SAMPLE_STREAM = np.uint32(2**32 - 1), np.uint32(2**32 - 2)

# Far below what changes an update, but where a gradient is zero the derivative of Adam's square root stays finite:
# without it, meta-gradients are NaN as soon as one parameter, such as the log-std under mse, has no gradient.
_ADAM_EPS_ROOT = 1e-30


@dataclass(frozen=True)
class BehaviourCloning:
    """Trains policies on synthetic datasets, as a pure function that `jit`, `vmap` and `grad` take.

    Made by `behaviour_cloning`, which documents the attributes.
    """

    policy: Policy
    optimizer: optax.GradientTransformation
    num_steps: int
    loss: LossFunction | SampledLoss | None = None
    batch_size: int | None = None
    rematerialize: bool = False

    def __call__(self, key: jax.Array, dataset: SyntheticDataset) -> PolicyParams:
        """Draws fresh parameters and trains them.

        Args:
            key: The same key gives the same initialisation, which is how HaDES-F fixes it.
            dataset: `num_pairs` state-action pairs.

        Returns:
            The trained parameters with the normalisation of the dataset.
        """
        init_key, batch_key = jax.random.split(key)
        params = self.fit(batch_key, self.policy.init(init_key), dataset)
        return PolicyParams(params, dataset.normalizer())

    def fit(self, key: jax.Array, params: PyTree, dataset: SyntheticDataset) -> PyTree:
        """Trains given parameters.

        Args:
            key: For minibatches and sampled losses; without effect where there is neither.
            params: What `policy.init` returned.
            dataset: `num_pairs` state-action pairs.

        Returns:
            The parameters after `num_steps` steps, and nothing else: the optimiser's state stays inside.
        """
        return self._scan(key, (params, self.optimizer.init(params)), dataset, jnp.arange(self.num_steps))

    def fit_window(self, key: jax.Array, params: PyTree, dataset: SyntheticDataset, window: int) -> PyTree:
        """Trains to a random step, and lets gradients flow through the last `window` steps before it alone.

        Random truncated backpropagation through time (RaT-BPTT, Feng et al. 2023, arXiv 2310.02012): the last step is
        drawn uniformly from `window` to `num_steps`.

        Args:
            key: Draws the last step, and minibatches as in `fit`.
            params: What `policy.init` returned.
            dataset: `num_pairs` state-action pairs.
            window: Steps that are differentiated, at most `num_steps`.

        Returns:
            The parameters after that step.

        Raises:
            ValueError: `window` is below 1 or above `num_steps`.
        """
        if not 1 <= window <= self.num_steps:
            raise ValueError(f"window: expected a number from 1 to {self.num_steps}, the inner steps, got {window}")
        first = jax.random.randint(jax.random.fold_in(key, _WINDOW_STREAM), (), 0, self.num_steps - window + 1)
        before = self._make_step(key, jax.lax.stop_gradient(dataset))
        carry = params, self.optimizer.init(params)
        carry = jax.lax.fori_loop(0, first, lambda index, carry: before(carry, index)[0], jax.lax.stop_gradient(carry))
        return self._scan(key, carry, dataset, first + jnp.arange(window))

    def _scan(self, key: jax.Array, carry: _Carry, dataset: SyntheticDataset, indices: jax.Array) -> PyTree:
        """The parameters after the steps of these indices, from a carry on."""
        step = self._make_step(key, dataset)
        body = jax.checkpoint(step, prevent_cse=False) if self.rematerialize else step
        (params, _), _ = jax.lax.scan(body, carry, indices)
        return params

    def _make_step(self, key: jax.Array, dataset: SyntheticDataset) -> Callable[[_Carry, jax.Array], _Carried]:
        loss_function = self.loss or default_loss(dataset)
        pairs = dataset.pairs()

        def loss(params: PyTree, batch: SyntheticDataset, index: jax.Array) -> jax.Array:
            distribution = self.policy.apply(params, batch.observations)
            if not isinstance(loss_function, SampledLoss):
                return loss_function(distribution, batch)
            sample_key = jax.random.fold_in(jax.random.fold_in(key, _SAMPLE_STREAM), index)
            return loss_function.function(sample_key, distribution, batch)

        def step(carry: _Carry, index: jax.Array) -> _Carried:
            params, optimizer_state = carry
            gradient = jax.grad(loss)(params, self._batch(key, index, pairs), index)
            updates, optimizer_state = self.optimizer.update(gradient, optimizer_state, params)
            return (optax.apply_updates(params, updates), optimizer_state), None

        return step

    def _batch(self, key: jax.Array, index: jax.Array, pairs: SyntheticDataset) -> SyntheticDataset:
        if self.batch_size is None:
            return pairs
        rows = jax.random.randint(jax.random.fold_in(key, index), (self.batch_size,), 0, pairs.num_pairs)
        return jax.tree.map(lambda leaf: leaf[rows], pairs)


def behaviour_cloning(
    policy: Policy,
    optimizer: optax.GradientTransformation | None = None,
    num_steps: int = 200,
    loss: CloningLoss | LossFunction | SampledLoss | None = None,
    batch_size: int | None = None,
    rematerialize: bool = False,
) -> BehaviourCloning:
    """Makes the inner loop A_T of behaviour distillation (Behaviour Distillation, arXiv 2406.15042, section 4).

    Args:
        policy: Any architecture.
        optimizer: Any optax optimiser; Adam with learning rate 5e-3 and epsilon 1e-5 if not given.
        num_steps: Optimiser steps T.
        loss: A name, a function, or a `SampledLoss`; cross-entropy for datasets with action probabilities and Gaussian
            negative log-likelihood for the others if not given.
        batch_size: Pairs in a minibatch, drawn with replacement; the full dataset if not given.
        rematerialize: Whether reverse-mode differentiation recomputes each step instead of storing it: memory for
            one step instead of `num_steps` (plus the parameters at each), for about a third more time.

    Returns:
        A callable `(key, dataset) -> PolicyParams`.

    Example:
        >>> import envs, jax, jax.numpy as jnp
        >>> env = envs.make("diagnostic/target", action_dim=1)
        >>> clone = behaviour_cloning(policies.mlp(env, hidden_sizes=(8,)), num_steps=100)
        >>> pairs = SyntheticDataset(jnp.array([[-1.0], [1.0]]), actions=jnp.array([[0.5], [-0.5]]))
        >>> params = jax.jit(clone)(jax.random.key(0), pairs)
    """
    if num_steps < 1:
        raise ValueError(f"num_steps: expected at least 1, got {num_steps}")
    if isinstance(loss, str) and loss not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {loss!r}")
    return BehaviourCloning(
        policy,
        optax.adam(5e-3, eps=1e-5, eps_root=_ADAM_EPS_ROOT) if optimizer is None else optimizer,
        num_steps,
        LOSSES[loss] if isinstance(loss, str) else loss,
        batch_size,
        rematerialize,
    )


def from_settings(env: Spaces, settings: CloningSettings, rematerialize: bool = False) -> BehaviourCloning:
    """The inner loop that `settings` describes, for the spaces of `env`."""
    return behaviour_cloning(
        policies.from_settings(env, settings),
        make_optimizer(settings),
        settings.num_steps,
        settings.loss,
        settings.batch_size,
        rematerialize,
    )


def make_optimizer(settings: CloningSettings) -> optax.GradientTransformation:
    """The optax optimiser that `settings` describes, with gradient clipping in front where it is asked for."""
    if settings.optimizer == "sgd":
        optimizer = optax.sgd(settings.learning_rate, momentum=settings.momentum or None)
    else:
        adamw = partial(optax.adamw, weight_decay=settings.weight_decay)
        build = {"adam": optax.adam, "adamw": adamw}[settings.optimizer]
        optimizer = build(settings.learning_rate, eps=settings.adam_eps, eps_root=_ADAM_EPS_ROOT)
    return clip_gradients(optimizer, settings.max_grad_norm)


def clip_gradients(optimizer: optax.GradientTransformation, max_norm: float | None) -> optax.GradientTransformation:
    """The optimiser behind clipping of the gradient's global norm; None leaves gradients as they are."""
    return optimizer if max_norm is None else optax.chain(optax.clip_by_global_norm(max_norm), optimizer)


def default_loss(dataset: SyntheticDataset) -> LossFunction:
    """The loss that fits the kind of targets that a dataset has."""
    return gaussian_nll if dataset.action_probabilities is None else cross_entropy
