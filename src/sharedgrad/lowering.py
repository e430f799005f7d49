"""A network's layers as compiled operations: what each writes on the way forward, and on the way back.

This is a private rewrite of the graph: an activation is computed together with the layer before it, maps stay in
blocks between layers. What cannot be written raises :class:`Unsupported`, and the network goes layer by layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from sharedgrad import layers as L
from sharedgrad.graph import Node
from sharedgrad.kernels.native import program as P
from sharedgrad.kernels.native.program import Builder, Map
from sharedgrad.layers.layer import Layer, Shape
from sharedgrad.parameter import Buffer, Parameter

_ACTIVATIONS: dict[type[Layer], int] = {L.ReLU: P.RELU, L.Sigmoid: P.SIGMOID, L.Tanh: P.TANH}
_CONVOLUTIONS = (L.Conv1d, L.Conv2d)
_MAX_POOLS, _AVG_POOLS = (L.MaxPool1d, L.MaxPool2d), (L.AvgPool1d, L.AvgPool2d)


class Unsupported(Exception):
    """There is no compiled operation for this."""


class Mask(NamedTuple):
    """The factors of a dropout node, drawn anew for every step."""

    node: Node


class Input(NamedTuple):
    """A network input."""

    name: str


class Output(NamedTuple):
    """A node's output, as a plain array."""

    name: str


class Upstream(NamedTuple):
    """The gradient that is given at a node."""

    name: str


class InputGradient(NamedTuple):
    """The gradient at a network input."""

    name: str


class Gradient(NamedTuple):
    """A parameter's gradient from one call, of all samples or sample by sample."""

    parameter: Parameter
    by_sample: bool


class Statistics(NamedTuple):
    """Where batch normalization left its batch's mean and variance."""

    node: Node
    mean: Map
    variance: Map
    count: int


Outside = Input | Output | Upstream | InputGradient | Gradient | Mask | Parameter | Buffer


class _Lowering:
    """What forward and backward share: a builder, and which array from outside is which."""

    def __init__(self, samples: int, dtype: np.dtype[Any]) -> None:
        self.builder = Builder(samples, dtype)
        self.outside: list[Outside] = []
        self._parameters: dict[Parameter | Buffer, Map] = {}

    def array(self, what: Outside, shape: Shape, samples: int | None = None) -> Map:
        """A plain array from outside; of all samples if ``samples`` is not given."""
        self.outside.append(what)
        samples = self.builder.samples if samples is None else samples
        channels, *spatial = shape
        height, width = P.spatial(tuple(spatial)) if spatial else (1, 1)
        return self.builder.array(channels, height, width, samples=samples)

    def parameter(self, p: Parameter | Buffer | None) -> Map | None:
        """A parameter's value as one row of numbers."""
        if p is None:
            return None
        if p not in self._parameters:
            shape = p.shape if isinstance(p, Parameter) else p.value.shape
            self._parameters[p] = self.array(p, (prod(shape),), 1)
        return self._parameters[p]

    def place(self, shape: Shape) -> Map:
        """A map in blocks for (C, L) or (C, H, W), a plain vector for (K,)."""
        if len(shape) == 1:
            return self.builder.vector(shape[0])
        if len(shape) not in (2, 3):
            raise Unsupported(f"samples of shape {shape}")
        return self.builder.map(shape[0], *P.spatial(shape[1:]))


