"""Run on its own with eight forced host devices: fitness of one generation on 1, 2 and 8 of them, as JSON."""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import tempfile
from functools import partial

import jax
import numpy as np

import envs
import hades
from hades.fitness import Chunks, draw_inits, in_chunks, make_fitness
from hades.inner.cloning import CloningSettings, behaviour_cloning
from hades.normalization import Normalizer
from hades.objectives import EpisodicReturn
from hades.outer.evolution import EvolutionSettings
from hades.parametrizations import free_pairs
from hades.policies import NetworkSettings
from hades.recipes.hades import HadesSettings
from hades.recipes.neuroevolution import NeuroevolutionSettings
from hades.sharding import Devices, population_mesh
from hades.types import Discrete


def fitness_on_devices(
    name: str, max_steps: int, population: int, counts: tuple[int, ...] = (1, 2, 8)
) -> dict[str, object]:
    env = envs.make(name, max_steps=max_steps)
    generator = np.random.default_rng(0)
    observations = generator.normal(size=(population, 2, *env.observation_shape)).astype(np.float32)
    solutions = {"observations": observations}
    if isinstance(env.action_space, Discrete):
        labels = np.tile(3 * np.eye(env.action_space.num_actions, dtype=np.float32)[:2], (population, 1, 1))
        solutions["action_logits"] = labels
    else:
        solutions["actions"] = generator.normal(size=(population, 2, env.action_space.action_dim)).astype(np.float32)
    policy = hades.policies.mlp(env, hidden_sizes=(8,), kernel_init="lecun_normal")
    clone = behaviour_cloning(policy, num_steps=8)
    objective = EpisodicReturn(env, policy, 2, statistics=Normalizer())
    fitness = in_chunks(make_fitness(free_pairs(env, 2), clone, objective), Chunks(rollout=3))
    draw = draw_inits(clone, jax.random.key(0), 2).replace(problem=(jax.random.key(1), Normalizer()))
    results = {}
    for count in counts:
        devices = Devices(population_mesh(jax.devices()[:count]))
        values, counted = jax.jit(partial(devices.map, lambda own, draw: fitness(draw, own)))(solutions, draw)
        results[str(count)] = {"values": values.tolist(), "env_steps": counted["env_steps"].tolist()}
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
    **{
        f"es, {perturbations}": NeuroevolutionSettings(
            population_size=12,
            observation_normalization="none",
            network=NetworkSettings(**NETWORK),
            evolution=EvolutionSettings(strategy, sigma=0.3, perturbations=perturbations),
            rollout_chunk_size=1,
        )
        for strategy, perturbations in (("Open_ES", "stored"), ("Open_ES", "regenerated"), ("SNES", "low_rank"))
    },
}
COLLECTIVE = re.compile(r"= (.*?) (?:all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute)(?:-start)?\(")


def collective_sizes(program: str) -> list[int]:
    """Elements of every array that a collective of an HLO program returns."""
    shapes = [shape for found in COLLECTIVE.findall(program) for shape in re.findall(r"\w+\[([\d,]*)\]", found)]
    return [math.prod(int(size) for size in shape.split(",") if size) for shape in shapes]


def generation_on_devices(method: str) -> dict[str, object]:
    """One whole generation of a recipe, which takes the mesh as it comes."""
    env = envs.make("diagnostic/target", max_steps=2)
    results = {}
    for count in (1, 8):
        mesh = population_mesh(jax.devices()[:count])
        run = hades.recipes.from_settings(env, SETTINGS[method], mesh=mesh)
        first = run.init(jax.random.key(0))
        step = jax.jit(run.step).lower(first).compile()
        state, metrics = step(first)
        before, after = ([leaf.tolist() for leaf in jax.tree.leaves(run.outcome(at))] for at in (first, state))
        results[str(count)] = {
            "fitness_mean": float(metrics["fitness_mean"]),
            "outcome": after,
            "before": before,
            "collectives": collective_sizes(step.as_text()),
        }
    return results


def compilations_of_a_run() -> dict[str, object]:
    """Programs that the host loop compiles on four devices: in a first call, a second one, and in a resumed run."""
    mesh = population_mesh(jax.devices()[:4])
    loop = hades.LoopSettings(iterations_per_call=2, evaluate_every=None)
    counts, compiled = [], Compilations()
    with tempfile.TemporaryDirectory() as folder:
        for iterations in (2, 4, 6):
            run = hades.recipes.from_settings(envs.make("diagnostic/target", max_steps=2), SETTINGS["hades"], mesh=mesh)
            before = len(compiled.names)
            result = hades.distill(jax.random.key(0), run, iterations, out=folder, loop=loop, progress=False)
            counts.append(compiled.names[before:])
    first = hades.distill(jax.random.key(1), run, 8, loop=loop, progress=False)
    booked = [row["seconds_per_iteration"] for row in first.history]
    devices = len(jax.tree.leaves(result.state.outer)[0].devices())
    return {"advance": [names.count("advance") for names in counts], "devices": devices, "seconds": booked}


class Compilations(logging.Handler):
    """Names of the programs that JAX compiles, as its log tells them."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        jax.config.update("jax_log_compiles", True)
        logger = logging.getLogger("jax._src.interpreters.pxla")
        logger.addHandler(self)
        logger.propagate = False
        for name in ("jax._src.dispatch", "jax._src.compiler", "jax._src.compilation_cache"):
            logging.getLogger(name).propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        """Notes the name in 'Compiling NAME with global shapes and types ...'."""
        words = record.getMessage().split()
        if words[0] == "Compiling":
            self.names.append(words[1].removeprefix("jit(").removesuffix(")"))


if __name__ == "__main__":
    assert len(jax.devices()) == 8
    json.dump(
        {
            "cartpole": fitness_on_devices("gymnax/CartPole-v1", 60, 16, (1, 8)),
            "pendulum": fitness_on_devices("gymnax/Pendulum-v1", 20, 16),
            "pendulum-uneven": fitness_on_devices("gymnax/Pendulum-v1", 20, 11, (1, 8)),
            "run": compilations_of_a_run(),
            **{method: generation_on_devices(method) for method in SETTINGS},
        },
        sys.stdout,
    )
