"""Several tasks in one file, for joint policies."""

from hades.multitask.merging import (
    JointSpaces,
    Task,
    is_merged,
    joint_cloning,
    merge,
    spaces,
    split,
    task_policy,
    tasks,
)

__all__ = ["JointSpaces", "Task", "is_merged", "joint_cloning", "merge", "spaces", "split", "task_policy", "tasks"]
