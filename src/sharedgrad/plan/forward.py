"""The way forward: what each layer writes into the program.

An activation is computed together with the layer before it, and maps stay in blocks between layers: a private rewrite
of the graph. What cannot be written raises :class:`UnsupportedError`, and the network goes layer by layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from sharedgrad import layers
from sharedgrad.graph import Node
from sharedgrad.kernels.native import program as ops
from sharedgrad.kernels.native.program import Map
from sharedgrad.layers.layer import Layer, Shape
from sharedgrad.plan.lowering import (
    ACTIVATIONS,
    AVG_POOLS,
    CONVOLUTIONS,
    MAX_POOLS,
    Input,
    Lowering,
    Mask,
    Output,
    Pooled2x2,
    Statistics,
    UnsupportedError,
    pooled_at_once,
)


class Forward(Lowering):
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
        UnsupportedError: A layer has no compiled operation.
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
        self.pooled_2x2: dict[str, Pooled2x2] = {}
        self.unseen: set[str] = set()  # activations whose outputs only pooling has seen
        for name in inputs:
            self.values[name] = self.place(shapes[name])
            self.builder.emit("relayout", (self.values[name], self.array(Input(name), shapes[name])))
        for node in nodes:
            self._node(node)
        for name in outputs:
            self.builder.emit("relayout", (self.array(Output(name), shapes[name]), self.values[name]))
        self.program = self.builder.build()

    def only_reader(self, node: Node) -> Node | None:
        """The node that alone reads this one, and nobody outside."""
        readers = [other for other in self.nodes if node.name in other.inputs]
        return readers[0] if len(readers) == 1 and node.name not in self.outputs else None

    def follower(self, node: Node) -> Node | None:
        """The activation that alone reads this node, if it is one."""
        reader = self.only_reader(node)
        return reader if reader is not None and type(reader.layer) in ACTIVATIONS else None

    def feeds_pool_2x2(self, node: Node) -> bool:
        """Whether max pooling in windows of 2×2 that touch is all that reads this node."""
        reader = self.only_reader(node)
        return reader is not None and self.is_pool_2x2(reader)

    def is_pool_2x2(self, node: Node) -> bool:
        """Whether the node is max pooling in windows of 2×2 that touch."""
        layer: Any = node.layer
        if type(layer) is not layers.MaxPool2d or layer.ties != "first":
            return False
        before, after = self.shapes[node.inputs[0]], self.shapes[node.name]
        return ops.window(layer.geometry)[:6] == (2, 2, 2, 2, 0, 0) and after[1:] == (before[1] // 2, before[2] // 2)

    def fused_relu(self, node: Node) -> Node | None:
        """The ReLU that is computed together with this node, if there is one."""
        after = self.follower(node)
        return after if after is not None and type(after.layer) is layers.ReLU else None

    def keep(self, m: Map) -> Map:
        """The same map, which stays as long as the tape if there will be one."""
        m.kept = m.kept or self.record
        return m

    def _node(self, node: Node) -> None:
        sources = [self.values[source] for source in node.inputs]
        if node.name in self.fused:
            self.values.setdefault(node.name, sources[0])
            self._fuse_relu(node)
            return
        write = _FORWARD.get(type(node.layer))
        if write is None:
            raise UnsupportedError(type(node.layer).__name__)
        self.values[node.name] = write(self, node, *sources)
        self._fuse_relu(node)

    def _fuse_relu(self, node: Node) -> None:
        after = self.fused_relu(node) if type(node.layer) in _WITH_RELU else None
        if after is not None:
            self.fused.add(after.name)
            if not self.feeds_pool_2x2(after):
                self.keep(self.values[node.name])

    def _refuse_unless_served(self, node: Node) -> None:
        """Windows that are too large for the compiled code are NumPy's."""
        layer: Any = node.layer
        if not ops.served(layer.geometry, (self.builder.samples, *self.shapes[node.inputs[0]])):
            raise UnsupportedError("large windows")

    # ---- one method for each kind of layer: it returns the map that holds the output

    def _conv(self, node: Node, x: Map) -> Map:
        """x (N, C, *S) -> y (N, F, *P), with the ReLU behind it."""
        layer: Any = node.layer
        if layer.padding_mode != "zeros" or len(self.shapes[node.name]) != layer.rank + 1:
            raise UnsupportedError("padding mode")
        y, g = self.place(self.shapes[node.name]), layer.geometry
        self._refuse_unless_served(node)
        self.keep(x).widen(ops.input_margins(g, (x.height, x.width), (y.height, y.width)))
        relu = self.fused_relu(node) is not None
        maps = (y, x, self.parameter(layer.weight), self.parameter(layer.bias))
        self.builder.emit("conv", maps, *ops.window(g), int(relu))
        return y

    def _linear(self, node: Node, x: Map) -> Map:
        """x (N, I) -> y (N, O), with the ReLU behind it."""
        layer: Any = node.layer
        if x.lanes != 1 or len(self.shapes[node.name]) != 1:
            raise UnsupportedError("tokens")
        y = self.place(self.shapes[node.name])
        maps = (y, self.keep(x), self.parameter(layer.weight), self.parameter(layer.bias))
        self.builder.emit("linear", maps, int(self.fused_relu(node) is not None))
        return y

    def _activation(self, node: Node, x: Map) -> Map:
        """y in the shape of x; in its place where nobody else reads x."""
        if self.feeds_pool_2x2(node):  # pooling computes it
            self.unseen.add(node.name)
            return x
        source = self.by_name.get(node.inputs[0])
        alone = source is not None and self.follower(source) is node
        in_place = alone and isinstance(source.layer, (*CONVOLUTIONS, layers.Linear))  # type: ignore[union-attr]
        y = x if in_place else self.place(self.shapes[node.name])
        self.builder.emit("activate", (self.keep(y), x), ACTIVATIONS[type(node.layer)])
        return y

    def _max_pool(self, node: Node, x: Map) -> Map:
        """x (N, C, *S) -> y (N, C, *P)."""
        layer: Any = node.layer
        if layer.ties != "first":
            raise UnsupportedError("ties")
        self._refuse_unless_served(node)
        y = self.place(self.shapes[node.name])
        if self.is_pool_2x2(node):
            self._pool_2x2(node, y, x)
            return y
        self.builder.emit("max_pool", (self.keep(y), self.keep(x)), *ops.window(layer.geometry))
        return y

    def _pool_2x2(self, node: Node, y: Map, x: Map) -> None:
        """x (N, C, H, W) -> y (N, C, H/2, W/2), with the activation before it unless that is computed already."""
        origin, kind, computed = node.inputs[0], ops.IDENTITY, ops.IDENTITY
        before = self.by_name.get(origin)
        if before is not None and type(before.layer) in ACTIVATIONS and self.feeds_pool_2x2(before):
            origin, kind = before.inputs[0], ACTIVATIONS[type(before.layer)]
            computed = ops.IDENTITY if before.name in self.fused else kind
            self.unseen.add(before.name)
        winners = self.keep(self.place(self.shapes[node.name])) if self.record else None
        if winners is not None:
            self.pooled_2x2[node.name] = Pooled2x2(origin, kind, winners)
        name, maps, numbers = self.builder.operations[-1]
        conv = self.by_name.get(origin)
        unseen = conv is not None and pooled_at_once(conv.layer) and self.only_reader(conv) is not None
        if name == "conv" and maps[0] is x and unseen and self.builder.full:
            self.builder.operations.pop()  # its outputs are pooled before they are stored
            self.builder.emit("conv_pool_2x2", (self.keep(y), winners, *maps[1:]), *numbers[:-1], kind)
        else:
            self.builder.emit("pool_2x2", (self.keep(y), winners, x), computed)

    def _avg_pool(self, node: Node, x: Map) -> Map:
        """x (N, C, *S) -> y (N, C, *P)."""
        layer: Any = node.layer
        self._refuse_unless_served(node)
        y = self.place(self.shapes[node.name])
        self.builder.emit("avg_pool", (y, x), *ops.window(layer.geometry), int(layer.count_include_pad))
        return y

    def _global_mean(self, node: Node, x: Map) -> Map:
        """x (N, C, *S) -> y (N, C)."""
        y = self.place(self.shapes[node.name])
        self.builder.emit("global_mean", (y, x))
        return y

    def _flatten(self, node: Node, x: Map) -> Map:
        """x (N, *S) -> y (N, |S|)."""
        if len(self.shapes[node.inputs[0]]) == 1:  # not so (C, 1, 1): a window that reads it needs margins
            return x
        y = self.place(self.shapes[node.name])
        self.builder.emit("relayout", (y, x))
        return y

    def _add(self, node: Node, *sources: Map) -> Map:
        """y in the shape of all sources, with the ReLU behind it."""
        total, *others = sources
        y = self.place(self.shapes[node.name])
        relu = ops.RELU if self.fused_relu(node) is not None else ops.IDENTITY
        for i, other in enumerate(others, 1):
            self.builder.emit("add", (y, total, other), relu if i == len(others) else ops.IDENTITY)
            total = y
        return y

    def _dropout(self, node: Node, x: Map) -> Map:
        """y in the shape of x, with a mask from outside; x itself in evaluation mode."""
        if not self.training:
            return x
        y, mask = (self.place(self.shapes[node.name]) for _ in range(2))
        self.masks[node.name] = self.keep(mask)
        self.builder.emit("relayout", (mask, self.array(Mask(node), self.shapes[node.name])))
        self.builder.emit("multiply", (y, x, mask))
        return y

    def _batch_norm(self, node: Node, x: Map) -> Map:
        """x (N, C, H, W) -> y, with the sum and the ReLU behind it; training keeps mean and variance (C,)."""
        layer: Any = node.layer
        y = self.place(self.shapes[node.name])
        self.keep(x)
        if self.training:
            mean, variance = (Map(1, 1, x.channels, kept=True) for _ in range(2))
            count = self.builder.samples * prod(self.shapes[node.name][1:])
            self.statistics[node.name] = Statistics(node, mean, variance, count)
        else:
            mean, variance = self.parameter(layer.running_mean), self.parameter(layer.running_var)  # type: ignore[assignment]
        total, shortcut = self._shortcut(node)
        relu = self.fused_relu(total or node)
        maps = (y, x, shortcut, mean, variance, self.parameter(layer.weight), self.parameter(layer.bias))
        name = "batch_normalize" if self.training else "normalize"
        self.builder.emit(name, maps, int(relu is not None), ops.bits(layer.eps))
        if total is not None:
            self.fused.add(total.name)
            self.values[total.name] = y
        return y

    def _shortcut(self, node: Node) -> tuple[Node, Map] | tuple[None, None]:
        """The sum that alone reads this node, if its other term is known already, and that term."""
        after = self.only_reader(node)
        if after is None or type(after.layer) is not layers.Add or len(after.inputs) != 2:
            return None, None
        others = [self.values[name] for name in after.inputs if name in self.values]
        return (after, others[0]) if len(others) == 1 else (None, None)


_FORWARD: dict[type[Layer], Any] = {
    **dict.fromkeys(CONVOLUTIONS, Forward._conv),
    **dict.fromkeys(ACTIVATIONS, Forward._activation),
    **dict.fromkeys(MAX_POOLS, Forward._max_pool),
    **dict.fromkeys(AVG_POOLS, Forward._avg_pool),
    layers.Linear: Forward._linear,
    layers.GlobalAvgPool: Forward._global_mean,
    layers.Flatten: Forward._flatten,
    layers.Add: Forward._add,
    layers.Dropout: Forward._dropout,
    layers.BatchNorm2d: Forward._batch_norm,
}
_WITH_RELU = (*CONVOLUTIONS, layers.Linear, layers.Add, layers.BatchNorm2d)


def not_compiled() -> list[str]:
    """The layers that have no compiled operation: a network with one of them goes layer by layer."""
    kinds = {name: getattr(layers, name) for name in layers.__all__}
    return [name for name, kind in kinds.items() if issubclass(kind, Layer) and kind not in (Layer, *_FORWARD)]
