"""A document as LaTeX that compiles as it is, with the packages of every installation (amsmath, graphicx)."""

from __future__ import annotations

from collections.abc import Iterable

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
from sharedgrad.document.formulas import Latex, escape
from sharedgrad.document.numbers import DIGITS, show

_HEAD = r"""\documentclass[a4paper]{article}
\usepackage[utf8]{inputenc}
\usepackage{amsmath}
\usepackage{graphicx}
\setlength{\parindent}{0pt}
\setlength{\parskip}{0.6em}
\setlength{\arraycolsep}{4pt}
\raggedright
\allowdisplaybreaks
\setcounter{secnumdepth}{0}
% what is wider than the page is made as wide as the page
\newsavebox{\wide}
\newcommand{\fit}[1]{\sbox{\wide}{#1}\ifdim\wd\wide>\linewidth\resizebox{\linewidth}{!}{\usebox{\wide}}\else\usebox{\wide}\fi}
"""
_LEVELS = (r"\section", r"\subsection", r"\subsubsection", r"\paragraph")
_MARKED = {"result": r"\mathbf{%s}", "zero": "%s", "wrong": r"\overline{\underline{%s}}"}


def render(document: Document, digits: int = DIGITS) -> str:
    """The whole file."""
    return _Writer(digits).document(document)


class _Writer:
    def __init__(self, digits: int) -> None:
        self.math = Latex(digits)

    def document(self, document: Document) -> str:
        lines = [
            _HEAD,
            rf"\title{{{escape(document.title)}}}",
            r"\author{}",
            r"\date{}",
            r"\begin{document}",
            r"\maketitle",
        ]
        for source in document.sources:
            lines.append(rf"Source: {escape(source.title)} \texttt{{{_breakable(source.url)}}}" + "\n")
        lines += [*self.blocks(document.blocks, 0), r"\end{document}", ""]
        return "\n".join(lines)

    def blocks(self, blocks: Iterable[Block], level: int) -> list[str]:
        return [line for block in blocks for line in self.block(block, level)]

    def block(self, block: Block, level: int) -> list[str]:
        match block:
            case Section():
                title = rf"{_LEVELS[min(level, len(_LEVELS) - 1)]}{{{escape(block.title)}}}"
                return [title, "", *self.blocks(block.blocks, level + 1)]
            case Paragraph():
                return ["".join(map(self.part, block.parts)), ""]
            case Equation():
                return [*self.equation(block), *self.note(block)]
            case Equations():
                return [
                    *(line for e in block.equations for line in self.equation(e)),
                    *self.note(block),
                    *_rest(block.left_out, "lines", block.how),
                ]
            case Grid():
                caption = [escape(block.caption), ""] if block.caption else []
                return [rf"\fit{{${self.grid(block)}$}}", "", *caption, *_rest(block.left_out, "cells", block.how)]
            case Row():
                items = [escape(i) if isinstance(i, str) else f"${self.grid(i)}$" for i in block.items]
                line = r" \quad ".join(items)
                return [rf"\fit{{{line}}}", ""]
            case Table():
                return self.table(block)
            case Figure():
                text = f"(Picture: {block.alt} The HTML page shows it.)"
                return [rf"\fbox{{\parbox{{0.9\linewidth}}{{{escape(text)}}}}}", "", escape(block.caption), ""]
        raise TypeError(f"no block: {type(block).__name__}")

    def part(self, part: Part) -> str:
        if isinstance(part, str):
            return escape(part)
        return f"${self.math.formula(part)}$" if isinstance(part, Expression) else f"${self._number(part)}$"

    def _number(self, value: float) -> str:
        return self.math.number(show(value, self.math.digits)) if isinstance(value, float) else f"{value}"

    def equation(self, equation: Equation) -> list[str]:
        """A line of mathematics that breaks between its terms, as running text does."""
        left = equation.left
        sides = [escape(left) if isinstance(left, str) else f"${self.math.formula(left)}$"]
        sides.append(f"$={{}}{self.math.formula(equation.right)}$")
        if equation.shows_numbers:
            sides.append(f"$={{}}{self.math.formula(equation.right, numeric=True)}$")
        if equation.result is not None:
            sides.append(rf"$=$ $\mathbf{{{self._number(equation.result)}}}$")
        return [" ".join(sides), ""]

    def note(self, block: Equation | Equations) -> list[str]:
        note = block.rounding_note(self.math.digits)
        return [rf"{{\small ({escape(note)})\par}}", ""] if note else []

    def grid(self, grid: Grid) -> str:
        maps = []
        for label, rows in grid.maps():
            name = self.math.name(grid.symbol, [label] if label else [])
            cells = [" & ".join(self._cell(grid, index) for index in row) for row in rows]
            width = "r" * (len(rows[0]) if rows else 1)
            body = r" \\ ".join(cells)
            maps.append(rf"{name} = \left[\begin{{array}}{{{width}}}{body}\end{{array}}\right]")
        return r" \quad ".join(maps)

    def _cell(self, grid: Grid, index: tuple[int, ...]) -> str:
        text = self._number(grid.value(index))
        mark = grid.marks.get(index)
        return text if mark is None else _MARKED.get(mark, r"\boxed{%s}") % text

    def table(self, table: Table) -> list[str]:
        columns = "".join("r" if number else "l" for number in table.numeric_columns())
        rows = [" & ".join(map(self.part, row)) + r" \\" for row in table.rows]
        head = " & ".join(map(escape, table.head)) + r" \\ \hline"
        body = "\n".join([rf"\begin{{tabular}}{{{columns}}}", head, *rows, r"\end{tabular}"])
        caption = [escape(table.caption), ""] if table.caption else []
        return [rf"\fit{{{body}}}", "", *caption, *_rest(table.left_out, "rows", table.how)]


def _rest(left_out: int, what: str, how: str) -> list[str]:
    return [escape(f"({left_out:,} more {what}{f'; {how}' if how else ''})"), ""] if left_out else []


def _breakable(url: str) -> str:
    return escape(url).replace("/", r"/\allowbreak{}")
