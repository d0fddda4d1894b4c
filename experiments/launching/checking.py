"""Checks of a grid before any of its members starts, and the grid as it was launched."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

import jax

from experiments import running
from experiments.cli import BadArgumentsError
from experiments.launching.commands import command_of
from experiments.launching.grid import Grid, Member
from hades._files import write_atomically
from hades._json import to_json
from hades._run_directory import FREE_TO_CHANGE, RunDirectory

_GRID_FILE = "grid.json"


def check(grid: Grid, added: Sequence[str] = ()) -> None:
    """Refuses a grid of which a run cannot start, as far as that shows without compiling anything.

    Args:
        grid: Grid.
        added: Arguments that the launcher gives to every member.

    Raises:
        BadArgumentsError: A flag is wrong, or contradicts a run that is there; one sentence names file, run and flag.
        ValueError: A run directory is not whole.
    """
    # GPUs are the members': JAX would take most of their memory for what is checked here.
    jax.config.update("jax_platforms", "cpu")
    launched, built = _launched(grid), set[str]()
    for member in grid.members:
        try:
            _check_same(member, launched.get(member.name))
            with _one_sentence():
                _check_member(member, added, built)
        except BadArgumentsError as error:
            raise BadArgumentsError(f"{grid.path}: run {member.name}: {error}") from None


def keep(grid: Grid) -> None:
    """Writes the grid as it is launched; runs that were launched before and are no longer in it stay there."""
    grid.launch_folder.mkdir(parents=True, exist_ok=True)
    runs = _launched(grid) | {member.name: _plain(member) for member in grid.members}
    write_atomically(grid.launch_folder / _GRID_FILE, to_json(runs, indent=2) + "\n")


def _launched(grid: Grid) -> dict[str, Any]:
    """Command and flags of every run that was launched into the folder."""
    file = grid.launch_folder / _GRID_FILE
    if not file.exists():
        return {}
    try:
        return dict(json.loads(file.read_text()))
    except (ValueError, TypeError):
        raise ValueError(f"{file}: expected a JSON object, as a launch writes it; remove it to launch anew") from None


def _plain(member: Member) -> dict[str, Any]:
    return {"command": member.command, "flags": dict(member.flags)}


def _check_same(member: Member, launched: Mapping[str, Any] | None) -> None:
    """Refuses flags other than those that a run was begun with, also where one was left out since."""
    if launched is None or not RunDirectory(member.out).holds_run:
        return
    old, new = launched["flags"], json.loads(to_json(member.flags))
    for name in {**old, **new}:
        free = name.rpartition(".")[2].replace("-", "_") in FREE_TO_CHANGE
        if not free and old.get(name) != new.get(name):
            was, given = (flags.get(name, "none") for flags in (old, new))
            raise BadArgumentsError(f"--{name}: the run was launched with {was}, got {given}; choose another out")


def _check_member(member: Member, added: Sequence[str], built: set[str]) -> None:
    """Parses the arguments of a member, and builds its run unless one that differs by its seed alone was built."""
    words = len(member.command.split())
    flags = [*member.arguments[words:], *added]
    command = command_of(member.command, flags)
    settings = running.resolve(command, flags)
    alike = repr(dataclasses.replace(settings, seed=0, out=None, resume=False))
    # Building an offline run computes on its data; they were found, and their environment is known.
    if alike in built or member.command.startswith("offline") or RunDirectory(member.out).holds_run:
        return
    # Devices are those of the machine that will run it.
    running.build(dataclasses.replace(settings, devices=None), command)
    built.add(alike)


@contextlib.contextmanager
def _one_sentence() -> Iterator[None]:
    """Makes a sentence of the box that tyro draws around a refusal before it ends the process."""
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            yield
    except SystemExit:
        lines = [line.strip("│╭╮╰╯─ ") for line in box.getvalue().splitlines()]
        # The title, then the refusal up to a rule, then help on flags, those meant perhaps among them. The refusal
        # begins with what tyro did, or with the name of a class.
        refusal = " ".join(takewhile(bool, lines[1:]))
        meant = [line for line in lines if line.startswith("--")]
        expected = f", expected {' or '.join(meant)}" if meant else ""
        raise BadArgumentsError(re.sub(r"^(Error parsing )?(\w+Settings: )?", "", refusal) + expected) from None
