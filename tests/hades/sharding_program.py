"""Run on its own with eight forced host devices: fitness of one generation on 1, 2 and 8 of them, as JSON."""

from __future__ import annotations

import json
import sys

import jax
import numpy as np

import envs
import hades
from hades.dataset import SyntheticDataset
from hades.fitness import FitnessKeys, make_fitness
from hades.inner.cloning import CloningSettings, behaviour_cloning
from hades.normalization import Normalizer
from hades.outer.evolution import EvolutionSettings
from hades.policies import NetworkSettings
from hades.recipes.hades import HadesSettings
from hades.recipes.neuroevolution import NeuroevolutionSettings
from hades.rollouts.first_episode import make_rollout
from hades.sharding import population_mesh, shard_fitness
from hades.types import Discrete


def fitness_on_devices(
    name: str, max_steps: int, population: int, counts: tuple[int, ...] = (1, 2, 8)
) -> dict[str, object]:
    env = envs.make(name, max_steps=max_steps)
    generator = np.random.default_rng(0)
    observations = generator.normal(size=(population, 2, *env.observation_shape)).astype(np.float32)
    if isinstance(env.action_space, Discrete):
        labels = np.tile(np.eye(env.action_space.num_actions, dtype=np.float32)[:2], (population, 1, 1))
        datasets = SyntheticDataset(observations, action_probabilities=labels)
    else:
        actions = generator.normal(size=(population, 2, env.action_space.action_dim)).astype(np.float32)
        datasets = SyntheticDataset(observations, actions=actions)
    policy = hades.policies.mlp(env, hidden_sizes=(8,), kernel_init="lecun_normal")
    clone = behaviour_cloning(policy, num_steps=8)
    fitness = make_fitness(clone, make_rollout(env, policy, 2), rollout_chunk_size=3)
    keys = FitnessKeys.draw(jax.random.key(0), 2)
    results = {}
    for count in counts:
        over_devices = fitness if count == 1 else shard_fitness(fitness, population_mesh(jax.devices()[:count]))
        found = jax.jit(over_devices)(keys, datasets, Normalizer())
        results[str(count)] = {"returns": found.returns.tolist(), "lengths": found.lengths.tolist()}
    return results


NETWORK = {"hidden_sizes": (4,), "kernel_init": "lecun_normal"}
SETTINGS = {
    "hades": HadesSettings(
        dataset_size=2,
        population_size=12,
        observation_normalization="none",
        cloning=CloningSettings(**NETWORK, num_steps=4),
        evolution=EvolutionSettings(sigma=0.3),
    ),
    "es": NeuroevolutionSettings(
        population_size=12,
        observation_normalization="none",
        network=NetworkSettings(**NETWORK),
        evolution=EvolutionSettings(sigma=0.3, perturbations="regenerated"),
        rollout_chunk_size=1,
    ),
}


def generation_on_devices(method: str) -> dict[str, object]:
    """One whole generation of a recipe, which takes the mesh as it comes."""
    env = envs.make("diagnostic/target", max_steps=2)
    results = {}
    for count in (1, 8):
        mesh = population_mesh(jax.devices()[:count])
        run = hades.recipes.from_settings(env, SETTINGS[method], mesh=mesh)
        first = run.init(jax.random.key(0))
        state, metrics = jax.jit(run.step)(first)
        before, after = ([leaf.tolist() for leaf in jax.tree.leaves(run.outcome(at))] for at in (first, state))
        results[str(count)] = {"fitness_mean": float(metrics["fitness_mean"]), "outcome": after, "before": before}
    return results


if __name__ == "__main__":
    assert len(jax.devices()) == 8
    json.dump(
        {
            "cartpole": fitness_on_devices("gymnax/CartPole-v1", 60, 16),
            "pendulum": fitness_on_devices("gymnax/Pendulum-v1", 20, 16),
            "pendulum-uneven": fitness_on_devices("gymnax/Pendulum-v1", 20, 11, (1, 8)),
            **{method: generation_on_devices(method) for method in SETTINGS},
        },
        sys.stdout,
    )
