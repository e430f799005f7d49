"""One weight, reached on three paths: each occurrence is added."""

from __future__ import annotations

from sharedgrad.document.blocks import Block, Equation, Paragraph, Section
from sharedgrad.document.expression import (
    Cell,
    Difference,
    Expression,
    LeftOut,
    Number,
    Power,
    Product,
    Sum,
    from_terms,
    parts,
)
from sharedgrad.explaining.cells import Limits
from sharedgrad.explaining.names import Names


def blocks(names: Names, limits: Limits) -> list[Block]:
    """dw0, with the gradients on the way put in: a product for each path from the output to an occurrence of w0."""
    parameter = names.network.parameter("conv1.weight")
    node = names.network_node("conv1")
    (use,) = names.uses(node, parameter)
    dw = names.weight_gradient(parameter)
    assert dw is not None
    terms, symbols = names.of_uses(node, use, use.products(0, 0, 0))
    paths = [path for term in from_terms(terms, symbols).terms for path in _unfolded(names, term)]
    open_paths = [path for path in paths if path.value != 0]
    written = Sum(tuple(open_paths), LeftOut(len(paths) - len(open_paths), 0.0, "paths that are 0"))
    return [
        Section(
            "The paths of w0",
            (
                Paragraph.of(
                    "The gradient of w0, with all that lies between put in: for each path one product of the "
                    "gradient at the "
                    "output, the second kernel's weight, the derivative of h (of the tanh: 1 - h²) and the input. "
                    "Where paths merge, they add."
                ),
                Equation.cell(dw.cell(0, 0, 0), written),
            ),
            "paths",
        )
    ]


def _unfolded(names: Names, term: Expression) -> list[Expression]:
    """A term conv1.dy[i] · x[i], with conv1.dy[i] replaced by what it is made of."""
    delta, x = parts(term)
    assert isinstance(delta, Cell)
    second = names.network_node("conv2")
    above = names.input_terms(second, 0)
    assert above is not None
    sent = from_terms(above.rows(above.cell == delta.flat), names.of_factors(second, above))
    h = Cell(names.value("h1"), delta.index)
    slope = Difference(Number(1), Power(h, 2))
    return [Product((*parts(path), slope, x)) for path in sent.terms]
