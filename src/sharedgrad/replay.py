"""A pass through a network, layer by layer: all of it at once, or later only what is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

from sharedgrad.graph import Node
from sharedgrad.kernels.threads import one_blas_thread
from sharedgrad.layers import own
from sharedgrad.layers.context import Context
from sharedgrad.layers.layer import Layer
from sharedgrad.parameter import Array, Buffer, Parameter, Weight

Records = list[tuple[Node, Any]]  # each node with what its layer's forward has saved


@dataclass(eq=False)  # not frozen: that takes three times as long to make
class Pass:
    """What one forward pass started from.

    Attributes:
        inputs: The network's inputs (N, *shape), by name.
        training, seed, step: Mode, and what keys the randomness.
        buffers: The values that buffers had.
    """

    inputs: Mapping[str, Array]
    training: bool
    seed: int
    step: int
    buffers: Mapping[Buffer, Array]

    def context(self) -> Context:
        """A context for computing the same once more."""
        context = Context(self.training, self.seed, self.step)
        for buffer, value in self.buffers.items():
            context.update(buffer, value)
        return context


def run(nodes: Iterable[Node], inputs: Mapping[str, Array], context: Context) -> tuple[dict[str, Array], Records]:
    """Every node's value (N, *shape), and what each layer has saved."""
    values, records = dict(inputs), []
    with one_blas_thread():
        for node in nodes:
            context.enter(node.name)
            output, saved = own.forward(node.layer, [values[source] for source in node.inputs], context)
            values[node.name] = output
            records.append((node, saved))
    return values, records


