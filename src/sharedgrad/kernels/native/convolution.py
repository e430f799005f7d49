"""Convolution and its two gradients, each as a compiled program of its own."""

from __future__ import annotations

from functools import lru_cache
from math import inf, prod

import numpy as np

from sharedgrad.geometry import Geometry
from sharedgrad.kernels.native.fallback import compiled_if
from sharedgrad.kernels.native.maps import LARGEST, Map
from sharedgrad.kernels.native.program import (
    Builder,
    Program,
    axes,
    input_margins,
    served,
    spatial,
    upstream_margins,
    window,
)
from sharedgrad.kernels.native.recycled import empty
from sharedgrad.kernels.native.single import Index, Kind, blocked, builder, kind_of, plain, run
from sharedgrad.kernels.native.windows import MOST_CELLS, Window
from sharedgrad.parameter import Array

LARGE = (
    f"windows with three spatial axes or more than {MOST_CELLS} cells along one, maps beyond {LARGEST:,} cells or "
    "without any"
)

_MOST_PRODUCTS = 1 << 20  # bytes of inner products that a thread holds
_INNER = 2.3  # an inner product's time beside a convolution's multiplication, measured


@lru_cache(512)
def _conv_program(kind: Kind, x: Index, w: Index, bias: bool, g: Geometry) -> Program:
    b = builder(x[0], kind)
    small = g.output(x[2:])
    y_out, x_in, w_in = plain(b, (x[0], w[0], *small)), plain(b, x), b.array(prod(w))
    b_in = b.array(w[0]) if bias else None
    if Window(*window(g)).convolves(y_out, x_in):  # plain arrays, as they lie
        b.emit("conv", (y_out, x_in, w_in, b_in, None), *window(g), 0)
        return b.build()
    big, y = blocked(b, x_in), b.map(*y_out.shape)
    big.widen(input_margins(g, spatial(x[2:]), spatial(small)))
    b.emit("conv", (y, big, w_in, b_in, None), *window(g), 0)
    b.emit("relayout", (y_out, y))
    return b.build()


@lru_cache(512)
def _input_gradient_program(kind: Kind, x: Index, dy: Index, w: Index, g: Geometry) -> Program:
    b = builder(x[0], kind)
    dx_out, dy_in, w_in = plain(b, x), plain(b, dy), b.array(prod(w))
    if Window(*window(g)).slides_back(dx_out, dy_in):
        b.emit("conv_input_gradient", (dx_out, dy_in, w_in, None), *window(g), 0)
        return b.build()
    delta, dx = blocked(b, dy_in), b.map(*dx_out.shape)
    delta.widen(upstream_margins(g, spatial(x[2:]), spatial(dy[2:])))
    b.emit("conv_input_gradient", (dx, delta, w_in, None), *window(g), 0)
    b.emit("relayout", (dx_out, dx))
    return b.build()


