"""Layers that move numbers without changing them; backward moves the gradients back."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from sharedgrad.geometry import text, whole
from sharedgrad.layers.context import Context
from sharedgrad.layers.layer import Layer, Shape
from sharedgrad.layers.terms import Cells, chosen_cells, factors
from sharedgrad.parameter import Array
from sharedgrad.uses import Uses
from sharedgrad.uses.terms import Terms


class _Shaping(Layer):
    """The same numbers in the same row-major order, in another shape."""

    def input_terms(self, saved: Any, upstream: Array, which: int = 0, cells: Cells = None) -> Terms:
        """dy itself, one term a cell."""
        here = chosen_cells(saved, cells, self.label)
        return Terms("dx", saved, here, factors({"dy": (upstream, here)}))

    def output_terms(self, *inputs: Array, cells: Cells = None) -> Terms:
        """x itself, one term a cell."""
        (x,) = inputs
        shape = (len(x), *self.output_shape(x.shape[1:]))
        here = chosen_cells(shape, cells, self.label)
        return Terms("y", shape, here, factors({"x": (x, here)}))


class Flatten(_Shaping):
    """Each sample as one vector in row-major order: x (N, *S) -> y (N, |S|)."""

    def forward(self, *inputs: Array, context: Context) -> tuple[Array, Any]:
        """x (N, *S) -> (N, |S|)."""
        (x,) = inputs
        return x.reshape(len(x), -1), x.shape

    def backward(
        self, saved: Any, upstream: Array, needs: Sequence[bool]
    ) -> tuple[tuple[Array | None, ...], list[Uses]]:
        """dy in the input's shape."""
        return (upstream.reshape(saved),), []

    def output_shape(self, *shapes: Shape) -> Shape:
        """(|S|,)."""
        return (prod(shapes[0]),)


class Reshape(_Shaping):
    """Each sample in another shape with as many elements: x (N, *S) -> y (N, *shape).

    Args:
        shape: The new shape without the sample axis.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(whole(n, "Reshape: shape") for n in shape)

    def forward(self, *inputs: Array, context: Context) -> tuple[Array, Any]:
        """x (N, *S) -> (N, *shape)."""
        (x,) = inputs
        return x.reshape(len(x), *self.shape), x.shape

    def backward(
        self, saved: Any, upstream: Array, needs: Sequence[bool]
    ) -> tuple[tuple[Array | None, ...], list[Uses]]:
        """dy in the input's shape."""
        return (upstream.reshape(saved),), []

    def output_shape(self, *shapes: Shape) -> Shape:
        """The new shape."""
        (shape,) = shapes
        elements = prod(self.shape)
        self.expect(prod(shape) == elements, f"{elements} elements for the shape {text(self.shape)}", shape)
        return self.shape
