"""A document for a terminal or a pipe: plain text of a given width, colour only where it is wanted."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import TextIO

from sharedgrad.document.blocks import (
    Block,
    Document,
    Equation,
    Equations,
    Figure,
    Grid,
    Paragraph,
    Part,
    Row,
    Section,
    Table,
)
from sharedgrad.document.expression import Expression
from sharedgrad.document.numbers import DIGITS, columns, printable, show
from sharedgrad.document.plain import JOINT, Plain

WIDTH = 80
_RULES = "-~."  # under the titles of sections, by level
_STYLES = {
    "title": "1",
    "section": "1;34",
    "used": "36",
    "result": "1;32",
    "zero": "2",
    "winner": "36",
    "wrong": "1;31",
    "right": "32",
    "expected": "33",
}
_BRACKETS = {
    "used": ("[", "]"),
    "result": ("[", "]"),
    "zero": (" ", " "),
    "winner": ("[", "]"),
    "wrong": (">", "<"),
    "right": (" ", " "),
    "expected": ("(", ")"),
}


def wants_color(stream: TextIO) -> bool:
    """Whether a stream is a terminal whose user has not asked for plain text (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def render(document: Document, width: int = WIDTH, color: bool = False, digits: int = DIGITS) -> str:
    """The whole document, in lines of at most ``width`` columns."""
    writer = _Writer(width, color, digits)
    lines = [*writer.title(document.title), ""]
    for source in document.sources:
        lines += [*writer.wrapped(f"Source: {source.title}"), *address(source.url, width), ""]
    return "\n".join(_tidy([*lines, *writer.blocks(document.blocks, 0)]))


def text(blocks: Sequence[Block], width: int = WIDTH, color: bool = False, digits: int = DIGITS) -> str:
    """Some blocks alone."""
    return "\n".join(_tidy(_Writer(width, color, digits).blocks(blocks, 0)))


def _tidy(lines: list[str]) -> list[str]:
    """No blanks at the end of a line, never two empty lines, none at the end."""
    kept: list[str] = []
    for line in (line.replace(JOINT, " ").rstrip() for line in lines):
        if line or (kept and kept[-1]):
            kept.append(line)
    return kept if not kept or kept[-1] else kept[:-1]


class _Writer:
    def __init__(self, width: int, color: bool, digits: int) -> None:
        self.width, self.color, self.digits = width, color, digits
        self.plain = Plain(digits)

    def paint(self, text: str, style: str) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self.color and style in _STYLES else text

    def title(self, title: str) -> list[str]:
        lines = self.wrapped(title)
        return [*(self.paint(line, "title") for line in lines), "=" * max(map(columns, lines), default=0)]

    def blocks(self, blocks: Iterable[Block], level: int) -> list[str]:
        return [line for block in blocks for line in [*self.block(block, level), ""]]

    def block(self, block: Block, level: int) -> list[str]:
        match block:
            case Section():
                lines = self.wrapped(block.title)
                rule = [_RULES[min(level, len(_RULES) - 1)] * max(map(columns, lines), default=0)]
                return [
                    *(self.paint(line, "section") for line in lines),
                    *rule,
                    "",
                    *self.blocks(block.blocks, level + 1),
                ]
            case Paragraph():
                return self.wrapped("".join(map(self.part, block.parts)))
            case Equation():
                return [*self.equation(block), *self.note(block)]
            case Equations():
                lines = [line for equation in block.equations for line in self.equation(equation)]
                return [*lines, *self.note(block), *self.rest(block.left_out, "lines", block.how)]
            case Grid():
                caption = self.wrapped(block.caption, "  ") if block.caption else []
                return [*self.grid(block), *caption, *self.rest(block.left_out, "cells", block.how)]
            case Row():
                return self.row(block)
            case Table():
                return self.table(block)
            case Figure():
                return [*self.wrapped(f"(Picture, in the HTML page: {block.alt})"), *self.wrapped(block.caption)]
        raise TypeError(f"no block: {type(block).__name__}")

    def part(self, part: Part) -> str:
        if isinstance(part, str):
            return printable(part)
        return self.plain.formula(part) if isinstance(part, Expression) else self.number(part)

    def number(self, value: float) -> str:
        return show(value, self.digits) if isinstance(value, float) else str(value)

    def wrapped(self, text: str, indent: str = "", hanging: str | None = None) -> list[str]:
        """Lines that fit; words stay whole unless one is wider than a line."""
        hanging = indent if hanging is None else hanging
        return wrap(printable(text), self.width, indent, hanging)

    def rest(self, left_out: int, what: str, how: str) -> list[str]:
        return self.wrapped(f"({left_out:,} more {what}{f'; {how}' if how else ''})", "  ") if left_out else []

    # ---- equations

    def equation(self, equation: Equation) -> list[str]:
        """On one line if it fits, else one side of it under the other."""
        left = printable(equation.left) if isinstance(equation.left, str) else self.plain.formula(equation.left)
        sides = [self.plain.formula(equation.right)]
        if equation.shows_numbers:
            sides.append(self.plain.formula(equation.right, numeric=True))
        if equation.result is not None:
            sides.append(self.number(float(equation.result)))
        sides = [side for number, side in enumerate(sides) if not number or side != sides[number - 1]]
        line = " = ".join([left, *sides])
        if columns(line) + 2 <= self.width:
            return [f"  {line}"]
        place = min(columns(left), self.width // 3)
        first, *others = sides
        lines = self.wrapped(f"{left} = {first}", "  ", " " * (place + 5))
        for side in others:
            lines += wrap(f"= {side}", self.width, " " * (place + 3), " " * (place + 5))
        return lines

    def note(self, block: Equation | Equations) -> list[str]:
        """What is to be said about rounding."""
        note = block.rounding_note(self.digits)
        return self.wrapped(f"({note})", "  ") if note else []

    # ---- arrays

    def grid(self, grid: Grid) -> list[str]:
        """Its maps one after the other, each with its name above."""
        lines: list[str] = []
        for label, rows in grid.maps():
            lines += self.wrapped(self.plain.name(grid.symbol, [label] if label else []), "  ")
            lines += self.map(grid, rows, self.width - 4)
        return lines

    def map(self, grid: Grid, rows: list[list[tuple[int, ...]]], width: int) -> list[str]:
        """The rows of one map; columns that do not fit beside each other stand below, under their numbers."""
        if not rows or not rows[0]:
            return ["    (empty)"]
        cells = [[self.cell(grid, index) for index in row] for row in rows]
        wide = max(len(text) for row in cells for text, _ in row)
        at_once = max(1, (width + 1) // (wide + 1))
        lines = []
        for start in range(0, len(rows[0]), at_once):
            if len(rows[0]) > at_once:
                last = min(start + at_once, len(rows[0])) - 1
                lines.append(f"    columns {rows[0][start][-1]} to {rows[0][last][-1]}:")
            for row in cells:
                chosen = row[start : start + at_once]
                lines.append("    " + " ".join(self.paint(text.rjust(wide), style) for text, style in chosen))
        return lines

    def cell(self, grid: Grid, index: tuple[int, ...]) -> tuple[str, str]:
        """The text of one cell, with room for the brackets of marks if the grid has any, and its style."""
        text, mark = self.number(grid.value(index)), grid.marks.get(index, "")
        if not grid.marks:
            return text, ""
        before, after = _BRACKETS.get(mark, (" ", " "))
        return f"{before}{text}{after}", mark

    def row(self, row: Row) -> list[str]:
        """Side by side if it fits, else one below the other."""
        blocks = [self.wrapped(item) if isinstance(item, str) else self.grid(item) for item in row.items]
        widths = [max(map(columns_of, lines), default=0) for lines in blocks]
        if sum(widths) + 2 * len(widths) > self.width:
            signs = (self.wrapped(item, "  ") if isinstance(item, str) else [] for item in row.items)
            return [line for lines, sign in zip(blocks, signs, strict=True) for line in sign or lines]
        height = max(map(len, blocks))
        lines = []
        for number in range(height):
            cells = []
            for item, block, wide in zip(row.items, blocks, widths, strict=True):
                own = number - (height // 2 if isinstance(item, str) else 0)
                text = block[own] if 0 <= own < len(block) else ""
                cells.append(text + " " * (wide - columns_of(text)))
            lines.append("  ".join(cells))
        return lines

    # ---- tables

    def table(self, table: Table) -> list[str]:
        """Columns as wide as their cells; a row a paragraph where that does not fit."""
        rows = [[printable(name) for name in table.head], *([self.part(cell) for cell in row] for row in table.rows)]
        right = table.numeric_columns()
        widths = _fitted([max(1, *map(columns, column)) for column in zip(*rows, strict=True)], self.width - 2)
        ends = self.rest(table.left_out, "rows", table.how)
        caption = self.wrapped(table.caption, "  ") if table.caption else []
        if widths is None:
            return [*self.records(rows), *caption, *ends]
        lines = []
        for number, row in enumerate(rows):
            wrapped = [wrap(cell, wide, "", "") or [""] for cell, wide in zip(row, widths, strict=True)]
            for line in range(max(map(len, wrapped))):
                texts = [cell[line] if line < len(cell) else "" for cell in wrapped]
                padded = [_aligned(t, w, r) for t, w, r in zip(texts, widths, right, strict=True)]
                lines.append("  " + "  ".join(padded))
            if number == 0:
                lines.append("  " + "  ".join("-" * wide for wide in widths))
        return [*lines, *caption, *ends]

    def records(self, rows: list[list[str]]) -> list[str]:
        """A table that is too wide, cell by cell."""
        head, *others = rows
        lines = []
        for row in others:
            for name, cell in zip(head, row, strict=True):
                lines += self.wrapped(f"{name}: {cell}", "  ", "    ")
            lines.append("")
        return lines


def _fitted(widths: list[int], width: int) -> list[int] | None:
    """Column widths that fit side by side: the widest columns give way, none below 12; None if that is not enough."""
    spare = width - 2 * (len(widths) - 1)
    fitted = list(widths)
    while sum(fitted) > spare:
        widest = max(range(len(fitted)), key=fitted.__getitem__)
        if fitted[widest] <= 12:
            return None
        fitted[widest] -= 1
    return fitted


def _aligned(text: str, width: int, right: bool) -> str:
    blanks = " " * (width - columns(text))
    return blanks + text if right else text + blanks


def columns_of(line: str) -> int:
    """The columns of a line that may hold colours."""
    while "\x1b[" in line:
        before, _, after = line.partition("\x1b[")
        line = before + after.partition("m")[2]
    return columns(line)


def address(url: str, width: int, indent: str = "  ") -> list[str]:
    """The lines of an address; one that is wider than a line breaks after a slash."""
    lines = [""]
    for part in re.findall(r"[^/]*/+|[^/]+", printable(url)):
        if lines[-1] and columns(lines[-1] + part) > width - len(indent):
            lines.append("")
        lines[-1] += part
    return [piece for line in lines for piece in wrap(line, width, indent, indent)]


def wrap(text: str, width: int, indent: str, hanging: str) -> list[str]:
    """Lines of at most ``width`` columns; a blank that must not break is written as a no-break space.

    (The standard library's textwrap counts characters, of which some take two columns and some none.)
    """
    lines = [indent]
    for word in text.split(" "):
        fits = columns(lines[-1]) + columns(word) + 1 <= width
        started = lines[-1] not in (indent, hanging)
        if word and started and not fits:
            lines.append(hanging)
        elif word and started:
            lines[-1] += " "
        for character in word:  # breaks a word that is wider than a line
            if columns(lines[-1] + character) > width:
                lines.append(hanging)
            lines[-1] += character
    return lines if lines[-1].strip(" ") or len(lines) > 1 else []
