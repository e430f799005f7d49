"""The README's examples run: the Python prints what stands below it, and every command does its work."""

from __future__ import annotations

import contextlib
import gzip
import io
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sharedgrad.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize(("page", "least"), [("README.md", 7), ("docs/own-parts.md", 9)])
def test_every_python_block_prints_the_text_below_it(
    page: str, least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / page).read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```(?:\n```text\n(.*?)```)?", text, re.DOTALL)
    assert len(blocks) >= least
    namespace: dict[str, object] = {}
    for code, expected in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, page, "exec"), namespace)
        assert printed.getvalue() == expected


def make_files(folder: Path) -> None:
    """Small files under the names that the README's commands have."""
    rng = np.random.default_rng(0)
    (folder / "path/to/mnist").mkdir(parents=True)
    for name, shape in {"train-images-idx3": (40, 28, 28), "train-labels-idx1": (40,)}.items():
        pixels = rng.integers(0, 256, shape, np.uint8) if len(shape) == 3 else np.arange(40, dtype=np.uint8) % 10
        header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">i4").tobytes()
        with gzip.open(folder / f"path/to/mnist/{name}-ubyte.gz", "wb") as file:
            file.write(header + pixels.tobytes())
    for number in range(20):
        place = folder / "path/to/photos" / ("cats", "dogs")[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(place)
    np.savez(folder / "arrays.npz", x=rng.random((20, 1, 8, 8)), y=np.arange(20) % 2)
    (folder / "my_net.py").write_text((ROOT / "examples/tiny_cnn.py").read_text().replace("def tiny_cnn", "def build"))
    (folder / "answers.json").write_text(
        '{"layer": "conv1d", "x": [1, 2, 3], "w": [0.3, 0.5], "upstream": [-0.1, 0.2], "answers": {"dw": [0.3, 0.4]}}'
    )
    (folder / "examples").symlink_to(ROOT / "examples")


def test_every_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training for one epoch, as far as the line does not say how many."""
    shell = "".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
    commands = re.findall(r"^(sharedgrad .*?)\s*(?:#.*)?$", shell, re.MULTILINE)
    assert {line.split()[1] for line in commands} == {"train", "predict", "summary", "explain", "check", "info"}
    make_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    for line in commands:
        words, _, target = line.partition(" > ")
        arguments = shlex.split(words)[1:]
        quick = ["--epochs", "1"] if arguments[0] == "train" and "--epochs" not in arguments else []
        printed = io.StringIO()
        with pytest.raises(SystemExit) as ended, contextlib.redirect_stdout(printed):
            main([*arguments, *quick])
        assert ended.value.code == 0, line
        if target:
            (tmp_path / target).write_text(printed.getvalue(), "utf-8")
