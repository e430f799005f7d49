"""The way back without a sum: what the gradients are made of.

For each node with parameters the gradient at its output and what its layer has read, copied from the maps that the
forward pass has kept. Nothing is computed forward again, and no weight gradient is.
"""

from __future__ import annotations

from sharedgrad.graph import Node
from sharedgrad.kernels.native import program as ops
from sharedgrad.kernels.native.program import Map
from sharedgrad.plan.backward import Backward
from sharedgrad.plan.lowering import Delta, Value


class Traced(Backward):
    """All nodes that lead to a parameter, backward. Arguments as for ``plan.backward.Backward``."""

    sums_early = False  # there are no sums, and gradients at convolutions' outputs are written in full

    def start(self) -> None:
        """Nothing has been copied yet."""
        self._copied: set[str] = set()

    def conv_gradients(self, node: Node, delta: Map, x: Map) -> None:
        """The maps instead: dy (N, F, *P) and x (N, C, *S)."""
        self._copy(node, delta, x)

    def linear_gradients(self, node: Node, delta: Map, x: Map) -> None:
        """The vectors instead: dy (N, O) and x (N, I)."""
        self._copy(node, delta, x)

    def norm_gradients(self, node: Node, *maps: Map | None) -> tuple[Map, Map]:
        """The maps instead: dy and x (N, C, H, W)."""
        delta, x, relu, *_ = maps
        assert delta is not None
        assert x is not None
        if relu is not None:
            through = Map(delta.samples, delta.lanes, *delta.shape)
            self.builder.emit("activate_backward", (through, delta, relu), ops.RELU)
            delta = through
        self._copy(node, delta, x)
        return Map(1, 1, x.channels), Map(1, 1, x.channels)  # sums that the way back to x needs

    def _copy(self, node: Node, delta: Map, x: Map) -> None:
        """Out of the program's memory order. Network inputs are there as plain arrays already."""
        (source,) = node.inputs
        shapes = self.forward.shapes
        self.builder.emit("relayout", (self.array(Delta(node.name), shapes[node.name]), delta))
        if source not in self.forward.inputs and source not in self._copied:
            self._copied.add(source)
            self.builder.emit("relayout", (self.array(Value(source), shapes[source]), x))
