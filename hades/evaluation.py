"""Evaluation on fresh keys: returns with intervals, beside those of policies that have learned nothing.

Compiled functions are kept: a second evaluation of the same environment, policy and sizes compiles nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.stages import Lowered, Wrapped

from hades import fitness, policies
from hades._cache import kept
from hades._validation import require_positive
from hades.dataset import SyntheticDataset
from hades.distributions import ActionSelection
from hades.fitness import Draw
from hades.inner import cloning
from hades.metadata import EvaluationSummary, FileMetadata
from hades.normalization import Normalization, Normalizer, PolicyParams
from hades.policies import Policy
from hades.policy_file import TrainedPolicy
from hades.rollouts.first_episode import Rollout
from hades.rollouts.host import CompiledRollout, compiled_rollout
from hades.sharding import Devices, replicate, replicated_shapes
from hades.statistics import mean_interval
from hades.types import AnyEnvironment, InnerLoop, Params, PyTree


@dataclass(frozen=True)
class Evaluation:
    """Returns of policies.

    Attributes:
        returns: `[inits, episodes]` float; of a single policy `[1, episodes]`.
        lengths: Steps of each episode, `[inits, episodes]`.
        normalization_envs: Episodes that shared running statistics, None unless normalisation was running.
        successes: Whether each episode solved its task, `[inits, episodes]` bool; None where no simulator says so.
    """

    returns: np.ndarray
    lengths: np.ndarray
    normalization_envs: int | None = None
    successes: np.ndarray | None = None

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
        return [float(value) for value in self.returns.mean(axis=1, dtype=np.float64)]

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean(dtype=np.float64))

    @property
    def std(self) -> float:
        """Standard deviation of the return over all episodes."""
        return float(self.returns.std(dtype=np.float64))

    @property
    def is_finite(self) -> bool:
        """Whether every return is a finite number."""
        return bool(np.isfinite(self.returns).all())

    @cached_property
    def ci95(self) -> tuple[float, float]:
        """95 % interval of the mean (Student's t) over policies, or over the episodes of a single policy."""
        return self._interval_of(self.returns)

    @property
    def success_rate(self) -> float | None:
        """Fraction of the episodes that solved their task; None where the simulator does not say."""
        return None if self.successes is None else float(self.successes.mean())

    @property
    def success_ci95(self) -> tuple[float, float] | None:
        """95 % interval of `success_rate`, as `ci95` of the return."""
        if self.successes is None:
            return None
        low, high = self._interval_of(self.successes)
        # Student's interval knows no bounds of a rate.
        return max(low, 0.0), min(high, 1.0)

    def over_episodes(self, function: Callable[[np.ndarray], np.ndarray]) -> Evaluation:
        """The same with every array `[inits, episodes]` put through a function, such as one that takes some of them."""
        successes = None if self.successes is None else function(self.successes)
        return replace(self, returns=function(self.returns), lengths=function(self.lengths), successes=successes)

    def _interval_of(self, values: np.ndarray) -> tuple[float, float]:
        return mean_interval(values.mean(axis=1) if self.num_inits > 1 else values[0])

    def summary(self) -> EvaluationSummary:
        """Part of the evaluation that a dataset file keeps."""
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
    """Plays episodes with one policy. Runs on the host; `hades.rollouts.make_rollout` is the function to jit.

    Args:
        key: Fresh key; nothing that was selected on it should be evaluated with it.
        env: Environment.
        policy: Policy.
        params: Its parameters with their normalisation, as `behaviour_cloning` returns them.
        num_episodes: Episodes.
        action_selection: Whether actions are sampled or the mode.
        normalization_envs: With running normalisation, how many episodes share statistics; all of them if None.

    Raises:
        TypeError: It is called within `jax.jit`, `vmap` or `grad`.
        ValueError: `num_episodes` is not a multiple of `normalization_envs`.
    """
    _refuse_tracers("evaluate", "hades.rollouts.make_rollout", (key, params))
    evaluator = PolicyEvaluator(env, policy, 1, num_episodes, action_selection, normalization_envs)
    network = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None, None], params.network)
    return evaluator._play(key[None], network, params.normalizer)


def _refuse_tracers(name: str, instead: str, arguments: PyTree) -> None:
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arguments)):
        raise TypeError(
            f"hades.{name} runs on the host, expected no jit, vmap or grad around it; {instead} can be jitted"
        )


