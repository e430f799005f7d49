"""Formulas as trees, each printed twice: with the names of its numbers, and with the numbers.

A leaf is a cell of an array: a name, an index, and the value that stands there. A writer prints the same tree
"symbolically" (``dy[0]·x[1]``) or "numerically" (``-0.1·2``), so that the two cannot differ; and :meth:`evaluate`
computes it, so that a test can substitute the numbers into what is printed.

General formulas (``Σ_o dy[o]·x[2·o − 1 + k]``) are trees too: their indices are :class:`Affine` in variables.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from sharedgrad.document.numbers import shown
from sharedgrad.parameter import Array

if TYPE_CHECKING:
    from sharedgrad.uses.terms import Terms

Bindings = Mapping[str, int]
_ABSENT = -2  # sharedgrad.uses.terms: the index of a factor that a term does not have
FUNCTIONS: dict[str, Callable[..., float]] = {
    "sigmoid": lambda a: 1 / (1 + math.exp(-a)) if a >= 0 else math.exp(a) / (1 + math.exp(a)),
    "tanh": math.tanh,
    "relu": lambda a: max(a, 0.0),
    "exp": math.exp,
    "ln": math.log,
    "max": max,
}


@dataclass(frozen=True, eq=False)
class Symbol:
    """A named array.

    Args:
        name: What formulas call it: "x", "w", "dy"; never markup.
        array: Its numbers.
        owner: The node that it belongs to; "" where there is only one.
        hidden: Axes of length 1 whose index is not printed.
    """

    name: str
    array: Array
    owner: str = ""
    hidden: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        """The name that tells it from all other arrays of the document: ``conv.dw``."""
        return f"{self.owner}.{self.name}" if self.owner else self.name

    def visible(self, index: Sequence[object]) -> list[object]:
        """The part of an index that is printed."""
        return [i for axis, i in enumerate(index) if axis not in self.hidden]

    def cell(self, *index: int) -> Cell:
        """One of its numbers."""
        return Cell(self, tuple(int(i) for i in index))

    def at(self, flat: int) -> Cell:
        """One of its numbers, by its flat index; −1 is a cell of the padding."""
        return Cell(self, None if flat < 0 else tuple(int(i) for i in np.unravel_index(flat, self.array.shape)))


class Expression(ABC):
    """A formula."""

    @abstractmethod
    def evaluate(self, bindings: Bindings | None = None, digits: int | None = None) -> float:
        """What it comes to.

        Args:
            bindings: Numbers for the variables of a general formula.
            digits: Round every number that is read to so many digits first, as a reader of the page would.
        """

    @property
    def value(self) -> float:
        """What it comes to, in full precision."""
        return self.evaluate()


def _rounded(value: float, digits: int | None) -> float:
    return value if digits is None else shown(value, digits)


@dataclass(frozen=True)
class Number(Expression):
    """A number that belongs to no array: ½, or the 1/4 of a mean of four."""

    number: float

    def evaluate(self, bindings: Bindings | None = None, digits: int | None = None) -> float:
        """Itself."""
        return _rounded(self.number, digits)


@dataclass(frozen=True)
class Cell(Expression):
    """One number of an array; without an index a cell of the zeros around it."""

    symbol: Symbol
    index: tuple[int, ...] | None

    def evaluate(self, bindings: Bindings | None = None, digits: int | None = None) -> float:
        """The number that stands there."""
        return 0.0 if self.index is None else _rounded(float(self.symbol.array[self.index]), digits)

    @property
    def flat(self) -> int:
        """Its flat index in the array; −1 in the padding."""
        return -1 if self.index is None else int(np.ravel_multi_index(self.index, self.symbol.array.shape))


@dataclass(frozen=True)
class Affine:
    """An index of a general formula: a sum of variables times whole numbers, and a whole number."""

    factors: Mapping[str, int] = field(default_factory=dict)
    constant: int = 0

    @classmethod
    def of(cls, variable: str, factor: int = 1) -> Affine:
        """``factor · variable``."""
        return cls({variable: factor})

    def __add__(self, other: Affine | int) -> Affine:
        if isinstance(other, int):
            return Affine(self.factors, self.constant + other)
        names = dict.fromkeys([*self.factors, *other.factors])
        total = {name: self.factors.get(name, 0) + other.factors.get(name, 0) for name in names}
        return Affine(total, self.constant + other.constant)

    def at(self, bindings: Bindings) -> int:
        """Its number."""
        return self.constant + sum(factor * bindings[name] for name, factor in self.factors.items())


@dataclass(frozen=True)
class Entry(Expression):
    """An element of an array in a general formula: its index depends on variables. Outside the array it is 0."""

    symbol: Symbol
    index: tuple[Affine, ...]

    def evaluate(self, bindings: Bindings | None = None, digits: int | None = None) -> float:
        """The number that stands there."""
        place = tuple(i.at(bindings or {}) for i in self.index)
        if not all(0 <= i < n for i, n in zip(place, self.symbol.array.shape, strict=True)):
            return 0.0
        return _rounded(float(self.symbol.array[place]), digits)


@dataclass(frozen=True)
class Product(Expression):
    """Factors, multiplied."""

    factors: tuple[Expression, ...]

    def evaluate(self, bindings: Bindings | None = None, digits: int | None = None) -> float:
        """Their product."""
        return math.prod(factor.evaluate(bindings, digits) for factor in self.factors)


@dataclass(frozen=True)
class LeftOut:
    """Terms of a sum that are not written: how many, what they add up to, and what they are ("more terms")."""

    count: int
    total: float
    what: str = "more terms"


@dataclass(frozen=True)
class Sum(Expression):
    """Terms, added; some of them may be left out, and are added all the same."""

    terms: tuple[Expression, ...]
    left_out: LeftOut | None = None

    def evaluate(self, bindings: Bindings | None = None, digits: int | None = None) -> float:
        """Their sum, in the order in which they stand."""
        total = sum(term.evaluate(bindings, digits) for term in self.terms)
        return float(total) if self.left_out is None else float(total) + _rounded(self.left_out.total, digits)


@dataclass(frozen=True)
class Difference(Expression):
    """``a − b``."""

    a: Expression
    b: Expression

    def evaluate(self, bindings: Bindings | None = None, digits: int | None = None) -> float:
        """``a − b``."""
        return self.a.evaluate(bindings, digits) - self.b.evaluate(bindings, digits)


@dataclass(frozen=True)
class Quotient(Expression):
    """``a / b``."""

    a: Expression
    b: Expression

    def evaluate(self, bindings: Bindings | None = None, digits: int | None = None) -> float:
        """``a / b``."""
        return self.a.evaluate(bindings, digits) / self.b.evaluate(bindings, digits)


@dataclass(frozen=True)
class Power(Expression):
    """``base ^ exponent``, the exponent a whole number."""

    base: Expression
    exponent: int

    def evaluate(self, bindings: Bindings | None = None, digits: int | None = None) -> float:
        """``base ^ exponent``."""
        return self.base.evaluate(bindings, digits) ** self.exponent


@dataclass(frozen=True)
class Function(Expression):
    """A function of :data:`FUNCTIONS` of some arguments."""

    name: str
    arguments: tuple[Expression, ...]

    def evaluate(self, bindings: Bindings | None = None, digits: int | None = None) -> float:
        """Its value."""
        return float(FUNCTIONS[self.name](*(a.evaluate(bindings, digits) for a in self.arguments)))


@dataclass(frozen=True)
class Sigma(Expression):
    """``Σ`` of a body over all values of some variables: the general formula of a sum."""

    over: Mapping[str, range]
    body: Expression

    def evaluate(self, bindings: Bindings | None = None, digits: int | None = None) -> float:
        """The sum, in the order of nested loops."""
        places = product(*self.over.values())
        return float(
            sum(
                self.body.evaluate({**(bindings or {}), **dict(zip(self.over, place, strict=True))}, digits)
                for place in places
            )
        )


@dataclass(frozen=True)
class Largest(Expression):
    """``max`` of a body over all values of some variables."""

    over: Mapping[str, range]
    body: Expression

    def evaluate(self, bindings: Bindings | None = None, digits: int | None = None) -> float:
        """The largest value; places outside the array do not take part."""
        found = []
        for place in product(*self.over.values()):
            bound = {**(bindings or {}), **dict(zip(self.over, place, strict=True))}
            if not isinstance(self.body, Entry) or _inside(self.body, bound):
                found.append(self.body.evaluate(bound, digits))
        return max(found)


def _inside(entry: Entry, bindings: Bindings) -> bool:
    return all(0 <= i.at(bindings) < n for i, n in zip(entry.index, entry.symbol.array.shape, strict=True))


def leaves(expression: Expression) -> list[Cell]:
    """All cells that a formula reads, from left to right."""
    if isinstance(expression, Cell):
        return [expression]
    return [leaf for part in parts(expression) for leaf in leaves(part)]


def parts(expression: Expression) -> tuple[Expression, ...]:
    """What a formula is made of, one level down."""
    match expression:
        case Product(inside) | Sum(inside) | Function(_, inside):
            return inside
        case Difference(a, b) | Quotient(a, b):
            return a, b
        case Power(inside) | Sigma(_, inside) | Largest(_, inside):
            return (inside,)
    return ()


def is_general(expression: Expression) -> bool:
    """Whether it holds variables: then it stands for many formulas, and has no numbers of its own to print."""
    return isinstance(expression, Entry | Sigma | Largest) or any(map(is_general, parts(expression)))


def from_terms(terms: Terms, symbols: Mapping[str, Symbol], most: int | None = None) -> Sum:
    """The written-out sum of one cell, from its terms.

    Args:
        terms: ``Terms.of(cell)``: products of factors, each read from an array at an index.
        symbols: What the factors are called: factor name -> symbol, which holds the array that the factor reads.
        most: Write at most so many terms: those that are zero are left out first, then the smallest.
    """
    written = [_term(terms, symbols, number) for number in range(len(terms.cell))]
    if most is None or len(written) <= most:
        return Sum(tuple(written))
    values = np.asarray(terms.values, np.float64)
    kept = np.flatnonzero(values)
    what = "terms that are 0"
    if len(kept) > most:
        kept = np.sort(np.argsort(-np.abs(values), kind="stable")[:most])
        what = "more terms"
    rest = np.delete(values, kept)
    return Sum(tuple(written[i] for i in kept), LeftOut(len(rest), float(rest.sum()), what))


def _term(terms: Terms, symbols: Mapping[str, Symbol], number: int) -> Expression:
    factors: list[Expression] = []
    if terms.coefficient is not None and terms.coefficient[number] != 1:
        factors.append(Number(float(terms.coefficient[number])))
    read = ((name, int(factor.index[number])) for name, factor in terms.factors.items())
    factors += [symbols[name].at(flat) for name, flat in read if flat != _ABSENT]
    return factors[0] if len(factors) == 1 else Product(tuple(factors))
