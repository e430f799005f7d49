"""What the code check says of published solutions: ``python -m tests.checking.code.students`` prints the table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sharedgrad.checking.code import api
from sharedgrad.checking.code.process import Limits
from sharedgrad.checking.report import Report

HERE = Path(__file__).parent.parent
LAYERS = {
    "conv_backward_naive": "conv2d", "conv_backward": "conv2d",
    "max_pool_backward_naive": "maxpool2d", "pool_backward": "maxpool2d",
}  # fmt: skip


@dataclass(frozen=True)
class Student:
    """One published solution with a human's label."""

    file: str
    function: str
    verdict: str
    faults: tuple[str, ...]
    label: str

    @property
    def named(self) -> bool:
        """Whether the label names faults at all."""
        return bool(self.faults)


@cache
def students() -> tuple[Student, ...]:
    data = json.loads((HERE / "students.json").read_text("utf-8"))["students"]
    return tuple(Student(s["file"], s["function"], s["verdict"], tuple(s["faults"]), s["label"]) for s in data)


@cache
def report(file: str, function: str) -> Report:
    source = api.of_file(f"{HERE / 'students' / file}:{function}", None)
    return api.check(source, LAYERS[function], None, Limits(), 4.0)


def ids(student: Student) -> list[str]:
    """Everything that is named, mistakes that cannot be told apart included."""
    found = report(student.file, student.function)
    return [i for e in found.explanations for i in (*e.id.split(" + "), *e.same)]


def outcome(student: Student) -> str:
    """ "right", "named" (the labelled fault), "partly" (another one of its faults), "other", "abstained", "missed" or "accused"."""
    found = report(student.file, student.function)
    if not student.faults:
        return "right" if found.exit_code == 0 and found.verdict == student.verdict else "accused"
    if found.verdict != "wrong":
        return "missed"
    named = ids(student)
    if not named:
        return "abstained"
    if student.faults[0] in named:
        return "named"
    return "partly" if set(student.faults) & set(named) else "other"


def main() -> None:
    counts: dict[str, int] = {}
    for student in sorted(students(), key=lambda s: (s.verdict, s.file)):
        result = outcome(student)
        counts[result] = counts.get(result, 0) + 1
        found = report(student.file, student.function)
        print(
            f"{result:9} {student.file:40} {' '.join(student.faults):45} {' '.join(e.id for e in found.explanations)}"
        )
    print(", ".join(f"{n} {name}" for name, n in sorted(counts.items())), "of", len(students()))


if __name__ == "__main__":
    main()
