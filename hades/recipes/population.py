"""Settings that all evolutionary methods share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from hades._validation import require_not_negative_fields, require_positive_fields
from hades.distillation import distillation_run
from hades.fitness import Chunks
from hades.normalization import Normalizer
from hades.objectives.episodic_return import EpisodicReturn
from hades.outer import EvolutionSettings, evolution_from_settings
from hades.rollouts.settings import PlaySettings
from hades.run import Run
from hades.sharding import MeshOrDevices
from hades.types import Environment, InnerLoop, Parametrization

CHUNK_SIZES = ("rollout_chunk_size", "cloning_chunk_size")
"""Fields of settings that `hades.tuning` chooses, those that an evolution has."""
CHUNK_FIELDS = (*CHUNK_SIZES, "cpu_chunk_size")
"""Fields of settings that say how many candidates exist at once; they change no value but by rounding."""


@dataclass(frozen=True)
class PopulationSettings(PlaySettings):
    """Settings of every evolution: a population, and the episodes that score it.

    Running statistics of an evolution start empty in every rollout, as in the published runs.
    """

    population_size: int = 64
    """Candidates of a generation."""
    num_episodes: int = 2
    """Episodes that each policy plays."""
    normalization_envs: int | None = None
    """Episodes that share statistics with running normalisation; default: all episodes of a policy."""
    evolution: EvolutionSettings = EvolutionSettings()
    """The outer loop."""
    rollout_chunk_size: int | None = None
    """Candidates of a device that are rolled out at once; default: all of them, or what a CPU has by itself."""
    rollout_halvings: int = 0
    """Times that a rollout goes on with half of its candidates, those of one device and chunk, once the episodes of the
    others have ended. Saves steps where episodes end early and unevenly; each halving is one more copy of the
    environment's step to compile. Several seeds in one program wait for each other at every halving."""

    def __post_init__(self) -> None:
        """Refuses sizes that are not positive, and fewer halvings than none."""
        super().__post_init__()
        require_positive_fields(self, "population_size", "num_episodes", "normalization_envs", "rollout_chunk_size")
        require_not_negative_fields(self, "rollout_halvings")


Settings = TypeVar("Settings", bound=PopulationSettings)


def with_chunk_sizes(settings: Settings, sizes: Mapping[str, int | None]) -> Settings:
    """Settings with these sizes of chunks alone; without sizes all candidates exist at once, on a CPU, too."""
    others = {name: None for name in CHUNK_FIELDS if hasattr(settings, name)}
    return dataclasses.replace(settings, **(others | dict(sizes)))  # type: ignore[arg-type]


def resolve_normalization(settings: Settings) -> Settings:
    """Settings with the number of episodes that share running statistics filled in.

    Raises:
        ValueError: It is given, but normalisation is not running.
    """
    running = settings.observation_normalization == "running"
    if settings.normalization_envs is not None and not running:
        raise ValueError("normalization_envs: expected none unless observation_normalization is running")
    envs = settings.normalization_envs or settings.num_episodes
    return dataclasses.replace(settings, normalization_envs=envs if running else None)


def evolution_run(
    env: Environment,
    parametrization: Parametrization,
    inner: InnerLoop,
    settings: PopulationSettings,
    mesh: MeshOrDevices | None,
    normalizer: Normalizer | None,
    chunks: Chunks | None = None,
    **others: Any,
) -> Run[Any]:
    """The run of an evolution that is scored by episodes, of resolved settings; the rest is as of `distillation_run`.

    A normalizer takes the place of the observation statistics that `init` would measure. Chunks are those of the
    settings if None.

    Raises:
        ValueError: It is of another kind than the settings ask for, or as of `distillation_run`.
    """
    if normalizer is not None:
        settings.require_kind(normalizer)
    envs = settings.normalization_envs
    chunks = chunks or Chunks(rollout=settings.rollout_chunk_size)
    return distillation_run(
        env,
        parametrization,
        inner,
        EpisodicReturn(
            env,
            inner.policy,
            settings.num_episodes,
            settings.played,
            envs,
            normalizer,
            halvings=settings.rollout_halvings,
        ),
        evolution_from_settings(settings.population_size, settings.evolution, chunks.rollout),
        normalization_envs=envs,
        chunks=chunks,
        mesh=mesh,
        settings=settings,
        **others,
    )
