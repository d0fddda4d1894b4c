"""`hades offline collect`: an offline dataset in the layout of D4RL, from teachers, policies and snapshots of a run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np

from experiments import tables, void
from experiments.arguments import parse, print_json, with_folder
from experiments.cli import BadArgumentsError
from experiments.environments import EnvironmentOptions, make_environment, make_named
from experiments.loading import load_policy, outcome_file
from experiments.settings import Flat, SeededSettings
from hades._progress import Progress
from hades._run_directory import RunDirectory
from hades.distributions import ActionSelection
from hades.metadata import package_versions
from hades.normalization import PolicyParams
from hades.offline import d4rl, minari
from hades.offline.collect import NUM_ENVS, Behaviour, collect, uniform_behaviour
from hades.offline.quality import Quality, choose_snapshots
from hades.offline.scores import score_reference
from hades.offline.teacher import Teacher, teacher_policy
from hades.offline.transitions import Transitions
from hades.types import AnyEnvironment, Discrete

_OF_POLICIES = ("--noise", "--epsilon", "--action-selection")
_OF_PLAYING = (
    "--teacher", "--policy", "--run", "--quality", "--random-fraction", "--num-transitions", "--num-envs", "--seed",
    *_OF_POLICIES, *(flag for flag in void.ENVIRONMENT_FLAGS if flag != "--observation-keys"),
)  # fmt: skip
"""Flags that --minari has no use for."""


@dataclass(frozen=True, kw_only=True)
class CollectSettings(SeededSettings):
    """Collects an offline dataset and writes it as HDF5 in the layout of D4RL.

    Every teacher, policy and stage plays with every level of noise, all in equal shares, beside the fraction of uniform
    actions. Trajectories stay whole and in order; the last one of each share is cut off, as by a time limit. Or, with
    --minari, writes a dataset that Minari holds in that layout.
    """

    out: Path
    """HDF5 file to write."""
    env: str | None = None
    """Environment, such as gymnasium/Hopper-v4; default: that of the run or of the policy."""
    options: Annotated[EnvironmentOptions, Flat] = EnvironmentOptions()
    """Options of the environment."""
    teacher: tuple[Path, ...] = ()
    """Teacher files, or run directories of teachers, that play, by their modes unless --action-selection says
    otherwise."""
    policy: tuple[Path, ...] = ()
    """Policy files, or run directories of baselines, that play, with actions as the files say unless --action-selection
    says otherwise."""
    run: Path | None = None
    """Directory of a baseline that was run with --keep-snapshots, whose snapshots play; default: none."""
    quality: Quality = "medium-replay"
    """Stages of --run: the first, half way to the best, all up to half way, half way and best, or the best."""
    minari: str | None = None
    """Minari dataset on this machine, such as mujoco/hopper/medium-v0, in place of playing (extra minari);
    default: none."""
    noise: tuple[float, ...] = (0.0,)
    """Standard deviations of the Gaussian noise on actions, in halves of the action range."""
    epsilon: float = 0.0
    """Probability of a uniform action at each step of teachers and policies."""
    random_fraction: float = 0.0
    """Fraction of the transitions that is collected with uniform actions alone; 1 without a teacher, policy or run."""
    action_selection: ActionSelection | None = None
    """Whether to act by a sample of the distribution or by its mode; default: as said above."""
    num_transitions: int = 100_000
    """Transitions of all together."""
    num_envs: int = NUM_ENVS
    """Episodes that are played at once."""
    overwrite: bool = False
    """Replaces --out where it exists."""

    def __post_init__(self) -> None:
        """Refuses also numbers out of range."""
        super().__post_init__()
        self.require_positive("num_transitions", "num_envs")
        if not self.noise:
            raise ValueError("noise: expected one level or more, got none")
        if not 0 <= self.random_fraction <= 1:
            raise ValueError(f"random_fraction: expected a number from 0 to 1, got {self.random_fraction}")

    def void_flags(self) -> dict[str, str]:
        """Flags that others make void, with what does, as `experiments.void.refuse_void` takes them."""
        if self.minari is not None:
            return void.flags(_OF_PLAYING, "beside --minari")
        found = {} if self.env is not None else void.flags(void.ENVIRONMENT_FLAGS, "without --env")
        if self.run is None:
            found |= {"--quality": "without --run"}
        return found | (void.flags(_OF_POLICIES, "beside --random-fraction 1") if self.random_fraction == 1 else {})


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit code."""
    settings = parse(CollectSettings, "offline collect", arguments)
    void.refuse_void(arguments, settings.void_flags())
    if settings.out.exists() and not settings.overwrite:
        raise BadArgumentsError(f"--out: {settings.out} exists, expected a new file or --overwrite")
    if settings.minari is None:
        transitions, attributes, seconds = _collect(settings)
        more = {"seed": settings.seed, "behaviours": attributes["behaviours"]}
    else:
        transitions, attributes = _load_minari(settings, settings.minari)
        seconds, more = None, {"minari": settings.minari}
    d4rl.save(
        transitions, with_folder(settings.out), {"command": ["hades", "offline", "collect", *arguments], **attributes}
    )
    summary = _summary(transitions, attributes) | {"env": transitions.env, "out": str(settings.out), "seconds": seconds}
    _print(summary)
    if settings.json:
        print_json(summary | more)
    return 0


