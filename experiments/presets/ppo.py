"""Presets of `hades baseline ppo`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

from experiments.presets import distill
from experiments.presets._preset import (
    CONTACT,
    CONTACT_GAMMA,
    CONTACT_LOG_STD,
    CONTACT_LOOP,
    MINATAR,
    SMALL_LOOP,
    Preset,
)
from hades.policies import NetworkSettings
from hades.recipes.published import ppo_brax, ppo_cartpole, ppo_minatar
from hades.rl.settings import PPOSettings


def _counterpart(name: str) -> Preset:
    """PPO in the environment of a small preset of HaDES, with the network that it clones."""
    of_hades = distill.PRESETS[name]()
    settings = ppo_cartpole(network=of_hades.settings.cloning.network_settings)
    if name not in ("cartpole", "acrobot"):
        # Continuous actions: running statistics, as in the settings for Brax; sizes for a CPU.
        settings = dataclasses.replace(
            settings,
            network=dataclasses.replace(
                settings.network, initial_log_std=CONTACT_LOG_STD.get(name, settings.network.initial_log_std)
            ),
            num_envs=64,
            entropy_coefficient=0.0,
            observation_normalization="running",
            normalize_rewards=True,
            learning_rate=1e-3,
            gamma=CONTACT_GAMMA.get(name, settings.gamma),
        )
    loop = CONTACT_LOOP if name in CONTACT else SMALL_LOOP
    return Preset(env=of_hades.env, options=of_hades.options, num_iterations=100, settings=settings, loop=loop)


def _panda_pick_cube() -> Preset:
    """Twenty million steps on a GPU, by Playground's `brax_ppo_config`; here the critic has the policy's layers."""
    settings = PPOSettings(
        network=NetworkSettings(hidden_sizes=(32, 32, 32, 32), activation="silu"),
        num_envs=2048,
        num_steps=80,
        num_epochs=8,
        num_minibatches=32,
        gamma=0.97,
        learning_rate=1e-3,
        entropy_coefficient=0.02,
        max_grad_norm=None,
        observation_normalization="running",
    )
    return Preset(env="playground/PandaPickCube", num_iterations=122, settings=settings, loop=CONTACT_LOOP)


def _minatar(game: str) -> Preset:
    """Ten million steps."""
    return Preset(env=f"gymnax/{game}-MinAtar", num_iterations=1220, settings=ppo_minatar(), loop=SMALL_LOOP)


def _halfcheetah() -> Preset:
    return Preset(env="brax/halfcheetah", num_iterations=2441, settings=ppo_brax(), loop=SMALL_LOOP)


PRESETS: dict[str, Callable[[], Preset]] = {
    **{name: partial(_counterpart, name) for name in distill.SMALL},
    **{game.lower(): partial(_minatar, game) for game in MINATAR},
    "halfcheetah": _halfcheetah,
    "panda-pick-cube": _panda_pick_cube,
}
"""Presets by name."""
