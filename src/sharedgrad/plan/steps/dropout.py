"""Dropout: the mask is drawn outside, anew for every step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharedgrad.graph import Node
from sharedgrad.kernels.native.maps import Map
from sharedgrad.plan.lowering import Mask
from sharedgrad.plan.steps.step import Graph, Step

if TYPE_CHECKING:
    from sharedgrad.plan.backward import Backward
    from sharedgrad.plan.forward import Forward


class DropoutStep(Step):
    """Dropout; in evaluation mode nothing."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.node, (self.source,) = node, node.inputs
        self.mask: Map | None = None

    @classmethod
    def beginning_with(cls, node: Node, graph: Graph) -> DropoutStep:
        """It alone."""
        return cls(node)

    def forward(self, way: Forward) -> None:
        """y in the shape of x."""
        name, shape = self.node.name, way.shapes[self.node.name]
        way.values[name] = way.values[self.source]
        if way.training:
            way.values[name], self.mask = way.place(shape), way.keep(way.place(shape))
            way.emit("relayout", (self.mask, way.array(Mask(self.node), shape)))
            way.emit("multiply", (way.values[name], way.values[self.source], self.mask))

    def backward(self, way: Backward) -> None:
        """dx in the shape of dy."""
        way.visit(self.node, lambda delta: self._back(way, delta))

    def _back(self, way: Backward, delta: Map) -> None:
        dx = delta
        if self.mask is not None:
            dx = way.reuse(delta)
            way.emit("multiply", (dx, delta, self.mask))
        way.give(self.source, dx)
