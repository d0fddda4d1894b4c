"""Presets of `hades distill --method hades-pg`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

from experiments.environments import EnvironmentOptions
from experiments.presets._preset import CONTACT, CONTACT_GAMMA, CONTACT_LOG_STD, CONTACT_LOOP, MINATAR, Preset
from hades.inner.cloning import CloningSettings
from hades.outer.meta_gradient import MetaGradientSettings
from hades.policies import KernelInit
from hades.recipes.policy_gradient import HadesPGSettings
from hades.training import LoopSettings

_LOOP = LoopSettings(iterations_per_call=10, evaluate_every=20, evaluation_inits=16, evaluation_episodes=8)
_GAMES = HadesPGSettings().cloning
_CONVOLUTION: dict[str, Any] = {
    "cloning": dataclasses.replace(_GAMES, policy="cnn", hidden_sizes=(128,)),
    # Less of it leaves a policy sure of its actions before it has learned to go on.
    "entropy_coefficient": 0.05,
}
_INNER = dataclasses.replace(_GAMES, hidden_sizes=(64, 64))


def _outer(learning_rate: float, max_kl: float, iterations: int, **changes: Any) -> MetaGradientSettings:
    return MetaGradientSettings(
        learning_rate=learning_rate,
        max_grad_norm=1.0,
        max_kl=max_kl,
        anneal_iterations=iterations,
        rematerialize=False,
        **changes,
    )


def _minatar(game: str) -> Preset:
    settings = HadesPGSettings(
        min_std=0.1,
        entropy_coefficient=0.003,
        first_step_size=0.7,
        step_size_bound=50.0,
        cloning=_GAMES,
        meta_gradient=_outer(0.03, 0.03, 245),
    )
    if game == "Asterix":
        # Its advantages are mostly noise: more steps for smaller updates.
        settings = dataclasses.replace(
            settings, num_envs=128, num_minibatches=4, meta_gradient=_outer(0.01, 0.03, 122), **_CONVOLUTION
        )
    iterations = settings.meta_gradient.anneal_iterations or 0
    return Preset(env=f"gymnax/{game}-MinAtar", num_iterations=iterations, settings=settings, loop=_LOOP)


def _breakout_cnn() -> Preset:
    """A convolution over more steps: seven times the minutes, for what a multilayer perceptron does not reach."""
    own = dataclasses.replace(_minatar("Breakout"), num_iterations=400)
    return own.with_settings(meta_gradient=_outer(0.03, 0.03, 400), **_CONVOLUTION)


def _general_minatar(game: str) -> Preset:
    """Pairs for other architectures and optimisers: training as most do it, with either activation."""
    cloning = CloningSettings(hidden_sizes=(128, 128), activation="tanh_or_relu", learning_rate=0.01, num_steps=40)
    return _minatar(game).with_settings(action_selection="mode", entropy_coefficient=0.005, cloning=cloning)


def _general_cartpole() -> Preset:
    """Eight pairs for other architectures, initialisers, optimisers and step sizes; two do not hold for as many."""
    return _classic(
        "gymnax/CartPole-v1",
        8,
        600,
        num_inits=16,
        num_steps=64,
        kernel_inits=get_args(KernelInit),
        step_size_spread=10.0,
        cloning=CloningSettings(hidden_sizes=(64, 64), activation="tanh_or_relu", learning_rate=0.01, num_steps=64),
        # What each initialisation draws is noise, by which most updates would leave the limit, and some explode.
        meta_gradient=_outer(0.01, 0.1, 600, trust_region=True, max_init_grad_norm=1.0),
    )


def _classic(env: str, dataset_size: int, iterations: int, **changes: Any) -> Preset:
    settings = HadesPGSettings(
        dataset_size=dataset_size,
        num_inits=8,
        num_envs=32,
        num_epochs=8,
        action_selection="mode",
        first_step_size=0.7,
        cloning=_INNER,
        meta_gradient=_outer(0.03, 0.1, iterations),
    )
    return Preset(env=env, num_iterations=iterations, settings=dataclasses.replace(settings, **changes), loop=_LOOP)


def _brax(
    env: str, dataset_size: int, iterations: int, backend: str = "positional", evaluate_every: int = 20
) -> Preset:
    settings = HadesPGSettings(
        dataset_size=dataset_size,
        action_selection="mode",
        label_scale=0.5,
        first_step_size=0.3,
        step_size_bound=50.0,
        normalize_rewards=True,
        entropy_coefficient=0.0,
        num_epochs=6,
        num_minibatches=4,
        cloning=_INNER,
        meta_gradient=_outer(0.01, 0.03, iterations),
    )
    options = EnvironmentOptions(backend=backend)
    loop = dataclasses.replace(_LOOP, evaluate_every=evaluate_every)
    return Preset(env=env, options=options, num_iterations=iterations, settings=settings, loop=loop)


def _hopper() -> Preset:
    """Noise of actions that stays, and a critic that keeps up with small iterations: others end in a shuffle."""
    return _brax("brax/hopper", 64, 800, evaluate_every=40).with_settings(
        first_step_size=None,
        entropy_coefficient=0.005,
        critic_epochs=10,
        critic_minibatches=8,
        cloning=dataclasses.replace(_INNER, hidden_sizes=(256,)),
        meta_gradient=_outer(0.02, 0.03, 800),
    )


def _hopper_of_four() -> Preset:
    """The four pairs of the published file: longer, and in a trust region, as the inner loop may explode for good."""
    longer = dataclasses.replace(_hopper(), num_iterations=1600)
    return longer.with_settings(dataset_size=4, meta_gradient=_outer(0.02, 0.03, 1600, trust_region=True))


def _walker2d() -> Preset:
    """A longer horizon, and policies that act alike."""
    return _brax("brax/walker2d", 64, 500).with_settings(
        num_inits=8,
        num_envs=128,
        entropy_coefficient=0.005,
        # Discounted by 0.99, to rush and fall is worth as much as to walk.
        gamma=0.995,
        # Of one wide layer fresh policies act alike, as they have to for a gait; it takes smaller steps.
        cloning=dataclasses.replace(_INNER, hidden_sizes=(512,)),
        first_step_size=0.1,
        label_scale=1.5,
        meta_gradient=_outer(0.05, 0.03, 500, trust_region=True),
    )


def _contact(name: str, iterations: int, **changes: Any) -> Preset:
    env, options = CONTACT[name]
    body = _brax(env, 64, iterations).settings
    own = {"gamma": CONTACT_GAMMA.get(name, body.gamma), "first_log_std": CONTACT_LOG_STD.get(name, body.first_log_std)}
    settings = dataclasses.replace(body, **(own | changes))
    return Preset(env=env, options=options, num_iterations=iterations, settings=settings, loop=CONTACT_LOOP)


def _panda_pick_cube() -> Preset:
    """Twenty million steps on a GPU: environments, steps and discount of Playground's PPO; untried at full size."""
    contact = _contact("finger-spin", 122, num_envs=2048, num_steps=80, num_minibatches=8, num_inits=8, gamma=0.97)
    return dataclasses.replace(contact, env="playground/PandaPickCube")


