"""Max and average pooling, each as a compiled program of its own."""

from __future__ import annotations

from functools import lru_cache

from sharedgrad.geometry import Geometry
from sharedgrad.kernels.native.convolution import LARGE
from sharedgrad.kernels.native.fallback import compiled_if
from sharedgrad.kernels.native.program import Program, served, window
from sharedgrad.kernels.native.recycled import empty
from sharedgrad.kernels.native.single import Index, Kind, blocked, builder, kind_of, plain, run
from sharedgrad.parameter import Array


@lru_cache(512)
def _pool_program(kind: Kind, name: str, x: Index, g: Geometry, *numbers: int) -> Program:
    b = builder(x[0], kind)
    y_out, x_in = plain(b, (*x[:2], *g.output(x[2:]))), plain(b, x)
    y = b.map(*y_out.shape)
    b.emit(name, (y, blocked(b, x_in)), *window(g), *numbers)
    b.emit("relayout", (y_out, y))
    return b.build()


@lru_cache(512)
def _pool_backward_program(kind: Kind, name: str, x: Index, g: Geometry, *numbers: int) -> Program:
    b = builder(x[0], kind)
    pooled = (*x[:2], *g.output(x[2:]))
    dx_out, dy_in = plain(b, x), plain(b, pooled)
    others = [plain(b, x), plain(b, pooled)] if name == "max_pool_backward" else []
    dx = b.map(*dx_out.shape)
    b.emit(name, (dx, *(blocked(b, m) for m in (dy_in, *others))), *window(g), *numbers)
    b.emit("relayout", (dx_out, dx))
    return b.build()


@compiled_if(lambda x, g: served(g, x.shape), LARGE)
def max_pool(x: Array, g: Geometry) -> Array:
    """The largest input under each window."""
    y = empty((*x.shape[:2], *g.output(x.shape[2:])), x.dtype)
    run(_pool_program(kind_of(x), "max_pool", x.shape, g), y, x)
    return y


@compiled_if(lambda dy, x, y, g, ties: ties == "first", "ties other than 'first', a convention for study")
@compiled_if(lambda dy, x, y, g, ties: served(g, x.shape), LARGE)
def max_pool_backward(dy: Array, x: Array, y: Array, g: Geometry, ties: str) -> Array:
    """dx: the winner of each window gets its upstream gradient."""
    dx = empty(x.shape, dy.dtype)
    run(_pool_backward_program(kind_of(dy), "max_pool_backward", x.shape, g, 0), dx, dy, x, y)
    return dx


@compiled_if(lambda x, g, count_padding: served(g, x.shape), LARGE)
def avg_pool(x: Array, g: Geometry, count_padding: bool) -> Array:
    """The mean of each window."""
    y = empty((*x.shape[:2], *g.output(x.shape[2:])), x.dtype)
    run(_pool_program(kind_of(x), "avg_pool", x.shape, g, int(count_padding)), y, x)
    return y


@compiled_if(lambda dy, g, spatial, count_padding: served(g, (*dy.shape[:2], *spatial)), LARGE)
def avg_pool_backward(dy: Array, g: Geometry, spatial: Index, count_padding: bool) -> Array:
    """dx: every cell of a window gets the same part of its upstream gradient."""
    shape = (*dy.shape[:2], *spatial)
    dx = empty(shape, dy.dtype)
    run(_pool_backward_program(kind_of(dy), "avg_pool_backward", shape, g, int(count_padding)), dx, dy)
    return dx
