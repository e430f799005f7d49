"""A class's answers from a table: a row for each student, and the mistakes by frequency.

The table is a CSV file ``student,array,index,value`` with one number a row; ``exercises`` writes a template of it. A
row that cannot be read is named, and the rest is graded.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sharedgrad.checking.answers import Typed
from sharedgrad.checking.api import check
from sharedgrad.checking.catalogue import catalogue
from sharedgrad.checking.exercise import load
from sharedgrad.checking.report import Report
from sharedgrad.document import Document, Paragraph, Section, Table
from sharedgrad.errors import ConfigError, SharedgradError

_COLUMNS = ["student", "array", "index", "value"]
_MOST_ROWS = 1_000_000
_LISTED = 20


@dataclass(frozen=True)
class Grades:
    """What a class has answered.

    Attributes:
        reports: Student -> report.
        problems: What could not be read, in sentences.
        answered: Student -> (arrays answered, arrays asked).
    """

    reports: Mapping[str, Report]
    problems: tuple[str, ...]
    answered: Mapping[str, tuple[int, int]]

    def frequencies(self) -> list[tuple[str, int]]:
        """(mistake, number of students), the most frequent first."""
        counts = Counter(
            i for r in self.reports.values() if r.verdict == "wrong" for i in {e.id for e in r.explanations[:1]}
        )
        return counts.most_common()

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        students = {
            name: {"answered": self.answered[name][0], "asked": self.answered[name][1], **report.to_json()}
            for name, report in self.reports.items()
        }
        return {"students": students, "mistakes": dict(self.frequencies()), "problems": list(self.problems)}

    def document(self) -> Document:
        """A row for each student, the mistakes by frequency, and what could not be read."""
        rows = []
        for name, report in self.reports.items():
            wrong = ", ".join(a.name for a in report.arrays if a.is_wrong)
            done, asked = self.answered[name]
            first = report.explanations[0].id if report.explanations else ""
            rows.append((name, report.verdict, f"{done} of {asked}", wrong, first))
        if not rows and not self.problems:
            return Document("Class", (Paragraph.of("No student has answered yet: the column value is empty."),))
        blocks = [Table(("student", "verdict", "arrays", "wrong", "mistake"), tuple(rows))]
        sections = [Section("Students", tuple(blocks))]
        if counts := self.frequencies():
            named = [(str(count), _title(id), id) for id, count in counts]
            sections.append(Section("Mistakes", (Table(("students", "mistake", "id"), tuple(named)),)))
        if self.problems:
            more = len(self.problems) - _LISTED
            shown = [Paragraph.of(p) for p in self.problems[:_LISTED]]
            shown += [Paragraph.of(f"… and {more} more")] if more > 0 else []
            sections.append(Section("Rows that could not be read", tuple(shown)))
        return Document("Class", tuple(sections))


def _title(id: str) -> str:
    return "; and ".join(catalogue()[part].title if part in catalogue() else part for part in id.split(" + "))


def grade(exercises: str | Path, answers: str | Path, seconds: float = 2.0) -> Grades:
    """Grade a table of answers.

    Args:
        exercises: One exercise for all (a .json file), or the folder with an ``exercise-NAME.json`` for each student.
        answers: The .csv file.
        seconds: How long pairs of mistakes are tried for each student.

    Raises:
        ConfigError: The files cannot be read at all.
    """
    cells, problems = _read(Path(answers))
    reports: dict[str, Report] = {}
    answered: dict[str, tuple[int, int]] = {}
    for student, given in cells.items():
        try:
            exercise = _exercise(Path(exercises), student)
            arrays, asked = _arrays(student, given, exercise, problems)
            answered[student] = (len(arrays), asked)
            if not arrays:
                problems.append(f"{student}: no array is complete")
                continue
            reports[student] = check({**exercise, "answers": arrays}, seconds, None)
        except SharedgradError as error:
            problems.append(f"{student}: {error}")
    return Grades(reports, tuple(problems), answered)


def _exercise(path: Path, student: str) -> dict[str, Any]:
    if not path.is_dir():
        return dict(load(path))
    if not re.fullmatch(r"[\w.-]+", student):
        raise ConfigError(f"student {student!r}", "is no name of an exercise file")
    return dict(load(path / f"exercise-{student}.json"))


Cells = dict[str, dict[str, dict[tuple[int, ...], Typed]]]


def _read(path: Path) -> tuple[Cells, list[str]]:
    cells: Cells = {}
    problems: list[str] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(stream)
            head = [name.strip().lower() for name in next(rows, [])]
            if head != _COLUMNS:
                raise ConfigError(path, f"expected the columns {','.join(_COLUMNS)}, got {','.join(head) or 'nothing'}")
            for number, row in enumerate(rows, 2):
                if number > _MOST_ROWS:
                    raise ConfigError(path, f"has more than {_MOST_ROWS:,} rows", "grade one exercise at a time")
                if row and row[-1].strip():
                    _take(row, number, cells, problems)
    except OSError as error:
        raise ConfigError(path, f"cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(path, f"is not a CSV file in UTF-8 ({error})") from None
    return cells, problems


def _take(row: list[str], number: int, cells: Cells, problems: list[str]) -> None:
    if len(row) != len(_COLUMNS):
        problems.append(f"row {number}: expected {len(_COLUMNS)} values, got {len(row)}")
        return
    student, array, index, value = (field.strip() for field in row)
    try:
        place = tuple(int(i) for i in re.findall(r"\d+", index))
        typed = Typed(value.replace("−", "-"))
        if not np.isfinite(typed):
            raise ValueError
    except ValueError:
        problems.append(f"row {number} ({student}, {array}): {value[:30]!r} is no number")
        return
    here = cells.setdefault(student, {}).setdefault(array, {})
    if place in here:
        problems.append(f"row {number} ({student}): {array}[{index}] is answered twice; the first counts")
    here.setdefault(place, typed)


def _arrays(
    student: str, given: Mapping[str, Mapping[tuple[int, ...], Typed]], exercise: Mapping[str, Any], problems: list[str]
) -> tuple[dict[str, Any], int]:
    """The complete arrays of one student, as nested lists that remember how the numbers were written."""
    asked = exercise.get("answers", {})
    asked = asked if isinstance(asked, Mapping) else {}
    arrays = {}
    for name, cells in given.items():
        shape = np.shape(asked[name]) if name in asked else _extent(cells)
        places = list(np.ndindex(*shape))
        short = {tuple(i for i, n in zip(p, shape, strict=True) if n > 1): p for p in places}
        found = {place if place in cells else short.get(place, place): v for place, v in cells.items()}
        if set(found) != set(places):
            problems.append(f"{student}: {name}: {len(found)} of {len(places)} numbers, or an index outside the array")
            continue
        arrays[name] = _nested(found, shape)
    return arrays, len(asked) or len(given)


def _extent(cells: Mapping[tuple[int, ...], Typed]) -> tuple[int, ...]:
    axes = max(len(place) for place in cells)
    full = [place for place in cells if len(place) == axes]
    return tuple(max(place[a] for place in full) + 1 for a in range(axes))


def _nested(cells: Mapping[tuple[int, ...], Typed], shape: tuple[int, ...], head: tuple[int, ...] = ()) -> Any:
    if len(head) == len(shape):
        return cells[head]
    return [_nested(cells, shape, (*head, i)) for i in range(shape[len(head)])]
