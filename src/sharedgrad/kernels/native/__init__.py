"""Compiled kernels for NumPy arrays of float32 and float64: the names of ``Kernels``, in C++.

Importing this module fails where nothing was compiled; ``kernels.of`` then takes ``vectorized``. What has no
compiled kernel is taken from there too; :data:`FALLBACKS` says what and why.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from sharedgrad.geometry import Geometry
from sharedgrad.kernels import threads, vectorized
from sharedgrad.kernels.memory import empty, empty_like
from sharedgrad.kernels.native import _native
from sharedgrad.kernels.native.program import (
    LARGEST,
    RELU,
    SIGMOID,
    TANH,
    Builder,
    Map,
    Program,
    input_margins,
    served,
    spatial,
    upstream_margins,
    window,
)
from sharedgrad.kernels.vectorized import (
    batch_statistics,
    normalize,
    normalize_backward,
    outer_products,
    pad,
    pad_backward,
    patches,
    patches_backward,
    row_dots,
    row_products,
    row_sums,
    scale_shift,
    window_squares,
)
from sharedgrad.parameter import Array

__all__ = [
    "FALLBACKS",
    "adam",
    "avg_pool",
    "avg_pool_backward",
    "batch_statistics",
    "blocks",
    "blocks_input_gradient",
    "conv",
    "conv_input_gradient",
    "conv_kernel_gradient",
    "conv_kernel_gradients",
    "conv_kernel_squares",
    "cross_entropy",
    "instruction_set",
    "max_pool",
    "max_pool_backward",
    "normalize",
    "normalize_backward",
    "outer_products",
    "outer_sum",
    "pad",
    "pad_backward",
    "patches",
    "patches_backward",
    "relu",
    "relu_backward",
    "row_dots",
    "row_products",
    "row_sums",
    "scale_shift",
    "sgd",
    "sigmoid",
    "sigmoid_backward",
    "softmax",
    "softmax_backward",
    "tanh",
    "tanh_backward",
    "window_squares",
]

Index = tuple[int, ...]
Arrays = list[Array]

FALLBACKS = {
    "batch_statistics, normalize, normalize_backward, scale_shift": "compiled for whole networks only",
    "networks with RNN, LocallyConnected, Concat, Reshape or Softmax layers, Linear over tokens, padding other than "
    "zeros, ties other than 'first' or a layer of your own": "no program for them yet: compiled layer by layer",
    "conv and max_pool with three spatial axes, more than 64 cells along one, or maps beyond 2³⁰": "not compiled yet",
    "max_pool_backward with ties other than 'first'": "a convention for study",
    "pad, pad_backward": "not compiled yet",
    "outer_products, row_dots, row_products, row_sums, window_squares": "questions about uses, not training",
    "patches, patches_backward": "memory moves; NumPy does them as fast",
    "softmax and cross_entropy along another axis than the last": "not compiled yet",
}

threads.on_change(_native.set_threads)


def instruction_set() -> str:
    """The instruction set that was chosen for this processor: avx512, avx2 or baseline."""
    return str(_native.instruction_set())


def _c(array: Array) -> Array:
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


# ---- single operations, each as a program of its own; the whole way of a network is one program (sharedgrad.plan)


def _run(program: Program, *arrays: Array) -> None:
    dtype = arrays[0].dtype
    program.run(np.empty(0, dtype), tuple(map(_c, arrays)))


def _builder(samples: int, dtype: str, _instruction_set: str) -> Builder:
    return Builder(samples, np.dtype(dtype))


def _plain(b: Builder, shape: Index) -> Map:
    """A plain array (N, C, *S) from outside."""
    return b.array(shape[1], *spatial(shape[2:]), samples=shape[0])


def _blocked(b: Builder, source: Map) -> Map:
    """A map that holds what a plain array does."""
    m = b.map(*source.shape)
    b.emit("relayout", (m, source))
    return m


@lru_cache(512)
def _conv_program(kind: tuple[str, str], x: Index, w: Index, bias: bool, g: Geometry) -> Program:
    b = _builder(x[0], *kind)
    small = g.output(x[2:])
    y_out, x_in, w_in = _plain(b, (x[0], w[0], *small)), _plain(b, x), b.array(prod(w))
    b_in = b.array(w[0]) if bias else None
    big, y = _blocked(b, x_in), b.map(*y_out.shape)
    big.reach(input_margins(g, spatial(x[2:]), spatial(small)))
    b.emit("conv", (y, big, w_in, b_in), *window(g), 0)
    b.emit("relayout", (y_out, y))
    return b.build()


@lru_cache(512)
def _input_gradient_program(kind: tuple[str, str], x: Index, dy: Index, w: Index, g: Geometry) -> Program:
    b = _builder(x[0], *kind)
    dx_out, dy_in, w_in = _plain(b, x), _plain(b, dy), b.array(prod(w))
    delta, dx = _blocked(b, dy_in), b.map(*dx_out.shape)
    delta.reach(upstream_margins(g, spatial(x[2:]), spatial(dy[2:])))
    b.emit("conv_input_gradient", (dx, delta, w_in, None), *window(g), 0)
    b.emit("relayout", (dx_out, dx))
    return b.build()


@lru_cache(512)
def _kernel_gradient_program(kind: tuple[str, str], x: Index, dy: Index, g: Geometry, by_sample: bool) -> Program:
    b = _builder(x[0], *kind)
    size = dy[1] * (x[1] // g.groups) * g.cells
    dw, dy_in, x_in = b.array(size * (x[0] if by_sample else 1)), _plain(b, dy), _plain(b, x)
    delta, big = _blocked(b, dy_in), _blocked(b, x_in)
    big.reach(input_margins(g, spatial(x[2:]), spatial(dy[2:])))
    b.emit("conv_weight_gradient", (dw, None, delta, big), *window(g), int(by_sample))
    return b.build()


def _kind(array: Array) -> tuple[str, str]:
    """What a program depends on besides shapes."""
    return array.dtype.char, instruction_set()


def conv(x: Array, w: Array, b: Array | None, g: Geometry) -> Array:
    """y (N, F, *P) from x (N, C, *S) and w (F, C/groups, *K)."""
    if not served(g, x.shape):
        return vectorized.conv(x, w, b, g)
    y = empty((len(x), len(w), *g.output(x.shape[2:])), x.dtype)
    _run(_conv_program(_kind(x), x.shape, w.shape, b is not None, g), y, x, w, *(() if b is None else (b,)))
    return y


def conv_input_gradient(dy: Array, w: Array, g: Geometry, spatial: Index) -> Array:
    """dx (N, C, *S) from dy (N, F, *P)."""
    shape = (len(dy), w.shape[1] * g.groups, *spatial)
    if not served(g, shape):
        return vectorized.conv_input_gradient(dy, w, g, spatial)
    dx = empty(shape, dy.dtype)
    _run(_input_gradient_program(_kind(dy), shape, dy.shape, w.shape, g), dx, dy, w)
    return dx


def conv_kernel_gradients(dy: Array, x: Array, g: Geometry) -> Array:
    """dw kept apart by sample: (N, F, C/groups, *K)."""
    if not served(g, x.shape):
        return vectorized.conv_kernel_gradients(dy, x, g)
    dw = empty((len(dy), dy.shape[1], x.shape[1] // g.groups, *g.kernel), dy.dtype)
    _run(_kernel_gradient_program(_kind(dy), x.shape, dy.shape, g, True), dw, dy, x)
    return dw


@lru_cache(512)
def _kernel_squares_program(kind: tuple[str, str], x: Index, dy: Index, g: Geometry) -> Program:
    b = _builder(x[0], *kind)
    squares, dy_in, x_in = b.array(x[0] * (8 // b.dtype.itemsize)), _plain(b, dy), _plain(b, x)
    delta, big = _blocked(b, dy_in), _blocked(b, x_in)
    big.reach(input_margins(g, spatial(x[2:]), spatial(dy[2:])))
    b.emit("add_kernel_squares", (squares, delta, big, None), *window(g))
    return b.build()


def conv_kernel_squares(dy: Array, x: Array, g: Geometry) -> Array:
    """‖dw[n]‖² (N,) in float64 of each sample's kernel gradient, from the sums that the kernel has in its lanes."""
    if not served(g, x.shape):
        return vectorized.conv_kernel_squares(dy, x, g)
    squares = np.zeros(len(dy))
    _run(_kernel_squares_program(_kind(dy), x.shape, dy.shape, g), squares.view(dy.dtype), dy, x)
    return squares


