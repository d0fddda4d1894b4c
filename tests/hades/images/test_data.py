"""Image files: both layouts, and one sentence for whatever is wrong with them."""

from __future__ import annotations

import gzip
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hades.images import ImageDataError, load_images
from hades.images.data import image_files
from tests.images import CLASSES, SIDE, TEST, TRAIN, idx, make_arrays, write_cifar, write_idx


@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx_files_are_read_as_pixels_from_0_to_1(tmp_path: Path, end: str) -> None:
    data = load_images(write_idx(tmp_path, end))
    for split, count, seed in (("train", TRAIN, 0), ("test", TEST, 1)):
        images, labels = make_arrays(count, seed)
        assert data[split].images.shape == (count, SIDE, SIDE, 1)
        assert (data[split].images.dtype, data[split].labels.dtype) == (np.float32, np.int32)
        np.testing.assert_array_equal(np.rint(255 * np.asarray(data[split].images[..., 0])), images)
        np.testing.assert_array_equal(data[split].labels, labels)
        assert data[split].num_classes == CLASSES
    assert float(data["train"].images.max()) <= 1


def test_names_with_a_dot_are_found_too(tmp_path: Path) -> None:
    for path in list(write_idx(tmp_path).iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert load_images(tmp_path)["train"].num_images == TRAIN
    assert image_files(tmp_path)[0].name == "train-images.idx3-ubyte"


@pytest.mark.parametrize("inside", [False, True])
def test_binary_batches_of_cifar_are_read_channels_last(tmp_path: Path, inside: bool) -> None:
    planes, labels = write_cifar(tmp_path / "cifar-10-batches-bin" if inside else tmp_path)
    data = load_images(tmp_path)
    assert data["train"].images.shape == (30, 32, 32, 3)
    assert data["test"].num_images == 6
    np.testing.assert_array_equal(np.rint(255 * np.asarray(data["train"].images)), planes.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(data["train"].labels, labels)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _cut_compressed(path: Path) -> None:
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes())[:-9])
    path.unlink()


def _not_compressed(path: Path) -> None:
    path.rename(path.with_name(path.name + ".gz"))


BROKEN: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing": ("t10k-labels-idx1-ubyte", Path.unlink, "expected this file beside train-images-idx3-ubyte, found noth"),
    "cut": ("train-images-idx3-ubyte", _cut, "expected 2160 bytes of shape (60, 6, 6), got 2159"),
    "empty": ("train-labels-idx1-ubyte", lambda path: path.write_bytes(b""), "got an empty file"),
    "header": ("train-images-idx3-ubyte", lambda path: path.write_bytes(b"\0\0\x08\x03\0"), "expected an idx file"),
    "foreign": ("train-images-idx3-ubyte", lambda path: path.write_text("text"), "begins with 00000803, got 74657874"),
    "no images": ("t10k-images-idx3-ubyte", lambda path: path.write_bytes(idx(np.zeros((0, 6, 6), np.uint8))), "(0, 6"),
    "swapped": ("train-images-idx3-ubyte", lambda path: path.write_bytes(idx(np.zeros(60, np.uint8))), "with 3 axes"),
    "labels": ("train-labels-idx1-ubyte", lambda path: path.write_bytes(idx(np.zeros(7, np.uint8))), "expected 60 lab"),
    "cut gzip": ("train-images-idx3-ubyte", _cut_compressed, "expected a whole gzip file, got truncated or damaged"),
    "no gzip": ("t10k-images-idx3-ubyte", _not_compressed, "expected a whole gzip file, got truncated or damaged"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_idx_file_is_named_in_one_sentence(tmp_path: Path, case: str) -> None:
    name, breaks, words = BROKEN[case]
    breaks(write_idx(tmp_path) / name)
    with pytest.raises(ImageDataError, match=re.escape(words)) as error:
        load_images(tmp_path)
    assert str(error.value).startswith(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_test_images_have_the_shape_of_training_images(tmp_path: Path) -> None:
    (write_idx(tmp_path) / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((TEST, 5, 6), np.uint8)))
    with pytest.raises(ImageDataError, match=re.escape("expected test images of shape (6, 6, 1), got (5, 6, 1)")):
        load_images(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("data_batch_3.bin", None, "expected this file beside data_batch_1.bin, found nothing there"),
        ("data_batch_2.bin", bytes(3072), "expected records of 3073 bytes each, got 3072 bytes"),
        ("test_batch.bin", b"", "expected records of 3073 bytes each, got 0 bytes"),
        ("test_batch.bin", bytes([10]) + bytes(3072), "expected labels from 0 to 9, got 10"),
    ],
)
def test_a_broken_batch_of_cifar_is_named(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    write_cifar(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageDataError, match=words) as error:
        load_images(tmp_path)
    assert str(error.value).startswith(str(tmp_path / name))


def test_a_folder_that_is_none_or_holds_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageDataError, match="expected a folder of image files, found nothing there"):
        load_images(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageDataError, match="expected a folder of image files, found a file"):
        load_images(tmp_path / "file")
    with pytest.raises(ImageDataError, match=r"expected train-images-idx3-ubyte, .* found none of them"):
        load_images(tmp_path)
    # A name without its content.
    shutil.rmtree(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").mkdir(parents=True)
    with pytest.raises(ImageDataError, match="found none of them"):
        load_images(tmp_path)
