"""Text for terminals of any width: words and numbers stay whole, and columns give way one after the other."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Collection, Iterator, Sequence

_LEAST = 20


def columns() -> int:
    """The width of the terminal; 80 where there is none."""
    return max(shutil.get_terminal_size((80, 24)).columns, _LEAST)


def fold(text: str, width: int) -> str:
    """The lines of a text, broken between words where they are longer; what follows a break is indented by two more."""
    return "\n".join(folded for line in text.split("\n") for folded in _folded(line, width))


def _folded(line: str, width: int) -> list[str]:
    if len(line) <= width:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    whole = re.sub(r" (?=%)|(?<=[a-z]) (?=\d)", "\xa0", line)  # a number keeps its unit, and what it is
    parts = textwrap.wrap(
        whole, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, expand_tabs=False
    )
    return [part.replace("\xa0", " ") for part in parts] or [""]


def printable(text: str) -> str:
    """A text without what would end a line or a field, or steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def table(
    rows: Sequence[Sequence[str]],
    width: int,
    right: Collection[int] = (),
    wrapped: Collection[int] = (),
    leaving: Sequence[int] = (),
) -> tuple[list[str], list[int]]:
    """Lines of at most ``width`` characters, and the columns that had to go.

    Args:
        rows: The cells; those of the first row are the head, whose words may stand below each other.
        width: How wide a line may be.
        right: Columns that are aligned to the right.
        wrapped: Columns whose cells may be broken between words.
        leaving: Columns that may be left out, first those that are missed least.
    """
    kept = list(range(len(rows[0])))
    gone: list[int] = []
    while True:
        for widths in _widths(rows, kept, wrapped, width):
            if sum(widths) + 2 * (len(kept) - 1) <= width:
                return [line for row in rows for line in _lines(row, kept, widths, right)], gone
        candidates = [column for column in leaving if column in kept]
        if not candidates:
            return [line for row in rows for line in _lines(row, kept, widths, right)], gone
        kept.remove(candidates[0])
        gone.append(candidates[0])


def _widths(
    rows: Sequence[Sequence[str]], kept: list[int], wrapped: Collection[int], width: int
) -> Iterator[list[int]]:
    """The widths of the columns: as wide as they are, with stacked heads, and with narrow cells."""
    head, *body = rows
    yield [max(len(row[column]) for row in rows) for column in kept]
    stacked = [max(map(len, [*head[c].split(), *(row[c] for row in body)]), default=0) for c in kept]
    yield stacked
    room = width - 2 * (len(kept) - 1) - sum(w for c, w in zip(kept, stacked, strict=True) if c not in wrapped)
    words = {c: max((len(word) for row in rows for word in row[c].split()), default=0) for c in kept if c in wrapped}
    narrow = []
    for column, full in zip(kept, stacked, strict=True):
        if column in words:  # the others of its kind need at least their longest words
            least = words.pop(column)
            full = max(min(full, room - sum(words.values())), least)
            room -= full
        narrow.append(full)
    yield narrow


def _lines(row: Sequence[str], kept: list[int], widths: list[int], right: Collection[int]) -> Iterator[str]:
    """One row, on as many lines as its highest cell has."""
    cells = [
        textwrap.wrap(row[column], width, break_long_words=False, break_on_hyphens=False)
        for column, width in zip(kept, widths, strict=True)
    ]
    for number in range(max(1, *map(len, cells))):
        parts = [cell[number] if number < len(cell) else "" for cell in cells]
        padded = [
            part.rjust(width) if column in right else part.ljust(width)
            for column, part, width in zip(kept, parts, widths, strict=True)
        ]
        yield "  ".join(padded).rstrip()
