"""Files that hold no offline data, each with words that the message about it must contain."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.hades.malformed import MalformedFile

KEYS = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")


def valid_arrays(next_observations: bool = True) -> dict[str, Any]:
    """Arrays of a good file: trajectories of 3 (terminal), 4 (timeout) and 2 (end of data) transitions."""
    generator = np.random.default_rng(0)
    states = [generator.normal(size=(length + 1, 3)).astype(np.float32) for length in (3, 4, 2)]
    arrays: dict[str, Any] = {
        "observations": np.concatenate([part[:-1] for part in states]),
        "actions": generator.uniform(-1, 1, (9, 2)).astype(np.float32),
        "rewards": np.float32([1, 2, 4, 8, 16, 32, 64, 128, 256]),
        "terminals": np.arange(9) == 2,
        "timeouts": np.arange(9) == 6,
    }
    return arrays | ({"next_observations": np.concatenate([part[1:] for part in states])} if next_observations else {})


def write_file(path: Path, arrays: dict[str, Any], attributes: dict[str, Any] | None = None, **options: Any) -> None:
    """Writes arrays with h5py alone, as D4RL has them: datasets in the root."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, **options)
        file.attrs.update(attributes or {})


def _changed(name: str, change: Callable[[Any], Any], *words: str, case: str, keep_next: bool = True) -> MalformedFile:
    """A good file in which dataset `name` is replaced by what `change` makes of it, or left out if that is None."""

    def write(path: Path) -> None:
        arrays = valid_arrays(keep_next)
        arrays[name] = change(arrays.get(name))
        write_file(path, {key: array for key, array in arrays.items() if array is not None})

    return MalformedFile(f"{name}: {case}", write, (f": {name}: ", *words))


def _edited(name: str, edit: Callable[[h5py.File], object], *words: str, case: str, **options: Any) -> MalformedFile:
    """A good file after `edit`, which finds `name` taken away."""

    def write(path: Path) -> None:
        write_file(path, valid_arrays(), **options)
        with h5py.File(path, "a") as file:
            del file[name]
            edit(file)

    return MalformedFile(f"{name}: {case}", write, (f": {name}: ", *words))


def _bytes(case: str, content: Callable[[bytes], bytes], *words: str, **options: Any) -> MalformedFile:
    """A file whose bytes are made from those of a good one."""

    def write(path: Path) -> None:
        write_file(path, valid_arrays(), **options)
        path.write_bytes(content(path.read_bytes()))

    return MalformedFile(case, write, words)


def _put(array: np.ndarray, index: Any, value: Any) -> np.ndarray:
    array[index] = value
    return array


def _all(change: Callable[[np.ndarray], np.ndarray], case: str, *words: str) -> MalformedFile:
    return MalformedFile(
        case, lambda path: write_file(path, {name: change(array) for name, array in valid_arrays().items()}), words
    )


def _flipped(good: bytes) -> bytes:
    """The compressed observations with a byte in their middle changed."""
    place = good.index(b"\x78\x5e") + 20
    return good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :]


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=(9,), dtype=np.float32)
    layout[:] = h5py.VirtualSource("absent.hdf5", "rewards", shape=(9,))
    file.create_virtual_dataset("rewards", layout)


def _no_successor(path: Path) -> None:
    write_file(path, valid_arrays(False) | {"terminals": np.zeros(9, bool), "timeouts": np.ones(9, bool)})


def _larger_than_memory(file: h5py.File) -> None:
    file.create_dataset("observations", shape=(10**15, 3), dtype=np.float32, chunks=(1024, 3))


def _episodes(path: Path) -> None:
    """The layout of Minari."""
    with h5py.File(path, "w") as file:
        for name, array in valid_arrays().items():
            file[f"episode_0/{name}"] = array


_EMPTY_ROOT = MalformedFile("no datasets", lambda path: write_file(path, {}), ("observations", "missing", "nothing"))
_ATTRIBUTE = MalformedFile(
    "attribute env: a number", lambda path: write_file(path, valid_arrays(), {"env": 4}), ("attribute env", "text")
)

