"""Layers with several inputs.

Add      y = x₁ + x₂ + …          dx_i = dy
Concat   y = [x₁ | x₂ | …]        dx_i = the part of dy that came from x_i
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any

import numpy as np

from sharedgrad.errors import ConfigError, ShapeError
from sharedgrad.geometry import text, whole
from sharedgrad.layers.context import Context
from sharedgrad.layers.layer import Layer, Shape
from sharedgrad.layers.terms import Cells, chosen_cells, expanded, factors
from sharedgrad.parameter import Array
from sharedgrad.uses import Uses
from sharedgrad.uses.terms import ABSENT, Terms


class Add(Layer):
    """The sum of arrays of one shape (the end of a residual block)."""

    def forward(self, *inputs: Array, context: Context) -> tuple[Array, Any]:
        """y = x₁ + x₂ + …."""
        return reduce(add, inputs), len(inputs)

    def backward(
        self, saved: Any, upstream: Array, needs: Sequence[bool]
    ) -> tuple[tuple[Array | None, ...], list[Uses]]:
        """Every input gets the whole upstream gradient."""
        return (upstream,) * saved, []

    def input_terms(self, saved: Any, upstream: Array, which: int = 0, cells: Cells = None) -> Terms:
        """dy itself, one term a cell, whichever the input."""
        _expect_input(self, which, saved)
        here = chosen_cells(upstream.shape, cells, self.label)
        return Terms("dx", upstream.shape, here, factors({"dy": (upstream, here)}))

    def output_terms(self, *inputs: Array, cells: Cells = None) -> Terms:
        """x₁, x₂, …: for each cell one term an input."""
        shape = inputs[0].shape
        here = chosen_cells(shape, cells, self.label)
        row, source = expanded(np.full(len(here), len(inputs)), self.label)
        named = {f"x{i + 1}": (x, np.where(source == i, here[row], ABSENT)) for i, x in enumerate(inputs)}
        return Terms("y", shape, here[row], factors(named))

    def output_shape(self, *shapes: Shape) -> Shape:
        """The common shape."""
        if len(shapes) < 2 or any(shape != shapes[0] for shape in shapes):
            got = " and ".join(map(text, shapes))
            raise ShapeError(self.label, f"expected two or more inputs of one shape, got {got}")
        return shapes[0]


class Concat(Layer):
    """Arrays side by side along one axis.

    Args:
        axis: The axis, counted with the sample axis as 0; 1 are the channels.
    """

    def __init__(self, axis: int = 1) -> None:
        self.axis = whole(axis, "Concat: axis", least=None)
        if axis == 0:
            raise ConfigError("Concat: axis", "expected an axis other than the sample axis 0")

    def forward(self, *inputs: Array, context: Context) -> tuple[Array, Any]:
        """y = [x₁ | x₂ | …]."""
        ends = np.cumsum([0, *(x.shape[self.axis] for x in inputs)])
        return np.concatenate(inputs, self.axis), ends

    def backward(
        self, saved: Any, upstream: Array, needs: Sequence[bool]
    ) -> tuple[tuple[Array | None, ...], list[Uses]]:
        """Each input gets back its own part."""
        parts = np.moveaxis(upstream, self.axis, 0)
        back = (np.moveaxis(parts[start:end], 0, self.axis) for start, end in pairwise(saved))
        return tuple(np.ascontiguousarray(part) for part in back), []

    def input_terms(self, saved: Any, upstream: Array, which: int = 0, cells: Cells = None) -> Terms:
        """dy at the place that the cell was put, one term a cell."""
        _expect_input(self, which, len(saved) - 1)
        start, end = saved[which : which + 2]
        shape = list(upstream.shape)
        shape[self.axis] = end - start
        here = chosen_cells(tuple(shape), cells, self.label)
        there = _shifted(here, tuple(shape), self.axis, start, upstream.shape)
        return Terms("dx", tuple(shape), here, factors({"dy": (upstream, there)}))

    def output_terms(self, *inputs: Array, cells: Cells = None) -> Terms:
        """The x that the cell came from, one term a cell."""
        shape = (len(inputs[0]), *self.output_shape(*(x.shape[1:] for x in inputs)))
        here = chosen_cells(shape, cells, self.label)
        ends = np.cumsum([0, *(x.shape[self.axis] for x in inputs)])
        sources = [_shifted(here, shape, self.axis, -start, x.shape) for x, start in zip(inputs, ends, strict=False)]
        named = {f"x{i + 1}": (x, source) for i, (x, source) in enumerate(zip(inputs, sources, strict=True))}
        return Terms("y", shape, here, factors(named))

    def output_shape(self, *shapes: Shape) -> Shape:
        """The shapes' common part, with the lengths along the axis added."""
        number = self.axis - 1 if self.axis > 0 else self.axis
        others = {(len(s), *s[:number], *s[number:][1:]) for s in shapes if -len(s) <= number < len(s)}
        if len(shapes) < 2 or len(others) != 1 or any(not -len(s) <= number < len(s) for s in shapes):
            got = " and ".join(map(text, shapes))
            raise ShapeError(self.label, f"expected inputs that differ along axis {self.axis} alone, got {got}")
        joined = list(shapes[0])
        joined[number] = sum(s[number] for s in shapes)
        return tuple(joined)


def _shifted(cells: Array, shape: Shape, axis: int, by: int, other: Shape) -> Array:
    """Flat indices into another array whose cells lie ``by`` further along an axis; ABSENT outside it."""
    place = list(np.unravel_index(cells, shape))
    place[axis] = place[axis] + by
    inside = (place[axis] >= 0) & (place[axis] < other[axis])
    return np.where(inside, np.ravel_multi_index(tuple(place), other, mode="clip"), ABSENT)


def _expect_input(layer: Layer, which: int, count: int) -> None:
    if not 0 <= which < count:
        raise ConfigError(layer.label, f"expected which=0 to {count - 1}, the number of an input, got {which}")
