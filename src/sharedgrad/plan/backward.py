"""The way back: what each layer writes into the program, in reverse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from math import prod
from typing import Any

from sharedgrad import layers
from sharedgrad.graph import Node
from sharedgrad.kernels.native import program as ops
from sharedgrad.kernels.native.program import Map
from sharedgrad.layers.layer import Layer
from sharedgrad.parameter import Buffer, Parameter
from sharedgrad.plan.forward import Forward
from sharedgrad.plan.lowering import (
    ACTIVATIONS,
    AVG_POOLS,
    CONVOLUTIONS,
    MAX_POOLS,
    Gradient,
    InputGradient,
    Lowering,
    UnsupportedError,
    Upstream,
)


class Backward(Lowering):
    """All nodes that lead to what is wanted, backward.

    Args:
        forward: The way that goes back.
        given: Names of nodes whose upstream gradients are given.
        wanted: Names of nodes and inputs whose gradient leads to a parameter or an input that is asked for.
        by_sample: Parameters whose gradients are kept apart by sample.

    Raises:
        UnsupportedError: A layer has no compiled operation.
    """

    def __init__(
        self, forward: Forward, given: Collection[str], wanted: Collection[str], by_sample: Collection[Parameter] = ()
    ) -> None:
        super().__init__(forward.builder.samples, forward.builder.dtype)
        self.forward, self.given, self.wanted, self.by_sample = forward, given, wanted, by_sample
        self.pending: dict[str, Map] = {}
        self.holders: Counter[Map] = Counter()  # how many nodes still have to read a gradient
        self.summed: set[str] = set()  # convolutions whose bias has its gradient
        self.through_relu: dict[str, Map] = {}  # nodes that apply the ReLU after them on the way back
        if unseen := forward.unseen.intersection(given):
            raise UnsupportedError(f"a gradient given at {', '.join(unseen)}")
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
        self.values, self.upstreams = self.numbered(Parameter | Buffer), self.numbered(Upstream)
        self.input_gradients, self.gradients = self.numbered(InputGradient), self.numbered(Gradient)

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
        self.builder.emit("add", (total, held, gradient), ops.IDENTITY)
        if total is not held:
            self.holders[held] -= 1
            self._pend(name, total)

    def gradient(self, parameter: Parameter) -> tuple[Map, int]:
        """An array for a parameter's gradient, and whether it is kept apart by sample."""
        apart = parameter in self.by_sample
        samples = self.builder.samples if apart else 1
        return self.array(Gradient(parameter, apart), (samples * prod(parameter.shape),), 1), int(apart)

    # ---- one method for each kind of layer

    def _conv(self, node: Node, delta: Map) -> None:
        layer: Any = node.layer
        g, (source,) = layer.geometry, node.inputs
        x = self.forward.values[source]
        dw, apart = self.gradient(layer.weight)
        self.builder.emit("conv_kernel_gradient", (dw, delta, x), *ops.window(g), apart)
        if layer.bias is not None and node.name not in self.summed:
            db, apart = self.gradient(layer.bias)
            self.builder.emit("channel_sums", (db, delta), apart)
        if not self.needs(source):
            return
        delta.reach(ops.upstream_margins(g, (x.height, x.width), (delta.height, delta.width)))
        weight = self.parameter(layer.weight)
        held = self.pending.get(source)
        if held is not None and self.holders[held] == 1:
            self.builder.emit("conv_input_gradient", (held, delta, weight), *ops.window(g), 1)
            return
        dx = self.fresh(source)
        self.builder.emit("conv_input_gradient", (dx, delta, weight), *ops.window(g), 0)
        self.give(source, dx)

    def _linear(self, node: Node, delta: Map) -> None:
        layer: Any = node.layer
        (source,) = node.inputs
        x = self.forward.values[source]
        dw, apart = self.gradient(layer.weight)
        db = None if layer.bias is None else self.gradient(layer.bias)[0]
        self.builder.emit("linear_weight_gradient", (dw, db, delta, x), apart)
        if layer.bias is not None and (layer.bias in self.by_sample) != bool(apart):
            raise UnsupportedError("weight and bias of one layer, one by sample and one not")
        if self.needs(source):
            dx = self.fresh(source)
            self.builder.emit("linear_input_gradient", (dx, delta, self.parameter(layer.weight)))
            self.give(source, dx)

    def _activation(self, node: Node, delta: Map) -> None:
        (source,) = node.inputs
        y = self.forward.values[node.name]
        before = self.forward.by_name.get(source)
        if (
            node.name in self.forward.fused
            and type(before.layer) is layers.BatchNorm2d  # type: ignore[union-attr]
            and source not in self.given
        ):
            self.through_relu[source] = y
            self.give(source, delta)
            return
        dx = self.reuse(delta)
        self.builder.emit("activate_backward", (dx, delta, y), ACTIVATIONS[type(node.layer)])
        self.give(source, dx)

    def _max_pool(self, node: Node, delta: Map) -> None:
        layer: Any = node.layer
        (source,) = node.inputs
        if node.name in self.forward.halved:
            self._halve(node, delta)
            return
        before = self.forward.by_name.get(source)
        relu = (  # x comes from a ReLU that nobody else reads: go back through both at once
            before is not None
            and type(before.layer) is layers.ReLU
            and self.forward.readers[source] == 1
            and source not in self.given
            and source in self.forward.fused
            and type(self.forward.by_name[before.inputs[0]].layer) in CONVOLUTIONS
        )
        dx = self.fresh(source)
        maps = (dx, delta, self.forward.values[source], self.forward.values[node.name])
        self.builder.emit("max_pool_backward", maps, *ops.window(layer.geometry), int(relu))
        self.give(before.inputs[0] if relu and before is not None else source, dx)

    def _halve(self, node: Node, delta: Map) -> None:
        """Through max pooling and the activation before it; a convolution before that gets its bias's gradient too."""
        origin, activation, winners = self.forward.halved[node.name]
        before, sums = self.forward.by_name.get(origin), None
        bias = before.layer.bias if before is not None and type(before.layer) in CONVOLUTIONS else None  # type: ignore[attr-defined]
        alone = self.forward.readers[origin] == 1 and origin not in self.given
        if bias is not None and alone and bias not in self.by_sample:
            sums = self.gradient(bias)[0]
            self.summed.add(origin)
        dx = self.fresh(origin)
        self.builder.emit("halve_backward", (dx, sums, delta, self.forward.values[node.name], winners), activation)
        self.give(origin, dx)

    def _avg_pool(self, node: Node, delta: Map) -> None:
        layer: Any = node.layer
        dx = self.fresh(node.inputs[0])
        self.builder.emit("avg_pool_backward", (dx, delta), *ops.window(layer.geometry), int(layer.count_include_pad))
        self.give(node.inputs[0], dx)

    def _global_mean(self, node: Node, delta: Map) -> None:
        dx = self.fresh(node.inputs[0])
        self.builder.emit("global_mean_backward", (dx, delta))
        self.give(node.inputs[0], dx)

    def _flatten(self, node: Node, delta: Map) -> None:
        (source,) = node.inputs
        if self.forward.values[source] is self.forward.values[node.name]:
            self.give(source, delta)
            return
        dx = self.fresh(source)
        self.builder.emit("relayout", (dx, delta))
        self.give(source, dx)

    def _add(self, node: Node, delta: Map) -> None:
        for source in node.inputs:
            if self.needs(source):
                self.give(source, delta)

    def _dropout(self, node: Node, delta: Map) -> None:
        mask = self.forward.masks.get(node.name)
        dx = delta
        if mask is not None:
            dx = self.reuse(delta)
            self.builder.emit("multiply", (dx, delta, mask))
        self.give(node.inputs[0], dx)

    def _batch_norm(self, node: Node, delta: Map) -> None:
        layer: Any = node.layer
        (source,) = node.inputs
        statistics = self.forward.statistics.get(node.name)
        if statistics is not None:
            mean, variance = statistics.mean, statistics.variance
        else:
            mean, variance = self.parameter(layer.running_mean), self.parameter(layer.running_var)  # type: ignore[assignment]
        if layer.weight in self.by_sample or layer.bias in self.by_sample:
            raise UnsupportedError("batch norm by sample")
        dw, db = self.gradient(layer.weight)[0], self.gradient(layer.bias)[0]
        dx = self.fresh(source) if self.needs(source) else None
        x, y = self.forward.values[source], self.through_relu.get(node.name)
        maps = (dx, dw, db, delta, x, y, mean, variance, self.parameter(layer.weight))
        self.builder.emit("normalize_backward", maps, int(statistics is not None), ops.bits(layer.eps))
        if dx is not None:
            self.give(source, dx)


_BACKWARD: dict[type[Layer], Any] = {
    **dict.fromkeys(CONVOLUTIONS, Backward._conv),
    **dict.fromkeys(ACTIVATIONS, Backward._activation),
    **dict.fromkeys(MAX_POOLS, Backward._max_pool),
    **dict.fromkeys(AVG_POOLS, Backward._avg_pool),
    layers.Linear: Backward._linear,
    layers.GlobalAvgPool: Backward._global_mean,
    layers.Flatten: Backward._flatten,
    layers.Add: Backward._add,
    layers.Dropout: Backward._dropout,
    layers.BatchNorm2d: Backward._batch_norm,
}
