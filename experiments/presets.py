"""Presets: settings of whole runs, by name. Sources are named in `hades.recipes` for those of the paper."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from experiments.settings import (
    DistillSettings,
    EnvironmentOptions,
    NeuroevolutionCommandSettings,
    PPOCommandSettings,
)
from hades import recipes
from hades.distillation import LoopSettings
from hades.inner.cloning import CloningSettings
from hades.outer.evolution import EvolutionSettings
from hades.policies import NetworkSettings
from hades.recipes.hades import HadesSettings
from hades.recipes.neuroevolution import NeuroevolutionSettings
from hades.recipes.population import PopulationSettings
from hades.rl import ppo
from hades.rl.settings import PPOSettings

T = TypeVar("T")

PAPER_BRAX = (
    "ant",
    "halfcheetah",
    "hopper",
    "humanoid",
    "humanoidstandup",
    "inverted_double_pendulum",
    "reacher",
    "walker2d",
)
PAPER_MINATAR = ("Asterix", "Breakout", "Freeway", "SpaceInvaders")
_SMALL = ("cartpole", "acrobot", "pendulum", "mountaincar", "hopper", "inverted-pendulum")
_LOOP = LoopSettings(evaluate_every=20, evaluation_inits=16, evaluation_episodes=8)


def _cartpole() -> DistillSettings:
    return DistillSettings(
        env="gymnax/CartPole-v1",
        num_generations=100,
        settings=HadesSettings(
            dataset_size=2,
            population_size=64,
            num_episodes=2,
            learn_labels=False,
            # Two pairs fix a direction. Sampled actions would also need its length, which other architectures learn
            # differently.
            action_selection="mode",
            cloning=CloningSettings(hidden_sizes=(64, 64), learning_rate=0.01, num_steps=64),
            evolution=EvolutionSettings(sigma=0.3, learning_rate=0.1, fitness_shaping="centered_rank"),
        ),
        loop=_LOOP,
    )


def _small(env: str, dataset_size: int, sigma: float, num_generations: int) -> DistillSettings:
    cartpole = _cartpole()
    settings = dataclasses.replace(
        cartpole.settings,
        dataset_size=dataset_size,
        learn_labels=True,
        action_selection="sample",
        evolution=dataclasses.replace(cartpole.settings.evolution, sigma=sigma),
    )
    return dataclasses.replace(cartpole, env=env, num_generations=num_generations, settings=settings)


def _minatar(env: str) -> DistillSettings:
    """Sizes for a CPU; the published ones stand under paper/."""
    settings = HadesSettings(
        dataset_size=16,
        population_size=64,
        num_inits=2,
        num_episodes=4,
        learn_labels=False,
        rollout_chunk_size=4,
        min_std=0.1,
        cloning=CloningSettings(hidden_sizes=(64, 64), activation="relu", learning_rate=0.01, num_steps=64),
        evolution=EvolutionSettings(sigma=0.3, learning_rate=0.1, fitness_shaping="centered_rank"),
    )
    return DistillSettings(env=env, num_generations=200, settings=settings, loop=_LOOP)


def _pendulum() -> DistillSettings:
    small = _small("gymnax/Pendulum-v1", 16, 0.3, 300)
    # After so few cloning steps a sampled action is off by half a unit of torque: the pendulum would shake at the top.
    settings = dataclasses.replace(small.settings, population_size=128, num_inits=2, action_selection="mode")
    return dataclasses.replace(small, settings=settings)


def _brax(env: str, dataset_size: int, num_generations: int, backend: str | None = None) -> DistillSettings:
    settings = HadesSettings(
        dataset_size=dataset_size,
        population_size=64,
        num_episodes=1,
        cloning=CloningSettings(hidden_sizes=(64, 64), learning_rate=0.01, num_steps=100),
        evolution=EvolutionSettings(sigma=0.1, learning_rate=0.05, fitness_shaping="centered_rank"),
    )
    loop = LoopSettings(generations_per_call=5, evaluate_every=25)
    options = EnvironmentOptions(backend=backend)
    return DistillSettings(env=env, options=options, num_generations=num_generations, settings=settings, loop=loop)


def _inverted_pendulum() -> DistillSettings:
    brax = _brax("brax/inverted_pendulum", 4, 150, backend="spring")
    # Two inits and the mode: what is left to learn near 1000 is robustness, and noise in the actions hides it.
    settings = dataclasses.replace(brax.settings, num_inits=2, num_episodes=2, action_selection="mode")
    return dataclasses.replace(brax, settings=settings)


def _paper(settings: HadesSettings, env: str, num_generations: int) -> DistillSettings:
    loop = LoopSettings(generations_per_call=5, evaluate_every=50)
    return DistillSettings(env=env, num_generations=num_generations, settings=settings, loop=loop)


def _builders() -> dict[str, Callable[[], DistillSettings]]:
    builders: dict[str, Callable[[], DistillSettings]] = {
        "cartpole": _cartpole,
        "acrobot": lambda: _small("gymnax/Acrobot-v1", 3, 0.3, 200),
        "pendulum": _pendulum,
        "mountaincar": lambda: _small("gymnax/MountainCarContinuous-v0", 4, 0.5, 100),
        "hopper": lambda: _brax("brax/hopper", 4, 150),
        "inverted-pendulum": _inverted_pendulum,
    }
    for name in PAPER_MINATAR:
        builders[name.lower()] = partial(_minatar, f"gymnax/{name}-MinAtar")
    for suffix, fixed_init in (("r", False), ("f", True)):
        for name in PAPER_BRAX:
            builders[f"paper/{name}-{suffix}"] = lambda name=name, fixed_init=fixed_init: _paper(  # type: ignore[misc]
                recipes.paper_brax(f"brax/{name}", fixed_init=fixed_init), f"brax/{name}", 2000
            )
        for name in PAPER_MINATAR:
            builders[f"paper/{name.lower()}-{suffix}"] = lambda name=name, fixed_init=fixed_init: _paper(  # type: ignore[misc]
                recipes.paper_minatar(fixed_init=fixed_init), f"gymnax/{name}-MinAtar", 5000
            )
    return builders


def _neuroevolution_builders() -> dict[str, Callable[[], NeuroevolutionCommandSettings]]:
    builders: dict[str, Callable[[], NeuroevolutionCommandSettings]] = {}
    for name in (*_SMALL, *map(str.lower, PAPER_MINATAR)):
        builders[name] = partial(_counterpart, name)
    for name in PAPER_MINATAR:
        builders[f"paper/{name.lower()}"] = partial(
            _paper_es, recipes.paper_es_minatar(), f"gymnax/{name}-MinAtar", 5000
        )
    for name in PAPER_BRAX:
        builders[f"paper/{name}"] = partial(_paper_es, recipes.paper_es_brax(), f"brax/{name}", 2000)
    return builders


def _counterpart(name: str) -> NeuroevolutionCommandSettings:
    """Neuroevolution of the network that a preset of HaDES clones, with the same population, episodes and sight."""
    distil = preset(name)
    hades = distil.settings
    shared = {field.name: getattr(hades, field.name) for field in dataclasses.fields(PopulationSettings)}
    shared["evolution"] = dataclasses.replace(hades.evolution, sigma=0.1, learning_rate=0.03)
    # As many rollouts of a candidate, where HaDES plays with several inits.
    shared["num_episodes"] = hades.num_episodes * hades.num_inits
    network = _network(hades.cloning)
    return NeuroevolutionCommandSettings(
        env=distil.env,
        options=distil.options,
        num_generations=distil.num_generations,
        loop=distil.loop,
        settings=NeuroevolutionSettings(**shared, network=network),
    )


def _network(cloning: CloningSettings) -> NetworkSettings:
    """The policy that is cloned, apart from how."""
    return NetworkSettings(
        **{field.name: getattr(cloning, field.name) for field in dataclasses.fields(NetworkSettings)}
    )


def _paper_es(settings: NeuroevolutionSettings, env: str, num_generations: int) -> NeuroevolutionCommandSettings:
    loop = LoopSettings(generations_per_call=5, evaluate_every=50)
    return NeuroevolutionCommandSettings(env=env, num_generations=num_generations, settings=settings, loop=loop)


def _ppo_builders() -> dict[str, Callable[[], PPOCommandSettings]]:
    builders: dict[str, Callable[[], PPOCommandSettings]] = {}
    for name in _SMALL:
        builders[name] = partial(_ppo_counterpart, name)
    for name in PAPER_MINATAR:
        # Ten million steps.
        builders[name.lower()] = partial(_ppo, ppo.minatar(), f"gymnax/{name}-MinAtar", 1220)
    builders["halfcheetah"] = partial(_ppo, ppo.brax(), "brax/halfcheetah", 2441)
    return builders


def _ppo_counterpart(name: str) -> PPOCommandSettings:
    """PPO in the environment of a small preset of HaDES, with the network that it clones."""
    distil = preset(name)
    network = _network(distil.settings.cloning)
    continuous = name not in ("cartpole", "acrobot")
    settings = ppo.cartpole(network=network)
    if continuous:
        # Running statistics, as in the settings for Brax; sizes for a CPU.
        settings = dataclasses.replace(
            settings,
            num_envs=64,
            entropy_coefficient=0.0,
            observation_normalization="running",
            normalize_rewards=True,
            learning_rate=1e-3,
        )
    command = _ppo(settings, distil.env, 100)
    return dataclasses.replace(command, options=distil.options)


def _ppo(settings: PPOSettings, env: str | None, num_updates: int) -> PPOCommandSettings:
    return PPOCommandSettings(env=env, num_generations=num_updates, settings=settings, loop=_LOOP)


def preset_names() -> tuple[str, ...]:
    """Names of all presets of `hades distill`."""
    return tuple(_builders())


def neuroevolution_preset_names() -> tuple[str, ...]:
    """Names of all presets of `hades baseline es`."""
    return tuple(_neuroevolution_builders())


def preset(name: str) -> DistillSettings:
    """The settings of a preset of `hades distill`.

    Raises:
        ValueError: There is none of that name; the message has the nearest ones.

    Example:
        >>> preset("cartpole").settings.dataset_size
        2
    """
    return _pick(_builders(), name)


def neuroevolution_preset(name: str) -> NeuroevolutionCommandSettings:
    """The settings of a preset of `hades baseline es`.

    Raises:
        ValueError: There is none of that name; the message has the nearest ones.
    """
    return _pick(_neuroevolution_builders(), name)


def ppo_preset_names() -> tuple[str, ...]:
    """Names of all presets of `hades baseline ppo`."""
    return tuple(_ppo_builders())


def ppo_preset(name: str) -> PPOCommandSettings:
    """The settings of a preset of `hades baseline ppo`.

    Raises:
        ValueError: There is none of that name; the message has the nearest ones.
    """
    return _pick(_ppo_builders(), name)


def _pick(builders: Mapping[str, Callable[[], T]], name: str) -> T:
    if name not in builders:
        near = difflib.get_close_matches(name, builders, n=3, cutoff=0.0)
        raise ValueError(f"preset: there is no {name!r}, the nearest are {', '.join(near)}")
    return builders[name]()
