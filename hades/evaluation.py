"""Evaluation on fresh keys, with intervals of the mean."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np

from hades import policies
from hades.dataset import SyntheticDataset
from hades.distributions import ActionSelection
from hades.fitness import FitnessKeys, clone_inits, init_networks
from hades.inner import cloning
from hades.inner.cloning import BehaviourCloning
from hades.metadata import DatasetMetadata, EvaluationSummary
from hades.normalization import Normalizer, PolicyParams
from hades.policies import Policy
from hades.policy_file import TrainedPolicy
from hades.rollouts.host import compiled_rollout
from hades.statistics import mean_interval
from hades.types import AnyEnvironment, PyTree


@dataclass(frozen=True)
class Evaluation:
    """Returns of policies, and what to say of them.

    Attributes:
        returns: `[inits, episodes]` float; of a single policy `[1, episodes]`.
        lengths: Steps of each episode, `[inits, episodes]`.
        normalization_envs: How many episodes shared running statistics, None unless normalisation was running.
    """

    returns: np.ndarray
    lengths: np.ndarray
    normalization_envs: int | None = None

    @property
    def num_inits(self) -> int:
        """Number of policies."""
        return self.returns.shape[0]

    @property
    def num_episodes(self) -> int:
        """Episodes of each policy."""
        return self.returns.shape[1]

    @property
    def per_init(self) -> list[float]:
        """Mean return of each policy."""
        return [float(value) for value in self.returns.mean(axis=1)]

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def std(self) -> float:
        """Standard deviation of the return over all episodes."""
        return float(self.returns.std())

    @cached_property
    def ci95(self) -> tuple[float, float]:
        """95 % interval of the mean (Student's t) over policies, or over the episodes of a single policy."""
        values = self.returns.mean(axis=1) if self.num_inits > 1 else self.returns[0]
        return mean_interval(values)

    def summary(self) -> EvaluationSummary:
        """What a dataset file keeps of it."""
        return EvaluationSummary(
            mean=self.mean,
            ci95=self.ci95 if np.isfinite(self.ci95).all() else None,
            num_inits=self.num_inits,
            num_episodes=self.num_episodes,
            normalization_envs=self.normalization_envs,
        )


def evaluate(
    key: jax.Array,
    env: AnyEnvironment,
    policy: Policy,
    params: PolicyParams,
    num_episodes: int = 64,
    action_selection: ActionSelection = "sample",
    normalization_envs: int | None = None,
) -> Evaluation:
    """Plays episodes with one policy.

    Args:
        key: Fresh key; nothing that was selected on it should be evaluated with it.
        env: AnyEnvironment.
        policy: Policy.
        params: Its parameters with their normalisation, as `behaviour_cloning` returns them.
        num_episodes: Episodes.
        action_selection: Whether actions are sampled or the mode.
        normalization_envs: With running normalisation, how many episodes share statistics; all of them if None.

    Raises:
        ValueError: `num_episodes` is not a multiple of `normalization_envs`.
    """
    rollout = compiled_rollout(env, policy, num_episodes, action_selection, normalization_envs)
    episodes = rollout(key[None], jax.tree.map(lambda leaf: leaf[None, None], params.network), params.normalizer)
    running = (normalization_envs or num_episodes) if params.normalizer.kind == "running" else None
    return Evaluation(np.asarray(episodes.returns[0]), np.asarray(episodes.lengths[0]), running)


class DatasetEvaluator:
    """Fresh-key evaluation of datasets, compiled once for many datasets of one shape.

    Example:
        >>> import envs, hades, jax.numpy as jnp
        >>> env = envs.make("diagnostic/match")
        >>> clone = hades.behaviour_cloning(hades.policies.mlp(env), num_steps=5)
        >>> evaluator = DatasetEvaluator(env, clone, num_inits=2, num_episodes=3)
        >>> evaluator.untrained(jax.random.key(0), Normalizer()).returns.shape
        (2, 3)
    """

    def __init__(
        self,
        env: AnyEnvironment,
        clone: BehaviourCloning,
        num_inits: int = 16,
        num_episodes: int = 8,
        action_selection: ActionSelection = "sample",
        normalization_envs: int | None = None,
        init_seed: int | None = None,
        player: Policy | None = None,
        ensemble: int = 1,
    ) -> None:
        """Prepares the compiled functions.

        Args:
            env: AnyEnvironment.
            clone: Trains the policies.
            num_inits: Freshly initialised policies.
            num_episodes: Episodes of each.
            action_selection: Whether actions are sampled or the mode.
            normalization_envs: Episodes that share running statistics; all of a policy's if None.
            init_seed: The one initialisation that a HaDES-F dataset belongs to.
            player: Plays with the parameters of the policies that were trained; the policy of `clone` if None.
            ensemble: Policies that act together, see `hades.policies.ensemble`: `num_inits * ensemble` are trained,
                and `num_inits` ensembles of them play.

        Raises:
            ValueError: `num_episodes` is not a multiple of `normalization_envs`, or members would be all the same.
        """
        if ensemble > 1 and init_seed is not None:
            raise ValueError(f"ensemble: expected 1 for a dataset of one initialisation, got {ensemble}")
        player = player or clone.policy
        player = policies.ensemble(player, ensemble) if ensemble != 1 else player
        self._rollout = compiled_rollout(env, player, num_episodes, action_selection, normalization_envs)
        # Whatever the size of ensembles, episodes are the same.
        self._episode_keys = jax.jit(lambda key: FitnessKeys.draw(key, num_inits).episodes)
        self._draw = jax.jit(lambda key: FitnessKeys.draw(key, num_inits * ensemble, init_seed))
        self._ensemble = ensemble
        self._normalization_envs = normalization_envs or num_episodes
        self._set_inner_loop(clone)

    def __call__(self, key: jax.Array, dataset: SyntheticDataset) -> Evaluation:
        """Trains fresh policies on a dataset and plays with them."""
        return self.play(key, self.train(key, dataset), dataset.normalizer())

    def untrained(self, key: jax.Array, normalizer: Normalizer) -> Evaluation:
        """Plays with policies as they are initialised."""
        networks = jax.tree.map(lambda leaf: leaf[None], self._init(self._draw(key)))
        return self.play(key, self._grouped(networks), normalizer)

    def references(self, key: jax.Array, dataset: SyntheticDataset) -> dict[str, Evaluation]:
        """What those return that know nothing: the dataset's zeros, and policies as they are initialised."""
        return {
            "zero dataset": self(key, zero_dataset(dataset)),
            "untrained policy": self.untrained(key, dataset.normalizer()),
        }

    def train(self, key: jax.Array, dataset: SyntheticDataset) -> PyTree:
        """Trains fresh policies on a dataset; returns their network parameters, `[1, inits, ...]`.

        Of ensembles they are `[1, inits, ensemble, ...]`.
        """
        keys = self._draw(key)
        batched = jax.tree.map(lambda leaf: leaf[None], dataset.pairs())
        return self._grouped(self._clone(keys, self._init(keys), batched))

    def _grouped(self, networks: PyTree) -> PyTree:
        """Parameters `[1, inits * ensemble, ...]` as those of ensembles."""
        if self._ensemble == 1:
            return networks
        return jax.tree.map(lambda leaf: leaf.reshape(1, -1, self._ensemble, *leaf.shape[2:]), networks)

    def play(self, key: jax.Array, networks: PyTree, normalizer: Normalizer) -> Evaluation:
        """Plays with the policies that `train` returned, given the same key."""
        episodes = self._rollout(self._episode_keys(key), networks, normalizer)
        running = self._normalization_envs if normalizer.kind == "running" else None
        return Evaluation(np.asarray(episodes.returns[0]), np.asarray(episodes.lengths[0]), running)

    def with_inner_loop(self, clone: BehaviourCloning) -> DatasetEvaluator:
        """The same evaluation of another inner loop, which shares the compiled rollout.

        Args:
            clone: Trains the policies. `apply` of its policy is that of this evaluator's: initialiser, optimiser,
                loss and budget may be others; widths, depth and activation may not.

        Raises:
            ValueError: The policy's parameters have other names or shapes.
        """
        shapes, own_shapes = (jax.eval_shape(loop.policy.init, jax.random.key(0)) for loop in (clone, self._inner_loop))
        if shapes != own_shapes:
            raise ValueError("clone: expected a policy of the same architecture, got parameters of other shapes")
        other = copy.copy(self)
        other._set_inner_loop(clone)
        return other

    def _set_inner_loop(self, clone: BehaviourCloning) -> None:
        self._inner_loop = clone
        self._init = jax.jit(partial(init_networks, clone))
        self._clone = jax.jit(partial(clone_inits, clone))


class PolicyEvaluator:
    """Fresh-key evaluation of trained policies of one architecture, compiled once.

    Example:
        >>> import envs, hades
        >>> env = envs.make("diagnostic/match")
        >>> policy = hades.policies.mlp(env)
        >>> evaluator = PolicyEvaluator(env, policy, num_inits=2, num_episodes=3)
        >>> trained = TrainedPolicy(PolicyParams(policy.init(jax.random.key(0))))
        >>> evaluator(jax.random.key(1), trained).returns.shape
        (1, 6)
    """

    def __init__(
        self,
        env: AnyEnvironment,
        policy: Policy,
        num_inits: int = 16,
        num_episodes: int = 8,
        action_selection: ActionSelection = "sample",
        normalization_envs: int | None = None,
    ) -> None:
        """Prepares the compiled functions.

        Args:
            env: AnyEnvironment.
            policy: The architecture.
            num_inits: Untrained policies that `references` plays with; a trained one plays for all of them.
            num_episodes: Episodes of each.
            action_selection: Whether actions are sampled or the mode.
            normalization_envs: Episodes that share running statistics; all of `num_episodes` if None.

        Raises:
            ValueError: `num_episodes` is not a multiple of `normalization_envs`.
        """
        self._rollout = compiled_rollout(env, policy, num_episodes, action_selection, normalization_envs)
        self._init = jax.jit(partial(jax.lax.map, policy.init))
        self._num_inits = num_inits
        self._normalization_envs = normalization_envs or num_episodes

    def __call__(self, key: jax.Array, trained: TrainedPolicy) -> Evaluation:
        """Plays `num_inits * num_episodes` episodes with one policy; returns are `[1, inits * episodes]`."""
        shape = (1, self._num_inits)
        networks = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, shape + leaf.shape), trained.params.network)
        evaluation = self._play(key, networks, trained.params.normalizer)
        return replace(evaluation, returns=evaluation.returns.reshape(1, -1), lengths=evaluation.lengths.reshape(1, -1))

    def references(self, key: jax.Array, trained: TrainedPolicy) -> dict[str, Evaluation]:
        """What those return that know nothing: policies as they are initialised."""
        init_key, play_key = jax.random.split(key)
        networks = jax.tree.map(lambda leaf: leaf[None], self._init(jax.random.split(init_key, self._num_inits)))
        return {"untrained policy": self._play(play_key, networks, trained.params.normalizer)}

    def _play(self, key: jax.Array, networks: PyTree, normalizer: Normalizer) -> Evaluation:
        episodes = self._rollout(jax.random.split(key, self._num_inits), networks, normalizer)
        running = self._normalization_envs if normalizer.kind == "running" else None
        return Evaluation(np.asarray(episodes.returns[0]), np.asarray(episodes.lengths[0]), running)


