"""The command line, run inside the test's process in an empty folder, and small data for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from sharedgrad.cli import main

TINY = """
import sharedgrad as sg

def tiny(input_shape, classes):
    channels, height, width = input_shape
    return sg.Network(
        {
            "conv": sg.Conv2d(channels, 3, 3),
            "relu": sg.ReLU(),
            "drop": sg.Dropout(0.2),
            "flat": sg.Flatten(),
            "fc": sg.Linear(3 * (height - 2) * (width - 2), classes),
        },
        input_shape,
    )
"""


class Result(NamedTuple):
    code: object
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of a run that failed."""
        assert self.code == 2, (self.out, self.err)
        assert self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.err
        return self.err.rstrip("\n")


Cli = Callable[..., Result]


def blobs(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of 6×6 in three classes: one bright row each, and noise."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 3
    x = rng.integers(0, 60, (count, 6, 6), dtype=np.uint8)
    x[np.arange(count), 2 * y] += 180
    return x, y


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        return Result(end.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """rows.npz: 60 training images and no test part."""
    x, y = blobs(60, 0)
    np.savez(tmp_path / "rows.npz", x=x, y=y)
    return tmp_path / "rows.npz"


@pytest.fixture
def tested(tmp_path: Path) -> Path:
    """tested.npz: 60 training and 30 test images."""
    (x, y), (x_test, y_test) = blobs(60, 0), blobs(30, 1)
    np.savez(tmp_path / "tested.npz", x=x, y=y, x_test=x_test, y_test=y_test)
    return tmp_path / "tested.npz"


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """A model file and its function."""
    (tmp_path / "tiny.py").write_text(TINY)
    return "tiny.py:tiny"
