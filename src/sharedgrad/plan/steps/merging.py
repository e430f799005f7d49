"""Steps with several inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sharedgrad.graph import Node
from sharedgrad.kernels.native import program as ops
from sharedgrad.kernels.native.maps import Map
from sharedgrad.layers.layer import Shape
from sharedgrad.plan.steps.kinds import is_relu
from sharedgrad.plan.steps.pooling import pooled_2x2
from sharedgrad.plan.steps.step import Graph, Step

if TYPE_CHECKING:
    from sharedgrad.plan.backward import Backward
    from sharedgrad.plan.forward import Forward


class AddStep(Step):
    """A sum, with the ReLU behind it.

    Attributes:
        total, relu: The nodes; the second where it is there.
        pooled: Whether 2×2 max pooling is all that sees the ReLU.
    """

    def __init__(self, total: Node, relu: Node | None, graph: Graph) -> None:
        super().__init__(total, relu)
        self.total, self.relu = total, relu
        self.pooled = relu is not None and pooled_2x2(graph.follower(relu), graph) is not None

    @classmethod
    def beginning_with(cls, node: Node, graph: Graph) -> AddStep:
        """With the ReLU that alone reads it."""
        after = graph.follower(node)
        return cls(node, after if is_relu(after) else None, graph)

    def forward(self, way: Forward) -> None:
        """y in the shape of all sources."""
        y, *others = (way.values[source] for source in self.total.inputs)
        last = ops.IDENTITY if self.relu is None else ops.RELU
        total = way.place(way.shapes[self.total.name])
        for i, other in enumerate(others, 1):
            way.emit("add", (total, y, other), last if i == len(others) else ops.IDENTITY)
            y = total
        self.y = total if self.relu is None or self.pooled else way.keep(total)
        way.values.update({node.name: self.y for node in self.nodes})

    def backward(self, way: Backward) -> None:
        """dy for every source, in its shape."""
        way.visit(self.relu, lambda delta: self._through_relu(way, delta))
        way.visit(self.total, lambda delta: way.give_all(self.total.inputs, delta))

    def _through_relu(self, way: Backward, delta: Map) -> None:
        assert self.relu is not None
        way.through_activation(self.relu, delta, self.y, ops.RELU)


class ConcatStep(Step):
    """Maps, or vectors, side by side along the channels."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.node = node

    @classmethod
    def beginning_with(cls, node: Node, graph: Graph) -> ConcatStep:
        """It alone."""
        return cls(node)

    @classmethod
    def refusal(cls, node: Node, shapes: Mapping[str, Shape], samples: int) -> str:
        """Another axis than the channels'."""
        layer: Any = node.layer
        channels = layer.axis in (1, -len(shapes[node.name]))
        return "" if channels else f"axis={layer.axis}, which is not that of the channels"

    def forward(self, way: Forward) -> None:
        """x₁ (N, C₁, *S), x₂ (N, C₂, *S), … -> y (N, C₁ + C₂ + …, *S)."""
        y, first = way.place(way.shapes[self.node.name]), 0
        for source in self.node.inputs:
            x = way.values[source]
            way.emit("copy_channels", (y, x), first, 0, x.channels)
            first += x.channels
        way.values[self.node.name] = y

    def backward(self, way: Backward) -> None:
        """Each input gets back its own channels."""
        way.visit(self.node, lambda delta: self._back(way, delta))

    def _back(self, way: Backward, delta: Map) -> None:
        first = 0
        for source in self.node.inputs:
            channels = way.shapes[source][0]
            if way.needs(source):
                dx = way.fresh(source)
                way.emit("copy_channels", (dx, delta), 0, first, channels)
                way.give(source, dx)
            first += channels
