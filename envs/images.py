"""Test and training images as environments, read from folders of the user's; nothing is downloaded.

The folder of `images/NAME` is the folder NAME, in small letters or not, of the one that the environment variable
`HADES_IMAGES` names; `hades.images.load_images` says which files it holds.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import get_args

from envs.names import IMAGES_PREFIX
from hades.images import ImageClassification, ImageDataError, LabelledImages, load_images
from hades.images.data import Split, image_files

VARIABLE = "HADES_IMAGES"
"""Environment variable of the folder of folders."""


def names() -> tuple[str, ...]:
    """Folders of images that there are, sorted; none without the variable."""
    return tuple(sorted(path.name.lower() for path in _folders() if _holds_images(path)))


def knows(name: str) -> bool:
    """Whether a name, without the family, could be that of a folder."""
    return bool(name) and "/" not in name and not name.startswith(".")


def option_names(name: str) -> tuple[str, ...]:
    """The options that `make` takes: the split, and the folder, which files do not keep."""
    del name
    return ("split", "folder")


def make(name: str, split: Split = "test", folder: str | os.PathLike[str] | None = None) -> ImageClassification:
    """Makes the environment of one split.

    Args:
        name: Without the family, such as `"mnist"`.
        split: `"test"` or `"train"`.
        folder: Folder of the files; that of the variable if None.

    Raises:
        ValueError: There is no such split or folder, or its files are missing or malformed.
    """
    if split not in get_args(Split):
        raise ValueError(f"split of images/{name}: expected one of {', '.join(get_args(Split))}, got {split!r}")
    return ImageClassification(
        f"{IMAGES_PREFIX}{name}", _loaded(_folder(name) if folder is None else Path(folder))[split], split
    )


def _folder(name: str) -> Path:
    found = next((path for path in _folders() if path.name.lower() == name.lower()), None)
    if found is None:
        where = os.environ.get(VARIABLE)
        raise ValueError(
            f"images/{name}: expected a folder {name} of image files in the folder that the variable {VARIABLE} names, "
            + ("which is not set" if not where else f"found none in {where}")
        )
    return found


def _folders() -> list[Path]:
    where = os.environ.get(VARIABLE)
    return [path for path in Path(where).iterdir() if path.is_dir()] if where and Path(where).is_dir() else []


def _holds_images(folder: Path) -> bool:
    try:
        return bool(image_files(folder))
    except ImageDataError:
        return False


def _loaded(folder: Path) -> dict[Split, LabelledImages]:
    # Files that were replaced are read again.
    return _load(folder, tuple((file, file.stat().st_mtime_ns) for file in image_files(folder)))


@functools.lru_cache(maxsize=2)
def _load(folder: Path, files: tuple[tuple[Path, int], ...]) -> dict[Split, LabelledImages]:
    del files
    return load_images(folder)
