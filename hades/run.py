"""A distillation as pure functions: what recipes build and what the host loop drives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import jax
from flax import struct

from hades.dataset import SyntheticDataset
from hades.evaluation import DatasetEvaluator
from hades.normalization import Normalizer
from hades.settings import HadesSettings
from hades.types import Environment, PyTree

Metrics: TypeAlias = dict[str, jax.Array]


@struct.dataclass
class RunState:
    """All that a run is at the end of a generation; saving it is saving the run.

    Attributes:
        key: The run's key, the same all the way; generation g uses `fold_in(key, g)`.
        generation: Finished generations, `[]` int32.
        outer: State of the outer loop.
        normalizer: Observation normalisation of every rollout.
    """

    key: jax.Array
    generation: jax.Array
    outer: PyTree
    normalizer: Normalizer


@dataclass(frozen=True, eq=False)
class Run:
    """One distillation. The functions are pure: jit them, vmap them over seeds, scan them, or loop over them.

    Attributes:
        env: Environment that fitness comes from.
        settings: All static settings.
        init: `init(key)` returns the state before the first generation.
        step: `step(state)` is one generation; returns the new state and scalars, among them `fitness_mean`,
            `fitness_best`, `fitness_worst`, `non_finite` (candidates) and `env_steps`.
        dataset: `dataset(state)` is the mean of the search distribution, without metadata.
        describe: `describe(dataset, key, evaluation)` adds the metadata that a file needs.
        make_evaluator: `make_evaluator(num_inits, num_episodes)` compiles fresh-key evaluation.

    Example:
        >>> import envs, hades, jax
        >>> run = hades.recipes.hades_r(envs.make("diagnostic/match"), dataset_size=2, population_size=8)
        >>> state = run.init(jax.random.key(0))
        >>> state, metrics = jax.jit(run.step)(state)
        >>> int(state.generation), metrics["fitness_mean"].shape
        (1, ())
    """

    env: Environment
    settings: HadesSettings
    init: Callable[[jax.Array], RunState]
    step: Callable[[RunState], tuple[RunState, Metrics]]
    dataset: Callable[[RunState], SyntheticDataset]
    describe: Callable[..., SyntheticDataset]
    make_evaluator: Callable[[int, int], DatasetEvaluator]
