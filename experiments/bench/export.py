"""`hades bench export`: exported policies against ours, on observations of several environments."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import tables
from experiments.bench._lib.base import Bench, Report, SeededBenchSettings, tell
from experiments.environments import make_named
from hades.dataset import SyntheticDataset
from hades.export import TOLERANCE, ExportFormat, export_policy
from hades.inner import cloning
from hades.inner.cloning import CloningSettings
from hades.metadata import FileMetadata
from hades.offline.collect import collect, uniform_behaviour
from hades.policies import PolicySpaces
from hades.policy_file import TrainedPolicy
from hades.types import AnyEnvironment, Discrete

_PAIRS = 64
_MIN_STD = 0.1
_HEADER = ("environment", "policy", "observations", "format", "largest difference", "relative above 1")


@dataclass(frozen=True, kw_only=True)
class ExportBenchSettings(SeededBenchSettings):
    """Trains a policy on 64 pairs of random play in each environment, exports it, and compares the outputs.

    Policies of image-like observations are convolutional, the others perceptrons, tanh-Gaussian in every second
    environment of continuous actions. Observations are those of random play, with fixed statistics.
    """

    envs: tuple[str, ...] = (
        "gymnax/CartPole-v1",
        "gymnax/Pendulum-v1",
        "gymnax/Breakout-MinAtar",
        "brax/hopper",
        "gymnasium/Hopper-v4",
        "diagnostic/target",
    )
    """Environments."""
    formats: tuple[ExportFormat, ...] = ("numpy", "onnx")
    """Formats, those that can be played here."""
    num_observations: int = 1000
    """Observations in each environment."""

    def __post_init__(self) -> None:
        """Refuses also a number that is not positive."""
        super().__post_init__()
        self.require_positive("num_observations")


def measure(settings: ExportBenchSettings, report: Report) -> None:
    """Exports and compares, environment by environment."""
    rows: list[dict[str, Any]] = []
    for index, name in enumerate(settings.envs):
        tell(name)
        env = make_named(name)
        key = jax.random.fold_in(jax.random.key(settings.seed), index)
        architecture = _architecture(env, squashed=index % 2 == 1)
        trained, observations = _train(key, env, architecture, settings.num_observations)
        for format in settings.formats:
            with tempfile.TemporaryDirectory() as folder:
                exported = export_policy(trained, Path(folder, "policy"), format, observations=observations)
            row = {"env": name, "policy": architecture.policy, "observations": len(observations)}
            difference = exported.difference and exported.difference._asdict()
            rows.append({**row, "format": format, "difference": difference})
            report.add(rows=rows)


def _architecture(env: AnyEnvironment, squashed: bool) -> CloningSettings:
    discrete = isinstance(env.action_space, Discrete)
    return CloningSettings(
        policy="cnn" if len(env.observation_shape) == 3 else "mlp",
        hidden_sizes=(64, 64),
        loss="cross_entropy" if discrete else "gaussian_nll",
        action_distribution="tanh_gaussian" if squashed and not discrete else "gaussian",
        num_steps=100,
    )


def _train(
    key: jax.Array, env: AnyEnvironment, settings: CloningSettings, num_observations: int
) -> tuple[TrainedPolicy, np.ndarray]:
    """A policy that imitates some steps of random play, and the raw observations of this play."""
    data_key, clone_key = jax.random.split(key)
    data = collect(data_key, env, [uniform_behaviour(env)], max(num_observations, _PAIRS), num_envs=8)
    observations = jnp.asarray(data.observations)
    mean, std = jnp.mean(observations, axis=0), jnp.maximum(jnp.std(observations, axis=0), _MIN_STD)
    seen, actions, space = (observations[:_PAIRS] - mean) / std, jnp.asarray(data.actions)[:_PAIRS], env.action_space
    dataset = SyntheticDataset(
        seen,
        actions=None if isinstance(space, Discrete) else actions,
        action_probabilities=jax.nn.one_hot(actions, space.num_actions) if isinstance(space, Discrete) else None,
        observation_mean=mean,
        observation_std=std,
    )
    params = jax.jit(cloning.from_settings(env, settings))(clone_key, dataset)
    metadata = FileMetadata(
        env=env.name,
        env_options=env.options,
        max_episode_steps=env.max_steps,
        method="cloning of random play",
        observation_normalization="fixed",
        action_selection="mode",
        cloning=settings,
    )
    return TrainedPolicy(params, metadata, PolicySpaces.of(env)), np.asarray(observations[:num_observations])


def render(result: Mapping[str, Any]) -> str:
    """Table of the environments and formats."""
    return tables.table("exported policies", _HEADER, [_row(row) for row in result["rows"]])


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    found = row["difference"]
    shown = ("not played", "") if found is None else (f"{found['absolute']:.2g}", f"{found['scaled']:.2g}")
    return (row["env"], row["policy"], str(row["observations"]), row["format"], *shown)


def passed(result: Mapping[str, Any]) -> bool:
    """Whether no difference is above the tolerance."""
    return all(row["difference"] is None or row["difference"]["scaled"] <= TOLERANCE for row in result["rows"])


BENCH = Bench(ExportBenchSettings, measure, render, passed)
