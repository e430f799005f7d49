"""What sections hand over: tables whose rows are measured one by one; as Markdown and as plain data for JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import floor, isfinite, log10

from benchmarks.timing import Spread

Cell = Spread | float | int | str | None
Row = dict[str, Cell]


@dataclass(frozen=True)
class Case:
    """One row to come. ``measure`` gives the cells under the table's columns."""

    name: str
    measure: Callable[[], Row]


@dataclass(frozen=True)
class Table:
    """A heading, what it measures and in which unit, and its rows; the first column is the case's name."""

    name: str
    title: str
    note: str
    columns: tuple[str, ...]
    cases: tuple[Case, ...]

    def head(self) -> str:
        return "\n".join([f"## {self.title}", "", self.note, "", _line(self.columns), "|---" * len(self.columns) + "|"])

    def line(self, case: Case, row: Row) -> str:
        name = f"{case.name} (others disturbed)" if disturbed(row) else case.name
        return _line([name, *(show(row.get(column)) for column in self.columns[1:])])


@dataclass(frozen=True)
class Bar:
    """What a figure must reach, and what it is to reach at best; a cost must stay below instead."""

    least: float
    aim: float
    cost: bool = False

    def cells(self, value: float | None) -> Row:
        """The columns ``bar`` and ``reached``."""
        text = f"{'≤' if self.cost else '≥'} {self.least:g}, aim {self.aim:g}"
        return {"bar": text, "reached": None if value is None else self._reached(value)}

    def _reached(self, value: float) -> str:
        sign = -1 if self.cost else 1
        if sign * value >= sign * self.aim:
            return "aim"
        return "bar" if sign * value >= sign * self.least else "**no**"


def disturbed(row: Row) -> bool:
    """Whether other processes spoilt the row's figures."""
    return any(isinstance(cell, Spread) and cell.loud for cell in row.values())


def compared(ours: Spread, theirs: Mapping[str, Spread]) -> float | None:
    """The best rival's median over ours: above 1 we are better. None without a rival."""
    return min(spread.median for spread in theirs.values()) / ours.median if theirs else None


def show(cell: Cell) -> str:
    """A cell as text, with three digits that count."""
    if cell is None:
        return "–"
    if isinstance(cell, str | int):
        return str(cell)
    if isinstance(cell, Spread):
        low, high = cell.quartiles
        return f"{_number(cell.median)} ({_number(low)}–{_number(high)})"
    return _number(cell)


def plain(cell: Cell) -> object:
    """A cell as data for JSON."""
    if isinstance(cell, Spread):
        low, high = cell.quartiles
        return {"median": cell.median, "quartiles": [low, high], "runs": list(cell.runs), "others": cell.others}
    return cell


def _number(value: float) -> str:
    if not value or not isfinite(value):
        return f"{value:g}"
    return f"{value:.{max(0, 2 - floor(log10(abs(value))))}f}"


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"
