import gzip
import os
import re
import zlib
from pathlib import Path

import numpy as np
import pytest

from sharedgrad.data import capacity, load
from sharedgrad.data.idx import read_idx
from sharedgrad.errors import DataError
from tests.data.conftest import IMAGES, LABELS, idx_bytes, write_idx

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "mnist"


def test_reads_both_parts(mnist: Path) -> None:
    data = load(mnist)
    np.testing.assert_array_equal(data.x[:, 0], IMAGES)
    np.testing.assert_array_equal(data.y, LABELS)
    np.testing.assert_array_equal(data.x_test[:, 0], IMAGES[:4])
    np.testing.assert_array_equal(data.y_test, LABELS[:4])
    assert data.classes == ("0", "1", "2")
    assert data.input_shape == (1, 5, 4)


@pytest.mark.parametrize("name", ["train-{}-idx{}-ubyte", "train-{}.idx{}-ubyte"])
def test_plain_files_with_either_spelling_and_no_test_part(name: str, tmp_path: Path) -> None:
    (tmp_path / name.format("images", 3)).write_bytes(idx_bytes(IMAGES))
    (tmp_path / name.format("labels", 1)).write_bytes(idx_bytes(LABELS))
    data = load(tmp_path)
    np.testing.assert_array_equal(data.x[:, 0], IMAGES)
    assert data.x_test is None


def test_plain_file_counts_before_the_gzipped_one(mnist: Path) -> None:
    (mnist / "train-images-idx3-ubyte").write_bytes(idx_bytes(255 - IMAGES))
    np.testing.assert_array_equal(load(mnist).x[:, 0], 255 - IMAGES)


def test_large_file_is_read_across_chunks(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (3, 1000, 1001), dtype=np.uint8)
    (tmp_path / "images").write_bytes(gzip.compress(idx_bytes(array), 1))
    np.testing.assert_array_equal(read_idx(tmp_path / "images", 3), array)


class TestEmnist:
    def test_images_are_made_upright_and_labels_start_at_zero(self, tmp_path: Path) -> None:
        write_idx(tmp_path, "emnist-letters-train", IMAGES, LABELS + 1)
        write_idx(tmp_path, "emnist-letters-test", IMAGES[:3], LABELS[:3] + 1)
        data = load(tmp_path)
        np.testing.assert_array_equal(data.x[:, 0], IMAGES.transpose(0, 2, 1))
        np.testing.assert_array_equal(data.x_test[:, 0], IMAGES[:3].transpose(0, 2, 1))
        assert data.x.flags.c_contiguous
        assert data.classes == ("1", "2", "3")
        np.testing.assert_array_equal(data.y, LABELS)

    def test_mapping_names_the_classes(self, tmp_path: Path) -> None:
        write_idx(tmp_path, "emnist-letters-train", IMAGES, LABELS + 1)
        (tmp_path / "emnist-letters-mapping.txt").write_text("1 65 97\n2 66 98\n3 67\n\n")
        assert load(tmp_path).classes == ("A/a", "B/b", "C")

    @pytest.mark.parametrize("text", ["1 65\n2 66\n", "1 65\n2 x\n3 67\n", "1 65\n2 66\n3 99999999999\n", "é"])
    def test_bad_mapping(self, text: str, tmp_path: Path) -> None:
        write_idx(tmp_path, "emnist-letters-train", IMAGES, LABELS + 1)
        (tmp_path / "emnist-letters-mapping.txt").write_text(text)
        with pytest.raises(DataError, match=r"mapping\.txt: is not a list of labels"):
            load(tmp_path)

    def test_several_sets_in_one_folder_need_a_name(self, tmp_path: Path) -> None:
        write_idx(tmp_path, "emnist-letters-train", IMAGES, LABELS)
        write_idx(tmp_path, "emnist-digits-train", 255 - IMAGES, LABELS)
        with pytest.raises(DataError, match=r"\(emnist-digits, emnist-letters\); name one: .*/emnist-letters$"):
            load(tmp_path)
        np.testing.assert_array_equal(load(tmp_path / "emnist-letters").x[:, 0], IMAGES.transpose(0, 2, 1))
        np.testing.assert_array_equal(load(str(tmp_path / "emnist-digits")).x[:, 0, 0, 1], 255 - IMAGES[:, 1, 0])


def image_file(folder: Path) -> Path:
    return folder / "train-images-idx3-ubyte.gz"


