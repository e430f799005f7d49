"""Graphs of layers: the forms in which people write them, as nodes in an order that can be computed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

import numpy as np

from sharedgrad.errors import ConfigError, kind
from sharedgrad.layers.layer import Layer, Shape

Layers = Sequence[Layer | tuple[str, Layer]] | Mapping[str, Layer | tuple[Any, ...]]
InputShape = Sequence[int] | Mapping[str, Sequence[int] | None] | None


class Node(NamedTuple):
    """One place in the graph: a layer, and the names of the nodes or network inputs that it reads."""

    name: str
    layer: Layer
    inputs: tuple[str, ...]


def read_nodes(layers: Layers, inputs: Mapping[str, Any]) -> tuple[list[Node], str]:
    """The nodes, each after all that it reads, and the name of the one that was written last.

    Args:
        layers: A list of layers or of pairs (name, layer), each reading the one before; or a mapping
            name -> layer or name -> (layer, *names that it reads).
        inputs: Names of the network's inputs; the first layer reads the first of them.

    Raises:
        ConfigError: Something is no layer; a name is missing, double or circular.
    """
    nodes = _as_nodes(layers, next(iter(inputs)))
    return _sorted(nodes, inputs), nodes[-1].name


def input_shapes(input_shape: InputShape) -> dict[str, Shape | None]:
    """Input name -> shape of one sample, or None where it is not known."""
    given = input_shape if isinstance(input_shape, Mapping) else {"input": input_shape}
    shapes: dict[str, Shape | None] = {}
    for name, shape in given.items():
        sizes = () if shape is None else shape if isinstance(shape, Iterable) else (shape,)
        if not all(isinstance(n, int | np.integer) and n > 0 for n in sizes):
            raise ConfigError(f"input_shape of {name!r}", f"expected positive whole numbers, got {shape!r}")
        shapes[name] = None if shape is None else tuple(int(n) for n in sizes)
    if not shapes:
        raise ConfigError("input_shape", "expected at least one input, got none")
    return shapes


def index_inputs(nodes: Sequence[Node], inputs: Collection[str]) -> frozenset[str]:
    """Names of the network's inputs that hold indices (``Layer.index_inputs``): they stay whole numbers.

    Raises:
        ConfigError: A layer reads indices from another node, or one input is read as indices and as numbers.
    """
    readers: dict[bool, dict[str, str]] = {True: {}, False: {}}
    for node in nodes:
        for number, source in enumerate(node.inputs):
            as_indices = number in node.layer.index_inputs
            readers[as_indices].setdefault(source, node.name)
            if as_indices and source not in inputs:
                problem = f"reads {source!r} as indices, which is a node: its numbers are no longer whole"
                raise ConfigError(f"node {node.name!r}", problem, f"read one of the inputs {', '.join(inputs)}")
    for source, reader in readers[True].items():
        if source in readers[False]:
            problem = f"{reader!r} reads it as indices, {readers[False][source]!r} as numbers"
            raise ConfigError(f"network input {source!r}", problem, "give the network two inputs")
    return frozenset(readers[True])


def _names(layers: Layers) -> list[str]:
    if isinstance(layers, Mapping):
        return list(layers)
    return [entry[0] if isinstance(entry, tuple) else str(i) for i, entry in enumerate(layers)]


def _as_nodes(layers: Any, first_input: str) -> list[Node]:
    """The forms that people write, as nodes."""
    if not isinstance(layers, Sequence | Mapping):
        problem = f"expected a list of layers or name -> layer, got {type(layers).__name__}"
        raise ConfigError("network", problem, "put a single layer into a list")
    if not layers:
        raise ConfigError("network", "expected at least one layer, got none")
    nodes, previous = [], first_input
    entries = layers.values() if isinstance(layers, Mapping) else layers
    for name, entry in zip(_names(layers), entries, strict=True):
        parts = entry if isinstance(entry, tuple) else (entry,)
        layer, *sources = parts if isinstance(layers, Mapping) else parts[-1:]
        if not isinstance(layer, Layer):
            fix = f"make one: {layer.__name__}(…)" if isinstance(layer, type) else "pass one, e.g. Linear(4, 3)"
            raise ConfigError(f"node {name!r}", f"expected a layer, got {kind(layer)}", fix)
        nodes.append(Node(name, layer, tuple(sources) or (previous,)))
        previous = name
    return nodes


def _sorted(nodes: list[Node], inputs: Mapping[str, Any]) -> list[Node]:
    """The nodes in an order in which each comes after all that it reads."""
    by_name = {node.name: node for node in nodes}
    if len(by_name) != len(nodes) or set(by_name) & set(inputs):
        raise ConfigError("network", f"expected every name once, got {', '.join([*inputs, *(n.name for n in nodes)])}")
    for node in nodes:
        for source in node.inputs:
            if source not in by_name and source not in inputs:
                raise ConfigError(f"node {node.name!r}", f"reads {source!r}, which is no node or input")
    try:
        order = list(TopologicalSorter({node.name: node.inputs for node in nodes}).static_order())
    except CycleError as error:
        raise ConfigError("network", f"expected no circles, got {' -> '.join(error.args[1])}") from None
    place = {name: i for i, name in enumerate(order)}
    given = {node.name: i for i, node in enumerate(nodes)}
    ready = all(source in inputs or given[source] < i for i, n in enumerate(nodes) for source in n.inputs)
    return nodes if ready else sorted(nodes, key=lambda node: place[node.name])
