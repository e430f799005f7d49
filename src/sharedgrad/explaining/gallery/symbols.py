"""Four weights, used at four places, in symbols."""

from __future__ import annotations

from sharedgrad.document.blocks import Block, Equation, Equations, Paragraph, Section, Table
from sharedgrad.document.expression import Symbol, from_terms
from sharedgrad.explaining.backward import gradient_sum
from sharedgrad.explaining.cells import Limits
from sharedgrad.explaining.names import Names
from sharedgrad.graph import Node
from sharedgrad.summary import summarize
from sharedgrad.uses import Terms


def blocks(names: Names, limits: Limits) -> list[Block]:
    """The layer in symbols: forward, back to the weights, back to the input; and how many weights sharing saves."""
    (node,) = names.network
    (row,) = summarize(names.network)
    counts = Table(
        ("", "weights"),
        (
            ("one filter, shared by all four places", row.parameters),
            ("a filter of its own for each place", row.without_sharing or 0),
            ("a dense layer with four outputs", row.as_dense or 0),
        ),
    )
    y, dx = names.value(node.name), names.dx(node)
    parameter = node.layer.parameters()["weight"]
    dw, (use,) = names.weight_gradient(parameter), names.uses(node, parameter)
    assert dw is not None
    gradients = [dw.at(flat) for flat in range(dw.array.size)]
    return [
        Section(
            "In symbols",
            (
                Paragraph.of("Each output has a window of its own, and all have the same four weights:"),
                _symbolic(names, node, y, names.output_terms(node)),
                Paragraph.of("So each weight stands in all four outputs, and has four terms in its gradient:"),
                Equations(
                    tuple(
                        Equation(cell, gradient_sum(names, [(node, use)], cell, limits), numeric=False)
                        for cell in gradients
                    )
                ),
                Paragraph.of("An input cell has a term for each window that covers it:"),
                _symbolic(names, node, dx, names.input_terms(node, 0)),
                counts,
            ),
            "symbols",
        )
    ]


def _symbolic(names: Names, node: Node, symbol: Symbol, terms: Terms | None) -> Equations:
    assert terms is not None
    called = names.of_factors(node, terms)
    cells = [symbol.at(flat) for flat in range(symbol.array.size)]
    return Equations(
        tuple(Equation(cell, from_terms(terms.rows(terms.cell == cell.flat), called), numeric=False) for cell in cells)
    )
