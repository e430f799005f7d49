"""``sharedgrad check FILE.py:NAME`` on the command line: output, exit codes, errors in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from sharedgrad.cli.group import group
from sharedgrad.errors import SharedgradError

RIGHT = "def backward(dout, x, w, b):\n    return dout @ w, dout.T @ x, dout.sum(0)\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(RIGHT, "utf-8")
    return path


def test_right_code_leaves_with_0(file: Path) -> None:
    found = CliRunner().invoke(group, ["check", f"{file}:backward", "--like", "linear"])
    assert found.exit_code == 0, found.output
    assert "Verdict: right." in found.output
    assert max(map(len, found.output.splitlines())) <= 80


def test_wrong_code_leaves_with_1_and_names_the_mistake(file: Path) -> None:
    file.write_text(RIGHT.replace("dout.sum(0)", "dout.mean(0)"), "utf-8")
    found = CliRunner().invoke(group, ["check", f"{file}:backward", "--like", "linear", "--json"])
    data = json.loads(found.output)
    assert found.exit_code == 1
    assert data["verdict"] == "wrong"
    assert data["explanations"][0]["id"] == "db_batch_mean"
    assert data["explanations"][0]["arrays"] == ["db"]


@pytest.mark.parametrize(("hint", "told"), [("1", False), ("3", True)])
def test_hints_tell_as_much_as_was_asked_for(hint: str, told: bool, file: Path) -> None:
    file.write_text(RIGHT.replace("dout.sum(0)", "dout.mean(0)"), "utf-8")
    found = CliRunner().invoke(group, ["check", f"{file}:backward", "--like", "linear", "--hint", hint])
    assert found.exit_code == 1
    assert ("averaged over the batch" in found.output) is told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}:backward"], "--like: expected the layer that"),
        (["{}:backward", "--like", "conv9d"], "there is no layer 'conv9d'"),
        (["{}:nothing", "--like", "linear"], "mine.py has no 'nothing'; it has backward"),
        (["{}", "--like", "linear"], "expected FILE.py:function"),
        (["none.py:f", "--like", "linear"], "none.py: there is no such file"),
        (["{}:backward", "--like", "linear:in"], "expected setting=value"),
    ],
)
def test_what_cannot_be_checked_is_told_in_one_line(arguments: list[str], message: str, file: Path) -> None:
    found = CliRunner().invoke(group, ["check", *(a.format(file) for a in arguments)])
    assert isinstance(found.exception, SharedgradError)
    assert message in str(found.exception)
    assert "\n" not in str(found.exception)
