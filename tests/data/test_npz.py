import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sharedgrad.data import capacity, load
from sharedgrad.errors import DataError

RNG = np.random.default_rng(8)
X = RNG.integers(0, 256, (6, 5, 4), dtype=np.uint8)
Y = np.array([0, 1, 2, 2, 1, 0])


def write(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "data.npz", **({"x": X, "y": Y} | arrays))
    return folder / "data.npz"


def npy(shape: tuple[int, ...], descr: str = "|u1", data: bytes = b"") -> bytes:
    """An .npy with a header of one's own choice."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue() + data


def archive(folder: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(folder / "data.npz", "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return folder / "data.npz"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_images_labels_and_test_part(save: Any, tmp_path: Path) -> None:
    save(tmp_path / "data.npz", x=X, y=Y, x_test=X[:2], y_test=Y[:2])
    data = load(tmp_path / "data.npz")
    np.testing.assert_array_equal(data.x[:, 0], X)
    np.testing.assert_array_equal(data.x_test[:, 0], X[:2])
    assert (data.y.tolist(), data.y_test.tolist()) == (Y.tolist(), [0, 1])
    assert data.classes == ("0", "1", "2")
    assert data.x.dtype == np.uint8


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((6, 5, 4), (1, 5, 4)),
        ((6, 3, 5, 4), (3, 5, 4)),
        ((6, 5, 7, 3), (3, 5, 7)),
        ((6, 5, 7, 1), (1, 5, 7)),
        ((6, 5, 7, 4), (4, 5, 7)),
        ((6, 3, 9, 3), (3, 9, 3)),
        ((6, 2, 5, 7), (2, 5, 7)),
    ],
)
def test_place_of_the_channels(shape: tuple[int, ...], expected: tuple[int, int, int], tmp_path: Path) -> None:
    x = RNG.random(shape)
    data = load(write(tmp_path, x=x))
    assert data.input_shape == expected
    assert data.x.flags.c_contiguous
    moved = len(shape) == 4 and shape[1] == 5
    np.testing.assert_array_equal(data.x, x.transpose(0, 3, 1, 2) if moved else x.reshape(6, *expected))


@pytest.mark.parametrize(
    ("x", "dtype"),
    [
        (X.astype(np.int64), np.uint8),
        (X.astype(">u2"), np.uint8),
        (X / 255, np.float64),
        (X.astype(">f4"), np.float32),
        (X.astype(np.float16), np.float32),
    ],
)
def test_types_of_pixels(x: np.ndarray, dtype: type, tmp_path: Path) -> None:
    data = load(write(tmp_path, x=x))
    assert data.x.dtype == dtype
    np.testing.assert_array_equal(data.x[:, 0], x)


def test_booleans_become_black_and_white(tmp_path: Path) -> None:
    data = load(write(tmp_path, x=X > 99))
    np.testing.assert_array_equal(data.x[:, 0], np.where(X > 99, 255, 0))
    assert data.x.dtype == np.uint8


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (Y.astype(np.uint8), ("0", "1", "2")),
        (Y * 10.0 + 5, ("5", "15", "25")),
        (np.array(["dog", "cat", "ant"])[Y], ("ant", "cat", "dog")),
        (Y > 0, ("0", "1")),
    ],
)
def test_types_of_labels(y: np.ndarray, classes: tuple[str, ...], tmp_path: Path) -> None:
    data = load(write(tmp_path, y=y))
    assert data.classes == classes
    names = np.array(classes)[data.y]
    np.testing.assert_array_equal(names, y if y.dtype.kind == "U" else y.astype(int).astype(str))


def test_fortran_order(tmp_path: Path) -> None:
    data = load(write(tmp_path, x=np.asfortranarray(X)))
    np.testing.assert_array_equal(data.x[:, 0], X)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X.reshape(6, 20)}, r"x: expected images .*got shape \(6, 20\); reshape it"),
        ({"y": Y[:5]}, "6 training images, but 5 training labels"),
        ({"y": Y[:, None]}, r"y: expected one label per image"),
        ({"y": Y - 1}, "label -1 of sample 0 is no whole number from 0 up"),
        ({"y": Y + 0.5}, "label 0.5 of sample 0"),
        ({"y": np.where(Y == 1, np.nan, Y)}, "label nan of sample 1"),
        ({"y": Y * 1e300}, "label 1e[+]300 of sample 1"),
        ({"y": Y.astype(complex)}, "labels are complex128"),
        ({"y": Y * 0}, "of one class"),
        ({"x": np.where(X > 250, np.nan, X)}, "has NaN or infinite pixels"),
        ({"x": np.where(X > 250, np.inf, X)}, "has NaN or infinite pixels"),
        ({"x": X.astype(int) * 1000}, "integer pixels from .*expected 0 to 255"),
        ({"x": X.astype(int) - 300}, "integer pixels from -"),
        ({"x": X.astype(complex)}, "pixels are complex128"),
        ({"x": X.astype(str)}, "pixels are <U"),
        ({"x": X[:0], "y": Y[:0]}, "training part is empty"),
        ({"x_test": X}, "x_test and y_test must come together"),
        ({"x_test": X[:2], "y_test": np.array([0, 7])}, "test sample 1 has label 7"),
        (
            {"x_test": X[:2], "y_test": np.array(["0", "1"])},
            "y holds strings and y_test numbers, or the reverse",
        ),
        ({"x_test": X[:2, :3], "y_test": Y[:2]}, r"test images have shape \(1, 3, 4\)"),
        ({"x": np.array([{"a": 1}] * 6, object)}, "x: holds Python objects, and pickles are never read"),
        ({"y": Y.astype(object)}, "y: holds Python objects, and pickles are never read"),
    ],
)
def test_senseless_arrays(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load(write(tmp_path, **arrays))


class Trap:
    """Pickles into a call that leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


