"""Launching through Slurm: members as the tasks of one job array, by submitit."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.cli import BadArgumentsError
from experiments.launching.grid import Grid, Member
from experiments.launching.slurm_task import Task
from experiments.processes import command

_ROOT = Path(__file__).resolve().parents[2]


def submit(grid: Grid, members: Sequence[Member]) -> list[str]:
    """Submits members as one job array, and returns the id of each one's job.

    Raises:
        BadArgumentsError: submitit is not installed, or there is no Slurm here.
        ValueError: Slurm refuses the job; the message has its words.
    """
    submitit = _submitit()
    try:
        executor = submitit.SlurmExecutor(_folder(grid), max_num_timeout=grid.slurm.requeues, python=_python())
    except RuntimeError:
        raise BadArgumentsError("slurm: expected a machine with srun and sbatch; --dry-run works on any") from None
    executor.update_parameters(**_parameters(grid))
    try:
        jobs = executor.submit_array([_task(grid, member) for member in members])
    except submitit.core.utils.FailedJobError as error:
        raise ValueError(f"{grid.path}: sbatch: {error}") from None
    for member, job in zip(members, jobs, strict=True):
        member.files.job.write_text(job.job_id)
    return [job.job_id for job in jobs]


def script(grid: Grid, members: Sequence[Member]) -> str:
    """The script that `submit` hands to sbatch, with the command of each task behind it.

    Raises:
        BadArgumentsError: submitit is not installed.
    """

    class AnywhereExecutor(_submitit().SlurmExecutor):  # type: ignore[misc]
        """An executor that does not ask for srun."""

        @classmethod
        def affinity(cls) -> int:
            """Always able to write scripts."""
            return 1

    executor = AnywhereExecutor(_folder(grid), python=_python())
    executor.update_parameters(**_parameters(grid))
    if len(members) > 1:
        executor.parameters["map_count"] = len(members)
    text = executor._make_submission_file_text(executor._submitit_command_str, "")
    tasks = [shlex.join(["hades", *_arguments(grid, member)]) for member in members]
    return "\n".join([text.rstrip(), "", *(f"# task {index}: {task}" for index, task in enumerate(tasks))])


def added_arguments(grid: Grid) -> list[str]:
    """Arguments that every member has beside its own."""
    return ["--multihost"] if grid.slurm.is_multihost else []


def _submitit() -> Any:
    try:
        import submitit
    except ImportError:
        raise BadArgumentsError("slurm: needs submitit, install hades-distillation[slurm]") from None
    return submitit


def _folder(grid: Grid) -> Path:
    return grid.launch_folder / "slurm"


def _python() -> str:
    """Shell words that start Python on a node, with the packages of this distribution in front of any others."""
    path = shlex.quote(str(_ROOT)) + "${PYTHONPATH:+:$PYTHONPATH}"
    return f"env PYTHONSAFEPATH=1 PYTHONPATH={path} {shlex.quote(sys.executable)}"


def _arguments(grid: Grid, member: Member) -> list[str]:
    return [*member.arguments, *added_arguments(grid)]


def _task(grid: Grid, member: Member) -> Task:
    return Task(member.files, tuple(member.arguments), tuple(command(*_arguments(grid, member))))


def _parameters(grid: Grid) -> dict[str, Any]:
    """Parameters of `submitit.SlurmExecutor`, which are those of sbatch but for some."""
    settings = grid.slurm
    given = {
        "partition": settings.partition,
        # Not of a task, which would hide the others from JAX's numbering.
        "gpus_per_node": settings.gpus,
        "cpus_per_task": settings.cpus,
        "mem": settings.memory,
        "setup": list(settings.setup) or None,
        # Since Slurm 22.05 srun does not take it from sbatch.
        "srun_args": [f"--cpus-per-task={settings.cpus}"] if settings.cpus else None,
    }
    return {
        "job_name": f"hades-{grid.out.name}",
        "nodes": settings.nodes,
        "ntasks_per_node": settings.processes_per_node,
        "time": settings.minutes,
        "signal_delay_s": settings.grace,
        "array_parallelism": settings.parallelism,
        "additional_parameters": {"requeue": True, **settings.parameters},
        **{name: value for name, value in given.items() if value is not None},
    }
