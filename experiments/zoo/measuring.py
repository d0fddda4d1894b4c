"""Measuring a dataset of the zoo: returns on fresh keys beside its zeros, and seconds of training a policy."""

from __future__ import annotations

import importlib.metadata
from functools import partial

import jax

from experiments.bench._lib.timing import compile_step, time_in_turns
from hades.dataset import SyntheticDataset
from hades.evaluation import Evaluation
from hades.inner import cloning
from hades.metadata import package_versions
from hades.sharding import usable_cores
from hades.types import AnyEnvironment
from hades.zoo import Score, TrainingTime

_REPEATS = 9
_PHYSICS = {"gymnasium": "mujoco"}


def score_of(evaluation: Evaluation) -> Score:
    """The part of an evaluation that a card keeps."""
    return Score(tuple(evaluation.per_init), evaluation.num_episodes)


def time_training(env: AnyEnvironment, dataset: SyntheticDataset) -> TrainingTime:
    """Times the training of one policy, by the inner loop that the dataset describes."""
    assert dataset.metadata is not None  # a loaded dataset has it
    clone = cloning.from_settings(env, dataset.metadata.require_cloning())
    key, arrays = jax.random.key(0), dataset.without_metadata()
    train, compile_seconds = compile_step(clone, key, arrays)
    wall, _ = time_in_turns({"train": partial(train, key)}, arrays, _REPEATS)
    return TrainingTime(wall["train"]["median"], compile_seconds, jax.devices()[0].platform, usable_cores())


def versions_of(env: str) -> dict[str, str]:
    """Versions of the packages that a score in an environment depends on."""
    versions = package_versions(env)
    physics = _PHYSICS.get(env.partition("/")[0])
    return versions if physics is None else versions | {physics: importlib.metadata.version(physics)}
