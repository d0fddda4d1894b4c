"""`hades bench ppo`: several seeds of PPO at once, in one compiled function mapped over seeds."""

from __future__ import annotations

import dataclasses
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import tables
from experiments.arguments import parse
from experiments.bench._lib.results import deliver, provenance
from experiments.bench._lib.runs import parse_seeds
from experiments.cli import BadArgumentsError
from experiments.curves import Curve
from experiments.pictures.comparison import draw_comparison
from experiments.presets import Preset, get_preset
from hades import recipes
from hades._validation import require_positive
from hades.evaluation import Evaluation
from hades.run import Run, RunState

_HEADER = ("seed", "return", "95 % t interval", "untrained policy")


@dataclass(frozen=True, kw_only=True)
class PPOBenchSettings:
    """Trains PPO with several seeds side by side, and scores each policy on fresh keys along the way.

    The learning rate falls to zero at the end, where the preset anneals it at all.
    """

    preset: str = "cartpole"
    """Preset of hades baseline ppo."""
    seeds: str = "0-4"
    """Seeds, such as 0-4 or 0,2,5."""
    env_steps: int = 409_600
    """Environment steps of training of each seed."""
    evaluations: int = 20
    """How often each policy is scored on the way."""
    num_episodes: int = 64
    """Episodes of each of these evaluations."""
    out: Path | None = None
    """JSON file to write; a picture of its name stands beside it."""
    json: bool = False
    """Prints one JSON object as the last line of stdout, and everything else on stderr."""

    def __post_init__(self) -> None:
        """Refuses seeds that are none, and counts that are not positive."""
        parse_seeds(self.seeds)
        for name in ("env_steps", "evaluations", "num_episodes"):
            require_positive(name, getattr(self, name))


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark and returns its exit code."""
    settings = parse(PPOBenchSettings, "bench ppo", arguments)
    try:
        chosen = get_preset("baseline ppo", settings.preset)
    except ValueError as error:
        raise BadArgumentsError(f"--{error}") from None
    seeds = parse_seeds(settings.seeds)
    run, updates = _build(chosen, settings.env_steps, settings.evaluations)
    curves, compile_seconds = train(run, seeds, updates, settings.evaluations, settings.num_episodes)
    finals = [curve.summary["evaluations"] for curve in curves]
    scores = np.array([final["last policy"]["mean"] for final in finals])
    score = tables.score(scores)
    result = provenance("ppo", arguments) | {
        "env": run.env.name,
        "env_options": dict(run.env.options),
        "env_steps": float(curves[0].env_steps[-1]),
        "compile_seconds": compile_seconds,
        "seconds": float(curves[0].seconds[-1]),
        "iqm": score["iqm"],
        "ci95": score["ci95"],
        "interval": score["interval"],
        "seeds": [
            {"seed": seed, "env_steps": curve.env_steps.tolist(), "returns": curve.returns.tolist(), **final}
            for seed, curve, final in zip(seeds, curves, finals, strict=True)
        ],
    }
    print(tables.table(f"PPO, {run.env.name}", _HEADER, [_row(*pair) for pair in zip(seeds, finals, strict=True)]))
    text = f"interquartile mean {score['iqm']:.4g} {tables.interval(score['ci95'])} ({score['interval']})"
    print(f"{text} after {result['env_steps']:,.0f} steps each, {result['seconds']:.1f} s for all seeds at once")
    if settings.out is not None:
        settings.out.parent.mkdir(parents=True, exist_ok=True)
        untrained = float(np.mean([final["untrained policy"]["mean"] for final in finals]))
        note = f"{len(seeds)} seeds at once; {shlex.join(result['command'])}"
        picture = settings.out.with_suffix(".png")
        draw_comparison({"ppo": curves}, picture, f"PPO, {run.env.name}", {"untrained policy": untrained}, note)
    deliver(result, settings.out, settings.json)
    return 0


def _build(chosen: Preset, env_steps: int, evaluations: int) -> tuple[Run[Any], int]:
    settings = chosen.settings
    every = max(1, round(env_steps / settings.env_steps / evaluations))
    updates = every * evaluations
    if settings.anneal_updates is not None:
        settings = dataclasses.replace(settings, anneal_updates=updates)
    return recipes.from_settings(chosen.options.make(chosen.env or ""), settings), updates


def train(
    run: Run[Any], seeds: Sequence[int], updates: int, evaluations: int, num_episodes: int
) -> tuple[list[Curve], float]:
    """Trains all seeds at once.

    Args:
        run: What `recipes.ppo` builds.
        seeds: Of the runs.
        updates: Of each, a multiple of `evaluations`.
        evaluations: How often each policy is scored.
        num_episodes: Episodes of each score.

    Returns:
        A curve for each seed, whose seconds are those of all seeds together, and the seconds of compilation.
    """
    keys = [jax.random.key(seed) for seed in seeds]
    states = jax.jit(jax.vmap(run.init))(jax.numpy.stack(keys))
    every = updates // evaluations

    def advance(state: RunState) -> RunState:
        return jax.lax.fori_loop(0, every, lambda _, state: run.step(state)[0], state)

    started = time.perf_counter()
    compiled = jax.jit(jax.vmap(advance)).lower(states).compile()
    compile_seconds = time.perf_counter() - started
    evaluator, seconds = run.make_evaluator(1, num_episodes), 0.0
    rows: list[tuple[int, float, list[Evaluation]]] = []
    for done in range(every, updates + 1, every):
        started = time.perf_counter()
        states = jax.block_until_ready(compiled(states))
        seconds += time.perf_counter() - started
        policies = jax.vmap(run.outcome)(states)
        scored = [
            # A stream of keys that training does not use.
            evaluator(jax.random.fold_in(jax.random.fold_in(key, 2**32 - 6), done), _pick(policies, index))
            for index, key in enumerate(keys)
        ]
        rows.append((done * run.settings.env_steps, seconds, scored))
        mean = np.mean([evaluation.mean for evaluation in scored])
        print(f"{rows[-1][0]:,} steps, return {mean:.4g}, {seconds:.0f} s", file=sys.stderr, flush=True)
    curves = []
    for index, key in enumerate(keys):
        final = _pick(jax.vmap(run.outcome)(states), index)
        references = evaluator.references(jax.random.fold_in(key, 2**32 - 4), final)
        named = {"last policy": rows[-1][2][index], **references}
        summary = {"evaluations": {name: tables.summary(value) for name, value in named.items()}}
        steps, times = (np.array([row[place] for row in rows], float) for place in (0, 1))
        curves.append(Curve(steps, times, np.array([row[2][index].mean for row in rows]), summary))
    return curves, compile_seconds


def _pick(tree: Any, index: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)


def _row(seed: int, final: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(seed),
        f"{final['last policy']['mean']:.4g}",
        tables.interval(final["last policy"]["ci95"]),
        f"{final['untrained policy']['mean']:.4g}",
    )