def conv_kernel_gradient(dy: Array, x: Array, g: Geometry) -> Array:
    """dw (F, C/groups, *K), the sum over all uses."""
    if not served(g, x.shape):
        return vectorized.conv_kernel_gradient(dy, x, g)
    dw = empty((dy.shape[1], x.shape[1] // g.groups, *g.kernel), dy.dtype)
    _run(_kernel_gradient_program(_kind(dy), x.shape, dy.shape, g, False), dw, dy, x)
    return dw


# ---- blocks; with one block this is the dense layer


def blocks(p: Array, w: Array) -> Array:
    """Each block's own matrix times each use's vector: p (*U, B, I), w (B, O, I) -> (*U, B, O)."""
    y = empty((*p.shape[:-1], w.shape[1]), p.dtype)
    _native.blocks(y, _c(p), _c(w), prod(p.shape[:-2]), *w.shape)
    return y


def blocks_input_gradient(delta: Array, w: Array) -> Array:
    """dp = δ · w, block by block."""
    dp = empty((*delta.shape[:-1], w.shape[2]), delta.dtype)
    _native.blocks_input_gradient(dp, _c(delta), _c(w), prod(delta.shape[:-2]), *w.shape)
    return dp


def outer_sum(delta: Array, p: Array, keep: int = 0) -> Array:
    """Σ_u δ[u,b,o] · p[u,b,i] over all but the first ``keep`` use axes: (*kept, B, O, I)."""
    kept, uses = delta.shape[:keep], delta.shape[keep:-2]
    total = empty((*kept, *delta.shape[-2:], p.shape[-1]), delta.dtype)
    _native.outer_sum(total, _c(delta), _c(p), prod(kept), prod(uses), *total.shape[keep:])
    return total


# ---- pooling


@lru_cache(512)
def _pool_program(kind: tuple[str, str], name: str, x: Index, g: Geometry, *numbers: int) -> Program:
    b = _builder(x[0], *kind)
    y_out, x_in = _plain(b, (*x[:2], *g.output(x[2:]))), _plain(b, x)
    y = b.map(*y_out.shape)
    b.emit(name, (y, _blocked(b, x_in)), *window(g), *numbers)
    b.emit("relayout", (y_out, y))
    return b.build()


@lru_cache(512)
def _pool_backward_program(kind: tuple[str, str], name: str, x: Index, g: Geometry, *numbers: int) -> Program:
    b = _builder(x[0], *kind)
    pooled = (*x[:2], *g.output(x[2:]))
    dx_out, dy_in = _plain(b, x), _plain(b, pooled)
    others = [_plain(b, x), _plain(b, pooled)] if name == "max_pool_backward" else []
    dx = b.map(*dx_out.shape)
    b.emit(name, (dx, *(_blocked(b, m) for m in (dy_in, *others))), *window(g), *numbers)
    b.emit("relayout", (dx_out, dx))
    return b.build()


def max_pool(x: Array, g: Geometry) -> Array:
    """The largest input under each window."""
    if not served(g, x.shape):
        return vectorized.max_pool(x, g)
    y = empty((*x.shape[:2], *g.output(x.shape[2:])), x.dtype)
    _run(_pool_program(_kind(x), "max_pool", x.shape, g), y, x)
    return y


def max_pool_backward(dy: Array, x: Array, y: Array, g: Geometry, ties: str) -> Array:
    """dx: the winner of each window gets its upstream gradient."""
    if not served(g, x.shape) or ties != "first":
        return vectorized.max_pool_backward(dy, x, y, g, ties)
    dx = empty(x.shape, dy.dtype)
    _run(_pool_backward_program(_kind(dy), "max_pool_backward", x.shape, g, 0), dx, dy, x, y)
    return dx


def avg_pool(x: Array, g: Geometry, count_padding: bool) -> Array:
    """The mean of each window."""
    if not served(g, x.shape):
        return vectorized.avg_pool(x, g, count_padding)
    y = empty((*x.shape[:2], *g.output(x.shape[2:])), x.dtype)
    _run(_pool_program(_kind(x), "avg_pool", x.shape, g, int(count_padding)), y, x)
    return y


def avg_pool_backward(dy: Array, g: Geometry, spatial: Index, count_padding: bool) -> Array:
    """dx: every cell of a window gets the same part of its upstream gradient."""
    shape = (*dy.shape[:2], *spatial)
    if not served(g, shape):
        return vectorized.avg_pool_backward(dy, g, spatial, count_padding)
    dx = empty(shape, dy.dtype)
    _run(_pool_backward_program(_kind(dy), "avg_pool_backward", shape, g, int(count_padding)), dx, dy)
    return dx


# ---- elementwise


@lru_cache(512)
def _elementwise_program(kind: tuple[str, str], name: str, size: int, activation: int) -> Program:
    b = _builder(1, *kind)
    b.emit(name, tuple(b.array(size) for _ in range(3 if name.endswith("backward") else 2)), activation)
    return b.build()


def _elementwise(name: str, activation: int, fallback: Callable[..., Array]) -> Callable[..., Array]:
    def run(*arrays: Array) -> Array:
        first = arrays[0]
        if not 0 < first.size <= LARGEST:
            return fallback(*arrays)
        result = empty_like(first)
        _run(_elementwise_program(_kind(first), name, first.size, activation), result, *arrays)
        return result

    return run


relu = _elementwise("activate", RELU, vectorized.relu)
relu_backward = _elementwise("activate_backward", RELU, vectorized.relu_backward)
sigmoid = _elementwise("activate", SIGMOID, vectorized.sigmoid)
sigmoid_backward = _elementwise("activate_backward", SIGMOID, vectorized.sigmoid_backward)
tanh = _elementwise("activate", TANH, vectorized.tanh)
tanh_backward = _elementwise("activate_backward", TANH, vectorized.tanh_backward)


# ---- softmax and losses


def softmax(x: Array, axis: int) -> Array:
    """e^x / Σ e^x along the axis, shifted by the largest x."""
    if axis % x.ndim != x.ndim - 1:
        return vectorized.softmax(x, axis)
    y = empty_like(x)
    _native.softmax(y, _c(x), prod(x.shape[:-1]), x.shape[-1])
    return y


def softmax_backward(dy: Array, y: Array, axis: int) -> Array:
    """dx_i = y_i · (dy_i − Σ_j dy_j y_j): every output depends on every input."""
    if axis % y.ndim != y.ndim - 1:
        return vectorized.softmax_backward(dy, y, axis)
    dx = empty_like(y)
    _native.softmax_backward(dx, _c(dy), _c(y), prod(y.shape[:-1]), y.shape[-1])
    return dx


def cross_entropy(scores: Array, labels: Array, smoothing: float, count: float) -> tuple[float, Array]:
    """−Σ t · log p over scores (N, C) and labels (N,), and p − t; both / count."""
    if scores.ndim != 2:
        return vectorized.cross_entropy(scores, labels, smoothing, count)
    upstream = empty_like(scores)
    labels = np.ascontiguousarray(labels, np.int64)
    return _native.cross_entropy(upstream, _c(scores), labels, scores.shape[1], smoothing, count) / count, upstream


# ---- optimizers' steps


def _like(arrays: Arrays) -> Arrays:
    return [empty_like(a) for a in arrays]


def _update(step: Callable[..., None], values: Arrays, gradients: Arrays, kept: list[Arrays], *settings: Any) -> Any:
    """New values, and for each list of arrays in ``kept`` a new one."""
    new, news = _like(values), [_like(values) for _ in kept]
    try:
        step(new, values, gradients, news, kept, *settings)
    except (TypeError, ValueError):  # an array of another type or memory order: rare, so nobody asks first
        given = [
            [np.ascontiguousarray(a, w.dtype).reshape(w.shape) for a, w in zip(arrays, values, strict=True)]
            for arrays in (values, gradients, *kept)
        ]
        step(new, given[0], given[1], news, given[2:], *settings)
    return new, *news


def sgd(
    values: Arrays,
    gradients: Arrays,
    velocities: Arrays,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> tuple[Arrays, Arrays]:
    """Stochastic gradient descent, with momentum where there are velocities."""
    kept = [velocities] if velocities else []
    new, *news = _update(_native.sgd, values, gradients, kept, lr, momentum, weight_decay, nesterov)
    return new, news[0] if news else []


def adam(
    values: Arrays,
    gradients: Arrays,
    means: Arrays,
    squares: Arrays,
    steps: list[int],
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    decoupled: bool,
) -> tuple[Arrays, Arrays, Arrays]:
    """Adam, and with ``decoupled`` weight decay AdamW."""
    settings = (steps, lr, *betas, eps, weight_decay, decoupled)
    return _update(_native.adam, values, gradients, [means, squares], *settings)
