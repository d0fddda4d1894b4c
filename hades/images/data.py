"""Labelled images, read from the files of MNIST, Fashion-MNIST and CIFAR-10."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hades._files import refusing

Split: TypeAlias = Literal["train", "test"]

_IDX_PREFIXES: dict[Split, str] = {"train": "train", "test": "t10k"}
_IDX_BYTES = 8
_CIFAR_BATCHES: dict[Split, tuple[str, ...]] = {
    "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "test": ("test_batch.bin",),
}
_CIFAR_FOLDER = "cifar-10-batches-bin"
_CIFAR_SHAPE = (3, 32, 32)
_CIFAR_CLASSES = 10
_WHITE = np.float32(255)


class ImageDataError(ValueError):
    """Error of image files that are missing or malformed: one sentence with file and expectation."""


@struct.dataclass
class LabelledImages:
    """Images with the number of their class.

    Attributes:
        images: Pixels from 0 to 1, `[images, height, width, channels]` float32; neither centred nor scaled to unit
            variance.
        labels: Classes from 0 up, `[images]` int32.
        num_classes: Classes that there are.

    Example:
        >>> data = LabelledImages(jnp.zeros((4, 2, 2, 1)), jnp.array([0, 1, 1, 1]), num_classes=2)
        >>> data.num_images, data.class_sizes().tolist()
        (4, [1, 3])
    """

    images: jax.Array
    labels: jax.Array
    num_classes: int = struct.field(pytree_node=False)

    @property
    def num_images(self) -> int:
        """Number of images."""
        return self.labels.shape[0]

    def take(self, rows: jax.Array) -> LabelledImages:
        """The images of these rows, `[...]` integer."""
        return replace(self, images=jnp.asarray(self.images)[rows], labels=jnp.asarray(self.labels)[rows])

    def class_sizes(self) -> jax.Array:
        """Number of images of each class, `[num_classes]`."""
        return jnp.bincount(jnp.asarray(self.labels), length=self.num_classes)


class _Arrays(NamedTuple):
    """Images `[images, height, width, channels]` and labels `[images]` as they are in files, both uint8."""

    images: np.ndarray
    labels: np.ndarray


def load_images(folder: str | os.PathLike[str]) -> dict[Split, LabelledImages]:
    """Reads the images of a folder, pixels divided by 255.

    Args:
        folder: Holds the four idx files of MNIST or Fashion-MNIST (`train-images-idx3-ubyte`,
            `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte`, `t10k-labels-idx1-ubyte`), each perhaps as `.gz`; or
            the six binary batches of CIFAR-10 (`data_batch_1.bin` to `data_batch_5.bin`, `test_batch.bin`), perhaps in
            `cifar-10-batches-bin`.

    Returns:
        Images of the splits `"train"` and `"test"`.

    Raises:
        ImageDataError: A file is missing, truncated or of another format; the sentence names it.
    """
    folder = Path(folder)
    files = image_files(folder)
    found = {split: _read_split(files, split) for split in _IDX_PREFIXES}
    shapes = {split: arrays.images.shape[1:] for split, arrays in found.items()}
    if shapes["train"] != shapes["test"]:
        raise ImageDataError(f"{folder}: expected test images of shape {shapes['train']}, got {shapes['test']}")
    num_classes = 1 + max(int(arrays.labels.max()) for arrays in found.values())
    return {
        split: LabelledImages(jnp.asarray(images / _WHITE), jnp.asarray(labels, jnp.int32), num_classes)
        for split, (images, labels) in found.items()
    }


def image_files(folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """The files that `load_images` reads.

    Raises:
        ImageDataError: One is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ImageDataError(
            f"{folder}: expected a folder of image files, found {'a file' if folder.exists() else 'nothing there'}"
        )
    cifar = folder / _CIFAR_FOLDER if (folder / _CIFAR_FOLDER).is_dir() else folder
    if any((cifar / name).exists() for names in _CIFAR_BATCHES.values() for name in names):
        files = [cifar / name for names in _CIFAR_BATCHES.values() for name in names]
        missing = [file for file in files if not file.is_file()]
    else:
        named = [name for split in _IDX_PREFIXES for name in _idx_names(split)]
        places = [_idx_file(folder, name) for name in named]
        if not any(places):
            raise ImageDataError(
                f"{folder}: expected {', '.join(named)} (perhaps with .gz), or data_batch_1.bin to data_batch_5.bin "
                "and test_batch.bin of CIFAR-10, found none of them"
            )
        missing = [folder / name for name, place in zip(named, places, strict=True) if place is None]
        files = [place for place in places if place is not None]
    if missing:
        raise ImageDataError(f"{missing[0]}: expected this file beside {files[0].name}, found nothing there")
    return tuple(files)


