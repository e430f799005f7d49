"""A document as HTML: a static file that needs no network, or fragments for a page. Formulas are MathML."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

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
    Source,
    Table,
)
from sharedgrad.document.expression import Cell, Expression
from sharedgrad.document.formulas import Latex
from sharedgrad.document.numbers import DIGITS, printable, show
from sharedgrad.errors import require

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --used: #2a78d633; --result: #1f9d5533; --wrong: #d5313133; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1, h2, h3, h4 { line-height: 1.25; overflow-wrap: anywhere; }
p, .equation, figcaption { overflow-wrap: anywhere; }
.equation { margin: 0.4rem 0 0.4rem 1.5rem; text-indent: -1.5rem; padding-left: 1.5rem; }
.equation math { text-indent: 0; }
.note, .rest, figcaption, caption { font-size: 0.875em; opacity: 0.8; text-align: left; }
.row { display: flex; flex-wrap: wrap; align-items: center; gap: 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 0.5rem 0; font-variant-numeric: tabular-nums; }
td, th { border: 1px solid var(--line); padding: 0.15rem 0.5rem; }
.number { text-align: right; white-space: nowrap; }
.used, .winner { background: var(--used); font-weight: 600; }
.result, .right { background: var(--result); font-weight: 600; }
.wrong { background: var(--wrong); text-decoration: underline wavy; }
.expected { outline: 2px dashed; outline-offset: -2px; }
.zero { opacity: 0.6; }
img { max-width: 100%; }
"""
_LOOKS_LIKE = str.maketrans({"\\": "∖", "{": "❴", "}": "❵", "$": "＄"})
_MARK_WORDS = {"wrong": "wrong", "right": "right", "winner": "largest", "used": "used", "result": "result"}


def render(document: Document, digits: int = DIGITS) -> str:
    """A whole file; it loads nothing.

    Raises:
        MissingDependencyError: latex2mathml is not installed.
    """
    writer = _Writer(digits)
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(document.title)}</title>",
            f"<style>{_STYLE}</style>",
            "</head>",
            "<body>",
            "<main>",
            f"<h1>{_text(document.title)}</h1>",
            *map(_source, document.sources),
            *writer.blocks(document.blocks, 2),
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def fragment(blocks: Sequence[Block], level: int = 2, digits: int = DIGITS) -> str:
    """Some blocks alone, for a page of its own style; ``level`` is that of their headings."""
    return "\n".join(_Writer(digits).blocks(blocks, level))


def mathml(latex: str) -> str:
    """A formula as MathML, set in the line."""
    return _converted(latex)


@lru_cache(maxsize=4096)
def _converted(latex: str) -> str:
    converter = require("latex2mathml.converter", "formulas in HTML", "explain")
    text = str(converter.convert(latex))
    text = text.replace(' xmlns="http://www.w3.org/1998/Math/MathML" display="inline"', "", 1)  # HTML needs neither
    text = re.sub(r"&#x0*([0-9A-F]{2,5});", _character, text)
    return re.sub(r"<mrow>(<(m[nio])>[^<]*</\2>)</mrow>", r"\1", text)


def _character(reference: re.Match[str]) -> str:
    """The character itself, where it is no markup."""
    character = chr(int(reference[1], 16))
    return reference[0] if character in "<>&\"'" else character


class _HtmlLatex(Latex):
    """LaTeX for the converter, which copies the text of names into HTML: it knows no escapes of LaTeX's."""

    def word(self, text: str) -> str:
        """What is markup in HTML becomes HTML's escape; what ends a text in LaTeX, a sign that looks like it."""
        return rf"\text{{{html.escape(printable(text)).translate(_LOOKS_LIKE)}}}"


def _text(text: str) -> str:
    return html.escape(printable(text))


def _source(source: Source) -> str:
    title = _text(source.title or source.url)
    if source.url.startswith(("https://", "http://")):
        return f'<p class="source">Source: <a href="{_text(source.url)}">{title}</a></p>'
    return f'<p class="source">Source: {title}</p>'


