"""HaDES-R and HaDES-F (Behaviour Distillation, arXiv 2406.15042): evolution of synthetic datasets."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax

from hades._cache import kept
from hades._environment_contract import conform
from hades._validation import require_not_negative_fields, require_positive_fields
from hades.dataset import SyntheticDataset
from hades.evaluation import check_fits
from hades.fitness import Chunks
from hades.inner import cloning
from hades.inner.cloning import CloningSettings
from hades.keys import Stream, stream
from hades.normalization import Normalizer
from hades.parametrizations import LatentPairs, WarmStart, free_pairs, latent_pairs
from hades.recipes._resolve import resolve_init_seed, resolve_loss
from hades.recipes.population import PopulationSettings, evolution_run, resolve_normalization, with_chunk_sizes
from hades.rollouts.statistics import initial_normalizer
from hades.run import Run
from hades.sharding import MeshOrDevices, platform_of
from hades.types import Environment, Parametrization, require_pure

Method = Literal["hades-r", "hades-f"]


@dataclass(frozen=True)
class HadesSettings(PopulationSettings):
    """A behaviour distillation by evolution, HaDES-R or HaDES-F."""

    method: Method = "hades-r"
    """hades-r draws new initialisations every generation, hades-f keeps one for the whole run."""
    init_seed: int | None = None
    """Seed of the initialisation of hades-f, jax.random.key(init_seed); default: 0 (hades-r takes no seed)."""
    dataset_size: int = 4
    """Synthetic state-action pairs N."""
    num_inits: int = 1
    """Initialisations that each candidate trains."""
    learn_labels: bool = True
    """Whether discrete actions are learned as logits, or stay one-hot, spread evenly over the pairs."""
    init_scale: float = 0.0
    """Standard deviation of the first observations and actions; 0 begins at zeros."""
    num_codes: int | None = None
    """Principal components of states of random play, of which observations are made, so that a pair has so many numbers
    to move; default: observations move freely. For large observations, such as images."""
    codes_seed: int = 0
    """Seed of that play, and of the statistics of its states: one for all seeds of a run."""
    cloning: CloningSettings = CloningSettings()
    """The inner loop."""
    cloning_chunk_size: int | None = None
    """Candidates of a device that are cloned at once; default: all of them, or what a CPU has by itself."""
    cpu_chunk_size: int | None = None
    """Candidates that a CPU clones and rolls out at once, where the sizes of these chunks say none: those that stay in
    its caches. Default: all of them."""

    def __post_init__(self) -> None:
        """Refuses sizes that are not positive."""
        super().__post_init__()
        sizes = ("dataset_size", "num_inits", "num_codes", "cloning_chunk_size", "cpu_chunk_size")
        require_positive_fields(self, *sizes)
        require_not_negative_fields(self, "init_scale")


def hades_r(
    env: Environment,
    *,
    mesh: MeshOrDevices | None = None,
    normalizer: Normalizer | None = None,
    warm_start: SyntheticDataset | None = None,
    **settings: Any,
) -> Run[SyntheticDataset]:
    """HaDES-R (arXiv 2406.15042): fresh initialisations every iteration, for datasets that train any policy.

    Args:
        env: Environment.
        mesh: Devices that candidates and inits are spread over; all that JAX has if None.
        normalizer: Given observation statistics, in place of those that `init` would measure.
        warm_start: Dataset whose pairs `[pairs, ...]` are the first ones, and whose statistics, where it has some,
            are those of the run; its step sizes and log-std are passed over.
        **settings: Fields of `HadesSettings`. With a warm start, `dataset_size` is that of the dataset, labels of
            discrete actions are learned, `init_scale` is without effect, and `num_codes` is refused.

    Raises:
        ValueError: A setting does not suit the environment; the message names it.
    """
    own = HadesSettings(**settings, method="hades-r")
    return hades_run(env, own, mesh=mesh, normalizer=normalizer, warm_start=warm_start)


def hades_f(
    env: Environment,
    *,
    mesh: MeshOrDevices | None = None,
    normalizer: Normalizer | None = None,
    warm_start: SyntheticDataset | None = None,
    **settings: Any,
) -> Run[SyntheticDataset]:
    """HaDES-F (arXiv 2406.15042): one initialisation for the whole run. Arguments and errors of `hades_r`."""
    own = HadesSettings(**settings, method="hades-f")
    return hades_run(env, own, mesh=mesh, normalizer=normalizer, warm_start=warm_start)


def hades_run(
    env: Environment,
    settings: HadesSettings,
    *,
    mesh: MeshOrDevices | None = None,
    normalizer: Normalizer | None = None,
    warm_start: SyntheticDataset | None = None,
) -> Run[SyntheticDataset]:
    """HaDES with given settings. Arguments and errors of `hades_r`."""
    env = conform(require_pure(env))
    settings = resolve(env, settings)
    pairs: Parametrization
    if warm_start is not None and settings.num_codes is not None:
        raise ValueError(f"num_codes: expected none beside warm_start, got {settings.num_codes}")
    if settings.num_codes is not None:
        # Whatever the sizes of chunks, the components are the same.
        own = with_chunk_sizes(settings, {})
        pairs, normalizer = _latent(env, settings.num_codes, own, normalizer)
    elif warm_start is None:
        pairs = free_pairs(env, settings.dataset_size, settings.learn_labels, settings.init_scale)
    else:
        normalizer = _statistics_of(env, settings, warm_start, normalizer)
        settings = dataclasses.replace(settings, dataset_size=warm_start.num_pairs, learn_labels=True)
        pairs = WarmStart(warm_start.pairs())
    return evolution_run(
        env,
        pairs,
        cloning.from_settings(env, settings.cloning),
        settings,
        mesh,
        normalizer,
        _chunks(settings, mesh),
        num_inits=settings.num_inits,
        init_seed=settings.init_seed,
        method=settings.method,
    )


def _chunks(settings: HadesSettings, mesh: MeshOrDevices | None) -> Chunks:
    """Chunks of the settings, or those for a CPU where they say none and it is one."""
    size = settings.cpu_chunk_size if platform_of(mesh) == "cpu" else None
    return Chunks(settings.cloning_chunk_size or size, settings.rollout_chunk_size or size)


@kept
def _latent(
    env: Environment, num_codes: int, settings: HadesSettings, normalizer: Normalizer | None
) -> tuple[LatentPairs, Normalizer]:
    """Pairs of codes, and the normalisation that their components are behind."""
    statistics_key, components_key = jax.random.split(stream(jax.random.key(settings.codes_seed), Stream.CODES))
    if normalizer is None:
        normalizer = jax.jit(partial(initial_normalizer, env=env, settings=settings.played))(statistics_key)
    size, learn_labels, scale = settings.dataset_size, settings.learn_labels, settings.init_scale
    return latent_pairs(components_key, env, num_codes, size, learn_labels, scale, normalizer), normalizer


def _statistics_of(
    env: Environment, settings: HadesSettings, warm_start: SyntheticDataset, normalizer: Normalizer | None
) -> Normalizer | None:
    """Statistics that the pairs of a first dataset are normalised by.

    Raises:
        ValueError: The dataset does not fit the environment, or has other statistics than the settings ask for.
    """
    check_fits(env, warm_start)
    kind, found = settings.observation_normalization, warm_start.normalizer().kind
    if found != kind:
        raise ValueError(
            f"warm_start: expected a dataset of {kind} observation statistics, as the run has, got {found}"
        )
    if kind == "fixed" and normalizer is not None:
        raise ValueError("normalizer: expected none beside warm_start, whose pairs have statistics of their own")
    return warm_start.normalizer() if kind == "fixed" else normalizer


def resolve(env: Environment, settings: HadesSettings) -> HadesSettings:
    """Settings with all that depends on the environment and the strategy filled in.

    Raises:
        ValueError: The loss does not suit the action space, the initialisation seed the method, or
            `normalization_envs` or `num_codes` the normalisation.
    """
    fixed = settings.method == "hades-f"
    if settings.num_codes is not None and settings.observation_normalization == "running":
        raise ValueError("num_codes: expected none beside running observation_normalization, which differs by rollout")
    return dataclasses.replace(
        resolve_normalization(settings),
        init_seed=resolve_init_seed(settings.method, fixed, settings.init_seed, settings.num_inits),
        cloning=resolve_loss(env, settings.cloning, "gaussian_nll"),
        evolution=settings.evolution.resolved(),
    )
