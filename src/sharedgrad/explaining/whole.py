"""A whole calculation, in the order in which one would do it by hand: forward, loss, backward, update."""

from __future__ import annotations

from sharedgrad.calculation import Calculation, Result
from sharedgrad.document.blocks import Block, Document, Paragraph, Section, Source, Table
from sharedgrad.document.expression import Cell, Difference, Expression, Number, Product
from sharedgrad.explaining import backward, forward, losses
from sharedgrad.explaining.cells import Limits, equations, grid
from sharedgrad.explaining.names import Names
from sharedgrad.geometry import text
from sharedgrad.summary import written

FORWARD, BACKWARD, UPDATE = "Forward", "Backward", "Update"


def document(
    calculation: Calculation,
    result: Result,
    limits: Limits,
    before: tuple[Block, ...] = (),
    after: tuple[Block, ...] = (),
) -> Document:
    """Everything; ``before`` stands between what is given and the steps, ``after`` at the end."""
    names = Names(calculation, result)
    blocks = [*about(calculation), given(names, limits), *before]
    passes = [forward.section(names, node, limits) for node in names.network]
    passes += [
        losses.section(names, objective, value, limits)
        for objective, value in zip(calculation.objectives, result.losses, strict=True)
    ]
    back = [
        backward.section(names, node, limits)
        for node in reversed(names.network.nodes)
        if names.gradient(node.name) is not None
    ]
    if names.several or calculation.objectives:
        blocks += [Section(FORWARD, tuple(passes), "forward"), Section(BACKWARD, tuple(back), "backward")]
    else:
        blocks += [*passes, *back]
    if result.updated:
        blocks.append(update(names, limits))
    return Document(calculation.title or "A calculation", (*blocks, *after), sources(calculation))


def one_layer(calculation: Calculation, result: Result, node_name: str, limits: Limits) -> Document:
    """One node alone: forward and back."""
    names = Names(calculation, result)
    node = names.network_node(node_name)
    blocks: list[Block] = [forward.section(names, node, limits)]
    if names.gradient(node_name) is not None:
        blocks.append(backward.section(names, node, limits))
    title = f"{calculation.title or 'A calculation'}: {node_name}"
    return Document(title, tuple(blocks), sources(calculation))


def sources(calculation: Calculation) -> tuple[Source, ...]:
    """Where the numbers come from."""
    return tuple(Source(title, url) for title, url in calculation.sources)


def about(calculation: Calculation) -> list[Block]:
    """What is told about it."""
    return [Paragraph.of(" ".join(part.split())) for part in calculation.about.split("\n\n") if part.strip()]


def given(names: Names, limits: Limits) -> Section:
    """The network and the numbers that are given."""
    network, result = names.network, names.result
    rows = tuple(
        (
            node.name,
            written(node.layer),
            ", ".join(names.value(source).key for source in node.inputs),
            text(result.values[node.name].shape[1:]) or "1",
        )
        for node in network
    )
    blocks: list[Block] = []
    if names.several:
        blocks.append(Table(("node", "layer", "reads", "output"), rows))
    blocks += [grid(names.value(name), limits) for name in network.inputs]
    blocks += [grid(names.weight(parameter), limits) for parameter in network.parameters()]
    for name in names.calculation.upstream:
        blocks += [Paragraph.of("The gradient that arrives from above:"), grid(names.given_upstream(name), limits)]
    blocks += [grid(names.target(objective), limits, "the target") for objective in names.calculation.objectives]
    if names.calculation.learning_rate is not None:
        blocks.append(Paragraph.of("Learning rate: ", names.calculation.learning_rate, "."))
    blocks.append(Paragraph.of("Indices start at 0; an axis of length 1 has no index."))
    return Section("Given", tuple(blocks), "given")


def update(names: Names, limits: Limits) -> Section:
    """w − learning rate · dw, each weight once."""
    rate = names.calculation.learning_rate
    assert rate is not None
    blocks: list[Block] = [
        Paragraph.of(
            "Each weight is changed once, by the learning rate times its gradient. However often a weight is used, "
            "there is one number, one gradient and one update: so it stays shared."
        )
    ]
    for parameter in names.network.parameters():
        dw = names.weight_gradient(parameter)
        if dw is None:
            continue
        w, new = names.weight(parameter), names.updated(parameter)

        def right(cell: Cell, w=w, dw=dw) -> Expression:  # type: ignore[no-untyped-def]
            return Difference(Cell(w, cell.index), Product((Number(rate), Cell(dw, cell.index))))

        blocks += [equations(new, limits, right), grid(new, limits)]
    return Section(UPDATE, tuple(blocks), "update")
