"""Behaviour distillation in JAX: a few synthetic state-action pairs that train a policy of any architecture."""

from hades import (
    distributions,
    fitness,
    inner,
    multitask,
    normalization,
    objectives,
    offline,
    outer,
    policies,
    recipes,
    rl,
    rollouts,
    sharding,
    statistics,
)
from hades._foreign_envs import warn_of_foreign_envs
from hades._version import __version__
from hades.dataset import DatasetError, SyntheticDataset
from hades.distillation import Result, distill, train
from hades.evaluation import Evaluation, evaluate, evaluate_dataset
from hades.inner.cloning import BehaviourCloning, behaviour_cloning
from hades.normalization import Normalizer, PolicyParams
from hades.policies import Policy
from hades.policy_file import TrainedPolicy
from hades.run import Run, RunState
from hades.types import Continuous, Discrete, Environment, Step

__all__ = [
    "BehaviourCloning",
    "Continuous",
    "DatasetError",
    "Discrete",
    "Environment",
    "Evaluation",
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
    "distributions",
    "evaluate",
    "evaluate_dataset",
    "fitness",
    "inner",
    "multitask",
    "normalization",
    "objectives",
    "offline",
    "outer",
    "policies",
    "recipes",
    "rl",
    "rollouts",
    "sharding",
    "statistics",
    "train",
]

warn_of_foreign_envs()
