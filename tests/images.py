"""Tiny sets of images on disk and in memory, whose classes a small network tells apart."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from hades.images import LabelledImages

SIDE, CLASSES, TRAIN, TEST = 6, 3, 60, 45


def make_arrays(count: int, seed: int, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Noise, `[count, side, side]` uint8, in which a band of rows is bright, and the number of that band."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    random.shuffle(labels)
    images = random.integers(0, 120, (count, side, side))
    band = side // CLASSES
    for image, label in zip(images, labels, strict=True):
        image[label * band : (label + 1) * band] += 80
    return images.astype(np.uint8), labels.astype(np.uint8)


def make_data(count: int = TRAIN, seed: int = 0) -> LabelledImages:
    """The same as the library holds them."""
    images, labels = make_arrays(count, seed)
    return LabelledImages(jnp.asarray(images[..., None] / np.float32(255)), jnp.asarray(labels, jnp.int32), CLASSES)


def idx(array: np.ndarray) -> bytes:
    """Bytes of an idx file."""
    return struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(folder: Path, end: str = "") -> Path:
    """Writes the four files of MNIST's layout, compressed where `end` is `.gz`, and returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, count, seed in (("train", TRAIN, 0), ("t10k", TEST, 1)):
        images, labels = make_arrays(count, seed)
        for name, content in (("images-idx3", idx(images)), ("labels-idx1", idx(labels))):
            path = folder / f"{prefix}-{name}-ubyte{end}"
            path.write_bytes(gzip.compress(content) if end == ".gz" else content)
    return folder


def write_cifar(folder: Path, count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Writes six binary batches of CIFAR-10's layout; returns planes `[5 * count, 3, 32, 32]` and training labels."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    planes, labels = [], []
    for name in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
        images, numbers = random.integers(0, 256, (count, 3, 32, 32), np.uint8), random.integers(0, 10, count, np.uint8)
        records = np.concatenate([numbers[:, None], images.reshape(count, -1)], axis=1)
        (folder / name).write_bytes(records.tobytes())
        planes.append(images)
        labels.append(numbers)
    return np.concatenate(planes[:5]), np.concatenate(labels[:5])
