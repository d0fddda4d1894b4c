"""Behaviour cloning: the inner loop that turns a synthetic dataset into a policy.

It serves the evolution of datasets, meta-gradients through it, and the final training of a policy from a file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import jax
import jax.numpy as jnp
import optax

from hades import policies
from hades._validation import (
    require_at_least_one,
    require_below_one,
    require_not_negative_fields,
    require_positive_fields,
)
from hades.distributions import Categorical, Distribution
from hades.keys import Stream, stream
from hades.normalization import PolicyParams
from hades.optimizers import OptimizerName, make_optimizer
from hades.policies import NetworkSettings, Policy, Spaces
from hades.types import PyTree

if TYPE_CHECKING:
    from hades.dataset import SyntheticDataset

CloningLoss = Literal["gaussian_nll", "mse", "sampled_mse", "cross_entropy"]
StepSizes = Literal["fixed", "learned"]


@dataclass(frozen=True)
class CloningSettings(NetworkSettings):
    """Inner loop: architecture, loss and optimiser of behaviour cloning, as a dataset file records them."""

    loss: CloningLoss | None = None
    """Loss of cloning: mse is of the mode of actions, sampled_mse of samples; default: cross_entropy for discrete
    actions; for continuous ones gaussian_nll, or mse in offline distillation and by policy gradients."""
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
    """Largest global norm of a gradient; default: no clipping."""
    num_steps: int = 200
    """Optimiser steps of the inner loop."""
    batch_size: int | None = None
    """Pairs in a minibatch, drawn with replacement; default: the full dataset at every step."""
    step_sizes: StepSizes = "fixed"
    """Step sizes of the inner loop: fixed, or learned ones of the dataset, one for each step, that multiply the
    learning rate."""

    def __post_init__(self) -> None:
        """Refuses sizes and rates that are not positive."""
        super().__post_init__()
        require_positive_fields(self, "learning_rate", "adam_eps", "num_steps", "max_grad_norm", "batch_size")
        require_below_one("momentum", self.momentum)
        require_not_negative_fields(self, "weight_decay")

    @property
    def with_fixed_steps(self) -> CloningSettings:
        """The same architecture and loss, with the default optimiser where step sizes are learned."""
        if self.step_sizes == "fixed":
            return self
        return CloningSettings(**vars(self.network_settings), loss=self.loss)


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


@dataclass(frozen=True)
class BehaviourCloning:
    """Trains policies on synthetic datasets, as a pure function that `jit`, `vmap` and `grad` take: an inner loop.

    Made by `behaviour_cloning`, which documents the attributes, or by `from_settings`, which fills in `settings`.
    """

    policy: Policy
    optimizer: optax.GradientTransformation
    num_steps: int
    loss: LossFunction | SampledLoss | None = None
    batch_size: int | None = None
    rematerialize: bool = False
    window: int | None = None
    learned_step_sizes: bool = False
    step_size_spread: float = 1.0
    settings: CloningSettings | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Refuses sizes that are not positive, a window that is longer than the steps, and a spread below 1."""
        if self.num_steps < 1:
            raise ValueError(f"num_steps: expected at least 1, got {self.num_steps}")
        require_positive_fields(self, "batch_size")
        if self.window is not None and not 1 <= self.window <= self.num_steps:
            raise ValueError(
                f"window: expected a number from 1 to {self.num_steps}, the inner steps, got {self.window}"
            )
        require_at_least_one("step_size_spread", self.step_size_spread)

    def __call__(self, key: jax.Array, dataset: SyntheticDataset) -> PolicyParams:
        """Draws fresh parameters and trains them.

        Args:
            key: The same key gives the same initialisation, which is how HaDES-F fixes it.
            dataset: `num_pairs` state-action pairs.

        Returns:
            The trained parameters with the normalisation of the dataset.
        """
        init_key, fit_key = jax.random.split(key)
        return PolicyParams(self.fit(fit_key, self.init(init_key), dataset), dataset.normalizer())

    def init(self, key: jax.Array) -> PyTree:
        """Draws theta_0 from the policy's initialiser."""
        return self.policy.init(key)

    def fit(self, key: jax.Array, params: PyTree, dataset: SyntheticDataset) -> PyTree:
        """Trains given parameters.

        With a window, training stops at a random step, and gradients flow through the last `window` steps before it
        alone: random truncated backpropagation through time (RaT-BPTT, Feng et al. 2023, arXiv 2310.02012). The last
        step is drawn uniformly from `window` to `num_steps`.

        Args:
            key: For minibatches, sampled losses, windows and the spread of step sizes; without effect where there is
                none of them.
            params: What `init` returned.
            dataset: `num_pairs` state-action pairs. Its log standard deviation, where it has one, takes the place of
                that of `params`.

        Returns:
            The parameters after the last step, and nothing else: the optimiser's state stays inside.

        Raises:
            ValueError: Step sizes are learned, and the dataset has none, or another number than there are steps.
        """
        params = with_log_std(params, dataset)
        found = None if dataset.step_sizes is None else dataset.step_sizes.shape
        if self.learned_step_sizes and found != (self.num_steps,):
            raise ValueError(f"step_sizes: expected {self.num_steps}, one for each inner step, got shape {found}")
        carry = params, self.optimizer.init(params)
        if self.window is None:
            return self._scan(key, carry, dataset, jnp.arange(self.num_steps))
        first = jax.random.randint(stream(key, Stream.WINDOW), (), 0, self.num_steps - self.window + 1)
        before = self._make_step(key, jax.lax.stop_gradient(dataset))
        params, optimizer = jax.lax.fori_loop(
            0, first, lambda index, carry: before(carry, index)[0], jax.lax.stop_gradient(carry)
        )
        if dataset.log_std is not None:
            # Its value stays; its gradient does not end with the window, as it is no outcome of the steps before.
            straight = dataset.log_std - jax.lax.stop_gradient(dataset.log_std)
            params = {**params, "log_std": params["log_std"] + straight}
        carry = params, optimizer
        return self._scan(key, carry, dataset, first + jnp.arange(self.window))

    def loss_of_step(
        self, key: jax.Array, params: PyTree, batch: SyntheticDataset, index: jax.Array | int
    ) -> jax.Array:
        """Loss `[]` of the pairs that step `index` of a training under `key` takes."""
        loss_function = self.loss or default_loss(batch)
        distribution = self.policy.apply(params, batch.observations)
        if not isinstance(loss_function, SampledLoss):
            return loss_function(distribution, batch)
        return loss_function.function(stream(key, Stream.SAMPLED_LOSS, index), distribution, batch)

    def _scan(self, key: jax.Array, carry: _Carry, dataset: SyntheticDataset, indices: jax.Array) -> PyTree:
        """Parameters after the steps of these indices, from a carry on."""
        step = self._make_step(key, dataset)
        body = jax.checkpoint(step, prevent_cse=False) if self.rematerialize else step
        (params, _), _ = jax.lax.scan(body, carry, indices)
        return params

    def _make_step(self, key: jax.Array, dataset: SyntheticDataset) -> Callable[[_Carry, jax.Array], _Carried]:
        pairs = dataset.pairs()
        factor = self._step_size_factor(key)

        def step(carry: _Carry, index: jax.Array) -> _Carried:
            params, optimizer_state = carry
            gradient = jax.grad(self.loss_of_step, argnums=1)(key, params, self._batch(key, index, pairs), index)
            updates, optimizer_state = self.optimizer.update(gradient, optimizer_state, params)
            size = factor
            if self.learned_step_sizes:
                size = size * cast(jax.Array, dataset.step_sizes)[index]
            updates = jax.tree.map(lambda leaf: size * leaf, updates)
            return (optax.apply_updates(params, updates), optimizer_state), None

        return step

    def _step_size_factor(self, key: jax.Array) -> jax.Array | float:
        """Factor of all steps of one training, log-uniform up to the spread either way."""
        if self.step_size_spread == 1:
            return 1.0
        largest = math.log(self.step_size_spread)
        return jnp.exp(jax.random.uniform(stream(key, Stream.STEP_SIZE), minval=-largest, maxval=largest))

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
    window: int | None = None,
    learned_step_sizes: bool = False,
    step_size_spread: float = 1.0,
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
        window: Steps that gradients flow through, before a random last one (RaT-BPTT); all of them if None.
        learned_step_sizes: Whether the update of each step is multiplied by a step size of the dataset.
        step_size_spread: Largest factor, either way, that a training multiplies all of its steps by, drawn
            log-uniformly from its key: pairs that are to serve several step sizes; 1 draws none.

    Returns:
        A callable `(key, dataset) -> PolicyParams`, and an inner loop with `init` and `fit`.

    Raises:
        ValueError: A number is out of range, or there is no loss of that name.

    Example:
        >>> import envs, jax, jax.numpy as jnp
        >>> from hades.dataset import SyntheticDataset
        >>> env = envs.make("diagnostic/target", action_dim=1)
        >>> clone = behaviour_cloning(policies.mlp(env, hidden_sizes=(8,)), num_steps=100)
        >>> pairs = SyntheticDataset(jnp.array([[-1.0], [1.0]]), actions=jnp.array([[0.5], [-0.5]]))
        >>> params = jax.jit(clone)(jax.random.key(0), pairs)
    """
    if isinstance(loss, str) and loss not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {loss!r}")
    if optimizer is None:
        optimizer = make_optimizer("adam", 5e-3, adam_eps=1e-5, differentiable=True)
    loss = LOSSES[loss] if isinstance(loss, str) else loss
    return BehaviourCloning(
        policy, optimizer, num_steps, loss, batch_size, rematerialize, window, learned_step_sizes, step_size_spread
    )


def from_settings(
    env: Spaces, settings: CloningSettings, rematerialize: bool = False, window: int | None = None
) -> BehaviourCloning:
    """Makes the inner loop that settings describe, for the spaces of `env`; equal arguments give equal inner loops."""
    optimizer = make_optimizer(
        settings.optimizer,
        settings.learning_rate,
        momentum=settings.momentum,
        adam_eps=settings.adam_eps,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        differentiable=True,
    )
    policy = policies.from_settings(env, settings)
    learned = settings.step_sizes == "learned"
    clone = behaviour_cloning(
        policy, optimizer, settings.num_steps, settings.loss, settings.batch_size, rematerialize, window, learned
    )
    return replace(clone, settings=settings)


def with_log_std(params: PyTree, dataset: SyntheticDataset) -> PyTree:
    """Parameters with the log standard deviation of a dataset, where it has one, in place of their own."""
    return params if dataset.log_std is None else {**params, "log_std": dataset.log_std}


def default_loss(dataset: SyntheticDataset) -> LossFunction:
    """Loss for the kind of targets that a dataset has."""
    return gaussian_nll if dataset.action_probabilities is None else cross_entropy