class Forward(_Lowering):
    """All nodes, forward.

    Args:
        nodes: In topological order.
        shapes: Of inputs and nodes, without the sample axis.
        inputs: Names of the network's inputs.
        outputs: Names of its outputs.
        samples: N.
        dtype: float32 or float64.
        training: Mode of dropout and batch norm.
        record: Whether a backward pass will follow.

    Raises:
        Unsupported: A layer has no compiled operation.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        shapes: Mapping[str, Shape],
        inputs: Sequence[str],
        outputs: Sequence[str],
        samples: int,
        dtype: np.dtype[Any],
        training: bool,
        record: bool,
    ) -> None:
        super().__init__(samples, dtype)
        self.nodes, self.shapes, self.inputs, self.outputs = nodes, shapes, inputs, outputs
        self.training, self.record = training, record
        self.values: dict[str, Map] = {}
        self.by_name = {node.name: node for node in nodes}
        self.readers = Counter(source for node in nodes for source in node.inputs)
        self.fused: set[str] = set()  # activations that the node before has computed
        self.masks: dict[str, Map] = {}
        self.statistics: dict[str, Statistics] = {}
        self.constants: dict[str, tuple[Map, Map]] = {}  # running mean and variance in evaluation mode
        for name in inputs:
            given = self.array(Input(name), shapes[name])
            self.values[name] = self.place(shapes[name])
            self.builder.emit("relayout", (self.values[name], given))
        for node in nodes:
            self._node(node)
        for name in outputs:
            self.builder.emit("relayout", (self.array(Output(name), shapes[name]), self.values[name]))
        self.program = self.builder.build()

    def follower(self, node: Node) -> Node | None:
        """The activation that alone reads this node, if it is one."""
        readers = [other for other in self.nodes if node.name in other.inputs]
        if len(readers) == 1 and node.name not in self.outputs and type(readers[0].layer) in _ACTIVATIONS:
            return readers[0]
        return None

    def fused_relu(self, node: Node) -> Node | None:
        """The ReLU that is computed together with this node, if there is one."""
        after = self.follower(node)
        return after if after is not None and type(after.layer) is L.ReLU else None

    def kept(self, m: Map) -> Map:
        """The same map, remembered for the way back."""
        m.kept = m.kept or self.record
        return m

    def _node(self, node: Node) -> None:
        sources = [self.values[source] for source in node.inputs]
        if node.name in self.fused:
            self.values[node.name] = sources[0]
            return
        write = _FORWARD.get(type(node.layer))
        if write is None:
            raise Unsupported(type(node.layer).__name__)
        self.values[node.name] = write(self, node, *sources)
        after = self.fused_relu(node) if type(node.layer) in _WITH_RELU else None
        if after is not None:
            self.fused.add(after.name)
            self.kept(self.values[node.name])

    # ---- one method for each kind of layer: the map that holds the output

    def conv(self, node: Node, x: Map) -> Map:
        layer: Any = node.layer
        if layer.padding_mode != "zeros" or len(self.shapes[node.name]) != layer.rank + 1:
            raise Unsupported("padding mode")
        y, g = self.place(self.shapes[node.name]), layer.geometry
        if max(g.kernel) > 64:
            raise Unsupported("large kernels")
        self.kept(x).reach(P.input_margins(g, (x.height, x.width), (y.height, y.width)))
        relu = self.fused_relu(node) is not None
        maps = (y, x, self.parameter(layer.weight), self.parameter(layer.bias))
        self.builder.emit("conv", maps, *P.window(g), int(relu))
        return y

    def linear(self, node: Node, x: Map) -> Map:
        layer: Any = node.layer
        if x.lanes != 1 or len(self.shapes[node.name]) != 1:
            raise Unsupported("tokens")
        y = self.place(self.shapes[node.name])
        maps = (y, self.kept(x), self.parameter(layer.weight), self.parameter(layer.bias))
        self.builder.emit("linear", maps, int(self.fused_relu(node) is not None))
        return y

    def activation(self, node: Node, x: Map) -> Map:
        source = self.by_name.get(node.inputs[0])
        alone = source is not None and self.follower(source) is node
        in_place = alone and type(source.layer) in (*_CONVOLUTIONS, L.Linear)  # type: ignore[union-attr]
        y = x if in_place else self.place(self.shapes[node.name])
        self.builder.emit("activate", (self.kept(y), x), _ACTIVATIONS[type(node.layer)])
        return y

    def max_pool(self, node: Node, x: Map) -> Map:
        layer: Any = node.layer
        if layer.ties != "first":
            raise Unsupported("ties")
        y = self.place(self.shapes[node.name])
        self.builder.emit("max_pool", (self.kept(y), self.kept(x)), *P.window(layer.geometry))
        return y

    def avg_pool(self, node: Node, x: Map) -> Map:
        layer: Any = node.layer
        y = self.place(self.shapes[node.name])
        self.builder.emit("avg_pool", (y, x), *P.window(layer.geometry), int(layer.count_include_pad))
        return y

    def global_mean(self, node: Node, x: Map) -> Map:
        y = self.place(self.shapes[node.name])
        self.builder.emit("global_mean", (y, x))
        return y

    def flatten(self, node: Node, x: Map) -> Map:
        if x.lanes == 1 and x.shape == (x.channels, 1, 1):
            return x
        y = self.place(self.shapes[node.name])
        self.builder.emit("relayout", (y, x))
        return y

    def add(self, node: Node, *sources: Map) -> Map:
        total, *others = sources
        y = self.place(self.shapes[node.name])
        relu = P.RELU if self.fused_relu(node) is not None else P.IDENTITY
        for i, other in enumerate(others, 1):
            self.builder.emit("add", (y, total, other), relu if i == len(others) else P.IDENTITY)
            total = y
        return y

    def dropout(self, node: Node, x: Map) -> Map:
        if not self.training:
            return x
        y, mask = (self.place(self.shapes[node.name]) for _ in range(2))
        self.masks[node.name] = self.kept(mask)
        self.builder.emit("relayout", (mask, self.array(Mask(node), self.shapes[node.name])))
        self.builder.emit("multiply", (y, x, mask))
        return y

    def batch_norm(self, node: Node, x: Map) -> Map:
        layer: Any = node.layer
        y = self.place(self.shapes[node.name])
        self.kept(x)
        if self.training:
            mean, variance = (Map(1, 1, x.channels, kept=True) for _ in range(2))
            self.builder.emit("batch_statistics", (mean, variance, x))
            count = self.builder.samples * prod(self.shapes[node.name][1:])
            self.statistics[node.name] = Statistics(node, mean, variance, count)
        else:
            mean, variance = self.parameter(layer.running_mean), self.parameter(layer.running_var)  # type: ignore[assignment]
        relu = self.fused_relu(node) is not None
        maps = (y, x, mean, variance, self.parameter(layer.weight), self.parameter(layer.bias))
        self.builder.emit("normalize", maps, int(relu), P.bits(layer.eps))
        return y


_FORWARD: dict[type[Layer], Any] = {
    **dict.fromkeys(_CONVOLUTIONS, Forward.conv),
    **dict.fromkeys(_ACTIVATIONS, Forward.activation),
    **dict.fromkeys(_MAX_POOLS, Forward.max_pool),
    **dict.fromkeys(_AVG_POOLS, Forward.avg_pool),
    L.Linear: Forward.linear,
    L.GlobalAvgPool: Forward.global_mean,
    L.Flatten: Forward.flatten,
    L.Add: Forward.add,
    L.Dropout: Forward.dropout,
    L.BatchNorm2d: Forward.batch_norm,
}
_WITH_RELU = (*_CONVOLUTIONS, L.Linear, L.Add, L.BatchNorm2d)


class Backward(_Lowering):
    """All nodes that lead to what is wanted, backward.

    Args:
        forward: The way that goes back.
        given: Names of nodes whose upstream gradients are given.
        wanted: Names of nodes and inputs whose gradient leads to a parameter or an input that is asked for.
        by_sample: Parameters whose gradients are kept apart by sample.

    Raises:
        Unsupported: A layer has no compiled operation.
    """

    def __init__(
        self, forward: Forward, given: Collection[str], wanted: Collection[str], by_sample: Collection[Parameter] = ()
    ) -> None:
        super().__init__(forward.builder.samples, forward.builder.dtype)
        self.forward, self.given, self.wanted, self.by_sample = forward, given, wanted, by_sample
        self.pending: dict[str, Map] = {}
        self.holders: Counter[Map] = Counter()  # how many nodes still have to read a gradient
        self.through_relu: dict[str, Map] = {}  # nodes that apply the ReLU after them on the way back
        for name in given:
            delta = self.place(forward.shapes[name])
            self.builder.emit("relayout", (delta, self.array(Upstream(name), forward.shapes[name])))
            self._pend(name, delta)
        for node in reversed(forward.nodes):
            self._node(node)
        for name in forward.inputs:
            if name in wanted and name in self.pending:
                out = self.array(InputGradient(name), forward.shapes[name])
                self.builder.emit("relayout", (out, self.pending[name]))
        self.program = self.builder.build()

    def _pend(self, name: str, delta: Map) -> None:
        self.pending[name] = delta
        self.holders[delta] += 1

    def _node(self, node: Node) -> None:
        delta = self.pending.pop(node.name, None)
        if delta is None:
            return
        if node.name in self.wanted:
            _BACKWARD[type(node.layer)](self, node, delta)
        self.holders[delta] -= 1

    def needs(self, name: str) -> bool:
        """Whether anybody wants the gradient at this node or input."""
        return name in self.wanted

    def fresh(self, name: str) -> Map:
        """A place for the gradient at a node or input."""
        return self.place(self.forward.shapes[name])

    def reuse(self, delta: Map) -> Map:
        """The same map if nobody reads it after this node, else a new one like it."""
        if self.holders[delta] == 1:
            return delta
        return Map(delta.samples, delta.lanes, *delta.shape)

    def give(self, name: str, gradient: Map) -> None:
        """One path's gradient at a node; what comes on several paths adds."""
        if name not in self.pending:
            self._pend(name, gradient)
            return
        held = self.pending[name]
        total = self.reuse(held)
        self.builder.emit("add", (total, held, gradient), P.IDENTITY)
        if total is not held:
            self.holders[held] -= 1
            self._pend(name, total)

    def gradient(self, parameter: Parameter) -> tuple[Map, int]:
        """An array for a parameter's gradient, and whether it is kept apart by sample."""
        apart = parameter in self.by_sample
        samples = self.builder.samples if apart else 1
        return self.array(Gradient(parameter, apart), (samples * prod(parameter.shape),), 1), int(apart)

    # ---- one method for each kind of layer

    def conv(self, node: Node, delta: Map) -> None:
        layer: Any = node.layer
        g, (source,) = layer.geometry, node.inputs
        x = self.forward.values[source]
        dw, apart = self.gradient(layer.weight)
        self.builder.emit("conv_kernel_gradient", (dw, delta, x), *P.window(g), apart)
        if layer.bias is not None:
            db, apart = self.gradient(layer.bias)
            self.builder.emit("channel_sums", (db, delta), apart)
        if not self.needs(source):
            return
        delta.reach(P.upstream_margins(g, (x.height, x.width), (delta.height, delta.width)))
        weight = self.parameter(layer.weight)
        held = self.pending.get(source)
        if held is not None and self.holders[held] == 1:
            self.builder.emit("conv_input_gradient", (held, delta, weight), *P.window(g), 1)
            return
        dx = self.fresh(source)
        self.builder.emit("conv_input_gradient", (dx, delta, weight), *P.window(g), 0)
        self.give(source, dx)

    def linear(self, node: Node, delta: Map) -> None:
        layer: Any = node.layer
        (source,) = node.inputs
        x = self.forward.values[source]
        dw, apart = self.gradient(layer.weight)
        db = None if layer.bias is None else self.gradient(layer.bias)[0]
        self.builder.emit("linear_weight_gradient", (dw, db, delta, x), apart)
        if layer.bias is not None and (layer.bias in self.by_sample) != bool(apart):
            raise Unsupported("weight and bias of one layer, one by sample and one not")
        if self.needs(source):
            dx = self.fresh(source)
            self.builder.emit("linear_input_gradient", (dx, delta, self.parameter(layer.weight)))
            self.give(source, dx)

    def activation(self, node: Node, delta: Map) -> None:
        (source,) = node.inputs
        y = self.forward.values[node.name]
        before = self.forward.by_name.get(source)
        if (
            node.name in self.forward.fused
            and type(before.layer) is L.BatchNorm2d  # type: ignore[union-attr]
            and source not in self.given
        ):
            self.through_relu[source] = y
            self.give(source, delta)
            return
        dx = self.reuse(delta)
        self.builder.emit("activate_backward", (dx, delta, y), _ACTIVATIONS[type(node.layer)])
        self.give(source, dx)

    def max_pool(self, node: Node, delta: Map) -> None:
        layer: Any = node.layer
        (source,) = node.inputs
        before = self.forward.by_name.get(source)
        relu = (  # x comes from a ReLU that nobody else reads: go back through both at once
            before is not None
            and type(before.layer) is L.ReLU
            and self.forward.readers[source] == 1
            and source not in self.given
            and source in self.forward.fused
            and type(self.forward.by_name[before.inputs[0]].layer) in _CONVOLUTIONS
        )
        dx = self.fresh(source)
        maps = (dx, delta, self.forward.values[source], self.forward.values[node.name])
        self.builder.emit("max_pool_backward", maps, *P.window(layer.geometry), int(relu))
        self.give(before.inputs[0] if relu and before is not None else source, dx)

    def avg_pool(self, node: Node, delta: Map) -> None:
        layer: Any = node.layer
        dx = self.fresh(node.inputs[0])
        self.builder.emit("avg_pool_backward", (dx, delta), *P.window(layer.geometry), int(layer.count_include_pad))
        self.give(node.inputs[0], dx)

    def global_mean(self, node: Node, delta: Map) -> None:
        dx = self.fresh(node.inputs[0])
        self.builder.emit("global_mean_backward", (dx, delta))
        self.give(node.inputs[0], dx)

    def flatten(self, node: Node, delta: Map) -> None:
        (source,) = node.inputs
        if self.forward.values[source] is self.forward.values[node.name]:
            self.give(source, delta)
            return
        dx = self.fresh(source)
        self.builder.emit("relayout", (dx, delta))
        self.give(source, dx)

    def add(self, node: Node, delta: Map) -> None:
        for source in node.inputs:
            if self.needs(source):
                self.give(source, delta)

    def dropout(self, node: Node, delta: Map) -> None:
        mask = self.forward.masks.get(node.name)
        dx = delta
        if mask is not None:
            dx = self.reuse(delta)
            self.builder.emit("multiply", (dx, delta, mask))
        self.give(node.inputs[0], dx)

    def batch_norm(self, node: Node, delta: Map) -> None:
        layer: Any = node.layer
        (source,) = node.inputs
        statistics = self.forward.statistics.get(node.name)
        if statistics is not None:
            mean, variance = statistics.mean, statistics.variance
        else:
            mean, variance = self.parameter(layer.running_mean), self.parameter(layer.running_var)  # type: ignore[assignment]
        if layer.weight in self.by_sample or layer.bias in self.by_sample:
            raise Unsupported("batch norm by sample")
        dw, db = self.gradient(layer.weight)[0], self.gradient(layer.bias)[0]
        dx = self.fresh(source) if self.needs(source) else None
        x, y = self.forward.values[source], self.through_relu.get(node.name)
        maps = (dx, dw, db, delta, x, y, mean, variance, self.parameter(layer.weight))
        self.builder.emit("normalize_backward", maps, int(statistics is not None), P.bits(layer.eps))
        if dx is not None:
            self.give(source, dx)


_BACKWARD: dict[type[Layer], Any] = {
    **dict.fromkeys(_CONVOLUTIONS, Backward.conv),
    **dict.fromkeys(_ACTIVATIONS, Backward.activation),
    **dict.fromkeys(_MAX_POOLS, Backward.max_pool),
    **dict.fromkeys(_AVG_POOLS, Backward.avg_pool),
    L.Linear: Backward.linear,
    L.GlobalAvgPool: Backward.global_mean,
    L.Flatten: Backward.flatten,
    L.Add: Backward.add,
    L.Dropout: Backward.dropout,
    L.BatchNorm2d: Backward.batch_norm,
}
