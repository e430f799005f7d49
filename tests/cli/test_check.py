"""``sharedgrad check``: what it prints, its exit codes, and one line for whatever cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXERCISE: dict[str, Any] = {
    "layer": "conv1d", "x": [1, 2, 3], "w": [0.3, 0.5], "b": 0, "upstream": [-0.1, 0.2],
}  # fmt: skip
Run = Callable[..., Any]


@pytest.fixture
def answers(tmp_path: Path) -> Callable[..., str]:
    def write(**given: Any) -> str:
        path = tmp_path / "answers.json"
        path.write_text(json.dumps({**EXERCISE, "answers": given}))
        return str(path)

    return write


@pytest.mark.parametrize(
    ("given", "code", "verdict"),
    [
        ({"dw": [0.3, 0.4]}, 0, "right"),
        ({"dw": [0.15, 0.2]}, 1, "wrong"),
        ({"dw": [0.4, 0.3]}, 3, "cannot tell"),
        ({"dw": [0.4, 0.3], "y": [1.3, 2.1]}, 1, "wrong"),
    ],
)
def test_exit_codes(cli: Run, answers: Callable[..., str], given: Any, code: int, verdict: str) -> None:
    done = cli("check", answers(**given))
    assert done.code == code, done.err
    assert f"Verdict: {verdict}." in done.out
    assert max(map(len, done.out.splitlines())) <= 80


def test_json(cli: Run, answers: Callable[..., str]) -> None:
    done = cli("check", answers(dw=[0.15, 0.2]), "--json")
    data = json.loads(done.out)
    assert data["verdict"] == "wrong"
    assert {"id", "title", "arrays", "why", "fix"} <= set(data["explanations"][0])


def test_hints_tell_more_step_by_step(cli: Run, answers: Callable[..., str]) -> None:
    path = answers(dw=[0.15, 0.2])
    texts = [cli("check", path, "--hint", str(n)).out for n in (1, 2, 3, 4)]
    assert [len(t) for t in texts] == sorted(len(t) for t in texts)
    assert "dw" not in texts[0]
    assert "averaged" not in texts[1]
    assert "averaged" in texts[2]
    assert "0.3" not in texts[2]
    assert "leave out the division" in " ".join(texts[3].split())


def test_a_page_is_written(cli: Run, answers: Callable[..., str], tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert cli("check", answers(dw=[0.15, 0.2]), "--html", str(page)).code == 1
    assert "averaged" in page.read_text()


def test_exercises_and_a_class(cli: Run, tmp_path: Path) -> None:
    done = cli("check", "--exercise", "conv2d", "--seed", "7", "--students", "2", "--out", str(tmp_path / "sheets"))
    assert done.code == 0, done.err
    table = tmp_path / "sheets" / "answers.csv"
    table.write_text("student,array,index,value\n1,db,0,123\n")
    done = cli("check", str(tmp_path / "sheets"), "--class", str(table))
    assert done.code == 0, done.err
    assert "wrong" in done.out
    assert "Compute" in cli("check", "--exercise", "linear").out


def test_an_audit(cli: Run, answers: Callable[..., str]) -> None:
    done = cli("check", answers(dw=[0.3, 0.4]), "--audit")
    assert done.code == 1
    assert "stride_missing_in_loop" in done.out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is not valid JSON"),
        ("[1, 2]", "expected an object"),
        ('{"layer": "conv9d"}', "answers"),
        ('{"layer": "conv9d", "answers": {"dw": [1]}}', "there is no layer"),
        ('{"layer": "conv1d", "x": [1], "w": [1], "upstream": [1], "answers": {"dq": [1]}}', "there is no such array"),
        ('{"layer": "conv1d", "x": [1], "w": [1], "upstream": [1], "answers": {"dw": ["a"]}}', "expected numbers"),
        ('{"layer": "conv1d", "x": [1, 2], "w": [1], "upstream": [1], "answers": {"dw": [1]}}', "expected shape"),
    ],
)
def test_bad_input_is_one_line(cli: Run, tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    done = cli("check", str(path))
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1
    assert done.err.startswith("sharedgrad check: ")
    assert words in done.err


def test_a_missing_file_is_one_line(cli: Run) -> None:
    done = cli("check", "nowhere.json")
    assert (done.code, done.out) == (2, "")
    assert "nowhere.json" in done.err
