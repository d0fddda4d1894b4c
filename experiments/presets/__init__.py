"""Presets: settings of whole runs, by command and name. Those of papers are in `hades.recipes.published`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping

from experiments.presets import distill, images, neuroevolution, offline, policy_gradient, ppo
from experiments.presets._preset import Preset

__all__ = ["PRESETS", "Preset", "get_preset"]

PRESETS: Mapping[str, Mapping[str, Callable[[], Preset]]] = {
    "distill": distill.PRESETS,
    "distill hades-pg": policy_gradient.PRESETS,
    "baseline es": neuroevolution.PRESETS,
    "baseline ppo": ppo.PRESETS,
    "offline distill": offline.PRESETS,
    "offline teach": offline.TEACH_PRESETS,
    "images distill": images.PRESETS,
}
"""Functions that make the presets, by command, such as `"baseline es"`, and name."""


def get_preset(command: str, name: str) -> Preset:
    """The preset of a command.

    Raises:
        ValueError: There is none of that name; the message has the nearest ones.

    Example:
        >>> get_preset("distill", "cartpole").settings.dataset_size
        2
    """
    presets = PRESETS[command]
    if name not in presets:
        near = difflib.get_close_matches(name, presets, n=3, cutoff=0.0)
        raise ValueError(f"preset: there is no {name!r}, the nearest are {', '.join(near)}")
    return presets[name]()
