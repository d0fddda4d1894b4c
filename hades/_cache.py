"""Functions that are made once for equal arguments, so that what JAX compiled for them is found again."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_MAX_SIZE = 64


class Hashed:
    """Any object as a key: equal by value where it can be hashed, otherwise by identity."""

    def __init__(self, value: Any) -> None:
        """Wraps an object."""
        self.value = value
        try:
            self._hash = hash(value)
            self._by_identity = False
        except TypeError:
            self._hash = id(value)
            self._by_identity = True

    def __hash__(self) -> int:
        """Hash of the object, or of its identity."""
        return self._hash

    def __eq__(self, other: object) -> bool:
        """Whether the other stands for the same object."""
        if not isinstance(other, Hashed):
            return False
        return self.value is other.value or (not self._by_identity and self.value == other.value)


def kept(function: Callable[P, R]) -> Callable[P, R]:
    """Returns the earlier result of a function for equal arguments, of the last 64 that it was called with.

    Unlike `functools.lru_cache` it takes arguments that cannot be hashed, such as a user's environment.
    """

    @functools.lru_cache(maxsize=_MAX_SIZE)
    def cached(arguments: tuple[Hashed, ...], named: tuple[tuple[str, Hashed], ...]) -> R:
        values = (argument.value for argument in arguments)
        return function(*values, **{name: argument.value for name, argument in named})

    @functools.wraps(function)
    def wrapper(*arguments: P.args, **named: P.kwargs) -> R:
        return cached(tuple(map(Hashed, arguments)), tuple((name, Hashed(value)) for name, value in named.items()))

    return wrapper
