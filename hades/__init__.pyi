"""Public names of hades, each loaded when it is first asked for: `lazy_loader` reads this file."""

from . import (
    compilation_cache as compilation_cache,
    distributions as distributions,
    evaluation as evaluation,
    export as export,
    fitness as fitness,
    images as images,
    inner as inner,
    keys as keys,
    metadata as metadata,
    multihost as multihost,
    multitask as multitask,
    normalization as normalization,
    objectives as objectives,
    offline as offline,
    outer as outer,
    parametrizations as parametrizations,
    policies as policies,
    recipes as recipes,
    rl as rl,
    rollouts as rollouts,
    run as run,
    sharding as sharding,
    statistics as statistics,
    testing as testing,
    training as training,
    tuning as tuning,
    types as types,
    zoo as zoo,
)
from ._version import __version__ as __version__
from .callbacks import Callback as Callback
from .compilation_cache import enable_compilation_cache as enable_compilation_cache
from .dataset import DatasetError as DatasetError, SyntheticDataset as SyntheticDataset
from .distillation import distillation_run as distillation_run
from .evaluation import Evaluation as Evaluation, evaluate as evaluate, evaluate_dataset as evaluate_dataset
from .export import export_policy as export_policy
from .host_policy import HostPolicy as HostPolicy, load_policy as load_policy
from .inner.cloning import BehaviourCloning as BehaviourCloning, behaviour_cloning as behaviour_cloning
from .metadata import FileMetadata as FileMetadata
from .normalization import Normalizer as Normalizer, PolicyParams as PolicyParams
from .policies import Policy as Policy
from .policy_file import TrainedPolicy as TrainedPolicy
from .run import Run as Run, RunState as RunState
from .training import (
    DivergedError as DivergedError,
    LoopSettings as LoopSettings,
    Result as Result,
    distill as distill,
    distill_seeds as distill_seeds,
    train as train,
)
from .types import Continuous as Continuous, Discrete as Discrete, Environment as Environment, Step as Step
