"""Exercises, their keys, a class's answers, and the audit of a test."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad.checking.audit import audit
from sharedgrad.checking.classroom import grade
from sharedgrad.checking.distinguish import classes, drawn, telling
from sharedgrad.checking.exercises import SHEETS, key, question, sheet, write
from sharedgrad.document import terminal
from sharedgrad.errors import ConfigError


@pytest.mark.parametrize("layer", SHEETS)
def test_the_key_of_every_exercise_is_right(layer: str) -> None:
    exercise = sheet(layer.lower(), seed=7)
    data = exercise.to_json()
    assert sg.check_numbers(data).verdict == "right"
    assert json.loads(json.dumps(data)) == data
    for document in (question(exercise, "Exercise"), key(exercise, "Key")):
        assert max(map(len, terminal.render(document).splitlines())) <= 80


@pytest.mark.parametrize("layer", ["conv2d", "linear", "maxpool2d"])
def test_different_mistakes_give_different_answers(layer: str) -> None:
    """As different as on generic numbers: what is one formula stays one."""
    exercise = sheet(layer, seed=7)
    for name in exercise.asked:
        generic = drawn(exercise.given, 1, friendly=False)
        told_apart, possible = len(classes(exercise.given, name)), len(classes(generic, name))
        assert told_apart >= 0.9 * possible, (name, told_apart, possible)


def test_the_same_seed_gives_the_same_numbers_and_another_others() -> None:
    one, again, other = (sheet("conv2d", seed, number).to_json() for seed, number in ((7, 0), (7, 0), (7, 1)))
    assert one == again
    assert one != other


def test_numbers_that_tell_two_mistakes_apart() -> None:
    given = sheet("conv2d", 7).given.replaced(dy=np.ones((1, 1, 3, 2)))
    probe = telling(given, "dw", ("dw_true_convolution",), ("upstream_ignored",))
    assert probe is not None
    assert telling(given, "dx", ("dx_kernel_not_rotated",), ("dx_rotated_in_scatter",)) is None


def filled(template: Path, folder: Path, change: Any) -> Path:
    """The template with the right values, changed by ``change(student, array, values)``."""
    rows = list(csv.DictReader(template.read_text().splitlines()))
    values: dict[tuple[str, str], Any] = {}
    for name in {row["student"] for row in rows}:
        data = json.loads((folder / f"exercise-{name}.json").read_text())
        for array, right in data["answers"].items():
            values[name, array] = change(name, array, np.array(right))
    lines = ["student,array,index,value"]
    for row in rows:
        index = tuple(int(i) for i in row["index"].split())
        lines.append(f"{row['student']},{row['array']},{row['index']},{values[row['student'], row['array']][index]:g}")
    path = folder / "answers.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_class_is_graded(tmp_path: Path) -> None:
    files = write("conv2d", 7, 3, tmp_path)
    assert {f.suffix for f in files} == {".txt", ".tex", ".html", ".json", ".csv"}

    def change(student: str, array: str, values: np.ndarray) -> np.ndarray:
        return values[..., ::-1, ::-1] if (student, array) == ("2", "dw") else values

    answers = filled(tmp_path / "answers-template.csv", tmp_path, change)
    answers.write_text(answers.read_text() + "9,dw,0 0,5\n1,dw,0,0,x\nnonsense\n3,dx,0 0 0 0,abc\n")
    grades = grade(tmp_path, answers)
    assert {n: r.verdict for n, r in grades.reports.items()} == {"1": "right", "2": "wrong", "3": "right"}
    assert grades.frequencies() == [("dw_flipped", 1)]
    assert len(grades.problems) == 4
    assert any("row" in p and "nonsense" not in p for p in grades.problems)
    text = terminal.render(grades.document())
    assert "dw_flipped" in text
    json.dumps(grades.to_json())


@pytest.mark.parametrize(
    "content", ["", "a,b\n", "student,array,index,value\n1,dw\n", "\x00\xff", 'student,array,index,value\n"1,dw,0,2\n']
)
def test_a_strange_table_gets_a_clear_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "answers.csv").write_text(content)
    (tmp_path / "exercise.json").write_text(json.dumps(sheet("linear", 1).to_json()))
    try:
        grades = grade(tmp_path / "exercise.json", tmp_path / "answers.csv")
    except ConfigError as error:
        problems = [str(error)]
    else:
        assert not grades.reports
        problems = list(grades.problems)
    assert problems
    assert not any("\n" in p for p in problems)


def test_a_test_that_compares_means_lets_turned_gradients_pass() -> None:
    rng = np.random.default_rng(0)
    test = {"layer": "conv2d", "x": rng.normal(size=(2, 3, 6, 6)).tolist(), "w": rng.normal(size=(2, 3, 3, 3)).tolist(),
            "b": [0.0, 0.0], "upstream": rng.normal(size=(2, 2, 4, 4)).tolist()}  # fmt: skip
    by_mean = audit({**test, "compare": "mean"}).passing
    assert {"dw_flipped", "dw_summed_over_channels"} <= set(by_mean["dw"])
    by_elements = audit(test).passing
    assert not {"dw_flipped", "dw_summed_over_channels", "mean_over_positions"} & set(by_elements["dw"])
    assert "stride_missing_in_loop" in by_elements["dw"]  # with stride 1 nobody sees it


def test_a_pooling_test_without_overlap_sees_no_overwriting() -> None:
    rng = np.random.default_rng(0)
    course = {"layer": "maxpool2d", "kernel_size": 2, "stride": 2, "x": rng.normal(size=(3, 2, 8, 8)).tolist(),
              "upstream": rng.normal(size=(3, 2, 4, 4)).tolist()}  # fmt: skip
    assert {"pool_overwrite", "pool_window_overwritten", "pool_all_ties"} <= set(audit(course).passing["dx"])
    better = {**course, "stride": 1, "upstream": rng.normal(size=(3, 2, 7, 7)).tolist()}
    assert not {"pool_overwrite", "pool_window_overwritten"} & set(audit(better).passing["dx"])


def test_an_upstream_of_ones_hides_its_own_absence() -> None:
    test = {
        "layer": "conv1d",
        "x": [1.0, 2.0, 4.0, 7.0],
        "w": [0.5, -1.0],
        "upstream": [1.0, 1.0, 1.0],
        "answers": ["dw"],
    }
    assert {"upstream_ignored", "dw_true_convolution"} <= set(audit(test).passing["dw"])
