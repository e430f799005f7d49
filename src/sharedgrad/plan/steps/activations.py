"""Activations: y = f(x), and back dx = dy · f′, written with y."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharedgrad.graph import Node
from sharedgrad.plan.steps.kinds import kind
from sharedgrad.plan.steps.pooling import Pool2x2Step, pooled_2x2
from sharedgrad.plan.steps.step import Graph, Step

if TYPE_CHECKING:
    from sharedgrad.plan.backward import Backward
    from sharedgrad.plan.forward import Forward


class ActivationStep(Step):
    """An activation that no other step has taken along."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.node = node

    @classmethod
    def beginning_with(cls, node: Node, graph: Graph) -> Step:
        """It; or, where 2×2 max pooling is all that reads it, both."""
        pool = pooled_2x2(graph.follower(node), graph)
        return cls(node) if pool is None else Pool2x2Step(pool, node, kind(node), kind(node))

    def forward(self, way: Forward) -> None:
        """y in the shape of x."""
        name, (source,) = self.node.name, self.node.inputs
        self.y = way.values[name] = way.keep(way.place(way.shapes[name]))
        way.emit("activate", (self.y, way.values[source]), kind(self.node))

    def backward(self, way: Backward) -> None:
        """dx in the shape of dy."""
        way.visit(self.node, lambda delta: way.through_activation(self.node, delta, self.y, kind(self.node)))
