"""Pooling. Max pooling in windows of 2×2 that touch has operations of its own, with the activation before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sharedgrad import layers
from sharedgrad.graph import Node
from sharedgrad.kernels.native import program as ops
from sharedgrad.kernels.native.maps import Map
from sharedgrad.layers.layer import Shape
from sharedgrad.plan.steps.kinds import is_activation, is_relu, kind
from sharedgrad.plan.steps.step import Graph, Step

if TYPE_CHECKING:
    from sharedgrad.plan.backward import Backward
    from sharedgrad.plan.forward import Forward

CONVOLUTIONS = (layers.Conv1d, layers.Conv2d)


def large_windows(node: Node, shapes: Mapping[str, Shape], samples: int) -> str:
    """Why a layer's windows are NumPy's, in words; nothing if they are not."""
    layer: Any = node.layer
    served = ops.served(layer.geometry, (samples, *shapes[node.inputs[0]]))
    return "" if served else "windows or maps too large for the compiled code"


def pooled_2x2(node: Node | None, graph: Graph) -> Node | None:
    """The node, if it is max pooling in windows of 2×2 that touch."""
    layer: Any = None if node is None else node.layer
    if node is None or type(layer) is not layers.MaxPool2d or layer.ties != "first":
        return None
    before, after = graph.shapes[node.inputs[0]], graph.shapes[node.name]
    halves = after[1:] == (before[1] // 2, before[2] // 2)
    return node if halves and ops.window(layer.geometry)[:6] == (2, 2, 2, 2, 0, 0) else None


class Pooled:
    """Where 2×2 max pooling leaves what it has computed.

    Attributes:
        y: The largest of each window, after the activation (N, C, H/2, W/2).
        winners: Which cell that was, if there will be a way back.
    """

    def __init__(self, way: Forward, pool: Node) -> None:
        shape = way.shapes[pool.name]
        self.y = way.values[pool.name] = way.keep(way.place(shape))
        self.winners = way.keep(way.place(shape)) if way.record else None


class _PoolStep(Step):
    """Pooling by itself."""

    def __init__(self, pool: Node) -> None:
        super().__init__(pool)
        self.pool, (self.source,) = pool, pool.inputs

    @classmethod
    def beginning_with(cls, node: Node, graph: Graph) -> Step:
        """It alone."""
        return cls(node)

    @property
    def _numbers(self) -> tuple[int, ...]:
        layer: Any = self.pool.layer
        return ops.window(layer.geometry)


class MaxPoolStep(_PoolStep):
    """Max pooling in any windows.

    Attributes:
        relu: The ReLU that alone it reads and that a convolution has computed: it goes back through both at once.
    """

    def __init__(self, pool: Node, relu: Node | None = None) -> None:
        super().__init__(pool)
        self.relu = relu

    @classmethod
    def beginning_with(cls, node: Node, graph: Graph) -> Step:
        """It alone; or, in windows of 2×2 that touch, with the activation before it, which is computed already."""
        before = graph.node(node.inputs[0])
        if pooled_2x2(node, graph) is not None:
            through = before if before and is_activation(before) and graph.follower(before) is node else None
            return Pool2x2Step(node, through, kind(through), ops.IDENTITY)
        if before is None or not is_relu(before) or graph.only_reader(before) is not node:
            return cls(node, None)
        first, *others = graph.taken[before.name].nodes
        return cls(node, before if others and type(first.layer) in CONVOLUTIONS else None)

    @classmethod
    def refusal(cls, node: Node, shapes: Mapping[str, Shape], samples: int) -> str:
        """Other ties than the first winner, and large windows."""
        layer: Any = node.layer
        return f"ties={layer.ties!r}" if layer.ties != "first" else large_windows(node, shapes, samples)

    def forward(self, way: Forward) -> None:
        """x (N, C, *S) -> y (N, C, *P)."""
        self.x = way.keep(way.values[self.source])
        self.y = way.values[self.pool.name] = way.keep(way.place(way.shapes[self.pool.name]))
        way.emit("max_pool", (self.y, self.x), *self._numbers)

    def backward(self, way: Backward) -> None:
        """dy (N, C, *P) -> dx (N, C, *S)."""
        way.visit(self.pool, lambda delta: self._back(way, delta))

    def _back(self, way: Backward, delta: Map) -> None:
        relu = self.relu if self.source not in way.given else None
        dx = way.fresh(self.source)
        way.emit("max_pool_backward", (dx, delta, self.x, self.y), *self._numbers, int(relu is not None))
        way.give(self.source if relu is None else relu.inputs[0], dx)


class Pool2x2Step(Step):
    """Max pooling in windows of 2×2 that touch, and back through the activation before it.

    Args:
        pool: The pooling.
        activation: What alone it reads, if that is an activation.
        kind: Which one that is.
        computed: The same if this step computes it, the identity if a step before has done so.
    """

    def __init__(self, pool: Node, activation: Node | None, kind: int, computed: int) -> None:
        super().__init__(activation if computed != ops.IDENTITY else None, pool)
        self.pool, self.kind, self.computed = pool, kind, computed
        (self.origin,) = (activation or pool).inputs
        (self.source,) = pool.inputs if computed == ops.IDENTITY else (self.origin,)
        self.unseen = () if activation is None else (activation.name,)

    @classmethod
    def beginning_with(cls, node: Node, graph: Graph) -> Step:
        """As max pooling or an activation begins it."""
        return MaxPoolStep.beginning_with(node, graph)

    def forward(self, way: Forward) -> None:
        """x (N, C, H, W) -> y (N, C, H/2, W/2)."""
        self.pooled = Pooled(way, self.pool)
        way.emit("pool_2x2", (self.pooled.y, self.pooled.winners, way.values[self.source]), self.computed)

    def backward(self, way: Backward) -> None:
        """dy (N, C, H/2, W/2) -> the gradient before the activation (N, C, H, W)."""
        way.visit(self.pool, lambda delta: self._back(way, delta))

    def _back(self, way: Backward, delta: Map) -> None:
        dx = way.fresh(self.origin)
        way.emit("pool_2x2_backward", (dx, None, delta, self.pooled.y, self.pooled.winners), self.kind)
        way.give(self.origin, dx)


class AvgPoolStep(_PoolStep):
    """Average pooling."""

    @classmethod
    def refusal(cls, node: Node, shapes: Mapping[str, Shape], samples: int) -> str:
        """Large windows."""
        return large_windows(node, shapes, samples)

    @property
    def _counted(self) -> int:
        layer: Any = self.pool.layer
        return int(layer.count_include_pad)

    def forward(self, way: Forward) -> None:
        """x (N, C, *S) -> y (N, C, *P)."""
        y = way.values[self.pool.name] = way.place(way.shapes[self.pool.name])
        way.emit("avg_pool", (y, way.values[self.source]), *self._numbers, self._counted)

    def backward(self, way: Backward) -> None:
        """dy (N, C, *P) -> dx (N, C, *S)."""
        way.visit(self.pool, lambda delta: self._back(way, delta))

    def _back(self, way: Backward, delta: Map) -> None:
        dx = way.fresh(self.source)
        way.emit("avg_pool_backward", (dx, delta), *self._numbers, self._counted)
        way.give(self.source, dx)


class GlobalMeanStep(_PoolStep):
    """The mean of each map."""

    def forward(self, way: Forward) -> None:
        """x (N, C, *S) -> y (N, C)."""
        y = way.values[self.pool.name] = way.place(way.shapes[self.pool.name])
        way.emit("global_mean", (y, way.values[self.source]))

    def backward(self, way: Backward) -> None:
        """dy (N, C) -> dx (N, C, *S)."""
        way.visit(self.pool, lambda delta: self._back(way, delta))

    def _back(self, way: Backward, delta: Map) -> None:
        dx = way.fresh(self.source)
        way.emit("global_mean_backward", (dx, delta))
        way.give(self.source, dx)
