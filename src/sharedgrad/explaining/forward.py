"""Forward: every node's output, cell by cell."""

from __future__ import annotations

from sharedgrad.document.blocks import Block, Paragraph, Section
from sharedgrad.document.expression import Cell, Expression, Function
from sharedgrad.explaining import recurrent
from sharedgrad.explaining.cells import Limits, equations, grid, sums, wanted
from sharedgrad.explaining.general import formulas
from sharedgrad.explaining.names import Names
from sharedgrad.graph import Node
from sharedgrad.summary import written

_ELEMENTWISE = {"Sigmoid": "sigmoid", "Tanh": "tanh", "ReLU": "relu"}
_WORDS = {
    "Conv": "The kernel slides over the input; at each position it is laid over a window, the products are added.",
    "MaxPool": "Of each window the largest number is kept.",
    "AvgPool": "Of each window the mean is kept.",
    "GlobalAvgPool": "Of each map the mean is kept.",
    "Linear": "Each output is a sum over all inputs, each times a weight of its own.",
    "Flatten": "The same numbers in one row.",
    "Reshape": "The same numbers in another shape.",
    "LocallyConnected": "As a convolution, but every position has a kernel of its own: nothing is shared.",
    "RNN": "One step after the other; the same weights at every step.",
    "Add": "The inputs are added, cell by cell.",
    "Concat": "The inputs stand one after the other.",
}


def words(kind: str) -> str:
    """What a layer does, in a sentence; "" where its formula says it."""
    return next((text for name, text in _WORDS.items() if kind.startswith(name)), "")


def section(names: Names, node: Node, limits: Limits) -> Section:
    """One node."""
    kind, y = type(node.layer).__name__, names.value(node.name)
    reads = " and ".join(names.value(source).key for source in node.inputs)
    blocks: list[Block] = [Paragraph.of(f"{written(node.layer)} reads {reads}. {words(kind)}".strip())]
    if general := formulas(names, node).get("y"):
        blocks.append(general)
    blocks += _numbers(names, node, limits)
    title = f"{node.name}: forward" if names.several else "Forward"
    return Section(title, (*blocks, grid(y, limits)), y.key)


def _numbers(names: Names, node: Node, limits: Limits) -> list[Block]:
    kind, y = type(node.layer).__name__, names.value(node.name)
    if kind == "RNN":
        return recurrent.forward(names, node, limits)
    if kind in _ELEMENTWISE:
        x = names.value(node.inputs[0])

        def right(cell: Cell) -> Expression:
            return Function(_ELEMENTWISE[kind], (Cell(x, cell.index),))

        return [equations(y, limits, right)]
    if kind in ("Flatten", "Reshape"):
        return []
    terms = names.output_terms(node, wanted(y, limits))
    if terms is None:
        return []
    return [sums(y, terms, names.of_factors(node, terms), limits)]
