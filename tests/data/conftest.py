"""What the tests of several readers share: files to read and folders of images."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

IMAGES = np.random.default_rng(1).integers(0, 256, (6, 5, 4), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 2, 1, 0], np.uint8)


def idx_bytes(array: NDArray[np.uint8], shape: tuple[int, ...] | None = None, kind: int = 8) -> bytes:
    """An IDX file of the array, or one whose header lies about shape or type."""
    dims = array.shape if shape is None else shape
    return struct.pack(f">BBBB{len(dims)}I", 0, 0, kind, len(dims), *dims) + array.tobytes()


def write_idx(folder: Path, prefix: str, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    """Write the two files of one part, gzipped, named as published."""
    for name, array in (
        (f"{prefix}-images-idx3-ubyte.gz", images),
        (f"{prefix}-labels-idx1-ubyte.gz", labels),
    ):
        (folder / name).write_bytes(gzip.compress(idx_bytes(array)))


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """A folder like MNIST's: six images of 5×4 to train on, four to test."""
    write_idx(tmp_path, "train", IMAGES, LABELS)
    write_idx(tmp_path, "t10k", IMAGES[:4], LABELS[:4])
    return tmp_path


Paint = Callable[..., Path]


@pytest.fixture
def paint(tmp_path: Path) -> Paint:
    """``paint("train/cat/1.png", value=7, mode="RGB", size=(height, width))`` writes one plain image."""

    def write(name: str, value: object = 100, mode: str = "L", size: tuple[int, int] = (4, 6), **save: object) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size[::-1], value).save(path, **save)
        return path

    return write
