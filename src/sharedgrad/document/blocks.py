"""What a document of steps is made of. A block holds numbers and names; renderers lay them out and compute nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isclose, isfinite, prod

import numpy as np

from sharedgrad.document.expression import Cell, Expression, Number, Symbol, is_general
from sharedgrad.document.numbers import DIGITS, show
from sharedgrad.parameter import Array

Index = tuple[int, ...]
Part = str | Expression | float
MARKS = ("used", "result", "zero", "winner", "wrong", "right", "expected")


class Block:
    """One piece of a document."""


@dataclass(frozen=True)
class Paragraph(Block):
    """Running text; a string is text and never markup, a formula is printed with names, a float is rounded."""

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, *parts: Part) -> Paragraph:
        """``Paragraph.of("The sum is ", 0.3, ".")``."""
        return cls(parts)


@dataclass(frozen=True)
class Equation(Block):
    """``left = formula = the formula with its numbers = result``.

    Args:
        left: What is computed, as a cell or as a name.
        right: How.
        result: What the engine got (not the formula's own value); None to print no result.
        numeric: Whether the formula is printed with its numbers too.
    """

    left: Expression | str
    right: Expression
    result: float | None = None
    numeric: bool = True

    @classmethod
    def cell(cls, left: Cell, right: Expression) -> Equation:
        """The equation of one cell, whose result is the number in its array."""
        return cls(left, right, left.value)

    @property
    def shows_numbers(self) -> bool:
        """Whether the numeric form is printed: it says something, and there are numbers to say it with."""
        return self.numeric and not is_general(self.right) and not isinstance(self.right, Number)

    def rounding_note(self, digits: int = DIGITS) -> str:
        """A sentence where the printed numbers seem to come to something else than the printed result, else ""."""
        if self.result is None or not self.shows_numbers or not isfinite(self.result):
            return ""
        by_hand = show(self.right.evaluate(digits=digits), digits)
        if by_hand == show(self.result, digits) or isclose(float(by_hand), self.result, rel_tol=0, abs_tol=1e-15):
            return ""
        return (
            f"The printed numbers give {by_hand}: they are rounded to {digits} digits for display. "
            f"The result {show(self.result, digits)} is of the unrounded ones."
        )


@dataclass(frozen=True)
class Equations(Block):
    """Equations one below the other; perhaps not all of them.

    Args:
        equations: Those that are written.
        left_out: How many are not.
        how: How to ask for these.
    """

    equations: tuple[Equation, ...]
    left_out: int = 0
    how: str = ""

    def rounding_note(self, digits: int = DIGITS) -> str:
        """One sentence for all of them where printed numbers seem to come to something else than a result, else ""."""
        notes = [note for equation in self.equations if (note := equation.rounding_note(digits))]
        if len(notes) < 2:
            return "".join(notes)
        first = next(e for e in self.equations if e.rounding_note(digits))
        assert first.result is not None
        by_hand = show(first.right.evaluate(digits=digits), digits)
        return (
            f"In {len(notes)} of these lines the printed numbers give something else in the last digit (in the "
            "first of "
            f"them {by_hand} instead of {show(first.result, digits)}): they are rounded to {digits} digits for "
            "display, "
            "the results are of the unrounded ones."
        )


@dataclass(frozen=True, eq=False)
class Grid(Block):
    """An array as it lies: maps of rows and columns, one for each index on the axes before the last two.

    Args:
        symbol: The array and its name.
        marks: Cell -> one of :data:`MARKS`.
        caption: A line below.
        shown: The part that is printed, one slice for each axis; all of it by default.
        how: Where a part is printed: how to ask for the rest.
    """

    symbol: Symbol
    marks: Mapping[Index, str] = field(default_factory=dict)
    caption: str = ""
    shown: tuple[slice, ...] | None = None
    how: str = ""

    @property
    def left_out(self) -> int:
        """How many cells are not printed."""
        shape = self.symbol.array.shape
        return prod(shape) - prod(len(r) for r in self._ranges)

    @property
    def _ranges(self) -> list[range]:
        shape = self.symbol.array.shape
        slices = self.shown or (slice(None),) * len(shape)
        return [range(n)[s] for n, s in zip(shape, slices, strict=True)]

    def maps(self) -> Iterator[tuple[str, list[list[Index]]]]:
        """Each map: its label (the printed part of its leading index), and the indices of its cells, row by row."""
        *leading, rows, columns = [*([range(1)] * (2 - len(self._ranges))), *self._ranges]
        missing = max(0, 2 - len(self._ranges))
        for lead in np.ndindex(*map(len, leading)):
            head = tuple(r[i] for r, i in zip(leading, lead, strict=True))
            label = ",".join(str(i) for i in self.symbol.visible(head)) if head else ""
            yield label, [[(*head, i, j)[missing:] for j in columns] for i in rows]

    def value(self, index: Index) -> float:
        """The number in one cell."""
        return float(self.symbol.array[index])


@dataclass(frozen=True)
class Row(Block):
    """Grids and the signs between them, side by side."""

    items: tuple[Grid | str, ...]


@dataclass(frozen=True)
class Table(Block):
    """Rows under a head.

    Args:
        head: One name for each column.
        rows: Their cells; numbers are set to the right.
        caption: A line below.
        left_out: How many rows are not printed.
        how: How to ask for these.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[Part, ...], ...]
    caption: str = ""
    left_out: int = 0
    how: str = ""

    def numeric_columns(self) -> list[bool]:
        """Which columns hold numbers (and empty cells) alone."""
        columns = list(zip(*self.rows, strict=True)) or [("",)] * len(self.head)
        return [
            any(cell != "" for cell in column) and not any(isinstance(c, str | Expression) and c != "" for c in column)
            for column in columns
        ]


@dataclass(frozen=True)
class Figure(Block):
    """A picture, and the words that say the same (all that a terminal shows of it)."""

    png: bytes
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Section(Block):
    """Blocks under a title.

    Args:
        title: Text.
        blocks: What stands in it.
        key: Its place in the calculation, such as ``conv.dw``; "" for none.
        folded: Whether a page shows it closed at first.
    """

    title: str
    blocks: tuple[Block, ...]
    key: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Source:
    """Where the numbers come from."""

    title: str
    url: str = ""


@dataclass(frozen=True)
class Document:
    """A calculation, written out step by step."""

    title: str
    blocks: tuple[Block, ...]
    sources: tuple[Source, ...] = ()


def walk(blocks: Sequence[Block]) -> Iterator[Block]:
    """Every block, sections before what stands in them."""
    for block in blocks:
        yield block
        if isinstance(block, Section):
            yield from walk(block.blocks)


def equations(document: Document) -> Iterator[Equation]:
    """Every equation of a document."""
    for block in walk(document.blocks):
        if isinstance(block, Equation):
            yield block
        elif isinstance(block, Equations):
            yield from block.equations


def array(name: str, values: Array) -> Grid:
    """An array that belongs to no calculation, e.g. somebody's answer."""
    return Grid(Symbol(name, np.asarray(values, np.float64)))
