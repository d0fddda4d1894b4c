"""Merged datasets of several environments, which train one policy that plays them all (arXiv 2406.15042, section 5.3).

A merged dataset is an ordinary one: `SyntheticDataset`, its file and `behaviour_cloning` serve it unchanged.
Observations are flattened, in the space that the policy of their task sees, with zeros in the places of the other
tasks, and so are continuous actions; action probabilities have zeros up to the widest. Where all tasks share the same
places, as the paper pads, tasks of few pairs move each other's decision boundaries; places of their own keep the
weights of the first layer apart, and of continuous actions those of the head and the deviations too. `task_policy`
gives the joint policy the spaces of one task again, so that the environment, the normalisation and the rollout of a
task are what they are without the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from hades._serialization import from_dict, to_dict
from hades._validation import require_positive, require_positive_fields
from hades.dataset import SyntheticDataset
from hades.distributions import Categorical, DiagonalGaussian, Distribution
from hades.inner.cloning import CloningLoss, CloningSettings
from hades.metadata import FileMetadata, package_versions
from hades.normalization import Normalizer
from hades.policies import Policy
from hades.types import ActionSpace, Continuous, Discrete, PyTree

NAME = "multitask"
"""Name of the environment, and of the method, in the metadata of a merged dataset."""

_JOINT_STEPS = 500


@dataclass(frozen=True)
class Task:
    """Metadata and shapes of one dataset within a merged one.

    Attributes:
        metadata: Of that dataset.
        num_pairs: Its pairs, which follow those of the task before it.
        observation_shape: Of its environment.
        action_dim: Width of its actions or action probabilities.
        observation_mean: Fixed statistics, flattened; None unless normalisation is fixed.
        observation_std: As `observation_mean`.

    Raises:
        ValueError: A number is not positive, the statistics do not suit the rest, or it is itself a merged dataset or
            belongs to one initialisation.
    """

    metadata: FileMetadata
    num_pairs: int
    observation_shape: tuple[int, ...]
    action_dim: int
    observation_mean: tuple[float, ...] | None = None
    observation_std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Refuses shapes that no dataset has, and datasets that cannot be merged."""
        require_positive_fields(self, "num_pairs", "action_dim")
        for size in self.observation_shape or (0,):
            require_positive("observation_shape", size)
        if is_merged(self.metadata):
            raise ValueError("metadata.env: expected the environment of a single task, got a merged dataset")
        if self.metadata.init_seed is not None:
            raise ValueError(
                f"metadata.init_seed: expected none, as merged datasets train any initialisation, "
                f"got {self.metadata.init_seed}"
            )
        fixed = self.metadata.observation_normalization == "fixed"
        for name in ("observation_mean", "observation_std"):
            values = getattr(self, name)
            expected = self.observation_size if fixed else None
            found = None if values is None else len(values)
            if found != expected:
                raise ValueError(f"{name}: expected {expected or 'no'} numbers, got {found or 'none'}")
        if self.observation_std is not None and not min(self.observation_std) > 0:
            raise ValueError(f"observation_std: expected numbers above 0, got {min(self.observation_std)}")

    @property
    def observation_size(self) -> int:
        """Numbers in an observation."""
        return math.prod(self.observation_shape)

    def normalizer(self) -> Normalizer:
        """Normalisation of the task's raw observations."""
        mean, std = (
            None if values is None else jnp.asarray(values, jnp.float32).reshape(self.observation_shape)
            for values in (self.observation_mean, self.observation_std)
        )
        return Normalizer(self.metadata.observation_normalization, mean, std)


