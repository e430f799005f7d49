"""A recurrent layer written out: forward through time, and back."""

from __future__ import annotations

import numpy as np

from sharedgrad.document.blocks import Block, Paragraph
from sharedgrad.document.expression import Cell, Difference, Expression, Function, Number, Power, Product, Sum, Symbol
from sharedgrad.explaining.cells import Limits, equations, grid
from sharedgrad.explaining.names import Names
from sharedgrad.graph import Node


def _states(names: Names, node: Node) -> Symbol:
    """All hidden states h (N, T, H), whether or not the layer gives all of them."""
    y = names.value(node.name)
    if not node.layer.last:  # type: ignore[attr-defined]
        return y
    use = next(u for u in names.uses(node, node.layer.weight_hh))  # type: ignore[attr-defined]
    before = np.asarray(use.patch)[:, :, 0]  # type: ignore[attr-defined]
    states = np.concatenate([before[:, 1:], y.array[:, None]], axis=1)
    return names.helper("h", states, node.name)


def forward(names: Names, node: Node, limits: Limits) -> list[Block]:
    """h[t] = tanh(w_ih·x[t] + b_ih + w_hh·h[t−1] + b_hh), every cell."""
    layer, h, x = node.layer, _states(names, node), names.value(node.inputs[0])
    w_ih, w_hh = names.seen(node, "weight_ih_l0"), names.seen(node, "weight_hh_l0")
    biases = [names.seen(node, name) for name in ("bias_ih_l0", "bias_hh_l0") if name in layer.parameters()]

    def right(cell: Cell) -> Expression:
        assert cell.index is not None
        n, t, i = cell.index
        terms: list[Expression] = [Product((w_ih.cell(i, j), x.cell(n, t, j))) for j in range(w_ih.array.shape[1])]
        terms += [bias.cell(i) for bias in biases]
        if t:
            terms += [Product((w_hh.cell(i, j), h.cell(n, t - 1, j))) for j in range(len(w_hh.array))]
        return Function("tanh", (Sum(tuple(terms)),))

    opening = Paragraph.of(
        "At step t the layer reads x[t] and what it made at the step before, h[t-1]; before the first step that is 0."
    )
    return [opening, equations(h, limits, right)]


def backward(names: Names, node: Node, limits: Limits) -> list[Block]:
    """dh[t] = dy[t] + w_hhᵀ·δ[t+1], and δ[t] = dh[t]·(1 − h[t]²), last step first."""
    layer, h, dy = node.layer, _states(names, node), names.gradient(node.name)
    assert dy is not None
    inner = names.inner(node)
    dh, delta = (names.helper(name, np.asarray(inner[name]), node.name) for name in ("dh", "delta"))
    w_hh, steps = names.seen(node, "weight_hh_l0"), h.array.shape[1]

    def from_above(n: int, t: int, i: int) -> list[Expression]:
        if not layer.last:  # type: ignore[attr-defined]
            return [dy.cell(n, t, i)]
        return [dy.cell(n, i)] if t == steps - 1 else []

    def of_dh(cell: Cell) -> Expression:
        assert cell.index is not None
        n, t, i = cell.index
        later = (
            [Product((w_hh.cell(j, i), delta.cell(n, t + 1, j))) for j in range(len(w_hh.array))]
            if t + 1 < steps
            else []
        )
        return Sum((*from_above(n, t, i), *later))

    def of_delta(cell: Cell) -> Expression:
        assert cell.index is not None
        return Product((Cell(dh, cell.index), Difference(Number(1), Power(Cell(h, cell.index), 2))))

    return [
        Paragraph.of(
            "Back through time, last step first. What reaches h[t] comes from the output at t and, through w_hh, "
            "from step t+1; then through the tanh, whose derivative is 1 - h²."
        ),
        equations(dh, limits, of_dh),
        equations(delta, limits, of_delta),
        grid(delta, limits),
    ]
