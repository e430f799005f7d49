"""Steps with several inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharedgrad.graph import Node
from sharedgrad.kernels.native import program as ops
from sharedgrad.kernels.native.program import Map
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
