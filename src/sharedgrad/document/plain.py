"""Formulas as plain text: ``dw[0] = dy[0]·x[0] + dy[1]·x[1]``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sharedgrad.document.expression import Cell, LeftOut, Symbol
from sharedgrad.document.numbers import printable, show
from sharedgrad.document.writing import Notation

_FUNCTIONS = {"sigmoid": "σ"}
JOINT = "\u00a0"  # a blank at which no line breaks; the terminal turns it into a blank


class Plain(Notation):
    """One line of text; it may break at its ordinary blanks."""

    padding = "0"

    def joined(self, pieces: Iterator[tuple[str, tuple[Cell, ...]]]) -> str:
        """The terms, with blanks between them."""
        return " ".join(text for text, _ in pieces)

    def name(self, symbol: Symbol, index: Sequence[str]) -> str:
        """``conv.dw[0,1]``."""
        place = f"[{','.join(index)}]" if index else ""
        return printable(symbol.key).replace(" ", JOINT) + place

    def number(self, text: str) -> str:
        """As it is."""
        return text

    def plus(self, text: str) -> str:
        """``+ text``."""
        return f"+{JOINT}{text}"

    def minus(self, a: str, b: str) -> str:
        """``a - b``."""
        return f"{a} -{JOINT}{b}"

    def times(self, factors: Sequence[str]) -> str:
        """``a·b``."""
        return "·".join(factors)

    def quotient(self, a: str, b: str) -> tuple[str, int]:
        """``a/b``."""
        return f"{a}/{self.parenthesized(b) if b.startswith('-') else b}", 2

    def power(self, base: str, exponent: int) -> str:
        """``base²``."""
        return base + ("²" if exponent == 2 else f"^{exponent}")

    def parenthesized(self, text: str) -> str:
        """``(text)``."""
        return f"({text})"

    def function(self, name: str, arguments: Sequence[str]) -> str:
        """``tanh(a)``."""
        return f"{_FUNCTIONS.get(name, name)}({', '.join(arguments)})"

    def sigma(self, over: Mapping[str, range], body: str) -> str:
        """``Σ_o body``."""
        return f"Σ_{','.join(over)}{JOINT}{body}"

    def largest(self, over: Mapping[str, range], body: str) -> str:
        """``max_k body``."""
        return f"max_{','.join(over)}{JOINT}{body}"

    def dots(self, left_out: LeftOut, numeric: bool) -> str:
        """``… (894 more terms: 12.3)``."""
        total = f": {show(left_out.total, self.digits)}" if numeric and left_out.total else ""
        return f"…{JOINT}({left_out.count:,}{JOINT}{printable(left_out.what).replace(' ', JOINT)}{total})"
