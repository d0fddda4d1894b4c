"""Behaviour distillation in JAX: a few synthetic state-action pairs that train a policy of any architecture."""

from hades import (
    cloning,
    distributions,
    fitness,
    multitask,
    normalization,
    objectives,
    offline,
    policies,
    recipes,
    rl,
    rollout,
    settings,
    sharding,
    statistics,
)
from hades._version import __version__
from hades.cloning import BehaviourCloning, behaviour_cloning
from hades.dataset import DatasetError, SyntheticDataset
from hades.distillation import Result, distill, train
from hades.evaluation import Evaluation, evaluate, evaluate_dataset
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
    "cloning",
    "distill",
    "distributions",
    "evaluate",
    "evaluate_dataset",
    "fitness",
    "multitask",
    "normalization",
    "objectives",
    "offline",
    "policies",
    "recipes",
    "rl",
    "rollout",
    "settings",
    "sharding",
    "statistics",
    "train",
]
