"""Run on its own with eight forced host devices and names of `PARTS`: what 1, 2 and 8 of them give, as JSON."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import re
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

import envs
import hades
from hades.fitness import Chunks, PresentPolicies, Problem, draw_inits, in_chunks, make_fitness
from hades.inner.cloning import CloningSettings, behaviour_cloning
from hades.normalization import Normalizer
from hades.objectives import EpisodicReturn
from hades.objectives.states import av_pbc
from hades.outer import evolution
from hades.outer.evolution import Evolution, EvolutionSettings
from hades.parametrizations import free_pairs
from hades.policies import NetworkSettings
from hades.recipes.hades import HadesSettings
from hades.recipes.neuroevolution import NeuroevolutionSettings
from hades.recipes.offline import OfflineSettings, offline_run
from hades.recipes.policy_gradient import HadesPGSettings
from hades.sharding import Devices, population_mesh
from hades.types import Discrete
from tests.helpers import make_teacher, uniform_transitions


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
    problem = Problem(jax.random.split(jax.random.key(1), 2), Normalizer())
    draw = draw_inits(clone, jax.random.key(0), 2).replace(problem=problem)
    results = {}
    for count in counts:
        devices = Devices(population_mesh(jax.devices()[:count]))
        values, counted = jax.jit(partial(devices.map, lambda own, draw: fitness(draw, own)))(solutions, draw)
        results[str(count)] = {"values": values.tolist(), "env_steps": counted["env_steps"].tolist()}
    return results


NETWORK = {"hidden_sizes": (4,), "kernel_init": "lecun_normal"}
HADES = HadesSettings(
    dataset_size=2,
    population_size=12,
    observation_normalization="none",
    cloning=CloningSettings(**NETWORK, num_steps=4),
    evolution=EvolutionSettings(sigma=0.3),
    rollout_halvings=1,
)
HADES_PG = HadesPGSettings(
    dataset_size=3,
    num_inits=4,
    num_envs=16,
    num_steps=6,
    num_epochs=2,
    cloning=CloningSettings(**NETWORK, optimizer="sgd", learning_rate=1.0, num_steps=2, step_sizes="learned"),
    critic=NetworkSettings(hidden_sizes=(4,), kernel_init="lecun_normal"),
)
SETTINGS = {
    "hades": HADES,
    "hades, whole": HADES,
    "hades, four inits": dataclasses.replace(HADES, population_size=2, num_inits=4),
    "hades-pg": HADES_PG,
    "hades-pg, clipped": dataclasses.replace(
        HADES_PG, meta_gradient=dataclasses.replace(HADES_PG.meta_gradient, max_init_grad_norm=0.1)
    ),
    **{
        f"es, {name}": NeuroevolutionSettings(
            population_size=12,
            observation_normalization="none",
            network=NetworkSettings(**NETWORK),
            evolution=EvolutionSettings(strategy, sigma=0.3, perturbations=perturbations),
            rollout_chunk_size=1,
        )
        for name, strategy, perturbations in (
            ("stored", "Open_ES", "stored"),
            ("stored SNES", "SNES", "stored"),
            ("stored Sep_CMA_ES", "Sep_CMA_ES", "stored"),
            ("mirrored halves", "PGPE", "stored"),
            ("regenerated", "Open_ES", "regenerated"),
            ("low_rank", "SNES", "low_rank"),
        )
    },
}
COLLECTIVE = re.compile(r"= (.*?) (?:all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute)(?:-start)?\(")


def collective_sizes(program: str) -> list[int]:
    """Elements of every array that a collective of an HLO program returns."""
    return [size for found in COLLECTIVE.findall(program) for size in array_sizes(found)]


def array_sizes(text: str) -> list[int]:
    """Elements of every array that a part of an HLO program names."""
    shapes = re.findall(r"\w+\[([\d,]*)\]", text)
    return [math.prod(int(size) for size in shape.split(",") if size) for shape in shapes]


def generation_on_devices(method: str) -> dict[str, object]:
    """One whole iteration of a recipe, which divides the devices as it needs, small populations as large ones."""
    if method == "hades, whole":
        return _generation_on_devices(method)
    with mock.patch.object(evolution, "_DIVIDED_FROM", 0):
        return _generation_on_devices(method)


def _generation_on_devices(method: str) -> dict[str, object]:
    results = {}
    for count in (1, 8):
        run = make_run(method, count)
        first = jax.jit(run.init)(jax.random.key(0))
        step = jax.jit(run.step).lower(first).compile()
        state, metrics = step(first)
        outcome = jax.jit(run.outcome)
        before, after = ([leaf.tolist() for leaf in jax.tree.leaves(outcome(at))] for at in (first, state))
        results[str(count)] = {
            "fitness_mean": float(metrics["fitness_mean"]),
            "outcome": after,
            "before": before,
            "collectives": collective_sizes(step.as_text()),
            "largest_array": max(array_sizes(step.as_text())),
            "mesh": dict(run.mesh.shape),
        }
    return results


class Noise:
    """An objective of one's own whose problem is a plain key, which `value` splits for all initialisations."""

    def init(self, key):
        return ()

    def draw(self, key, state, policies):
        return key, state, {}

    def value(self, key, params):
        leaf = jax.tree.leaves(params)[0]
        noise = jax.vmap(jax.random.normal)(jax.random.split(key, leaf.shape[1]))
        values = noise * jnp.mean(leaf.reshape(*leaf.shape[:2], -1), axis=-1)
        return values, {"env_steps": jnp.zeros(len(values), jnp.int32)}

    def normalizer(self, state):
        return Normalizer()


