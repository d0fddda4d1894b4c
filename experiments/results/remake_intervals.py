"""Intervals of the stored results, made again from the returns that are stored beside them.

From the root of the repository: python -m experiments.results.remake_intervals
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from experiments import tables
from experiments.bench import budget, neuroevolution
from experiments.bench._lib.results import write
from experiments.curves import Curve
from experiments.pictures.budget import draw_budget
from experiments.pictures.comparison import draw_comparison
from hades._files import write_atomically
from hades.statistics import mean_interval, probability_of_improvement

RESULTS = Path(__file__).parent


def remake(node: dict[str, Any]) -> None:
    """Replaces `ci95` of one entry by an interval of the samples beside it, and names its kind in `interval`.

    Where the samples are not stored, the old interval stays, and is named as what it is.
    """
    if "iqm" in node:
        scores = node["scores"] if "scores" in node else [seed["last policy"]["mean"] for seed in node["seeds"]]
        if node["iqm"] is not None:
            score = tables.score(np.array(scores))
            node |= {"ci95": score["ci95"], "interval": score["interval"]}
    elif len(node.get("per_init") or ()) > 1:
        node |= _mean(np.array(node["per_init"]), "inits")
    elif "score" in node:
        node |= _mean(np.array(node["scores"]), "episodes")
    elif len(node.get("per_init") or ()) == 1:
        # A single policy: the deviation is that of its episodes, whose returns are not stored.
        count = node["num_episodes"]
        reach = special.stdtrit(count - 1, 0.975) * node["std"] / math.sqrt(count - 1)
        ends = [node["mean"] - reach, node["mean"] + reach]
        node |= {"ci95": ends, "interval": f"Student's t over {count} episodes"}
    elif "probability" not in node and node["ci95"] is not None:
        node["interval"] = "percentile bootstrap, whose samples were not stored"


def _mean(values: np.ndarray, samples: str) -> dict[str, Any]:
    return {"ci95": tables.ends(mean_interval(values)), "interval": f"Student's t over {len(values)} {samples}"}


def entries(tree: Any) -> Iterator[dict[str, Any]]:
    """All dictionaries with a `ci95` in a nest of lists and dictionaries."""
    if isinstance(tree, dict) and "ci95" in tree:
        yield tree
    if isinstance(tree, list | dict):
        for child in tree.values() if isinstance(tree, dict) else tree:
            yield from entries(child)


def remake_file(path: Path) -> dict[str, Any]:
    """Makes the intervals of one JSON file again; returns what it then holds."""
    text = path.read_text()
    report: dict[str, Any] = json.loads(text)
    for node in list(entries(report)):
        remake(node)
    for ours, others in report.get("probability_of_improvement", {}).items():
        for theirs, entry in others.items():
            mine, other = (np.array(report["methods"][name]["at_equal_steps"]["scores"]) for name in (ours, theirs))
            entry["probability"], entry["ci95"] = probability_of_improvement(mine, other)
    if "intervals_apart" in report:
        ours, theirs = (report["methods"][name]["ci95"] for name in ("cal-ql", "behaviour cloning"))
        report["intervals_apart"] = bool(ours[0] > theirs[1])
    if report != json.loads(text):
        indent = len(text.splitlines()[1]) - len(text.splitlines()[1].lstrip())
        write_atomically(path, json.dumps(report, indent=indent) + "\n")
    return report


def _curve(run: Mapping[str, Any], summary: Mapping[str, Any]) -> Curve:
    steps, seconds, returns = (np.array(run[name], float) for name in ("env_steps", "seconds", "returns"))
    return Curve(steps, seconds, returns, {"evaluations": summary})


def remake_neuroevolution(reports: Mapping[Path, Mapping[str, Any]]) -> None:
    """Tables and pictures of the environments, and of those that were run by one command together."""
    for path, report in reports.items():
        methods = list(report["methods"])
        num_seeds = len(report["methods"][methods[0]]["at_equal_steps"]["scores"])
        command = shlex.join(report["command"])
        write_atomically(path.with_suffix(".md"), neuroevolution.markdown(report["env"], report, num_seeds, command))
        curves = {
            method: [_curve(run, run["evaluations"]) for run in report["runs"] if run["method"] == method]
            for method in methods
        }
        note = neuroevolution.picture_note(num_seeds, report["git_commit"])
        references = {"untrained policy": report["untrained"]}
        draw_comparison(curves, path.with_suffix(".png"), report["env"], references, note)
    folder = RESULTS / "neuroevolution"
    result = json.loads((folder / "together.json").read_text())
    environments = {report["env"]: report for report in reports.values() if report["command"] == result["command"]}
    # In the order of the command, which is that of the sums.
    ordered = {env: environments[env] for env in result["command"] if env in environments}
    result["together"] = neuroevolution.together(ordered)
    result["interval"] = neuroevolution.TOGETHER_NOTE
    write(result, folder / "together.json")
    text = neuroevolution.together_markdown(len(ordered), result["together"], shlex.join(result["command"]))
    write_atomically(folder / "together.md", text)


def main() -> None:
    """Makes all intervals, tables and pictures of this folder again."""
    reports = {path: remake_file(path) for path in sorted(RESULTS.rglob("*.json")) if path.name != "together.json"}
    remake_neuroevolution({path: report for path, report in reports.items() if path.parent.name == "neuroevolution"})
    readme = RESULTS / "offline" / "README.md"
    text = readme.read_text()
    for table in offline_tables(
        {path.stem: report for path, report in reports.items() if path.parent == readme.parent}
    ):
        text = replace_table(text, table)
    write_atomically(readme, text)
    for path, report in reports.items():
        if path.parent.name == "budget":
            sizes = {int(size): entry for size, entry in report["sizes"].items()}
            title = budget.title("hades-r", report["env"], report["env_steps"])
            write_atomically(path.with_suffix(".md"), budget.markdown(title, sizes, shlex.join(report["command"])))
            draw_budget(sizes, path.with_suffix(".png"), title)
        if path.parent.name == "ppo":
            curves = {"ppo": [_curve(seed | {"seconds": _seconds(report, seed)}, seed) for seed in report["seeds"]]}
            untrained = float(np.mean([seed["untrained policy"]["mean"] for seed in report["seeds"]]))
            note = f"{len(report['seeds'])} seeds at once; {shlex.join(report['command'])}"
            title, references = f"PPO, {report['env']}", {"untrained policy": untrained}
            draw_comparison(curves, path.with_suffix(".png"), title, references, note)


OFFLINE_ROWS = {
    "untrained policy": "untrained policy",
    "zero dataset": "zero dataset",
    "random real pairs": "random real pairs",
    "dbc": "DBC",
    "pbc": "PBC",
    "pbc-mean-weight": "PBC times the mean weight (control)",
    "av-pbc": "Av-PBC",
    "sdw-av-pbc": "SDW over Av-PBC, tau 0.25",
    "av-pbc, ensemble of 10": "Av-PBC, ensemble of 10",
    "behaviour cloning on all data": "behaviour cloning on all data",
    "teacher": "teacher",
}
BODIES = {"Hopper": "hopper", "HalfCheetah": "halfcheetah", "Walker2d": "walker2d"}


def offline_tables(reports: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """The Markdown tables of `offline/README.md`: scores of the three bodies, of architectures, and of optimisers.

    Args:
        reports: What the JSON files of the folder hold, by name.
    """
    scores = [
        (title, *(_cell(reports[body]["rows"][name]) for body in BODIES.values()))
        for name, title in OFFLINE_ROWS.items()
    ]
    transfer = reports["transfer_hopper"]
    rows = {row["name"]: row for table in transfer["tables"].values() for row in table}
    architectures = {
        "2 (own)": "mlp 2x64 relu, sgd",
        **{str(depth): f"mlp {depth}x64 relu, sgd" for depth in (3, 4, 5, 6)},
        "residual, 2": "residual_mlp 2x64 relu, sgd",
    }
    optimisers = {
        "SGD 0.05 (own)": "mlp 2x64 relu, sgd",
        "SGD, momentum 0.9, 0.05": "sgd, mom. 0.9, rate 0.05",
        "Adam 0.005": "adam, rate 0.005",
        "AdamW 0.005, decay 0.01": "adamw, rate 0.005",
        "ensemble of 10, SGD": "ensemble of 10",
    }
    return [
        tables.markdown(("normalised score, N = 64, 5 seeds", *BODIES), scores),
        tables.markdown(
            ("layers of 64", *architectures, "untrained"),
            [
                (
                    "score",
                    *(_cell(rows[n]) for n in architectures.values()),
                    _cell(transfer["references"]["untrained policy"]),
                )
            ],
        ),
        tables.markdown(("optimiser", *optimisers), [("score", *(_cell(rows[name]) for name in optimisers.values()))]),
    ]


def _cell(row: Mapping[str, Any]) -> str:
    low, high = row["ci95"]
    return f"{row['iqm']:.1f} [{low:.1f}, {high:.1f}]"


def replace_table(text: str, table: list[str]) -> str:
    """Puts a Markdown table in the place of the one with the same header."""
    lines = text.splitlines()
    begin = lines.index(table[0])
    end = next(index for index in range(begin, len(lines)) if not lines[index].startswith("|"))
    return "\n".join([*lines[:begin], *table, *lines[end:]]) + "\n"


def _seconds(report: Mapping[str, Any], seed: Mapping[str, Any]) -> list[float]:
    """Seconds of training up to each evaluation; all seeds take theirs at once, at an even pace."""
    return [report["seconds"] * steps / report["env_steps"] for steps in seed["env_steps"]]


if __name__ == "__main__":
    main()
