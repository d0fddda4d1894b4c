"""`hades bench neuroevolution`: HaDES-R, HaDES-F, ES and PPO on one axis of environment steps, and one of seconds."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import envs
from experiments import tables
from experiments.arguments import parse
from experiments.bench._lib.results import deliver, provenance
from experiments.bench._lib.runs import METHODS, Job, Method, parse_seeds, run_all
from experiments.cli import BadArgumentsError
from experiments.curves import Curve
from experiments.pictures.comparison import draw_comparison
from hades._files import write_atomically
from hades._validation import require_positive
from hades.statistics import interquartile_interval, interquartile_mean, probability_of_improvement

_HEADER = (
    "method",
    "at equal steps",
    "95 % trimmed t interval",
    "at equal time",
    "95 % trimmed t interval",
    "seconds",
    "steps/s",
)
_TOGETHER = ("method", "interquartile mean", "95 % trimmed t interval")
TOGETHER_NOTE = (
    "Over all seeds and environments at equal environment steps; the spread is that of seeds within environments."
)


@dataclass(frozen=True, kw_only=True)
class NeuroevolutionBenchSettings:
    """Compares methods at equal environment steps and at equal training time, over several seeds.

    Every method has its small preset for the environment, or its defaults where there is none: the same network, and
    for ES the same population and episodes as HaDES. What is scored is the mean of the search distribution (of PPO the
    policy, of HaDES fresh policies trained on the mean dataset) on keys that neither training nor selection has seen,
    the last score up to that place. Actions are as each preset says: PPO samples them.
    Numbers are interquartile means over seeds with trimmed t intervals. Runs that are there are not run again.
    """

    env: tuple[str, ...] = ("gymnax/CartPole-v1",)
    """Environments, each compared on its own."""
    methods: tuple[Method, ...] = METHODS
    """Methods to compare."""
    seeds: str = "0-4"
    """Seeds, such as 0-4 or 0,2,5."""
    env_steps: int = 2_000_000
    """Environment steps of training that each run takes."""
    jobs: int = 1
    """Processes at the same time. More than one makes seconds depend on each other."""
    runs: Path = Path("runs/neuroevolution")
    """Folder of the run directories."""
    out: Path = Path("runs/neuroevolution")
    """Folder of the results: for each environment a JSON file, a Markdown table and a picture."""
    flags: str = ""
    """More flags of hades distill and hades baseline in one string, such as --flags="--evaluate-every 10"."""
    json: bool = False
    """Prints one JSON object as the last line of stdout, and everything else on stderr."""

    def __post_init__(self) -> None:
        """Refuses seeds that are none, and counts that are not positive."""
        parse_seeds(self.seeds)
        require_positive("env_steps", self.env_steps)
        require_positive("jobs", self.jobs)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark and returns its exit code."""
    settings = parse(NeuroevolutionBenchSettings, "bench neuroevolution", arguments)
    for env in settings.env:
        try:
            envs.make(env)
        except ValueError as error:
            raise BadArgumentsError(f"--env: {error}") from None
    settings.out.mkdir(parents=True, exist_ok=True)
    result = provenance("neuroevolution", arguments) | {"env_steps": settings.env_steps, "environments": {}}
    for env in settings.env:
        result["environments"][env] = _compare(settings, env, arguments)
    if len(settings.env) > 1:
        result["together"] = together(result["environments"])
        title = _together_title(len(settings.env))
        print(tables.table(title, _TOGETHER, _together_rows(result["together"])))
        command = shlex.join(["hades", "bench", "neuroevolution", *arguments])
        text = together_markdown(len(settings.env), result["together"], command)
        write_atomically(settings.out / "together.md", text)
        deliver(
            {name: value for name, value in result.items() if name != "environments"},
            settings.out / "together.json",
            False,
        )
    deliver(result, None, settings.json)
    return 0


def together(environments: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[float, tuple[float, float]]]:
    """Scores over several environments: of each method the interquartile mean over all runs, and its interval.

    Scores are those at equal steps, scaled in each environment so that the mean of untrained policies is 0 and the
    interquartile mean of the best method is 1; the spread is that of seeds within environments.
    """
    strata: dict[str, list[np.ndarray]] = {}
    for report in environments.values():
        zero = report["untrained"]
        scale = max(method["at_equal_steps"]["iqm"] for method in report["methods"].values()) - zero
        if scale <= 0:
            # No method has learned anything there, which sets no scale.
            continue
        for name, method in report["methods"].items():
            strata.setdefault(name, []).append((np.array(method["at_equal_steps"]["scores"]) - zero) / scale)
    return {
        name: (float(interquartile_mean(np.concatenate(runs))), interquartile_interval(runs))
        for name, runs in strata.items()
    }


def together_markdown(num_envs: int, scores: Mapping[str, tuple[float, tuple[float, float]]], command: str) -> str:
    """The table of `together`, with the command that made it."""
    rows = tables.markdown(_TOGETHER, _together_rows(scores))
    return "\n".join([f"# {_together_title(num_envs)}", "", TOGETHER_NOTE, "", *rows, "", f"`{command}`", ""])


def _together_title(num_envs: int) -> str:
    return f"{num_envs} environments together: 0 an untrained policy, 1 the best method on each"


def _together_rows(scores: Mapping[str, tuple[float, tuple[float, float]]]) -> list[tuple[str, ...]]:
    return [(method, f"{iqm:.3f}", f"[{low:.3f}, {high:.3f}]") for method, (iqm, (low, high)) in scores.items()]


def picture_note(num_seeds: int, git_commit: str | None) -> str:
    """The line below the headline of a picture."""
    return f"{num_seeds} seeds; interquartile mean and 95 % trimmed t interval; git {git_commit or 'unknown'}"


