"""Measuring a dataset of the zoo: returns on fresh keys beside its zeros, and seconds of training a policy."""

from __future__ import annotations

import importlib.metadata
import os
import statistics
import time
from dataclasses import dataclass

import jax

from experiments.bench._lib.timing import compile_step
from hades.dataset import SyntheticDataset
from hades.evaluation import DatasetEvaluator, Evaluation
from hades.inner import cloning
from hades.metadata import package_versions
from hades.types import AnyEnvironment
from hades.zoo import Score, TrainingTime

_REPEATS = 9
_PHYSICS = {"gymnasium": "mujoco"}


@dataclass(frozen=True)
class Scores:
    """Returns of policies that were trained on a dataset, on its zero, and not at all."""

    dataset: Evaluation
    zero_dataset: Evaluation
    untrained_policy: Evaluation


def score_with_zeros(evaluator: DatasetEvaluator, dataset: SyntheticDataset, seed: int) -> Scores:
    """Scores a dataset as `hades evaluate --baselines --seed SEED` does."""
    key = jax.random.key(seed)
    zeros = evaluator.references(key, dataset)
    return Scores(evaluator(key, dataset), zeros["zero dataset"], zeros["untrained policy"])


def score_of(evaluation: Evaluation) -> Score:
    """The part of an evaluation that a card keeps."""
    return Score(tuple(evaluation.per_init), evaluation.num_episodes)


def time_training(env: AnyEnvironment, dataset: SyntheticDataset) -> TrainingTime:
    """Times the training of one policy, by the inner loop that the dataset describes."""
    assert dataset.metadata is not None  # a loaded dataset has it
    clone = cloning.from_settings(env, dataset.metadata.require_cloning())
    key, arrays = jax.random.key(0), dataset.without_metadata()
    train, compile_seconds = compile_step(clone, key, arrays)
    seconds = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        jax.block_until_ready(train(key, arrays))
        seconds.append(time.perf_counter() - started)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return TrainingTime(statistics.median(seconds), compile_seconds, jax.devices()[0].platform, cores)


def versions_of(env: str) -> dict[str, str]:
    """Versions of the packages that a score in an environment depends on."""
    versions = package_versions(env)
    physics = _PHYSICS.get(env.partition("/")[0])
    return versions if physics is None else versions | {physics: importlib.metadata.version(physics)}
