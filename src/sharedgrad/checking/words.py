"""A report as a document: the verdict, each array with its first wrong number written out, and what explains it.

With a hint from 1 to 4 it tells as much as a good teacher would at that step: that something is wrong; where; what kind
of mistake; the line to change, with the right numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sharedgrad.document import Block, Document, Equation, Grid, Paragraph, Row, Section, Symbol, Table, from_terms
from sharedgrad.errors import ConfigError
from sharedgrad.geometry import text
from sharedgrad.parameter import Array

if TYPE_CHECKING:
    from sharedgrad.checking.report import ArrayReport, Explanation, Report

THAT, WHERE, KIND, LINE = 1, 2, 3, 4
_MOST_TERMS = 12
_LARGEST_GRID = 64

_VERDICTS = {
    "right": "All your numbers are right.",
    "right under a convention": "All your numbers are right, by another convention.",
    "wrong": "At least one of your numbers is wrong.",
    "not a mistake": "Some numbers differ, but not by a mistake.",
    "cannot tell": "These numbers allow two readings; nobody can tell which one is yours.",
}


def document(report: Report, hint: int | None = None) -> Document:
    """The report laid out in blocks.

    Args:
        report: What the check has found.
        hint: 1 to 4; None tells everything.

    Raises:
        ConfigError: There is no such hint.
    """
    level = LINE if hint is None else hint
    if level not in (THAT, WHERE, KIND, LINE):
        raise ConfigError("hint", f"expected a number from 1 to 4, got {hint!r}")
    blocks: list[Block] = [Paragraph.of(f"Verdict: {report.verdict}. {_VERDICTS[report.verdict]}")]
    if report.verdict == "wrong" and level == THAT:
        return Document("Check", tuple(blocks))
    if report.arrays:
        blocks.append(_table(report.arrays))
    if report.verdict == "cannot tell":
        blocks += [_section(e, level, f"Reading {n}: ") for n, e in enumerate(report.readings, 1)]
    elif level >= KIND or report.verdict != "wrong":
        blocks += [_section(e, level, "") for e in _shown(report)]
    if level == LINE:
        blocks += [_written_out(a) for a in report.arrays if a.is_wrong and report.verdict != "right"]
    if level >= WHERE:
        blocks += [Paragraph.of(r) for r in report.remarks]
    return Document("Check", tuple(blocks))


def plain(report: Report, hint: int | None = None, width: int = 80, color: bool = False) -> str:
    """The document as text for a terminal or a pipe."""
    from sharedgrad.document import terminal

    return terminal.render(document(report, hint), width, color)


def to_json(report: Report, hint: int | None = None) -> dict[str, Any]:
    """The report as plain data, with as much as the hint tells."""
    data = report.to_json()
    level = LINE if hint is None else hint
    if report.verdict != "wrong" or level == LINE:
        return data
    for array in data["arrays"]:
        if level < KIND:
            array.pop("structure", None)
        array.get("first_wrong", {}).pop("right", None)
    if level == THAT:
        data["arrays"] = []
        data["remarks"] = []
    keep = {"id", "title", "arrays"} if level == KIND else set()
    data["explanations"] = [{k: v for k, v in e.items() if k in keep} for e in data["explanations"] if keep]
    return data


def _shown(report: Report) -> list[Explanation]:
    """Explanations worth reading: at most three for each array."""
    counts: dict[str, int] = {}
    shown = []
    for e in report.explanations:
        if all(counts.get(name, 0) >= 3 for name in e.arrays) and e.arrays:
            continue
        shown.append(e)
        for name in e.arrays:
            counts[name] = counts.get(name, 0) + 1
    return shown


def _table(arrays: tuple[ArrayReport, ...]) -> Table:
    rows = []
    for a in arrays:
        wrong, cell = int(a.wrong.sum()), a.first_wrong
        place = "" if cell is None else f"[{', '.join(map(str, cell))}]"
        if not a.is_wrong:
            verdict = "right for your earlier numbers" if a.given_earlier else "right"
        elif a.yours.size != a.right.size:
            verdict = f"shape {text(a.yours.shape) or 'a number'}, expected {text(a.right.shape) or 'a number'}"
        else:
            verdict = f"{wrong} of {a.right.size} wrong"
        rows.append((a.name, verdict, place))
    return Table(("array", "numbers", "first wrong"), tuple(rows))


def _section(e: Explanation, level: int, prefix: str) -> Section:
    blocks: list[Block] = []
    notes = f" ({e.notes})" if e.notes else ""
    blocks.append(Paragraph.of(f"In {', '.join(e.arrays)}{notes}." if e.arrays else e.notes))
    if level == LINE or e.sort != "mistake":
        blocks += [Paragraph.of(sentence) for sentence in (e.why, e.fix and f"Instead: {e.fix}") if sentence]
    if e.same and level == LINE:
        blocks.append(Paragraph.of(f"The same numbers come from: {', '.join(e.same)}."))
    return Section(prefix + e.title, tuple(blocks), key=e.id)


def _written_out(a: ArrayReport) -> Section:
    """The first wrong number with its own sum, yours beside it, and the arrays where they are small."""
    blocks: list[Block] = [Paragraph.of(f"{sentence[0].upper()}{sentence[1:]}.") for sentence in a.structure]
    cell = a.first_wrong
    if cell is not None:
        symbol = Symbol(a.name.rpartition(".")[2], a.right)
        yours = float(a.yours.reshape(a.right.shape)[cell])
        if a.terms is not None and len(a.terms):
            symbols = {name: Symbol(name, f.array) for name, f in a.terms.factors.items()}
            formula = from_terms(a.terms, symbols, _MOST_TERMS)
            blocks.append(Equation(symbol.cell(*cell), formula, float(a.right[cell])))
            blocks.append(Paragraph.of("Yours is ", yours, "."))
        else:
            blocks.append(Paragraph.of("There it should be ", float(a.right[cell]), "; yours is ", yours, "."))
    if a.yours.size == a.right.size and a.right.size <= _LARGEST_GRID and a.right.size > 1:
        blocks.append(_grids(a))
    return Section(f"The first wrong number of {a.name}", tuple(blocks), key=a.name)


def _grids(a: ArrayReport) -> Row:
    yours = a.yours.reshape(a.right.shape)
    marks = {tuple(int(i) for i in index): "wrong" for index in np.argwhere(a.wrong.reshape(a.right.shape))}
    mine = Grid(Symbol(f"your {a.name}", _two_axes(yours)), _two_axes_marks(marks, yours))
    return Row((mine, Grid(Symbol(f"right {a.name}", _two_axes(a.right)))))


def _two_axes(array: Array) -> Array:
    return array.reshape(1, -1) if array.ndim < 2 else array


def _two_axes_marks(marks: dict[tuple[int, ...], str], array: Array) -> dict[tuple[int, ...], str]:
    return {(0, *index): mark for index, mark in marks.items()} if array.ndim < 2 else marks