def dataset_evaluator(
    env: AnyEnvironment,
    dataset: SyntheticDataset,
    num_inits: int = 16,
    num_episodes: int = 8,
    clone: BehaviourCloning | None = None,
    ensemble: int = 1,
) -> DatasetEvaluator:
    """The evaluation that suits the metadata of a dataset.

    Args:
        env: AnyEnvironment.
        dataset: With metadata.
        num_inits: Freshly initialised policies.
        num_episodes: Episodes of each.
        clone: Another inner loop than the one of the metadata: another architecture, optimiser, or budget.
        ensemble: Policies that act together, each trained from an initialisation of its own.

    Raises:
        ValueError: The dataset has no metadata, or does not fit the environment, `num_episodes` or `ensemble`.
    """
    metadata = dataset.metadata
    if metadata is None:
        raise ValueError("dataset: expected metadata, as a loaded or distilled dataset has")
    check_fits(env, dataset)
    return DatasetEvaluator(
        env,
        clone or cloning.from_settings(env, metadata.cloning),
        num_inits,
        num_episodes,
        metadata.action_selection,
        shared_envs(metadata),
        metadata.init_seed,
        ensemble=ensemble,
    )


def shared_envs(metadata: DatasetMetadata) -> int | None:
    """How many episodes share running statistics, as far as metadata say it; None is all of a policy's."""
    # Files may say how many environments there were where they shared nothing.
    shared = metadata.observation_normalization == "running"
    return metadata.evaluation.normalization_envs if metadata.evaluation and shared else None


