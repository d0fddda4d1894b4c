"""Presets of `hades distill`: HaDES-R and HaDES-F."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

from experiments.environments import EnvironmentOptions
from experiments.presets._preset import (
    CONTACT,
    CONTACT_LOOP,
    MINATAR,
    PAPER_BRAX,
    PAPER_LOOP,
    SMALL_LOOP,
    Preset,
)
from hades.inner.cloning import CloningSettings
from hades.outer.evolution import EvolutionSettings
from hades.recipes.hades import HadesSettings
from hades.recipes.published import paper_brax, paper_minatar
from hades.training import LoopSettings


def _cartpole() -> Preset:
    settings = HadesSettings(
        dataset_size=2,
        population_size=64,
        num_episodes=2,
        learn_labels=False,
        # Two pairs fix a direction. Sampled actions would also need its length, which other architectures learn
        # differently.
        action_selection="mode",
        cloning=CloningSettings(hidden_sizes=(64, 64), learning_rate=0.01, num_steps=64),
        evolution=EvolutionSettings(sigma=0.3, learning_rate=0.1, fitness_shaping="centered_rank"),
    )
    return Preset(env="gymnax/CartPole-v1", num_iterations=100, settings=settings, loop=SMALL_LOOP)


def _small(env: str, dataset_size: int, sigma: float, num_iterations: int) -> Preset:
    cartpole = _cartpole()
    return dataclasses.replace(cartpole, env=env, num_iterations=num_iterations).with_settings(
        dataset_size=dataset_size,
        learn_labels=True,
        action_selection="sample",
        evolution=dataclasses.replace(cartpole.settings.evolution, sigma=sigma),
    )


def _pendulum() -> Preset:
    small = _small("gymnax/Pendulum-v1", 16, 0.3, 300)
    # After so few cloning steps a sampled action is off by half a unit of torque: the pendulum would shake at the top.
    return small.with_settings(population_size=128, num_inits=2, action_selection="mode")


def _minatar(game: str) -> Preset:
    """Sizes for a CPU; the published ones stand under paper/."""
    settings = HadesSettings(
        dataset_size=16,
        population_size=64,
        num_inits=2,
        num_episodes=4,
        learn_labels=False,
        # Breakout takes two thirds of the CPU time.
        cpu_chunk_size=4,
        min_std=0.1,
        cloning=CloningSettings(hidden_sizes=(64, 64), activation="relu", learning_rate=0.01, num_steps=64),
        evolution=EvolutionSettings(sigma=0.3, learning_rate=0.1, fitness_shaping="centered_rank"),
    )
    return Preset(env=f"gymnax/{game}-MinAtar", num_iterations=200, settings=settings, loop=SMALL_LOOP)


def _brax(env: str, dataset_size: int, num_iterations: int, backend: str | None = None) -> Preset:
    settings = HadesSettings(
        dataset_size=dataset_size,
        population_size=64,
        num_episodes=1,
        cloning=CloningSettings(hidden_sizes=(64, 64), learning_rate=0.01, num_steps=100),
        evolution=EvolutionSettings(sigma=0.1, learning_rate=0.05, fitness_shaping="centered_rank"),
    )
    loop = LoopSettings(iterations_per_call=5, evaluate_every=25)
    options = EnvironmentOptions(backend=backend)
    return Preset(env=env, options=options, num_iterations=num_iterations, settings=settings, loop=loop)


def _inverted_pendulum() -> Preset:
    brax = _brax("brax/inverted_pendulum", 4, 150, backend="spring")
    # Two inits and the mode: what is left to learn near 1000 is robustness, and noise in the actions hides it.
    return brax.with_settings(num_inits=2, num_episodes=2, action_selection="mode")


def _contact(name: str) -> Preset:
    env, options = CONTACT[name]
    brax = dataclasses.replace(_brax(env, 4, 150), options=options, loop=CONTACT_LOOP)
    return brax.with_settings(action_selection="mode")


def _paper_brax(robot: str, fixed_init: bool) -> Preset:
    settings = paper_brax(f"brax/{robot}", fixed_init=fixed_init)
    return Preset(env=f"brax/{robot}", num_iterations=2000, settings=settings, loop=PAPER_LOOP)


def _paper_minatar(game: str, fixed_init: bool) -> Preset:
    settings = paper_minatar(fixed_init=fixed_init)
    return Preset(env=f"gymnax/{game}-MinAtar", num_iterations=5000, settings=settings, loop=PAPER_LOOP)


SMALL: dict[str, Callable[[], Preset]] = {
    "cartpole": _cartpole,
    "acrobot": partial(_small, "gymnax/Acrobot-v1", 3, 0.3, 200),
    "pendulum": _pendulum,
    "mountaincar": partial(_small, "gymnax/MountainCarContinuous-v0", 4, 0.5, 100),
    "hopper": partial(_brax, "brax/hopper", 4, 150),
    "inverted-pendulum": _inverted_pendulum,
    **{name: partial(_contact, name) for name in CONTACT},
}
"""Sizes for a CPU, games apart."""

PRESETS: dict[str, Callable[[], Preset]] = {
    **SMALL,
    **{game.lower(): partial(_minatar, game) for game in MINATAR},
    **{
        f"paper/{name.lower()}-{suffix}": partial(make, name, fixed_init)
        for suffix, fixed_init in (("r", False), ("f", True))
        for make, names in ((_paper_brax, PAPER_BRAX), (_paper_minatar, MINATAR))
        for name in names
    },
}
"""Presets by name; those that begin with paper/ are published."""
