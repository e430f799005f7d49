"""The way back without a sum: what the gradients are made of.

For each node with parameters the gradient at its output and what its layer has read, copied from the maps that the
forward pass has kept. Nothing is computed forward again, and no weight gradient is.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sharedgrad.graph import Node
from sharedgrad.kernels.native.maps import Map
from sharedgrad.plan.backward import Backward
from sharedgrad.plan.forward import Forward
from sharedgrad.plan.lowering import Delta, Value
from sharedgrad.plan.steps.step import Weighted


class Traced(Backward):
    """All nodes that lead to a parameter, backward.

    Args:
        forward, given, wanted: As for ``plan.backward.Backward``.
        known: Names of inputs whose values need no copy.
    """

    sums_early = False  # there are no sums, and gradients at convolutions' outputs are written in full

    def __init__(
        self, forward: Forward, given: Collection[str], wanted: Collection[str], known: Collection[str]
    ) -> None:
        self._known = known
        super().__init__(forward, given, wanted, ())

    def start(self) -> None:
        """Nothing has been copied yet."""
        self._copied: set[str] = set()

    def parameter_gradients(self, step: Weighted, *arguments: Any) -> Any:
        """The maps instead."""
        return step.copies(self, *arguments)

    def copy(self, node: Node, delta: Map, x: Map) -> None:
        """Out of the program's memory order."""
        (source,) = node.inputs
        self.emit("relayout", (self.array(Delta(node.name), self.shapes[node.name]), delta))
        if source not in self._known and source not in self._copied:
            self._copied.add(source)
            self.emit("relayout", (self.array(Value(source), self.shapes[source]), x))
