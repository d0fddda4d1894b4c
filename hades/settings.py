"""Static settings: frozen, hashable dataclasses, the same in a notebook, on the command line and in files."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

T = TypeVar("T")

PolicyName = Literal["mlp", "residual_mlp", "cnn"]
Activation = Literal["tanh", "relu", "gelu", "silu", "elu"]
KernelInit = Literal["orthogonal", "lecun_normal", "he_normal", "glorot_uniform"]
CloningLoss = Literal["gaussian_nll", "mse", "sampled_mse", "cross_entropy"]
OptimizerName = Literal["adam", "adamw", "sgd"]
ActionDistribution = Literal["gaussian", "tanh_gaussian"]
Normalization = Literal["none", "fixed", "running"]
ActionSelection = Literal["sample", "mode"]
FitnessShaping = Literal["raw", "centered_rank", "z_score"]
Perturbations = Literal["stored", "regenerated", "low_rank"]


@dataclass(frozen=True)
class LoopSettings:
    """How often the host loop looks at a run, and how long it may take; not what a generation computes."""

    generations_per_call: int = 10
    """Generations of one compiled call; progress, logs and interrupts come between calls."""
    evaluate_every: int = 50
    """Generations between evaluations on fresh keys, rounded to whole calls."""
    evaluation_inits: int = 8
    """Fresh policies of such an evaluation of a dataset."""
    evaluation_episodes: int = 4
    """Episodes of each of them; a baseline's policy plays as many as all of them together."""
    checkpoint_seconds: float = 60.0
    """Seconds between checkpoints; there is always one at the end."""
    max_env_steps: int | None = None
    """Environment steps after which the run ends, at the end of a compiled call; none is no such limit."""
    max_seconds: float | None = None
    """Seconds, compilation and evaluation counted in, after which the run ends likewise; none is no such limit."""
    keep_snapshots: bool = False
    """Keeps what every evaluation on fresh keys scored, and the beginning, in the run directory's snapshots/."""

    def __post_init__(self) -> None:
        """Refuses counts and limits that are not positive."""
        for name in ("generations_per_call", "evaluate_every", "evaluation_inits", "evaluation_episodes"):
            require_positive(name, getattr(self, name))
        for name in ("max_env_steps", "max_seconds"):
            if getattr(self, name) is not None:
                require_positive(name, getattr(self, name))
        if not self.checkpoint_seconds >= 0:
            raise ValueError(f"checkpoint_seconds: expected a number of at least 0, got {self.checkpoint_seconds}")


def require_positive(name: str, value: float) -> None:
    """Raises `ValueError` with the setting's name unless `value` is finite and above zero."""
    # Not math.isfinite, which overflows on large integers.
    if not 0 < value < math.inf:
        raise ValueError(f"{name}: expected a number above 0, got {value}")


@dataclass(frozen=True)
class NetworkSettings:
    """Architecture of a policy."""

    policy: PolicyName = "mlp"
    """Architecture of the policy."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers (of the dense layers behind the convolution, for cnn)."""
    activation: Activation = "tanh"
    """Nonlinearity of the hidden layers."""
    kernel_init: KernelInit = "orthogonal"
    """Initialiser of the weights."""
    action_distribution: ActionDistribution = "gaussian"
    """Of continuous actions: gaussian, or tanh_gaussian, which stays inside of the environment's bounds."""

    def __post_init__(self) -> None:
        """Refuses widths that are not positive."""
        for size in self.hidden_sizes:
            require_positive("hidden_sizes", size)


@dataclass(frozen=True)
class CloningSettings(NetworkSettings):
    """How a policy is trained on a synthetic dataset: the inner loop, and what a dataset file says of it."""

    loss: CloningLoss | None = None
    """What cloning minimises: mse is of the mode of actions, sampled_mse of samples; none is gaussian_nll for
    continuous actions, cross_entropy for discrete ones."""
    optimizer: OptimizerName = "adam"
    """Optimiser of the inner loop."""
    learning_rate: float = 0.005
    """Step size of the inner loop."""
    adam_eps: float = 1e-5
    """Epsilon in the denominator of adam and adamw."""
    momentum: float = 0.0
    """Momentum of sgd."""
    weight_decay: float = 1e-4
    """Weight decay of adamw: a step takes off so much of each weight, times the learning rate."""
    max_grad_norm: float | None = None
    """Largest global norm of a gradient; none leaves gradients as they are."""
    num_steps: int = 200
    """Optimiser steps of the inner loop."""
    batch_size: int | None = None
    """Pairs in a minibatch, drawn with replacement; none takes the full dataset at every step."""

    def __post_init__(self) -> None:
        """Refuses sizes and rates that are not positive."""
        super().__post_init__()
        require_positive("learning_rate", self.learning_rate)
        require_positive("adam_eps", self.adam_eps)
        require_positive("num_steps", self.num_steps)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: expected a number in [0, 1), got {self.momentum}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay: expected a number of at least 0, got {self.weight_decay}")
        for name in ("max_grad_norm", "batch_size"):
            if getattr(self, name) is not None:
                require_positive(name, getattr(self, name))


