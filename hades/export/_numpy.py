"""Export for NumPy alone: a policy file, and the module that plays it beside it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from hades._npz import to_bytes
from hades.export._outputs import STEPS, Content
from hades.export.player import Player
from hades.policy_file import TrainedPolicy

_PLAYER = "player.py"


def numpy_export(trained: TrainedPolicy, path: Path) -> Content:
    """A policy file with spaces, and the player.

    Raises:
        ValueError: A module that is no player is in the way, or the policy has no spaces or architecture.
    """
    trained.architecture()
    data, source = to_bytes(trained.arrays()), Path(__file__).with_name(_PLAYER).read_bytes()
    beside = path.with_name(_PLAYER)
    if path == beside:
        raise ValueError(f"expected another name than that of the player, {_PLAYER}")
    heading = source.partition(b"\n")[0]
    if beside.exists() and not beside.read_bytes().startswith(heading):
        raise ValueError(f"expected a folder without a player.py, or with an earlier copy of the player, got {beside}")

    def play(observations: np.ndarray) -> dict[str, np.ndarray]:
        # One for the action and one for the parameters: running statistics take each observation once.
        acting, showing = (Player(io.BytesIO(data)) for _ in range(2))
        for shift in reversed(range(STEPS)):
            rolled = np.roll(observations, shift, axis=0)
            outputs = {"action": acting(rolled), **showing.parameters(rolled)}
        return outputs

    return Content({path: data, beside: source}, play)