def make_run(method: str, count: int) -> hades.Run:
    env, devices = envs.make("diagnostic/target", max_steps=2), jax.devices()[:count]
    if method == "own objective":
        inner = behaviour_cloning(hades.policies.mlp(env, **NETWORK), num_steps=4)
        parts = (free_pairs(env, 2), inner, Noise(), Evolution(population_size=2))
        return hades.distillation_run(env, *parts, num_inits=4, mesh=devices)
    if method != "av-pbc":
        return hades.recipes.from_settings(env, SETTINGS[method], mesh=devices)
    cloning = CloningSettings(**NETWORK, num_steps=4, action_distribution="tanh_gaussian")
    settings = OfflineSettings(dataset_size=3, num_inits=4, num_states=16, cloning=cloning)
    return offline_run(env, uniform_transitions(count=40), av_pbc, settings, make_teacher(), mesh=devices)


def seeds_on_devices() -> dict[str, object]:
    """Five seeds of a run that takes one device, which all eight share."""
    found, compiled = {}, Compilations()
    for name, seeds in (("together", 5), ("alone", 1)):
        run = make_run("hades", 1)
        keys = jax.random.split(jax.random.key(4), 5)[:seeds]
        loop = hades.LoopSettings(iterations_per_call=2, evaluate_every=None)
        results = hades.distill_seeds(keys, run, 4, loop=loop, progress=False)
        found[name] = [result.history[-1]["fitness_mean"] for result in results]
    return found | {"compiled": [compiled.names.count(name) for name in ("_advance_seeds", "_stack", "_unstack")]}


def with_precision(part: Callable[[], dict[str, object]]) -> Callable[[], dict[str, object]]:
    """The same part of the program in a context that every thread has for itself."""

    def within() -> dict[str, object]:
        with jax.default_matmul_precision("float32"):
            return part()

    return within


PROGRAMS = ("initial", "advance", "draw_inits", "fit_over", "play_all")
"""Those of a run and its evaluation that take more than a moment to compile."""


def run_on_devices(method: str, count: int = 4) -> dict[str, object]:
    """A run that is twice resumed: what is compiled each time, and the outcome beside that of a whole run."""
    mesh = population_mesh(jax.devices()[:count])
    loop = hades.LoopSettings(iterations_per_call=2, evaluate_every=2, evaluation_inits=4, evaluation_episodes=2)
    counts, compiled = [], Compilations()
    with tempfile.TemporaryDirectory() as folder:
        for iterations in (2, 4, 6):
            run = hades.recipes.from_settings(envs.make("diagnostic/target", max_steps=2), SETTINGS[method], mesh=mesh)
            before = len(compiled.names)
            resumed = hades.distill(jax.random.key(0), run, iterations, out=folder, loop=loop, progress=False)
            counts.append(compiled.names[before:])
    whole = hades.distill(jax.random.key(0), run, 6, loop=loop, progress=False)
    first = hades.distill(jax.random.key(1), run, 8, loop=loop, progress=False)
    booked = [row["seconds_per_iteration"] for row in first.history]
    devices = len(jax.tree.leaves(resumed.state.outer)[0].devices())
    outcomes = [[leaf.tolist() for leaf in jax.tree.leaves(result.outcome)] for result in (resumed, whole)]
    return {
        "compiled": [sorted(name for name in names if name in PROGRAMS) for names in counts],
        "devices": devices,
        "seconds": booked,
        "resumed": outcomes[0],
        "whole": outcomes[1],
    }