@dataclass(frozen=True)
class EvolutionSettings:
    """How an evolution strategy moves a solution: the outer loop."""

    strategy: str = "Open_ES"
    """Name of a distribution-based strategy of evosax: Open_ES, SNES, Sep_CMA_ES, PGPE, ..."""
    sigma: float = 0.1
    """Standard deviation of the search distribution, at the start where the strategy adapts it."""
    learning_rate: float = 0.05
    """Step size of the outer optimiser, for strategies that take one."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Outer optimiser, for strategies that take one."""
    adam_b1: float = 0.9
    """Decay of adam's first moment."""
    fitness_shaping: FitnessShaping | None = None
    """How returns become weights; none is the strategy's own way."""
    temperature: float | None = None
    """Recombination weights softmax(-20 sigmoid(temperature * rank)); none is the strategy's own weights."""
    perturbations: Perturbations = "stored"
    """stored keeps the whole population in memory; regenerated draws it from its keys, chunk by chunk, twice; low_rank
    does so with matrices of low rank. The last two know Open_ES and SNES."""
    rank: int = 4
    """Rank of low_rank perturbations."""

    def __post_init__(self) -> None:
        """Refuses a sigma, learning rate or temperature that is not positive."""
        require_positive("sigma", self.sigma)
        require_positive("learning_rate", self.learning_rate)
        if not 0 <= self.adam_b1 < 1:
            raise ValueError(f"adam_b1: expected a number in [0, 1), got {self.adam_b1}")
        require_positive("rank", self.rank)
        if self.temperature is not None:
            require_positive("temperature", self.temperature)


@dataclass(frozen=True)
class MetaGradientSettings:
    """How gradients through the inner loop move a solution: the other outer loop."""

    optimizer: OptimizerName = "adam"
    """Outer optimiser."""
    learning_rate: float = 0.01
    """Step size of the outer optimiser."""
    momentum: float = 0.9
    """Momentum of sgd."""
    max_grad_norm: float | None = 2.0
    """Largest global norm of the gradient; none leaves it as it is."""
    window: int | None = None
    """Inner steps before a random one that gradients flow through (RaT-BPTT); none is all of them, to the last."""
    rematerialize: bool = True
    """Whether inner steps are computed again rather than stored for the backward pass: less memory, more time."""

    def __post_init__(self) -> None:
        """Refuses rates and windows that are not positive."""
        require_positive("learning_rate", self.learning_rate)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: expected a number in [0, 1), got {self.momentum}")
        for name in ("max_grad_norm", "window"):
            if getattr(self, name) is not None:
                require_positive(name, getattr(self, name))


@dataclass(frozen=True)
class PlaySettings:
    """How policies see their environment and act in it."""

    observation_normalization: Normalization = "fixed"
    """none, fixed statistics of random rollouts, or running ones."""
    statistics_episodes: int = 64
    """Episodes of random actions that fixed statistics are measured on."""
    min_std: float = 0.01
    """Smallest standard deviation of fixed statistics."""
    action_selection: ActionSelection = "sample"
    """Whether policies act by a sample of their distribution or by its mode."""

    def __post_init__(self) -> None:
        """Refuses sizes that are not positive."""
        require_positive("statistics_episodes", self.statistics_episodes)
        require_positive("min_std", self.min_std)


