"""The way back to the sum of clipped per-sample gradients, without keeping all samples' gradients.

First all nodes backward, where every parameter adds its squared norms, sample by sample, to one row of numbers. Then
each sample's factor. Then the parameters' gradients, from upstream gradients that are scaled by these factors.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import prod
from typing import Any

from sharedgrad.geometry import Geometry
from sharedgrad.graph import Node
from sharedgrad.kernels.native import program as ops
from sharedgrad.kernels.native.convolution import gram_squares_cost, kernel_squares_cost
from sharedgrad.kernels.native.program import Builder, Map
from sharedgrad.parameter import Weight
from sharedgrad.plan.backward import Backward
from sharedgrad.plan.forward import Forward
from sharedgrad.plan.lowering import MaxNorm, Norms, UnsupportedError

_MOST_KEPT = 1 << 25  # bytes of one kernel's gradients that are kept until their factors are known
_KEEPING = 50  # multiplications of vectors in the time that it takes to keep a sum and read it again, measured


class Clipped(Backward):
    """All nodes backward, to the sum of clipped gradients.

    Args:
        forward, given, wanted: As for ``plan.backward.Backward``.

    Raises:
        UnsupportedError: A layer has no compiled operation, or a parameter is used in several places: its uses must
            be added before its norm is known.
    """

    sums_early = False  # what is summed must be scaled first

    def __init__(self, forward: Forward, given: Collection[str], wanted: Collection[str]) -> None:
        samples, lanes = forward.builder.samples, forward.builder.lanes
        self._squares = Map(1, 1, samples * (8 // forward.builder.dtype.itemsize))  # in float64
        self._factors = Map(1, 1, -(-samples // lanes) * lanes)
        self._scaled: dict[Map, None] = {}  # upstream gradients that are read again, scaled
        self._sums: list[tuple[list[Weight], Callable[..., None]]] = []  # what comes after the factors
        super().__init__(forward, given, wanted, ())

    def start(self) -> None:
        """No squares yet."""
        self.builder.emit("zero", (self._squares,))

    def finish(self) -> None:
        """The factors, and the gradients with them."""
        used = [p.base for parameters, _ in self._sums for p in parameters]
        if len(set(used)) < len(used):
            raise UnsupportedError("a parameter that is used in several places")
        norms, most = self.array(Norms(), (self.builder.samples,), 1), self.array(MaxNorm(), self._one_double, 1)
        self.builder.emit("clip_factors", (self._factors, norms, self._squares, most))
        for delta in self._scaled:
            self.builder.emit("scale_samples", (delta, self._factors))
        for parameters, write in self._sums:
            write(*(self.gradient(p)[0] for p in parameters))

    @property
    def _one_double(self) -> tuple[int]:
        return (8 // self.builder.dtype.itemsize,)

    def conv_gradients(self, node: Node, delta: Map, x: Map) -> None:
        """Norms now, sums later: of kernels that are kept, else by going through the scaled map once more."""
        layer: Any = node.layer
        g, size = layer.geometry, prod(layer.weight.shape)
        match _cheapest(g, layer.weight.shape, delta, x, self.builder):
            case "keep":
                apart = Map(delta.samples, delta.lanes, size)
                self.builder.emit("add_kernel_squares", (self._squares, delta, x, apart), *ops.window(g))
                self._weighted(layer.weight, apart)
            case "products":
                self.builder.emit("add_gram_squares", (self._squares, delta, x), *ops.window(g))
                self._again(layer.weight, delta, x, g)
            case _:
                self.builder.emit("add_kernel_squares", (self._squares, delta, x, None), *ops.window(g))
                self._again(layer.weight, delta, x, g)
        if layer.bias is not None:
            sums = self.builder.vector(delta.channels)
            self.builder.emit("channel_sums", (sums, delta), 1)
            self._squared(layer.bias, sums)

    def linear_gradients(self, node: Node, delta: Map, x: Map) -> None:
        """Norms now, sums later."""
        layer: Any = node.layer
        self.builder.emit("add_linear_squares", (self._squares, delta, x), int(layer.bias is not None))
        self._read_scaled(delta)
        emit = self.builder.emit
        both = [p for p in (layer.weight, layer.bias) if p is not None]
        self._sums.append((both, lambda dw, db=None: emit("linear_weight_gradient", (dw, db, delta, x), 0)))

    def norm_gradients(self, node: Node, *maps: Map | None) -> tuple[Map, Map]:
        """Norms now, sums later."""
        layer: Any = node.layer
        own = [self.builder.vector(prod(p.shape)) for p in (layer.weight, layer.bias)]
        self.builder.emit("normalize_gradients", (*own, *maps), ops.bits(layer.eps))
        for p, sums in zip((layer.weight, layer.bias), own, strict=True):
            self._squared(p, sums)
        return Map(1, 1, own[0].channels), Map(1, 1, own[1].channels)

    def _squared(self, parameter: Weight, apart: Map) -> None:
        """A parameter so small that its samples' gradients are kept."""
        self.builder.emit("add_squares", (self._squares, apart))
        self._weighted(parameter, apart)

    def _weighted(self, parameter: Weight, apart: Map) -> None:
        emit = self.builder.emit
        self._sums.append(([parameter], lambda total: emit("weighted_sum", (total, apart, self._factors))))

    def _again(self, kernel: Weight, delta: Map, x: Map, g: Geometry) -> None:
        emit = self.builder.emit
        self._read_scaled(delta)
        self._sums.append(([kernel], lambda dw: emit("conv_weight_gradient", (dw, None, delta, x), *ops.window(g), 0)))

    def _read_scaled(self, delta: Map) -> None:
        self._scaled[delta] = None
        self.holders[delta] += 1  # for good: nobody may write over it


def _cheapest(g: Geometry, kernel: tuple[int, ...], delta: Map, x: Map, builder: Builder) -> str:
    """The cheapest way to a kernel's norms and weighted sum, in what it takes besides the plain weight gradient."""
    costs = {
        "again": kernel_squares_cost(kernel, delta),
        "products": gram_squares_cost(builder, delta, x, g),
    }
    if delta.samples * prod(kernel) * builder.dtype.itemsize <= _MOST_KEPT:
        costs["keep"] = prod(kernel) * _KEEPING
    return min(costs, key=lambda name: costs[name])
