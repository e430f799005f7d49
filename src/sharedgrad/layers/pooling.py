"""Pooling: a window slides like a convolution's, without weights.

    max       y[n,c,o] = max_k x[n,c,s(o,k)]        dx[n,c,i] = Σ_{o: i wins o} dy[n,c,o]
    average   y[n,c,o] = Σ_k x[n,c,s(o,k)] / K      dx[n,c,i] = Σ_{o,k: s(o,k) = i} dy[n,c,o] / K

with s(o,k) = o·stride − padding + k. An input under several windows gets the gradients of all of them, added.
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
from sharedgrad.parameter import Array
from sharedgrad.uses import Uses

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

    def output_shape(self, *shapes: Shape) -> Shape:
        """(C,)."""
        (shape,) = shapes
        self.expect(len(shape) >= 2, "maps of shape channels×positions", shape)
        return shape[:1]
