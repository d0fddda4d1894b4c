"""Recipes: short functions that put the parts together into the published methods and their baselines."""

from __future__ import annotations

from typing import Any

from hades.dataset import SyntheticDataset
from hades.normalization import Normalizer
from hades.recipes.cal_ql import cal_ql, cal_ql_run
from hades.recipes.hades import HadesSettings, hades_f, hades_r, hades_run
from hades.recipes.images import ImageSettings, image_distillation, image_run
from hades.recipes.neuroevolution import NeuroevolutionSettings, neuroevolution, neuroevolution_run
from hades.recipes.offline import OfflineSettings, av_pbc, dbc, offline_run, pbc, sdw
from hades.recipes.policy_gradient import HadesPGSettings, hades_pg, hades_pg_run, ppmo
from hades.recipes.ppo import ppo, ppo_run
from hades.recipes.published import (
    paper_brax,
    paper_es_brax,
    paper_es_minatar,
    paper_images,
    paper_minatar,
    paper_offline,
)
from hades.recipes.statistics import measure_visited_statistics
from hades.rl.settings import PPOSettings
from hades.rollouts.statistics import initial_normalizer, measure_statistics
from hades.run import Run
from hades.sharding import MeshOrDevices
from hades.types import Environment

__all__ = [
    "HadesPGSettings",
    "HadesSettings",
    "ImageSettings",
    "NeuroevolutionSettings",
    "OfflineSettings",
    "PPOSettings",
    "av_pbc",
    "cal_ql",
    "cal_ql_run",
    "dbc",
    "from_settings",
    "hades_f",
    "hades_pg",
    "hades_pg_run",
    "hades_r",
    "hades_run",
    "image_distillation",
    "image_run",
    "initial_normalizer",
    "measure_statistics",
    "measure_visited_statistics",
    "neuroevolution",
    "neuroevolution_run",
    "offline_run",
    "paper_brax",
    "paper_es_brax",
    "paper_es_minatar",
    "paper_images",
    "paper_minatar",
    "paper_offline",
    "pbc",
    "ppmo",
    "ppo",
    "ppo_run",
    "sdw",
]


def from_settings(
    env: Environment,
    settings: HadesSettings | HadesPGSettings | NeuroevolutionSettings | PPOSettings,
    *,
    mesh: MeshOrDevices | None = None,
    normalizer: Normalizer | None = None,
    warm_start: SyntheticDataset | None = None,
) -> Run[Any]:
    """Builds the run that settings describe: a distillation by evolution or policy gradients, neuroevolution, or PPO.

    Args:
        env: Environment.
        settings: The dataclass says which method.
        mesh: Devices that candidates and inits are spread over; all that JAX has if None. PPO takes one device.
        normalizer: Given observation statistics, in place of those that `init` would measure.
        warm_start: Dataset that HaDES-R or HaDES-F begins at, see `hades_r`.

    Raises:
        ValueError: A setting does not suit the environment; the message names it.
    """
    if warm_start is not None and not isinstance(settings, HadesSettings):
        raise ValueError(f"warm_start: expected none but for hades-r and hades-f, got one for {settings.method}")
    if isinstance(settings, PPOSettings):
        return ppo_run(env, settings, normalizer=normalizer)
    if isinstance(settings, NeuroevolutionSettings):
        return neuroevolution_run(env, settings, mesh=mesh, normalizer=normalizer)
    if isinstance(settings, HadesPGSettings):
        return hades_pg_run(env, settings, mesh=mesh, normalizer=normalizer)
    return hades_run(env, settings, mesh=mesh, normalizer=normalizer, warm_start=warm_start)
