from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sharedgrad.data import load
from sharedgrad.errors import DataError
from tests.data.conftest import Paint

CIFAR = Path(__file__).parents[2].parent / "shared" / "data" / "cifar10" / "cifar10-jpeg.tar"


def test_class_folders_in_natural_order(paint: Paint, tmp_path: Path) -> None:
    for value, name in enumerate(["1/a.png", "2/b10.png", "2/b9.png", "10/c.png"]):
        paint(name, value)
    data = load(tmp_path)
    assert data.classes == ("1", "2", "10")
    assert data.y.tolist() == [0, 1, 1, 2]
    assert data.x[:, 0, 0, 0].tolist() == [0, 2, 1, 3]
    assert data.input_shape == (1, 4, 6)
    assert data.x_test is None


@pytest.mark.parametrize("test_name", ["test", "val", "valid", "validation", "Test"])
def test_train_and_test_folders(test_name: str, paint: Paint, tmp_path: Path) -> None:
    for value, name in enumerate(["train/cat/1.png", "train/dog/1.png", f"{test_name}/dog/1.png"]):
        paint(name, value)
    data = load(tmp_path)
    assert data.classes == ("cat", "dog")
    assert (data.y.tolist(), data.y_test.tolist()) == ([0, 1], [1])
    assert (data.x[:, 0, 0, 0].tolist(), data.x_test[:, 0, 0, 0].tolist()) == ([0, 1], [2])


def test_test_counts_before_val(paint: Paint, tmp_path: Path) -> None:
    for name in ("train/cat/1.png", "train/dog/1.png", "val/dog/1.png"):
        paint(name, 1)
    paint("test/cat/1.png", 99)
    assert load(tmp_path).x_test.max() == 99


def test_train_folder_alone(paint: Paint, tmp_path: Path) -> None:
    paint("train/cat/1.png")
    paint("train/dog/1.png")
    assert load(tmp_path).x_test is None


def test_train_may_be_a_class_among_others(paint: Paint, tmp_path: Path) -> None:
    for name in ("bus/1.png", "car/1.png", "train/1.png"):
        paint(name)
    assert load(tmp_path).classes == ("bus", "car", "train")


def test_colour_in_the_test_part_makes_both_rgb(paint: Paint, tmp_path: Path) -> None:
    paint("train/cat/1.png")
    paint("train/dog/1.png")
    paint("test/dog/1.png", (1, 2, 3), mode="RGB")
    data = load(tmp_path)
    assert data.input_shape == (3, 4, 6)
    assert data.x_test[0, :, 0, 0].tolist() == [1, 2, 3]


def test_other_files_are_left_out(paint: Paint, tmp_path: Path) -> None:
    paint("cat/1.JPG", 10, format="JPEG")
    paint("dog/1.png")
    paint(".cache/1.png")
    for name in ("cat/notes.txt", "cat/.hidden.png", "cat/Thumbs.db", "README.md"):
        (tmp_path / name).write_text("no image")
    data = load(tmp_path)
    assert data.classes == ("cat", "dog")
    assert len(data.x) == 2


def test_size_resizes_every_image(paint: Paint, tmp_path: Path) -> None:
    paint("cat/1.png", size=(9, 3))
    paint("dog/1.png", size=(4, 4))
    assert load(tmp_path, size=(5, 7)).input_shape == (1, 5, 7)
    assert load(tmp_path, size=8).input_shape == (1, 8, 8)
    with pytest.raises(DataError, match="--size"):
        load(tmp_path)


def test_sizes_of_the_test_part_count_too(paint: Paint, tmp_path: Path) -> None:
    for name in ("train/cat/1.png", "train/dog/1.png"):
        paint(name)
    paint("test/dog/1.png", size=(9, 9))
    with pytest.raises(DataError, match=r"test/dog/1.png: is 9 × 9 .* but others are 4 × 6"):
        load(tmp_path)


def test_class_folder_without_images(paint: Paint, tmp_path: Path) -> None:
    paint("cat/1.png")
    (tmp_path / "dog").mkdir()
    with pytest.raises(DataError, match=r"dog: the class folder holds no images \(\.avif"):
        load(tmp_path)


def test_images_lie_directly_in_train(paint: Paint, tmp_path: Path) -> None:
    paint("train/1.png")
    paint("test/1.png")
    with pytest.raises(DataError, match=r"train: holds no class folders"):
        load(tmp_path)


def test_test_class_unknown_in_training(paint: Paint, tmp_path: Path) -> None:
    for name in ("train/cat/1.png", "train/dog/1.png", "test/cow/1.png"):
        paint(name)
    with pytest.raises(DataError, match="class 'cow' is no class of"):
        load(tmp_path)


def test_one_class(paint: Paint, tmp_path: Path) -> None:
    paint("cat/1.png")
    with pytest.raises(DataError, match=r"of one class \('cat'\)"):
        load(tmp_path)


def test_transparent_images_are_noted_and_bad_ones_left_out(paint: Paint, tmp_path: Path) -> None:
    for name in ("train/cat/1.png", "train/cat/2.png", "train/dog/1.png", "test/dog/1.png"):
        paint(name, (0, 0, 0, 0), "RGBA")
    for name in ("train/cat/2.png", "test/dog/2.png"):
        (tmp_path / name).write_text("no image")
    data = load(tmp_path, skip_bad=True, background="black")
    assert (data.x.max(), data.y.tolist(), data.y_test.tolist()) == (0, [0, 1], [1])
    assert data.notes == (
        "3 of 3 images are transparent: laid on black (--background white for the other)",
        "2 of 5 image files cannot be read and were left out",
    )
    (tmp_path / "train/dog/1.png").write_text("no image")
    with pytest.raises(DataError, match="train/dog: none of its images can be read"):
        load(tmp_path, skip_bad=True)


def test_truncated_image_is_named(paint: Paint, tmp_path: Path) -> None:
    paint("cat/1.png")
    path = paint("dog/7.png", size=(50, 50))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"dog/7.png: cannot be read as an image"):
        load(tmp_path)


@pytest.mark.skipif(not CIFAR.is_file(), reason="the CIFAR-10 archive is not on this machine")
def test_cifar_images(tmp_path: Path) -> None:
    import tarfile

    wanted = {f"{part}/{name}/000{i}.jpg" for part in ("train", "test") for name in ("cat", "ship") for i in range(5)}
    with tarfile.open(CIFAR) as archive:
        for member in archive:
            if member.name in wanted:
                archive.extract(member, tmp_path, filter="data")
                wanted.remove(member.name)
            if not wanted:
                break
    data = load(tmp_path)
    assert data.x.shape == (10, 3, 32, 32)
    assert data.x_test.shape == (10, 3, 32, 32)
    assert data.classes == ("cat", "ship")
    with Image.open(tmp_path / "train" / "ship" / "0004.jpg") as image:
        np.testing.assert_array_equal(data.x[9], np.asarray(image).transpose(2, 0, 1))