@dataclass(frozen=True)
class PolicyEvaluator:
    """Fresh-key evaluation of trained policies of one architecture: equal evaluators share what was compiled.

    Attributes:
        env: Environment.
        policy: Architecture.
        num_inits: Untrained policies that `references` plays with; a trained one plays for all of them.
        num_episodes: Episodes of each.
        action_selection: Whether actions are sampled or the mode.
        normalization_envs: Episodes that share running statistics; all of `num_episodes` if None.
        mesh: Devices that the policies are spread over; this one alone if None. A simulator on the host asks one.

    Raises:
        ValueError: `num_episodes` is not a multiple of `normalization_envs`.

    Example:
        >>> import envs, hades
        >>> env = envs.make("diagnostic/match")
        >>> policy = hades.policies.mlp(env)
        >>> evaluator = PolicyEvaluator(env, policy, num_inits=2, num_episodes=3)
        >>> trained = TrainedPolicy(PolicyParams(policy.init(jax.random.key(0))))
        >>> evaluator(jax.random.key(1), trained).returns.shape
        (1, 6)
    """

    env: AnyEnvironment
    policy: Policy
    num_inits: int = 16
    num_episodes: int = 8
    action_selection: ActionSelection = "sample"
    normalization_envs: int | None = None
    mesh: Mesh | None = None

    def __post_init__(self) -> None:
        """Refuses counts that are not positive, and episodes that do not divide into groups."""
        require_positive("num_inits", self.num_inits)
        _ = self._rollout

    def __call__(self, key: jax.Array, trained: TrainedPolicy) -> Evaluation:
        """Plays `num_inits * num_episodes` episodes with one policy; returns are `[1, inits * episodes]`."""
        networks = self._for_each_init(trained.params.network)
        played = self._play(jax.random.split(key, self.num_inits), networks, trained.params.normalizer)
        return played.over_episodes(lambda values: values.reshape(1, -1))

    def lower(self, key: jax.Array, trained: TrainedPolicy) -> list[Lowered]:
        """Programs of an evaluation of such a policy, traced but not compiled; none of simulators on the host."""
        networks = jax.eval_shape(self._for_each_init, trained.params.network)
        return self._lower_play(key, networks, trained.params.normalizer)

    def references(self, key: jax.Array, trained: TrainedPolicy) -> dict[str, Evaluation]:
        """Returns of policies as they are initialised."""
        init_keys, play_keys = (jax.random.split(part, self.num_inits) for part in jax.random.split(key))
        networks = jax.tree.map(lambda leaf: leaf[None], _initialise(self.policy)(init_keys))
        return {"untrained policy": self._play(play_keys, networks, trained.params.normalizer)}

    @property
    def _rollout(self) -> Rollout:
        arguments = (self.num_episodes, self.action_selection, self.normalization_envs)
        return compiled_rollout(self.env, self.policy, *arguments, self.mesh)

    def _for_each_init(self, network: Params) -> Params:
        """Parameters of one policy, which plays for all: `[1, inits, ...]`."""
        shape = (1, self.num_inits)
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, shape + jnp.shape(leaf)), network)

    def _play(self, keys: jax.Array, networks: Params, normalizer: Normalizer) -> Evaluation:
        """Plays with policies `[1, inits, ...]` under keys `[inits]`."""
        episodes = self._rollout(keys, networks, normalizer)
        shared = self.normalization_envs or self.num_episodes
        running = shared if normalizer.kind == "running" else None
        solved = None if episodes.successes is None else np.asarray(episodes.successes)[0]
        return Evaluation(np.asarray(episodes.returns)[0], np.asarray(episodes.lengths)[0], running, solved)

    def _lower_play(self, key: jax.Array, networks: Params, normalizer: Normalizer) -> list[Lowered]:
        """The program of `_play` for keys of such a kind and networks of such shapes."""
        if not isinstance(self._rollout, CompiledRollout):
            return []
        keys = jax.eval_shape(lambda: jax.random.split(key, self.num_inits))
        return [self._rollout.lower(keys, networks, normalizer)]


