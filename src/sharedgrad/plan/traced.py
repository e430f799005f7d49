"""The way back without a sum: what the gradients are made of.

For each node with parameters the gradient at its output and what its layer has read, copied from the maps that the
forward pass has kept. Nothing is computed forward again, and no weight gradient is.
"""

from __future__ import annotations

from typing import Any

from sharedgrad.graph import Node
from sharedgrad.kernels.native.program import Map
from sharedgrad.plan.backward import Backward
from sharedgrad.plan.lowering import Delta, Value
from sharedgrad.plan.steps.step import Weighted


class Traced(Backward):
    """All nodes that lead to a parameter, backward. Arguments as for ``plan.backward.Backward``."""

    sums_early = False  # there are no sums, and gradients at convolutions' outputs are written in full

    def start(self) -> None:
        """Nothing has been copied yet."""
        self._copied: set[str] = set()

    def parameter_gradients(self, step: Weighted, *arguments: Any) -> Any:
        """The maps instead."""
        return step.copies(self, *arguments)

    def copy(self, node: Node, delta: Map, x: Map) -> None:
        """Out of the program's memory order. Network inputs are there as plain arrays already."""
        (source,) = node.inputs
        shapes = self.forward.shapes
        self.emit("relayout", (self.array(Delta(node.name), shapes[node.name]), delta))
        if source not in self.forward.inputs and source not in self._copied:
            self._copied.add(source)
            self.emit("relayout", (self.array(Value(source), shapes[source]), x))