class Replay:
    """A pass that is over, computed again node by node as far as it is asked for.

    It works on copies of the layers, which hold the values that the weights had; what is known already is not
    computed again.

    Args:
        nodes: In topological order.
        origin: What the pass started from.
        given: Node -> gradient of the loss that was given there.

    Attributes:
        nodes: The nodes, with the copies of their layers.
        inputs: Names of the network's inputs.
        weights: Parameter -> its copy, which holds the value of the pass.
    """

    def __init__(self, nodes: Sequence[Node], origin: Pass, given: Mapping[str, Array]) -> None:
        self.weights: dict[Parameter, Parameter] = {}
        self._origin, self._given = origin, given
        twins = {layer: self._frozen(layer) for layer in dict.fromkeys(node.layer for node in nodes)}
        self.inputs = list(origin.inputs)
        self.nodes = [node._replace(layer=twins[node.layer]) for node in nodes]
        self._by_name = {node.name: node for node in self.nodes}
        self._readers: dict[str, list[Node]] = {}
        for node in reversed(self.nodes):  # as a walk back adds
            for source in dict.fromkeys(node.inputs):
                self._readers.setdefault(source, []).append(node)
        self._values = dict(origin.inputs)
        self._saved: dict[str, Any] = {}
        self._statistics: dict[str, tuple[Any, ...]] = {}
        self._upstreams: dict[str, Array] = {}
        self._input_gradients: dict[str, tuple[Array | None, ...]] = {}

    def know(
        self, values: Mapping[str, Array], upstreams: Mapping[str, Array], statistics: Mapping[str, tuple[Any, ...]]
    ) -> None:
        """Take over what a compiled pass has kept.

        Args:
            values: Node -> output.
            upstreams: Nodes with parameters -> gradient at the output. What such a node reads is an input or in
                ``values``, and its layer's ``saved`` method makes of that what its forward saves.
            statistics: Node -> what else that method takes.
        """
        self._values.update(values)
        self._upstreams.update(upstreams)
        self._statistics.update({name: statistics.get(name, ()) for name in upstreams})

    def know_call(self, node: Node, saved: Any, upstream: Array) -> None:
        """Take over what one layer's forward has saved, and the gradient at its output."""
        self._saved[node.name], self._upstreams[node.name] = saved, upstream

    def go_back(self, names: Iterable[str], records: Records) -> None:
        """The gradients at these nodes now, with the kernels that are chosen now.

        Args:
            names: The nodes.
            records: What each layer's forward has saved.
        """
        self._saved.update({node.name: saved for node, saved in records})
        for name in names:
            self.upstream(name)

    def value(self, name: str) -> Array:
        """The output of a node, or a network input (N, *shape)."""
        if name not in self._values:
            self._go_forward(name)
        return self._values[name]

    def saved(self, name: str) -> Any:
        """What the node's forward has saved."""
        if name not in self._saved:
            node = self._by_name[name]
            inputs = [self.value(source) for source in node.inputs]
            if name in self._statistics:
                self._saved[name] = node.layer.saved(*inputs, *self._statistics[name])  # type: ignore[attr-defined]
            else:
                self._compute(node)
        return self._saved[name]

    def upstream(self, name: str) -> Array | None:
        """The gradient at a node's output or a network input (N, *shape); None where none arrives."""
        if name not in self._upstreams:
            self._go_back(name)
        return self._upstreams.get(name)

    def _go_forward(self, name: str) -> None:
        missing, queue = set(), [name]
        while queue:
            name = queue.pop()
            if name not in self._values and name not in missing:
                missing.add(name)
                queue += self._by_name[name].inputs
        for node in self.nodes:
            if node.name in missing:
                self._compute(node)

    def _compute(self, node: Node) -> None:
        context = Context(self._origin.training, self._origin.seed, self._origin.step).enter(node.name)
        with one_blas_thread():
            output, saved = own.forward(node.layer, [self._values[source] for source in node.inputs], context)
        self._values.setdefault(node.name, output)
        self._saved.setdefault(node.name, saved)

    def _go_back(self, name: str) -> None:
        missing, queue = set(), [name]
        while queue:
            name = queue.pop()
            if name not in self._upstreams and name not in missing:
                missing.add(name)
                queue += [reader.name for reader in self._readers.get(name, ())]
        for name in (*(node.name for node in reversed(self.nodes)), *self.inputs):
            if name in missing:
                self._add_up(name)

    def _add_up(self, name: str) -> None:
        """What was given at a node, and what comes back from each of its readers."""
        total = self._given.get(name)
        for reader in self._readers.get(name, ()):
            for source, part in zip(reader.inputs, self._back_through(reader), strict=True):
                if source == name and part is not None:
                    total = part if total is None else total + part
        if total is not None:
            self._upstreams[name] = total

    def _back_through(self, node: Node) -> tuple[Array | None, ...]:
        if node.name not in self._upstreams:
            return (None,) * len(node.inputs)
        if node.name not in self._input_gradients:
            upstream = self._upstreams[node.name]
            needs = [number not in node.layer.index_inputs for number in range(len(node.inputs))]
            with one_blas_thread():
                self._input_gradients[node.name], _ = own.backward(
                    node.layer, self.saved(node.name), upstream, needs, partial(self.shapes, node)
                )
        return self._input_gradients[node.name]

    def shapes(self, node: Node) -> list[tuple[int, ...]]:
        """The shapes of what a node reads, samples included."""
        return [self.value(source).shape for source in node.inputs]

    def _frozen(self, layer: Layer) -> Layer:
        """A copy of the layer with the values of the pass."""
        copies: dict[Weight | Buffer, Any] = {}
        for weight in layer.parameters().values():
            base = copies[weight.base] = self.weights.setdefault(weight.base, copy(weight.base))
            copies[weight] = base.seen(weight.view)
        for buffer in layer.buffers().values():
            copies[buffer] = Buffer(self._origin.buffers.get(buffer, buffer.value), buffer.name)
        twin = copy(layer)
        held = {key: value for key, value in vars(layer).items() if isinstance(value, Weight | Buffer)}
        vars(twin).update({key: copies.get(value, value) for key, value in held.items()})
        if len(held) < len(copies):  # it holds some of them in lists or the like
            return deepcopy(layer, {id(original): twin for original, twin in copies.items()})
        return twin
