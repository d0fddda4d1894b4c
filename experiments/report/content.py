"""The content of a page: one dictionary for each run, and the heat maps, ready for JSON."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.names import measure_of
from experiments import tables
from experiments.bench._lib.variants import OWN, ZERO
from experiments.pictures.names import action_labels
from experiments.report import curves
from experiments.report.pairs import Nearest, nearest_states, pairs_to_dict
from experiments.report.playing import Actors, Performance, make_actors
from experiments.report.removal import Removals, remove_pairs
from experiments.report.scenes.scene import Episode
from experiments.report.subject import Subject
from hades._serialization import to_dict
from hades.types import Continuous

MAX_FRAMES = 1000
_GENERALISATION = "generalisation.json"
_LEFT_OUT = ("arrays", "key", "json", "resume", "out", "options", "metadata", "evaluation", "created_with")


@dataclass(frozen=True)
class Effort:
    """Amount of play for a page.

    Attributes:
        seed: Seed of training and playing.
        num_inits: Policies that a dataset trains.
        num_episodes: Episodes of each.
        max_removals: Pairs that are removed, one at a time.
        removal_seconds: Seconds after which no further pair is removed.
        max_numbers: Numbers that a film may take, some seven bytes each; one of more leaves out frames.
    """

    seed: int = 0
    num_inits: int = 8
    num_episodes: int = 1
    max_removals: int = 16
    removal_seconds: float = 6.0
    max_numbers: int = 250_000


def run_to_dict(subject: Subject, effort: Effort, tell: Callable[[str], None] = lambda what: None) -> dict[str, Any]:
    """Content of a page about one run or file.

    Args:
        subject: Run or file.
        effort: How much is played.
        tell: Called with what is done next.
    """
    result: dict[str, Any] = {
        "name": subject.name,
        "subtitle": _subtitle(subject),
        "words": _words(subject),
        "curve": curves.curve_to_dict(subject),
        "returns": curves.returns_to_list(subject),
        "progress": _progress(subject),
        "architecture": _architecture(subject),
        "settings": _rows(
            subject.config if subject.directory else to_dict(subject.metadata) if subject.metadata else {}
        ),
        "versions": _versions(subject),
        "problem": subject.problem,
    }
    if subject.env is None:
        return result | _pairs(subject, effort)
    tell("training policies")
    actors = make_actors(subject, effort.seed, effort.num_inits, effort.num_episodes)
    tell("playing")
    performance = actors.play(actors.networks)
    trained = "fresh policies" if subject.dataset is not None else "the policy"
    result["fresh"] = curves.return_to_dict(f"{trained}, for this page", tables.summary(performance.evaluation))
    if performance.episode is None:
        result["problem"] = "The first policy's actions, or what followed from them, are not finite: there is no film."
    visits = _visits(subject, actors, performance)
    removals = _remove(subject, actors, performance, visits, effort, tell)
    result |= _pairs(subject, effort, actors, visits, removals)
    if performance.episode is not None:
        result["film"] = _film(subject, actors, performance.episode, removals, effort.max_numbers)
    return result


def _words(subject: Subject) -> dict[str, str]:
    """Names of what was measured: on images the curve is of training images, all other numbers of test images."""
    if measure_of(subject.env_name) == "accuracy":
        return {
            "measure": "accuracy",
            "outcomes": "Accuracies",
            "axis": "accuracy",
            "evaluation": "outcome so far, training images (95 % interval)",
            "reference": ", test images",
            "objective": "objective on training images",
        }
    return {
        "measure": "return",
        "outcomes": "Returns",
        "axis": "return of an episode",
        "evaluation": "outcome so far, fresh keys (95 % interval)",
        "reference": "",
        "objective": "objective on offline states",
    }


def _subtitle(subject: Subject) -> str:
    pairs = "" if subject.dataset is None else f"{subject.dataset.num_pairs:,} pairs"
    parts = (subject.env_name, subject.method, pairs, str(subject.source))
    return " · ".join(part for part in parts if part)


def _progress(subject: Subject) -> dict[str, Any] | None:
    row = None if subject.directory is None else subject.directory.last_row()
    if row is None:
        return None
    return {"iteration": row["iteration"], "env_steps": row.get("total_env_steps"), "seconds": row.get("seconds")}


def _architecture(subject: Subject) -> str:
    cloning = None if subject.metadata is None else subject.metadata.cloning
    if cloning is None:
        return ""
    layers = " × ".join(str(size) for size in cloning.hidden_sizes) or "no hidden layers"
    trained = f", {cloning.num_steps} steps of {cloning.optimizer}" if subject.dataset is not None else ""
    return f"{cloning.policy} {layers}, {cloning.activation}{trained}"


def _rows(settings: Mapping[str, Any] | None, prefix: str = "") -> list[tuple[str, str]]:
    """Settings by name, those in groups with the name of the group in front; none that say nothing."""
    rows: list[tuple[str, str]] = []
    for name, value in (settings or {}).items():
        if (not prefix and name in _LEFT_OUT) or value is None or value in ("", {}, []):
            continue
        if isinstance(value, Mapping):
            rows += _rows(value, "" if name == "settings" else f"{prefix}{name}.")
        else:
            rows.append((prefix + name, _text(value)))
    return list(dict.fromkeys(rows))


def _text(value: Any) -> str:
    if not isinstance(value, list | tuple):
        return str(value)
    return f"{len(value)} groups" if isinstance(value[0], Mapping) else ", ".join(map(str, value))


def _versions(subject: Subject) -> list[tuple[str, str]]:
    if subject.directory is not None and subject.directory.versions.exists():
        versions = subject.directory.read_versions()
        return _rows({**versions.pop("packages", {}), **versions})
    return _rows(dict(subject.metadata.created_with)) if subject.metadata is not None else []


@dataclass(frozen=True)
class _Visits:
    """States of the film, raw `[time, *observation_shape]`, and the pairs' nearest ones among them."""

    states: np.ndarray
    nearest: Nearest


