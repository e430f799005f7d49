"""A document as Markdown: headings, text and tables; formulas and arrays as plain text that keeps its columns."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sharedgrad.document import terminal
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
from sharedgrad.document.numbers import DIGITS, printable, show
from sharedgrad.document.plain import JOINT, Plain

_WIDTH = 100


def render(document: Document, digits: int = DIGITS) -> str:
    """The whole file."""
    lines = [f"# {escape(document.title)}", ""]
    for source in document.sources:
        title, url = escape(source.title or source.url), source.url.replace(" ", "%20").replace(")", "%29")
        linked = url.startswith(("https://", "http://"))
        lines += [f"Source: [{title}]({url})" if linked else f"Source: {title}", ""]
    return "\n".join([*lines, *_Writer(digits).blocks(document.blocks, 2)])


def escape(text: str) -> str:
    """Text that Markdown prints as it stands."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$&!])", r"\\\1", printable(text))


class _Writer:
    def __init__(self, digits: int) -> None:
        self.digits, self.plain = digits, Plain(digits)

    def blocks(self, blocks: Iterable[Block], level: int) -> list[str]:
        """Blocks, each with an empty line behind; plain-text ones that follow each other share a frame."""
        lines: list[str] = []
        framed: list[Block] = []
        for block in blocks:
            if isinstance(block, Equation | Equations | Grid | Row):
                framed.append(block)
                continue
            lines += [*self.frame(framed), *self.block(block, level)]
            framed = []
        return [*lines, *self.frame(framed)]

    def frame(self, blocks: list[Block]) -> list[str]:
        """Blocks as plain text, as a terminal shows them."""
        if not blocks:
            return []
        text = terminal.text(blocks, _WIDTH, digits=self.digits)
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
        return [f"{fence}text", *(line.removeprefix("  ") for line in text.splitlines()), fence, ""]

    def block(self, block: Block, level: int) -> list[str]:
        match block:
            case Section():
                heading = f"{'#' * min(level, 6)} {escape(block.title)}"
                return [heading, "", *self.blocks(block.blocks, level + 1)]
            case Paragraph():
                return ["".join(map(self.part, block.parts)), ""]
            case Table():
                return self.table(block)
            case Figure():
                return [escape(f"(Picture, in the HTML page: {block.alt})"), ""]
        raise TypeError(f"no block: {type(block).__name__}")

    def part(self, part: Part) -> str:
        if isinstance(part, str):
            return escape(part)
        text = self.plain.formula(part) if isinstance(part, Expression) else self.number(part)
        return f"`{text.replace(JOINT, ' ').replace('`', chr(39))}`"

    def number(self, value: float) -> str:
        return show(value, self.digits) if isinstance(value, float) else str(value)

    def table(self, table: Table) -> list[str]:
        rule = ["---:" if number else "---" for number in table.numeric_columns()]
        rows = [[escape(name) for name in table.head], rule, *([self.cell(cell) for cell in row] for row in table.rows)]
        lines = [f"| {' | '.join(row)} |" for row in rows]
        rest = f"({table.left_out:,} more rows{f'; {table.how}' if table.how else ''})" if table.left_out else ""
        return [*lines, "", *(line for text in (table.caption, rest) if text for line in (escape(text), ""))]

    def cell(self, cell: Part) -> str:
        return escape(self.number(cell)) if isinstance(cell, float | int) else self.part(cell)
