"""Ten parameters, 900 uses: one place, then all of them."""

from __future__ import annotations

import numpy as np

from sharedgrad.document.blocks import Block, Equation, Grid, Paragraph, Row, Section, Table
from sharedgrad.document.expression import Symbol
from sharedgrad.explaining import whole
from sharedgrad.explaining.backward import gradient_sum
from sharedgrad.explaining.cells import Limits, equations, grid, sums, wanted
from sharedgrad.explaining.names import Names
from sharedgrad.parameter import Array
from sharedgrad.summary import summarize

_PLACE = (12, 17)
_AFTER = (1, 2, 10, 100, 900)


def blocks(names: Names, limits: Limits) -> list[Block]:
    """The counts, one place with its deltas, the sum, the update."""
    found = [_counts(names), _one_place(names), _all_places(names, limits), _inputs(names, limits)]
    return [*found, whole.update(names, limits)]


def _counts(names: Names) -> Section:
    (row,) = summarize(names.network)
    rows = (
        ("parameters: nine weights and a bias", row.parameters),
        ("uses of each", row.uses),
        ("parameters if every place had its own", row.without_sharing or 0),
        ("parameters of a dense layer from 32×32 to 30×30", row.as_dense or 0),
    )
    return Section("How many", (Table(("", "number"), rows),), "counts")


def _one_place(names: Names) -> Section:
    """The ten parameter deltas and the nine input deltas of one position."""
    (node,) = names.network
    dy, w, x = names.gradient(node.name), names.weight(node.layer.parameters()["weight"]), names.value(node.inputs[0])
    assert dy is not None
    i, j = _PLACE
    delta = dy.cell(0, 0, i, j)
    (use,) = names.uses(node, node.layer.parameters()["weight"])
    window = Symbol("window", x.array[0, 0, i : i + 3, j : j + 3])
    contribution = Symbol("dw here", np.asarray(use.contribution(sample=0, position=_PLACE))[0, 0])
    back = Symbol("dx here", delta.value * w.array[0, 0])
    bias = names.weight_gradient(node.layer.parameters()["bias"])
    assert bias is not None
    return Section(
        f"One place: row {i}, column {j}",
        (
            Paragraph.of("The gradient that arrives here is ", delta, " = ", delta.value, "."),
            Paragraph.of("Its contributions to the nine weights: the window that was read, times this gradient."),
            Row((Grid(window), "× dy →", Grid(contribution))),
            Paragraph.of("Its contribution to the bias is the gradient itself: ", delta.value, ". That makes ten."),
            Paragraph.of("What it sends back to the nine input cells of its window: the kernel, times this gradient."),
            Row((Grid(Symbol("w", w.array[0, 0])), "× dy →", Grid(back))),
        ),
        "place",
    )


def _all_places(names: Names, limits: Limits) -> Section:
    """All contributions, added."""
    (node,) = names.network
    parameter, bias = node.layer.parameters()["weight"], node.layer.parameters()["bias"]
    (use,), dw, db = names.uses(node, parameter), names.weight_gradient(parameter), names.weight_gradient(bias)
    assert dw is not None
    assert db is not None
    cell = dw.cell(0, 0, 1, 1)
    terms = np.asarray(use.products(0, 0, 1, 1).values)
    running = np.cumsum(terms)
    rows = tuple((after, float(running[after - 1])) for after in _AFTER)
    (bias_use,) = names.uses(node, bias)
    return Section(
        "All 900 places, added",
        (
            Paragraph.of("The sum of one weight, ", cell, ", as it grows place by place, in reading order:"),
            Table(("places", "sum so far"), rows, f"The last one is dw: {_agrees(terms, cell.value)}"),
            Paragraph.of("Its largest terms, and the sum of the others:"),
            Equation.cell(cell, gradient_sum(names, [(node, use)], cell, limits)),
            Paragraph.of("All nine weights, and the bias:"),
            grid(dw, limits),
            equations(db, limits, lambda one: gradient_sum(names, [(node, bias_use)], one, limits)),
        ),
        "dw",
    )


def _agrees(terms: Array, gradient: float) -> str:
    return "the engine's own." if np.isclose(terms.sum(), gradient, rtol=1e-12, atol=1e-12) else "which does not agree."


def _inputs(names: Names, limits: Limits) -> Section:
    (node,) = names.network
    dx = names.dx(node)
    terms = names.input_terms(node, 0, wanted(dx, limits))
    assert terms is not None
    return Section(
        "The gradient of the image",
        (
            Paragraph.of(
                "Nine contributions of each place make 8,100; an input cell gets one from each place whose window "
                "covers "
                "it, nine in the middle and one in a corner."
            ),
            sums(dx, terms, names.of_factors(node, terms), limits),
            grid(dx, limits),
        ),
        "dx",
    )
