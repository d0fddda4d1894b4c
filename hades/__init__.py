"""Behaviour distillation in JAX: a few synthetic state-action pairs that train a policy of any architecture."""

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
    testing,
    training,
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
    "types",
    "zoo",
]

warn_of_foreign_envs()
