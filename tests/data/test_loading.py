import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sharedgrad.data import load
from sharedgrad.errors import ConfigError, DataError
from tests.data.conftest import Paint


@pytest.mark.parametrize("name", ["nothing", "nothing.npz", "no/where", "x" * 5000, "nul\0byte"])
def test_nothing_there_says_what_is_understood(name: str) -> None:
    with pytest.raises(DataError, match="there is no such file or folder; give digits, a folder with IDX files"):
        load(name)


def test_other_files_say_what_is_understood(tmp_path: Path, mnist: Path) -> None:
    (tmp_path / "data.csv").write_text("1,2")
    for name in ("data.csv", "train-images-idx3-ubyte.gz"):
        with pytest.raises(DataError, match="is not understood; give digits"):
            load(tmp_path / name)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "data.npz")
    with pytest.raises(DataError, match="is not understood"):
        load(tmp_path / "data.npz")


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the folder is empty; give digits"):
        load(tmp_path)


def test_folder_of_other_things(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / "sub").mkdir()
    with pytest.raises(DataError, match="holds neither IDX files nor folders of images; give digits"):
        load(tmp_path)


def test_images_without_class_folders(paint: Paint, tmp_path: Path) -> None:
    paint("1.png")
    with pytest.raises(DataError, match="holds images, but no class folders"):
        load(tmp_path)


def test_idx_files_beside_class_folders_are_ambiguous(mnist: Path, paint: Paint) -> None:
    paint("cat/1.png")
    with pytest.raises(DataError, match="both IDX files and folders of images"):
        load(mnist)


def test_idx_files_beside_a_folder_without_images(mnist: Path) -> None:
    (mnist / "__MACOSX").mkdir()
    assert len(load(mnist).x) == 6


def test_a_folder_named_digits_is_a_path(paint: Paint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint("digits/a/1.png")
    paint("digits/b/1.png")
    monkeypatch.chdir(tmp_path)
    assert len(load("digits").x) == 1797
    assert len(load("./digits").x) == len(load(Path("digits")).x) == 2


@pytest.mark.parametrize("size", [0, -3, (0, 5), (5, -1)])
def test_senseless_size(size: Any, paint: Paint, tmp_path: Path) -> None:
    paint("cat/1.png")
    with pytest.raises(ConfigError, match="--size: expected at least 1 × 1 pixel"):
        load(tmp_path, size=size)


def test_size_is_for_folders_of_images(mnist: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros((2, 3, 3)), y=[0, 1])
    for source in ("digits", mnist, tmp_path / "data.npz"):
        with pytest.raises(ConfigError, match=r"--size: resizes a folder of images, and .* is none"):
            load(source, size=9)
    with pytest.raises(DataError, match="no such file"):
        load("nothing", size=9)
