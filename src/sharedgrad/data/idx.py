"""Read MNIST, Fashion-MNIST and EMNIST as published: IDX files, gzipped or not.

The format (Y. LeCun, C. Cortes, C. Burges, http://yann.lecun.com/exdb/mnist/): two zero bytes, a byte for the
type (8: unsigned byte), a byte for the number of dimensions, the dimensions as big-endian 32-bit numbers,
then the values, last dimension fastest.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sharedgrad.data import capacity, labels
from sharedgrad.data.dataset import Dataset
from sharedgrad.data.listing import listing
from sharedgrad.errors import DataError

_NAME = re.compile(r"(?:(?P<split>.+)-)?(?P<part>train|t10k|test)-(?P<kind>images|labels)[-.]idx[13]-ubyte(?:\.gz)?")
_CHUNK = 2**20
_DAMAGED = "the file is damaged or not what its name says; fetch it again"

# The published part and kind ("train", "images") -> the file.
Files = dict[tuple[str, str], Path]


def find_splits(folder: Path) -> dict[str, Files]:
    """The IDX files of a folder by split: "" for MNIST, "emnist-letters" and the like for EMNIST.

    Where a file is there both plain and gzipped, the plain one counts.
    """
    splits: dict[str, Files] = {}
    _, paths = listing(folder)
    for path in sorted(paths, key=lambda path: path.suffix == ".gz"):
        if match := _NAME.fullmatch(path.name):
            part = "train" if match["part"] == "train" else "test"
            splits.setdefault(match["split"] or "", {}).setdefault((part, match["kind"]), path)
    return splits


def load_idx(folder: Path, split: str | None = None) -> Dataset:
    """Read the IDX files of a folder.

    EMNIST files, known by a name that begins with "emnist", hold transposed images; they are made upright.
    Classes are named after the labels that occur, or as ``SPLIT-mapping.txt`` beside the files says.

    Args:
        folder: The folder.
        split: Which of several sets in one folder, e.g. "emnist-letters"; None where there is one only.

    Raises:
        DataError: Missing, damaged, oversized or mismatched files, or several splits and none named.
    """
    splits = find_splits(folder)
    if split is None:
        if len(splits) > 1:
            names = ", ".join(sorted(splits))
            raise DataError(folder, f"holds several data sets ({names})", f"name one: {folder / max(splits)}")
        split = next(iter(splits))
    files = splits[split]
    x, train_labels = _read_part(folder, files, "train")
    has_test = any(part == "test" for part, _ in files)
    x_test, test_labels = _read_part(folder, files, "test") if has_test else (None, None)
    if split.lower().startswith("emnist"):
        x, x_test = _transposed(x), None if x_test is None else _transposed(x_test)
    where = folder / split
    values, y, y_test = labels.encode(where, train_labels, test_labels)
    return Dataset(str(where), x, y, x_test, y_test, _class_names(folder / f"{split}-mapping.txt", values))


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read one IDX file of unsigned bytes, which must have so many dimensions.

    Never reads more than the header promises, nor reserves more than there is memory.

    Raises:
        DataError: Not such a file, truncated, oversized, or not readable.
    """
    try:
        with _open(path) as stream:
            shape = _read_header(path, stream, dimensions)
            array = capacity.reserve(shape, np.uint8, path, "the header is damaged, or the data need a larger machine")
            held = _fill(array, stream)
            if held < array.size or stream.read(1):
                promise = f"{' × '.join(map(str, shape))} = {array.size} bytes"
                found = str(held) if held < array.size else "more"
                raise DataError(path, f"the header promises {promise}, the file holds {found}", _DAMAGED)
            return array
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(path, f"cannot be read ({error})", _DAMAGED) from error


def _open(path: Path) -> BufferedIOBase:
    """Open a file, unpacking it where its content (not its name) says that it is gzipped."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else open(path, "rb")


def _read_header(path: Path, stream: BufferedIOBase, dimensions: int) -> tuple[int, ...]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise DataError(path, "is not an IDX file: it does not begin with two zero bytes, type and rank", _DAMAGED)
    if magic[2] != 8:
        raise DataError(path, f"holds values of type 0x{magic[2]:02X}, expected unsigned bytes (0x08)", _DAMAGED)
    if magic[3] != dimensions:
        kinds = {1: "labels (1 dimension)", 3: "images (3 dimensions)"}
        found = kinds.get(magic[3], f"{magic[3]} dimensions")
        raise DataError(path, f"expected {kinds[dimensions]}, found {found}", "check the names of the files")
    packed = stream.read(4 * dimensions)
    if len(packed) < 4 * dimensions:
        raise DataError(path, "the file ends within its header", _DAMAGED)
    shape: tuple[int, ...] = struct.unpack(f">{dimensions}I", packed)
    if math.prod(shape) == 0:
        raise DataError(path, f"holds nothing: its dimensions are {' × '.join(map(str, shape))}", _DAMAGED)
    return shape


def _fill(array: NDArray[np.uint8], stream: BufferedIOBase) -> int:
    """Read into the array until it is full or the stream ends; the number of bytes read."""
    flat, held = array.reshape(-1), 0
    while held < array.size:
        data = stream.read(min(_CHUNK, array.size - held))
        if not data:
            break
        flat[held : held + len(data)] = np.frombuffer(data, np.uint8)
        held += len(data)
    return held


def _read_part(folder: Path, files: Files, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    for kind in ("images", "labels"):
        if (part, kind) not in files:
            found = ", ".join(path.name for path in files.values())
            raise DataError(folder, f"the {part} {kind} are missing; found {found}", "put the other files beside them")
    x, y = read_idx(files[part, "images"], 3), read_idx(files[part, "labels"], 1)
    if len(x) != len(y):
        raise DataError(
            files[part, "labels"],
            f"holds {len(y)} labels, but {files[part, 'images'].name} holds {len(x)} images",
            "take both files from one source",
        )
    return x[:, None], y


def _transposed(x: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(x.transpose(0, 1, 3, 2))


def _class_names(mapping: Path, values: list[int]) -> tuple[str, ...]:
    """Class names from lines ``label code [code…]`` of character codes, or else the labels themselves."""
    if not mapping.is_file():
        return tuple(map(str, values))
    try:
        with open(mapping, encoding="ascii") as stream:
            rows = [list(map(int, line.split())) for line in stream.read(_CHUNK).splitlines()]
        names = {label: "/".join(map(chr, codes)) for label, *codes in filter(None, rows)}
        return tuple(names[value] for value in values)
    except (OSError, ValueError, OverflowError, KeyError) as error:
        raise DataError(
            mapping, f"is not a list of labels and character codes ({error})", "mend or remove it"
        ) from error