class _Writer:
    def __init__(self, digits: int) -> None:
        self.math, self.digits = _HtmlLatex(digits), digits

    def blocks(self, blocks: Iterable[Block], level: int) -> list[str]:
        return [line for block in blocks for line in self.block(block, level)]

    def block(self, block: Block, level: int) -> list[str]:
        match block:
            case Section():
                return self.section(block, level)
            case Paragraph():
                return [f"<p>{''.join(map(self.part, block.parts))}</p>"]
            case Equation():
                return [*self.equation(block), *self.note(block)]
            case Equations():
                return [
                    *(line for e in block.equations for line in self.equation(e)),
                    *self.note(block),
                    *_rest(block.left_out, "lines", block.how),
                ]
            case Grid():
                return [*self.grid(block), *_rest(block.left_out, "cells", block.how)]
            case Row():
                items = [
                    f"<div>{_text(i)}</div>" if isinstance(i, str) else "\n".join(self.grid(i)) for i in block.items
                ]
                return ['<div class="row">', *items, "</div>"]
            case Table():
                return self.table(block)
            case Figure():
                data = base64.b64encode(block.png).decode()
                image = f'<img src="data:image/png;base64,{data}" alt="{_text(block.alt)}">'
                return [f"<figure>{image}<figcaption>{_text(block.caption)}</figcaption></figure>"]
        raise TypeError(f"no block: {type(block).__name__}")

    def section(self, section: Section, level: int) -> list[str]:
        anchor = f' id="{_text(section.key)}"' if section.key else ""
        heading = f"<h{min(level, 6)}>{_text(section.title)}</h{min(level, 6)}>"
        inside = self.blocks(section.blocks, level + 1)
        if section.folded:
            return [f"<details{anchor}>", f"<summary>{_text(section.title)}</summary>", *inside, "</details>"]
        return [f"<section{anchor}>", heading, *inside, "</section>"]

    def part(self, part: Part) -> str:
        if isinstance(part, str):
            return _text(part)
        return mathml(self.math.formula(part)) if isinstance(part, Expression) else self.number(part)

    def number(self, value: float) -> str:
        return _text(show(value, self.digits) if isinstance(value, float) else str(value)).replace("-", "\u2212")

    # ---- equations

    def equation(self, equation: Equation) -> list[str]:
        """Each term is a formula of its own, so that lines break between terms and a term knows its cells."""
        left = equation.left
        sides = [f"<span>{_text(left)}</span>" if isinstance(left, str) else self.terms(left, False)]
        sides.append(self.terms(equation.right, False))
        if equation.shows_numbers:
            sides.append(self.terms(equation.right, True))
        if equation.result is not None:
            sides.append(f"<strong>{self.number(float(equation.result))}</strong>")
        sides = [side for number, side in enumerate(sides) if not number or side != sides[number - 1]]
        return [f'<div class="equation">{" = ".join(sides)}</div>']

    def note(self, block: Equation | Equations) -> list[str]:
        note = block.rounding_note(self.digits)
        return [f'<p class="note">({_text(note)})</p>'] if note else []

    def terms(self, expression: Expression, numeric: bool) -> str:
        return " ".join(
            f'<span class="term"{_touched(cells)}>{sign}{mathml(term)}</span>'
            for latex, cells in self.math.pieces(expression, numeric)
            for sign, term in [_signed(latex)]
        )

    # ---- arrays and tables

    def grid(self, grid: Grid) -> list[str]:
        lines = []
        for label, rows in grid.maps():
            name = mathml(self.math.name(grid.symbol, [label] if label else []))
            body = "".join(f"<tr>{''.join(self.cell(grid, index) for index in row)}</tr>" for row in rows)
            key = _text(grid.symbol.key)
            table = f'<table class="grid" data-array="{key}"><caption>{name}</caption>{body}</table>'
            lines.append(f'<div class="wide">{table}</div>')
        return [*lines, *([f'<p class="note">{_text(grid.caption)}</p>'] if grid.caption else [])]

    def cell(self, grid: Grid, index: tuple[int, ...]) -> str:
        mark = grid.marks.get(index, "")
        flat = Cell(grid.symbol, index).flat
        title = f' title="{_MARK_WORDS[mark]}"' if mark in _MARK_WORDS else ""
        kind = f"number {mark}".rstrip()
        return f'<td class="{kind}" data-cell="{flat}"{title}>{self.number(grid.value(index))}</td>'

    def table(self, table: Table) -> list[str]:
        head = "".join(f'<th scope="col">{_text(name)}</th>' for name in table.head)
        body = "".join(f"<tr>{''.join(map(self.table_cell, row))}</tr>" for row in table.rows)
        caption = f"<caption>{_text(table.caption)}</caption>" if table.caption else ""
        lines = [f'<div class="wide"><table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>']
        return [*lines, *_rest(table.left_out, "rows", table.how)]

    def table_cell(self, cell: Part) -> str:
        kind = "" if isinstance(cell, str | Expression) else ' class="number"'
        return f"<td{kind}>{self.part(cell)}</td>"


def _signed(latex: str) -> tuple[str, str]:
    """The plus in front of a term stands outside its formula: alone in one, it would be set as a sign."""
    return ("+ ", latex[2:]) if latex.startswith("+ ") else ("", latex)


def _touched(cells: Sequence[Cell]) -> str:
    found = " ".join(f"{cell.symbol.key.replace(' ', '_')}:{cell.flat}" for cell in cells)
    return f' data-cells="{_text(found)}"' if found else ""


def _rest(left_out: int, what: str, how: str) -> list[str]:
    return [f'<p class="rest">({left_out:,} more {what}{_text(f"; {how}") if how else ""})</p>'] if left_out else []


def notebook(page: str) -> str:
    """A whole page inside a notebook, in a frame of its own, so that neither's style changes the other."""
    return f'<iframe srcdoc="{html.escape(page)}" style="width: 100%; height: 40rem; border: 0"></iframe>'
