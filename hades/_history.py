"""Rows of metrics kept in columns: 9 bytes a number where a dictionary takes about a hundred."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, overload

import numpy as np

Row = dict[str, Any]

_ABSENT, _NONE, _FLOAT, _INTEGER, _BOOLEAN, _OBJECT = range(6)
_LARGEST_EXACT = 2**53  # of the integers that a float64 holds


class _Column:
    """Values of one metric, up to the last row that has it.

    Attributes:
        numbers: A float64 a row, 0 where the value is no number.
        kinds: A byte a row that says of which kind the value is.
        objects: Values of every other kind by row, among them large integers.
    """

    __slots__ = ("kinds", "numbers", "objects")

    def __init__(self) -> None:
        self.numbers = array("d")
        self.kinds = bytearray()
        self.objects: dict[int, Any] = {}

    def put(self, row: int, value: Any) -> None:
        """Adds the value of a row behind those that are there; rows between lack the metric."""
        missing = row - len(self.kinds)
        if missing:
            self.numbers.extend([0.0] * missing)
            self.kinds.extend(bytes(missing))
        kind = _kind(value)
        if kind == _OBJECT:
            self.objects[row] = value
        self.numbers.append(0.0 if kind in (_NONE, _OBJECT) else value)
        self.kinds.append(kind)

    def get(self, row: int) -> tuple[bool, Any]:
        """Whether a row has the metric, and its value there."""
        kind = self.kinds[row] if row < len(self.kinds) else _ABSENT
        if kind == _FLOAT:
            return True, self.numbers[row]
        if kind == _INTEGER:
            return True, int(self.numbers[row])
        if kind == _BOOLEAN:
            return True, bool(self.numbers[row])
        return kind != _ABSENT, self.objects.get(row)

    def truncate(self, length: int) -> None:
        """Drops the values of all rows from `length` on."""
        del self.numbers[length:], self.kinds[length:]
        self.objects = {row: value for row, value in self.objects.items() if row < length}


def _kind(value: Any) -> int:
    if type(value) is float:
        return _FLOAT
    if type(value) is int and -_LARGEST_EXACT <= value <= _LARGEST_EXACT:
        return _INTEGER
    if value is None:
        return _NONE
    return _BOOLEAN if type(value) is bool else _OBJECT


class History(Sequence[Row]):
    """The metrics of every iteration, as a sequence of rows; appending is amortised O(1).

    A row that is taken out is a new dictionary, and changing it changes nothing here.

    Example:
        >>> history = History([{"iteration": 1, "fitness_mean": 2.5}])
        >>> history.append({"iteration": 2, "fitness_mean": None, "evaluation_mean": 3.0})
        >>> history[-1]["evaluation_mean"], history.column("fitness_mean").tolist()
        (3.0, [2.5, nan])
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        """Begins with these rows."""
        self._length = 0
        self._columns: dict[str, _Column] = {}
        self.extend(rows)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self._row(row) for row in range(*index.indices(self._length))]
        row = index + self._length if index < 0 else index
        if not 0 <= row < self._length:
            raise IndexError(f"expected a row below {self._length}, got {index}")
        return self._row(row)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (History, list, tuple)):
            return NotImplemented
        return len(self) == len(other) and all(own == row for own, row in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"History({self._length} rows of {', '.join(self._columns) or 'nothing'})"

    def _row(self, row: int) -> Row:
        found = ((name, *column.get(row)) for name, column in self._columns.items())
        return {name: value for name, present, value in found if present}

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a row."""
        for name, value in row.items():
            column = self._columns.get(name)
            if column is None:
                column = self._columns[name] = _Column()
            column.put(self._length, value)
        self._length += 1

    def extend(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds rows."""
        for row in rows:
            self.append(row)

    def truncate(self, length: int) -> None:
        """Keeps the first `length` rows."""
        if length < self._length:
            self._length = max(length, 0)
            for column in self._columns.values():
                column.truncate(self._length)

    def column(self, name: str) -> np.ndarray:
        """One metric as `[num_rows]` float64, NaN where a row lacks it or has no number there."""
        values = np.full(self._length, np.nan)
        column = self._columns.get(name)
        if column is not None:
            kinds = np.frombuffer(column.kinds, np.uint8)
            is_number = np.isin(kinds, (_FLOAT, _INTEGER, _BOOLEAN))
            values[: len(kinds)][is_number] = np.frombuffer(column.numbers)[is_number]
            for row, value in column.objects.items():
                if isinstance(value, int):
                    values[row] = value
        return values
