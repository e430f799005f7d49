"""What a network consists of, how often each weight is used, and what it would need without sharing."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import prod
from typing import Any

import numpy as np

from sharedgrad.compilation import Compilation
from sharedgrad.errors import ConfigError
from sharedgrad.geometry import text
from sharedgrad.graph import Node
from sharedgrad.kernels.threads import one_blas_thread
from sharedgrad.layers import own
from sharedgrad.layers.context import Context
from sharedgrad.layers.layer import Layer, Shape
from sharedgrad.layout import columns, fold, table
from sharedgrad.network import Network
from sharedgrad.parameter import Parameter, Weight

_HEADER = ("node", "output", "parameters", "uses each", "without sharing", "as dense", "layer")
# Numbers to the right; parameters may say with whom they are shared, and a layer is long.
_NUMBERS, _WRAPPED, _LEAVING = (2, 3, 4, 5), (2, 6), (6, 5, 4, 3, 1)
_LEGEND = """\
uses each: how often one sample uses each parameter of the layer; its gradient is the sum over all of them.
without sharing: weights if every use had its own (locally connected). as dense: the same map as a dense layer."""


@dataclass(frozen=True)
class Row:
    """One node of a network.

    Attributes:
        name: The node's name.
        layer: The layer as one would write it, first weights left out.
        output: Shape of the output for one sample.
        parameters: Number of weights that no earlier row has counted.
        shared_with: Earlier nodes that this one shares weights with; how it sees them, if not as they are, in
            brackets: ``"encoder (transposed)"``.
        uses: How often one sample uses each parameter here (the most used, if they differ); 0 where there are none.
        without_sharing: Number of weights if every use had its own (the locally connected twin); None where
            nothing is shared within a sample.
        as_dense: Number of weights of a dense layer (with bias if the layer has one) between the same
            arrays; None likewise.
    """

    name: str
    layer: str
    output: Shape
    parameters: int
    shared_with: tuple[str, ...]
    uses: int
    without_sharing: int | None
    as_dense: int | None


@dataclass(frozen=True)
class Summary:
    """The rows of a network, and the totals; ``str`` is a table as wide as the terminal.

    Attributes:
        rows: One for each node, in the order of the forward pass.
        parameters: Number of weights in the network, each counted once.
        without_sharing: Number of weights if nothing were shared, neither within layers nor between them.
        as_dense: Number of weights with a dense layer in place of each layer that shares.
        compilation: What of it runs as compiled programs.
    """

    rows: tuple[Row, ...]
    parameters: int
    without_sharing: int
    as_dense: int
    compilation: Compilation

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __str__(self) -> str:
        return self.text(columns())

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in _cells(row))}</tr>" for row in self.rows)
        total = f"{self.parameters:,} parameters; without sharing {self.without_sharing:,}, as dense {self.as_dense:,}"
        heads = "".join(f"<th>{name}</th>" for name in _HEADER)
        caption = f"<caption>{total}</caption>"
        return f"<table>{caption}<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"

    def text(self, width: int) -> str:
        """The table in so many columns; what does not fit is left out, the layer first, and said below."""
        total = ("total", "", f"{self.parameters:,}", "", f"{self.without_sharing:,}", f"{self.as_dense:,}", "")
        lines, gone = table([_HEADER, *map(_cells, self.rows), total], width, _NUMBERS, _WRAPPED, _LEAVING)
        if gone:
            lines += ["", fold(f"left out at {width} columns: {', '.join(_HEADER[column] for column in gone)}", width)]
        return "\n".join([*lines, "", fold(_LEGEND, width), fold(self.compilation.sentence, width)])


def summarize(network: Network, *input_shapes: Shape) -> Summary:
    """Count parameters, uses, and what the twins without sharing would need.

    Args:
        network: Any network.
        input_shapes: Shape of one sample for each input; by default those that the network declares.

    Raises:
        ConfigError: The network declares no input shape and none is given.
        ShapeError: A given shape does not fit.

    >>> from sharedgrad import Conv2d, Network
    >>> [conv] = summarize(Network([Conv2d(1, 1, 2, bias=False)]), (1, 3, 3))
    >>> conv.parameters, conv.without_sharing, conv.as_dense
    (4, 16, 36)
    """
    shapes = network.shapes(*input_shapes)
    counted: dict[Parameter, str] = {}
    rows, without_sharing, as_dense = [], 0, 0
    for node in network:
        row = _row(node, shapes, counted, network.dtype)
        rows.append(row)
        size = _size(node.layer.parameters().values())
        without_sharing += size if row.without_sharing is None else row.without_sharing
        as_dense += size if row.as_dense is None else row.as_dense
    return Summary(tuple(rows), _size(counted), without_sharing, as_dense, network.compilation(*input_shapes))


def _row(node: Node, shapes: dict[str, Shape], counted: dict[Parameter, str], dtype: np.dtype[Any]) -> Row:
    """The row of one node; what it counts anew is entered in ``counted`` (parameter -> node)."""
    layer, before, after = node.layer, [shapes[name] for name in node.inputs], shapes[node.name]
    parameters = list(layer.parameters().values())
    shared_with = tuple(dict.fromkeys(_shared_with(counted[p.base], p) for p in parameters if p.base in counted))
    new = list(dict.fromkeys(p.base for p in parameters if p.base not in counted))
    counted.update(dict.fromkeys(new, node.name))
    unshared, outputs = layer.without_sharing(*before), prod(after)
    dense = sum(map(prod, before)) * outputs + (outputs if getattr(layer, "bias", None) else 0)
    return Row(
        node.name,
        written(layer),
        after,
        _size(new),
        shared_with,
        _uses(layer, before, dtype) if parameters else 0,
        unshared,
        None if unshared is None else dense,
    )


def _uses(layer: Layer, shapes: Sequence[Shape], dtype: np.dtype[Any]) -> int:
    """How often one sample uses each parameter; of a layer that is not built in, as its backward returns them.

    Raises:
        ConfigError: Its ``uses_per_sample`` says another number.
    """
    if layer.built_in:
        return layer.uses_per_sample(*shapes)
    kinds = [np.int64 if i in layer.index_inputs else dtype for i in range(len(shapes))]
    inputs = [np.zeros((1, *shape), kind) for shape, kind in zip(shapes, kinds, strict=True)]
    with one_blas_thread():
        y, saved = own.forward(layer, inputs, Context(training=False))
        _, uses = own.backward(layer, saved, np.zeros_like(y), [False] * len(inputs), list)
    counts: Counter[str] = Counter()
    for use in uses:
        counts[use.weight.name] += use.count
    counted = max(counts.values(), default=0)
    if type(layer).uses_per_sample is not Layer.uses_per_sample and layer.uses_per_sample(*shapes) != counted:
        problem = f"uses_per_sample says {layer.uses_per_sample(*shapes)}, backward returns {counted} for one sample"
        raise ConfigError(layer.label, problem, "mend it, or leave it out: they are counted")
    return counted


def _shared_with(node: str, parameter: Weight) -> str:
    return node if parameter.view.identity else f"{node} ({parameter.view})"


def _size(parameters: Iterable[Weight]) -> int:
    return sum(prod(p.shape) for p in parameters)


def written(layer: Layer) -> str:
    """The layer as a person would write it: ``Conv2d(1, 6, 5, padding=2)``."""
    required = {a.name for a in inspect.signature(type(layer)).parameters.values() if a.default is a.empty}
    given = {name: value for name, value in layer.config().items() if name != "init"}
    arguments = [f"{value!r}" if name in required else f"{name}={value!r}" for name, value in given.items()]
    return f"{type(layer).__name__}({', '.join(arguments)})"


def _cells(row: Row) -> tuple[str, ...]:
    parts = [f"{row.parameters:,}"] if row.parameters else []
    if row.shared_with:
        parts.append(f"shared with {', '.join(row.shared_with)}")
    unshared, dense = ("" if n is None else f"{n:,}" for n in (row.without_sharing, row.as_dense))
    uses = f"{row.uses:,}" if row.uses else ""
    return (row.name, text(row.output) or "1", " + ".join(parts), uses, unshared, dense, row.layer)
