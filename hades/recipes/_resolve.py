"""Checks and defaults that recipes share."""

from __future__ import annotations

from dataclasses import replace

from hades.inner.cloning import BehaviourCloning, CloningLoss, CloningSettings
from hades.outer import Averaged, MetaGradientSettings
from hades.parametrizations import LearnedSteps
from hades.types import AnyEnvironment, Discrete, InnerLoop, OuterLoop, Parametrization


def resolve_loss(env: AnyEnvironment, cloning: CloningSettings, of_continuous: CloningLoss) -> CloningSettings:
    """Cloning settings with the loss filled in, that of continuous actions being `of_continuous`.

    Raises:
        ValueError: The loss does not suit the action space.
    """
    discrete = isinstance(env.action_space, Discrete)
    loss = cloning.loss or ("cross_entropy" if discrete else of_continuous)
    if (loss == "cross_entropy") != discrete:
        kind = "discrete: cross_entropy" if discrete else "continuous: gaussian_nll, mse or sampled_mse"
        raise ValueError(f"loss: actions of {env.name} are {kind} expected, got {loss}")
    return replace(cloning, loss=loss)


def require_window_within(ascent: MetaGradientSettings, cloning: CloningSettings) -> None:
    """Raises `ValueError` unless gradients go through no more steps than the inner loop has."""
    if ascent.window is not None and ascent.window > cloning.num_steps:
        raise ValueError(f"window: expected at most {cloning.num_steps}, the inner steps, got {ascent.window}")


def with_learned_steps(pairs: Parametrization, inner: InnerLoop) -> Parametrization:
    """Pairs whose solutions also hold the step sizes, where the inner loop learns them."""
    if not isinstance(inner, BehaviourCloning) or not inner.learned_step_sizes:
        return pairs
    # They multiply the learning rate, which is therefore the first step size.
    return LearnedSteps(pairs, inner.num_steps, first=1.0)


def averaged(outer: OuterLoop, decay: float | None) -> OuterLoop:
    """The outer loop, its outcome a moving average where a decay is given."""
    return outer if decay is None else Averaged(outer, decay)


def resolve_init_seed(method: str, fixed: bool, init_seed: int | None, num_inits: int) -> int | None:
    """Seed of the one initialisation of a method that keeps it, 0 if none is given; None for the others.

    Raises:
        ValueError: A method of fresh initialisations has a seed, or one of a fixed one has several initialisations.
    """
    if not fixed:
        if init_seed is not None:
            raise ValueError(f"init_seed: {method} draws fresh initialisations, expected none, got {init_seed}")
        return None
    if num_inits != 1:
        raise ValueError(f"num_inits: {method} has one initialisation, expected 1, got {num_inits}")
    return 0 if init_seed is None else init_seed
