"""Runs of every method as benchmarks start them: one process each, resumable, and read back as curves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from experiments.curves import Curve, read_curve
from experiments.presets import PRESETS, get_preset
from experiments.processes import command
from hades._files import write_atomically
from hades._run_directory import RunDirectory
from hades.rl.settings import PPOSettings

Method = Literal["hades-r", "hades-f", "es", "ppo"]
METHODS: tuple[Method, ...] = get_args(Method)
_ENDLESS = 10**6
_COMMAND_FILE = "bench_command.json"
# A generation takes as many environment steps as its episodes last, an update of PPO always the same number.
_GENERATIONS, _EVALUATIONS = 5, 40


@dataclass(frozen=True)
class Job:
    """One run: a method on an environment with a seed.

    Attributes:
        method: Which one.
        env: Environment.
        seed: Of the run.
        out: Its run directory.
        budget: Environment steps after which it ends.
        flags: More flags of the command.
    """

    method: Method
    env: str
    seed: int
    out: Path
    budget: int
    flags: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        """The arguments of `hades` that begin or resume the run."""
        flags = [*method_flags(self.method, self.env, self.budget), "--seed", str(self.seed)]
        return [*flags, "--out", str(self.out), "--resume", *self.flags]


def method_flags(method: Method, env: str, budget: int) -> list[str]:
    """The verb and the flags that make a method comparable with the others on an environment, up to a budget.

    All have the network of the small preset of HaDES for the environment, where there is one; the learning rate of PPO
    falls to zero at the end of the budget.

    Args:
        method: Which one.
        env: Environment.
        budget: Environment steps.
    """
    name = small_preset(method, env)
    begin = ["--env", env] if name is None else ["--preset", name]
    begin += ["--num-generations", str(_ENDLESS), "--max-env-steps", str(budget)]
    if method == "hades-r":
        return ["distill", *begin, *_evaluated_every(_GENERATIONS)]
    if method == "hades-f":
        return ["distill", *begin, "--method", "hades-f", "--num-inits", "1", *_evaluated_every(_GENERATIONS)]
    if method == "es":
        return ["baseline", "es", *begin, *_evaluated_every(_GENERATIONS)]
    settings = PPOSettings() if name is None else get_preset("baseline ppo", name).settings
    updates = max(1, budget // settings.env_steps)
    flags = ["--anneal-updates", str(updates), *_evaluated_every(max(1, updates // _EVALUATIONS))]
    distilled = small_preset("hades-r", env)
    if distilled is not None:
        network = get_preset("distill", distilled).settings.cloning
        flags += ["--network.activation", network.activation, "--network.hidden-sizes", *map(str, network.hidden_sizes)]
    return ["baseline", "ppo", *begin, *flags]


def _evaluated_every(generations: int) -> list[str]:
    return ["--generations-per-call", str(generations), "--evaluate-every", str(generations)]


def small_preset(method: Method, env: str) -> str | None:
    """The first preset for an environment that is not a published one, None where there is none."""
    presets = PRESETS[{"es": "baseline es", "ppo": "baseline ppo"}.get(method, "distill")]
    return next((name for name, make in presets.items() if not name.startswith("paper/") and make().env == env), None)


def run_all(jobs: Iterable[Job], at_once: int) -> list[Curve]:
    """Runs every job in a process of its own, and reads what they left.

    Args:
        jobs: Runs that were done before are read only.
        at_once: Processes at the same time; more than one makes their seconds depend on each other.

    Raises:
        ValueError: A run failed; the message has its command.
    """
    if at_once == 1:
        return [_run(job) for job in jobs]
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(_run, jobs))


def _run(job: Job) -> Curve:
    directory = RunDirectory(job.out)
    if not _is_done(directory, job):
        print(f"{job.env} {job.method} seed {job.seed} ...", file=sys.stderr, flush=True)
        start_process(job.command)
        write_atomically(directory.path / _COMMAND_FILE, json.dumps(job.command) + "\n")
    return read_curve(directory)


def start_process(arguments: Sequence[str]) -> None:
    """Runs `hades ARGUMENTS` in a process of its own to its end.

    Raises:
        ValueError: It failed; the message has the command and its last words.
    """
    done = subprocess.run(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"hades {' '.join(arguments)} ended with exit code {done.returncode}: {last}")


def _is_done(directory: RunDirectory, job: Job) -> bool:
    """Whether this very command has come to its end there; another one is resumed, or refused by the command itself."""
    file = directory.path / _COMMAND_FILE
    return file.exists() and json.loads(file.read_text()) == job.command


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds as people write them.

    Raises:
        ValueError: It is not a list of integers and ranges.

    Example:
        >>> parse_seeds("0-2,7")
        (0, 1, 2, 7)
    """
    seeds: list[int] = []
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            seeds += range(int(first), int(last or first) + 1)
    except ValueError:
        seeds = []
    if not seeds:
        raise ValueError(f"seeds: expected numbers and ranges such as 0-4, got {text!r}")
    return tuple(seeds)
