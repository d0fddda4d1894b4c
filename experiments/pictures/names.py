"""Labels of observation components, actions and image channels, numbered where the environment has no names."""

from __future__ import annotations

from collections.abc import Sequence

from envs import names
from experiments.pictures.canvas import shorten


def observation_labels(environment: str, count: int) -> list[str]:
    """Names of `count` observation components, or `obs 0`, `obs 1`, ... for an environment without fitting names."""
    return _labels(names.observation_names(environment), "obs", count)


def action_labels(environment: str, count: int) -> list[str]:
    """Names of `count` actions or action components, or `action 0`, `action 1`, ..."""
    return _labels(names.action_names(environment), "action", count)


def channel_labels(environment: str, count: int) -> list[str]:
    """Names of `count` channels of an image observation, or `channel 0`, `channel 1`, ..."""
    return _labels(names.channel_names(environment), "channel", count)


def _labels(found: Sequence[str] | None, prefix: str, count: int) -> list[str]:
    # Names of another length belong to another variant of the environment: numbers mislead less than wrong names.
    if found is None or len(found) != count:
        return [f"{prefix} {index}" for index in range(count)]
    return [shorten(name.replace("_", " ")) for name in found]
