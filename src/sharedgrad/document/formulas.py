"""Formulas in LaTeX's mathematics, of which MathML is made too. Names and texts are escaped: text, never markup."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from sharedgrad.document.expression import Cell, LeftOut, Symbol
from sharedgrad.document.numbers import printable, show
from sharedgrad.document.writing import Notation

_FUNCTIONS = {"sigmoid": r"\sigma", "tanh": r"\tanh", "exp": r"\exp", "ln": r"\ln", "max": r"\max"}
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "-": r"{-}",  # no dash of two
    "`": "{`}",
    "'": "{'}",
}
_SIGNS = {
    "×": r"$\times$",
    "·": r"$\cdot$",
    "−": r"$-$",
    "–": "--",
    "…": r"\ldots{}",
    "→": r"$\to$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "≈": r"$\approx$",
    "≠": r"$\ne$",
    "∂": r"$\partial$",
    "Σ": r"$\Sigma$",
    "σ": r"$\sigma$",
    "δ": r"$\delta$",
    "η": r"$\eta$",
    "ᵀ": r"$^{\top}$",
    "′": r"$'$",
    "½": r"$\frac12$",
    "²": r"$^2$",
    "°": r"$^{\circ}$",
    "‖": r"$\Vert$",
    "\u00a0": "~",
}
_LETTER = re.compile("[À-ÖØ-öø-ÿ]")  # letters that LaTeX sets without further packages


def escape(text: str) -> str:
    """Text for LaTeX: what would be markup is printed as it stands, what no basic font has as its code."""
    return "".join(_escaped(c) for c in printable(text))


def _escaped(character: str) -> str:
    known = _SPECIAL.get(character) or _SIGNS.get(character)
    if known:
        return known
    if character.isascii() or (_LETTER.match(character) and character not in "ðÐþÞ"):
        return character
    return f"U+{ord(character):04X}"


class Latex(Notation):
    """Mathematics for LaTeX, without the dollars around it.

    Args:
        digits: Significant digits of numbers.
    """

    padding = "0"
    over_needs = 1  # a fraction's bar holds its parts together

    def joined(self, pieces: Iterator[tuple[str, tuple[Cell, ...]]]) -> str:
        """The terms, one after the other."""
        return " ".join(text for text, _ in pieces)

    def word(self, text: str) -> str:
        """A name in upright letters."""
        return rf"\text{{{escape(text)}}}"

    def name(self, symbol: Symbol, index: Sequence[str]) -> str:
        r"""``dw^{\text{conv}}_{0,1}``."""
        short = symbol.name.isalpha() and symbol.name.isascii() and len(symbol.name) <= 3
        text = symbol.name if short else self.word(symbol.name)
        owner = f"^{{{self.word(symbol.owner)}}}" if symbol.owner else ""
        place = f"_{{{','.join(index)}}}" if index else ""
        return f"{text}{owner}{place}"

    def number(self, text: str) -> str:
        r"""``1e-05`` is ``1 \cdot 10^{-5}``."""
        if text in ("nan", "inf", "-inf"):
            return text.replace("nan", self.word("NaN")).replace("inf", r"\infty")
        mantissa, e, exponent = text.partition("e")
        return rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if e else mantissa

    def plus(self, text: str) -> str:
        """``+ text``."""
        return f"+ {text}"

    def minus(self, a: str, b: str) -> str:
        """``a - b``."""
        return f"{a} - {b}"

    def times(self, factors: Sequence[str]) -> str:
        r"""``a \cdot b``."""
        return r" \cdot ".join(factors)

    def quotient(self, a: str, b: str) -> tuple[str, int]:
        r"""``\frac{a}{b}``."""
        return rf"\frac{{{a}}}{{{b}}}", 3

    def power(self, base: str, exponent: int) -> str:
        """``base^{2}``; the base in braces, as it may carry an owner above."""
        return f"{{{base}}}^{{{exponent}}}"

    def parenthesized(self, text: str) -> str:
        """``(text)``."""
        return f"({text})"

    def function(self, name: str, arguments: Sequence[str]) -> str:
        r"""``\tanh(a)``."""
        return f"{_FUNCTIONS.get(name) or self.word(name)}({', '.join(arguments)})"

    def sigma(self, over: Mapping[str, range], body: str) -> str:
        r"""``\sum_{o} body``."""
        return rf"\sum_{{{','.join(over)}}} {body}"

    def largest(self, over: Mapping[str, range], body: str) -> str:
        r"""``\max_{k} body``."""
        return rf"\max_{{{','.join(over)}}} {body}"

    def dots(self, left_out: LeftOut, numeric: bool) -> str:
        r"""``\dots (894 more terms: 12.3)``."""
        told = numeric and left_out.total
        words = self.word(f" ({left_out.count:,} {left_out.what}" + (": " if told else ")"))
        total = self.number(show(left_out.total, self.digits)) + ")" if told else ""
        return rf"\dots {words}{total}"
