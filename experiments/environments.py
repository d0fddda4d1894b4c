"""The environments of a command: those that its flags, a dataset or policy file, or an offline data file name."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro

import envs
from envs.images import VARIABLE
from envs.names import IMAGES_PREFIX
from experiments import tables
from experiments.cli import BadArgumentsError
from hades._run_directory import RunDirectory
from hades.distributions import ActionSelection
from hades.evaluation import Evaluation, evaluate, shared_envs
from hades.metadata import FileMetadata
from hades.multitask import merging as multitask
from hades.multitask.evaluation import evaluate_policy
from hades.multitask.merging import JointSpaces
from hades.normalization import PolicyParams
from hades.offline import d4rl
from hades.policies import NamedSpaces, Policy
from hades.types import AnyEnvironment, Environment, require_pure


def _parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """Options from `KEY=VALUE`; a value that is not JSON is text.

    Raises:
        ValueError: A text has no key, or a key stands twice.
    """
    options: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (equals and all(part.isidentifier() for part in key.split("."))):
            raise ValueError(f"expected KEY=VALUE, got {text!r}")
        if key in options:
            raise ValueError(f"expected each key once, got {key} twice")
        try:
            options[key] = json.loads(value)
        except json.JSONDecodeError:
            options[key] = value
    return options


_KeysAndValues = tyro.constructors.PrimitiveConstructorSpec(
    nargs="*",
    metavar="[KEY=VALUE ...]",
    instance_from_str=_parse_options,
    is_instance=lambda instance: isinstance(instance, Mapping),
    str_from_instance=lambda options: [f"{key}={json.dumps(value)}" for key, value in options.items()],
)


@dataclass(frozen=True, kw_only=True)
class EnvironmentOptions:
    """Options of an environment, beside its name."""

    backend: str | None = None
    """Physics of a Brax environment: positional, spring, generalized or mjx; default: positional."""
    max_steps: int | None = None
    """Steps after which an episode is cut off; default: the environment's own limit."""
    env_module: str | None = None
    """Module whose import registers a gymnasium environment; default: none, or gymnasium_robotics for its own."""
    observation_keys: tuple[str, ...] | None = None
    """Parts of observations that are dictionaries, one behind the other; default: none of gymnasium's, state of
    Playground's."""
    env_options: Annotated[Mapping[str, Any], _KeysAndValues] = field(default_factory=dict, hash=False)
    """Further options, as KEY=VALUE with values in JSON, such as num_actions=3."""

    def __post_init__(self) -> None:
        """Refuses an option that is given twice."""
        for name, (flag, value) in self._flags().items():
            if value is not None and name in self.env_options:
                raise ValueError(f"env_options: expected no {name} beside --{flag}, got both")

    def _flags(self) -> dict[str, tuple[str, Any]]:
        """Flags that stand for an option, and their values, by its name."""
        return {
            "backend": ("backend", self.backend),
            "max_steps": ("max-steps", self.max_steps),
            "module": ("env-module", self.env_module),
            "observation_keys": ("observation-keys", self.observation_keys and list(self.observation_keys)),
        }

    def given(self) -> dict[str, Any]:
        """The options that are not left to the environment."""
        named = {name: value for name, (_, value) in self._flags().items() if value is not None}
        return {**self.env_options, **named}

    def make(self, env: str) -> Environment:
        """Makes an environment of pure functions.

        Raises:
            ValueError: The name is unknown, an option does not suit it, or it is simulated outside of JAX.
        """
        return require_pure(self.make_any(env))

    def make_any(self, env: str) -> AnyEnvironment:
        """Makes an environment.

        Raises:
            ValueError: The name is unknown, or an option does not suit it.
        """
        try:
            return envs.make(env, **self.given())
        except TypeError as error:
            raise ValueError(f"{env}: {error}") from None


def make_named(name: str, options: EnvironmentOptions | None = None) -> AnyEnvironment:
    """The environment that `--env` names.

    Raises:
        BadArgumentsError: There is none of that name, or an option does not suit it.
    """
    try:
        return (options or EnvironmentOptions()).make_any(name)
    except ValueError as error:
        raise BadArgumentsError(f"--env: {error}") from None


def environment_of_run(config: Mapping[str, Any]) -> AnyEnvironment | None:
    """The environment that a run's `config.json` names, None where it names none.

    Raises:
        ValueError: It cannot be made.
    """
    if config.get("env") is None:
        return None
    return EnvironmentOptions(env_options=config.get("env_options") or {}).make_any(config["env"])


def make_environment(metadata: FileMetadata, name: str | None, source: Path) -> AnyEnvironment:
    """The environment of a dataset or policy file, or another one of the same spaces.

    Args:
        metadata: Of the file.
        name: The other one; None is the file's own.
        source: The file, for messages.

    Raises:
        BadArgumentsError: There is none of that name.
        ValueError: The file's own environment cannot be made.
    """
    if name is not None:
        return make_named(name)
    if multitask.is_merged(metadata):
        raise ValueError(f"{source}: expected a file of a single task, got a merged one")
    options: dict[str, Any] = dict(metadata.env_options)
    _require_imported(options, source)
    if (folder := folder_of_images(metadata.env, source)) is not None:
        options["folder"] = folder
    try:
        env = envs.make(metadata.env, **options)
        if env.max_steps != metadata.max_episode_steps:
            env = envs.make(metadata.env, **{**options, "max_steps": metadata.max_episode_steps})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{source}: {error}") from None
    return env


