"""What one line reaches: digits and MNIST, as promised."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MNIST = Path(__file__).parents[2].parent / "shared" / "data" / "mnist"


def train(folder: Path, *line: str) -> float:
    """The accuracy on data not trained on, of the program run from start to end."""
    command = [sys.executable, "-m", "sharedgrad", "train", *line, "--out", "run"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return float(json.loads((folder / "run" / "run.json").read_text())["results"]["accuracy"])


@pytest.mark.slow
def test_digits(tmp_path: Path) -> None:
    accuracies = []
    for seed in range(5):
        folder = tmp_path / str(seed)
        folder.mkdir()
        accuracies.append(train(folder, "digits", "--seed", str(seed)))
    assert sum(accuracies) / 5 >= 0.985, accuracies


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST is not beside the repository, in ../shared/data/mnist")
def test_mnist_lenet5(tmp_path: Path) -> None:
    assert train(tmp_path, str(MNIST), "--model", "lenet5", "--epochs", "3") >= 0.985