class Compilations(logging.Handler):
    """Names of the programs that JAX compiles, as its log tells them."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        jax.config.update("jax_log_compiles", True)
        logging.getLogger("jax._src.dispatch").addHandler(self)
        for name in ("dispatch", "interpreters.pxla", "compiler", "compilation_cache"):
            logging.getLogger(f"jax._src.{name}").propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        """Notes the name in 'Finished XLA compilation of jit(NAME) in ... sec'."""
        found = re.match(r"Finished XLA compilation of jit\((\w+)", record.getMessage())
        if found:
            self.names.append(found[1])


def elsewhere_on_devices() -> dict[str, object]:
    """A run on one device that is not the default, stopped and resumed, beside a whole one on the default device."""
    env, loop = envs.make("diagnostic/target", max_steps=2), hades.LoopSettings(iterations_per_call=2, evaluate_every=2)
    default, chosen = (
        hades.recipes.from_settings(env, SETTINGS["hades"], mesh=jax.devices()[index : index + 1]) for index in (0, 3)
    )
    whole = hades.distill(jax.random.key(0), default, 4, loop=loop, progress=False)
    with tempfile.TemporaryDirectory() as folder:
        for iterations in (2, 4):
            result = hades.distill(jax.random.key(0), chosen, iterations, out=folder, loop=loop, progress=False)
    quick = dataclasses.replace(loop, evaluate_every=None)
    seeds = hades.distill_seeds(jax.random.split(jax.random.key(4), 2), chosen, 2, loop=quick, progress=False)
    leaves = jax.tree.leaves([result.state, [seed.state for seed in seeds]])
    outcomes = [[leaf.tolist() for leaf in jax.tree.leaves((r.dataset, r.best_dataset))] for r in (whole, result)]
    devices = sorted({device.id for leaf in leaves for device in leaf.devices()})
    return {"devices": devices, "default": outcomes[0], "chosen": outcomes[1]}


def calls_on_devices() -> dict[str, object]:
    """Calls of a function that one device of several makes for all, and what each then holds."""
    results = {}
    for count in (1, 8):
        calls: list[float] = []

        def counted(key: jax.Array, number: jax.Array, calls: list[float] = calls) -> tuple[jax.Array, jax.Array]:
            jax.debug.callback(lambda value: calls.append(float(value)), number)
            return number + jax.random.normal(key, (2,)), jnp.int32(3)

        devices = Devices(population_mesh(jax.devices()[:count]))
        key, number = jax.random.key(5), jnp.float32(2.0)
        drawn, whole = jax.jit(partial(devices.once, counted))(key, number)
        jax.effects_barrier()
        held = [shard.data.tolist() for shard in drawn.addressable_shards]
        results[str(count)] = {"calls": len(calls), "held": held, "whole": int(whole)}
    return results


def gathered_on_devices() -> dict[str, object]:
    """Rows of several types and lengths, which cross between devices together or alone, and keys."""

    def share(rows: jax.Array, shared: jax.Array) -> dict[str, jax.Array]:
        return {
            "numbers": 2.0 * rows,
            "counts": rows.astype(jnp.int32),
            "flags": rows > 3,
            "table": rows[:, None, None] + jnp.arange(6.0).reshape(2, 3),
            "long": rows[:, None] + jnp.arange(5000.0),
            "nothing": jnp.zeros((len(rows), 0)),
            "keys": jax.vmap(lambda row: jax.random.fold_in(shared, row.astype(jnp.int32)))(rows),
        }

    results = {}
    for count in (1, 8):
        devices = Devices(population_mesh(jax.devices()[:count]))
        found = jax.jit(partial(devices.map, share))(jnp.arange(11.0), jax.random.key(0))
        found["keys"] = jax.random.key_data(found["keys"])
        results[str(count)] = {name: leaf.tolist() for name, leaf in found.items()}
    return results


def environments_on_devices() -> dict[str, object]:
    """Environments of four policies: as many devices, more, fewer, and numbers that do not divide."""
    rows = {"numbers": jnp.arange(24.0), "nothing": jnp.zeros((24, 0))}
    results = {}
    for count in (1, 3, 4, 5, 6, 8):
        shares: list[tuple[int, int]] = []

        def play(params: jax.Array, rows: Any, factor: jax.Array, shares: list[Any] = shares) -> Any:
            envs = rows["numbers"].shape[0]
            shares.append((len(params), envs))
            own = jnp.repeat(params, envs // len(params))
            return rows | {"numbers": own + factor * rows["numbers"]}

        policies = PresentPolicies(4, devices=Devices(population_mesh(jax.devices()[:count])))
        found = jax.jit(partial(policies.map_environments, play))(jnp.arange(4) * 100.0, rows, jnp.float32(2.0))
        results[str(count)] = {"numbers": found["numbers"].tolist(), "share": shares[-1]}
        assert found["nothing"].shape == (24, 0)
    return results


PARTS = {
    "environments": environments_on_devices,
    "map": gathered_on_devices,
    "elsewhere": elsewhere_on_devices,
    "once": calls_on_devices,
    "cartpole": partial(fitness_on_devices, "gymnax/CartPole-v1", 60, 16, (1, 8)),
    "pendulum": partial(fitness_on_devices, "gymnax/Pendulum-v1", 20, 16),
    "pendulum-uneven": partial(fitness_on_devices, "gymnax/Pendulum-v1", 20, 11, (1, 8)),
    "run, hades": partial(run_on_devices, "hades"),
    "run, hades-pg": partial(run_on_devices, "hades-pg"),
    "run, es, stored": partial(run_on_devices, "es, stored"),
    "run, alone": partial(run_on_devices, "hades", 1),
    "run, precise": with_precision(partial(run_on_devices, "hades", 1)),
    "seeds": seeds_on_devices,
    **{method: partial(generation_on_devices, method) for method in (*SETTINGS, "av-pbc", "own objective")},
}

if __name__ == "__main__":
    assert len(jax.devices()) == 8
    json.dump({name: PARTS[name]() for name in sys.argv[1:]}, sys.stdout)