@pytest.mark.parametrize("pack", [gzip.compress, bytes], ids=["gzipped", "plain"])
class TestDamagedFiles:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (idx_bytes(IMAGES)[:-1], r"promises 6 × 5 × 4 = 120 bytes, the file holds 119"),
            (idx_bytes(IMAGES) + b"\0", r"promises 6 × 5 × 4 = 120 bytes, the file holds more"),
            (idx_bytes(IMAGES, (6000, 5, 4)), "the file holds 120"),
            (idx_bytes(IMAGES, (2**32 - 1,) * 3), "GiB of memory"),
            (idx_bytes(IMAGES)[:10], "ends within its header"),
            (b"", "not an IDX file"),
            (b"\x89PNG" + bytes(100), "not an IDX file"),
            (idx_bytes(IMAGES, kind=0x0D), "type 0x0D, expected unsigned bytes"),
            (idx_bytes(LABELS), r"expected images \(3 dimensions\), found labels"),
            (idx_bytes(IMAGES[None]), "found 4 dimensions"),
            (idx_bytes(IMAGES[:0]), "holds nothing: its dimensions are 0 × 5 × 4"),
            (idx_bytes(IMAGES[:, :0]), "holds nothing"),
        ],
    )
    def test_images(self, content: bytes, message: str, pack: type, mnist: Path) -> None:
        image_file(mnist).write_bytes(pack(content))
        with pytest.raises(DataError, match=f"^{re.escape(str(image_file(mnist)))}: .*{message}"):
            load(mnist)

    def test_one_label_too_few(self, pack: type, mnist: Path) -> None:
        (mnist / "train-labels-idx1-ubyte.gz").write_bytes(pack(idx_bytes(LABELS[:5])))
        with pytest.raises(DataError, match=r"holds 5 labels, but train-images-idx3-ubyte\.gz holds 6 images"):
            load(mnist)


class TestDamagedGzip:
    def test_cut_off(self, mnist: Path) -> None:
        image_file(mnist).write_bytes(image_file(mnist).read_bytes()[:-12])
        with pytest.raises(DataError, match="cannot be read"):
            load(mnist)

    def test_wrong_checksum(self, mnist: Path) -> None:
        packed = bytearray(image_file(mnist).read_bytes())
        packed[-8] ^= 1
        image_file(mnist).write_bytes(packed)
        with pytest.raises(DataError, match=r"cannot be read \(CRC"):
            load(mnist)

    def test_garbled_stream(self, mnist: Path) -> None:
        packed = bytearray(image_file(mnist).read_bytes())
        packed[10:60] = bytes(range(50))
        image_file(mnist).write_bytes(packed)
        with pytest.raises(DataError, match="cannot be read"):
            load(mnist)

    def test_bomb_is_read_no_further_than_its_header_promises(
        self, mnist: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        packer = zlib.compressobj(9, wbits=31)
        zeros = bytes(2**20)
        bomb = packer.compress(idx_bytes(IMAGES)) + b"".join(packer.compress(zeros) for _ in range(64))
        image_file(mnist).write_bytes(bomb + packer.flush())
        unpacked = []
        original = gzip.GzipFile.read

        def count(self: gzip.GzipFile, size: int = -1) -> bytes:
            data = original(self, size)
            unpacked.append(len(data))
            return data

        monkeypatch.setattr(gzip.GzipFile, "read", count)
        with pytest.raises(DataError, match="holds more"):
            load(mnist)
        assert sum(unpacked) <= 16 + 120 + 1

    def test_memory_is_checked_before_it_is_reserved(self, mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(capacity, "available", lambda: 119)
        monkeypatch.setattr(np, "empty", lambda *_: pytest.fail("reserved"))
        with pytest.raises(DataError, match="needs 120 bytes of memory, but 119 bytes are available"):
            load(mnist)


def test_missing_labels(mnist: Path) -> None:
    (mnist / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"the train labels are missing; found .*train-images-idx3-ubyte.gz"):
        load(mnist)


def test_missing_training_part(tmp_path: Path) -> None:
    write_idx(tmp_path, "t10k", IMAGES, LABELS)
    with pytest.raises(DataError, match="the train images are missing"):
        load(tmp_path)


def test_unknown_test_label(mnist: Path) -> None:
    write_idx(mnist, "t10k", IMAGES[:2], np.array([1, 9], np.uint8))
    with pytest.raises(DataError, match="test sample 1 has label 9"):
        load(mnist)


def test_one_class(tmp_path: Path) -> None:
    write_idx(tmp_path, "train", IMAGES, np.full(6, 4, np.uint8))
    with pytest.raises(DataError, match=r"of one class \('4'\)"):
        load(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_file_that_may_not_be_read(mnist: Path) -> None:
    image_file(mnist).chmod(0)
    with pytest.raises(DataError, match="Permission denied"):
        load(mnist)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published MNIST files are not on this machine")
def test_published_mnist() -> None:
    data = load(SHARED)
    assert data.x.shape == (60000, 1, 28, 28)
    assert data.x_test.shape == (10000, 1, 28, 28)
    assert np.bincount(data.y).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert data.y_test[:5].tolist() == [7, 2, 1, 0, 4]