def test_pickles_are_not_run(tmp_path: Path) -> None:
    path = write(tmp_path, x=np.array([Trap(tmp_path / "trace")], object))
    with pytest.raises(DataError, match="pickles are never read"):
        load(path)
    assert not (tmp_path / "trace").exists()


class TestDamagedArchives:
    @pytest.mark.parametrize("content", [b"", b"hello", bytes(500)])
    def test_no_archive(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "data.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"data.npz: is not a readable .npz archive \(File is not a zip file\)"):
            load(tmp_path / "data.npz")

    def test_missing_arrays_lists_what_is_there(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "data.npz", x_train=X, y_train=Y)
        with pytest.raises(DataError, match=r"expected arrays x and y, found \['x_train', 'y_train'\]"):
            load(tmp_path / "data.npz")

    def test_cut_off(self, tmp_path: Path) -> None:
        path = write(tmp_path)
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.raises(DataError, match="is not a readable"):
            load(path)

    def test_wrong_checksum(self, tmp_path: Path) -> None:
        path = write(tmp_path)
        content = bytearray(path.read_bytes())
        content[content.find(X.tobytes())] ^= 1
        path.write_bytes(content)
        with pytest.raises(DataError, match="Bad CRC-32"):
            load(path)

    def test_flipped_bytes_end_in_data_or_one_line(self, tmp_path: Path) -> None:
        path = write(tmp_path)
        content, messages = path.read_bytes(), []
        for _ in range(300):
            changed = bytearray(content)
            changed[RNG.integers(len(content))] ^= 1 << int(RNG.integers(8))
            path.write_bytes(changed)
            try:
                load(path)
            except DataError as error:
                messages.append(str(error))
        assert messages
        assert not any("\n" in message for message in messages)

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((7, 5, 4), "the header promises 140 bytes, the archive holds 120"),
            ((5, 5, 4), "the header promises 100 bytes, the archive holds 120"),
            ((10**6, 10**6, 10**6), "GiB of memory"),
            ((-6, 5, 4), "promises -120 bytes"),
            ((0, 10**30), "the archive holds 120"),
        ],
    )
    def test_header_that_lies(self, shape: tuple[int, ...], message: str, tmp_path: Path) -> None:
        path = archive(tmp_path, x=npy(shape, data=X.tobytes()), y=npy((6,), data=Y.astype(np.uint8).tobytes()))
        with pytest.raises(DataError, match=message):
            load(path)

    def test_no_npy_inside(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"is not a readable \.npz archive"):
            load(archive(tmp_path, x=b"hello", y=b"\x93NUMPY" + bytes(100)))

    def test_bomb_is_refused_before_it_is_unpacked(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = archive(tmp_path, x=npy((64, 1024, 1024), data=bytes(2**26)), y=npy((64,), data=bytes(64)))
        assert path.stat().st_size < 2**17
        monkeypatch.setattr(capacity, "available", lambda: 2**25)
        monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: pytest.fail("unpacked"))
        with pytest.raises(DataError, match="x: needs 67,108,864 bytes of memory"):
            load(path)

    def test_bomb_that_understates_its_size_is_read_no_further(self, tmp_path: Path) -> None:
        content = npy((6, 5, 4), data=bytes(2**22))
        path = archive(tmp_path, x=content, y=npy((6,), data=Y.astype(np.uint8).tobytes()))
        size = struct.pack("<I", len(content))
        assert path.read_bytes().count(size) == 2
        path.write_bytes(path.read_bytes().replace(size, struct.pack("<I", len(content) - 2**22 + 120)))
        with pytest.raises(DataError, match=r"is not a readable \.npz archive"):
            load(path)
