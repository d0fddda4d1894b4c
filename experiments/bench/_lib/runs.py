"""Runs of every method as benchmarks start them: one process each, resumable, and read back as curves."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import jax

from experiments import processes, running
from experiments.arguments import flag_value
from experiments.bench._lib.base import SeedsBenchSettings, tell
from experiments.cli import BadArgumentsError
from experiments.commands.baseline import COMMANDS
from experiments.commands.distill import command_of
from experiments.curves import Curve, read_curve
from experiments.presets import PRESETS, get_preset
from experiments.running import Command
from hades._files import write_atomically
from hades._run_directory import FREE_TO_CHANGE, OtherRunError, RunDirectory
from hades.recipes.policy_gradient import HadesPGSettings
from hades.rl.settings import OnPolicySettings, PPOSettings
from hades.run import Run, RunState
from hades.sharding import replicate
from hades.tuning import CHUNK_FIELDS

Method = Literal["hades-r", "hades-f", "hades-pg", "hades-pg-f", "ppmo", "es", "ppo"]
METHODS: tuple[Method, ...] = get_args(Method)
_POLICY_GRADIENTS = {
    "hades-pg": [],
    "hades-pg-f": ["--num-inits", "1"],
    # As published, whatever the preset's inner loop and pairs are.
    "ppmo": shlex.split(
        "--dataset-size 64 --cloning.num-steps 1 --cloning.optimizer sgd --cloning.learning-rate 1 "
        "--cloning.step-sizes learned"
    ),
}
_PRESETS = {"es": "baseline es", "ppo": "baseline ppo"} | dict.fromkeys(_POLICY_GRADIENTS, "distill hades-pg")
_ENDLESS = 10**6
_COMMAND_FILE = "finished_command.json"
# An iteration of an evolution takes as many environment steps as its episodes last, one of PPO always the same number.
_ITERATIONS, _EVALUATIONS = 5, 40


@dataclass(frozen=True, kw_only=True)
class RunsSettings(SeedsBenchSettings):
    """Settings of benchmarks of whole runs at equal environment steps. Runs that are there are not run again.

    Every run has one device, so that their seconds compare; --flags="--devices 4" gives each four, but for PPO, which
    takes one.
    """

    env_steps: int = 2_000_000
    """Environment steps of training that each run takes."""
    jobs: int = 1
    """Processes at the same time, all on the same devices. More than one makes seconds depend on each other."""
    runs: Path = Path("runs/bench")
    """Folder of the run directories."""
    out: Path = Path("runs/bench")
    """Folder of the results: for each environment a JSON file, a Markdown table and a picture."""
    flags: str = ""
    """More flags of hades distill and hades baseline in one string, such as --flags="--evaluate-every 10"."""

    def __post_init__(self) -> None:
        """Refuses also counts that are not positive."""
        super().__post_init__()
        self.require_positive("env_steps", "jobs")

    def job(self, method: Method, env: str, seed: int, label: str | None = None, flags: Sequence[str] = ()) -> Job:
        """A run of these settings.

        Args:
            method: Method.
            env: Environment.
            seed: Seed of the run.
            label: Part of the run directory's name that tells it from others; the method if None.
            flags: Flags of this run, which those of the settings follow.
        """
        out = self.runs / file_stem(env) / f"{label or method}-seed{seed}"
        return Job(method, env, seed, out, self.env_steps, (*flags, *shlex.split(self.flags)))


def file_stem(env: str) -> str:
    """Name of the files and folders of an environment."""
    return env.replace("/", "-")


def folder_part(text: str) -> str:
    """A text as part of the name of a run directory."""
    return re.sub(r"[^\w.]+", "-", text)


@dataclass(frozen=True)
class Job:
    """One run: a method on an environment with a seed.

    Attributes:
        method: Method.
        env: Environment.
        seed: Seed of the run.
        out: Run directory.
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
        """Arguments of `hades` that begin or resume the run."""
        begin = method_flags(self.method, self.env, self.budget, self.flags)
        flags = [*begin, "--seed", str(self.seed), "--devices", "1"]
        return [*flags, "--out", str(self.out), "--resume", *self.flags, *_last_flags(self.method)]


