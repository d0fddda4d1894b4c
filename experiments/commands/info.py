"""`hades info`: the content of a dataset, policy or teacher file, or of a run directory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.arguments import parse, print_json
from experiments.loading import load_dataset, load_policy, outcome_file, zoo_name
from experiments.settings import OutputSettings
from experiments.zoo.listing import describe
from hades import zoo
from hades._run_directory import RunDirectory
from hades._serialization import to_dict
from hades.metadata import FileMetadata
from hades.multitask.merging import is_merged, spaces
from hades.offline.teacher import Teacher, is_teacher_file
from hades.policy_file import is_policy_file


@dataclass(frozen=True, kw_only=True)
class InfoSettings(OutputSettings):
    """Tells the content of a dataset, policy or teacher file, or of a run directory."""

    source: Annotated[Path, tyro.conf.Positional]
    """Dataset file, policy file, teacher file, run directory, or zoo:NAME."""


def main(arguments: Sequence[str]) -> int:
    """Runs the verb and returns its exit code."""
    settings = parse(InfoSettings, "info", arguments)
    info = _describe(settings.source)
    print("\n".join(_lines(info)))
    if settings.json:
        print_json(info)
    return 0


def _describe(source: Path) -> dict[str, Any]:
    run: dict[str, Any] = {}
    if source.is_dir():
        directory = RunDirectory(source)
        config = directory.read_config()
        rows = directory.read_metrics()
        last = rows[-1] if rows else {}
        run = {
            "run": str(source),
            "command": config.get("command"),
            "iterations": f"{last.get('iteration', 0)} of {config.get('num_iterations', 'unknown')}",
            "seconds": last.get("seconds"),
            "fitness_mean": last.get("fitness_mean"),
        }
    file = outcome_file(source)
    if run and not file.exists():
        return {"kind": "run without an outcome yet", **run}
    kind, content = _content(file)
    name = zoo_name(source)
    card = {} if name is None else {"card": _card(zoo.card(name))}
    return {"kind": "run" if run else kind, **run, "file": str(file), **content, **card}


def _card(card: zoo.Card) -> dict[str, Any]:
    """A card of the zoo without what the metadata of its file say."""
    told = ("name", "env", "method", "num_pairs", "seed")
    return {name: value for name, value in describe(card).items() if name not in told}


def _content(file: Path) -> tuple[str, dict[str, Any]]:
    """The kind of a file, and what it holds."""
    if is_teacher_file(file):
        return "teacher", _teacher(Teacher.load(file))
    if is_policy_file(file):
        _, metadata = load_policy(file)
        try:
            return "policy", _metadata(metadata)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
    _, dataset, metadata = load_dataset(file)
    names = [field.name for field in dataclasses.fields(dataset) if field.name != "metadata"]
    arrays = {name: getattr(dataset, name) for name in names if getattr(dataset, name) is not None}
    shapes: dict[str, Any] = {name: list(array.shape) for name, array in arrays.items()}
    # Few enough to be read.
    learned: dict[str, Any] = {name: arrays[name].tolist() for name in ("step_sizes", "log_std") if name in arrays}
    kind = "merged dataset" if is_merged(metadata) else "dataset"
    return kind, {"pairs": dataset.num_pairs, "shapes": shapes, **learned, **_metadata(metadata)}


def _teacher(teacher: Teacher) -> dict[str, Any]:
    return {
        "observation_shape": list(teacher.observation_shape),
        "action_low": list(teacher.action_space.low),
        "action_high": list(teacher.action_space.high),
        "actor_hidden_sizes": [len(bias) for _, bias in teacher.actor[:-1]],
        "critic_hidden_sizes": [len(bias) for _, bias in teacher.critics[0][:-1]],
    }


def _metadata(metadata: FileMetadata) -> dict[str, Any]:
    info = {name: value for name, value in to_dict(metadata).items() if value not in (None, "")}
    if not is_merged(metadata):
        return info
    # Those of the policies' environments are in the tasks, and their statistics are long.
    joint = spaces(metadata)
    del info["env_options"]
    tasks = [
        {
            **_metadata(task.metadata),
            "pairs": task.num_pairs,
            "observation_shape": list(task.observation_shape),
            "action_dim": task.action_dim,
        }
        for task in joint.tasks
    ]
    return {**info, "shared_places": joint.shared_places, "task_one_hot": joint.task_one_hot, "tasks": tasks}


def _lines(info: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in info.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", *_lines(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for index, item in enumerate(value):
                lines += [f"{indent}{name}[{index}]:", *_lines(item, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {value}")
    return lines
