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
from sharedgrad.parameter import Buffer, Parameter, Weight
from sharedgrad.plan.forward import Forward
from sharedgrad.plan.lowering import (
    ACTIVATIONS,
    AVG_POOLS,
    CONVOLUTIONS,
    MAX_POOLS,
    Delta,
    Gradient,
    InputGradient,
    Lowering,
    MaxNorm,
    Norms,
    UnsupportedError,
    Upstream,
    Value,
    pooled_at_once,
)

_FEW_CHANNELS = 8  # with as many, other ways to a weight gradient are faster


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

    sums_early = True  # biases' gradients, where a map is written anyway

    def __init__(
        self, forward: Forward, given: Collection[str], wanted: Collection[str], by_sample: Collection[Parameter]
    ) -> None:
        super().__init__(forward.builder.samples, forward.builder.dtype)
        self.forward, self.given, self.wanted, self.by_sample = forward, given, wanted, by_sample
        self.pending: dict[str, Map] = {}
        self.holders: Counter[Map] = Counter()  # how many nodes still have to read a gradient
        self.gated: set[str] = set()  # ReLUs whose gradient has come through them already
        self.summed: set[str] = set()  # convolutions whose bias has its gradient
        self.through_relu: set[str] = set()  # nodes that apply the ReLU after them on the way back
        if unseen := forward.unseen.intersection(given):
            raise UnsupportedError(f"a gradient given at {', '.join(unseen)}")
        self.start()
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
        self.finish()
        self.program = self.builder.build()
        self.weights, self.buffers = self.numbered(Weight), self.numbered(Buffer)
        self.upstreams, self.limits = self.numbered(Upstream), self.numbered(Norms | MaxNorm)
        self.input_gradients, self.gradients = self.numbered(InputGradient), self.numbered(Gradient)
        self.deltas, self.node_values = self.numbered(Delta), self.numbered(Value)
        order = [p for node in reversed(forward.nodes) for p in node.layer.parameters().values()]
        self.gradients.sort(key=lambda numbered: order.index(numbered[1].parameter))  # as layer by layer

    def start(self) -> None:
        """What is to be done before the first node."""

    def finish(self) -> None:
        """What is to be done after the last node."""

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

    def apart(self, parameter: Weight) -> bool:
        """Whether its gradient is kept apart by sample."""
        return parameter.base in self.by_sample

    def gradient(self, parameter: Weight) -> tuple[Map, int]:
        """An array for a parameter's gradient, and whether it is kept apart by sample."""
        apart = self.apart(parameter)
        samples = self.builder.samples if apart else 1
        return self.array(Gradient(parameter, apart), (prod(parameter.shape),), samples), int(apart)

    def conv_gradients(self, node: Node, delta: Map, x: Map) -> None:
        """Those of a convolution's kernel and, unless it is summed already, bias."""
        layer: Any = node.layer
        dw, apart = self.gradient(layer.weight)
        biased = layer.bias is not None and node.name not in self.summed
        together = biased and self.apart(layer.bias) == bool(apart)
        db = self.gradient(layer.bias)[0] if together else None
        self.builder.emit("conv_weight_gradient", (dw, db, delta, x), *ops.window(layer.geometry), apart)
        if biased and not together:
            db, apart = self.gradient(layer.bias)
            self.builder.emit("channel_sums", (db, delta), apart)

    def linear_gradients(self, node: Node, delta: Map, x: Map) -> None:
        """Those of a dense layer's weight and bias."""
        layer: Any = node.layer
        dw, apart = self.gradient(layer.weight)
        together = layer.bias is not None and self.apart(layer.bias) == bool(apart)
        db = self.gradient(layer.bias)[0] if together else None
        self.builder.emit("linear_weight_gradient", (dw, db, delta, x), apart)
        if layer.bias is not None and not together:
            db, apart = self.gradient(layer.bias)
            self.builder.emit("channel_sums", (db, delta), apart)

    def norm_gradients(self, node: Node, *maps: Map | None) -> tuple[Map, Map]:
        """Those of batch normalization's weight and bias: where their sums go; kept apart they come from here.

        Args:
            node: The batch normalization.
            maps: dy and x; the output of the ReLU that dy has still to come back through, or None; mean and variance.
        """
        layer: Any = node.layer
        own, total = [], []
        for p in (layer.weight, layer.bias):
            array, apart = self.gradient(p)
            own.append(array if apart else None)
            total.append(Map(1, 1, array.channels) if apart else array)
        if any(own):
            self.builder.emit("normalize_gradients", (*own, *maps), ops.bits(layer.eps))
        return total[0], total[1]

    # ---- one method for each kind of layer: delta is dy in the shape of the output

    def _conv(self, node: Node, delta: Map) -> None:
        """dy (N, F, *P) -> dw (F, C/groups, *K), db (F,) and dx (N, C, *S)."""
        layer: Any = node.layer
        g, (source,) = layer.geometry, node.inputs
        x = self.forward.values[source]
        self.conv_gradients(node, delta, x)
        if not self.needs(source):
            return
        delta.widen(ops.upstream_margins(g, (x.height, x.width), (delta.height, delta.width)))
        held = self.pending.get(source)
        add = held is not None and self.holders[held] == 1
        dx = held if held is not None and add else self.fresh(source)
        maps = (dx, delta, self.parameter(layer.weight), self.gate(node))
        self.builder.emit("conv_input_gradient", maps, *ops.window(g), int(add))
        if not add:
            self.give(source, dx)

    def _linear(self, node: Node, delta: Map) -> None:
        """dy (N, O) -> dw (O, I), db (O,) and dx (N, I)."""
        layer: Any = node.layer
        (source,) = node.inputs
        self.linear_gradients(node, delta, self.forward.values[source])
        if self.needs(source):
            dx = self.fresh(source)
            self.builder.emit("linear_input_gradient", (dx, delta, self.parameter(layer.weight)))
            self.give(source, dx)

    def _activation(self, node: Node, delta: Map) -> None:
        """dx in the shape of dy; nothing to do where a neighbour takes this part."""
        (source,) = node.inputs
        if node.name in self.gated:
            self.give(source, delta)
            return
        if self._norm_before(node):
            self.through_relu.add(source)
            self.give(source, delta)
            return
        dx = self.reuse(delta)
        maps = (dx, delta, self.forward.values[node.name])
        self.builder.emit("activate_backward", maps, ACTIVATIONS[type(node.layer)])
        self.give(source, dx)

    def _norm_before(self, node: Node) -> bool:
        """Whether a batch norm takes this activation's part on the way back."""
        before = self.forward.by_name.get(node.inputs[0])
        norm = before is not None and type(before.layer) is layers.BatchNorm2d
        return norm and node.name in self.forward.fused and node.inputs[0] not in self.given

    def gate(self, node: Node) -> Map | None:
        """The output of the ReLU that this node reads, if this node's gradient completes that ReLU's and goes on
        through it as it is stored."""
        (source,) = node.inputs
        relu, held = self.forward.by_name.get(source), self.pending.get(source)
        if relu is None or type(relu.layer) is not layers.ReLU or self._norm_before(relu):
            return None
        first = next(other for other in self.forward.nodes if source in other.inputs)
        if first is not node or (held is not None and self.holders[held] > 1):
            return None
        self.gated.add(source)
        return self.forward.values[source]

    def _max_pool(self, node: Node, delta: Map) -> None:
        """dy (N, C, *P) -> dx (N, C, *S), through the ReLU before it where that is all that is read."""
        layer: Any = node.layer
        (source,) = node.inputs
        if node.name in self.forward.pooled_2x2:
            self._pool_2x2(node, delta)
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

    def _pool_2x2(self, node: Node, delta: Map) -> None:
        """dy (N, C, H/2, W/2) -> the gradient before the activation that was pooled (N, C, H, W).

        A convolution before that gets its bias's gradient (C,) too.
        """
        origin, activation, winners = self.forward.pooled_2x2[node.name]
        before, sums = self.forward.by_name.get(origin), None
        bias = before.layer.bias if before is not None and type(before.layer) in CONVOLUTIONS else None  # type: ignore[attr-defined]
        early = self.forward.readers[origin] == 1 and origin not in self.given and self.sums_early
        if early and before is not None and self._ends_at(before):
            self._pooled_conv(before, (delta, self.forward.values[node.name], winners), activation)
            return
        if bias is not None and early and not self.apart(bias):
            sums = self.gradient(bias)[0]
            self.summed.add(origin)
        dx = self.fresh(origin)
        self.builder.emit("pool_2x2_backward", (dx, sums, delta, self.forward.values[node.name], winners), activation)
        self.give(origin, dx)

    def _ends_at(self, node: Node) -> bool:
        """Whether the node is a convolution over few channels of which nothing but its own gradients is wanted, both of
        all samples or both sample by sample: these can be computed without its outputs' gradient in full."""
        if not pooled_at_once(node.layer) or self.needs(node.inputs[0]) or not self.builder.full:
            return False
        few = self.forward.shapes[node.inputs[0]][0] < _FEW_CHANNELS
        return few and len({self.apart(p) for p in node.layer.parameters().values()}) == 1

    def _pooled_conv(self, node: Node, pooled: tuple[Map, Map, Map], activation: int) -> None:
        """dw (F, C/groups, *K) and db (F,) from the pooled dy, y and winners (N, F, H/2, W/2), without dy in full."""
        layer: Any = node.layer
        dw, apart = self.gradient(layer.weight)
        db = self.gradient(layer.bias)[0] if layer.bias is not None else None
        maps = (dw, db, *pooled, self.forward.values[node.inputs[0]])
        self.builder.emit("pooled_weight_gradient", maps, *ops.window(layer.geometry), activation, apart)

    def _avg_pool(self, node: Node, delta: Map) -> None:
        """dy (N, C, *P) -> dx (N, C, *S)."""
        layer: Any = node.layer
        dx = self.fresh(node.inputs[0])
        self.builder.emit("avg_pool_backward", (dx, delta), *ops.window(layer.geometry), int(layer.count_include_pad))
        self.give(node.inputs[0], dx)

    def _global_mean(self, node: Node, delta: Map) -> None:
        """dy (N, C) -> dx (N, C, *S)."""
        dx = self.fresh(node.inputs[0])
        self.builder.emit("global_mean_backward", (dx, delta))
        self.give(node.inputs[0], dx)

    def _flatten(self, node: Node, delta: Map) -> None:
        """dy (N, |S|) -> dx (N, *S)."""
        (source,) = node.inputs
        if self.forward.values[source] is self.forward.values[node.name]:
            self.give(source, delta)
            return
        dx = self.fresh(source)
        self.builder.emit("relayout", (dx, delta))
        self.give(source, dx)

    def _add(self, node: Node, delta: Map) -> None:
        """dy for every source, in its shape."""
        for source in node.inputs:
            if self.needs(source):
                self.give(source, delta)

    def _dropout(self, node: Node, delta: Map) -> None:
        """dx in the shape of dy."""
        mask = self.forward.masks.get(node.name)
        dx = delta
        if mask is not None:
            dx = self.reuse(delta)
            self.builder.emit("multiply", (dx, delta, mask))
        self.give(node.inputs[0], dx)

    def _batch_norm(self, node: Node, delta: Map) -> None:
        """dy (N, C, H, W) -> dweight (C,), dbias (C,) and dx (N, C, H, W)."""
        layer: Any = node.layer
        (source,) = node.inputs
        statistics = self.forward.statistics.get(node.name)
        if statistics is not None:
            mean, variance = statistics.mean, statistics.variance
        else:
            mean, variance = self.parameter(layer.running_mean), self.parameter(layer.running_var)  # type: ignore[assignment]
        x, relu = self.forward.values[source], node.name in self.through_relu
        dw, db = self.norm_gradients(node, delta, x, self.forward.values[node.name] if relu else None, mean, variance)
        dx = self.reuse(delta) if self.needs(source) else None
        maps = (dx, dw, db, delta, x, mean, variance, self.parameter(layer.weight), self.parameter(layer.bias))
        self.builder.emit("normalize_backward", maps, int(statistics is not None), int(relu), ops.bits(layer.eps))
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
