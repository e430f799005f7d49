import os
from pathlib import Path

import pytest

from sharedgrad.data.listing import listing
from sharedgrad.errors import DataError


def test_natural_order_of_folders_and_files(tmp_path: Path) -> None:
    for name in ("10", "9", "1", "b2", "b10", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.png").touch()
    folders, files = listing(tmp_path)
    assert [path.name for path in folders] == ["1", "9", "10", "a", "b2", "b10"]
    assert [path.name for path in files] == ["1.png", "9.png", "10.png", "a.png", "b2.png", "b10.png"]


def test_same_number_written_twice_has_one_order(tmp_path: Path) -> None:
    for name in ("01", "1", "001"):
        (tmp_path / name).touch()
    assert [path.name for path in listing(tmp_path)[1]] == ["001", "01", "1"]


def test_hidden_entries_and_pipes_are_left_out(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".DS_Store").touch()
    os.mkfifo(tmp_path / "pipe.png")
    assert listing(tmp_path) == ([], [])


def test_folder_that_cannot_be_listed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be listed"):
        listing(tmp_path / "nothing")