def _collect(settings: CollectSettings) -> tuple[Transitions, dict[str, Any], float]:
    """Transitions of all that plays, what the file says of them beside the command, and seconds."""
    files = _BehaviourFiles(settings)
    env = files.make_environment()
    behaviours, described = files.behaviours(env)
    # A folder that cannot be made is told before the work.
    with_folder(settings.out)
    started = time.monotonic()
    with Progress(settings.num_transitions, "transition") as report:
        key = jax.random.key(settings.seed)
        transitions = collect(key, env, behaviours, settings.num_transitions, settings.num_envs, report.add)
    seconds = time.monotonic() - started
    attributes = {
        "seed": settings.seed,
        "env_options": dict(env.options),
        "behaviours": described,
        "created_with": package_versions(env.name),
    }
    return transitions, attributes, seconds


def _load_minari(settings: CollectSettings, dataset_id: str) -> tuple[Transitions, dict[str, Any]]:
    keys = settings.options.observation_keys
    try:
        transitions, attributes = minari.load(dataset_id, None, keys), minari.attributes(dataset_id, keys)
    except ImportError as error:
        raise BadArgumentsError(f"--minari: {error}") from None
    if settings.env in (None, transitions.env):
        return transitions, attributes
    # Options and scores are those of the dataset's own environment.
    return replace(transitions, env=settings.env), {"minari": dataset_id}


