"""Settings as JSON: dataclasses to dictionaries and back, with the type of every value checked."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import cattrs
import numpy as np
from cattrs.cols import is_mapping, mapping_structure_factory
from cattrs.errors import (
    ClassValidationError,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn

T = TypeVar("T")


def to_dict(settings: Any) -> dict[str, Any]:
    """The settings as a dictionary that `json.dumps` takes, nested dataclasses included.

    Example:
        >>> from hades.inner.cloning import CloningSettings
        >>> to_dict(CloningSettings(hidden_sizes=(8,)))["hidden_sizes"]
        [8]
    """
    return {field.name: _plain(getattr(settings, field.name)) for field in dataclasses.fields(settings)}


def _plain(value: Any) -> Any:
    # Goes by the value; cattrs goes by the declared type, and leaves a NumPy scalar where a float is declared.
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

    A field that was renamed declares the names under which older files hold it:
    `num_iterations: int = field(default=10, metadata={"formerly": ("num_generations",)})`.

    Args:
        cls: A dataclass whose fields are numbers, strings, paths, `Literal`, tuples, mappings, unions and dataclasses.
        data: The object that `json.loads` returned.
        where: Prefix of the field's name in messages.
        ignore_unknown: Whether to pass over keys that `cls` does not have; otherwise they are refused.

    Raises:
        ValueError: A field is missing, unknown, or not of its type; the message names it and what was expected.

    Example:
        >>> from hades.inner.cloning import CloningSettings
        >>> from_dict(CloningSettings, {"num_steps": 64}).num_steps
        64
    """
    if ignore_unknown and isinstance(data, dict):
        known = {*_names(cls), *_renamed(cls)}
        data = {name: value for name, value in data.items() if name in known}
    try:
        return _CONVERTER.structure(data, cls)
    except ClassValidationError as error:
        raise ValueError(_sentence(error, where)) from None
    except ValueError as error:
        raise ValueError(f"{where or cls.__name__}: {error}") from None


def _names(cls: type) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def _renamed(cls: type) -> dict[str, str]:
    """Former names of fields, and the present name of each."""
    return {former: field.name for field in dataclasses.fields(cls) for former in field.metadata.get("formerly", ())}


def _sentence(error: Exception, where: str) -> str:
    """The first of the failures that cattrs collected, behind the path to its value."""
    if isinstance(error, ClassValidationError):
        prefix = f"{where}." if where else ""
        fields, own = error.group_exceptions()
        if own and isinstance(own[0], ForbiddenExtraKeysError):
            unknown = min(own[0].extra_fields, key=str)
            return f"{prefix}{unknown}: unknown, expected one of {', '.join(_names(error.cl))}"
        # The messages of a class itself, from its __post_init__, begin with the name of the field.
        return f"{prefix}{own[0]}" if own else _sentence(fields[0][0], prefix + fields[0][1].name)
    if isinstance(error, IterableValidationError):
        first, note = error.group_exceptions()[0][0]
        return _sentence(first, f"{where}[{note.index}]" if isinstance(note.index, int) else f"{where}.{note.index}")
    return f"{where}: {'missing' if isinstance(error, KeyError) else error}"


def _unexpected(expected: str, value: Any) -> ValueError:
    text = repr(value)
    return ValueError(f"expected {expected}, got {text if len(text) <= 60 else text[:57] + '...'}")


_Hook = Callable[[Any, Any], Any]


def _checked(accepts: Callable[[Any], bool], expected: str, structure: _Hook) -> _Hook:
    def hook(value: Any, hint: Any) -> Any:
        if not accepts(value):
            raise _unexpected(expected, value)
        return structure(value, hint)

    return hook


def _mapping_hook(hint: Any, converter: cattrs.Converter) -> _Hook:
    return _checked(lambda value: isinstance(value, Mapping), "an object", mapping_structure_factory(hint, converter))


def _dataclass_hook(cls: Any, converter: cattrs.Converter) -> _Hook:
    structure, renamed = make_dict_structure_fn(cls, converter), _renamed(cls)

    def with_present_names(value: Any, hint: Any) -> Any:
        return structure({renamed.get(name, name): item for name, item in value.items()}, hint)

    return _checked(lambda value: isinstance(value, dict), "an object", with_present_names)


def _tuple_hook(value: Any, hint: Any) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise _unexpected("a list", value)
    hints = typing.get_args(hint)
    hints = hints[:1] * len(value) if hints[-1] is Ellipsis else hints
    if len(value) != len(hints):
        raise ValueError(f"expected {len(hints)} values, got {len(value)}")
    items = []
    for index, pair in enumerate(zip(value, hints, strict=True)):
        try:
            items.append(_CONVERTER.structure(*pair))
        except Exception as error:
            error.add_note(IterableValidationNote(f"item {index}", index, hint))
            raise IterableValidationError("tuple", [error], hint) from None
    return tuple(items)


def _literal_hook(value: Any, hint: Any) -> Any:
    if value not in typing.get_args(hint):
        raise _unexpected(f"one of {', '.join(map(str, typing.get_args(hint)))}", value)
    return value


def _union_hook(value: Any, hint: Any) -> Any:
    arguments = typing.get_args(hint)
    if value is None and type(None) in arguments:
        return None
    *others, last = (argument for argument in arguments if argument is not type(None))
    for argument in others:
        with suppress(ValueError, cattrs.BaseValidationError):
            return _CONVERTER.structure(value, argument)
    return _CONVERTER.structure(value, last)


def _is_number(value: Any) -> bool:
    # A longer integer overflows in float().
    return isinstance(value, float) or (type(value) is int and value.bit_length() < 1024)


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    scalars: dict[type, tuple[Callable[[Any], bool], str]] = {
        bool: (lambda value: isinstance(value, bool), "true or false"),
        int: (lambda value: type(value) is int, "an integer"),
        float: (_is_number, "a number"),
        str: (lambda value: isinstance(value, str), "text"),
        Path: (lambda value: isinstance(value, str), "a path"),
    }
    for kind, (accepts, expected) in scalars.items():
        converter.register_structure_hook(kind, _checked(accepts, expected, lambda value, hint: hint(value)))
    hooks = {tuple: _tuple_hook, Literal: _literal_hook, typing.Union: _union_hook, types.UnionType: _union_hook}
    converter.register_structure_hook_factory(
        lambda hint: typing.get_origin(hint) in hooks, lambda hint: hooks[typing.get_origin(hint)]
    )
    converter.register_structure_hook_factory(is_mapping, _mapping_hook)
    converter.register_structure_hook_factory(dataclasses.is_dataclass, _dataclass_hook)
    return converter


_CONVERTER = _make_converter()
