"""Published settings of the methods, each with its source; those of PPO have sizes of ours where that is said.

Each takes fields of its settings that are to differ, as keyword arguments.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from hades.inner.cloning import CloningSettings
from hades.outer.evolution import EvolutionSettings
from hades.outer.meta_gradient import MetaGradientSettings
from hades.policies import NetworkSettings
from hades.recipes.hades import HadesSettings
from hades.recipes.images import ImageSettings
from hades.recipes.neuroevolution import NeuroevolutionSettings
from hades.recipes.offline import OfflineSettings
from hades.rl.settings import PPOSettings

# Episodes that score a candidate, of distillation and of its baseline.
_BRAX: dict[str, Any] = {
    "population_size": 2048,
    "num_episodes": 4,
    "observation_normalization": "running",
    "normalization_envs": 4,
}
_MINATAR: dict[str, Any] = {"population_size": 2048, "num_episodes": 8, "observation_normalization": "fixed"}


def paper_brax(env: str, *, fixed_init: bool = False, **overrides: Any) -> HadesSettings:
    """Published settings for Brax, N=64: arXiv 2406.15042 and its released code.

    Args:
        env: Name of the environment; two of them take half of the cloning steps.
        fixed_init: Whether it is HaDES-F.
        **overrides: Fields that are to differ.
    """
    short = env in ("brax/hopper", "brax/inverted_double_pendulum")
    settings = HadesSettings(
        method="hades-f" if fixed_init else "hades-r",
        dataset_size=64,
        num_inits=1 if fixed_init else 2,
        **_BRAX,
        cloning=CloningSettings(
            hidden_sizes=(512, 512),
            activation="tanh",
            loss="gaussian_nll",
            learning_rate=0.005,
            max_grad_norm=0.5,
            num_steps=200 if short else 400,
        ),
        evolution=EvolutionSettings("Open_ES", sigma=0.03, learning_rate=0.05, adam_b1=0.99, fitness_shaping="raw"),
    )
    return dataclasses.replace(settings, **overrides)


def paper_minatar(*, fixed_init: bool = False, **overrides: Any) -> HadesSettings:
    """Published settings for MinAtar, N=16 with one-hot labels: arXiv 2406.15042 and its released code.

    Args:
        fixed_init: Whether it is HaDES-F.
        **overrides: Fields that are to differ.
    """
    settings = HadesSettings(
        method="hades-f" if fixed_init else "hades-r",
        dataset_size=16,
        num_inits=1 if fixed_init else 2,
        learn_labels=False,
        **_MINATAR,
        cloning=CloningSettings(
            hidden_sizes=(512, 512), activation="relu", loss="cross_entropy", learning_rate=0.03, num_steps=64
        ),
        evolution=EvolutionSettings("SNES", sigma=0.5, learning_rate=1.0, optimizer="sgd", temperature=20.0),
    )
    return dataclasses.replace(settings, **overrides)


def paper_es_brax(**overrides: Any) -> NeuroevolutionSettings:
    """The published baseline on Brax, MLP 2x512: arXiv 2406.15042 and its released code.

    Fitness shaping (centred ranks) and the decay rates of Adam are defaults of evosax and optax: theirs are not known.
    """
    settings = NeuroevolutionSettings(
        network=NetworkSettings(hidden_sizes=(512, 512), activation="tanh"),
        **_BRAX,
        zero_init=True,
        evolution=EvolutionSettings("Open_ES", sigma=0.03, learning_rate=0.05),
    )
    return dataclasses.replace(settings, **overrides)


def paper_es_minatar(**overrides: Any) -> NeuroevolutionSettings:
    """The published baseline on MinAtar, MLP 2x256: arXiv 2406.15042 and its released code.

    Width 512, which ran out of memory there, takes `perturbations="regenerated"` and a `rollout_chunk_size`.
    """
    settings = NeuroevolutionSettings(
        network=NetworkSettings(hidden_sizes=(256, 256), activation="relu"),
        **_MINATAR,
        zero_init=True,
        evolution=EvolutionSettings("SNES", sigma=0.03, learning_rate=1.0, optimizer="sgd", temperature=20.0),
    )
    return dataclasses.replace(settings, **overrides)


def paper_offline(**overrides: Any) -> OfflineSettings:
    """Published settings (arXiv 2410.22728 and its released code): N=256, 100 inner steps, 10 x 256 states.

    They were run for 50,000 outer steps (hopper 20,000), DBC and PBC for 200,000 (50,000). What is ours: a log-std that
    does not depend on the state, the same noise in forward and backward pass, and the smaller of the two critics where
    they take the first.
    """
    settings = OfflineSettings(
        dataset_size=256,
        num_states=2560,
        objective_actions="sample",
        first_actions="data",
        bounded_actions=False,
        cloning=dataclasses.replace(
            OfflineSettings().cloning,
            hidden_sizes=(256, 256, 256),
            kernel_init="orthogonal",
            head_gain=math.sqrt(2),
            initial_log_std=-1.0,
            loss="sampled_mse",
            optimizer="sgd",
            learning_rate=0.1,
        ),
        meta_gradient=MetaGradientSettings(optimizer="sgd", learning_rate=0.1, momentum=0.9, max_grad_norm=2.0),
    )
    return dataclasses.replace(settings, **overrides)


def paper_images(**overrides: Any) -> ImageSettings:
    """Published settings for MNIST and Fashion-MNIST, one image a class (arXiv 2406.15042 and its released code).

    They were run for 1,000 generations. Pixels may leave their range, as there. What is ours: the cross-entropy is not
    divided by the number of classes, as it is in the released code, where a step size of 0.1 is therefore one of 0.01;
    a candidate is valued on 6,000 training images drawn anew, not on all 60,000; and biases of the network begin at
    zero.
    """
    settings = ImageSettings(
        per_class=1,
        first_images="class_means",
        learn_labels=False,
        bounded_pixels=False,
        num_inits=2,
        num_images=6000,
        outer="evolution",
        population_size=512,
        candidate_chunk_size=1,
        cloning=CloningSettings(
            policy="cnn",
            hidden_sizes=(128,),
            activation="relu",
            kernel_init="lecun_normal",
            loss="cross_entropy",
            optimizer="sgd",
            learning_rate=0.1,
            num_steps=1000,
        ),
        evolution=EvolutionSettings(
            "Open_ES",
            sigma=0.02,
            sigma_decay=0.999,
            learning_rate=0.01,
            learning_rate_decay=0.999,
            adam_b1=0.99,
            fitness_shaping="raw",
        ),
    )
    return dataclasses.replace(settings, **overrides)


def ppo_cartpole(**overrides: Any) -> PPOSettings:
    """Settings for CartPole and tasks like it, for 100 updates: 409,600 steps.

    Clip range and lambda are those of the PPO paper (arXiv 1707.06347, tables 1 and 3), the entropy weight is its one
    for Atari (table 5), value weight and gradient norm are those of the authors' code. The sizes, the learning rate and
    the longer horizon are ours: with a discount of 0.99 some seeds that had solved the task lost it again.
    """
    settings = PPOSettings(
        num_envs=32, num_steps=128, num_minibatches=8, learning_rate=2e-3, anneal_updates=100, gamma=0.995
    )
    return dataclasses.replace(settings, **overrides)


def ppo_minatar(**overrides: Any) -> PPOSettings:
    """Settings for the MinAtar games, for 1,220 updates: ten million steps.

    Sizes, epochs and annealing are usual for single-file JAX implementations; network and learning rate are ours.
    """
    settings = PPOSettings(
        network=NetworkSettings(hidden_sizes=(128, 128), activation="relu"),
        num_envs=64,
        num_steps=128,
        num_minibatches=8,
        learning_rate=2e-3,
        anneal_updates=1220,
    )
    return dataclasses.replace(settings, **overrides)


def ppo_brax(**overrides: Any) -> PPOSettings:
    """Settings for the locomotion tasks of Brax, for 2,441 updates: fifty million steps.

    The values of purejaxrl for continuous actions: no annealing, no entropy bonus, running statistics of observations
    and of discounted returns. The width of the network is ours.
    """
    settings = PPOSettings(
        network=NetworkSettings(hidden_sizes=(256, 256), activation="tanh"),
        num_envs=2048,
        num_steps=10,
        num_minibatches=32,
        learning_rate=3e-4,
        value_clip_range=0.2,
        entropy_coefficient=0.0,
        observation_normalization="running",
        normalize_rewards=True,
    )
    return dataclasses.replace(settings, **overrides)
