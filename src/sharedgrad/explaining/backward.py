"""Backward: for every node the gradient that arrives, the gradients of its weights, and what it sends on."""

from __future__ import annotations

import numpy as np

from sharedgrad.document.blocks import Block, Equations, Paragraph, Section
from sharedgrad.document.expression import Cell, Difference, Expression, Number, Power, Product, Sum, Symbol, from_terms
from sharedgrad.document.numbers import count
from sharedgrad.explaining import recurrent
from sharedgrad.explaining.cells import Limits, equations, grid, sums, wanted
from sharedgrad.explaining.general import formulas
from sharedgrad.explaining.names import Names
from sharedgrad.explaining.windows import both_ways
from sharedgrad.graph import Node
from sharedgrad.parameter import Parameter
from sharedgrad.uses import Uses

_POOLED = {
    "MaxPool": "The whole gradient of a window goes to the cell that won it; a cell that won several windows gets all "
    "of them, added; one that won none gets 0.",
    "AvgPool": "Every cell of a window gets the same part of its gradient; a cell under several windows gets all of "
    "them, added.",
}


def section(names: Names, node: Node, limits: Limits) -> Section:
    """One node, if a gradient reaches it."""
    dy = names.gradient(node.name)
    assert dy is not None
    blocks: list[Block] = [*_arriving(names, node.name, dy, limits)]
    if type(node.layer).__name__ == "RNN":
        blocks += recurrent.backward(names, node, limits)
    for parameter in names.parameters(node):
        if names.weight_gradient(parameter) is not None:
            blocks.append(of_weight(names, node, parameter, limits))
    blocks += [part for which in range(len(node.inputs)) if (part := _of_input(names, node, which, limits)) is not None]
    title = f"{node.name}: backward" if names.several else "Backward"
    return Section(title, tuple(blocks), dy.key)


def _arriving(names: Names, name: str, dy: Symbol, limits: Limits) -> list[Block]:
    """dy, and what it is the sum of where several paths meet."""
    arriving = [names.dx(names.network_node(node), which) for node, which in names.senders(name)]
    arriving += [
        names.loss_gradient(o, o.loss(names.value(name).array, o.target)[1])
        for o in names.calculation.objectives
        if o.node == name
    ]
    if name in names.calculation.upstream:
        arriving.append(names.given_upstream(name))
    parts = [part for part in arriving if part.key != dy.key]
    if len(parts) < 2 and names.senders(name):
        return [Paragraph.of(f"The gradient at its output is {dy.key}, as found above.")]
    if len(parts) < 2:
        return [Paragraph.of(f"The gradient at its output, {dy.key}:"), grid(dy, limits)]

    def right(cell: Cell) -> Expression:
        return Sum(tuple(Cell(part, cell.index) for part in parts))

    words = f"Gradients come back on {len(parts)} paths; they add: {dy.key} = {' + '.join(p.key for p in parts)}."
    return [Paragraph.of(words), equations(dy, limits, right), grid(dy, limits)]


# ---- weights


def of_weight(names: Names, node: Node, parameter: Parameter, limits: Limits) -> Section:
    """The gradient of one parameter: the sum over its uses in this call, and over other calls where it is shared."""
    dw = names.weight_gradient(parameter)
    assert dw is not None
    calls = [(other, use) for other in names.network for use in names.uses(other, parameter)]
    blocks: list[Block] = [Paragraph.of(used(names, parameter, [use for _, use in calls]))]
    if len(calls) > 1 and node is not calls[0][0]:
        blocks.append(
            Paragraph.of(f"Its gradient is written out where the last of these calls is met, at {calls[0][0].name}.")
        )
        return Section(f"{dw.key}: a part of it", tuple(blocks), f"{dw.key}.{node.name}")
    key = {"w": "dw", "b": "db"}.get(names.weight(parameter).name, "")
    if len(calls) == 1 and (general := formulas(names, node).get(key)):
        blocks.append(general)

    def right(cell: Cell) -> Expression:
        return gradient_sum(names, calls, cell, limits)

    blocks += [equations(dw, limits, right), grid(dw, limits)]
    return Section(f"{dw.key}: the sum over its uses", tuple(blocks), dw.key)


def used(names: Names, parameter: Parameter, uses: list[Uses]) -> str:
    """How often a weight is used, and where."""
    total = sum(use.count for use in uses)
    where = " + ".join(use.described().partition(", ")[2] or "once" for use in uses)
    if total == 1:
        return f"{names.weight(parameter).key} is used once: its gradient is one product."
    return (
        f"{names.weight(parameter).key} is one weight for {count(total, 'use')} ({where}). Each use contributes "
        "upstream "
        "gradient times what the weight was multiplied with; the gradient is the plain sum: no mean, no division."
    )


def gradient_sum(names: Names, calls: list[tuple[Node, Uses]], cell: Cell, limits: Limits) -> Expression:
    """One element of a gradient as the sum of its uses in all calls."""
    assert cell.index is not None
    sums_of_calls = []
    for node, use in calls:
        terms, symbols = names.of_uses(node, use, use.products(*cell.index))
        sums_of_calls.append(from_terms(terms, symbols, limits.terms))
    return sums_of_calls[0] if len(sums_of_calls) == 1 else Sum(tuple(sums_of_calls))


# ---- inputs


def _of_input(names: Names, node: Node, which: int, limits: Limits) -> Section | None:
    """What a node sends back to one of its inputs, if anybody asks for it."""
    if names.gradient(node.inputs[which]) is None:
        return None
    kind, dx = type(node.layer).__name__, names.dx(node, which)
    blocks: list[Block] = []
    if words := next((text for name, text in _POOLED.items() if kind.startswith(name)), ""):
        blocks.append(Paragraph.of(words))
    if general := formulas(names, node).get("dx"):
        blocks.append(general)
    plain = getattr(node.layer, "padding_mode", "zeros") == "zeros"
    if kind in ("Conv1d", "Conv2d", "Conv3d") and plain:
        blocks += both_ways(names, node, limits)
    elif kind in ("Flatten", "Reshape"):
        blocks += [Paragraph.of("The same numbers go back, in the shape in which they came."), grid(dx, limits)]
    else:
        blocks += [*_equations(names, node, which, dx, limits), grid(dx, limits)]
    return Section(f"{dx.key}: back to {names.value(node.inputs[which]).key}", tuple(blocks), dx.key)


def _equations(names: Names, node: Node, which: int, dx: Symbol, limits: Limits) -> list[Equations]:
    kind = type(node.layer).__name__
    if kind in ("Sigmoid", "Tanh"):
        y, dy = names.value(node.name), names.gradient(node.name)

        def right(cell: Cell) -> Expression:
            out = Cell(y, cell.index)
            assert dy is not None
            if kind == "Tanh":
                return Product((Cell(dy, cell.index), Difference(Number(1), Power(out, 2))))
            return Product((Cell(dy, cell.index), out, Difference(Number(1), out)))

        return [equations(dx, limits, right)]
    terms = names.input_terms(node, which, np.asarray(wanted(dx, limits)))
    return [] if terms is None else [sums(dx, terms, names.of_factors(node, terms, which), limits)]