@dataclass(frozen=True)
class JointSpaces:
    """Observations and actions of the joint policy; `hades.policies` take it in place of an environment.

    Attributes:
        tasks: In the order of their pairs.
        shared_places: Whether observations and actions of all tasks begin at the first place; else each task has its
            own places. Discrete actions always share them: with places of their own, a policy would learn the task.
        task_one_hot: Whether observations end with a one-hot of the task.
        discrete: Whether actions are discrete.
    """

    tasks: tuple[Task, ...]
    shared_places: bool
    task_one_hot: bool
    discrete: bool

    @property
    def name(self) -> str:
        """Name in place of an environment's."""
        return NAME

    @property
    def places(self) -> int:
        """Places of the observations of all tasks."""
        sizes = [task.observation_size for task in self.tasks]
        return max(sizes) if self.shared_places else sum(sizes)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """One axis: the places of all tasks, and the one-hot."""
        return (self.places + len(self.tasks) * self.task_one_hot,)

    @property
    def action_space(self) -> ActionSpace:
        """The places of all tasks; continuous bounds are nominal, as the environment of each task clips to its own."""
        dims = [task.action_dim for task in self.tasks]
        if self.discrete:
            return Discrete(max(dims))
        places = max(dims) if self.shared_places else sum(dims)
        return Continuous((-1.0,) * places, (1.0,) * places)

    def action_places(self, index: int) -> slice:
        """Slice of a task's actions or action probabilities."""
        shared = self.shared_places or self.discrete
        first = 0 if shared else sum(task.action_dim for task in self.tasks[:index])
        return slice(first, first + self.tasks[index].action_dim)

    def observation_places(self, index: int) -> slice:
        """Slice of a task's observations."""
        first = 0 if self.shared_places else sum(task.observation_size for task in self.tasks[:index])
        return slice(first, first + self.tasks[index].observation_size)

    def pad(self, index: int, observations: jax.Array) -> jax.Array:
        """Normalised observations `[..., *observation_shape]` of a task, padded for the joint policy, `[..., n]`."""
        task = self.tasks[index]
        batch = observations.shape[: observations.ndim - len(task.observation_shape)]
        places = self.observation_places(index)
        flat = observations.reshape(*batch, task.observation_size)
        padded = jnp.pad(flat, [(0, 0)] * len(batch) + [(places.start, self.places - places.stop)])
        if not self.task_one_hot:
            return padded
        one_hot = jax.nn.one_hot(index, len(self.tasks))
        return jnp.concatenate([padded, jnp.broadcast_to(one_hot, (*batch, len(self.tasks)))], axis=-1)


def is_merged(metadata: FileMetadata) -> bool:
    """Whether metadata are those of a merged dataset, or of a policy that was trained on one."""
    return metadata.env == NAME


def joint_cloning(cloning: CloningSettings) -> CloningSettings:
    """Settings for a joint policy out of those of a task: the same with 500 steps, where they have fewer.

    Learned step sizes are those of one task, and give way to the default optimiser. The number of steps is ours, from
    CartPole and Acrobot: with the 64 steps of either file the joint policy lost returns.
    """
    fixed = cloning.with_fixed_steps
    return replace(fixed, num_steps=max(fixed.num_steps, _JOINT_STEPS))


def _check_joint_cloning(cloning: CloningSettings) -> None:
    if cloning.policy == "cnn":
        raise ValueError("cloning.policy: expected mlp or residual_mlp, as merged observations are flat, got cnn")
    if cloning.action_distribution != "gaussian":
        raise ValueError(
            f"cloning.action_distribution: expected gaussian, as tasks have bounds of their own, "
            f"got {cloning.action_distribution}"
        )


