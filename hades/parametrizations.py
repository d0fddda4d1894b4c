"""Parametrisations: what an outer loop moves, and the dataset that it stands for.

Each is a `hades.types.Parametrization`: `init(key)` draws a first solution, `decode(solution)` is differentiable.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, cast

import jax
import jax.numpy as jnp
from flax import struct

from hades._pairs import clipped, even_labels, smooth_logits
from hades._validation import require_positive, require_positive_fields
from hades.dataset import SyntheticDataset
from hades.normalization import Normalizer
from hades.offline.initialization import InitializationName, initial_pairs
from hades.policies import Policy, PolicySpaces, Spaces
from hades.rollouts.auto_reset import PLAYED_ENVS, PLAYED_STEPS, play_randomly
from hades.rollouts.settings import PlaySettings
from hades.rollouts.statistics import initial_normalizer, measure_components, measure_statistics
from hades.types import ActionSpace, Continuous, Discrete, Environment, Parametrization, Params, Solution

FirstStep: TypeAlias = Callable[[jax.Array, SyntheticDataset], jax.Array]
"""`first(key, pairs)`: a step size `[]` for the first pairs, such as `hades.inner.StableStep`."""

# Below it a label's logarithm stays finite, and no training tells the difference.
_MIN_PROBABILITY = 1e-8


class _MovingPairs:
    def decode(self, solution: Solution) -> SyntheticDataset:
        """Pairs of one solution."""
        if "actions" in solution:
            return SyntheticDataset(solution["observations"], actions=solution["actions"])
        probabilities = jax.nn.softmax(solution["action_logits"])
        return SyntheticDataset(solution["observations"], action_probabilities=probabilities)


@dataclass(frozen=True)
class FreePairs(_MovingPairs):
    """Observations and actions move freely; discrete actions are the softmax of free logits.

    Made by `free_pairs`. The published parametrisation of HaDES (arXiv 2406.15042, section 4) on Brax.

    Attributes:
        observation_shape: Shape of one observation.
        action_space: Actions.
        dataset_size: Pairs N.
        init_scale: Standard deviation of the first observations and actions; logits begin at zero.
    """

    observation_shape: tuple[int, ...]
    action_space: ActionSpace
    dataset_size: int
    init_scale: float = 0.0

    def __post_init__(self) -> None:
        """Refuses a size that is not positive."""
        require_positive("dataset_size", self.dataset_size)

    def init(self, key: jax.Array) -> Solution:
        """Draws normal observations and actions, and uniform labels."""
        observation_key, action_key = jax.random.split(key)
        solution = {"observations": self._normal(observation_key, self.observation_shape)}
        if isinstance(self.action_space, Discrete):
            solution["action_logits"] = jnp.zeros((self.dataset_size, self.action_space.num_actions))
        else:
            solution["actions"] = self._normal(action_key, (self.action_space.action_dim,))
        return solution

    def _normal(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return self.init_scale * jax.random.normal(key, (self.dataset_size, *shape))


@dataclass(frozen=True)
class FixedLabels(FreePairs):
    """Observations move, one-hot labels stay, spread evenly over the pairs: HaDES on MinAtar (arXiv 2406.15042)."""

    def __post_init__(self) -> None:
        """Refuses continuous actions, which have no labels."""
        super().__post_init__()
        if not isinstance(self.action_space, Discrete):
            raise ValueError(f"learn_labels: fixed labels need discrete actions, got {self.action_space}")

    def init(self, key: jax.Array) -> Solution:
        """Draws normal observations."""
        return {"observations": super().init(key)["observations"]}

    def decode(self, solution: Solution) -> SyntheticDataset:
        """Pairs of one solution; label `i mod num_actions` belongs to pair `i`."""
        labels = even_labels(self.dataset_size, cast(Discrete, self.action_space).num_actions)
        return SyntheticDataset(solution["observations"], action_probabilities=labels)


def free_pairs(
    env: Spaces, dataset_size: int, learn_labels: bool = True, init_scale: float = 0.0
) -> FreePairs | FixedLabels:
    """Pairs that move freely, for the spaces of an environment.

    Args:
        env: An environment, or anything with its `observation_shape` and `action_space`.
        dataset_size: Pairs N.
        learn_labels: Whether discrete actions are learned as logits, or stay one-hot.
        init_scale: Standard deviation of the first observations and actions; 0 begins at zeros.

    Raises:
        ValueError: `dataset_size` is not positive.

    Example:
        >>> import envs
        >>> pairs = free_pairs(envs.make("diagnostic/match"), dataset_size=2)
        >>> pairs.decode(pairs.init(jax.random.key(0))).action_probabilities.shape
        (2, 3)
    """
    fixed = isinstance(env.action_space, Discrete) and not learn_labels
    build = FixedLabels if fixed else FreePairs
    return build(tuple(env.observation_shape), env.action_space, dataset_size, init_scale)


@struct.dataclass
class RealPairs(_MovingPairs):
    """Free pairs that begin at pairs of offline data (arXiv 2410.22728).

    Attributes:
        observations: Normalised states of the data, `[transitions, *observation_shape]`.
        actions: Actions of the data, `[transitions, action_dim]`; probabilities `[transitions, num_actions]` of
            discrete ones, whose labels are soft.
        action_values: q*(s, a) of the data's own actions, `[transitions]`; None where `initialization` needs none.
        dataset_size: Pairs N.
        initialization: Choice of the first pairs, see `hades.offline.initialization.initial_pairs`.
        teacher_actions: Of the states of the data, which the first pairs have in place of the data's own,
            `[transitions, action_dim]`; None for the data's own.
        bounds: Box that decoded actions are clipped to, gradients passing as if they were not; None for no clipping.
        discrete: Whether actions are discrete.
    """

    observations: jax.Array
    actions: jax.Array
    action_values: jax.Array | None
    dataset_size: int = struct.field(pytree_node=False)
    initialization: InitializationName = struct.field(pytree_node=False, default="random")
    teacher_actions: jax.Array | None = None
    bounds: Continuous | None = struct.field(pytree_node=False, default=None)
    discrete: bool = struct.field(pytree_node=False, default=False)

    def init(self, key: jax.Array) -> Solution:
        """Draws pairs from the data."""
        return self._draw(
            key, self.initialization, self.actions if self.teacher_actions is None else self.teacher_actions
        )

    def decode(self, solution: Solution) -> SyntheticDataset:
        """Pairs of one solution, their actions within the bounds."""
        if self.bounds is not None:
            low, high = jnp.asarray(self.bounds.low), jnp.asarray(self.bounds.high)
            solution = {**solution, "actions": clipped(solution["actions"], low, high)}
        return super().decode(solution)

    def references(self, key: jax.Array) -> dict[str, SyntheticDataset]:
        """Pairs that the data give without distillation, by name: random ones, also with the teacher's actions."""
        labels = {"random real pairs": self.actions, "random states, teacher's actions": self.teacher_actions}
        return {
            name: self.decode(self._draw(key, "random", actions))
            for name, actions in labels.items()
            if actions is not None
        }

    def _draw(self, key: jax.Array, initialization: InitializationName, actions: jax.Array) -> Solution:
        observations, actions = initial_pairs(
            key, initialization, self.observations, actions, self.dataset_size, self.action_values
        )
        if not self.discrete:
            return {"observations": observations, "actions": actions}
        return {"observations": observations, "action_logits": smooth_logits(actions)}