class _BehaviourFiles:
    """The teachers and policies that the flags name, read once."""

    def __init__(self, settings: CollectSettings) -> None:
        """Reads the files.

        Raises:
            BadArgumentsError: The flags do not go together.
            ValueError: A file is not what it should be.
        """
        self._settings = settings
        files = [outcome_file(path) for path in settings.policy]
        if settings.run is not None:
            files += _stages(settings.run, settings.quality)
        self._policies = {path: load_policy(path) for path in files}
        self._teachers = {path: Teacher.load(path) for path in map(outcome_file, settings.teacher)}
        alone = settings.random_fraction == 1
        if bool(self._policies or self._teachers) == alone:
            expected = (
                "no --teacher, --policy or --run" if alone else "--teacher, --policy, --run or --random-fraction 1"
            )
            raise BadArgumentsError(f"expected {expected} where --random-fraction is {settings.random_fraction:g}")

    def make_environment(self) -> AnyEnvironment:
        """The environment of the flags, or that of the first policy.

        Raises:
            BadArgumentsError: There is none of that name, or nothing names one.
        """
        if self._settings.env is not None:
            env = make_named(self._settings.env, self._settings.options)
        elif self._policies:
            path, (_, metadata) = next(iter(self._policies.items()))
            try:
                env = make_environment(metadata, None, path)
            except ValueError as error:
                raise BadArgumentsError(f"--env: {error}") from None
        else:
            raise BadArgumentsError("--env: expected an environment, as teacher files name none")
        if isinstance(env.action_space, Discrete) and any(self._settings.noise):
            raise BadArgumentsError(f"--noise: expected 0, as actions of {env.name} are discrete; take --epsilon")
        return env

    def behaviours(self, env: AnyEnvironment) -> tuple[list[Behaviour], list[dict[str, Any]]]:
        """The policies that collect, and their description in the file.

        Raises:
            BadArgumentsError: A file does not suit the environment, or a number is out of range.
        """
        settings = self._settings
        chosen = [(path, self._behaviour(env, path)) for path in (*self._teachers, *self._policies)]
        weight = (1 - settings.random_fraction) / max(1, len(chosen) * len(settings.noise))
        behaviours, described = [], []
        for (path, behaviour), noise in product(chosen, settings.noise):
            try:
                behaviours.append(replace(behaviour, noise=noise, epsilon=settings.epsilon, weight=weight))
            except ValueError as error:
                raise BadArgumentsError(f"--{error}") from None
            described.append({"file": str(path), "noise": noise, "epsilon": settings.epsilon, "share": weight})
        if settings.random_fraction:
            behaviours.append(uniform_behaviour(env, settings.random_fraction))
            described.append({"file": None, "noise": 0.0, "epsilon": 1.0, "share": settings.random_fraction})
        return behaviours, described

    def _behaviour(self, env: AnyEnvironment, path: Path) -> Behaviour:
        selection = self._settings.action_selection
        try:
            if path in self._policies:
                trained, metadata = self._policies[path]
                selection = selection or metadata.action_selection
                return Behaviour(trained.architecture(env), trained.params, action_selection=selection)
            teacher = self._teachers[path]
            teacher.check_fits(env)
            return Behaviour(teacher_policy, PolicyParams(teacher), action_selection=selection or "mode")
        except ValueError as error:
            raise BadArgumentsError(f"{path}: {error}") from None


def _stages(path: Path, quality: Quality) -> list[Path]:
    """Snapshots of a run that make data of a quality.

    Raises:
        BadArgumentsError: There are no such snapshots.
        RunDirectoryError: The folder is no run directory.
    """
    directory = RunDirectory(path)
    directory.read_config()
    scored = {}
    for file in sorted(directory.snapshots.glob("policy-*.npz")):
        evaluation = load_policy(file)[1].evaluation
        if evaluation is not None:
            scored[file] = evaluation.mean
    if not scored:
        raise BadArgumentsError(
            f"--run: expected a run of hades baseline with --keep-snapshots, found no policies in {directory.snapshots}"
        )
    try:
        chosen = choose_snapshots(list(scored.values()), quality)
    except ValueError as error:
        raise BadArgumentsError(f"--run: {directory.path}: {error}") from None
    return [list(scored)[index] for index in chosen]


def _summary(transitions: Transitions, attributes: Mapping[str, Any]) -> dict[str, Any]:
    returns = np.asarray(transitions.trajectory_returns())
    summary = {
        "num_transitions": transitions.num_transitions,
        "num_trajectories": len(returns),
        "mean_return": float(returns.mean()),
        "best_return": float(returns.max()),
    }
    reference = score_reference(transitions.env or "", attributes)
    if reference is not None:
        summary["normalized_mean"] = reference.normalize(summary["mean_return"])
        summary["normalized_best"] = reference.normalize(summary["best_return"])
    return summary


def _print(summary: dict[str, Any]) -> None:
    rows = [(name.replace("_", " "), f"{value:.5g}") for name, value in summary.items() if isinstance(value, float)]
    counts = f"{summary['num_transitions']} transitions, {summary['num_trajectories']} trajectories"
    print(f"{counts}, {summary['env']}")
    print(tables.table("", ("of whole and cut trajectories", ""), rows))
    print(f"written to {summary['out']}")
