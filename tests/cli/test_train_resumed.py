"""``sharedgrad train`` that is interrupted, and goes on with ``--resume``."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from sharedgrad.storage import load
from tests.cli.conftest import Cli, blobs

PROGRAM = [sys.executable, "-m", "sharedgrad"]


# Ends a model file: with SLOWLY in the environment 60 epochs of 12 steps take 12 s; a signal finds them running.
SLOWLY = """
import os, time

if "SLOWLY" in os.environ:
    def step(self, gradients, quick=sg.Adam.step):
        time.sleep(1 / 60)
        quick(self, gradients)

    sg.Adam.step = step
"""


def weights(folder: Path | str) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in load(Path(folder) / "model.safetensors").state_dict().items()}


def test_resume_with_nothing_there_starts_afresh(cli: Cli, data: Path, tiny: str) -> None:
    result = cli("train", data, "--model", tiny, "--epochs", 1, "--resume")
    assert result.code == 0
    assert "nothing to resume in runs/rows-tiny: starting afresh" in result.out


def test_resume_of_a_finished_run_says_so_and_writes_what_was_missing(cli: Cli, data: Path, tiny: str) -> None:
    line = ("train", data, "--model", tiny, "--epochs", 1)
    cli(*line)
    before = weights("runs/rows-tiny")
    for name in ("model.safetensors", "run.json", "curves.png"):
        Path("runs/rows-tiny", name).unlink()
    result = cli(*line, "--resume")
    assert result.code == 0
    assert "is finished" in result.out
    assert weights("runs/rows-tiny") == before
    assert Path("runs/rows-tiny/curves.png").exists()


def test_resume_takes_the_latest_run(cli: Cli, data: Path, tiny: str) -> None:
    line = ("train", data, "--model", tiny, "--epochs", 1)
    cli(*line)
    cli(*line)
    assert "the run in runs/rows-tiny-2 is finished" in cli(*line, "--resume").out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_keep_a_checkpoint_and_resume_ends_with_the_same_bits(
    cli: Cli, data: Path, tiny: str, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    with (tmp_path / "tiny.py").open("a") as model:
        model.write(SLOWLY)
    line = ["train", str(data), "--model", tiny, "--epochs", "60", "--batch-size", "4", "--out"]
    with subprocess.Popen(
        [*PROGRAM, *line, "stopped"],
        cwd=tmp_path,
        env={**os.environ, "SLOWLY": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs are born deaf to Ctrl-C
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for(tmp_path / "stopped" / "metrics.csv")
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert err == "sharedgrad train: interrupted; stopped holds a checkpoint, the same line with --resume goes on\n"
    assert not (tmp_path / "stopped" / "model.safetensors").exists()
    Image.fromarray(blobs(1, 3)[0][0]).save("x.png")
    partial = cli("predict", "stopped", "x.png")
    assert partial.code == 0
    assert partial.out.startswith("x.png\t")
    assert re.match(r"stopped: training has not come to its end; this is the model after \d+ of 60 epochs", partial.err)
    assert cli("summary", "stopped").code == 0
    assert "resuming the run in stopped" in cli(*line, "stopped", "--resume").out
    cli(*line, "straight")
    assert weights("stopped") == weights("straight")


def test_ctrl_c_after_the_last_epoch(cli: Cli, data: Path, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    line = ("train", data, "--model", tiny, "--epochs", 1, "--out", "run")
    with monkeypatch.context() as patched:
        patched.setattr("sharedgrad.cli.train.plots.curves", interrupted)
        result = cli(*line)
    assert result.code == 130
    assert result.err == "sharedgrad train: interrupted; run holds a checkpoint, the same line with --resume goes on\n"
    assert "is finished" in cli(*line, "--resume").out
    assert Path("run/curves.png").exists()


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} has not appeared")
