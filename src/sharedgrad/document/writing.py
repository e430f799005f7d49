"""Walking a formula once for all notations: plain text and LaTeX differ only in how they write each piece."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

from sharedgrad.document.expression import (
    Affine,
    Cell,
    Difference,
    Entry,
    Expression,
    Function,
    Largest,
    LeftOut,
    Number,
    Power,
    Product,
    Quotient,
    Sigma,
    Sum,
    Symbol,
    leaves,
)
from sharedgrad.document.numbers import DIGITS, show

_SUM, _PRODUCT, _ATOM = 1, 2, 3  # how tightly a formula holds together


class Notation(ABC):
    """One way to write formulas.

    Args:
        digits: Significant digits of numbers.
    """

    def __init__(self, digits: int = DIGITS) -> None:
        self.digits = digits

    def formula(self, expression: Expression, numeric: bool = False) -> str:
        """A whole formula, with names or with numbers."""
        return self.joined(self.pieces(expression, numeric))

    def pieces(self, expression: Expression, numeric: bool) -> Iterator[tuple[str, tuple[Cell, ...]]]:
        """The formula in the pieces between which a line may break: the terms of its sum, each with its cells."""
        if not isinstance(expression, Sum):
            yield self._write(expression, numeric, _SUM), tuple(leaves(expression))
            return
        for number, term in enumerate(expression.terms):
            text = self._write(term, numeric, _PRODUCT)
            if number:
                text = self.plus(self.parenthesized(text) if text.startswith("-") else text)
            yield text, tuple(leaves(term))
        if expression.left_out is not None:
            dots = self.dots(expression.left_out, numeric)
            yield (self.plus(dots) if expression.terms else dots), ()
        elif not expression.terms:
            yield "0", ()

    def _write(self, expression: Expression, numeric: bool, tightness: int) -> str:
        text, own = self._formula(expression, numeric)
        return self.parenthesized(text) if own < tightness else text

    def _formula(self, expression: Expression, numeric: bool) -> tuple[str, int]:
        """The text of a formula, and how tightly it holds together."""
        match expression:
            case Number(number):
                return self.number(show(number, self.digits)), _ATOM if number >= 0 else _PRODUCT
            case Cell(symbol, index):
                return self._cell(symbol, index, numeric)
            case Entry(symbol, index):
                return self.name(symbol, [affine(i) for i in symbol.visible(index)]), _ATOM  # type: ignore[arg-type]
            case Product(factors):
                return self._product(factors, numeric), _PRODUCT
            case Sum():
                return self.joined(self.pieces(expression, numeric)), _SUM
            case Difference(a, b):
                first, second = self._write(a, numeric, _SUM), self._write(b, numeric, _PRODUCT)
                return self.minus(first, self.parenthesized(second) if second.startswith("-") else second), _SUM
            case Quotient(a, b):
                return self.quotient(self._write(a, numeric, self.over_needs), self._write(b, numeric, self.over_needs))
            case Power(base, exponent):
                text, own = self._formula(base, numeric)
                return self.power(
                    text if own == _ATOM and not text.startswith("-") else self.parenthesized(text), exponent
                ), _ATOM
            case Function(name, arguments):
                return self.function(name, [self._write(a, numeric, _SUM) for a in arguments]), _ATOM
            case Sigma(over, body):
                return self.sigma(over, self._write(body, numeric, _PRODUCT)), _PRODUCT
            case Largest(over, body):
                return self.largest(over, self._write(body, numeric, _PRODUCT)), _PRODUCT
        raise TypeError(f"no formula: {type(expression).__name__}")

    def _cell(self, symbol: Symbol, index: tuple[int, ...] | None, numeric: bool) -> tuple[str, int]:
        if index is None:
            return (self.number("0") if numeric else self.padding), _ATOM
        if not numeric:
            return self.name(symbol, [str(i) for i in symbol.visible(index)]), _ATOM
        text = show(float(symbol.array[index]), self.digits)
        return self.number(text), _ATOM  # a sign in front is dealt with where the number stands

    def _product(self, factors: Sequence[Expression], numeric: bool) -> str:
        texts = [self._write(factor, numeric, _PRODUCT) for factor in factors]
        first, *others = texts
        return self.times([first, *(self.parenthesized(t) if t.startswith("-") else t for t in others)])

    over_needs = _ATOM  # how tightly the parts of a quotient must hold together

    @abstractmethod
    def joined(self, pieces: Iterator[tuple[str, tuple[Cell, ...]]]) -> str: ...

    @abstractmethod
    def name(self, symbol: Symbol, index: Sequence[str]) -> str: ...

    @abstractmethod
    def number(self, text: str) -> str: ...

    @property
    @abstractmethod
    def padding(self) -> str: ...

    @abstractmethod
    def plus(self, text: str) -> str: ...

    @abstractmethod
    def minus(self, a: str, b: str) -> str: ...

    @abstractmethod
    def times(self, factors: Sequence[str]) -> str: ...

    @abstractmethod
    def quotient(self, a: str, b: str) -> tuple[str, int]: ...

    @abstractmethod
    def power(self, base: str, exponent: int) -> str: ...

    @abstractmethod
    def parenthesized(self, text: str) -> str: ...

    @abstractmethod
    def function(self, name: str, arguments: Sequence[str]) -> str: ...

    @abstractmethod
    def sigma(self, over: Mapping[str, range], body: str) -> str: ...

    @abstractmethod
    def largest(self, over: Mapping[str, range], body: str) -> str: ...

    @abstractmethod
    def dots(self, left_out: LeftOut, numeric: bool) -> str: ...


def affine(index: Affine) -> str:
    """``2o-1+k``: an index of a general formula."""
    text = ""
    for name, factor in index.factors.items():
        sign = "-" if factor < 0 else "+" if text else ""
        text += f"{sign}{'' if abs(factor) == 1 else abs(factor)}{name}" if factor else ""
    if index.constant or not text:
        text += f"{'+' if text and index.constant > 0 else ''}{index.constant}"
    return text
