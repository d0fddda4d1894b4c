"""Writing files so that a reader never sees half of one, and locks of files."""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LOCK_TRIES, _SECONDS_BETWEEN_TRIES = 10, 0.02


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Replaces a file at once, when the new content is whole on disk.

    Args:
        path: File; its folder exists.
        content: Bytes, or text that is written as UTF-8.

    Raises:
        OSError: It names `path`; what was there is untouched, and nothing else is left behind.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    with naming(path):
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Makes every `OSError` name `path`: those of a full disk name nothing, others a temporary file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


@contextmanager
def refusing(path: str | os.PathLike[str], kind: type[ValueError]) -> Iterator[None]:
    """Makes every `ValueError` one of `kind`, in one sentence that names the file."""
    try:
        yield
    except ValueError as error:
        raise kind(f"{os.fspath(path)}: {error}".replace("\n", " ")) from None


def try_lock(descriptor: int, kind: int, keep: bool = False) -> bool:
    """Whether an open file can be locked, by `fcntl.LOCK_EX` or `fcntl.LOCK_SH`; the lock ends here unless it is kept.

    Raises:
        OSError: The file system has no locks.
    """
    # Who asks whether a file is locked holds its lock for a moment, which must not keep a process from starting.
    for tries in range(_LOCK_TRIES if keep else 1):
        if tries:
            time.sleep(_SECONDS_BETWEEN_TRIES)
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            if not keep:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            return True
    return False
