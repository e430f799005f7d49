"""Fetch published data sets, checked against their checksums, into a folder that ``load`` reads."""

from __future__ import annotations

import contextlib
import os
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sharedgrad.errors import ConfigError, DataError, OutputError, require


class Source(NamedTuple):
    """Where a data set is published.

    Attributes:
        url: What the names of its files follow.
        files: Name -> checksum, as the publishers give it.
        terms: Who made it, and where it is described.
    """

    url: str
    files: dict[str, str]
    terms: str


_IDX = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
_MNIST = (
    "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "md5:d53e105ee54ea40749a09fcbcd1e9432",
    "md5:9fb629c4189551a2d022fa330f9573f3",
    "md5:ec29112dd5afa0611ce80d1b7f02629c",
)
_FASHION = (
    "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "md5:25c81989df183df01b3e8a0aad5dffbe",
    "md5:bef4ecab320f06d8554ea6380940ec79",
    "md5:bb300cfdad3c16e7a12a480ee83cd310",
)
_CIFAR = "cifar-10-binary.tar.gz"

SOURCES = {
    "mnist": Source(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        dict(zip(_IDX, _MNIST, strict=True)),
        "MNIST: Y. LeCun, C. Cortes, C. Burges",
    ),
    "fashion-mnist": Source(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        dict(zip(_IDX, _FASHION, strict=True)),
        "Fashion-MNIST: H. Xiao, K. Rasul, R. Vollgraf, MIT licence",
    ),
    "cifar10": Source(
        "https://www.cs.toronto.edu/~kriz/",
        {_CIFAR: "md5:c32a1d4ab5d03f1284b67883e8d87530"},
        "CIFAR-10: A. Krizhevsky, 2009",
    ),
}
_RECORD = 1 + 3 * 32 * 32  # a label, and the pixels of the red, green and blue maps


def fetch(name: str, folder: str | Path) -> Path:
    """Download a data set; files that are there already and whole are not fetched again.

    Args:
        name: One of ``SOURCES``.
        folder: Where to put it; made if it is not there.

    Returns:
        What to give to ``load``: the folder, or an .npz in it (CIFAR-10).

    Raises:
        ConfigError: There is no such data set.
        DataError: It cannot be fetched, or what came is not what was published.
        OutputError: The folder cannot be written.
        MissingDependencyError: pooch is not installed.
    """
    if name not in SOURCES:
        raise ConfigError("data set", f"there is no {name!r}", f"choose from {', '.join(SOURCES)}")
    pooch = require("pooch", "fetching data")
    source, folder = SOURCES[name], Path(folder)
    pooch.get_logger().setLevel("ERROR")
    for file, checksum in source.files.items():
        try:
            pooch.retrieve(source.url + file, checksum, fname=file, path=folder)
        except ValueError as error:  # pooch removes what has another checksum
            problem = "what came is not what was published (its checksum differs)"
            raise DataError(source.url + file, problem, "try again later") from error
        except OSError as error:
            if isinstance(error, PermissionError | FileExistsError | NotADirectoryError):
                raise OutputError(folder, f"cannot be written ({error.strerror})", "choose another folder") from None
            reason = " ".join(str(error).split())[:200]
            raise DataError(source.url + file, f"cannot be fetched ({reason})", "check the connection") from None
    return _cifar(folder / _CIFAR) if name == "cifar10" else folder


def _cifar(archive: Path) -> Path:
    """The binary version of CIFAR-10 as an .npz; nothing is unpacked to the disk but that."""
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    path = archive.with_name("cifar10.npz")
    if path.exists():
        return path
    arrays: dict[str, Any] = {}
    try:
        with tarfile.open(archive) as files:
            for part, names in {"": [f"data_batch_{i}" for i in range(1, 6)], "_test": ["test_batch"]}.items():
                members = [files.extractfile(f"cifar-10-batches-bin/{name}.bin") for name in names]
                data = b"".join(member.read() for member in members if member is not None)
                records = np.frombuffer(data, np.uint8).reshape(-1, _RECORD)
                arrays[f"x{part}"] = records[:, 1:].reshape(-1, 3, 32, 32)
                arrays[f"y{part}"] = np.array(classes)[records[:, 0]]
    except (tarfile.TarError, KeyError, ValueError, IndexError, EOFError) as error:
        raise DataError(archive, f"is not CIFAR-10's archive ({error})", "remove it and fetch it again") from None
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(path, f"cannot be written ({error.strerror})", "choose a folder with room") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return path
