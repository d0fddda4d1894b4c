"""Reading the arguments of a verb with tyro, and writing its results."""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from experiments.cli import BadArgumentsError
from hades._json import to_json

T = TypeVar("T")

_SYNONYMS = (
    ("num-iterations", "num-generations", "num-updates"),
    ("iterations-per-call", "generations-per-call", "updates-per-call"),
)
"""Flags of several names: each is taken for the one that the settings have."""

_PATHS = tyro.constructors.ConstructorRegistry()


@_PATHS.primitive_rule
def _path_rule(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Path] | None:
    """Reads every flag that is a path, with `~` as the shell reads it: after `--out=` the shell leaves it."""
    if info.type is not Path:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda texts: expand(texts[0]),
        is_instance=lambda instance: isinstance(instance, Path),
        str_from_instance=lambda path: [str(path)],
    )


def parse(settings: type[T], verb: str, arguments: Sequence[str], default: T | None = None) -> T:
    """The settings that the arguments of `hades VERB` stand for.

    Raises:
        BadArgumentsError: A value is out of range. Unknown flags and wrong types end the process with code 2.
    """
    arguments = _with_known_flags(arguments, _field_names(settings))
    try:
        with _PATHS:
            parsed: T = tyro.cli(settings, prog=f"hades {verb}", args=arguments, default=default)  # type: ignore[assignment]
    except ValueError as error:
        raise BadArgumentsError(str(error)) from None
    return parsed


def expand(path: str) -> Path:
    """The path, with `~` and `~USER` in front replaced by the home directory.

    Raises:
        ValueError: There is no such home directory.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"{path}: expected a path without ~, as the home directory is not known") from None


def flag_value(arguments: Sequence[str], flag: str) -> str | None:
    """The value of a flag that other defaults depend on, read before all are: `--flag VALUE` or `--flag=VALUE`.

    Of a flag that stands twice it is the last one, and underscores are dashes, as the parser has it.

    Example:
        >>> flag_value(["--preset", "cartpole", "--preset=acrobot"], "--preset")
        'acrobot'
    """
    found = None
    for index, argument in enumerate(arguments):
        name, value = split_flag(argument)
        if name != flag:
            continue
        if value is not None:
            found = value
        elif index + 1 < len(arguments):
            found = arguments[index + 1]
    return found


def split_flag(argument: str) -> tuple[str, str | None]:
    """The flag of an argument, dashes for underscores as the parser has it, and the value behind its `=`, if any.

    Example:
        >>> split_flag("--num_envs=3"), split_flag("--num-envs")
        (('--num-envs', '3'), ('--num-envs', None))
    """
    name, equals, value = argument.partition("=")
    return name.replace("_", "-"), value if equals else None


def canonical_flag(name: str) -> str:
    """The flag, without dashes in front, as messages have it; of several names the one of the settings.

    Example:
        >>> canonical_flag("num_generations"), canonical_flag("cloning.hidden_sizes")
        ('num-iterations', 'cloning.hidden-sizes')
    """
    flag = name.replace("_", "-")
    return next((group[0] for group in _SYNONYMS if flag in group), flag)


def with_folder(file: Path) -> Path:
    """A file that is to be written, after its folder was made where there was none.

    Raises:
        OSError: The folder cannot be made; it names it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def print_json(result: Mapping[str, Any]) -> None:
    """Writes one JSON object as a line of the real stdout; numbers that are not finite become null."""
    print(to_json(result), file=sys.__stdout__, flush=True)


def _with_known_flags(arguments: Sequence[str], names: set[str]) -> list[str]:
    renamed: dict[str, str] = {}
    for group in _SYNONYMS:
        known = [flag for flag in group if flag.replace("-", "_") in names]
        if len(known) == 1:
            renamed |= {f"--{flag}": f"--{known[0]}" for flag in group}
    found = []
    for argument in arguments:
        flag = split_flag(argument)[0]
        # A value that stands alone stays as it is.
        found.append(renamed[flag] + argument[len(flag) :] if flag in renamed else argument)
    return found


def _field_names(settings: Any) -> set[str]:
    """Names of the fields of a dataclass, and of those that it holds."""
    names: set[str] = set()
    for name, hint in typing.get_type_hints(settings).items():
        names |= {name} | (_field_names(hint) if dataclasses.is_dataclass(hint) else set())
    return names