def _idx_names(split: Split) -> tuple[str, str]:
    return f"{_IDX_PREFIXES[split]}-images-idx3-ubyte", f"{_IDX_PREFIXES[split]}-labels-idx1-ubyte"


def _idx_file(folder: Path, name: str) -> Path | None:
    """The file of a name, which may be compressed, and in some archives has a dot for the second dash."""
    names = (name, name.replace("-idx", ".idx"))
    return next((folder / (n + end) for n in names for end in ("", ".gz") if (folder / (n + end)).is_file()), None)


def _read_split(files: Sequence[Path], split: Split) -> _Arrays:
    if files[0].suffix == ".bin":
        names = _CIFAR_BATCHES[split]
        batches = [_read_cifar(file) for file in files if file.name in names]
        return _Arrays(*map(np.concatenate, zip(*batches, strict=True)))
    images_file, labels_file = files[:2] if split == "train" else files[2:]
    images, labels = _read_idx(images_file, 3)[..., None], _read_idx(labels_file, 1)
    if len(images) != len(labels):
        raise ImageDataError(f"{labels_file}: expected {len(images)} labels, one for each image, got {len(labels)}")
    return _Arrays(images, labels)


def _read_bytes(file: Path) -> bytes:
    with refusing(file, ImageDataError):
        try:
            content = file.read_bytes()
            return gzip.decompress(content) if file.suffix == ".gz" else content
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"expected a whole gzip file, got truncated or damaged data ({error})") from None
        except OSError as error:
            raise ValueError(f"expected a readable file, got: {error.strerror}") from None


def _read_idx(file: Path, num_axes: int) -> np.ndarray:
    """Array of unsigned bytes of an idx file: magic number 0x0800 + axes, lengths as big-endian int32, the bytes."""
    content = _read_bytes(file)
    with refusing(file, ImageDataError):
        start = 4 + 4 * num_axes
        magic = bytes((0, 0, _IDX_BYTES, num_axes))
        if content[:4] != magic or len(content) < start:
            raise ValueError(
                f"expected an idx file of unsigned bytes with {num_axes} axes, which begins with {magic.hex()}, "
                f"got {content[:4].hex() or 'an empty file'}"
            )
        shape = tuple(np.frombuffer(content[4:start], ">i4").tolist())
        if min(shape) < 1:
            raise ValueError(f"expected lengths of at least 1, got {shape}")
        if len(content) - start != int(np.prod(shape, dtype=np.int64)):
            raise ValueError(
                f"expected {np.prod(shape, dtype=np.int64)} bytes of shape {shape}, got {len(content) - start}"
            )
        return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _read_cifar(file: Path) -> _Arrays:
    """Images and labels of one binary batch: records of a label and the three planes of an image."""
    content = _read_bytes(file)
    with refusing(file, ImageDataError):
        size = 1 + int(np.prod(_CIFAR_SHAPE))
        if not content or len(content) % size:
            raise ValueError(f"expected records of {size} bytes each, got {len(content)} bytes")
        records = np.frombuffer(content, np.uint8).reshape(-1, size)
        labels = records[:, 0]
        if labels.max() >= _CIFAR_CLASSES:
            raise ValueError(f"expected labels from 0 to {_CIFAR_CLASSES - 1}, got {labels.max()}")
        return _Arrays(records[:, 1:].reshape(-1, *_CIFAR_SHAPE).transpose(0, 2, 3, 1), labels)
