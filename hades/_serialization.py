"""Settings as JSON: dataclasses to dictionaries and back, with the type of every value checked."""

from __future__ import annotations

import contextlib
import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

T = TypeVar("T")


def to_dict(settings: Any) -> dict[str, Any]:
    """The settings as a dictionary that `json.dumps` takes, nested dataclasses included.

    Example:
        >>> to_dict(CloningSettings(hidden_sizes=(8,)))["hidden_sizes"]
        [8]
    """
    return {field.name: _plain(getattr(settings, field.name)) for field in dataclasses.fields(settings)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    return value.item() if isinstance(value, np.generic) else value


def from_dict(cls: type[T], data: Any, where: str = "", ignore_unknown: bool = False) -> T:
    """Builds settings from a dictionary, checking the type of every value.

    Args:
        cls: A dataclass of this module's kind: fields of numbers, strings, paths, `Literal`, tuples, mappings, unions
            and dataclasses.
        data: What `json.loads` returned.
        where: Prefix of the field's name in messages.
        ignore_unknown: Whether to pass over keys that `cls` does not have; otherwise they are refused.

    Raises:
        ValueError: A field is missing, unknown, or not of its type; the message names it and what was expected.

    Example:
        >>> from_dict(CloningSettings, {"num_steps": 64}).num_steps
        64
    """
    if not isinstance(data, dict):
        raise ValueError(f"{where or cls.__name__}: expected an object, got {_describe(data)}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    prefix = f"{where}." if where else ""
    unknown = sorted(set(data) - set(fields), key=str)
    if unknown and not ignore_unknown:
        raise ValueError(f"{prefix}{unknown[0]}: unknown, expected one of {', '.join(fields)}")
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _coerce(hints[name], data[name], prefix + name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{prefix}{name}: missing")
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{prefix}{error}") from None


def _coerce(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _coerce(arguments[0], value, where)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        *others, last = (argument for argument in arguments if argument is not type(None))
        for argument in others:
            with contextlib.suppress(ValueError):
                return _coerce(argument, value, where)
        return _coerce(last, value, where)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{where}: expected one of {', '.join(map(str, arguments))}, got {_describe(value)}")
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        hints = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(value) != len(hints):
            raise ValueError(f"{where}: expected {len(hints)} values, got {len(value)}")
        return tuple(_coerce(*pair, f"{where}[{index}]") for index, pair in enumerate(zip(hints, value, strict=True)))
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where)  # type: ignore[arg-type]
    if _is_mapping(hint):
        if isinstance(value, Mapping):
            item_hint = arguments[1] if arguments else Any
            return {key: _coerce(item_hint, item, f"{where}.{key}") for key, item in value.items()}
    elif hint is Any:
        return value
    elif hint is Path and isinstance(value, str):
        return Path(value)
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        # A longer integer overflows in float().
        if isinstance(value, float) or value.bit_length() < 1024:
            return float(value)
    elif isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise ValueError(f"{where}: expected {_type_name(hint)}, got {_describe(value)}")


def _is_mapping(hint: Any) -> bool:
    kind = typing.get_origin(hint) or hint
    return isinstance(kind, type) and issubclass(kind, Mapping)


def _type_name(hint: Any) -> str:
    if _is_mapping(hint):
        return "an object"
    names = {int: "an integer", float: "a number", str: "text", bool: "true or false", tuple: "a list", Path: "a path"}
    return names.get(typing.get_origin(hint) or hint, str(hint))


def _describe(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