@dataclass(frozen=True)
class PopulationSettings(PlaySettings):
    """What an evolution has whatever it moves: a population, and episodes that score it.

    Running statistics of an evolution start empty in every rollout, as in the published runs.
    """

    population_size: int = 64
    """Candidates of a generation."""
    num_episodes: int = 2
    """Episodes that each policy plays."""
    normalization_envs: int | None = None
    """With running normalisation, how many episodes share statistics; none is all of a policy's."""
    evolution: EvolutionSettings = EvolutionSettings()
    """The outer loop."""
    rollout_chunk_size: int | None = None
    """Candidates of a device that are rolled out at once; none is all of them."""

    def __post_init__(self) -> None:
        """Refuses sizes that are not positive."""
        super().__post_init__()
        for name in ("population_size", "num_episodes"):
            require_positive(name, getattr(self, name))
        for name in ("normalization_envs", "rollout_chunk_size"):
            if getattr(self, name) is not None:
                require_positive(name, getattr(self, name))


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


@dataclass(frozen=True)
class NeuroevolutionSettings(PopulationSettings):
    """Neuroevolution: an evolution strategy on the policy's own parameters."""

    network: NetworkSettings = NetworkSettings()
    """The policy."""
    zero_init: bool = False
    """Whether all parameters begin at zero, as in the published runs, or as the network's initialiser draws them."""

    @property
    def method(self) -> str:
        """Name of the method in files."""
        return "es"


def to_dict(settings: Any) -> dict[str, Any]:
    """The settings as a dictionary that `json.dumps` takes, nested dataclasses included.

    Example:
        >>> to_dict(CloningSettings(hidden_sizes=(8,)))["hidden_sizes"]
        [8]
    """
    return {field.name: _plain(getattr(settings, field.name)) for field in dataclasses.fields(settings)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    return value.item() if isinstance(value, np.generic) else value


def from_dict(cls: type[T], data: Any, where: str = "", ignore_unknown: bool = False) -> T:
    """Builds settings from a dictionary, checking the type of every value.

    Args:
        cls: A dataclass of this module's kind: fields of numbers, strings, paths, `Literal`, tuples, mappings, unions
            and dataclasses.
        data: What `json.loads` returned.
        where: Prefix of the field's name in messages.
        ignore_unknown: Whether to pass over keys that `cls` does not have; otherwise they are refused.

    Raises:
        ValueError: A field is missing, unknown, or not of its type; the message names it and what was expected.

    Example:
        >>> from_dict(CloningSettings, {"num_steps": 64}).num_steps
        64
    """
    if not isinstance(data, dict):
        raise ValueError(f"{where or cls.__name__}: expected an object, got {_describe(data)}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    prefix = f"{where}." if where else ""
    unknown = sorted(set(data) - set(fields), key=str)
    if unknown and not ignore_unknown:
        raise ValueError(f"{prefix}{unknown[0]}: unknown, expected one of {', '.join(fields)}")
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _coerce(hints[name], data[name], prefix + name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{prefix}{name}: missing")
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{prefix}{error}") from None


def _coerce(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _coerce(arguments[0], value, where)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        *others, last = (argument for argument in arguments if argument is not type(None))
        for argument in others:
            with contextlib.suppress(ValueError):
                return _coerce(argument, value, where)
        return _coerce(last, value, where)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{where}: expected one of {', '.join(map(str, arguments))}, got {_describe(value)}")
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        hints = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(value) != len(hints):
            raise ValueError(f"{where}: expected {len(hints)} values, got {len(value)}")
        return tuple(_coerce(*pair, f"{where}[{index}]") for index, pair in enumerate(zip(hints, value, strict=True)))
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where)  # type: ignore[arg-type]
    if _is_mapping(hint):
        if isinstance(value, Mapping):
            item_hint = arguments[1] if arguments else Any
            return {key: _coerce(item_hint, item, f"{where}.{key}") for key, item in value.items()}
    elif hint is Any:
        return value
    elif hint is Path and isinstance(value, str):
        return Path(value)
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        # A longer integer overflows in float().
        if isinstance(value, float) or value.bit_length() < 1024:
            return float(value)
    elif isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise ValueError(f"{where}: expected {_type_name(hint)}, got {_describe(value)}")


def _is_mapping(hint: Any) -> bool:
    kind = typing.get_origin(hint) or hint
    return isinstance(kind, type) and issubclass(kind, Mapping)


def _type_name(hint: Any) -> str:
    if _is_mapping(hint):
        return "an object"
    names = {int: "an integer", float: "a number", str: "text", bool: "true or false", tuple: "a list", Path: "a path"}
    return names.get(typing.get_origin(hint) or hint, str(hint))


def _describe(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