def folder_of_images(name: str, source: Path) -> Path | None:
    """The folder of images `name` that a run directory, or the run that a file lies in, read; None without such a run.

    None also where that folder is gone and another is given by the variable for all images.
    """
    run = RunDirectory(source if source.is_dir() else source.parent)
    if not (name.startswith(IMAGES_PREFIX) and run.holds_run):
        return None
    config = run.read_config()
    if (config.get("command"), config.get("env")) != ("images distill", name):
        return None
    folder = Path(config["data"])
    return folder if folder.is_dir() or not os.environ.get(VARIABLE) else None


def environment_name(data: Path, name: str | None) -> str:
    """The environment that `--env` names, or else the one that an offline data file names.

    Raises:
        BadArgumentsError: Neither names one.
        OfflineDataError: There is no such file, or it is not HDF5.
    """
    # Read also where a name is given: a file that is none is told before anything else.
    own = d4rl.env_name(data)
    name = name or own
    if name is None:
        raise BadArgumentsError(f"--env: {data} does not name its environment, expected one")
    return name


def environment_of(data: Path, name: str | None, options: EnvironmentOptions) -> AnyEnvironment:
    """The environment of an offline data file, with the options that it was collected with, or the one that flags name.

    Args:
        data: HDF5 file.
        name: Value of `--env`; None is the file's own environment.
        options: Flags, which go before those in the file.

    Raises:
        BadArgumentsError: Neither names an environment, or there is none of that name and options.
        OfflineDataError: There is no such file, or it is not HDF5.
    """
    name = environment_name(data, name)
    kept = d4rl.load_attributes(data).get("env_options") if name == d4rl.env_name(data) else None
    if options.env_module is None:
        _require_imported(kept or {}, data)
    return make_named(name, EnvironmentOptions(env_options={**(kept or {}), **options.given()}))


def _require_imported(options: Mapping[str, Any], source: Path) -> None:
    """Refuses options of a file that would import a module which nobody asked for.

    Raises:
        BadArgumentsError: They name one that is not imported.
    """
    module = options.get("module")
    if module is None or module in sys.modules:
        return
    envs.list_environments()  # Loads plug-ins.
    if module not in sys.modules:
        raise BadArgumentsError(
            f"{source}: its environment comes from the module {module}, expected HADES_PLUGINS={module}, or "
            "--env-module where there is that flag"
        )


@dataclass(frozen=True)
class TaskEnvironments:
    """The environments of a file: one, or one for each task of a merged file.

    Attributes:
        metadata: Of the file.
        spaces: Of its policies: the one environment, or the joint spaces of the tasks.
        environments: The one, or one for each task.
    """

    metadata: FileMetadata
    spaces: NamedSpaces
    environments: tuple[AnyEnvironment, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the environments in tables, no two alike."""
        names = [env.name for env in self.environments]
        return tuple(
            f"{name} ({names[: index + 1].count(name)})" if names.count(name) > 1 else name
            for index, name in enumerate(names)
        )

    def evaluate(
        self,
        key: jax.Array,
        policy: Policy,
        params: PolicyParams,
        num_episodes: int,
        action_selection: ActionSelection | None = None,
    ) -> dict[str, Evaluation]:
        """Returns of one policy, by environment; its actions as the file says where `action_selection` is None."""
        if isinstance(self.spaces, JointSpaces):
            evaluations = evaluate_policy(
                key, self.environments, self.spaces, policy, params, num_episodes, action_selection
            )
            return dict(zip(self.names, evaluations, strict=True))
        (env,) = self.environments
        selection = action_selection or self.metadata.action_selection
        return {"policy": evaluate(key, env, policy, params, num_episodes, selection, shared_envs(self.metadata))}

    def summary(self, evaluations: dict[str, Evaluation]) -> dict[str, Any]:
        """The returns of one policy as `--json` prints them.

        Returns:
            Of a merged file also `tasks`, a list; the other numbers are then those of episodes whose return is the mean
            over tasks.
        """
        if not isinstance(self.spaces, JointSpaces):
            return {**tables.summary(evaluations["policy"], self.spaces.name), "env": self.spaces.name}
        values = list(evaluations.values())
        together = Evaluation(*(np.mean([getattr(v, name) for v in values], axis=0) for name in ("returns", "lengths")))
        rows = [
            {"env": env.name, **tables.summary(value)} for env, value in zip(self.environments, values, strict=True)
        ]
        return {**tables.summary(together), "env": self.spaces.name, "tasks": rows}


def make_task_environments(metadata: FileMetadata, name: str | None, source: Path) -> TaskEnvironments:
    """Makes the environments of a file.

    Args:
        metadata: Of the file.
        name: Another environment, for a file that is not merged.
        source: The file, for messages.

    Raises:
        BadArgumentsError: There is none of that name, or the file is merged.
        ValueError: The file's own environments cannot be made, or do not suit it.
    """
    if not multitask.is_merged(metadata):
        env = make_environment(metadata, name, source)
        return TaskEnvironments(metadata, env, (env,))
    if name is not None:
        raise BadArgumentsError(f"--env: expected none, as {source} is merged and names the environment of each task")
    try:
        joint = multitask.spaces(metadata)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    environments = tuple(make_environment(task.metadata, None, source) for task in joint.tasks)
    for env, task in zip(environments, joint.tasks, strict=True):
        dim = getattr(env.action_space, "num_actions" if joint.discrete else "action_dim", None)
        if (tuple(env.observation_shape), dim) != (task.observation_shape, task.action_dim):
            kind = "discrete" if joint.discrete else "continuous"
            raise ValueError(
                f"{source}: {env.name} has observations {env.observation_shape} and {env.action_space}, but its task "
                f"observations {task.observation_shape} and {kind} actions, {task.action_dim} wide"
            )
    return TaskEnvironments(metadata, joint, environments)
