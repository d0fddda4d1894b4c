"""`hades bench agreement`: how much of what trained policies do comes from their initialisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import tables
from experiments.bench._lib.base import Bench, BenchSettings, Report, tell
from experiments.bench._lib.files import DatasetFile, FilesSettings, read_file
from experiments.cli import BadArgumentsError
from hades.distributions import Categorical, choose
from hades.objectives.policy_gradient import side_by_side
from hades.rollouts import make_recorded_rollout
from hades.types import PyTree

_HEADER = ("file", "policy", "between inits", "across states", "share", "states", "return")
_MOST_STATES = 4096


@dataclass(frozen=True, kw_only=True)
class AgreementSettings(BenchSettings, FilesSettings):
    """Trains policies of fresh initialisations on dataset files, and compares their actions in states that they visit.

    Two standard deviations, over the components of modes or of the probabilities of discrete actions: between the
    policies in one state, and across states of the mean policy. Their ratio is the share of a policy that its
    initialisation decides rather than the pairs: pairs can serve all initialisations no better than that.
    """

    num_inits: int = 32
    """Fresh policies of each file."""
    num_episodes: int = 1
    """Episodes of each, which the states are drawn from."""

    def __post_init__(self) -> None:
        """Refuses also a single initialisation."""
        super().__post_init__()
        if self.num_inits < 2:
            raise ValueError(f"num_inits: expected at least 2, got {self.num_inits}")


def measure(settings: AgreementSettings, report: Report) -> None:
    """Measures every file."""
    files = [_read(path) for path in settings.files]
    entries: list[dict[str, Any]] = []
    report.content.update(seed=settings.seed, num_inits=settings.num_inits, num_episodes=settings.num_episodes)
    for file in files:
        tell(f"{file.source}: training {settings.num_inits} policies ...")
        entries.append(_measure(settings, file))
        report.add(files=entries)


def _read(path: Path) -> DatasetFile:
    file = read_file(path)
    if file.dataset.normalizer().kind == "running":
        raise BadArgumentsError(f"{file.source}: expected observations normalised by fixed statistics, got running")
    return file


def _measure(settings: AgreementSettings, file: DatasetFile) -> dict[str, Any]:
    key, play_key, row_key = jax.random.split(jax.random.key(settings.seed), 3)
    evaluator = file.evaluator(settings)
    policy, normalizer = evaluator.inner.policy, file.dataset.normalizer()
    networks = jax.tree.map(lambda leaf: leaf[0], evaluator.train(key, file.dataset))
    joint = side_by_side(policy, settings.num_inits)

    def act(key: jax.Array, params: PyTree, observations: jax.Array) -> jax.Array:
        distribution = joint.apply(params, normalizer.apply(observations))
        return choose(key, distribution, evaluator.action_selection)

    num_envs = settings.num_inits * settings.num_episodes
    episodes = jax.jit(make_recorded_rollout(file.env, act, num_envs))(play_key, networks)
    visited = np.asarray(episodes.observations)[episodes.played]
    chosen = jax.random.choice(row_key, len(visited), (min(_MOST_STATES, len(visited)),), replace=False)
    states = normalizer.apply(jnp.asarray(visited[np.asarray(chosen)]))

    def decide(network: PyTree) -> jax.Array:
        distribution = policy.apply(network, states)
        return jnp.exp(distribution.log_probs()) if isinstance(distribution, Categorical) else distribution.mode()

    between, across = spreads(np.asarray(jax.vmap(decide)(networks)))
    return {
        "file": str(file.source),
        "env": file.env.name,
        "hidden_sizes": list(file.own.hidden_sizes),
        "between_inits": between,
        "across_states": across,
        "share": between / across if across else None,
        "num_states": len(chosen),
        "return": float(np.mean(episodes.returns)),
    }


def spreads(actions: np.ndarray) -> tuple[float, float]:
    """Standard deviations of actions `[inits, states, components]`, root mean squares over components.

    Returns:
        That between initialisations, and that of their mean across states.

    Example:
        >>> spreads(np.array([[[0.0], [4.0]], [[2.0], [6.0]]]))
        (1.0, 2.0)
    """
    between = np.sqrt(np.mean(np.var(actions, axis=0)))
    across = np.sqrt(np.mean(np.var(np.mean(actions, axis=0), axis=0)))
    return float(between), float(across)


def render(result: Mapping[str, Any]) -> str:
    """Table of the files."""
    rows = [_row(entry) for entry in result["files"]]
    return tables.table(f"actions of {result['num_inits']} initialisations", _HEADER, rows)


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        entry["file"],
        "-".join(map(str, entry["hidden_sizes"])),
        f"{entry['between_inits']:.3g}",
        f"{entry['across_states']:.3g}",
        "" if entry["share"] is None else f"{entry['share']:.1%}",
        f"{entry['num_states']:,}",
        f"{entry['return']:.4g}",
    )


BENCH = Bench(AgreementSettings, measure, render)
