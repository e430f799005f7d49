"""Batch normalization, with the sum of a residual block and the ReLU behind it."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from sharedgrad import layers
from sharedgrad.graph import Node
from sharedgrad.kernels.native import program as ops
from sharedgrad.kernels.native.maps import Map
from sharedgrad.plan.lowering import Statistics
from sharedgrad.plan.steps.kinds import is_relu
from sharedgrad.plan.steps.pooling import pooled_2x2
from sharedgrad.plan.steps.step import Graph, Weighted

if TYPE_CHECKING:
    from sharedgrad.plan.backward import Backward
    from sharedgrad.plan.clipped import Clipped
    from sharedgrad.plan.forward import Forward
    from sharedgrad.plan.traced import Traced


class NormStep(Weighted):
    """Batch normalization.

    Attributes:
        norm, total, relu: The nodes; the last two where they are there.
        shortcut: Name of the sum's other term.
        pooled: Whether 2×2 max pooling is all that sees the ReLU.
    """

    def __init__(self, norm: Node, total: Node | None, relu: Node | None, graph: Graph) -> None:
        super().__init__(norm, total, relu)
        self.norm, self.total, self.relu = norm, total, relu
        self.layer: Any = norm.layer
        (self.source,) = norm.inputs
        self.shortcut = next((name for name in total.inputs if name != norm.name), None) if total else None
        self.pooled = relu is not None and pooled_2x2(graph.follower(relu), graph) is not None

    @classmethod
    def beginning_with(cls, node: Node, graph: Graph) -> NormStep:
        """With the sum of two that alone reads it, if the other term is known already, and the ReLU behind."""
        after = graph.follower(node)
        total = after if after is not None and type(after.layer) is layers.Add and len(after.inputs) == 2 else None
        if total is not None:
            others = [name for name in total.inputs if graph.node(name) is None or name in graph.taken]
            total = total if len(others) == 1 else None
        relu = graph.follower(total or node)
        return cls(node, total, relu if is_relu(relu) else None, graph)

    def forward(self, way: Forward) -> None:
        """x (N, C, H, W) -> y, in training mode with the batch's mean and variance (C,), which are kept."""
        self.y, self.x = way.place(way.shapes[self.norm.name]), way.keep(way.values[self.source])
        self.batch = self._statistics(way) if way.training else None
        shortcut = None if self.shortcut is None else way.values[self.shortcut]
        maps = (self.y, self.x, shortcut, *self._mean_and_variance(way), *self._scale(way))
        name = "batch_normalize" if way.training else "normalize"
        way.emit(name, maps, int(self.relu is not None), ops.bits(self.layer.eps))
        if self.relu is not None and not self.pooled:
            way.keep(self.y)
        way.values.update({node.name: self.y for node in self.nodes})

    def _statistics(self, way: Forward) -> Statistics:
        name = self.norm.name
        mean, variance = (Map(1, 1, self.x.channels, kept=True) for _ in range(2))
        count = way.builder.samples * prod(way.shapes[name][1:])
        way.statistics[name] = Statistics(self.norm, mean, variance, count)
        return way.statistics[name]

    def _mean_and_variance(self, way: Forward | Backward) -> tuple[Map | None, Map | None]:
        """The batch's, or the running ones."""
        if self.batch is not None:
            return self.batch.mean, self.batch.variance
        return way.parameter(self.layer.running_mean), way.parameter(self.layer.running_var)

    def _scale(self, way: Forward | Backward) -> tuple[Map | None, Map | None]:
        return way.parameter(self.layer.weight), way.parameter(self.layer.bias)

    # ---- backward

    def backward(self, way: Backward) -> None:
        """dy (N, C, H, W) -> dweight (C,), dbias (C,), dx (N, C, H, W) and the shortcut's gradient."""
        through = way.visit(self.relu, lambda delta: self._through_relu(way, delta))
        way.visit(self.total, lambda delta: self._through_total(way, delta))
        way.visit(self.norm, lambda delta: self._through_norm(way, delta, bool(through)))

    def _through_relu(self, way: Backward, delta: Map) -> bool:
        """Whether the normalization's own operation is to go through the ReLU."""
        assert self.relu is not None
        if self.total is None and self.norm.name not in way.given:
            way.give(self.norm.name, delta)
            return True
        way.through_activation(self.relu, delta, self.y, ops.RELU)
        return False

    def _through_total(self, way: Backward, delta: Map) -> None:
        assert self.total is not None
        way.give_all(self.total.inputs, delta)

    def _through_norm(self, way: Backward, delta: Map, through: bool) -> None:
        mean, variance = self._mean_and_variance(way)
        dw, db = way.parameter_gradients(self, delta, self.y if through else None, mean, variance)
        dx = way.reuse(delta) if way.needs(self.source) else None
        maps = (dx, dw, db, delta, self.x, mean, variance, *self._scale(way))
        numbers = int(self.batch is not None), int(through), ops.bits(self.layer.eps)
        way.emit("normalize_backward", maps, *numbers)
        if dx is not None:
            way.give(self.source, dx)

    # ---- its parameters: dy, the output of the ReLU that dy has still to come through or None, mean and variance

    def gradients(self, way: Backward, delta: Map, relu: Map | None, *statistics: Map | None) -> tuple[Map, Map]:
        """Where the sums for weight and bias go; kept apart by sample they come from here."""
        own, total = [], []
        for p in (self.layer.weight, self.layer.bias):
            array, apart = way.gradient(p)
            own.append(array if apart else None)
            total.append(Map(1, 1, array.channels) if apart else array)
        if any(own):
            way.emit("normalize_gradients", (*own, delta, self.x, relu, *statistics), ops.bits(self.layer.eps))
        return total[0], total[1]

    def norms(self, way: Clipped, delta: Map, relu: Map | None, *statistics: Map | None) -> tuple[Map, Map]:
        """Norms now, sums later."""
        both = self.layer.weight, self.layer.bias
        own = [way.builder.vector(prod(p.shape)) for p in both]
        way.emit("normalize_gradients", (*own, delta, self.x, relu, *statistics), ops.bits(self.layer.eps))
        for p, sums in zip(both, own, strict=True):
            way.add_squares(p, sums)
        return self._unused_sums()

    def copies(self, way: Traced, delta: Map, relu: Map | None, *statistics: Map | None) -> tuple[Map, Map]:
        """dy and x (N, C, H, W)."""
        if relu is not None:
            through = delta.like()
            way.emit("activate_backward", (through, delta, relu), ops.RELU)
            delta = through
        way.copy(self.norm, delta, self.x)
        return self._unused_sums()

    def _unused_sums(self) -> tuple[Map, Map]:
        """Places for sums that the way back to x needs and nobody else."""
        return Map(1, 1, self.x.channels), Map(1, 1, self.x.channels)