MALFORMED_HDF5: list[MalformedFile] = [
    MalformedFile("nothing at the path", lambda path: None, ("nothing there",)),
    MalformedFile("folder", lambda path: path.mkdir(), ("a folder",)),
    MalformedFile("named pipe", lambda path: os.mkfifo(path), ("a pipe",)),
    MalformedFile("link in a circle", lambda path: path.symlink_to(path), ("nothing there",)),
    _bytes("empty file", lambda good: b"", "empty file"),
    _bytes("text", lambda good: b"observation,action\n1,2\n", "another format"),
    _bytes("zip", lambda good: b"PK\x03\x04" + bytes(64), "another format"),
    _bytes("signature alone", lambda good: good[:8], "truncated"),
    _bytes("truncated in the middle", lambda good: good[: len(good) // 2], "truncated"),
    _bytes("truncated at the end", lambda good: good[:-10], "truncated"),
    _bytes("flipped byte", _flipped, ": observations: ", "damaged", compression="gzip"),
    _EMPTY_ROOT,
    _ATTRIBUTE,
    *[
        _changed(name, lambda old: None, "missing", case="missing")
        for name in KEYS
        if name not in ("next_observations", "timeouts")
    ],
    _all(lambda array: array[:0], "zero transitions", ": observations: ", "at least one transition", "none"),
    _changed("observations", lambda old: old[:, 0], "at least 2 axes", "(9,)", case="one axis"),
    _changed("observations", lambda old: old[:, :0], "every axis", "(9, 0)", case="no components", keep_next=False),
    _changed("actions", lambda old: old[:, 0], "discrete actions", "at [0]", case="one axis of fractions"),
    _changed("actions", lambda old: np.arange(9) - 4, "discrete actions", "-4 at [0]", case="one axis below 0"),
    _changed("actions", lambda old: old[None], "1 or 2 axes", "(1, 9, 2)", case="three axes"),
    _changed("actions", lambda old: old[:8], "9 rows", "8", case="shorter than observations"),
    _changed("actions", lambda old: old[:, :0], "every axis", "(9, 0)", case="no components"),
    _changed("actions", lambda old: old > 0, "float32", "bool", case="booleans"),
    _changed("actions", lambda old: _put(old, (4, 1), np.nan), "finite", "nan", "[4, 1]", case="NaN"),
    _changed("observations", lambda old: _put(old, (4, 1), np.nan), "finite", "nan", "[4, 1]", case="NaN"),
    _changed("observations", lambda old: _put(old, (0, 0), -np.inf), "finite", "-inf", case="infinite"),
    _changed("observations", lambda old: old.astype(complex), "float32", "complex128", case="complex numbers"),
    _changed("rewards", lambda old: _put(old, 5, np.nan), "finite", "nan", "[5]", case="NaN"),
    _changed("rewards", lambda old: old.astype(float) * 1e300, "finite", "1e+300", case="too large for float32"),
    _changed("rewards", lambda old: np.stack([old, old], axis=1), "1 axis", "(9, 2)", case="two columns"),
    _changed("rewards", lambda old: np.float32(1), "1 axis", "()", case="no axis"),
    _changed("rewards", lambda old: old[:8], "9 rows", "8", case="shorter than observations"),
    _changed("rewards", lambda old: np.array([b"1"] * 9), "float32", "S1", case="strings"),
    _changed("rewards", lambda old: ["1"] * 9, "float32", "object", case="objects"),
    _changed("rewards", lambda old: h5py.Empty("f4"), "without a shape", case="empty dataspace"),
    _changed("terminals", lambda old: old * np.int32(3), "booleans", "3 at [2]", case="other integers"),
    _changed("terminals", lambda old: np.full(9, 0.5, np.float32), "booleans", "0.5 at [0]", case="fractions"),
    _changed("terminals", lambda old: np.full(9, np.nan), "booleans", "nan", case="NaN"),
    _changed("terminals", lambda old: ["no"] * 9, "booleans", "object", case="text"),
    _changed("terminals", lambda old: old[None], "1 axis", "(1, 9)", case="a row"),
    _changed("timeouts", lambda old: old[:5], "9 rows", "5", case="shorter than observations"),
    _changed("next_observations", lambda old: old[:, :2], "(9, 3)", "(9, 2)", case="of another width"),
    _changed("next_observations", lambda old: old[1:], "(9, 3)", "(8, 3)", case="shorter than observations"),
    _changed("next_observations", lambda old: _put(old, (8, 0), np.nan), "finite", "nan", "[8, 0]", case="NaN"),
    _edited("observations", lambda file: file.create_group("observations"), "a group", case="group"),
    _edited("actions", lambda file: file.__setitem__("actions", h5py.SoftLink("/lost")), "'/lost'", case="soft link"),
    _edited(
        "rewards", lambda file: file.__setitem__("rewards", h5py.ExternalLink("lost.hdf5", "rewards")), "nowhere",
        case="external link",
    ),
    _edited("rewards", lambda file: file.__setitem__("rewards", np.dtype("f4")), "a datatype", case="datatype"),
    _edited("rewards", lambda file: file.__setitem__("rewards", h5py.SoftLink("/rewards")), "links", case="circle"),
    _edited("rewards", _virtual, "virtual", case="virtual, its source missing"),
    _edited("observations", _larger_than_memory, "memory", "(1000000000000000, 3)", case="larger than memory"),
    MalformedFile("layout of Minari", _episodes, ("Minari's", "hades offline collect --minari ID")),
    MalformedFile("no successor is known", _no_successor, ("next_observations", "missing")),
]  # fmt: skip
