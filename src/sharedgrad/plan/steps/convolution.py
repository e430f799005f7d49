"""Convolution, with the activation and the 2×2 max pooling behind it."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from sharedgrad.geometry import Geometry
from sharedgrad.graph import Node
from sharedgrad.kernels.native import program as ops
from sharedgrad.kernels.native.convolution import gram_squares_cost, kernel_squares_cost
from sharedgrad.kernels.native.maps import Map
from sharedgrad.kernels.native.program import Builder
from sharedgrad.layers.layer import Shape
from sharedgrad.plan.steps.kinds import is_activation, is_relu, kind
from sharedgrad.plan.steps.normalization import NormStep
from sharedgrad.plan.steps.pooling import Pooled, large_windows, pooled_2x2
from sharedgrad.plan.steps.step import Graph, Weighted

if TYPE_CHECKING:
    from sharedgrad.plan.backward import Backward
    from sharedgrad.plan.clipped import Clipped
    from sharedgrad.plan.forward import Forward
    from sharedgrad.plan.traced import Traced

_FEW_CHANNELS = 8  # with as many, other ways to a weight gradient are faster
_MOST_KEPT = 1 << 25  # bytes of one kernel's gradients that are kept until their factors are known
_KEEPING = 50  # multiplications of vectors in the time that it takes to keep a sum and read it again, measured


class ConvStep(Weighted):
    """Convolution.

    Attributes:
        conv, activation, pool: The nodes; the last two where they are there.
        padded: Whether the padding copies cells: then the windows slide over a padded map, made anew for each use.
        geometry: How they slide over the map that they read.
        seen: Whether the convolution's own outputs are an output: then they are stored as they are.
        relu: The ReLU that it reads, if its gradient is the last to arrive there on the way back: it may go on through
            that ReLU as it is stored.
        norm: The normalization that has computed that ReLU and goes back through it itself, if it is one.
    """

    def __init__(self, conv: Node, activation: Node | None, pool: Node | None, graph: Graph) -> None:
        super().__init__(conv, activation, pool)
        self.conv, self.activation, self.pool = conv, activation, pool
        layer: Any = conv.layer
        self.layer, self.padded = layer, layer.padding_mode != "zeros"
        self.geometry: Geometry = layer.geometry.without_padding() if self.padded else layer.geometry
        (self.source,) = conv.inputs
        self.seen = graph.is_output(conv)
        self.relu = self._relu_before(graph)
        before = None if self.relu is None else graph.taken[self.relu.name]
        self.norm = before.norm if isinstance(before, NormStep) and before.total is None else None

    @classmethod
    def beginning_with(cls, node: Node, graph: Graph) -> ConvStep:
        """With the activation and the 2×2 pooling behind it, or with one of them, if nobody else reads between."""
        after = graph.only_reader(node)
        if pooled_2x2(after, graph):
            return cls(node, None, after, graph)
        if after is None or not is_activation(after):
            return cls(node, None, None, graph)
        pool = pooled_2x2(graph.follower(after), graph)
        return cls(node, None if graph.is_output(node) and pool is None else after, pool, graph)

    def _relu_before(self, graph: Graph) -> Node | None:
        before = graph.node(self.source)
        first = all(reader.name not in graph.taken for reader in graph.readers(self.source))
        return before if is_relu(before) and first else None

    @classmethod
    def refusal(cls, node: Node, shapes: Mapping[str, Shape], samples: int) -> str:
        """Large windows."""
        layer: Any = node.layer
        if len(shapes[node.name]) != layer.rank + 1:
            return f"samples of {len(shapes[node.name])} axes"
        return large_windows(node, shapes, samples)

    # ---- forward

    def forward(self, way: Forward) -> None:
        """x (N, C, *S) -> y (N, F, *P), and what is behind it."""
        y = way.place(way.shapes[self.conv.name])
        self.x = way.keep(way.values[self.source])
        if self.pool is not None and not self.seen and self._pooled_at_once and not way.builder.by_channel:
            read = self._read(way), way.parameter(self.layer.weight), way.parameter(self.layer.bias)
            self.pooled = Pooled(way, self.pool)
            maps = (self.pooled.y, self.pooled.winners, *read)
            way.emit("conv_pool_2x2", maps, *ops.window(self.geometry), kind(self.activation))
            return
        left = self._convolve(way, y, way.prepared(self.layer.weight, y, self.geometry))
        way.values[self.conv.name] = y
        if self.pool is not None:
            self.pooled = Pooled(way, self.pool)
            way.emit("pool_2x2", (self.pooled.y, self.pooled.winners, y), left)
        elif self.activation is not None:
            self.y = way.values[self.activation.name] = way.keep(y)
            if left != ops.IDENTITY:
                way.emit("activate", (y, y), left)

    def _convolve(self, way: Forward | Backward, y: Map, prepared: Map | None = None) -> int:
        """y (N, F, *P); what is left to do with it is this activation."""
        fused = is_relu(self.activation) and not self.seen
        maps = (y, self._read(way), way.parameter(self.layer.weight), way.parameter(self.layer.bias))
        way.emit("conv", (*maps, prepared), *ops.window(self.geometry), int(fused))
        return ops.IDENTITY if fused else kind(self.activation)

    def _read(self, way: Forward | Backward) -> Map:
        """What the windows slide over: x with wide enough margins, or x with copies of its cells around it."""
        if not self.padded:
            outputs = self.geometry.output(way.shapes[self.source][1:])
            self.x.widen(ops.input_margins(self.geometry, (self.x.height, self.x.width), ops.spatial(outputs)))
            return self.x
        padded = way.place(self._padded_shape(way))
        way.emit("pad", (padded, self.x), *self._padding)
        return padded

    def _padded_shape(self, way: Forward | Backward) -> Shape:
        channels, *spatial = way.shapes[self.source]
        return (channels, *self.layer.geometry.padded(spatial))

    @property
    def _padding(self) -> tuple[int, int, int]:
        """Mode, and how many cells are above and to the left."""
        top, left = ops.axes(self.layer.geometry)[2]
        return ops.PADDINGS[self.layer.padding_mode], top, left

    @property
    def _pooled_at_once(self) -> bool:
        """Whether its outputs can be pooled before they are stored: 1×1 and grouped convolutions have faster kernels
        of their own, which store them."""
        return self.layer.groups == 1 and prod(self.geometry.kernel) > 1

    # ---- backward

    def backward(self, way: Backward) -> None:
        """dy (N, F, *P) -> dw (F, C/groups, *K), db (F,) and dx (N, C, *S)."""
        summed = way.visit(self.pool, lambda delta: self._through_pool(way, delta))
        way.visit(self.activation, lambda delta: self._through_activation(way, delta))
        way.visit(self.conv, lambda delta: self._through_conv(way, delta, bool(summed)))

    def _through_pool(self, way: Backward, delta: Map) -> bool:
        """dy (N, F, H/2, W/2) -> the gradient before the activation; whether that has given the bias's (F,) too."""
        y, winners = self.pooled.y, self.pooled.winners
        bias, alone = self.layer.bias, not any(node.name in way.given for node in self.nodes[:-1])
        early = alone and way.sums_early
        if early and self._ends_here(way):
            dw, apart = way.gradient(self.layer.weight)
            db = None if bias is None else way.gradient(bias)[0]
            numbers = (*ops.window(self.geometry), kind(self.activation), apart)
            way.emit("pooled_weight_gradient", (dw, db, delta, y, winners, self._read(way)), *numbers)
            return True
        early = early and not way.builder.by_channel
        sums = way.gradient(bias)[0] if early and bias is not None and not way.apart(bias) else None
        dx = way.fresh(self.conv.name)
        way.emit("pool_2x2_backward", (dx, sums, delta, y, winners), kind(self.activation))
        way.give(self.conv.name, dx)
        return sums is not None

    def _ends_here(self, way: Backward) -> bool:
        """Whether it has few channels and nothing but its own gradients is wanted, all of them summed or all sample by
        sample: these can be computed without its outputs' gradient in full."""
        if not self._pooled_at_once or way.needs(self.source) or way.builder.by_channel:
            return False
        few = self.x.channels < _FEW_CHANNELS
        return few and len({way.apart(p) for p in self.layer.parameters().values()}) == 1

    def _through_activation(self, way: Backward, delta: Map) -> None:
        assert self.activation is not None
        if self.pool is not None:  # a gradient was given here, where only pooled values are stored
            self._through_unseen(way, delta)
        else:
            way.through_activation(self.activation, delta, self.y, kind(self.activation))

    def _through_unseen(self, way: Backward, delta: Map) -> None:
        """The gradient behind the activation, with values that are computed once more."""
        y = way.fresh(self.conv.name)
        left = self._convolve(way, y)
        if left != ops.IDENTITY:
            way.emit("activate", (y, y), left)
        dx = way.reuse(delta)
        way.emit("activate_backward", (dx, delta, y), kind(self.activation))
        way.give(self.conv.name, dx)

    def _through_conv(self, way: Backward, delta: Map, summed: bool) -> None:
        way.parameter_gradients(self, delta, summed)
        if not way.needs(self.source):
            return
        if self.padded:
            self._through_padding(way, delta)
            return
        g, x, source = self.geometry, self.x, self.source
        delta.widen(ops.upstream_margins(g, (x.height, x.width), (delta.height, delta.width)))
        held = way.pending.get(source)
        add = held is not None and way.holders[held] == 1
        dx = held if held is not None and add else way.fresh(source)
        maps = (dx, delta, way.parameter(self.layer.weight), self._gate(way))
        way.emit("conv_input_gradient", maps, *ops.window(g), int(add))
        if not add:
            way.give(source, dx)

    def _through_padding(self, way: Backward, delta: Map) -> None:
        """The padded map's gradient, and each cell's with those of its copies."""
        padded, dx = way.place(self._padded_shape(way)), way.fresh(self.source)
        size, outputs = (padded.height, padded.width), (delta.height, delta.width)
        delta.widen(ops.upstream_margins(self.geometry, size, outputs))
        maps = (padded, delta, way.parameter(self.layer.weight), None)
        way.emit("conv_input_gradient", maps, *ops.window(self.geometry), 0)
        way.emit("pad_backward", (dx, padded), *self._padding)
        way.give(self.source, dx)

    def _gate(self, way: Backward) -> Map | None:
        """The output of the ReLU before, if the gradient goes on through it as it is stored."""
        held = way.pending.get(self.source)
        taken = self.norm is not None and self.norm.name not in way.given
        if self.relu is None or taken or (held is not None and way.holders[held] > 1):
            return None
        way.gated.add(self.source)
        return self.x

    # ---- its parameters

    def gradients(self, way: Backward, delta: Map, summed: bool) -> None:
        """Those of kernel and, unless it is summed already, bias."""
        bias: Any = None if summed else self.layer.bias
        dw, apart = way.gradient(self.layer.weight)
        together = bias is not None and way.apart(bias) == bool(apart)
        db = way.gradient(bias)[0] if together else None
        way.emit("conv_weight_gradient", (dw, db, delta, self._read(way)), *ops.window(self.geometry), apart)
        if bias is not None and not together:
            db, apart = way.gradient(bias)
            way.emit("channel_sums", (db, delta), apart)

    def norms(self, way: Clipped, delta: Map, summed: bool) -> None:
        """Norms now, sums later: of kernels that are kept, else by going through the scaled map once more."""
        layer, g, x = self.layer, self.geometry, self._read(way)
        if way.builder.by_channel:
            self._norms_by_channel(way, delta, x)
            return
        match cheapest(g, layer.weight.shape, delta, x, way.builder, way.sums_later):
            case "keep":
                apart = Map(delta.samples, delta.lanes, prod(layer.weight.shape))
                way.emit("add_kernel_squares", (way.squares, delta, x, apart), *ops.window(g))
                way.sum_later(layer.weight, apart)
            case "products":
                way.emit("add_gram_squares", (way.squares, delta, x), *ops.window(g))
                self._again(way, delta, x)
            case _:
                way.emit("add_kernel_squares", (way.squares, delta, x, None), *ops.window(g))
                self._again(way, delta, x)
        if layer.bias is not None:
            sums = way.builder.vector(delta.channels)
            way.emit("channel_sums", (sums, delta), 1)
            way.add_squares(layer.bias, sums)

    def _norms_by_channel(self, way: Clipped, delta: Map, x: Map) -> None:
        """Samples are few: their gradients are kept."""
        parameters = [p for p in (self.layer.weight, self.layer.bias) if p is not None]
        own = [way.builder.vector(prod(p.shape)) for p in parameters]
        db = own[1] if len(own) == 2 else None
        way.emit("conv_weight_gradient", (own[0], db, delta, x), *ops.window(self.geometry), 1)
        for p, apart in zip(parameters, own, strict=True):
            way.add_squares(p, apart)

    def _again(self, way: Clipped, delta: Map, x: Map) -> None:
        """The kernel's gradient from the upstream gradient once that is scaled."""
        numbers = (*ops.window(self.geometry), 0)

        def total(dw: Map) -> None:
            way.emit("conv_weight_gradient", (dw, None, delta, x), *numbers)

        way.read_scaled(delta, [self.layer.weight], total)

    def copies(self, way: Traced, delta: Map, summed: bool) -> None:
        """dy (N, F, *P) and x (N, C, *S)."""
        way.copy(self.conv, delta, self.x)


def cheapest(g: Geometry, kernel: tuple[int, ...], delta: Map, x: Map, builder: Builder, keeping: bool) -> str:
    """The cheapest way to a kernel's norms and weighted sum, in what it takes besides the plain weight gradient.

    ``keeping``: whether there will be a sum, for which the samples' gradients can be kept.
    """
    costs = {
        "again": kernel_squares_cost(kernel, delta),
        "products": gram_squares_cost(builder, delta, x, g),
    }
    if keeping and delta.samples * prod(kernel) * builder.dtype.itemsize <= _MOST_KEPT:
        costs["keep"] = prod(kernel) * _KEEPING
    return min(costs, key=lambda name: costs[name])