def merge(
    datasets: Sequence[SyntheticDataset],
    cloning: CloningSettings | None = None,
    shared_places: bool = False,
    task_one_hot: bool = False,
) -> SyntheticDataset:
    """Merges datasets of several tasks into one that trains a joint policy, with no further interaction.

    Args:
        datasets: Two or more with metadata, all with actions or all with action probabilities. Each keeps its own
            normalisation, action selection and cloning settings; one environment may come more than once.
        cloning: How the joint policy is trained; if None `joint_cloning` of the first, whatever the others say.
        shared_places: Whether observations and actions of all tasks begin at the first place (the padding of the
            paper), or each task has places of its own (of discrete actions never).
        task_one_hot: Whether observations end with a one-hot of the task. Without it, and with shared places, the
            policy has to tell the task from what it sees.

    Returns:
        A dataset whose metadata name the environment `"multitask"` and hold the tasks in `env_options`. Its
        `action_selection` is that of the first dataset, and without effect where a task has its own.

    Raises:
        ValueError: The datasets do not go together, or one cannot be merged; the message names it by its index.

    Example:
        >>> def make(env, size):
        ...     metadata = FileMetadata(
        ...         env=env, max_episode_steps=9, method="by hand", observation_normalization="none",
        ...         action_selection="mode", cloning=CloningSettings())
        ...     return SyntheticDataset(jnp.ones((1, size)), actions=jnp.ones((1, 1)), metadata=metadata)
        >>> merged = merge([make("a/short", 1), make("a/long", 2)])
        >>> merged.observations.tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]
        >>> [dataset.observations.shape for dataset in split(merged)]
        [(1, 1), (1, 2)]
    """
    if len(datasets) < 2:
        raise ValueError(f"datasets: expected two or more to merge, got {len(datasets)}")
    discrete = datasets[0].actions is None
    tasks = tuple(_task(index, dataset, discrete) for index, dataset in enumerate(datasets))
    loss: CloningLoss = "cross_entropy" if discrete else "gaussian_nll"
    cloning = joint_cloning(tasks[0].metadata.require_cloning()) if cloning is None else cloning
    cloning = replace(cloning, loss=cloning.loss or loss)
    _check_joint_cloning(cloning)
    metadata = FileMetadata(
        env=NAME,
        env_options=to_dict(_Options(shared_places, task_one_hot, tasks)),
        max_episode_steps=max(task.metadata.max_episode_steps for task in tasks),
        method=NAME,
        observation_normalization="none",
        action_selection=tasks[0].metadata.action_selection,
        cloning=cloning,
        created_with=package_versions(NAME),
        source="merged from " + ", ".join(task.metadata.env for task in tasks),
    )
    return replace(_assemble(spaces(metadata), datasets), metadata=metadata)


def _task(index: int, dataset: SyntheticDataset, discrete: bool) -> Task:
    targets = dataset.action_probabilities if dataset.actions is None else dataset.actions
    try:
        if dataset.metadata is None or targets is None:
            raise ValueError("expected metadata and actions, as a loaded dataset has")
        if discrete != (dataset.actions is None):
            kinds = ("discrete", "continuous") if discrete else ("continuous", "discrete")
            raise ValueError(f"expected {kinds[0]} actions as in the first dataset, got {kinds[1]} ones")
        statistics = (
            None if values is None else tuple(np.asarray(values, np.float32).ravel().tolist())
            for values in (dataset.observation_mean, dataset.observation_std)
        )
        shape = dataset.observations.shape[1:]
        metadata = dataset.metadata
        # Learned step sizes are no part of the joint dataset, whose inner loop is another.
        if metadata.cloning is not None:
            metadata = replace(metadata, cloning=metadata.cloning.with_fixed_steps)
        return Task(metadata, dataset.num_pairs, shape, targets.shape[1], *statistics)
    except ValueError as error:
        raise ValueError(f"datasets[{index}]: {error}") from None


def _assemble(joint: JointSpaces, datasets: Sequence[SyntheticDataset]) -> SyntheticDataset:
    """The pairs of all tasks, padded."""
    space = joint.action_space
    widest = space.num_actions if isinstance(space, Discrete) else space.action_dim

    def padded(index: int, dataset: SyntheticDataset) -> SyntheticDataset:
        places = joint.action_places(index)
        around = ((0, 0), (places.start, widest - places.stop))
        targets = (dataset.actions, dataset.action_probabilities)
        actions, probabilities = jax.tree.map(lambda rows: jnp.pad(rows, around), targets)
        return SyntheticDataset(joint.pad(index, dataset.observations), actions, probabilities)

    parts = [padded(index, dataset) for index, dataset in enumerate(datasets)]
    return jax.tree.map(lambda *rows: jnp.concatenate(rows).astype(jnp.float32), *parts)


@dataclass(frozen=True)
class _Options:
    """Content of `env_options`."""

    shared_places: bool
    task_one_hot: bool
    tasks: tuple[Task, ...]

    def __post_init__(self) -> None:
        """Refuses a single task."""
        if len(self.tasks) < 2:
            raise ValueError(f"tasks: expected two or more, got {len(self.tasks)}")