_PENDULUM = {
    "gamma": 0.95,
    "normalize_rewards": True,
    "entropy_coefficient": 0.0,
    "num_inits": 4,
    "first_log_std": 0.5,
    "label_scale": 0.5,
    # A few learned steps of SGD stand at -300.
    "cloning": CloningSettings(hidden_sizes=(64, 64), learning_rate=0.02, num_steps=32),
}

PRESETS: dict[str, Callable[[], Preset]] = {
    "cartpole": partial(_classic, "gymnax/CartPole-v1", 2, 120, num_envs=16, num_steps=64),
    "cartpole-general": _general_cartpole,
    "acrobot": partial(_classic, "gymnax/Acrobot-v1", 3, 100, num_envs=16, num_steps=64),
    "pendulum": partial(_classic, "gymnax/Pendulum-v1", 16, 366, **_PENDULUM),
    "mountaincar": partial(_classic, "gymnax/MountainCarContinuous-v0", 4, 40, normalize_rewards=True),
    **{game.lower(): partial(_minatar, game) for game in MINATAR},
    "breakout-cnn": _breakout_cnn,
    **{f"{game.lower()}-general": partial(_general_minatar, game) for game in MINATAR},
    "inverted-pendulum": partial(_brax, "brax/inverted_pendulum", 4, 100, "spring"),
    "hopper": _hopper,
    "hopper-4": _hopper_of_four,
    "walker2d": _walker2d,
    # Evaluated more often, it would play as many steps as it trains on.
    "halfcheetah": partial(_brax, "brax/halfcheetah", 64, 500, evaluate_every=50),
    "reacher": partial(_brax, "brax/reacher", 64, 250),
    "finger-spin": partial(_contact, "finger-spin", 60),
    "ball-in-cup": partial(_contact, "ball-in-cup", 12, label_scale=1.0),
    "pusher": partial(_contact, "pusher", 60),
    "panda-pick-cube": _panda_pick_cube,
}
"""Presets by name: sizes for a CPU. Those that end in -general distil pairs for other inner loops than their own."""
