"""Behaviour distillation in JAX: a few synthetic state-action pairs that train a policy of any architecture."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hades import (
    distributions,
    evaluation,
    export,
    fitness,
    images,
    inner,
    keys,
    metadata,
    multihost,
    multitask,
    normalization,
    objectives,
    offline,
    outer,
    parametrizations,
    policies,
    recipes,
    rl,
    rollouts,
    run,
    sharding,
    statistics,
    training,
    tuning,
    types,
    zoo,
)
from hades._foreign_envs import warn_of_foreign_envs
from hades._version import __version__
from hades.callbacks import Callback
from hades.dataset import DatasetError, SyntheticDataset
from hades.distillation import distillation_run
from hades.evaluation import Evaluation, evaluate, evaluate_dataset
from hades.export import export_policy
from hades.host_policy import HostPolicy, load_policy
from hades.inner.cloning import BehaviourCloning, behaviour_cloning
from hades.metadata import FileMetadata
from hades.normalization import Normalizer, PolicyParams
from hades.policies import Policy
from hades.policy_file import TrainedPolicy
from hades.run import Run, RunState
from hades.training import DivergedError, LoopSettings, Result, distill, distill_seeds, train
from hades.types import Continuous, Discrete, Environment, Step

if TYPE_CHECKING:
    from hades import testing

__all__ = [
    "BehaviourCloning",
    "Callback",
    "Continuous",
    "DatasetError",
    "Discrete",
    "DivergedError",
    "Environment",
    "Evaluation",
    "FileMetadata",
    "HostPolicy",
    "LoopSettings",
    "Normalizer",
    "Policy",
    "PolicyParams",
    "Result",
    "Run",
    "RunState",
    "Step",
    "SyntheticDataset",
    "TrainedPolicy",
    "__version__",
    "behaviour_cloning",
    "distill",
    "distill_seeds",
    "distillation_run",
    "distributions",
    "evaluate",
    "evaluate_dataset",
    "evaluation",
    "export",
    "export_policy",
    "fitness",
    "images",
    "inner",
    "keys",
    "load_policy",
    "metadata",
    "multihost",
    "multitask",
    "normalization",
    "objectives",
    "offline",
    "outer",
    "parametrizations",
    "policies",
    "recipes",
    "rl",
    "rollouts",
    "run",
    "sharding",
    "statistics",
    "testing",
    "train",
    "training",
    "tuning",
    "types",
    "zoo",
]

warn_of_foreign_envs()


def __getattr__(name: str) -> Any:
    """`hades.testing`, which is loaded when it is asked for: it needs chex, and nothing else does."""
    if name == "testing":
        return importlib.import_module("hades.testing")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