@struct.dataclass
class WarmStart(_MovingPairs):
    """Free pairs that begin at those of a dataset, for instance one read from a file.

    Attributes:
        dataset: Where to begin; its statistics and metadata are passed over, and so are learned step sizes and log-std.

    Example:
        >>> pairs = SyntheticDataset(jnp.ones((2, 3)), action_probabilities=jnp.eye(2))
        >>> warm = WarmStart(pairs)
        >>> warm.decode(warm.init(jax.random.key(0))).action_probabilities.round(3).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """

    dataset: SyntheticDataset

    def init(self, key: jax.Array) -> Solution:
        """Solution of the dataset's pairs; nothing is drawn."""
        del key
        solution = {"observations": self.dataset.observations}
        if self.dataset.actions is not None:
            return solution | {"actions": self.dataset.actions}
        probabilities = cast(jax.Array, self.dataset.action_probabilities)
        return solution | {"action_logits": jnp.log(jnp.maximum(probabilities, _MIN_PROBABILITY))}


@struct.dataclass
class PlayedPairs(_MovingPairs):
    """Free pairs that begin at observations of random play, normalised, with actions that are nearly undecided.

    Attributes:
        env: Environment, which is played with uniformly random actions.
        dataset_size: Pairs N.
        settings: Normalisation of the observations; running statistics begin with those of random play.
        label_scale: Logit of one action in the first labels, spread evenly over the pairs, the others being 0; of
            continuous actions, the factor of random ones.
        statistics: Given normalisation, in place of one that `init` measures.
    """

    env: Environment = struct.field(pytree_node=False)
    dataset_size: int = struct.field(pytree_node=False)
    settings: PlaySettings = struct.field(pytree_node=False, default=PlaySettings())
    label_scale: float = struct.field(pytree_node=False, default=2.0)
    statistics: Normalizer | None = None

    def __post_init__(self) -> None:
        """Refuses a size that is not positive."""
        require_positive("dataset_size", self.dataset_size)

    def init(self, key: jax.Array) -> Solution:
        """Plays, and draws observations among those seen."""
        statistics_key, begin_key, play_key, row_key = jax.random.split(key, 4)
        normalizer = self._first_normalizer(statistics_key)
        num_steps = max(PLAYED_STEPS, -(-self.dataset_size // PLAYED_ENVS))
        steps = play_randomly(begin_key, play_key, self.env, PLAYED_ENVS, num_steps)
        rows = jax.random.choice(row_key, PLAYED_ENVS * num_steps, (self.dataset_size,), replace=False)
        observations, actions = (
            leaf.reshape(-1, *leaf.shape[2:])[rows] for leaf in (steps.observations, steps.actions)
        )
        solution = {"observations": normalizer.apply(observations)}
        if isinstance(self.env.action_space, Discrete):
            labels = even_labels(self.dataset_size, self.env.action_space.num_actions)
            return solution | {"action_logits": self.label_scale * labels}
        return solution | {"actions": self.label_scale * actions}

    def _first_normalizer(self, key: jax.Array) -> Normalizer:
        settings = self.settings
        if settings.observation_normalization == "running":
            return measure_statistics(key, self.env, settings.statistics_episodes, min_std=settings.min_std)
        return self.statistics or initial_normalizer(key, self.env, settings)


@struct.dataclass
class LatentPairs:
    """Another parametrisation's pairs, whose observations are codes: an outer loop moves few numbers for each pair.

    Made by `latent_pairs`.

    Attributes:
        codes: Parametrisation of the pairs, their observations being codes `[num_codes]`.
        components: What each code adds to an observation, `[num_codes, *observation_shape]`.
        mean: Observation of codes that are zero, `[*observation_shape]`.
    """

    codes: Parametrization
    components: jax.Array
    mean: jax.Array

    def init(self, key: jax.Array) -> Solution:
        """Draws codes and actions."""
        return self.codes.init(key)

    def decode(self, solution: Solution) -> SyntheticDataset:
        """Pairs of one solution: observations are linear in their codes."""
        pairs = cast(SyntheticDataset, self.codes.decode(solution))
        observations = self.mean + jnp.tensordot(pairs.observations, self.components, axes=1)
        return dataclasses.replace(pairs, observations=observations)


def latent_pairs(
    key: jax.Array,
    env: Environment,
    num_codes: int,
    dataset_size: int,
    learn_labels: bool = True,
    init_scale: float = 0.0,
    normalizer: Normalizer | None = None,
) -> LatentPairs:
    """Pairs whose observations are codes of the first principal components of states of random play.

    Evolution of large observations, such as images, has far fewer directions to search so, those in which states
    differ.

    Args:
        key: Key of the play.
        env: Environment.
        num_codes: Codes of a pair.
        dataset_size: Pairs N.
        learn_labels: Whether discrete actions are learned as logits, or stay one-hot.
        init_scale: Standard deviation of the first codes and actions; 0 begins at the mean state.
        normalizer: Normalisation of the observations of policies, none or fixed; none if None.

    Raises:
        ValueError: A number is not positive, or there are more codes than states of the play, or than numbers in one.

    Example:
        >>> import envs
        >>> pairs = latent_pairs(jax.random.key(0), envs.make("gymnax/CartPole-v1"), num_codes=2, dataset_size=3)
        >>> pairs.init(jax.random.key(1))["observations"].shape
        (3, 2)
        >>> pairs.decode(pairs.init(jax.random.key(1))).observations.shape
        (3, 4)
    """
    require_positive("num_codes", num_codes)
    most = min(math.prod(env.observation_shape), PLAYED_ENVS * PLAYED_STEPS)
    if num_codes > most:
        raise ValueError(f"num_codes: expected at most {most}, the components of the states, got {num_codes}")
    codes = free_pairs(PolicySpaces((num_codes,), env.action_space), dataset_size, learn_labels, init_scale)
    measure = jax.jit(partial(measure_components, env=env, num_components=num_codes))
    return LatentPairs(codes, *measure(key, normalizer=normalizer or Normalizer()))


@struct.dataclass
class LearnedSteps:
    """Another parametrisation's pairs, with learned step sizes of the inner loop, learned log-std of actions, or both.

    Attributes:
        pairs: Parametrisation of the pairs.
        num_steps: Steps of the inner loop; None leaves step sizes to it.
        first: First step size of each, or a function `(key, pairs)` that measures it; the solution holds what was
            measured, which no gradient moves.
        bound: Largest factor that a step size may leave its first value by, either way.
        action_dim: Components of continuous actions, whose log-std begins at `first_log_std`; None for discrete ones.
        first_log_std: First log standard deviation.
    """

    pairs: Parametrization
    num_steps: int | None = struct.field(pytree_node=False)
    first: float | FirstStep = struct.field(pytree_node=False, default=0.7)
    bound: float = struct.field(pytree_node=False, default=4.0)
    action_dim: int | None = struct.field(pytree_node=False, default=None)
    first_log_std: float = struct.field(pytree_node=False, default=0.0)

    def __post_init__(self) -> None:
        """Refuses steps and sizes that are not positive, and a bound that leaves no room."""
        require_positive_fields(self, "num_steps", *(() if callable(self.first) else ("first",)))
        if not 1 < self.bound < math.inf:
            raise ValueError(f"bound: expected a number above 1, got {self.bound}")

    def init(self, key: jax.Array) -> Solution:
        """Draws the pairs; all step sizes begin at `first`."""
        pairs_key, step_key = self._keys(key)
        solution = {"pairs": self.pairs.init(pairs_key)}
        if self.action_dim is not None:
            solution["log_std"] = jnp.zeros(self.action_dim) + self.first_log_std
        if self.num_steps is not None:
            if callable(self.first):
                solution["log_first"] = jnp.log(self.first(step_key, self._without_steps(solution)))
            solution["step_sizes"] = jnp.zeros(self.num_steps)
        return solution

    def decode(self, solution: Solution) -> SyntheticDataset:
        """Pairs of one solution with step sizes `first * bound ** tanh(x / log(bound))` and the log-std."""
        pairs = self._without_steps(solution)
        if self.num_steps is None:
            return pairs
        # No gradient moves a measured first step size: the coordinates move from there.
        measured = solution.get("log_first")
        first = cast(float, self.first) if measured is None else jnp.exp(jax.lax.stop_gradient(measured))
        return self._with_steps(pairs, first, solution["step_sizes"])

    def references(self, key: jax.Array) -> dict[str, SyntheticDataset]:
        """Datasets of the other parametrisation that nothing has distilled, with first step sizes; often none."""
        pairs_key, step_key = self._keys(key)
        own = references_of(self.pairs, pairs_key)
        if self.num_steps is None:
            return own
        still = jnp.zeros(self.num_steps)

        def with_first(pairs: SyntheticDataset) -> SyntheticDataset:
            return self._with_steps(pairs, self.first(step_key, pairs) if callable(self.first) else self.first, still)

        return {name: with_first(pairs) for name, pairs in own.items()}

    def _keys(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Keys of the pairs, and of a first step size where one is measured."""
        measured = self.num_steps is not None and callable(self.first)
        pairs_key, step_key = jax.random.split(key) if measured else (key, key)
        return pairs_key, step_key

    def _without_steps(self, solution: Solution) -> SyntheticDataset:
        pairs = cast(SyntheticDataset, self.pairs.decode(solution["pairs"]))
        return dataclasses.replace(pairs, log_std=solution.get("log_std"))

    def _with_steps(
        self, pairs: SyntheticDataset, first: jax.Array | float, coordinates: jax.Array
    ) -> SyntheticDataset:
        reach = math.log(self.bound)
        # Near its first value a step size moves by as much, relatively, as its coordinate.
        sizes = first * jnp.exp(reach * jnp.tanh(coordinates / reach))
        return dataclasses.replace(pairs, step_sizes=sizes)


@dataclass(frozen=True)
class PolicyParameters:
    """The parameters of a policy, which move themselves: neuroevolution, with `hades.inner.Identity` as inner loop.

    Attributes:
        policy: Architecture.
        zero_init: Whether all parameters begin at zero, as in the published runs of Behaviour Distillation, rather than
            as the initialiser draws them.
    """

    policy: Policy
    zero_init: bool = False

    def init(self, key: jax.Array) -> Solution:
        """Draws parameters."""
        network = self.policy.init(key)
        return jax.tree.map(jnp.zeros_like, network) if self.zero_init else network

    def decode(self, solution: Solution) -> Params:
        """The parameters themselves."""
        return solution


def references_of(parametrization: Parametrization, key: jax.Array) -> dict[str, SyntheticDataset]:
    """Datasets that a parametrisation knows without distillation, by name, such as random real pairs; often none."""
    references = getattr(parametrization, "references", None)
    return {} if references is None else references(key)


def with_statistics(dataset: SyntheticDataset, mean: jax.Array | None, std: jax.Array | None) -> SyntheticDataset:
    """Dataset with the observation statistics that its pairs are normalised by, `[*observation_shape]`."""
    return dataclasses.replace(dataset, observation_mean=mean, observation_std=std)
