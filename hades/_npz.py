"""`.npz` archives of plain arrays: written whole and reproducibly, read without ever unpickling anything."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hades._files import write_atomically

# A zip archive begins with its first member, or, when it has none, with its directory.
_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], compressed: bool = False) -> None:
    """Writes an `.npz` file atomically, under exactly this name; equal arrays in equal order give equal bytes.

    Args:
        path: File; its folder exists.
        arrays: By name.
        compressed: Whether the members of the archive are deflated.

    Raises:
        OSError: The file cannot be written; it names `path`, and what was there before is untouched.
        ValueError: An array holds Python objects.
    """
    write_atomically(path, to_bytes(arrays, compressed))


def to_bytes(arrays: Mapping[str, np.ndarray], compressed: bool = False) -> bytes:
    """The bytes of an `.npz` file.

    Raises:
        ValueError: An array holds Python objects.
    """
    buffer = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads every array of an `.npz` file.

    Raises:
        ValueError: There is no such file, it is another one or damaged, or it holds Python objects; one sentence, which
            does not name the file.

    Example:
        >>> read_arrays("nowhere.npz")
        Traceback (most recent call last):
        ...
        ValueError: expected an .npz file, found nothing there
    """
    path = Path(path)
    try:
        if not path.exists():
            raise ValueError("expected an .npz file, found nothing there")
        # Also keeps it from waiting forever for a named pipe or a terminal.
        if not path.is_file():
            raise ValueError(f"expected an .npz file, found {'a folder' if path.is_dir() else 'a device or a pipe'}")
        with path.open("rb") as file:
            return _read_members(file)
    except OSError as error:
        raise ValueError(f"expected a readable file, got: {error.strerror}") from None


def _read_members(file: BinaryIO) -> dict[str, np.ndarray]:
    magic = file.read(4)
    if magic not in _ZIP_MAGIC:
        raise ValueError(f"expected an .npz file, found {'another format' if magic else 'an empty file'}")
    file.seek(0)
    member = ""
    members: dict[str, Any] = {}
    try:
        with np.load(file, allow_pickle=False) as archive:
            for member in archive.files:
                members[member] = archive[member]
    # Damaged bytes raise almost anything: errors of zipfile, zlib, struct, tokenize and memory among them.
    except Exception as error:
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        where = f"{member}: " if member else ""
        found = "damaged or pickled" if isinstance(error, ValueError) else "truncated or damaged"
        raise ValueError(f"{where}expected a whole .npz file of plain arrays, got {found} data ({reason})") from None
    foreign = [member for member, value in members.items() if not isinstance(value, np.ndarray)]
    if foreign:
        raise ValueError(f"{foreign[0]}: expected an array, found a zip archive of other files")
    return members
