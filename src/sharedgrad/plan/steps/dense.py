"""Dense layers, with the activation behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sharedgrad.graph import Node
from sharedgrad.kernels.native.maps import Map
from sharedgrad.layers.layer import Shape
from sharedgrad.plan.steps.kinds import is_activation, is_relu, kind
from sharedgrad.plan.steps.step import Graph, Weighted

if TYPE_CHECKING:
    from sharedgrad.plan.backward import Backward
    from sharedgrad.plan.clipped import Clipped
    from sharedgrad.plan.forward import Forward
    from sharedgrad.plan.traced import Traced


class LinearStep(Weighted):
    """A dense layer over vectors, and the activation that alone reads it, if one does."""

    def __init__(self, linear: Node, activation: Node | None) -> None:
        super().__init__(linear, activation)
        self.linear, self.activation = linear, activation
        self.layer: Any = linear.layer
        (self.source,) = linear.inputs

    @classmethod
    def beginning_with(cls, node: Node, graph: Graph) -> LinearStep:
        """With the activation behind it."""
        after = graph.follower(node)
        return cls(node, after if is_activation(after) else None)

    @classmethod
    def refusal(cls, node: Node, shapes: Mapping[str, Shape], samples: int) -> str:
        """Vectors alone, not tokens (T, K)."""
        return "" if len(shapes[node.name]) == 1 else "tokens: samples of more than one axis"

    def forward(self, way: Forward) -> None:
        """x (N, I) -> y (N, O)."""
        self.x, self.y = way.keep(way.values[self.source]), way.place(way.shapes[self.linear.name])
        maps = (self.y, self.x, way.parameter(self.layer.weight), way.parameter(self.layer.bias))
        way.emit("linear", maps, int(is_relu(self.activation)))
        way.values[self.linear.name] = self.y
        if self.activation is not None:
            way.values[self.activation.name] = way.keep(self.y)
            if not is_relu(self.activation):
                way.emit("activate", (self.y, self.y), kind(self.activation))

    def backward(self, way: Backward) -> None:
        """dy (N, O) -> dw (O, I), db (O,) and dx (N, I)."""
        way.visit(self.activation, lambda delta: self._through_activation(way, delta))
        way.visit(self.linear, lambda delta: self._through_linear(way, delta))

    def _through_activation(self, way: Backward, delta: Map) -> None:
        assert self.activation is not None
        way.through_activation(self.activation, delta, self.y, kind(self.activation))

    def _through_linear(self, way: Backward, delta: Map) -> None:
        way.parameter_gradients(self, delta)
        if way.needs(self.source):
            dx = way.fresh(self.source)
            way.emit("linear_input_gradient", (dx, delta, way.parameter(self.layer.weight)))
            way.give(self.source, dx)

    # ---- its parameters

    def gradients(self, way: Backward, delta: Map) -> None:
        """Those of weight and bias."""
        bias = self.layer.bias
        dw, apart = way.gradient(self.layer.weight)
        together = bias is not None and way.apart(bias) == bool(apart)
        db = way.gradient(bias)[0] if together else None
        way.emit("linear_weight_gradient", (dw, db, delta, self.x), apart)
        if bias is not None and not together:
            db, apart = way.gradient(bias)
            way.emit("channel_sums", (db, delta), apart)

    def norms(self, way: Clipped, delta: Map) -> None:
        """Norms now, sums later."""
        both = [p for p in (self.layer.weight, self.layer.bias) if p is not None]
        way.emit("add_linear_squares", (way.squares, delta, self.x), int(len(both) == 2))

        def sums(dw: Map, db: Map | None = None) -> None:
            way.emit("linear_weight_gradient", (dw, db, delta, self.x), 0)

        way.read_scaled(delta, both, sums)

    def copies(self, way: Traced, delta: Map) -> None:
        """dy (N, O) and x (N, I)."""
        way.copy(self.linear, delta, self.x)
