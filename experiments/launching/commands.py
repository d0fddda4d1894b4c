"""The commands that a grid can have, and the settings that the arguments of one stand for."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.commands import baseline, distill
from experiments.commands.images import distill as images_distill
from experiments.commands.offline import distill as offline_distill, teach
from experiments.running import Command

_OTHERS = {
    command.name: command
    for command in (*baseline.COMMANDS.values(), offline_distill.COMMAND, teach.COMMAND, images_distill.COMMAND)
}
COMMAND_NAMES = (distill.COMMAND.name, *_OTHERS)
"""Words behind `hades`."""


def command_of(name: str, flags: Sequence[str]) -> Command:
    """The command of a name, whose flags may depend on the method among them.

    Raises:
        BadArgumentsError: There is no such method.
    """
    return _OTHERS[name] if name in _OTHERS else distill.command_of(flags)
