"""Reads printed formulas back: names are looked up in the arrays, and the arithmetic is Python's."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

import numpy as np

from sharedgrad.document.blocks import Document, Equation, Equations, walk
from sharedgrad.document.expression import Cell, Entry, Expression, Sum, Symbol, parts
from sharedgrad.document.formulas import Latex
from sharedgrad.document.plain import JOINT, Plain

DIGITS = 17  # so that what is printed is the number itself
FUNCTIONS = {
    "sigma": lambda a: 1 / (1 + math.exp(-a)),
    "tanh": math.tanh,
    "relu": lambda a: max(a, 0.0),
    "exp": math.exp,
    "ln": math.log,
    "max": max,
}


def symbols(expression: Expression) -> Iterator[Symbol]:
    """Every array that a formula reads."""
    if isinstance(expression, Cell | Entry):
        yield expression.symbol
    for part in parts(expression):
        yield from symbols(part)


def left_out(expression: Expression) -> float:
    """The terms that are not printed, of a sum and of the sums in it."""
    own = expression.left_out.total if isinstance(expression, Sum) and expression.left_out else 0.0
    return own + sum(left_out(part) for part in parts(expression) if isinstance(expression, Sum))


def by_name(expression: Expression) -> dict[str, Symbol]:
    return {symbol.key: symbol for symbol in symbols(expression)}


def element(symbol: Symbol, printed: str) -> float:
    """The number at a printed index; an axis without index has length 1."""
    given = iter(printed.split(",") if printed else [])
    index = tuple(0 if axis in symbol.hidden else int(next(given)) for axis in range(symbol.array.ndim))
    assert next(given, None) is None
    return float(symbol.array[index])


def calculated(text: str, names: Mapping[str, Symbol]) -> float:
    """What a printed line of plain text comes to."""
    text = text.replace(JOINT, " ").replace("²", "**2")
    text = re.sub(r"… \([^()]*\)", "0", text)
    text = re.sub(r"\+ 0$", "", text)
    for key in sorted(names, key=len, reverse=True):
        pattern = rf"(?<![\w.]){re.escape(key)}(?:\[([\d,]*)\])?(?![\w\[.])"
        text = re.sub(pattern, lambda match, key=key: f"({element(names[key], match[1] or '')!r})", text)
    text = text.replace("·", "*").replace("σ(", "sigma(")
    return float(eval(text, {"__builtins__": {}}, FUNCTIONS))


def from_latex(text: str, names: Mapping[str, Symbol]) -> float:
    """What printed LaTeX comes to."""
    notation = Latex(DIGITS)
    text = re.sub(r"\\dots \\text\{[^}]*\}(?:[^()]*\))?", "0", text)
    for symbol in sorted(names.values(), key=lambda s: len(s.key), reverse=True):
        bare = notation.name(symbol, [])
        stem, _, below = bare.partition("_{")
        below = below.rstrip("}")
        first = re.escape(below) + ("," if below else "")
        pattern = rf"(?<![a-zA-Z]){re.escape(stem)}(?:_\{{{first}([\d,]*)\}}|_\{{{re.escape(below)}\}})?(?![\w^])"
        text = re.sub(pattern, lambda match, s=symbol: f"({element(s, match[1] or '')!r})", text)
    text = re.sub(r"\\cdot 10\^\{(-?\d+)\}", r"* 10.0**\1", text)
    while r"\frac" in text:
        text = re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"((\1)/(\2))", text)
    text = re.sub(r"\{([^{}]*)\}\^\{2\}", r"(\1)**2", text)
    text = text.replace(r"\cdot", "*").replace(r"\sigma", "sigma").replace(r"\text{relu}", "relu")
    for name in ("tanh", "exp", "ln", "max"):
        text = text.replace(f"\\{name}", name)
    return float(eval(text, {"__builtins__": {}}, FUNCTIONS))


def printed_equations(document: Document) -> Iterator[Equation]:
    for block in walk(document.blocks):
        if isinstance(block, Equation):
            yield block
        elif isinstance(block, Equations):
            yield from block.equations


def check(document: Document) -> int:
    """Substitute the numbers into every printed formula, which must give the engine's result. How many there were."""
    plain, latex, checked = Plain(DIGITS), Latex(DIGITS), 0
    for equation in printed_equations(document):
        if isinstance(equation.left, Entry):
            check_everywhere(equation)
        elif equation.result is not None:
            expected = equation.result
            size = max(1.0, abs(expected), float(sum(abs(s.array).max() for s in symbols(equation.right))))
            names, rest = by_name(equation.right), left_out(equation.right)
            where = plain.formula(equation.left) if isinstance(equation.left, Expression) else equation.left
            found = {
                "names": calculated(plain.formula(equation.right), names) + rest,
                "numbers": calculated(plain.formula(equation.right, numeric=True), {}) + rest,
                "latex": from_latex(latex.formula(equation.right), names) + rest,
                "latex numbers": from_latex(latex.formula(equation.right, numeric=True), {}) + rest,
            }
            for how, value in found.items():
                assert abs(value - expected) <= 1e-12 * size, f"{where} by its {how}: {value}, not {expected}"
            if isinstance(equation.left, Cell):
                assert equation.left.value == expected
        checked += 1
    return checked


def check_everywhere(equation: Equation) -> None:
    """A general formula gives the engine's array at every index."""
    left = equation.left
    assert isinstance(left, Entry)
    for index in np.ndindex(*left.symbol.array.shape):
        bound: dict[str, int] = {}
        for affine, place in zip(left.index, index, strict=True):
            bound.update(dict.fromkeys(affine.factors, place))
        value = equation.right.evaluate(bound)
        expected = float(left.symbol.array[index])
        assert abs(value - expected) <= 1e-12 * max(1.0, abs(expected)) * 100, (left.symbol.key, index, value, expected)