def _visits(subject: Subject, actors: Actors, performance: Performance) -> _Visits | None:
    dataset, episode = subject.dataset, performance.episode
    if dataset is None or episode is None:
        return None
    states = episode.observations[:MAX_FRAMES]
    return _Visits(states, nearest_states(np.asarray(dataset.observations), actors.normalizer, states))


def _remove(
    subject: Subject,
    actors: Actors,
    performance: Performance,
    visits: _Visits | None,
    effort: Effort,
    tell: Callable[[str], None],
) -> Removals | None:
    dataset = subject.dataset
    if dataset is None or visits is None or dataset.num_pairs < 2 or effort.max_removals == 0:
        return None
    order = visits.nearest.order[: effort.max_removals]
    count = len(order)
    return remove_pairs(
        actors, dataset, performance, order, effort.removal_seconds, lambda done: tell(f"pair {done}/{count} removed")
    )


def _pairs(
    subject: Subject,
    effort: Effort,
    actors: Actors | None = None,
    visits: _Visits | None = None,
    removals: Removals | None = None,
) -> dict[str, Any]:
    dataset = subject.dataset
    if dataset is None:
        return {}
    scene, states = None if actors is None else actors.scene, None if visits is None else visits.states
    nearest = None if visits is None else visits.nearest
    pairs = pairs_to_dict(dataset, scene, nearest, states)
    if removals is not None:
        pairs["removal"] = removals.to_dict()
    pairs["notes"] = _notes(dataset.num_pairs, None if nearest is None else nearest.typical, removals, effort)
    return {"pairs": pairs}


def _notes(count: int, typical: float | None, removals: Removals | None, effort: Effort) -> list[str]:
    """Sentences that say how the cards were measured."""
    notes = []
    if removals is not None:
        removed, inits = removals.costs.shape
        which = (
            "each" if removed == count else f"{removed} of {count}, those that are nearest to most states of the film"
        )
        notes.append(
            f"Removal, of {which}: policies were trained without the pair, from the same {inits} initialisations, and "
            "played from the same first states; the interval is Student's t over initialisations."
            if inits > 1
            else f"Removal, of {which}: the policy was trained without the pair, from the one initialisation that the "
            "dataset is for, and played from the same first states."
        )
        notes.append("A pair acts at a step where the first policy's action would differ most without it.")
        if removed < min(count, effort.max_removals):
            notes.append(f"No further pair was removed after {effort.removal_seconds:g} s.")
    elif count > 1 and typical is not None:
        reason = "as asked" if effort.max_removals == 0 else f"{effort.removal_seconds:g} s were too short for it"
        notes.append(f"No pair was removed: {reason}.")
    if typical is not None:
        notes.append(
            "Distances are root mean squares over components, in the space that the policy sees, where states of the "
            f"film are typically {typical:.2g} away from their mean."
        )
    return notes


def _film(
    subject: Subject, actors: Actors, episode: Episode, removals: Removals | None, max_numbers: int
) -> dict[str, Any]:
    shown = slice(0, MAX_FRAMES)
    film = actors.scene.draw(episode.part(shown))
    stride = max(math.ceil(film.num_frames * film.numbers_per_frame / max_numbers), 1)
    if stride > 1:
        shown = slice(0, MAX_FRAMES, stride)
        film = actors.scene.draw(episode.part(shown))
    steps = _steps(actors, episode, shown)
    if removals is not None:
        steps["acting"] = removals.acting[shown].tolist()
    end = "reached an end of the task" if episode.terminated else "was cut off by its time limit"
    who = "The first of the policies that the dataset trained" if subject.dataset is not None else "The policy"
    cut = f" The first {MAX_FRAMES:,} of {len(episode):,} steps." if len(episode) > MAX_FRAMES else ""
    total = f"{np.sum(episode.rewards, dtype=np.float64):,.4g}".replace("-", "\N{MINUS SIGN}")
    text = (
        f"{who}, in its first episode, which {end} after {len(episode):,} steps with a return of {total}.{cut} "
        f"{film.note}"
    )
    result = {**film.to_dict(), "stride": stride, "steps": steps, "text": text}
    return result | {"frames_per_second": film.frames_per_second / stride}


