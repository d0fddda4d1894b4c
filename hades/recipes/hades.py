"""HaDES-R and HaDES-F (Behaviour Distillation, arXiv 2406.15042): evolution of synthetic datasets."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from hades._validation import require_positive
from hades.dataset import SyntheticDataset
from hades.evaluation import DatasetEvaluator
from hades.fitness import make_fitness
from hades.inner import cloning
from hades.inner.cloning import CloningSettings
from hades.metadata import EvaluationSummary
from hades.normalization import Normalizer
from hades.recipes._shared import describe_run, evolve, resolve_normalization
from hades.recipes.population import PopulationSettings
from hades.rollouts.first_episode import make_rollout
from hades.run import Run, RunState
from hades.types import Discrete, Environment, PyTree


@dataclass(frozen=True)
class HadesSettings(PopulationSettings):
    """A behaviour distillation by evolution, HaDES-R or HaDES-F."""

    method: Literal["hades-r", "hades-f"] = "hades-r"
    """hades-r draws new initialisations every generation, hades-f keeps one for the whole run."""
    init_seed: int | None = None
    """The initialisation of hades-f, that of jax.random.key(init_seed); none is 0. hades-r has none."""
    dataset_size: int = 4
    """Synthetic state-action pairs N."""
    num_inits: int = 1
    """Initialisations that each candidate trains."""
    learn_labels: bool = True
    """Whether discrete actions are learned as logits, or stay one-hot, spread evenly over the pairs."""
    init_scale: float = 0.0
    """Standard deviation of the first observations and actions; 0 begins at zeros."""
    cloning: CloningSettings = CloningSettings()
    """The inner loop."""
    cloning_chunk_size: int | None = None
    """Candidates of a device that are cloned at once; none is all of them."""

    def __post_init__(self) -> None:
        """Refuses sizes that are not positive."""
        super().__post_init__()
        for name in ("dataset_size", "num_inits"):
            require_positive(name, getattr(self, name))
        if self.cloning_chunk_size is not None:
            require_positive("cloning_chunk_size", self.cloning_chunk_size)
        if self.init_scale < 0:
            raise ValueError(f"init_scale: expected a number of at least 0, got {self.init_scale}")


def hades_r(
    env: Environment, *, mesh: Mesh | None = None, normalizer: Normalizer | None = None, **settings: Any
) -> Run[SyntheticDataset]:
    """HaDES-R (arXiv 2406.15042): fresh initialisations every generation, for datasets that train any policy.

    Args:
        env: Environment.
        mesh: Devices that the population is spread over; all that JAX has if None.
        normalizer: Given observation statistics, in place of those that `init` would measure.
        **settings: Fields of `HadesSettings`.

    Raises:
        ValueError: A setting does not suit the environment; the message names it.
    """
    return distillation_run(env, HadesSettings(**settings, method="hades-r"), mesh=mesh, normalizer=normalizer)


def hades_f(
    env: Environment, *, mesh: Mesh | None = None, normalizer: Normalizer | None = None, **settings: Any
) -> Run[SyntheticDataset]:
    """HaDES-F (arXiv 2406.15042): one initialisation for the whole run. Arguments and errors of `hades_r`."""
    return distillation_run(env, HadesSettings(**settings, method="hades-f"), mesh=mesh, normalizer=normalizer)


def distillation_run(
    env: Environment, settings: HadesSettings, *, mesh: Mesh | None = None, normalizer: Normalizer | None = None
) -> Run[SyntheticDataset]:
    """HaDES with given settings. Arguments and errors of `hades_r`."""
    settings = resolve(env, settings)
    solutions = _Solutions(env, settings)
    clone = cloning.from_settings(env, settings.cloning)
    rollout = make_rollout(
        env, clone.policy, settings.num_episodes, settings.action_selection, settings.normalization_envs
    )
    fitness = make_fitness(clone, rollout, settings.cloning_chunk_size, settings.rollout_chunk_size)
    loop = evolve(
        env,
        settings,
        fitness,
        solutions.first,
        jax.vmap(solutions.dataset),
        num_inits=settings.num_inits,
        init_seed=settings.init_seed,
        mesh=mesh,
        normalizer=normalizer,
    )

    def dataset(state: RunState) -> SyntheticDataset:
        mean = solutions.dataset(loop.solution(state))
        return dataclasses.replace(mean, observation_mean=state.normalizer.mean, observation_std=state.normalizer.std)

    def describe(dataset: SyntheticDataset, seed: int, evaluation: EvaluationSummary | None = None) -> SyntheticDataset:
        metadata = describe_run(env, settings, settings.method, settings.cloning, seed, evaluation, settings.init_seed)
        return dataclasses.replace(dataset, metadata=metadata)

    def make_evaluator(num_inits: int, num_episodes: int) -> DatasetEvaluator:
        return DatasetEvaluator(
            env,
            clone,
            num_inits,
            num_episodes,
            settings.action_selection,
            settings.normalization_envs,
            settings.init_seed,
        )

    return Run(env, settings, "dataset", loop.init, loop.step, dataset, describe, make_evaluator)


def resolve(env: Environment, settings: HadesSettings) -> HadesSettings:
    """Fills in what depends on the environment, and refuses what does not suit it.

    Raises:
        ValueError: The loss does not suit the action space, the initialisation seed the method, or
            `normalization_envs` the normalisation.
    """
    discrete = isinstance(env.action_space, Discrete)
    loss = settings.cloning.loss or ("cross_entropy" if discrete else "gaussian_nll")
    if (loss == "cross_entropy") != discrete:
        kind = "discrete: cross_entropy" if discrete else "continuous: gaussian_nll, mse or sampled_mse"
        raise ValueError(f"loss: actions of {env.name} are {kind} expected, got {loss}")
    init_seed = settings.init_seed
    if settings.method == "hades-f" and init_seed is None:
        init_seed = 0
    if settings.method == "hades-r" and init_seed is not None:
        raise ValueError(f"init_seed: hades-r draws fresh initialisations, expected none, got {init_seed}")
    if settings.method == "hades-f" and settings.num_inits != 1:
        raise ValueError(f"num_inits: hades-f has one initialisation, expected 1, got {settings.num_inits}")
    return dataclasses.replace(
        resolve_normalization(settings),
        init_seed=init_seed,
        cloning=dataclasses.replace(settings.cloning, loss=loss),
    )


class _Solutions:
    """What evolution moves, and the dataset that it stands for."""

    def __init__(self, env: Environment, settings: HadesSettings) -> None:
        self._env = env
        self._settings = settings

    def first(self, key: jax.Array) -> PyTree:
        """The solution that a run begins with: `init_scale` times standard normal numbers, logits of labels zero."""
        size, space = self._settings.dataset_size, self._env.action_space
        observation_key, action_key = jax.random.split(key)
        scale = self._settings.init_scale
        solution = {"observations": scale * jax.random.normal(observation_key, (size, *self._env.observation_shape))}
        if not isinstance(space, Discrete):
            solution["actions"] = scale * jax.random.normal(action_key, (size, space.action_dim))
        elif self._settings.learn_labels:
            solution["action_logits"] = jnp.zeros((size, space.num_actions))
        return solution

    def dataset(self, solution: PyTree) -> SyntheticDataset:
        """The pairs of one solution."""
        if "actions" in solution:
            return SyntheticDataset(solution["observations"], actions=solution["actions"])
        if "action_logits" in solution:
            probabilities = jax.nn.softmax(solution["action_logits"])
        else:
            labels = jnp.arange(self._settings.dataset_size) % self._env.action_space.num_actions  # type: ignore[union-attr]
            probabilities = jax.nn.one_hot(labels, self._env.action_space.num_actions)  # type: ignore[union-attr]
        return SyntheticDataset(solution["observations"], action_probabilities=probabilities)
