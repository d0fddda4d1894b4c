"""Settings of launchers, as the tables `[local]` and `[slurm]` of a grid file have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hades._validation import require_positive_fields


@dataclass(frozen=True, kw_only=True)
class LocalSettings:
    """Settings of a launch on this machine.

    Attributes:
        processes: Members at the same time; that of `devices` if None, or 1.
        devices: GPUs as CUDA_VISIBLE_DEVICES numbers them, an entry for each process in turn; "0,1" is two for one
            process. Without, processes share the CPU cores between them.
    """

    processes: int | None = None
    devices: tuple[int | str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses a number of processes that is not positive."""
        require_positive_fields(self, "processes")


@dataclass(frozen=True, kw_only=True)
class SlurmSettings:
    """Settings of a launch through Slurm.

    Attributes:
        partition: Partition; that of the cluster if None.
        nodes: Nodes of each member.
        processes: Processes on each node of a member; if None 1, or of several nodes one for each GPU, as JAX expects.
        gpus: GPUs on each node, all visible to every process there.
        cpus: CPU cores of each process.
        memory: Memory of each node, such as "32G".
        minutes: Time limit, after which a member is requeued with a checkpoint.
        grace: Seconds before the limit at which a member is asked to stop with a checkpoint.
        requeues: Time limits that a member may come to before it is given up.
        parallelism: Members of the job array at the same time.
        setup: Shell lines before a member starts, such as "module load cuda".
        parameters: Further parameters of sbatch, such as account = "lab".
    """

    partition: str | None = None
    nodes: int = 1
    processes: int | None = None
    gpus: int | None = None
    cpus: int | None = None
    memory: str | None = None
    minutes: int = 60
    grace: int = 120
    requeues: int = 100
    parallelism: int = 256
    setup: tuple[str, ...] = ()
    parameters: Mapping[str, str | int | bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses counts that are not positive, and a time limit within which nothing would run."""
        counts = ("nodes", "processes", "gpus", "cpus", "minutes", "grace", "requeues", "parallelism")
        require_positive_fields(self, *counts)
        if self.grace >= 60 * self.minutes:
            raise ValueError(
                f"grace: expected less than the {60 * self.minutes} seconds of a member, as minutes is {self.minutes}, "
                f"got {self.grace}"
            )
        if self.is_multihost and self.gpus not in (None, self.processes_per_node):
            raise ValueError(
                f"processes: expected {self.gpus}, as JAX gives each process of several one of the gpus, "
                f"got {self.processes_per_node}"
            )

    @property
    def processes_per_node(self) -> int:
        """Processes on each node of a member."""
        return self.processes or (1 if self.nodes == 1 else self.gpus or 1)

    @property
    def is_multihost(self) -> bool:
        """Whether a member has several processes."""
        return self.nodes * self.processes_per_node > 1
