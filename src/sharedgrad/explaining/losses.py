"""The losses: their value and the gradient that backward starts from, written out."""

from __future__ import annotations

import numpy as np

from sharedgrad import kernels
from sharedgrad.calculation import Objective
from sharedgrad.document.blocks import Block, Equation, Paragraph, Section
from sharedgrad.document.expression import (
    Cell,
    Difference,
    Expression,
    Function,
    LeftOut,
    Number,
    Power,
    Product,
    Quotient,
    Sum,
    Symbol,
)
from sharedgrad.explaining.cells import Limits, equations, grid
from sharedgrad.explaining.names import Names

_WORDS = {
    "MSE": "Squared error: the differences from the target, squared and added.",
    "CrossEntropy": "Cross-entropy: the scores are made probabilities p by a softmax; the loss is -ln p of the class.",
    "BinaryCrossEntropy": "Binary cross-entropy of independent yes/no outputs.",
}


def section(names: Names, objective: Objective, value: float, limits: Limits) -> Section:
    """One loss: its value and its gradient."""
    y = names.value(objective.node)
    reduction = objective.loss.reduction
    blocks: list[Block] = [Paragraph.of(f"{objective.name} ({reduction}) of {y.key}. {_WORDS[objective.name]}")]
    _, gradient = objective.loss(y.array, objective.target)
    own = names.loss_gradient(objective, gradient)
    target = names.target(objective)
    if objective.name == "MSE":
        blocks += _squared(y, target, own, reduction, value, limits)
    elif objective.name == "CrossEntropy" and not objective.options.get("label_smoothing"):
        blocks += _cross_entropy(names, objective, own, reduction, value, limits)
    else:
        blocks.append(Equation("loss", Number(value), value, numeric=False))
    title = f"Loss at {objective.node}" if names.several else "Loss"
    return Section(title, (*blocks, grid(own, limits)), f"{y.key}.loss")


def _squared(y: Symbol, target: Symbol, own: Symbol, reduction: str, value: float, limits: Limits) -> list[Block]:
    count = y.array.size
    squares: list[Expression] = [Power(Difference(y.at(i), target.at(i)), 2) for i in range(count)]
    total = _shortened(squares, limits)
    scale = {"sum": None, "half_sum": Quotient(Number(1), Number(2)), "mean": Quotient(Number(1), Number(float(count)))}
    factor = scale[reduction]
    loss = total if factor is None else Product((factor, total))

    def right(cell: Cell) -> Expression:
        difference = Difference(Cell(y, cell.index), Cell(target, cell.index))
        if reduction == "half_sum":
            return difference
        two = Number(2.0) if reduction == "sum" else Quotient(Number(2), Number(float(count)))
        return Product((two, difference))

    return [Equation("loss", loss, value), equations(own, limits, right)]


def _cross_entropy(
    names: Names, objective: Objective, own: Symbol, reduction: str, value: float, limits: Limits
) -> list[Block]:
    y = names.value(objective.node)
    p = names.helper("p", kernels.of(y.array).softmax(y.array, 1), objective.node)
    one_hot = np.zeros_like(y.array)
    np.put_along_axis(one_hot, np.expand_dims(objective.target, 1), 1, axis=1)
    t = names.helper("t", one_hot, objective.node)
    count = Number(float(objective.target.size))

    def softmax(cell: Cell) -> Expression:
        assert cell.index is not None
        n, _, *place = cell.index
        scores: list[Expression] = [Function("exp", (y.cell(n, c, *place),)) for c in range(y.array.shape[1])]
        return Quotient(Function("exp", (Cell(y, cell.index),)), _shortened(scores, limits))

    def right(cell: Cell) -> Expression:
        difference = Difference(Cell(p, cell.index), Cell(t, cell.index))
        return difference if reduction == "sum" or count.number == 1 else Quotient(difference, count)

    logarithms: list[Expression] = [Function("ln", (p.at(int(i)),)) for i in np.flatnonzero(one_hot.reshape(-1))]
    total = _shortened(logarithms, limits)
    factor = Number(-1.0) if reduction == "sum" or count.number == 1 else Quotient(Number(-1.0), count)
    return [
        equations(p, limits, softmax),
        Equation("loss", Product((factor, total)), value),
        Paragraph.of("t is 1 at the class and 0 elsewhere."),
        equations(own, limits, right),
    ]


def _shortened(terms: list[Expression], limits: Limits) -> Expression:
    """A sum, of which the last terms are left out where there are too many."""
    if len(terms) == 1:
        return terms[0]
    kept, rest = terms[: limits.terms], terms[limits.terms :]
    if not rest:
        return Sum(tuple(kept))
    return Sum(tuple(kept), LeftOut(len(rest), sum(term.value for term in rest)))