def evaluate_dataset(
    key: jax.Array,
    env: AnyEnvironment,
    dataset: SyntheticDataset,
    num_inits: int = 16,
    num_episodes: int = 8,
    clone: BehaviourCloning | None = None,
) -> Evaluation:
    """Trains fresh policies on a dataset and plays with them. Arguments and errors of `dataset_evaluator`."""
    return dataset_evaluator(env, dataset, num_inits, num_episodes, clone)(key, dataset)


def zero_dataset(dataset: SyntheticDataset) -> SyntheticDataset:
    """The dataset that knows nothing: zero observations, zero actions or uniform probabilities; the same statistics."""
    probabilities = dataset.action_probabilities
    return replace(
        dataset,
        observations=jnp.zeros_like(dataset.observations),
        actions=None if dataset.actions is None else jnp.zeros_like(dataset.actions),
        action_probabilities=None
        if probabilities is None
        else jnp.full_like(probabilities, 1 / probabilities.shape[-1]),
    )


def check_fits(env: AnyEnvironment, dataset: SyntheticDataset) -> None:
    """Raises `ValueError` unless observations and actions of the dataset have the environment's shapes."""
    shape = dataset.observations.shape[1:]
    if shape != tuple(env.observation_shape):
        raise ValueError(f"env: observations of {env.name} have shape {env.observation_shape}, the dataset's {shape}")
    targets = dataset.action_probabilities if dataset.actions is None else dataset.actions
    continuous = dataset.actions is not None
    dim = getattr(env.action_space, "action_dim" if continuous else "num_actions", None)
    if targets is None or dim != targets.shape[1]:
        kind = "continuous" if continuous else "discrete"
        width = None if targets is None else targets.shape[1]
        raise ValueError(f"env: {env.name} has {env.action_space}, but the dataset's actions are {kind}, {width} wide")