def spaces(metadata: FileMetadata) -> JointSpaces:
    """The spaces of the joint policy, with the tasks in them, of a merged dataset or a policy trained on one.

    Raises:
        ValueError: The metadata are not those of a merged dataset, or malformed; the message names the key.
    """
    if not is_merged(metadata):
        raise ValueError(f"metadata.env: expected {NAME}, as of a merged dataset, got {metadata.env}")
    where = "metadata.env_options"
    options = from_dict(_Options, to_dict(metadata)["env_options"], where)
    discrete = metadata.require_cloning().loss == "cross_entropy"
    for index, task in enumerate(options.tasks):
        loss = task.metadata.require_cloning().loss
        if loss is not None and (loss == "cross_entropy") != discrete:
            raise ValueError(
                f"{where}.tasks[{index}].metadata.cloning.loss: expected one for the same kind of actions as "
                f"{metadata.require_cloning().loss}, got {loss}"
            )
    return JointSpaces(options.tasks, options.shared_places, options.task_one_hot, discrete)


def tasks(metadata: FileMetadata) -> tuple[Task, ...]:
    """The tasks of a merged dataset, or of a policy trained on one. Errors of `spaces`."""
    return spaces(metadata).tasks


def split(dataset: SyntheticDataset) -> list[SyntheticDataset]:
    """The datasets that `merge` was given, in their order: the same pairs, statistics and metadata.

    Learned step sizes and log standard deviations are left out, and the metadata then name the default optimiser.

    Raises:
        ValueError: It is not a merged dataset, or its arrays are not what its metadata say.
    """
    if dataset.metadata is None:
        raise ValueError("dataset: expected metadata, as a merged dataset has")
    joint = spaces(dataset.metadata)
    total = sum(task.num_pairs for task in joint.tasks)
    if dataset.num_pairs != total:
        raise ValueError(f"observations: expected {total} pairs, as many as the tasks have, got {dataset.num_pairs}")
    if dataset.observations.shape[1:] != joint.observation_shape:
        shape = dataset.observations.shape[1:]
        raise ValueError(f"observations: expected shape {joint.observation_shape} for the tasks, got {shape}")
    parts, start = [], 0
    for index, task in enumerate(joint.tasks):
        rows = slice(start, start + task.num_pairs)
        start += task.num_pairs
        observations = dataset.observations[rows, joint.observation_places(index)]
        observations = observations.reshape(-1, *task.observation_shape)
        actions, probabilities = (
            None if values is None else values[rows, joint.action_places(index)]
            for values in (dataset.actions, dataset.action_probabilities)
        )
        normalizer = task.normalizer()
        parts.append(
            SyntheticDataset(
                observations, actions, probabilities, normalizer.mean, normalizer.std, metadata=task.metadata
            )
        )
    again = _assemble(joint, parts)
    for name in ("observations", "actions", "action_probabilities"):
        expected, found = getattr(again, name), getattr(dataset, name)
        # Arrays of other shapes are not equal either, nor are None and an array.
        if not np.array_equal(expected, found):
            raise ValueError(f"{name}: expected those of the tasks, padded with zeros and any one-hot, got others")
    return parts


def task_policy(policy: Policy, joint: JointSpaces, index: int) -> Policy:
    """The joint policy as one of a single task.

    Args:
        policy: For `joint`.
        joint: What `spaces` returns.
        index: Of the task.

    Returns:
        A policy of the same parameters that takes normalised observations `[..., *observation_shape]` of the task and
        returns a distribution over its actions: the others are cut off, and in a discrete task their probability is
        shared out.
    """
    places = joint.action_places(index)

    def apply(params: PyTree, observations: jax.Array) -> Distribution:
        distribution = policy.apply(params, joint.pad(index, observations))
        if isinstance(distribution, Categorical):
            return Categorical(distribution.logits[..., places])
        if isinstance(distribution, DiagonalGaussian):
            return DiagonalGaussian(distribution.mean[..., places], distribution.log_std[..., places])
        raise TypeError(f"expected a Categorical or DiagonalGaussian policy, got {type(distribution).__name__}")

    return Policy(policy.init, apply)