def method_flags(method: Method, env: str, budget: int, more: Sequence[str] = ()) -> list[str]:
    """Verb and flags that make a method comparable with the others on an environment, up to a budget.

    ES and PPO have the network of the small preset of HaDES for the environment, where there is one; methods by policy
    gradients have presets of their own. Step sizes of gradients fall to zero at the end of the budget.

    Args:
        method: Method.
        env: Environment.
        budget: Environment steps.
        more: Flags that come behind these, and may say another budget, sizes of an iteration, and a finer cadence.
    """
    name = small_preset(method, env)
    begin = ["--env", env] if name is None else ["--preset", name]
    begin += ["--num-iterations", str(_ENDLESS), "--max-env-steps", str(budget)]
    if method == "hades-r":
        return ["distill", *begin, *_evaluated_every(_ITERATIONS, more)]
    if method == "hades-f":
        return ["distill", *begin, "--method", "hades-f", "--num-inits", "1", *_evaluated_every(_ITERATIONS, more)]
    if method == "es":
        return ["baseline", "es", *begin, *_evaluated_every(_ITERATIONS, more)]
    if method in _POLICY_GRADIENTS:
        own = HadesPGSettings() if name is None else get_preset(_PRESETS[method], name).settings
        iterations = _iterations(own, budget, more)
        flags = ["--meta-gradient.anneal-iterations", str(iterations), *_POLICY_GRADIENTS[method]]
        return ["distill", *begin, "--method", method, *flags, *_evaluated_every(iterations // _EVALUATIONS, more)]
    settings = PPOSettings() if name is None else get_preset("baseline ppo", name).settings
    updates = _iterations(settings, budget, more)
    flags = ["--anneal-updates", str(updates), *_evaluated_every(updates // _EVALUATIONS, more)]
    distilled = small_preset("hades-r", env)
    if distilled is not None:
        network = get_preset("distill", distilled).settings.cloning
        flags += ["--network.activation", network.activation, "--network.hidden-sizes", *map(str, network.hidden_sizes)]
    return ["baseline", "ppo", *begin, *flags]


def _last_flags(method: Method) -> list[str]:
    """Flags behind those of users, which are of all methods: PPO takes one device, whatever the others have."""
    return ["--devices", "1"] if method == "ppo" else []


def _iterations(settings: OnPolicySettings, budget: int, flags: Sequence[str]) -> int:
    """Iterations of a budget, both of the sizes that flags say, or the settings where they do not."""
    env_steps = _number(flags, "--num-envs", settings.num_envs) * _number(flags, "--num-steps", settings.num_steps)
    return max(1, _number(flags, "--max-env-steps", budget) // max(1, env_steps))


def _number(flags: Sequence[str], name: str, own: int) -> int:
    """The number that flags say, or an own one where they do not."""
    found = flag_value(flags, name)
    # Of a word that is no number the run itself complains.
    with contextlib.suppress(ValueError):
        return own if found is None else int(found)
    return own


def split_flags(arguments: Sequence[str]) -> tuple[Command, list[str]]:
    """The command that the words of `method_flags` begin with, and the flags behind them."""
    first, *rest = arguments
    return (command_of(rest), rest) if first == "distill" else (COMMANDS[rest[0]], rest[1:])


def small_run(method: Method, env: str, flags: Sequence[str]) -> tuple[Run[Any], int, list[str]]:
    """The run of a method with the settings that make it comparable, without a budget that would end it.

    Returns:
        The run, its seed, and all of its flags.

    Raises:
        BadArgumentsError: As of `single_run`.
    """
    arguments = [*method_flags(method, env, _ENDLESS), *flags, *_last_flags(method)]
    return *single_run(arguments), split_flags(arguments)[1]


def single_run(arguments: Sequence[str]) -> tuple[Run[Any], int]:
    """The run of a command, which is given as its verb and flags, without what happens around a run; and its seed.

    Raises:
        BadArgumentsError: A flag is wrong, or of the start of a command, which the run does not have.
    """
    command, flags = split_flags(arguments)
    settings: Any = running.resolve_new(command, flags)
    if settings.matmul_precision is not None or getattr(settings, "tune_chunks", False):
        raise BadArgumentsError("expected no --matmul-precision and no --tune-chunks, which only whole runs have")
    running.divide_cpu(command, settings)
    return running.build(settings, command), settings.seed


def start(run: Run[Any], seed: int) -> tuple[Run[Any], RunState]:
    """The run and its first state, placed on the devices that it is spread over, as compiled steps take them."""
    return replicate(run, run.mesh), replicate(jax.jit(run.init)(jax.random.key(seed)), run.mesh)


def _evaluated_every(iterations: int, more: Sequence[str]) -> list[str]:
    """Flags of a cadence; a run evaluates between calls, which are as short as the flags behind these ask for."""
    call = min(iterations, _number(more, "--evaluate-every", iterations))
    return ["--iterations-per-call", str(max(1, call)), "--evaluate-every", str(max(1, iterations))]


def small_preset(method: Method, env: str) -> str | None:
    """The first preset for an environment that is not a published one, None where there is none."""
    presets = PRESETS[_PRESETS.get(method, "distill")]
    return next((name for name, make in presets.items() if not name.startswith("paper/") and make().env == env), None)


def run_all(jobs: Iterable[Job], at_once: int) -> list[Curve]:
    """Runs every job in a process of its own, and reads their results.

    Args:
        jobs: Runs that were done before are read only.
        at_once: Processes at the same time; more than one makes their seconds depend on each other.

    Raises:
        ValueError: A run failed, the message has its command; or runs that differ by their seeds alone had different
            settings, such as those of a preset that has changed since.
    """
    jobs = list(jobs)
    run = partial(_run, variables=processes.shared_memory(min(at_once, len(jobs))))
    if at_once == 1:
        curves = [run(job) for job in jobs]
    else:
        with ThreadPoolExecutor(at_once) as pool:
            curves = list(pool.map(run, jobs))
    _require_same_settings(jobs)
    return curves


def _require_same_settings(jobs: Sequence[Job]) -> None:
    first: dict[Path, RunDirectory] = {}
    for job in jobs:
        own = RunDirectory(job.out)
        other = first.setdefault(job.out.with_name(job.out.name.removesuffix(f"-seed{job.seed}")), own)
        try:
            config = {name: own.read_config()[name] for name in ("settings", "options")}
            # Sizes of chunks may be measured run by run, and change no value.
            other.check_same(config, free=FREE_TO_CHANGE.union(CHUNK_FIELDS))
        except OtherRunError as error:
            raise ValueError(
                f"{job.out}: expected the settings of the other seeds, but {error}; move one away"
            ) from None


def _run(job: Job, variables: Mapping[str, str]) -> Curve:
    finish_run(job.command, job.out, f"{job.env} {job.method} seed {job.seed}", variables)
    return read_curve(RunDirectory(job.out))


def finish_run(
    arguments: Sequence[str], out: Path, name: str | None = None, variables: Mapping[str, str] | None = None
) -> None:
    """Runs `hades ARGUMENTS`, which resumes the run directory `out`, unless that very command has ended there before.

    Args:
        arguments: With `--resume`: a run of other settings that is there is refused by the command itself.
        out: Run directory.
        name: Of the run, for who waits; the command if None.
        variables: Variables of its environment that differ from those of this process; none if None.

    Raises:
        ValueError: It failed.
    """
    done = out / _COMMAND_FILE
    if done.exists() and json.loads(done.read_text()) == list(arguments):
        return
    tell(f"{name or f'hades {shlex.join(arguments)}'} ...")
    start_process(arguments, variables)
    write_atomically(done, json.dumps(arguments) + "\n")


def start_process(arguments: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
    """Runs `hades ARGUMENTS` in a process of its own to its end, with more variables than this one has.

    Raises:
        ValueError: It failed; the message has the command and its last words.
    """
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    done = processes.run(processes.command(*arguments), env=os.environ | dict(variables or {}), **streams)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"hades {' '.join(arguments)} ended with exit code {done.returncode}: {last}")
