"""Read an .npz archive with x and y, and with x_test and y_test where there is a test part."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sharedgrad.data import capacity, labels
from sharedgrad.data.dataset import Dataset
from sharedgrad.errors import DataError

_CHANNELS = (1, 3, 4)
_HOW_TO = "write it with np.savez(FILE, x=images, y=labels)"


def load_npz(path: Path) -> Dataset:
    """Read labelled images.

    x is (N, H, W) or (N, C, H, W) or (N, H, W, C). Four axes are taken as (N, C, H, W), except where the
    second is not 1, 3 or 4 long and the last one is. Pixels are integers 0..255 (kept as uint8), booleans
    (0 and 255) or floats. y (N,) holds whole numbers from 0 up or strings; the classes are the distinct
    training labels in sorted order.

    Raises:
        DataError: Not such an archive, damaged, more than memory, pickled objects, or senseless arrays.
    """
    try:
        arrays = _read(path)
    except DataError:
        raise
    except Exception as error:  # from a hostile archive zipfile, zlib and NumPy raise almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(path, f"is not a readable .npz archive ({reason})", _HOW_TO) from error
    x = _images(f"{path}: x", arrays["x"])
    train_labels = _labels(f"{path}: y", arrays["y"])
    x_test = _images(f"{path}: x_test", arrays["x_test"]) if "x_test" in arrays else None
    test_labels = _labels(f"{path}: y_test", arrays["y_test"]) if "y_test" in arrays else None
    if test_labels is not None and train_labels.dtype.kind != test_labels.dtype.kind:
        raise DataError(path, "y holds strings and y_test numbers, or the reverse", "write both in one way")
    values, y, y_test = labels.encode(path, train_labels, test_labels)
    return Dataset(str(path), x, y, x_test, y_test, tuple(map(str, values)))


def _read(path: Path) -> dict[str, NDArray[Any]]:
    with zipfile.ZipFile(path) as archive:
        found = [name.removesuffix(".npy") for name in archive.namelist()]
        if not {"x", "y"} <= set(found):
            raise DataError(path, f"expected arrays x and y, found {found[:8]}", _HOW_TO)
        if ("x_test" in found) != ("y_test" in found):
            raise DataError(path, "x_test and y_test must come together", "write both or none")
        return {name: _member(path, archive, name) for name in ("x", "y", "x_test", "y_test") if name in found}


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """Read one array, after its header has been found to fit the archive and the memory."""
    where, member = f"{path}: {name}", archive.getinfo(f"{name}.npy")
    with archive.open(member) as stream:
        shape, dtype = _read_header(stream)
        header = stream.tell()
    if dtype.hasobject:
        raise DataError(
            where,
            "holds Python objects, and pickles are never read",
            "save it as numbers or fixed-length strings",
        )
    size = math.prod(shape) * dtype.itemsize
    capacity.ensure_fits(size, where, "the file is damaged, or needs a larger machine")
    if header + size != member.file_size:
        raise DataError(
            where, f"the header promises {size} bytes, the archive holds {member.file_size - header}", _HOW_TO
        )
    with archive.open(member) as stream:
        array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    return shape, dtype


def _images(where: str, x: NDArray[Any]) -> NDArray[Any]:
    """Images as (N, C, H, W) in a type that a Dataset takes."""
    if x.ndim not in (3, 4):
        raise DataError(
            where,
            f"expected images (N, H, W), (N, C, H, W) or (N, H, W, C), got shape {x.shape}",
            "reshape it, e.g. x.reshape(len(x), height, width)",
        )
    if x.ndim == 3:
        x = x[:, None]
    elif x.shape[1] not in _CHANNELS and x.shape[3] in _CHANNELS:
        x = x.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(_pixels(where, x))


def _pixels(where: str, x: NDArray[Any]) -> NDArray[Any]:
    if x.dtype.kind == "b":
        return x * np.uint8(255)
    if x.dtype.kind in "iu":
        if x.size and (x.min() < 0 or x.max() > 255):
            raise DataError(
                where,
                f"integer pixels from {x.min()} to {x.max()}, expected 0 to 255",
                "save them as float32",
            )
        return x.astype(np.uint8, copy=False)
    if x.dtype.kind == "f" and x.dtype.itemsize <= 8:
        return x.astype(np.float64 if x.dtype.itemsize == 8 else np.float32, copy=False)
    raise DataError(where, f"pixels are {x.dtype}, expected integers or floats", "save them as uint8 or float32")


def _labels(where: str, y: NDArray[Any]) -> NDArray[Any]:
    """Labels (N,) as int64 or as strings."""
    if y.ndim != 1:
        raise DataError(where, f"expected one label per image, (N,), got shape {y.shape}", "reshape it")
    if y.dtype.kind == "U":
        return y
    if y.dtype.kind not in "biuf":
        raise DataError(where, f"labels are {y.dtype}, expected whole numbers or strings", "convert them")
    # Beyond 2**53 floats skip whole numbers; NaN fails every comparison.
    wrong = np.flatnonzero(~((y >= 0) & (y < 2**53) & (y == np.floor(y))))
    if wrong.size:
        raise DataError(
            where,
            f"label {y[wrong[0]]} of sample {wrong[0]} is no whole number from 0 up",
            "number the classes",
        )
    return y.astype(np.int64)
