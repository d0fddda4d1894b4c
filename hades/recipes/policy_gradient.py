"""HaDES-PG: policy gradients through the inner loop, in place of evolution."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from hades import policies
from hades._environment_contract import conform
from hades._validation import require_at_least_one, require_below_one_fields, require_positive_fields
from hades.dataset import SyntheticDataset
from hades.distillation import distillation_run
from hades.inner import cloning
from hades.inner.cloning import BehaviourCloning, CloningSettings
from hades.inner.curvature import StableStep
from hades.normalization import Normalizer
from hades.objectives.policy_gradient import PolicyGradient, PolicyGradientSettings
from hades.outer.meta_gradient import MetaGradient, MetaGradientSettings
from hades.parametrizations import FirstStep, LearnedSteps, PlayedPairs
from hades.policies import KernelInit, Policy
from hades.recipes._resolve import averaged, resolve_init_seed, resolve_loss
from hades.run import Run
from hades.sharding import MeshOrDevices
from hades.types import Discrete, Environment, Parametrization, PyTree, require_pure

Method = Literal["hades-pg", "hades-pg-f", "ppmo"]

_INNER = CloningSettings(hidden_sizes=(128, 128), optimizer="sgd", learning_rate=1.0, num_steps=6, step_sizes="learned")


@dataclass(frozen=True)
class HadesPGSettings(PolicyGradientSettings):
    """A behaviour distillation by policy gradients."""

    method: Method = "hades-pg"
    """hades-pg draws new initialisations every iteration, hades-pg-f keeps one for the whole run; ppmo is hades-pg
    with one inner step of sgd, whose size is learned (arXiv 2508.09283)."""
    init_seed: int | None = None
    """Seed of the initialisation of hades-pg-f, jax.random.key(init_seed); default: 0 (the others take no seed)."""
    dataset_size: int = 64
    """Synthetic state-action pairs N."""
    num_inits: int = 4
    """Initialisations that train on the dataset, and collect, in an iteration."""
    label_scale: float = 2.0
    """Logit of one action in each first label; of continuous actions, the factor of random ones."""
    first_step_size: float | None = None
    """First value of learned step sizes of the inner loop, times its learning rate; default: of sgd 1.5 over the
    largest curvature of the loss of the first pairs, three quarters of where descent diverges, of other optimisers
    1."""
    step_size_bound: float = 4.0
    """Largest factor that a learned step size may leave its first value by, either way."""
    first_log_std: float = 0.0
    """First log standard deviation of continuous actions, which is learned."""
    kernel_inits: tuple[KernelInit, ...] = ()
    """Initialisers that each initialisation of training draws one of, for pairs that serve them all; default: that of
    the inner loop, which evaluated policies have in any case."""
    step_size_spread: float = 1.0
    """Largest factor, either way, that each initialisation of training multiplies its steps by, drawn log-uniformly,
    for pairs that serve several step sizes and numbers of steps; 1 draws none. Evaluated policies take the steps of the
    inner loop as they are."""
    average_decay: float | None = None
    """Decay of a moving average of the solutions, which is the outcome in their place; default: no average. Steps are
    collected by policies of the solution itself. On hopper 0.99 made last datasets better and best ones worse, by no
    more than chance may (five seeds)."""
    cloning: CloningSettings = _INNER
    """The inner loop."""
    meta_gradient: MetaGradientSettings = MetaGradientSettings(max_grad_norm=1.0, rematerialize=False)
    """The outer loop."""

    def __post_init__(self) -> None:
        """Refuses sizes that are not positive, and inits that do not share environments evenly."""
        super().__post_init__()
        require_positive_fields(self, "dataset_size", "num_inits", "first_step_size", "step_size_bound")
        if len(set(self.kernel_inits)) != len(self.kernel_inits) or len(self.kernel_inits) == 1:
            names = " ".join(self.kernel_inits)
            raise ValueError(f"kernel_inits: expected none, or two or more, each once, got {names}")
        require_at_least_one("step_size_spread", self.step_size_spread)
        require_below_one_fields(self, "average_decay")
        self.require_shares(self.num_inits)
        if self.meta_gradient.trust_region and self.num_epochs * self.num_minibatches == 1:
            raise ValueError("trust_region: expected none where an iteration is one step, as no other step judges it")
        if self.cloning.action_distribution != "gaussian":
            raise ValueError(
                f"action_distribution: policy gradients need gaussian, got {self.cloning.action_distribution}"
            )
        if self.step_size_bound <= 1:
            raise ValueError(f"step_size_bound: expected a number above 1, got {self.step_size_bound}")


def hades_pg(
    env: Environment, *, mesh: MeshOrDevices | None = None, normalizer: Normalizer | None = None, **settings: Any
) -> Run[SyntheticDataset]:
    """HaDES-PG: the clipped surrogate of PPO, differentiated through the training of fresh policies on the dataset.

    Args:
        env: Environment.
        mesh: Devices that inits are spread over, with their environments; all that JAX has if None.
        normalizer: Given fixed statistics, in place of those that `init` would measure.
        **settings: Fields of `HadesPGSettings`.

    Raises:
        ValueError: A setting does not suit the environment, or the normaliser is of another kind than the settings ask
            for; the message names it.

    Example:
        >>> import envs, hades, jax
        >>> run = hades_pg(envs.make("diagnostic/match"), dataset_size=3, num_envs=4, num_steps=8)
        >>> result = hades.distill(jax.random.key(0), run, num_iterations=2, progress=False)
        >>> result.dataset.step_sizes.shape
        (6,)
    """
    return hades_pg_run(env, HadesPGSettings(**settings), mesh=mesh, normalizer=normalizer)


def ppmo(
    env: Environment, *, mesh: MeshOrDevices | None = None, normalizer: Normalizer | None = None, **settings: Any
) -> Run[SyntheticDataset]:
    """PPMO (Wilhelm and Ventura, ECAI 2025, arXiv 2508.09283): HaDES-PG through a single inner step.

    Arguments and errors of `hades_pg`. An own `cloning` has one step of sgd, whose size is learned.
    """
    cloned = settings.pop("cloning", dataclasses.replace(_INNER, num_steps=1))
    return hades_pg_run(
        env, HadesPGSettings(method="ppmo", cloning=cloned, **settings), mesh=mesh, normalizer=normalizer
    )


def hades_pg_run(
    env: Environment,
    settings: HadesPGSettings,
    *,
    mesh: MeshOrDevices | None = None,
    normalizer: Normalizer | None = None,
) -> Run[SyntheticDataset]:
    """HaDES-PG with given settings. Arguments and errors of `hades_pg`."""
    env = conform(require_pure(env))
    settings = resolve(env, settings)
    if normalizer is not None:
        settings.require_kind(normalizer)
    outer = settings.meta_gradient
    evaluated = cloning.from_settings(env, settings.cloning)
    inner = dataclasses.replace(
        evaluated,
        policy=_with_drawn_kernels(env, settings) if settings.kernel_inits else evaluated.policy,
        rematerialize=outer.rematerialize,
        window=outer.window,
        step_size_spread=settings.step_size_spread,
    )
    space = env.action_space
    pairs: Parametrization = PlayedPairs(env, settings.dataset_size, settings.played, settings.label_scale, normalizer)
    learned = settings.cloning.step_sizes == "learned"
    if learned or not isinstance(space, Discrete):
        pairs = LearnedSteps(
            pairs,
            settings.cloning.num_steps if learned else None,
            _first_step(settings, inner),
            settings.step_size_bound,
            None if isinstance(space, Discrete) else space.action_dim,
            settings.first_log_std,
        )
    return distillation_run(
        env,
        pairs,
        inner,
        PolicyGradient(env, inner.policy, settings, normalizer),
        averaged(MetaGradient.from_settings(outer), settings.average_decay),
        num_inits=settings.num_inits,
        init_seed=settings.init_seed,
        evaluation_inner=evaluated,
        play=settings.played,
        mesh=mesh,
        method=settings.method,
        settings=settings,
    )


def _first_step(settings: HadesPGSettings, inner: BehaviourCloning) -> float | FirstStep:
    cloning = settings.cloning
    if settings.first_step_size is not None or cloning.optimizer != "sgd":
        return settings.first_step_size or 1.0
    return StableStep(inner, cloning.learning_rate * settings.step_size_spread)


@dataclass(frozen=True)
class _DrawnInit:
    """Parameters by one of several initialisers, drawn with equal probability; equal ones give equal functions."""

    inits: tuple[Callable[[jax.Array], PyTree], ...]

    def __call__(self, key: jax.Array) -> PyTree:
        """Draws the initialiser, and parameters by it."""
        choice_key, init_key = jax.random.split(key)
        drawn = [init(init_key) for init in self.inits]
        index = jax.random.randint(choice_key, (), 0, len(drawn))
        return jax.tree.map(lambda *leaves: jnp.stack(leaves)[index], *drawn)


def _with_drawn_kernels(env: Environment, settings: HadesPGSettings) -> Policy:
    """The policy of the inner loop, with an initialiser that is drawn among those of the settings."""
    kinds = settings.kernel_inits
    drawn = [policies.from_settings(env, dataclasses.replace(settings.cloning, kernel_init=kind)) for kind in kinds]
    return Policy(_DrawnInit(tuple(policy.init for policy in drawn)), drawn[0].apply)


def resolve(env: Environment, settings: HadesPGSettings) -> HadesPGSettings:
    """Settings with all that depends on the environment filled in.

    Raises:
        ValueError: The loss does not suit the action space, or a setting the method.
    """
    cloning = resolve_loss(env, settings.cloning, "mse")
    fixed = settings.method == "hades-pg-f"
    init_seed = resolve_init_seed(settings.method, fixed, settings.init_seed, settings.num_inits)
    if fixed and settings.meta_gradient.window is not None:
        raise ValueError("window: hades-pg-f has one key of training, whose window would be always the same")
    if fixed and (settings.kernel_inits or settings.step_size_spread > 1):
        name = "kernel_inits" if settings.kernel_inits else "step_size_spread"
        raise ValueError(f"{name}: hades-pg-f trains the one initialisation that is evaluated, which draws nothing")
    if settings.method == "ppmo":
        _require_one_step(settings.cloning)
    return dataclasses.replace(settings, init_seed=init_seed, cloning=cloning)


def _require_one_step(cloning: CloningSettings) -> None:
    """Raises `ValueError` unless an inner loop is that of PPMO."""
    expected = {"num_steps": 1, "optimizer": "sgd", "step_sizes": "learned"}
    for name, value in expected.items():
        if getattr(cloning, name) != value:
            raise ValueError(
                f"{name}: ppmo has one inner step of sgd, whose size is learned, expected {value}, "
                f"got {getattr(cloning, name)}"
            )
