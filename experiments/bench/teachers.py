"""`hades bench teachers`: published teachers in real MuJoCo, beside the scores that their manifest gives."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax

from experiments import tables
from experiments.arguments import parse
from experiments.bench._lib.results import deliver, provenance
from experiments.cli import BadArgumentsError
from experiments.environments import make_named
from hades._validation import require_positive
from hades.evaluation import evaluate
from hades.normalization import PolicyParams
from hades.offline.scores import score_reference
from hades.offline.teacher import Teacher, teacher_policy

_ENVIRONMENTS = {"halfcheetah": "HalfCheetah", "hopper": "Hopper", "walker2d": "Walker2d"}


@dataclass(frozen=True, kw_only=True)
class TeachersSettings:
    """Plays the published teachers by their modes in real MuJoCo: normalised scores beside those of the manifest.

    A score agrees when it is within 10 points of the manifest's, 15 for teachers whose episodes vary.
    """

    teachers: Path | None = None
    """Folder with teacher files and their manifest.json; none is teachers/ in the folder that HADES_REFERENCE names, or
    in ../shared/reference."""
    names: tuple[str, ...] = ()
    """Teachers to play, such as hopper-medium; none is all of the manifest."""
    version: Literal["v4", "v5"] = "v4"
    """Version of the environments."""
    num_episodes: int = 20
    """Episodes of each teacher."""
    seed: int = 0
    """Seed of all random numbers."""
    out: Path | None = None
    """JSON file to write."""
    json: bool = False
    """Prints one JSON object as the last line of stdout, and everything else on stderr."""

    def __post_init__(self) -> None:
        """Refuses counts that are not positive."""
        require_positive("num_episodes", self.num_episodes)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark and returns its exit code: 1 where a score does not agree."""
    settings = parse(TeachersSettings, "bench teachers", arguments)
    folder = settings.teachers or _reference_folder() / "teachers"
    expected = _read_manifest(folder)
    unknown = [name for name in settings.names if name not in expected]
    if unknown:
        raise BadArgumentsError(f"--names: expected some of {', '.join(expected)}, got {unknown[0]}")
    results = {}
    for name in settings.names or tuple(expected):
        results[name] = _measure(settings, folder / f"{name}.npz", expected[name])
        print(f"{name}: {results[name]['score']:.1f}, in the manifest {expected[name]:.1f}", flush=True)
    report = provenance("teachers", arguments) | {"num_episodes": settings.num_episodes, "results": results}
    header = ("teacher", "score", "95 % t interval", "manifest", "difference", "allowed", "steps/s")
    print(tables.table(f"normalised scores in real MuJoCo, -{settings.version}, {settings.num_episodes} episodes",
                       header, [_row(name, result) for name, result in results.items()]))  # fmt: skip
    deliver(report, settings.out, settings.json)
    return 0 if all(result["agrees"] for result in results.values()) else 1


def _reference_folder() -> Path:
    default = Path(__file__).resolve().parents[3] / "shared" / "reference"
    return Path(os.environ.get("HADES_REFERENCE", default))


def _read_manifest(folder: Path) -> dict[str, float]:
    """Scores by the name of the teacher.

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
        "interval": f"Student's t over {settings.num_episodes} episodes",
        "scores": reference.normalize(evaluation.returns[0]).tolist(),
        "lengths": evaluation.lengths[0].tolist(),
        "manifest_score": expected,
        "allowed_difference": allowed,
        "agrees": abs(score - expected) <= allowed,
        "env_steps": steps,
        "seconds": seconds,
    }


def _row(name: str, result: dict[str, Any]) -> tuple[str, ...]:
    return (
        name,
        f"{result['score']:.1f}",
        tables.interval(result["ci95"]),
        f"{result['manifest_score']:.1f}",
        f"{result['score'] - result['manifest_score']:+.1f}",
        f"{result['allowed_difference']:.0f}",
        f"{result['env_steps'] / result['seconds']:.0f}",
    )
