"""Checking numbers: from an exercise with answers to a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sharedgrad.checking import exercise as exercises
from sharedgrad.checking.answers import Answer, bare
from sharedgrad.checking.diagnosis import Trial, diagnose
from sharedgrad.checking.exercise import Exercise
from sharedgrad.checking.network import Chain
from sharedgrad.checking.report import Explanation, Report
from sharedgrad.checking.right import UPDATES
from sharedgrad.checking.walk import check_network
from sharedgrad.errors import ShapeError

Progress = Callable[[float], None]


def check(exercise: Mapping[str, Any] | str | Path, seconds: float, progress: Progress | None) -> Report:
    """What :func:`sharedgrad.check_numbers` does."""
    data: Any = exercise
    if isinstance(exercise, str) and exercise.lstrip().startswith(("{", "[")):
        data = exercises.loads(exercise)
    elif isinstance(exercise, str | Path):
        data = exercises.load(exercise)
    reports = []
    for reading in exercises.readings(data):
        report = _check(reading, 0.0, None)
        if report.exit_code == 0:
            return _with_layout(report, reading, data)
        reports.append((reading, report))
    reading, report = reports[0]
    return _check(reading, seconds, progress) if _unexplained(report) else report


def _unexplained(report: Report) -> bool:
    explained = {name for e in report.explanations for name in e.arrays}
    return report.verdict == "wrong" and any(a.wrong.any() and a.name not in explained for a in report.arrays)


def _check(reading: Exercise, seconds: float, progress: Progress | None) -> Report:
    if len(reading.calculation.network.nodes) > 1 or reading.calculation.objectives:
        return check_network(reading, seconds, progress)
    chain = Chain(reading.calculation, {}, reading.options)
    given = chain.given(chain.order[0])
    answers = {}
    for name, answer in reading.answers.items():
        node, target = chain.stage(name)
        target = "dx" if node in chain.network.inputs else target
        answers[target] = _as_step(target, answer, given) if target in UPDATES else answer
    return diagnose([Trial(given, answers)], True, seconds, progress)


def _as_step(target: str, answer: Answer, given: Any) -> Answer:
    """An updated weight as the step that was subtracted."""
    base = given[target.removesuffix("_updated")]
    if bare(answer.shape) != bare(base.shape):
        raise ShapeError(f"answers: {target}", f"expected shape {base.shape}, got {answer.shape}")
    return answer.reshaped(*base.shape).minus_from(base)


def _with_layout(report: Report, reading: Exercise, data: Any) -> Report:
    if reading.layout == "NCHW" or data.get("layout"):
        return report
    names = tuple(a.name for a in report.arrays)
    title = "channels last: arrays are samples × height × width × channels"
    convention = Explanation("nhwc", title, names, sort="convention")
    return replace(report, verdict="right under a convention", explanations=(convention, *report.explanations))