def _steps(actors: Actors, episode: Episode, shown: slice) -> dict[str, Any]:
    """Returns so far and actions of some steps; probabilities where actions are discrete, their bounds otherwise."""
    space = actors.env.action_space
    so_far = np.cumsum(episode.rewards, dtype=np.float64)
    episode = episode.part(shown)
    steps: dict[str, Any] = {"returns": [float(f"{value:.6g}") for value in so_far[shown]]}
    if isinstance(space, Continuous):
        names = action_labels(actors.env.name, space.action_dim)
        bounds = {"low": list(map(float, space.low)), "high": list(map(float, space.high))}
        return steps | bounds | {"action_names": names, "actions": np.round(episode.actions, 3).tolist()}
    first = jax.tree.map(lambda leaf: leaf[0], actors.networks)
    distribution: Any = actors.policy.apply(first, actors.normalizer.apply(jnp.asarray(episode.observations)))
    return steps | {
        "action_names": action_labels(actors.env.name, space.num_actions),
        "actions": episode.actions.tolist(),
        "probabilities": np.round(np.exp(np.asarray(distribution.log_probs())), 3).tolist(),
    }


def read_generalisation(path: Path) -> list[dict[str, Any]]:
    """The heat maps of a result of `hades bench generalisation`.

    Raises:
        ValueError: It is not such a result.
        OSError: It cannot be read.
    """
    try:
        result = json.loads(path.read_text())
        return [
            {
                "name": file["name"],
                "threshold": result["threshold"],
                "num_reaching": file["num_reaching"],
                "num_cells": file["num_cells"],
                "own": file["references"][OWN]["mean"],
                "zero": file["references"][ZERO]["mean"],
                "panels": [_panel(panel) for panel in file["panels"]],
            }
            for file in result["files"]
        ]
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected a result of hades bench generalisation, got one without {error}") from None


def _panel(panel: Mapping[str, Any]) -> dict[str, Any]:
    cells = [[{name: cell[name] for name in ("mean", "own", "reaches")} for cell in row] for row in panel["cells"]]
    return {name: panel[name] for name in ("row_label", "column_label", "rows", "columns")} | {"cells": cells}


def page_content(
    subjects: Sequence[Subject],
    effort: Effort,
    generalisation: Sequence[Path] = (),
    tell: Callable[[str], None] = lambda what: None,
) -> dict[str, Any]:
    """Content of a page.

    Args:
        subjects: Runs and files, no two of one name.
        effort: How much is played.
        generalisation: Results of `hades bench generalisation`, besides a `generalisation.json` in a run directory.
        tell: Called with what is done next.
    """
    began = time.monotonic()
    beside = [subject.source / _GENERALISATION for subject in subjects if subject.directory is not None]
    heat_maps = [read_generalisation(path) for path in (*generalisation, *filter(Path.exists, beside))]
    subjects = _told_apart(subjects)
    effort = replace(effort, max_numbers=effort.max_numbers // len(subjects))
    runs = [run_to_dict(subject, effort, partial(_tell_of, subject, tell)) for subject in subjects]
    title = subjects[0].env_name.partition("/")[2] if len(subjects) == 1 else f"{len(subjects)} runs compared"
    return {
        "title": title or subjects[0].env_name,
        "subtitle": runs[0]["subtitle"] if len(runs) == 1 else " · ".join(sorted({one.env_name for one in subjects})),
        "runs": runs,
        "generalisation": [file for files in heat_maps for file in files],
        "footer": f"Made by hades report in {time.monotonic() - began:.1f} s, seed {effort.seed}: {effort.num_inits} "
        f"policies for each dataset, {effort.num_episodes} episode{'s' if effort.num_episodes > 1 else ''} each.",
    }


def _tell_of(subject: Subject, tell: Callable[[str], None], what: str) -> None:
    tell(f"{subject.name}: {what}")


def _told_apart(subjects: Sequence[Subject]) -> list[Subject]:
    """The subjects, those that share a name with the paths that were given for names."""
    names = [subject.name for subject in subjects]
    return [
        replace(subject, name=str(subject.source)) if names.count(subject.name) > 1 else subject for subject in subjects
    ]