def _compare(settings: NeuroevolutionBenchSettings, env: str, arguments: Sequence[str]) -> dict[str, Any]:
    seeds, name = parse_seeds(settings.seeds), env.replace("/", "-")
    jobs = [
        Job(method, env, seed, settings.runs / name / f"{method}-seed{seed}", settings.env_steps,
            tuple(shlex.split(settings.flags)))
        for method, seed in product(settings.methods, seeds)
    ]  # fmt: skip
    found = run_all(jobs, settings.jobs)
    curves = {
        method: [curve for job, curve in zip(jobs, found, strict=True) if job.method == method]
        for method in settings.methods
    }
    compared = compare(curves, settings.env_steps)
    report = provenance("neuroevolution", arguments) | {"env": env, **compared}
    untrained = float(np.mean([curve.untrained for curve in found]))
    report["untrained"] = untrained
    report["runs"] = [
        {"method": job.method, "seed": job.seed, "command": ["hades", *job.command], **_entry(curve)}
        for job, curve in zip(jobs, found, strict=True)
    ]
    deliver(report, settings.out / f"{name}.json", False)
    command = shlex.join(["hades", "bench", "neuroevolution", *arguments])
    write_atomically(settings.out / f"{name}.md", markdown(env, compared, len(seeds), command))
    draw_comparison(
        curves,
        settings.out / f"{name}.png",
        env,
        {"untrained policy": untrained},
        picture_note(len(seeds), report["git_commit"]),
    )
    print(tables.table(f"{env}, {settings.env_steps:,} environment steps", _HEADER, _rows(compared)))
    return report


def compare(curves: Mapping[Method, Sequence[Curve]], env_steps: int) -> dict[str, Any]:
    """Scores of methods on one environment.

    Args:
        curves: Runs of each method.
        env_steps: Where the axis of environment steps ends.

    Returns:
        `methods`: of each method the scores of its runs `at_equal_steps` and `at_equal_seconds`, their interquartile
        mean and interval; `equal_seconds`, the training time of the quickest run; `probability_of_improvement` of
        each method over each other one at equal steps.
    """
    # The longest time that every run has trained for.
    seconds = min(curve.seconds[-1] for runs in curves.values() for curve in runs)
    returns = np.concatenate([curve.returns for runs in curves.values() for curve in runs])
    worst = float(np.min(returns, where=np.isfinite(returns), initial=np.inf))

    def finite(values: np.ndarray) -> np.ndarray:
        # A score that is not finite counts as the worst return of all methods.
        return np.where(np.isfinite(values), values, worst)

    methods: dict[str, Any] = {}
    for method, runs in curves.items():
        places = {"at_equal_steps": ("env_steps", env_steps), "at_equal_seconds": ("seconds", seconds)}
        methods[method] = {
            name: tables.score(finite(np.array([float(curve.at(axis, np.array(place))) for curve in runs])))  # type: ignore[arg-type]
            for name, (axis, place) in places.items()
        }
        times, steps = (np.array([getattr(curve, name)[-1] for curve in runs]) for name in ("seconds", "env_steps"))
        methods[method] |= {"seconds": float(np.median(times)), "steps_per_second": float(np.median(steps / times))}
    wins = {
        ours: {
            theirs: dict(
                zip(
                    ("probability", "ci95"),
                    probability_of_improvement(
                        np.array(methods[ours]["at_equal_steps"]["scores"]),
                        np.array(methods[theirs]["at_equal_steps"]["scores"]),
                    ),
                    strict=True,
                )
            )
            for theirs in curves
            if theirs != ours
        }
        for ours in curves
    }
    return {
        "env_steps": env_steps,
        "equal_seconds": float(seconds),
        "methods": methods,
        "probability_of_improvement": wins,
    }


def _entry(curve: Curve) -> dict[str, Any]:
    return {
        "env_steps": curve.env_steps.tolist(),
        "seconds": curve.seconds.tolist(),
        "returns": curve.returns.tolist(),
        "evaluations": curve.summary["evaluations"],
        "git_commit": curve.git_commit,
    }


def _rows(compared: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for method, scores in compared["methods"].items():
        cells = [method]
        for name in ("at_equal_steps", "at_equal_seconds"):
            cells += [f"{scores[name]['iqm']:.4g}", tables.interval(scores[name]["ci95"])]
        rows.append((*cells, f"{scores['seconds']:.3g}", f"{scores['steps_per_second']:.3g}"))
    return rows


def _win(win: Mapping[str, Any]) -> str:
    low, high = win["ci95"]
    return f"{win['probability']:.2f} [{low:.2f}, {high:.2f}]"


def markdown(env: str, compared: Mapping[str, Any], num_seeds: int, command: str) -> str:
    """The tables of what `compare` returns, with the command that made it."""
    wins = compared["probability_of_improvement"]
    methods = list(wins)
    lines = [
        f"# {env}: return on fresh keys",
        "",
        f"Interquartile mean over {num_seeds} seeds and its 95 % trimmed t interval, after "
        f"{compared['env_steps']:,} environment steps and after {compared['equal_seconds']:.3g} s of training "
        "(compilation and evaluation left out): the last evaluation up to there, or untrained policies before the "
        "first. Each score is that of the mean of the search distribution, or of the policy of PPO, not of a "
        "population.",
        "",
        *tables.markdown(_HEADER, _rows(compared)),
        "",
        "Probability that a run of the row beats one of the column at equal steps, with its 95 % score interval:",
        "",
        *tables.markdown(
            ("", *methods),
            [(ours, *("" if theirs == ours else _win(wins[ours][theirs]) for theirs in methods)) for ours in methods],
        ),
        "",
        f"`{command}`",
        "",
    ]
    return "\n".join(lines)
