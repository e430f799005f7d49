"""Layers that move numbers without changing them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharedgrad.graph import Node
from sharedgrad.kernels.native.maps import Map
from sharedgrad.plan.steps.step import Graph, Step

if TYPE_CHECKING:
    from sharedgrad.plan.backward import Backward
    from sharedgrad.plan.forward import Forward


class FlattenStep(Step):
    """Each sample as one vector."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.node, (self.source,) = node, node.inputs

    @classmethod
    def beginning_with(cls, node: Node, graph: Graph) -> FlattenStep:
        """It alone."""
        return cls(node)

    def forward(self, way: Forward) -> None:
        """x (N, *S) -> y (N, |S|); a vector is its own."""
        x = y = way.values[self.source]
        if len(way.shapes[self.source]) > 1:  # also (C, 1, 1): a window that reads it needs margins
            y = way.place(way.shapes[self.node.name])
            way.emit("relayout", (y, x))
        way.values[self.node.name] = y
        self.moved = y is not x

    def backward(self, way: Backward) -> None:
        """dy (N, |S|) -> dx (N, *S)."""
        way.visit(self.node, lambda delta: self._back(way, delta))

    def _back(self, way: Backward, delta: Map) -> None:
        dx = delta
        if self.moved:
            dx = way.fresh(self.source)
            way.emit("relayout", (dx, delta))
        way.give(self.source, dx)
