"""Making datasets of the zoo: the commands of their recipes, packing, and cards of what was measured."""

from __future__ import annotations

import dataclasses
import os
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from string import Template

import jax
import numpy as np

from envs.images import VARIABLE
from experiments.bench._lib.base import tell
from experiments.bench._lib.runs import finish_run, start_process
from experiments.environments import make_environment
from experiments.loading import outcome_file
from experiments.zoo.measuring import score_of, time_training, versions_of
from experiments.zoo.recipes import RECIPES
from hades._files import write_atomically
from hades._json import to_json
from hades._npz import read_arrays, write_arrays
from hades._run_directory import RunDirectory
from hades._serialization import to_dict
from hades.dataset import SyntheticDataset
from hades.evaluation import dataset_evaluator
from hades.zoo import Card

EVALUATION_SEED = 1000
"""Seed of the scores on cards. Runs select and report on keys of their own seeds, which are small."""


@dataclasses.dataclass(frozen=True)
class Folders:
    """Places of what recipes read and write.

    Attributes:
        runs: Run directories and offline data.
        teachers: Published teachers, as .npz files.
        out: Datasets and cards.
    """

    runs: Path
    teachers: Path
    out: Path

    @property
    def variables(self) -> dict[str, str]:
        """Variables of a recipe's commands; that of the images is there where the environment has it."""
        images = {VARIABLE: os.environ[VARIABLE]} if os.environ.get(VARIABLE) else {}
        return {"RUNS": str(self.runs), "TEACHERS": str(self.teachers), **images}


def make(name: str, folders: Folders) -> Card:
    """Makes a dataset and its card. What the commands have written is not made again, and runs that were stopped go on.

    Args:
        name: Of the recipe.
        folders: Places.

    Returns:
        The card, which is written, too.

    Raises:
        OSError: A file cannot be written.
        ValueError: A command failed, or its dataset cannot be measured.
    """
    for folder in (folders.runs, folders.out):
        folder.mkdir(parents=True, exist_ok=True)
    for command in commands_of(name):
        _run(command, folders.variables)
    run = RunDirectory(folders.runs / name)
    file = folders.out / f"{name}.npz"
    dataset = SyntheticDataset.load(outcome_file(run.path))
    with tempfile.TemporaryDirectory(dir=folders.out) as temporary:
        temporary_file = Path(temporary) / file.name
        # Measured is what the file holds after rounding.
        packed = pack(dataset, temporary_file)
        card, packed = _measure(name, packed, run)
        pack(packed, temporary_file)
        os.replace(temporary_file, file)
    card = dataclasses.replace(card, num_bytes=file.stat().st_size)
    write_atomically(file.with_suffix(".json"), to_json(to_dict(card), indent=1) + "\n")
    return card


def commands_of(name: str) -> tuple[str, ...]:
    """Arguments of `hades` in every command of a recipe, the run directory of the last one among them."""
    *before, last = RECIPES[name].commands
    return (*before, f"{last} --out $RUNS/{name}")


def pack(dataset: SyntheticDataset, file: Path) -> SyntheticDataset:
    """Writes a dataset with observations rounded to half precision, deflated: a third of the bytes.

    Returns:
        The dataset as the file has it.

    Raises:
        DatasetError: An observation is too large for half precision.
    """
    dataset.save(file)
    arrays = read_arrays(file)
    with np.errstate(over="ignore"):
        # Kept as float32, as the file format says; the zeros behind the rounded digits deflate to nothing.
        arrays["observations"] = arrays["observations"].astype("<f2").astype("<f4")
    write_arrays(file, arrays, compressed=True)
    return SyntheticDataset.load(file)


def _run(command: str, variables: Mapping[str, str]) -> None:
    """Runs a command to its end, unless it has written its file, or finished its run, before.

    Raises:
        ValueError: A variable is not known, or the command failed.
    """
    try:
        arguments = [Template(part).substitute(variables) for part in shlex.split(command)]
    except KeyError as error:
        raise ValueError(f"hades {command}: expected the variable {error.args[0]} in the environment") from None
    out = Path(arguments[arguments.index("--out") + 1])
    if arguments[:2] != ["offline", "collect"]:
        finish_run([*arguments, "--resume"], out)
    elif not out.is_file():
        tell(f"hades {shlex.join(arguments)}")
        start_process(arguments)


def _measure(name: str, dataset: SyntheticDataset, run: RunDirectory) -> tuple[Card, SyntheticDataset]:
    """Scores and times a packed dataset: its card, which knows no size yet, and the dataset with its score."""
    recipe = RECIPES[name]
    metadata = dataset.metadata
    assert metadata is not None  # a loaded dataset has it
    env = make_environment(metadata, None, run.path)
    evaluator = dataset_evaluator(env, dataset, recipe.num_inits, recipe.num_episodes)
    tell(f"{name}: scores on fresh keys")
    key = jax.random.key(EVALUATION_SEED)
    evaluation, zeros = evaluator(key, dataset), evaluator.references(key, dataset)
    commands = tuple(f"hades {command}" for command in commands_of(name))
    card = Card(
        name=name,
        group=recipe.group,
        env=metadata.env,
        method=metadata.method,
        num_pairs=dataset.num_pairs,
        num_bytes=1,
        seed=metadata.seed,
        commands=commands,
        git_commit=run.read_versions()["git_commit"],
        versions=versions_of(metadata.env),
        score=score_of(evaluation),
        zero_dataset=score_of(zeros["zero dataset"]),
        untrained_policy=score_of(zeros["untrained policy"]),
        evaluation_seed=EVALUATION_SEED,
        training=time_training(env, dataset),
    )
    origin = dataclasses.replace(
        metadata, evaluation=evaluation.summary(), source=f"zoo of hades: {' && '.join(commands)}"
    )
    return card, dataclasses.replace(dataset, metadata=origin)
