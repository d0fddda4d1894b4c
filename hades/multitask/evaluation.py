"""Evaluation of joint policies, task by task, beside policies that are trained on one task alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np

from hades.dataset import SyntheticDataset
from hades.distributions import ActionSelection
from hades.evaluation import DatasetEvaluator, Evaluation, dataset_evaluator, evaluate, shared_envs, zero_dataset
from hades.inner import cloning
from hades.inner.cloning import BehaviourCloning
from hades.multitask.merging import JointSpaces, spaces, split, task_policy
from hades.normalization import PolicyParams
from hades.policies import Policy
from hades.types import AnyEnvironment


@dataclass(frozen=True)
class TaskScores:
    """Returns in one task, all on the same keys.

    Attributes:
        joint: Of policies trained on the merged dataset.
        single: Of policies trained on the task's own dataset, as that says itself.
        zero: Of policies trained on the zero dataset in place of that one.
        untrained: Of policies as they are initialised.
    """

    joint: Evaluation
    single: Evaluation
    zero: Evaluation
    untrained: Evaluation

    @property
    def ratio(self) -> float | None:
        """Mean return of the joint policies over that of the single-task ones; None unless both are above zero."""
        positive = self.joint.mean > 0 and self.single.mean > 0
        return self.joint.mean / self.single.mean if positive else None

    @property
    def fraction(self) -> float:
        """`(joint - zero) / (single - zero)` of the mean returns; NaN where the single-task ones are not above zero's.

        Unlike the ratio it means the same whatever the sign of the returns: 0 is knowing nothing, 1 losing nothing.
        """
        return float((self.joint.mean - self.zero.mean) / self._scale)

    @property
    def fraction_per_init(self) -> np.ndarray:
        """Share of each initialisation in the fraction, `[inits]`: their mean is the fraction.

        The quotient is linearised at the means (delta method), so that their spread is that of the references, too.
        """
        joint, single, zero = (part.returns.mean(axis=1) for part in (self.joint, self.single, self.zero))
        errors = (joint - zero) - self.fraction * (single - zero)
        return self.fraction + errors / self._scale

    @property
    def _scale(self) -> float:
        """Gain of the single-task policies over zero's, NaN where there is none."""
        gain = self.single.mean - self.zero.mean
        return gain if gain > 0 else float("nan")


def evaluate_tasks(
    key: jax.Array,
    environments: Sequence[AnyEnvironment],
    dataset: SyntheticDataset,
    num_inits: int = 16,
    num_episodes: int = 8,
    clone: BehaviourCloning | None = None,
    action_selection: ActionSelection | None = None,
) -> list[TaskScores]:
    """Trains fresh joint policies on a merged dataset and plays every task with them, beside single-task policies.

    Args:
        key: Fresh key. The single-task returns are those of `evaluate_dataset` with this key.
        environments: One for each task.
        dataset: Merged.
        num_inits: Freshly initialised joint policies, and as many single-task ones of each task.
        num_episodes: Episodes of each policy in each task.
        clone: Another inner loop for the joint policies than the one of the metadata.
        action_selection: In place of what the tasks say.

    Raises:
        ValueError: It is not a merged dataset, or a task does not fit its environment or `num_episodes`.
    """
    parts = split(dataset)
    assert dataset.metadata is not None  # split has refused it otherwise
    joint = spaces(dataset.metadata)
    clone = clone or cloning.from_settings(joint, dataset.metadata.require_cloning())
    joint_evaluators, single_evaluators = [], []
    for index, (env, part, task) in enumerate(zip(environments, parts, joint.tasks, strict=True)):
        metadata = replace(task.metadata, action_selection=action_selection or task.metadata.action_selection)
        single_evaluators.append(dataset_evaluator(env, replace(part, metadata=metadata), num_inits, num_episodes))
        evaluator = DatasetEvaluator(
            env,
            clone,
            num_inits,
            num_episodes,
            metadata.action_selection,
            shared_envs(metadata),
            acting_policy=task_policy(clone.policy, joint, index),
        )
        joint_evaluators.append(evaluator)
    networks = joint_evaluators[0].train(key, dataset)
    scores = []
    for together, alone, part in zip(joint_evaluators, single_evaluators, parts, strict=True):
        normalizer = part.normalizer()
        played = together.play(key, networks, normalizer)
        zero = alone(key, zero_dataset(part))
        scores.append(TaskScores(played, alone(key, part), zero, alone.untrained(key, normalizer)))
    return scores


def evaluate_policy(
    key: jax.Array,
    environments: Sequence[AnyEnvironment],
    joint: JointSpaces,
    policy: Policy,
    params: PolicyParams,
    num_episodes: int = 64,
    action_selection: ActionSelection | None = None,
) -> list[Evaluation]:
    """Plays every task with one joint policy.

    Args:
        key: Fresh key, the same for all tasks.
        environments: One for each task.
        joint: Spaces of the policy.
        policy: Joint policy.
        params: Its parameters; each task has its own normalisation.
        num_episodes: Episodes in each task.
        action_selection: In place of what the tasks say.
    """
    evaluations = []
    for index, (env, entry) in enumerate(zip(environments, joint.tasks, strict=True)):
        metadata = entry.metadata
        own = PolicyParams(params.network, entry.normalizer())
        selection = action_selection or metadata.action_selection
        task = task_policy(policy, joint, index)
        evaluations.append(evaluate(key, env, task, own, num_episodes, selection, shared_envs(metadata)))
    return evaluations
