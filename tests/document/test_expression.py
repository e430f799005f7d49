"""Formulas: what they come to, and how they are printed with names and with numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sharedgrad.document.expression import (
    FUNCTIONS,
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
    from_terms,
    is_general,
    leaves,
)
from sharedgrad.document.formulas import Latex
from sharedgrad.document.plain import JOINT, Plain
from sharedgrad.uses import ABSENT, PADDING, Factor, Terms

X = Symbol("x", np.array([[1.0, -2.0, 3.0]]), hidden=(0,))
W = Symbol("w", np.array([0.5, -0.25]), "conv")
A, B, C = X.cell(0, 0), X.cell(0, 1), W.cell(1)

FORMULAS: list[tuple[Expression, float, str, str]] = [
    (Sum((A, B)), -1.0, "x[0] + x[1]", "1 + (-2)"),
    (Sum((B, A)), -1.0, "x[1] + x[0]", "-2 + 1"),
    (Product((A, B, C)), 0.5, "x[0]·x[1]·conv.w[1]", "1·(-2)·(-0.25)"),
    (Sum((A, Product((B, A)))), -1.0, "x[0] + x[1]·x[0]", "1 + (-2·1)"),
    (Product((Sum((A, B)), C)), 0.25, "(x[0] + x[1])·conv.w[1]", "(1 + (-2))·(-0.25)"),
    (Difference(A, B), 3.0, "x[0] - x[1]", "1 - (-2)"),
    (Difference(A, Sum((A, B))), 2.0, "x[0] - (x[0] + x[1])", "1 - (1 + (-2))"),
    (Power(B, 2), 4.0, "x[1]²", "(-2)²"),
    (Power(Difference(A, B), 2), 9.0, "(x[0] - x[1])²", "(1 - (-2))²"),
    (Quotient(A, B), -0.5, "x[0]/x[1]", "1/(-2)"),
    (Function("tanh", (Sum((A, B)),)), math.tanh(-1), "tanh(x[0] + x[1])", "tanh(1 + (-2))"),
    (Function("max", (A, B)), 1.0, "max(x[0], x[1])", "max(1, -2)"),
    (Function("sigmoid", (B,)), 1 / (1 + math.exp(2)), "σ(x[1])", "σ(-2)"),
    (Cell(X, None), 0.0, "0", "0"),
    (Sum((A, Cell(X, None))), 1.0, "x[0] + 0", "1 + 0"),
    (Sum((A,), LeftOut(5, 7.5)), 8.5, "x[0] + … (5 more terms)", "1 + … (5 more terms: 7.5)"),
    (Sum((A,), LeftOut(5, 0.0, "zeros")), 1.0, "x[0] + … (5 zeros)", "1 + … (5 zeros)"),
    (Sum(()), 0.0, "0", "0"),
    (Product((Quotient(Number(1), Number(4.0)), Sum((A, B)))), -0.25, "1/4·(x[0] + x[1])", "1/4·(1 + (-2))"),
    (Number(-2.0), -2.0, "-2", "-2"),
]


@pytest.mark.parametrize(("formula", "value", "names", "numbers"), FORMULAS)
def test_a_formula(formula: Expression, value: float, names: str, numbers: str) -> None:
    plain = Plain()
    assert formula.value == pytest.approx(value, abs=1e-15)
    assert plain.formula(formula).replace(JOINT, " ") == names
    assert plain.formula(formula, numeric=True).replace(JOINT, " ") == numbers


def test_rounding_touches_only_what_is_shown() -> None:
    thirds = Symbol("t", np.array([1 / 3, 2 / 3]))
    total = Sum((thirds.cell(0), thirds.cell(1)))
    assert total.value == 1.0
    assert total.evaluate(digits=3) == pytest.approx(0.333 + 0.667)
    assert Plain(3).formula(total, numeric=True).replace(JOINT, " ") == "0.333 + 0.667"


def test_general_formulas_have_variables() -> None:
    dy = Symbol("dy", np.array([10.0, 20.0]))
    met = Affine.of("o", 2) + Affine.of("k") + (-1)
    formula = Sigma({"o": range(2)}, Product((Entry(dy, (Affine.of("o"),)), Entry(X, (Affine(), met)))))
    assert is_general(formula)
    assert formula.evaluate({"k": 0}) == 10 * 0 + 20 * -2  # x[−1] lies outside and is 0
    assert formula.evaluate({"k": 1}) == 10 * 1 + 20 * 3
    assert Plain().formula(formula).replace(JOINT, " ") == "Σ_o dy[o]·x[2o+k-1]"
    assert Latex().formula(formula) == r"\sum_{o} dy_{o} \cdot x_{2o+k-1}"


def test_the_largest_does_not_see_the_padding() -> None:
    negative = Symbol("x", np.array([-3.0, -2.0]))
    window = Largest({"k": range(2)}, Entry(negative, (Affine.of("i") + Affine.of("k") + (-1),)))
    assert [window.evaluate({"i": i}) for i in range(3)] == [-3.0, -2.0, -2.0]


def test_terms_become_sums() -> None:
    factors = {
        "dy": Factor("dy", W.array, np.array([0, 1, 1, ABSENT])),
        "x": Factor("x", X.array, np.array([0, 2, PADDING, 1])),
    }
    terms = Terms("dw", (1,), np.zeros(4, int), factors, np.array([1.0, 0.5, 1.0, 1.0]))
    found = from_terms(terms, {"dy": W, "x": X})
    assert found.value == pytest.approx(terms.total()[0])
    printed = Plain().formula(found).replace(JOINT, " ")
    assert printed == "conv.w[0]·x[0] + 0.5·conv.w[1]·x[2] + conv.w[1]·0 + x[1]"
    assert [cell.flat for cell in leaves(found)] == [0, 0, 1, 2, 1, -1, 1]


@pytest.mark.parametrize(("most", "count", "what"), [(6, 5, "terms that are 0"), (2, 9, "more terms")])
def test_long_sums_leave_out_zeros_first_and_count_what_is_left_out(most: int, count: int, what: str) -> None:
    rng = np.random.default_rng(0)
    symbol = Symbol("x", np.where(np.arange(11) % 2, 0.0, rng.normal(size=11)))
    terms = Terms("dw", (1,), np.zeros(11, int), {"x": Factor("x", symbol.array, np.arange(11))})
    found = from_terms(terms, {"x": symbol}, most)
    assert found.left_out is not None
    assert (found.left_out.count, found.left_out.what, len(found.terms)) == (count, what, 11 - count)
    assert found.value == pytest.approx(symbol.array.sum())


def test_functions_do_not_overflow() -> None:
    assert FUNCTIONS["sigmoid"](-1000.0) == 0.0
    assert FUNCTIONS["sigmoid"](1000.0) == 1.0
