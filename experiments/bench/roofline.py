"""`hades bench roofline`: the parts of one iteration beside the rates that the device reaches."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from experiments import tables
from experiments.bench._lib.base import Bench, BenchSettings, Report, tell
from experiments.bench._lib.memory import device_peak_bytes, peak_bytes
from experiments.bench._lib.runs import single_run, small_run, start
from experiments.bench._lib.timing import compile_step, time_in_turns
from hades.distillation import DatasetRun
from hades.fitness import draw_inits, fit_all
from hades.inner.cloning import BehaviourCloning
from hades.objectives.episodic_return import EpisodicReturn
from hades.run import RunState
from hades.types import PyTree, require_pure

_HEADER = ("part", "seconds", "of the iteration", "GFLOP", "of matrix rate", "GB", "of copy rate", "compile [s]")
_ENV = "gymnax/CartPole-v1"
# So that every step of a rollout is one of all candidates.
_WHOLE = ("--rollout-halvings", "0")
_GIGA = 1e9
_FLOAT_BYTES = 4
_COUNTS = {"flops": "flops", "bytes": "bytes accessed"}
_NOTHING = 1e-30


@dataclass(frozen=True, kw_only=True)
class RooflineSettings(BenchSettings):
    """Times the parts of an iteration of HaDES-R, and counts their work, beside rates that the device reaches.

    A preset may be of HaDES-F, too. All on one device. Cloning and a rollout are timed whole, and of the rollout the
    policy's forward passes and the simulator's steps each in a loop of its own; parts are not divided into chunks, nor
    rollouts halved. Work is what XLA counts in the step of a part, compiled for a CPU, times the steps: operations of
    float32, and bytes that would be moved if no two operations shared a cache. The matrix rate is of JAX's default
    precision, TF32 on GPUs of NVIDIA.
    """

    env: str | None = None
    """Environment; settings are those of its small preset, or the defaults. Default: gymnax/CartPole-v1."""
    preset: str | None = None
    """Preset of hades distill in place of an environment, such as paper/hopper-r; default: none."""
    repeats: int = 5
    """Measurements of each part; medians are reported."""
    matrix_size: int = 2048
    """Rows and columns of the matrices whose product is the matrix rate."""
    copy_megabytes: int = 256
    """Megabytes of the array whose copy is the copy rate."""
    flags: str = ""
    """More flags of hades distill in one string, such as --flags="--population-size 2048"."""

    def __post_init__(self) -> None:
        """Refuses numbers that are not positive, and an environment beside a preset, which has its own."""
        self.require_positive("repeats", "matrix_size", "copy_megabytes")
        if self.env is not None and self.preset is not None:
            raise ValueError(f"env: expected none beside a preset, which has its own, got {self.env}")


@dataclass(frozen=True)
class Part:
    """A part of an iteration.

    Attributes:
        function: What is timed.
        argument: Its argument.
        unit: What XLA counts the work of, which it cannot do of a whole loop; None counts nothing.
        units: Units in an iteration.
    """

    function: Callable[[PyTree], Any]
    argument: PyTree
    unit: Callable[[PyTree], Any] | None = None
    units: int = 0

    @classmethod
    def step(cls, function: Callable[[PyTree, PyTree], PyTree], shared: PyTree, carry: PyTree, times: int) -> Part:
        """A step `function(shared, carry)` to the next carry, timed in a loop like a rollout, and counted by itself."""

        def loop(argument: tuple[PyTree, PyTree]) -> PyTree:
            shared, carry = argument
            return jax.lax.fori_loop(0, times, lambda _, carry: function(shared, carry), carry)

        return cls(loop, (shared, carry), lambda argument: function(*argument), times)


def measure(settings: RooflineSettings, report: Report) -> None:
    """Measures the rates, and every part."""
    # First of all: a preset or a flag may be wrong.
    more = [*_WHOLE, *shlex.split(settings.flags), "--devices", "1"]
    if settings.preset is None:
        run, seed, flags = small_run("hades-r", settings.env or _ENV, more)
    else:
        flags = ["--preset", settings.preset, *more]
        run, seed = single_run(["distill", *flags])
    report.add(
        method=run.method, env=run.env.name, repeats=settings.repeats, rates=measure_rates(settings), flags=flags
    )
    run, state = start(run, seed)
    parts = {}
    for name, part in make_parts(cast(DatasetRun, run), state).items():
        tell(f"measuring {name} ...")
        parts[name] = measure_part(part, settings.repeats)
        report.add(parts=parts)
    report.add(peak_bytes=peak_bytes(), device_peak_bytes=device_peak_bytes())


def measure_rates(settings: RooflineSettings) -> dict[str, float]:
    """Rates of a large matrix product, `flops_per_second`, and of a copy, `bytes_per_second`, read and written."""
    size, length = settings.matrix_size, settings.copy_megabytes * 2**20 // _FLOAT_BYTES
    product = measure_part(Part(lambda x: x @ x, jnp.ones((size, size))), settings.repeats)
    # An addition: a plain copy would not be computed.
    copy = measure_part(Part(lambda x: x + 1, jnp.ones(length)), settings.repeats)
    return {
        "flops_per_second": 2 * size**3 / product["seconds"],
        "bytes_per_second": 2 * _FLOAT_BYTES * length / copy["seconds"],
    }


def make_parts(run: DatasetRun, state: RunState) -> dict[str, Part]:
    """Parts of the iteration that follows a state: all of it, cloning, the rollout, and inference and physics in it."""
    inner, objective = cast(BehaviourCloning, run.inner), cast(EpisodicReturn, run.objective)
    candidates = cast(Any, run.outer).population_size
    key = jax.random.key(0)
    draw = draw_inits(inner, key, run.num_inits, run.init_seed)
    dataset = jax.jit(run.outcome)(state).without_metadata()
    datasets = jax.tree.map(lambda leaf: jnp.repeat(leaf[None], candidates, axis=0), dataset)
    env, policy = require_pure(run.env), objective.policy
    normalizer = objective.normalizer(state.objective)
    play = objective.rollout
    params = jax.jit(partial(fit_all, inner, draw))(datasets)
    noise = jax.jit(play.draw)(jax.random.split(key, run.num_inits))
    # Episodes are played until the last one has ended.
    loops = int(np.max(jax.jit(play)(noise, params, normalizer).lengths))
    shape = (candidates, run.num_inits, objective.num_episodes)
    states, observations = jax.jit(over(env.reset, 3))(jax.random.split(key, shape))
    actions = jax.jit(partial(_act, policy))(params, observations)
    begun = (jnp.int32(0), states, observations, jnp.zeros(shape))

    def clone(loop: BehaviourCloning, datasets: PyTree) -> PyTree:
        return fit_all(loop, draw, datasets)

    one_step = dataclasses.replace(inner, num_steps=1, window=None)

    def infer(params: PyTree, observations: jax.Array) -> jax.Array:
        # Small enough to change nothing, and XLA cannot take the same actions out of the loop.
        return observations + _NOTHING * jnp.mean(_act(policy, params, observations).astype(jnp.float32))

    def simulate(shared: tuple[jax.Array, jax.Array], carry: tuple[jax.Array, PyTree, jax.Array, jax.Array]) -> PyTree:
        (keys, actions), (time, states, *_) = shared, carry
        # Random numbers of the same keys would be drawn once, before the loop.
        after = over(env.step, 3)(over(partial(jax.random.fold_in, data=time), 3)(keys), states, actions)
        return time + 1, after.state, after.observation, after.reward

    return {
        "iteration": Part(run.step, state),
        "cloning": Part(partial(clone, inner), datasets, unit=partial(clone, one_step), units=inner.num_steps),
        "rollout": Part(lambda params: play(noise, params, normalizer), params),
        "inference": Part.step(infer, params, observations, loops),
        "physics": Part.step(simulate, (jax.random.split(key, shape), actions), begun, loops),
    }


def over(function: Callable[..., Any], axes: int) -> Callable[..., Any]:
    """Maps a function over leading axes of all arguments."""
    for _ in range(axes):
        function = jax.vmap(function)
    return function


def _act(policy: Any, params: PyTree, observations: jax.Array) -> jax.Array:
    """Modes of the actions of policies `[candidates, inits]` for observations `[candidates, inits, episodes, ...]`."""
    return over(lambda params, seen: policy.apply(params, seen).mode(), 2)(params, observations)


def measure_part(part: Part, repeats: int) -> dict[str, Any]:
    """Measures a part.

    Returns:
        `seconds` and `cpu_seconds` (medians), `compile_seconds`, and, of parts with a unit, their number `units` and
        `flops` and `bytes` of all as XLA counts them.
    """
    compiled, compile_seconds = compile_step(part.function, part.argument)
    wall, cpu = time_in_turns({"part": compiled}, part.argument, repeats)
    return {
        "seconds": wall["part"]["median"],
        "cpu_seconds": cpu["part"]["median"],
        "compile_seconds": compile_seconds,
        **_work(part),
    }


def _work(part: Part) -> dict[str, float]:
    if part.unit is None:
        return {}
    # Of a GPU's program XLA does not count what its libraries compute, such as products.
    on_cpu = SingleDeviceSharding(_counting_device())
    shapes = jax.tree.map(lambda leaf: leaf.update(sharding=on_cpu), jax.eval_shape(lambda rows: rows, part.argument))
    counted = jax.jit(part.unit).lower(shapes).compile().cost_analysis() or {}
    work = {name: part.units * max(float(counted.get(key, 0.0)), 0.0) for name, key in _COUNTS.items()}
    return work | {"units": part.units}


def _counting_device() -> jax.Device:
    try:
        return jax.devices("cpu")[0]
    except RuntimeError:
        # JAX_PLATFORMS leaves the CPU out.
        return jax.devices()[0]


def render(result: Mapping[str, Any]) -> str:
    """Table of the parts."""
    rates, parts = result["rates"], result["parts"]
    whole = parts["iteration"]["seconds"]
    rows = [
        (
            name,
            f"{part['seconds']:.3g}",
            f"{part['seconds'] / whole:.0%}",
            *_of_rate(part, "flops", rates["flops_per_second"]),
            *_of_rate(part, "bytes", rates["bytes_per_second"]),
            f"{part['compile_seconds']:.1f}",
        )
        for name, part in parts.items()
    ]
    flops, copied = rates["flops_per_second"] / _GIGA, rates["bytes_per_second"] / _GIGA
    rate = f"matrix rate {flops:.3g} GFLOP/s, copy rate {copied:.3g} GB/s"
    title = f"an iteration of {result['method']} on {result['env']}; {rate}"
    return tables.table(title, _HEADER, rows, width=120)


def _of_rate(part: Mapping[str, Any], name: str, rate: float) -> tuple[str, str]:
    """Work in billions, and the share of a rate at which it was done."""
    if name not in part:
        return "", ""
    return f"{part[name] / _GIGA:.3g}", f"{part[name] / part['seconds'] / rate:.1%}"


BENCH = Bench(RooflineSettings, measure, render)
