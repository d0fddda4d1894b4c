"""`hades launch local|slurm|status GRID.toml`: many runs that belong together."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments.arguments import parse, print_json
from experiments.cli import launch_named
from experiments.launching import checking, local, slurm, status
from experiments.launching.grid import Grid, Member, load_grid
from experiments.settings import OutputSettings

_SUMMARIES = {
    "local": "run what is missing of a grid on this machine, several runs at the same time",
    "slurm": "submit what is missing of a grid to Slurm, as one job array",
    "status": "tell which runs of a grid are done, running, waiting, stopped, failed or missing",
}


@dataclass(frozen=True, kw_only=True)
class LaunchSettings(OutputSettings):
    """Launches the runs of a grid that are not done yet, or tells how they stand."""

    grid: Annotated[Path, tyro.conf.Positional]
    """Grid file, in TOML: command, out, [flags], [grid], [[grids]], [[runs]], [local] and [slurm]."""


@dataclass(frozen=True, kw_only=True)
class SlurmLaunchSettings(LaunchSettings):
    """Submits the runs of a grid that are not done yet to Slurm."""

    dry_run: bool = False
    """Prints the script for sbatch and the command of each task, and submits nothing."""


def main(arguments: Sequence[str]) -> int:
    """Runs the verb and returns its exit code.

    Raises:
        BadArgumentsError: There is no launcher of that name, or the grid is refused.
    """
    return launch_named("hades launch", "a launcher", _SUMMARIES, arguments, _launch)


def _launch(name: str, arguments: Sequence[str]) -> int:
    verb = f"launch {name}"
    if name == "slurm":
        settings = parse(SlurmLaunchSettings, verb, arguments)
        return _submit(load_grid(settings.grid), settings)
    plain = parse(LaunchSettings, verb, arguments)
    grid = load_grid(plain.grid)
    if name == "local":
        return _run(grid, plain)
    _tell(grid, plain)
    return 0


def _run(grid: Grid, settings: LaunchSettings) -> int:
    members = _to_launch(grid)
    checking.keep(grid)
    outcome = local.run_members(members, grid.local) if members else local.Outcome()
    found = _tell(grid, settings)
    if outcome.received is not None:
        print(f"stopped with {status.count(found)}; go on with: hades launch local {grid.path}", file=sys.stderr)
        return 128 + outcome.received
    return 1 if outcome.failed else 0


def _submit(grid: Grid, settings: SlurmLaunchSettings) -> int:
    members = _to_launch(grid, slurm.added_arguments(grid))
    if settings.dry_run:
        script = slurm.script(grid, members) if members else "nothing to submit"
        print(script)
        if settings.json:
            print_json({"script": script, "runs": [member.name for member in members]})
        return 0
    checking.keep(grid)
    if members:
        first = slurm.submit(grid, members)[0].partition("_")[0]
        print(f"submitted {len(members)} runs as job {first}; see: hades launch status {grid.path}", file=sys.stderr)
    _tell(grid, settings)
    return 0


def _to_launch(grid: Grid, added: Sequence[str] = ()) -> list[Member]:
    """Members that neither are done nor run already, once the whole grid has passed its checks."""
    checking.check(grid, added)
    found = status.statuses(grid)
    members = [member.member for member in found if member.state in status.TO_LAUNCH]
    print(f"{grid.path}: {status.count(found)}; {len(members)} to run", file=sys.stderr)
    return members


def _tell(grid: Grid, settings: LaunchSettings) -> list[status.MemberStatus]:
    """Prints how the grid stands."""
    found = status.statuses(grid)
    print(status.render(grid, found))
    if settings.json:
        print_json(status.summary(grid, found))
    return found
