"""`hades bench ppo`: several seeds of PPO at once, in one compiled function mapped over seeds."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import tables
from experiments.bench._lib.base import Bench, Report, SeedsBenchSettings, find_preset, tell
from experiments.bench._lib.seeds import init_seeds, of_seed
from experiments.bench._lib.timing import compile_step
from experiments.curves import Curve
from experiments.pictures.canvas import write_figure
from experiments.pictures.comparison import comparison_figure
from experiments.presets import Preset
from hades import recipes
from hades.evaluation import Evaluation
from hades.keys import Stream, stream
from hades.run import Run
from hades.training import advance

_HEADER = ("seed", "return", "95 % t interval", "untrained policy")


@dataclass(frozen=True, kw_only=True)
class PPOBenchSettings(SeedsBenchSettings):
    """Trains PPO with several seeds side by side, and scores each policy on fresh keys along the way.

    The learning rate falls to zero at the end, where the preset anneals it at all. A picture stands beside --out.
    """

    preset: str = "cartpole"
    """Preset of hades baseline ppo."""
    env_steps: int = 409_600
    """Environment steps of training of each seed."""
    evaluations: int = 20
    """Evaluations of each policy, evenly spread over its training."""
    num_episodes: int = 64
    """Episodes of each of these evaluations."""

    def __post_init__(self) -> None:
        """Refuses also counts that are not positive."""
        super().__post_init__()
        self.require_positive("env_steps", "evaluations", "num_episodes")


def measure(settings: PPOBenchSettings, report: Report) -> None:
    """Trains all seeds at once, and draws their curves."""
    seeds = settings.seed_numbers
    run, updates = _build(find_preset("preset", "baseline ppo", settings.preset), settings)
    curves, compile_seconds = train(run, seeds, updates, settings.evaluations, settings.num_episodes)
    finals = [curve.summary["evaluations"] for curve in curves]
    score = tables.score(np.array([final["last policy"]["mean"] for final in finals]))
    report.add(
        env=run.env.name,
        env_options=dict(run.env.options),
        env_steps=float(curves[0].env_steps[-1]),
        compile_seconds=compile_seconds,
        seconds=float(curves[0].seconds[-1]),
        iqm=score["iqm"],
        ci95=score["ci95"],
        seeds=[
            {"seed": seed, "env_steps": curve.env_steps.tolist(), "returns": curve.returns.tolist(), **final}
            for seed, curve, final in zip(seeds, curves, finals, strict=True)
        ],
    )
    if report.file is not None:
        untrained = float(np.mean([final["untrained policy"]["mean"] for final in finals]))
        note = f"{len(seeds)} seeds at once; {report.command}"
        figure = comparison_figure({"ppo": curves}, f"PPO, {run.env.name}", {"untrained policy": untrained}, note)
        write_figure(figure, report.file.with_suffix(".png"))


def _build(preset: Preset, bench: PPOBenchSettings) -> tuple[Run[Any], int]:
    """The run, and its number of updates."""
    settings = preset.settings
    every = max(1, round(bench.env_steps / settings.env_steps / bench.evaluations))
    updates = every * bench.evaluations
    if settings.anneal_updates is not None:
        settings = dataclasses.replace(settings, anneal_updates=updates)
    return recipes.from_settings(preset.options.make(preset.env or ""), settings), updates


def train(
    run: Run[Any], seeds: Sequence[int], updates: int, evaluations: int, num_episodes: int
) -> tuple[list[Curve], float]:
    """Trains all seeds at once.

    Args:
        run: Run of PPO.
        seeds: Seeds of the runs.
        updates: Updates of each, a multiple of `evaluations`.
        evaluations: Evaluations of each policy, evenly spread.
        num_episodes: Episodes of each score.

    Returns:
        A curve for each seed, whose seconds are those of all seeds together, and the seconds of compilation.
    """
    keys = [jax.random.key(seed) for seed in seeds]
    states = init_seeds(run, jnp.stack(keys))
    every = np.int32(updates // evaluations)
    # One row of metrics, which nothing reads.
    several = jax.vmap(partial(advance, rows=1, log_every=int(every)), in_axes=(None, 0, None))
    compiled, compile_seconds = compile_step(several, run, states, every)
    outcomes = jax.jit(jax.vmap(run.outcome))
    evaluator, seconds = run.make_evaluator(1, num_episodes), 0.0
    rows: list[tuple[int, float, list[Evaluation]]] = []
    for index in range(1, evaluations + 1):
        started = time.perf_counter()
        states, _ = jax.block_until_ready(compiled(run, states, every))
        seconds += time.perf_counter() - started
        policies = outcomes(states)
        scored = [
            evaluator(stream(key, Stream.TABLE, index * int(every)), of_seed(policies, place))
            for place, key in enumerate(keys)
        ]
        rows.append((index * int(every) * run.settings.env_steps, seconds, scored))
        mean = np.mean([evaluation.mean for evaluation in scored])
        tell(f"{rows[-1][0]:,} steps, return {mean:.4g}, {seconds:.0f} s")
    curves = []
    for place, key in enumerate(keys):
        references = evaluator.references(stream(key, Stream.REPORT), of_seed(policies, place))
        named = {"last policy": rows[-1][2][place], **references}
        summary = {"evaluations": {name: tables.summary(value) for name, value in named.items()}}
        steps, times = (np.array([row[column] for row in rows], float) for column in (0, 1))
        curves.append(Curve(steps, times, np.array([row[2][place].mean for row in rows]), summary))
    return curves, compile_seconds


def render(result: Mapping[str, Any]) -> str:
    """Table of the seeds, and their interquartile mean."""
    rows = [
        (
            str(seed["seed"]),
            *tables.estimate(seed["last policy"]),
            f"{seed['untrained policy']['mean']:.4g}",
        )
        for seed in result["seeds"]
    ]
    text = f"interquartile mean {' '.join(tables.estimate(result, 'iqm'))}"
    spent = f"after {result['env_steps']:,.0f} steps each, {result['seconds']:.1f} s for all seeds at once"
    table = tables.table(f"PPO, {result['env']}", _HEADER, rows)
    return f"{table}\n{text} {spent}"


BENCH = Bench(PPOBenchSettings, measure, render)
