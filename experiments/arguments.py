"""Reading the arguments of a verb with tyro, and writing its results."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import tyro

from experiments.cli import BadArgumentsError
from hades._json import to_json

T = TypeVar("T")


def parse(settings: type[T], verb: str, arguments: Sequence[str], default: T | None = None) -> T:
    """The settings that the arguments of `hades VERB` stand for.

    Raises:
        BadArgumentsError: A value is out of range. Unknown flags and wrong types end the process with code 2.
    """
    try:
        parsed: T = tyro.cli(settings, prog=f"hades {verb}", args=list(arguments), default=default)  # type: ignore[assignment]
    except ValueError as error:
        raise BadArgumentsError(str(error)) from None
    return parsed


def flag_value(arguments: Sequence[str], flag: str) -> str | None:
    """The value of a flag that other defaults depend on, read before all are: `--flag VALUE` or `--flag=VALUE`."""
    for index, argument in enumerate(arguments):
        if argument == flag and index + 1 < len(arguments):
            return arguments[index + 1]
        if argument.startswith(flag + "="):
            return argument.partition("=")[2]
    return None


def print_json(result: Mapping[str, Any]) -> None:
    """Writes one JSON object as a line of the real stdout; numbers that are not finite become null."""
    print(to_json(result), file=sys.__stdout__, flush=True)
