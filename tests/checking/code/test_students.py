"""Published solutions, labelled by hand before the rules were written: nobody right is accused, faults are named."""

from __future__ import annotations

import pytest

from tests.checking.code.students import Student, outcome, report, students

RIGHT = sorted({s for s in students() if not s.faults}, key=lambda s: s.file)
WRONG = [s for s in students() if s.faults]
QUICK = ("conv_crop_minus_pad.py", "conv_crop_one.py", "conv_square_only.py", "pool_all_ties.py", 
         "pool_cell_assigned.py", "dlai_conv_stride_missing.py")  # fmt: skip


@pytest.mark.parametrize("student", RIGHT, ids=lambda s: f"{s.file}:{s.label[:12]}")
def test_nobody_right_is_accused(student: Student) -> None:
    found = report(student.file, student.function)
    assert (found.verdict, found.exit_code) == (student.verdict, 0), str(found)


@pytest.mark.parametrize("file", QUICK)
def test_the_fault_is_named(file: str) -> None:
    student = next(s for s in WRONG if s.file == file)
    assert outcome(student) == "named", str(report(student.file, student.function))


@pytest.mark.slow
def test_nine_of_ten_are_named_right() -> None:
    results = [outcome(s) for s in WRONG]
    assert results.count("named") >= 0.9 * len(results), dict(zip([s.file for s in WRONG], results, strict=True))
    assert "missed" not in results
    assert results.count("other") <= 0.05 * len(results)
