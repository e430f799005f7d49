"""The way back: what the steps write into the program, in reverse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from math import prod
from typing import Any, TypeVar

from sharedgrad.graph import Node
from sharedgrad.kernels.native import program as ops
from sharedgrad.kernels.native.maps import Map
from sharedgrad.kernels.native.recycled import maker
from sharedgrad.parameter import Array, Parameter, Weight
from sharedgrad.plan.forward import Forward
from sharedgrad.plan.lowering import (
    Delta,
    Gradient,
    InputGradient,
    Lowering,
    MaxNorm,
    Norms,
    Squares,
    Upstream,
    Value,
)
from sharedgrad.plan.steps.step import Weighted
from sharedgrad.view import View

T = TypeVar("T")


class Backward(Lowering):
    """All nodes that lead to what is wanted, backward.

    Args:
        forward: The way that goes back.
        given: Names of nodes whose upstream gradients are given, none of them in ``forward.unseen``.
        wanted: Names of nodes and inputs whose gradient leads to a parameter or an input that is asked for.
        by_sample: Parameters whose gradients are kept apart by sample.
        joined: Whether it goes on in the program of ``forward``, which has not been built.

    Attributes:
        pending: Node or input -> what has come back to it so far.
        holders: How many nodes still have to read a gradient.
        gated: ReLUs whose gradient has come through them already.
    """

    sums_early = True  # biases' gradients, where a map is written anyway

    def __init__(
        self,
        forward: Forward,
        given: Collection[str],
        wanted: Collection[str],
        by_sample: Collection[Parameter],
        joined: bool = False,
    ) -> None:
        super().__init__(forward.shapes, forward.builder.another(), forward if joined else None)
        self.forward, self.given, self.wanted, self.by_sample = forward, given, wanted, by_sample
        self.pending: dict[str, Map] = {}
        self.holders: Counter[Map] = Counter()
        self.gated: set[str] = set()
        self.start()
        for name in given:
            self._pend(name, self.upstream(name))
        for step in reversed(forward.steps):
            step.backward(self)
        for name in forward.inputs:
            if name in wanted and name in self.pending:
                out = self.array(InputGradient(name), self.shapes[name])
                self.emit("relayout", (out, self.pending[name]))
        self.finish()
        self.build()
        self.upstreams, self.limits = self.numbered(Upstream), self.numbered(Norms | MaxNorm | Squares)
        self.input_gradients, self.gradients = self.numbered(InputGradient), self.numbered(Gradient)
        self.deltas, self.node_values = self.numbered(Delta), self.numbered(Value)
        order = [p for node in reversed(forward.nodes) for p in node.layer.parameters().values()]
        self.gradients.sort(key=lambda numbered: order.index(numbered[1].parameter))  # as layer by layer
        self.results = [(i, *self._result(*what)) for i, what in self.gradients]

    def _result(self, seen: Weight, apart: bool) -> tuple[Callable[[], Array], Parameter, View | None, int]:
        """What makes an array for a gradient; whose it is, through which view, and its axes before the parameter's."""
        shape = (self.builder.samples, *seen.shape) if apart else seen.shape
        return maker(shape, self.builder.dtype), seen.base, None if seen.view.identity else seen.view, int(apart)

    def start(self) -> None:
        """What is to be done before the last step."""

    def finish(self) -> None:
        """What is to be done after the first step."""

    # ---- gradients at nodes

    def upstream(self, name: str) -> Map:
        """The gradient that is given at a node."""
        delta = self.place(self.shapes[name])
        self.emit("relayout", (delta, self.array(Upstream(name), self.shapes[name])))
        return delta

    def _pend(self, name: str, delta: Map) -> None:
        self.pending[name] = delta
        self.holders[delta] += 1

    def visit(self, node: Node | None, through: Callable[[Map], T]) -> T | None:
        """Go back through a node with all that has come back to it; not if that is nothing, or leads nowhere."""
        delta = None if node is None else self.pending.pop(node.name, None)
        if node is None or delta is None:
            return None
        result = through(delta) if node.name in self.wanted else None
        self.holders[delta] -= 1
        return result

    def needs(self, name: str) -> bool:
        """Whether anybody wants the gradient at this node or input."""
        return name in self.wanted

    def fresh(self, name: str) -> Map:
        """A place for the gradient at a node or input."""
        return self.place(self.shapes[name])

    def reuse(self, delta: Map) -> Map:
        """The same map if no operation reads it after this node, else a new one like it."""
        if self.holders[delta] == 1:
            return delta
        return delta.like()

    def give(self, name: str, gradient: Map) -> None:
        """One path's gradient at a node; what comes on several paths adds."""
        if name not in self.pending:
            self._pend(name, gradient)
            return
        held = self.pending[name]
        total = self.reuse(held)
        self.emit("add", (total, held, gradient), ops.IDENTITY)
        if total is not held:
            self.holders[held] -= 1
            self._pend(name, total)

    def give_all(self, names: Collection[str], gradient: Map) -> None:
        """The same gradient at several nodes, as far as they want it."""
        for name in names:
            if self.needs(name):
                self.give(name, gradient)

    def through_activation(self, node: Node, delta: Map, y: Map, kind: int) -> None:
        """Back through an activation with the output y; nothing to do where that is done already."""
        (source,) = node.inputs
        if node.name in self.gated:
            self.give(source, delta)
            return
        dx = self.reuse(delta)
        self.emit("activate_backward", (dx, delta, y), kind)
        self.give(source, dx)

    # ---- gradients of parameters

    def parameter_gradients(self, step: Weighted, *arguments: Any) -> Any:
        """What this way back makes of a step's parameters."""
        return step.gradients(self, *arguments)

    def apart(self, parameter: Weight) -> bool:
        """Whether its gradient is kept apart by sample."""
        return parameter.base in self.by_sample

    def gradient(self, parameter: Weight) -> tuple[Map, int]:
        """An array for a parameter's gradient, and whether it is kept apart by sample."""
        apart = self.apart(parameter)
        samples = self.builder.samples if apart else 1
        return self.array(Gradient(parameter, apart), (prod(parameter.shape),), samples), int(apart)
