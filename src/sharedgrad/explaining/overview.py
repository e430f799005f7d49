"""A network that is too large to write out: its layers and gradients in tables, one weight as an example."""

from __future__ import annotations

from math import prod

import numpy as np

from sharedgrad.calculation import Calculation, Result
from sharedgrad.document.blocks import Block, Document, Equation, Paragraph, Part, Section, Table
from sharedgrad.document.numbers import count
from sharedgrad.errors import ConfigError
from sharedgrad.explaining import one_weight, whole
from sharedgrad.explaining.backward import gradient_sum, used
from sharedgrad.explaining.cells import Limits
from sharedgrad.explaining.names import Names
from sharedgrad.geometry import text
from sharedgrad.parameter import Parameter
from sharedgrad.summary import written

WRITTEN_OUT = 4000  # numbers (outputs and weights) of a network that is written out unasked
MOST = 40_000  # … and at most


def size(calculation: Calculation) -> int:
    """How many numbers there are: inputs, outputs of nodes, and weights."""
    network = calculation.network
    samples = len(next(iter(calculation.inputs.values())))
    return samples * sum(map(prod, network.shapes().values())) + sum(prod(p.shape) for p in network.parameters())


def refuse_if_endless(numbers: int) -> None:
    """Writing everything out has an end too.

    Raises:
        ConfigError: There are too many numbers.
    """
    if numbers > MOST:
        problem = f"{numbers:,} numbers are too many to write out (at most {MOST:,})"
        raise ConfigError("explain", problem, "ask for one layer or one weight, or leave out --all")


def document(calculation: Calculation, result: Result, limits: Limits) -> Document:
    """The overview."""
    names = Names(calculation, result)
    nodes = list(names.network)
    numbers = size(calculation)
    shared = max(names.network.parameters(), key=lambda p: _uses(names, p), default=None)
    blocks: list[Block] = [
        *whole.about(calculation),
        Paragraph.of(
            f"This network has {numbers:,} numbers, too many to write out: {count(len(nodes), 'layer')} left out. "
            f'Ask for one of them, e.g. --layer "{nodes[0].name}"'
            + (f', for one weight, e.g. --weight "{shared.name}[{_zeros(shared.shape)}]"' if shared else "")
            + (", or for everything with --all." if numbers <= MOST else ".")
        ),
        _layers(names),
        _gradients(names),
    ]
    for objective, value in zip(calculation.objectives, result.losses, strict=True):
        blocks.append(Paragraph.of(f"{objective.name} at {objective.node}: ", value, "."))
    if shared is not None and (dw := names.weight_gradient(shared)) is not None:
        place = np.unravel_index(int(np.argmax(np.abs(dw.array))), dw.array.shape)
        cell = dw.cell(*(int(i) for i in place))
        calls = [(node, use) for node in nodes for use in names.uses(node, shared)]
        opening = Paragraph.of(used(names, shared, [use for _, use in calls]))
        equation = Equation.cell(cell, gradient_sum(names, calls, cell, limits))
        ledger = one_weight.ledger(names, calls, cell, limits)
        blocks.append(Section("One weight as an example", (opening, equation, ledger), "example"))
    return Document(calculation.title or "A calculation", tuple(blocks), whole.sources(calculation))


def _zeros(shape: tuple[int, ...]) -> str:
    return ",".join("0" for _ in shape)


def _uses(names: Names, parameter: Parameter) -> int:
    return sum(use.count for node in names.network for use in names.uses(node, parameter))


def _layers(names: Names) -> Table:
    rows: list[tuple[Part, ...]] = []
    for node in names.network:
        dy = names.gradient(node.name)
        shape = text(names.value(node.name).array.shape[1:]) or "1"
        rows.append((node.name, written(node.layer), shape, "none" if dy is None else float(np.linalg.norm(dy.array))))
    return Table(("node", "layer", "output", "length of dy"), tuple(rows))


def _gradients(names: Names) -> Table:
    rows: list[tuple[Part, ...]] = []
    for parameter in names.network.parameters():
        gradient = names.weight_gradient(parameter)
        length: Part = "none" if gradient is None else float(np.linalg.norm(gradient.array))
        rows.append((parameter.name, text(parameter.shape), _uses(names, parameter), length))
    return Table(("weight", "shape", "uses of each", "length of its gradient"), tuple(rows))