@dataclass(frozen=True)
class DatasetEvaluator:
    """Fresh-key evaluation of datasets: equal evaluators share what was compiled, for all datasets of one shape.

    Attributes:
        env: Environment.
        inner: Trains the policies.
        num_inits: Freshly initialised policies.
        num_episodes: Episodes of each.
        action_selection: Whether actions are sampled or the mode.
        normalization_envs: Episodes that share running statistics; all of a policy's if None.
        init_seed: Seed of the one initialisation that a HaDES-F dataset belongs to; it is trained once.
        acting_policy: Acts with the parameters of the policies that were trained; the policy of `inner` if None.
        ensemble: Policies that act together, see `hades.policies.ensemble`: `num_inits * ensemble` are trained, and
            `num_inits` ensembles of them play.
        more_references: `more_references(key)`: further datasets that references are trained on, by name.
        mesh: Devices that the policies are spread over; this one alone if None.
        observation_normalization: That of datasets with neither metadata nor statistics, as a run has them.

    Raises:
        ValueError: `num_episodes` is not a multiple of `normalization_envs`, or members would be all the same.

    Example:
        >>> import envs, hades, jax.numpy as jnp
        >>> env = envs.make("diagnostic/match")
        >>> inner = hades.behaviour_cloning(hades.policies.mlp(env), num_steps=5)
        >>> evaluator = DatasetEvaluator(env, inner, num_inits=2, num_episodes=3)
        >>> evaluator.untrained(jax.random.key(0), Normalizer()).returns.shape
        (2, 3)
    """

    env: AnyEnvironment
    inner: InnerLoop
    num_inits: int = 16
    num_episodes: int = 8
    action_selection: ActionSelection = "sample"
    normalization_envs: int | None = None
    init_seed: int | None = None
    acting_policy: Policy | None = None
    ensemble: int = 1
    more_references: Callable[[jax.Array], dict[str, SyntheticDataset]] | None = field(default=None, compare=False)
    mesh: Mesh | None = None
    observation_normalization: Normalization = "none"

    def __post_init__(self) -> None:
        """Refuses counts that are not positive, ensembles of one initialisation, and episodes that do not divide."""
        require_positive("num_inits", self.num_inits)
        if self.ensemble > 1 and self.init_seed is not None:
            raise ValueError(f"ensemble: expected 1 for a dataset of one initialisation, got {self.ensemble}")
        _ = self._player

    def __call__(self, key: jax.Array, dataset: SyntheticDataset) -> Evaluation:
        """Trains fresh policies on a dataset and plays with them."""
        return self.play(key, self.train(key, dataset), dataset.normalizer(self.observation_normalization))

    def untrained(self, key: jax.Array, normalizer: Normalizer) -> Evaluation:
        """Plays with policies as they are initialised."""
        initial = jax.tree.map(lambda leaf: leaf[None], self._drawn(key).initial)
        return self.play(key, self._grouped(initial), normalizer)

    def references(self, key: jax.Array, dataset: SyntheticDataset) -> dict[str, Evaluation]:
        """Returns of policies that have learned nothing: of the zero dataset, as they are initialised, and more."""
        _, _, reference_key = jax.random.split(key, 3)
        more = {} if self.more_references is None else self.more_references(reference_key)
        return {
            **{name: self(key, other) for name, other in more.items()},
            "zero dataset": self(key, zero_dataset(dataset)),
            "untrained policy": self.untrained(key, dataset.normalizer(self.observation_normalization)),
        }

    def train(self, key: jax.Array, dataset: SyntheticDataset) -> Params:
        """Trains fresh policies on a dataset; returns their network parameters, `[1, inits, ...]`.

        Of ensembles they are `[1, inits, ensemble, ...]`.
        """
        _refuse_tracers("evaluate_dataset", "hades.behaviour_cloning", (key, dataset))
        drawn, batched = replicate((self._drawn(key), _batched(dataset)), self.mesh)
        return self._grouped(_fit(self.inner, Devices(self.mesh))(drawn, batched))

    def play(self, key: jax.Array, networks: Params, normalizer: Normalizer) -> Evaluation:
        """Plays with the policies that `train` returned, given the same key."""
        _, episode_key, _ = jax.random.split(key, 3)
        keys = jax.random.split(episode_key, self.num_inits)
        return self._player._play(keys, self._for_each_init(networks), normalizer)

    def lower(self, key: jax.Array, dataset: SyntheticDataset) -> list[Lowered]:
        """Programs of an evaluation of such a dataset, traced but not compiled; no rollout in a host's simulator."""
        draw, fit = self._draw, _fit(self.inner, Devices(self.mesh))
        drawn = replicated_shapes(jax.eval_shape(draw, key), self.mesh)
        batched = replicated_shapes(jax.eval_shape(_batched, dataset), self.mesh)
        networks = jax.eval_shape(lambda *rows: self._for_each_init(self._grouped(fit(*rows))), drawn, batched)
        normalizer = dataset.normalizer(self.observation_normalization)
        return [draw.lower(key), fit.lower(drawn, batched), *self._player._lower_play(key, networks, normalizer)]

    def with_inner_loop(self, inner: InnerLoop) -> DatasetEvaluator:
        """The same evaluation of another inner loop, which shares the compiled rollout.

        Args:
            inner: Trains the policies. `apply` of its policy is that of this evaluator's: initialiser, optimiser,
                loss and budget may be others; widths, depth and activation may not.

        Raises:
            ValueError: The policy's parameters have other names or shapes.
        """
        shapes, own_shapes = (jax.eval_shape(loop.init, jax.random.key(0)) for loop in (inner, self.inner))
        if shapes != own_shapes:
            raise ValueError("inner: expected a policy of the same architecture, got parameters of other shapes")
        return replace(self, inner=inner, acting_policy=self.acting_policy or self.inner.policy)

    def _drawn(self, key: jax.Array) -> Draw:
        """Random numbers of training; of one initialisation a single policy is trained."""
        init_key, _, _ = jax.random.split(key, 3)
        drawn: Draw = self._draw(init_key)
        return drawn

    @property
    def _draw(self) -> Wrapped:
        trained = 1 if self.init_seed is not None else self.num_inits * self.ensemble
        return _draw(self.inner, trained, self.init_seed)

    @property
    def _player(self) -> PolicyEvaluator:
        policy = self.acting_policy or self.inner.policy
        acting = policy if self.ensemble == 1 else policies.ensemble(policy, self.ensemble)
        arguments = (self.num_episodes, self.action_selection, self.normalization_envs)
        return PolicyEvaluator(self.env, acting, self.num_inits, *arguments, self.mesh)

    def _grouped(self, networks: Params) -> Params:
        """Parameters `[1, inits * ensemble, ...]` as those of ensembles."""
        if self.ensemble == 1:
            return networks
        return jax.tree.map(lambda leaf: leaf.reshape(1, -1, self.ensemble, *leaf.shape[2:]), networks)

    def _for_each_init(self, networks: Params) -> Params:
        """Parameters of every policy that plays, which are all the same of one initialisation."""
        if self.init_seed is None:
            return networks
        shape = (1, self.num_inits)
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, shape + leaf.shape[2:]), networks)


