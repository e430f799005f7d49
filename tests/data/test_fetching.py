"""Fetching, from a server on the loopback address."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from sharedgrad.data import fetching, load
from sharedgrad.data.fetching import SOURCES, Source, fetch
from sharedgrad.errors import ConfigError, DataError, OutputError
from tests.data.conftest import IMAGES, LABELS, idx_bytes

pytest.importorskip("pooch")


class Quiet(SimpleHTTPRequestHandler):
    asked: ClassVar[list[str]] = []  # the test empties it

    def log_message(self, *_: object) -> None:
        self.asked.append(self.path)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder that is served, and its address."""
    folder = tmp_path / "site"
    folder.mkdir()
    Quiet.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def publish(name: str, files: dict[str, bytes], site: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, url = site
    for file, content in files.items():
        (folder / file).write_bytes(content)
    checksums = {file: f"md5:{hashlib.md5(content).hexdigest()}" for file, content in files.items()}
    monkeypatch.setitem(fetching.SOURCES, name, Source(url, checksums, "made up"))


@pytest.fixture
def mnist(site: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"train": (IMAGES, LABELS), "t10k": (IMAGES[:4], LABELS[:4])}
    files = {}
    for part, (images, labels) in parts.items():
        files[f"{part}-images-idx3-ubyte.gz"] = gzip.compress(idx_bytes(images))
        files[f"{part}-labels-idx1-ubyte.gz"] = gzip.compress(idx_bytes(labels))
    publish("mnist", files, site, monkeypatch)


def test_what_is_fetched_can_be_loaded(mnist: None, tmp_path: Path) -> None:
    folder = fetch("mnist", tmp_path / "new" / "mnist")
    np.testing.assert_array_equal(load(folder).x[:, 0], IMAGES)
    assert len(Quiet.asked) == 4
    fetch("mnist", folder)
    assert len(Quiet.asked) == 4  # it is there
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"damaged")
    fetch("mnist", folder)
    assert len(Quiet.asked) == 5
    np.testing.assert_array_equal(load(folder).x[:, 0], IMAGES)


def test_another_content_than_published_is_refused(mnist: None, site: tuple[Path, str], tmp_path: Path) -> None:
    (site[0] / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz: what came is not what was published"):
        fetch("mnist", tmp_path / "mnist")
    assert not (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").exists()


def test_a_file_that_is_not_there(mnist: None, site: tuple[Path, str], tmp_path: Path) -> None:
    (site[0] / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: cannot be fetched \(404"):
        fetch("mnist", tmp_path / "mnist")


def test_no_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(fetching.SOURCES, "mnist", Source("http://127.0.0.1:9/", {"a": "md5:0"}, ""))
    with pytest.raises(DataError, match="cannot be fetched"):
        fetch("mnist", tmp_path)


def test_a_folder_that_cannot_be_made(mnist: None, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        fetch("mnist", tmp_path / "file")


def test_there_are_three(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no 'imagenet'; choose from mnist, fashion-mnist, cifar10"):
        fetch("imagenet", tmp_path)
    assert all(len(checksum) == 36 for source in SOURCES.values() for checksum in source.files.values())


def cifar(labels: list[int]) -> bytes:
    """An archive like CIFAR-10's with two images a batch, whose first pixel is the label's number times ten."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
            records = np.zeros((len(labels), 3073), np.uint8)
            records[:, 0], records[:, 1], records[:, 1 + 1024 + 33] = labels, np.array(labels) * 10, 77
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            info.size = records.size
            archive.addfile(info, io.BytesIO(records.tobytes()))
    return packed.getvalue()


def test_cifar_becomes_arrays(site: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    publish("cifar10", {"cifar-10-binary.tar.gz": cifar([3, 9])}, site, monkeypatch)
    data = load(fetch("cifar10", tmp_path / "c"))
    assert (data.x.shape, data.x_test.shape, data.classes) == ((10, 3, 32, 32), (2, 3, 32, 32), ("cat", "truck"))
    assert data.x[:2, 0, 0, 0].tolist() == [30, 90]
    assert data.x[0, 1, 1, 1] == 77
    assert sorted(os.listdir(tmp_path / "c")) == ["cifar-10-binary.tar.gz", "cifar10.npz"]


def test_an_archive_of_something_else(site: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for content in (b"no archive", cifar([3, 99])):
        publish("cifar10", {"cifar-10-binary.tar.gz": content}, site, monkeypatch)
        with pytest.raises(DataError, match="is not CIFAR-10's archive"):
            fetch("cifar10", tmp_path / "c")
