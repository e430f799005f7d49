"""The program itself: its entry points, its help, and what importing the package does not import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sharedgrad
from tests.cli.conftest import Cli

LAZY = ("click", "rich", "PIL", "matplotlib", "sklearn", "safetensors", "torch", "scipy")


def test_python_m(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "sharedgrad", "--version"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"sharedgrad {sharedgrad.__version__}\n"
    assert done.stderr == ""


def test_an_error_in_a_process_of_its_own(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "sharedgrad", "train", "nowhere"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("sharedgrad train: nowhere: there is no such file or folder;")
    assert done.stderr.count("\n") == 1


def test_import_is_light() -> None:
    code = f"import sys, sharedgrad; print([name for name in {LAZY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_help_without_arguments(cli: Cli) -> None:
    result = cli()
    assert result.code == 0
    assert result.out == cli("--help").out
    places = [result.out.index(f"\n  {command} ") for command in ("train", "predict", "summary", "info")]
    assert places == sorted(places)


@pytest.mark.parametrize("command", ["train", "predict", "summary", "info"])
def test_help_of_a_command_has_an_example(cli: Cli, command: str) -> None:
    result = cli(command, "--help")
    assert result.code == 0
    assert f"    sharedgrad {command}" in result.out


def test_a_stream_that_is_closed(tmp_path: Path) -> None:
    line = f"{sys.executable} -m sharedgrad summary lenet5 >&-"
    done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_stream_that_is_full(tmp_path: Path) -> None:
    line = f"{sys.executable} -m sharedgrad summary lenet5 >/dev/full"
    done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "sharedgrad summary: output: No space left on device\n"


def test_a_terminal_that_does_not_know_delta(tmp_path: Path, data: Path, tiny: str) -> None:
    line = [sys.executable, "-m", "sharedgrad", "train", str(data), "--model", tiny, "--epochs", "1"]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"upstream \u03b4" in done.stdout