@lru_cache(512)
def _kernel_gradient_program(kind: Kind, x: Index, dy: Index, g: Geometry, by_sample: bool) -> Program:
    b = builder(x[0], kind)
    size = dy[1] * (x[1] // g.groups) * g.cells
    dw, dy_in, x_in = b.array(size * (x[0] if by_sample else 1)), plain(b, dy), plain(b, x)
    if Window(*window(g)).convolves(dy_in, x_in) and not by_sample:
        b.emit("conv_weight_gradient", (dw, None, dy_in, x_in), *window(g), 0)
        return b.build()
    delta, big = blocked(b, dy_in), blocked(b, x_in)
    big.widen(input_margins(g, spatial(x[2:]), spatial(dy[2:])))
    b.emit("conv_weight_gradient", (dw, None, delta, big), *window(g), int(by_sample))
    return b.build()


def kernel_squares_cost(kernel: Index, delta: Map) -> float:
    """Multiplications of vectors for the norms of the samples' gradients of a kernel (F, C/groups, *K), from sums."""
    return float(prod(kernel) * delta.height * delta.width)


def gram_squares_cost(b: Builder, delta: Map, x: Map, g: Geometry) -> float:
    """As many, as measured, from inner products between the cells of dy (N, F, *P) and those of x (N, C, *S).

    ‖dw‖² = Σ_{u,v} (δ_u·δ_v)(p_u·p_v); infinite where a thread's memory would be too large.
    """
    held = (x.height * x.width**2 + delta.width**2) * delta.lanes * b.dtype.itemsize
    if held > _MOST_PRODUCTS:
        return inf
    stride = axes(g)[1][0]
    rows = range(0, delta.height * stride, stride)
    pairs = sum(max(0, x.height - apart) for apart in rows) * x.width**2 * x.channels
    pairs += delta.height * (delta.height + 1) // 2 * delta.width**2 * delta.channels
    return pairs * _INNER


@lru_cache(512)
def _kernel_squares_program(kind: Kind, x: Index, dy: Index, g: Geometry) -> Program:
    b = builder(x[0], kind)
    squares, dy_in, x_in = b.array(x[0] * (8 // b.dtype.itemsize)), plain(b, dy), plain(b, x)
    delta, big = blocked(b, dy_in), blocked(b, x_in)
    big.widen(input_margins(g, spatial(x[2:]), spatial(dy[2:])))
    kernel = (dy[1], x[1] // g.groups, *g.kernel)
    if b.by_channel:
        apart = b.vector(prod(kernel))
        b.emit("conv_weight_gradient", (apart, None, delta, big), *window(g), 1)
        b.emit("add_squares", (squares, apart))
    elif gram_squares_cost(b, delta, big, g) < kernel_squares_cost(kernel, delta):
        b.emit("add_gram_squares", (squares, delta, big), *window(g))
    else:
        b.emit("add_kernel_squares", (squares, delta, big, None), *window(g))
    return b.build()


def _input_shape(dy: Array, w: Array, g: Geometry, spatial: Index) -> Index:
    return (len(dy), w.shape[1] * g.groups, *spatial)


@compiled_if(lambda x, w, b, g: served(g, x.shape), LARGE)
def conv(x: Array, w: Array, b: Array | None, g: Geometry) -> Array:
    """y (N, F, *P) from x (N, C, *S) and w (F, C/groups, *K)."""
    y = empty((len(x), len(w), *g.output(x.shape[2:])), x.dtype)
    run(_conv_program(kind_of(x), x.shape, w.shape, b is not None, g), y, x, w, *(() if b is None else (b,)))
    return y


@compiled_if(lambda dy, w, g, spatial: served(g, _input_shape(dy, w, g, spatial)), LARGE)
def conv_input_gradient(dy: Array, w: Array, g: Geometry, spatial: Index) -> Array:
    """dx (N, C, *S) from dy (N, F, *P)."""
    shape = _input_shape(dy, w, g, spatial)
    dx = empty(shape, dy.dtype)
    run(_input_gradient_program(kind_of(dy), shape, dy.shape, w.shape, g), dx, dy, w)
    return dx


@compiled_if(lambda dy, x, g: served(g, x.shape), LARGE)
def conv_kernel_gradients(dy: Array, x: Array, g: Geometry) -> Array:
    """dw kept apart by sample: (N, F, C/groups, *K)."""
    dw = empty((len(dy), dy.shape[1], x.shape[1] // g.groups, *g.kernel), dy.dtype)
    run(_kernel_gradient_program(kind_of(dy), x.shape, dy.shape, g, True), dw, dy, x)
    return dw


@compiled_if(lambda dy, x, g: served(g, x.shape), LARGE)
def conv_kernel_gradient(dy: Array, x: Array, g: Geometry) -> Array:
    """dw (F, C/groups, *K), the sum over all uses."""
    dw = empty((dy.shape[1], x.shape[1] // g.groups, *g.kernel), dy.dtype)
    run(_kernel_gradient_program(kind_of(dy), x.shape, dy.shape, g, False), dw, dy, x)
    return dw


@compiled_if(lambda dy, x, g: served(g, x.shape), LARGE)
def conv_kernel_squares(dy: Array, x: Array, g: Geometry) -> Array:
    """‖dw[n]‖² (N,) in float64 of each sample's kernel gradient, from the sums that the kernel has in its lanes."""
    squares = np.zeros(len(dy))
    run(_kernel_squares_program(kind_of(dy), x.shape, dy.shape, g), squares.view(dy.dtype), dy, x)
    return squares
