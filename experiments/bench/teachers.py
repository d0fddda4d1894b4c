"""`hades bench teachers`: published teachers in real MuJoCo, beside the scores that their manifest gives."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax

from experiments import tables
from experiments.bench._lib.base import Bench, Report, SeededBenchSettings, tell
from experiments.cli import BadArgumentsError
from experiments.environments import make_named
from hades.evaluation import evaluate
from hades.normalization import PolicyParams
from hades.offline.scores import score_reference
from hades.offline.teacher import Teacher, teacher_policy

_ENVIRONMENTS = {"halfcheetah": "HalfCheetah", "hopper": "Hopper", "walker2d": "Walker2d"}
_HEADER = ("teacher", "score", "95 % t interval", "manifest", "difference", "allowed", "steps/s")


@dataclass(frozen=True, kw_only=True)
class TeachersSettings(SeededBenchSettings):
    """Plays the published teachers by their modes in real MuJoCo: normalised scores beside those of the manifest.

    A score agrees when it is within 10 points of the manifest's, 15 for teachers whose episodes vary.
    """

    teachers: Path | None = None
    """Folder with teacher files and their manifest.json; default: teachers/ in the folder that HADES_REFERENCE names,
    or in ../shared/reference."""
    names: tuple[str, ...] = ()
    """Teachers to play, such as hopper-medium; default: all of the manifest."""
    version: Literal["v4", "v5"] = "v4"
    """Version of the environments."""
    num_episodes: int = 20
    """Episodes of each teacher."""

    def __post_init__(self) -> None:
        """Refuses also counts that are not positive."""
        super().__post_init__()
        self.require_positive("num_episodes")


def measure(settings: TeachersSettings, report: Report) -> None:
    """Plays every teacher."""
    folder = settings.teachers or _reference_folder() / "teachers"
    expected = _read_manifest(folder)
    unknown = [name for name in settings.names if name not in expected]
    if unknown:
        raise BadArgumentsError(f"--names: expected some of {', '.join(expected)}, got {unknown[0]}")
    results: dict[str, Any] = {}
    report.content.update(num_episodes=settings.num_episodes, environments=settings.version)
    for name in settings.names or tuple(expected):
        results[name] = _measure(settings, folder / f"{name}.npz", expected[name])
        tell(f"{name}: {results[name]['score']:.1f}, in the manifest {expected[name]:.1f}")
        report.add(results=results)


def _reference_folder() -> Path:
    default = Path(__file__).resolve().parents[3] / "shared" / "reference"
    return Path(os.environ.get("HADES_REFERENCE", default))


def _read_manifest(folder: Path) -> dict[str, float]:
    """Expected scores, by the name of the teacher.

    Raises:
        BadArgumentsError: There is no such manifest.
    """
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
        return {name.removesuffix(".npz"): float(entry["score_in_mujoco"]) for name, entry in manifest.items()}
    except FileNotFoundError:
        raise BadArgumentsError(f"--teachers: expected a folder with a manifest.json, found none at {path}") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadArgumentsError(f"--teachers: {path}: expected score_in_mujoco of each teacher, got: {error}") from None


def _measure(settings: TeachersSettings, path: Path, expected: float) -> dict[str, Any]:
    body = path.name.partition("-")[0]
    if body not in _ENVIRONMENTS:
        raise BadArgumentsError(f"--names: expected names that begin with {', '.join(_ENVIRONMENTS)}, got {path.stem}")
    env = make_named(f"gymnasium/{_ENVIRONMENTS[body]}-{settings.version}")
    reference = score_reference(env.name)
    assert reference is not None  # all of _ENVIRONMENTS have one
    teacher = Teacher.load(path)
    teacher.check_fits(env)
    started = time.monotonic()
    evaluation = evaluate(
        jax.random.key(settings.seed), env, teacher_policy, PolicyParams(teacher), settings.num_episodes, "mode"
    )
    seconds = time.monotonic() - started
    score = reference.normalize(evaluation.mean)
    allowed = 15.0 if body == "hopper" or path.stem == "walker2d-medium" else 10.0
    steps = int(evaluation.lengths.sum())
    return {
        "env": env.name,
        "score": score,
        "ci95": tables.ends([reference.normalize(end) for end in evaluation.ci95]),
        "scores": reference.normalize(evaluation.returns[0]).tolist(),
        "lengths": evaluation.lengths[0].tolist(),
        "manifest_score": expected,
        "allowed_difference": allowed,
        "agrees": abs(score - expected) <= allowed,
        "env_steps": steps,
        "seconds": seconds,
    }


def render(result: Mapping[str, Any]) -> str:
    """Table of the teachers."""
    title = f"normalised scores in real MuJoCo, -{result['environments']}, {result['num_episodes']} episodes"
    return tables.table(title, _HEADER, [_row(*item) for item in result["results"].items()])


def all_agree(result: Mapping[str, Any]) -> bool:
    """Whether every score agrees with the manifest."""
    return all(entry["agrees"] for entry in result["results"].values())


def _row(name: str, entry: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        name,
        f"{entry['score']:.1f}",
        tables.interval(entry["ci95"]),
        f"{entry['manifest_score']:.1f}",
        f"{entry['score'] - entry['manifest_score']:+.1f}",
        f"{entry['allowed_difference']:.0f}",
        f"{entry['env_steps'] / entry['seconds']:.0f}",
    )


BENCH = Bench(TeachersSettings, measure, render, all_agree)