def _batched(dataset: SyntheticDataset) -> SyntheticDataset:
    """The arrays of a dataset that training sees, as those of the one candidate of a batch."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], dataset.without_statistics())


@kept
def _draw(inner: InnerLoop, num_inits: int, init_seed: int | None) -> Wrapped:
    return jax.jit(partial(fitness.draw_inits, inner, num_inits=num_inits, init_seed=init_seed))


@kept
def _fit(inner: InnerLoop, devices: Devices) -> Wrapped:
    return jax.jit(partial(fitness.fit_over, devices, inner))


@kept
def _initialise(policy: Policy) -> Callable[[jax.Array], Params]:
    return jax.jit(jax.vmap(policy.init))


def dataset_evaluator(
    env: AnyEnvironment,
    dataset: SyntheticDataset,
    num_inits: int = 16,
    num_episodes: int = 8,
    inner: InnerLoop | None = None,
    ensemble: int = 1,
    mesh: Mesh | None = None,
) -> DatasetEvaluator:
    """Makes the evaluation that the metadata of a dataset ask for.

    Args:
        env: Environment.
        dataset: With metadata.
        num_inits: Freshly initialised policies.
        num_episodes: Episodes of each.
        inner: Another inner loop than the one of the metadata: another architecture, optimiser, or budget.
        ensemble: Policies that act together, each trained from an initialisation of its own.
        mesh: Devices that the policies are spread over; this one alone if None.

    Raises:
        ValueError: The dataset has no metadata, or none of its inner loop and no other is given, or it does not fit the
            environment, `num_episodes` or `ensemble`.
    """
    metadata = dataset.metadata
    if metadata is None:
        raise ValueError("dataset: expected metadata, as a loaded or distilled dataset has")
    check_fits(env, dataset)
    return DatasetEvaluator(
        env,
        inner or cloning.from_settings(env, metadata.require_cloning()),
        num_inits,
        num_episodes,
        metadata.action_selection,
        shared_envs(metadata),
        metadata.init_seed,
        ensemble=ensemble,
        mesh=mesh,
    )


def shared_envs(metadata: FileMetadata) -> int | None:
    """Episodes that share running statistics, as far as metadata say it; None is all of a policy's."""
    # Files may say how many environments there were where they shared nothing.
    shared = metadata.observation_normalization == "running"
    return metadata.evaluation.normalization_envs if metadata.evaluation and shared else None


def evaluate_dataset(
    key: jax.Array,
    env: AnyEnvironment,
    dataset: SyntheticDataset,
    num_inits: int = 16,
    num_episodes: int = 8,
    inner: InnerLoop | None = None,
) -> Evaluation:
    """Trains fresh policies on a dataset and plays with them. Arguments and errors of `dataset_evaluator`."""
    return dataset_evaluator(env, dataset, num_inits, num_episodes, inner)(key, dataset)


def zero_dataset(dataset: SyntheticDataset) -> SyntheticDataset:
    """A dataset without information: zero observations, zero actions or uniform probabilities; the same statistics."""
    zeros = jax.tree.map(jnp.zeros_like, dataset.pairs())
    uniform = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1 / leaf.shape[-1]), dataset.action_probabilities)
    return replace(dataset, observations=zeros.observations, actions=zeros.actions, action_probabilities=uniform)


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
