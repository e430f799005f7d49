"""Pooling: a window slides like a convolution's, without weights.

    max       y[n,c,o] = max_k x[n,c,s(o,k)]        dx[n,c,i] = Σ_{o: i wins o} dy[n,c,o]
    average   y[n,c,o] = Σ_k x[n,c,s(o,k)] / K      dx[n,c,i] = Σ_{o,k: s(o,k) = i} dy[n,c,o] / K

with s(o,k) = o·stride − padding + k. An input under several windows gets the gradients of all of them, added. For the
maximum NaN is larger than all numbers and equals NaN, so it is seen on both ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, ClassVar

import numpy as np

from sharedgrad import kernels
from sharedgrad.errors import ConfigError
from sharedgrad.geometry import Geometry, Ints, Padding
from sharedgrad.layers.context import Context
from sharedgrad.layers.layer import Layer, Shape
from sharedgrad.layers.terms import Cells, Meetings, Windows, chosen_cells, factors
from sharedgrad.parameter import Array
from sharedgrad.uses import Uses
from sharedgrad.uses.terms import Terms

TIES = ("first", "last", "share")


class _Pool(Layer):
    """A window over maps (C, *S); its stride is its size unless said otherwise."""

    rank: ClassVar[int]

    def _slide(self, kernel_size: Ints, stride: Ints | None, padding: Padding) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        kind = type(self).__name__
        step = kernel_size if stride is None else stride
        self.geometry = Geometry.of(self.rank, kernel_size, step, padding, where=kind)
        for size, pair in zip(self.geometry.kernel, self.geometry.padding, strict=True):
            if max(pair) >= size:
                raise ConfigError(
                    f"{kind}: padding",
                    f"expected less than the window's {size}, got {max(pair)}: a window would see padding alone",
                )

    def output_shape(self, *shapes: Shape) -> Shape:
        """(C, *positions)."""
        (shape,) = shapes
        axes = "channels×" + ("length" if self.rank == 1 else "height×width")
        self.expect(len(shape) == self.rank + 1, f"maps of shape {axes}", shape)
        return (shape[0], *self.geometry.output(shape[1:], self.label))

    def _windows(self, shape: Shape) -> Windows:
        """Where the window meets an input of this shape (N, C, *S)."""
        return _each_channel(self.geometry.sources(shape[2:]), shape, self.label)


def _each_channel(sources: Array, shape: Shape, where: str) -> Windows:
    """Windows over every channel on its own."""
    return Windows(sources, shape, shape[1], shape[1], where)


class _MaxPool(_Pool):
    def __init__(
        self, kernel_size: Ints, stride: Ints | None = None, padding: Padding = 0, ties: str = "first"
    ) -> None:
        self._slide(kernel_size, stride, padding)
        self.ties = ties
        if ties not in TIES:
            raise ConfigError(f"{type(self).__name__}: ties", f"expected one of {', '.join(TIES)}, got {ties!r}")

    def forward(self, *inputs: Array, context: Context) -> tuple[Array, Any]:
        """The largest input of each window."""
        (x,) = inputs
        y = kernels.of(x).max_pool(x, self.geometry)
        return y, (x, y)

    def backward(
        self, saved: Any, upstream: Array, needs: Sequence[bool]
    ) -> tuple[tuple[Array | None, ...], list[Uses]]:
        """The whole upstream gradient of a window goes to its winner."""
        x, y = saved
        k = kernels.of(upstream)
        return (k.max_pool_backward(upstream, x, y, self.geometry, self.ties) if needs[0] else None,), []

    def input_terms(self, saved: Any, upstream: Array, which: int = 0, cells: Cells = None) -> Terms:
        """dy of every window that the cell has won; the coefficient is 1, or 1 / winners if they share."""
        x, y = saved
        chosen = chosen_cells(x.shape, cells, self.label)
        covering = np.unique(self._windows(x.shape).of_inputs(chosen).y)
        met, part = self._winners(x, y, covering)
        asked = np.isin(met.x, chosen)
        dy = {"dy": (upstream, met.y[asked])}
        return Terms("dx", x.shape, met.x[asked], factors(dy), part[asked].astype(upstream.dtype))

    def output_terms(self, *inputs: Array, cells: Cells = None) -> Terms:
        """The winning x; among winners that share, each over their number."""
        (x,) = inputs
        y = kernels.of(x).max_pool(x, self.geometry)
        met, part = self._winners(x, y, chosen_cells(y.shape, cells, self.label))
        return Terms("y", y.shape, met.y, factors({"x": (x, met.x)}), part.astype(x.dtype))

    def _winners(self, x: Array, y: Array, windows: Array) -> tuple[Meetings, Array]:
        """Where these windows meet their winners, and which part of the gradient each winner gets."""
        met = self._windows(x.shape).of_outputs(windows)
        cell = x.reshape(-1)[met.x]
        largest = np.flatnonzero((met.x >= 0) & ((cell == y.reshape(-1)[met.y]) | np.isnan(cell)))
        if self.ties == "last":
            largest = largest[::-1]
        _, first, window, winners = np.unique(
            met.y[largest], return_index=True, return_inverse=True, return_counts=True
        )
        won = largest if self.ties == "share" else np.sort(largest[first])
        part = 1 / winners[window] if self.ties == "share" else np.ones(len(won))
        return Meetings(*(index[won] for index in met)), part


class _AvgPool(_Pool):
    def __init__(
        self,
        kernel_size: Ints,
        stride: Ints | None = None,
        padding: Padding = 0,
        count_include_pad: bool = True,
    ) -> None:
        self._slide(kernel_size, stride, padding)
        self.count_include_pad = count_include_pad

    def forward(self, *inputs: Array, context: Context) -> tuple[Array, Any]:
        """The mean of each window."""
        (x,) = inputs
        return kernels.of(x).avg_pool(x, self.geometry, self.count_include_pad), x.shape[2:]

    def backward(
        self, saved: Any, upstream: Array, needs: Sequence[bool]
    ) -> tuple[tuple[Array | None, ...], list[Uses]]:
        """Every cell of a window gets the same part of its upstream gradient."""
        k = kernels.of(upstream)
        dx = k.avg_pool_backward(upstream, self.geometry, saved, self.count_include_pad) if needs[0] else None
        return (dx,), []

    def input_terms(self, saved: Any, upstream: Array, which: int = 0, cells: Cells = None) -> Terms:
        """dy / K for every window that covers the cell."""
        windows = self._windows((*upstream.shape[:2], *saved))
        return _mean_input_terms(windows, self._parts(windows), upstream, cells)

    def output_terms(self, *inputs: Array, cells: Cells = None) -> Terms:
        """x / K for everything under the window, padding included."""
        (x,) = inputs
        output, windows = self.output_shape(x.shape[1:]), self._windows(x.shape)
        return _mean_output_terms(windows, self._parts(windows), x, output, cells)

    def _parts(self, windows: Windows) -> Array:
        """1 / K for each position: all cells count, or those that lie in the input."""
        counted = windows.sources >= (-1 if self.count_include_pad else 0)
        return np.asarray(1 / counted.sum(axis=1))


def _mean_input_terms(windows: Windows, parts: Array, upstream: Array, cells: Cells) -> Terms:
    met = windows.of_inputs(chosen_cells(windows.shape, cells, windows.where))
    part = parts[met.position].astype(upstream.dtype)
    return Terms("dx", windows.shape, met.x, factors({"dy": (upstream, met.y)}), part)


def _mean_output_terms(windows: Windows, parts: Array, x: Array, output: Shape, cells: Cells) -> Terms:
    shape = (len(x), *output)
    met = windows.of_outputs(chosen_cells(shape, cells, windows.where))
    return Terms("y", shape, met.y, factors({"x": (x, met.x)}), parts[met.position].astype(x.dtype))


class MaxPool1d(_MaxPool):
    """Max pooling over signals (N, C, L).

    Args:
        kernel_size: Size of the window.
        stride: Distance between windows; the window's size if None.
        padding: Cells around the input that never win.
        ties: Who wins among equals: "first" or "last" in row-major order, or "share" the gradient equally.
    """

    rank = 1


class MaxPool2d(_MaxPool):
    """Max pooling over images (N, C, H, W). Arguments as for :class:`MaxPool1d`."""

    rank = 2


class AvgPool1d(_AvgPool):
    """Average pooling over signals (N, C, L).

    Args:
        kernel_size: Size of the window.
        stride: Distance between windows; the window's size if None.
        padding: Zeros around the input.
        count_include_pad: Whether the padding counts in the divisor.
    """

    rank = 1


class AvgPool2d(_AvgPool):
    """Average pooling over images (N, C, H, W). Arguments as for :class:`AvgPool1d`."""

    rank = 2


class GlobalAvgPool(Layer):
    """The mean of each map: x (N, C, *S) -> y (N, C).

    y[n,c] = Σ_s x[n,c,s] / |S|        dx[n,c,s] = dy[n,c] / |S|
    """

    def forward(self, *inputs: Array, context: Context) -> tuple[Array, Any]:
        """x (N, C, *S) -> y (N, C)."""
        (x,) = inputs
        return x.reshape(*x.shape[:2], -1).mean(axis=2), x.shape

    def backward(
        self, saved: Any, upstream: Array, needs: Sequence[bool]
    ) -> tuple[tuple[Array | None, ...], list[Uses]]:
        """dy (N, C) -> dx (N, C, *S)."""
        part = upstream / upstream.dtype.type(prod(saved[2:]))
        return (np.broadcast_to(part.reshape(*part.shape, *(1,) * len(saved[2:])), saved).copy(),), []

    def input_terms(self, saved: Any, upstream: Array, which: int = 0, cells: Cells = None) -> Terms:
        """dy / |S|, one term a cell."""
        windows = self._whole_maps(saved)
        return _mean_input_terms(windows, np.array([1 / prod(saved[2:])]), upstream, cells)

    def output_terms(self, *inputs: Array, cells: Cells = None) -> Terms:
        """x / |S| for every cell of the map."""
        (x,) = inputs
        windows = self._whole_maps(x.shape)
        return _mean_output_terms(windows, np.array([1 / prod(x.shape[2:])]), x, x.shape[1:2], cells)

    def _whole_maps(self, shape: Shape) -> Windows:
        """One window as large as the map."""
        return _each_channel(np.arange(prod(shape[2:]))[None], shape, self.label)

    def output_shape(self, *shapes: Shape) -> Shape:
        """(C,)."""
        (shape,) = shapes
        self.expect(len(shape) >= 2, "maps of shape channels×positions", shape)
        return shape[:1]
