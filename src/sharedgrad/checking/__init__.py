"""Check: say which number is wrong, and which mistake explains it.

given.py      one layer with its numbers           columns.py, tables.py   its definition as tables of terms
rules.py      wrong procedures, which compose      mistakes/               the library, catalogue.toml its words
answers.py    numbers with what their digits say   conventions.py          other choices, which are no mistakes
search.py     which mistakes reproduce an answer   innocence.py            false alarms
diagnosis.py  the verdict on one layer             walk.py, network.py     a network step by step
report.py     the finding, words.py as a document  exercises.py, classroom.py, audit.py   for who teaches
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sharedgrad.checking.report import Report

__all__ = ["check_numbers"]


def check_numbers(
    exercise: Mapping[str, Any] | str | Path,
    seconds: float = 10.0,
    progress: Callable[[float], None] | None = None,
) -> Report:
    """Say which of somebody's numbers are wrong, and which mistake explains them.

    Args:
        exercise: The layer or network with its numbers and "answers", as plain data, JSON text, or a .json file.
        seconds: How long pairs of mistakes are tried where no single one fits.
        progress: Called with the part that is done while they are.

    Raises:
        SharedgradError: The exercise cannot be read; one line that names the field.

    >>> report = check_numbers({"layer": "conv1d", "x": [1, 2, 3], "w": [0.3, 0.5], "upstream": [-0.1, 0.2],
    ...                         "answers": {"dw": [0.15, 0.2]}})
    >>> report.verdict, report.ids[0]
    ('wrong', 'mean_over_positions')
    """
    from sharedgrad.checking import api  # the library of mistakes is loaded when it is used

    return api.check(exercise, seconds, progress)
