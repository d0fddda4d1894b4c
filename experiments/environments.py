"""Where the policies of a file play: in one environment, or in one for each task of a merged file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import tables
from experiments.cli import BadArgumentsError
from experiments.inputs import make_environment
from hades.distributions import ActionSelection
from hades.evaluation import Evaluation, evaluate, shared_envs
from hades.metadata import FileMetadata
from hades.multitask import merging as multitask
from hades.multitask.evaluation import evaluate_policy
from hades.multitask.merging import JointSpaces
from hades.normalization import PolicyParams
from hades.policies import NamedSpaces, Policy
from hades.types import AnyEnvironment


@dataclass(frozen=True)
class Stage:
    """The environments of a file.

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
        """What the environments are called in tables, no two alike."""
        names = [env.name for env in self.environments]
        return tuple(
            f"{name} ({names[: index + 1].count(name)})" if names.count(name) > 1 else name
            for index, name in enumerate(names)
        )

    def play(
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
        """What `--json` says of the returns of one policy.

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


def make_stage(metadata: FileMetadata, name: str | None, source: Path) -> Stage:
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
        return Stage(metadata, env, (env,))
    if name is not None:
        raise BadArgumentsError(f"--env: expected none, as {source} is merged and names the environment of each task")
    try:
        joint = multitask.spaces(metadata)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    environments = tuple(make_environment(task.metadata, source=source) for task in joint.tasks)
    for env, task in zip(environments, joint.tasks, strict=True):
        dim = getattr(env.action_space, "num_actions" if joint.discrete else "action_dim", None)
        if (tuple(env.observation_shape), dim) != (task.observation_shape, task.action_dim):
            kind = "discrete" if joint.discrete else "continuous"
            raise ValueError(
                f"{source}: {env.name} has observations {env.observation_shape} and {env.action_space}, but its task "
                f"observations {task.observation_shape} and {kind} actions, {task.action_dim} wide"
            )
    return Stage(metadata, joint, environments)
