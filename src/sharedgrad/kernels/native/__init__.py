"""Compiled kernels for NumPy arrays of float32 and float64: the names of ``Kernels``, in C++.

Importing this module fails where nothing was compiled; ``kernels.of`` then takes ``vectorized``. What has no
compiled kernel is taken from there too; :data:`FALLBACKS` says what and why.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from sharedgrad.geometry import Geometry
from sharedgrad.kernels import threads, vectorized
from sharedgrad.kernels.memory import empty, empty_like
from sharedgrad.kernels.native import _native
from sharedgrad.kernels.vectorized import (
    avg_pool,
    avg_pool_backward,
    pad,
    pad_backward,
    patches,
    patches_backward,
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
    "cross_entropy",
    "instruction_set",
    "max_pool",
    "max_pool_backward",
    "normalize",
    "normalize_backward",
    "outer_sum",
    "pad",
    "pad_backward",
    "patches",
    "patches_backward",
    "relu",
    "relu_backward",
    "scale_shift",
    "sgd",
    "sigmoid",
    "sigmoid_backward",
    "softmax",
    "softmax_backward",
    "tanh",
    "tanh_backward",
]

Index = tuple[int, ...]
Arrays = list[Array]

FALLBACKS = {
    "avg_pool, avg_pool_backward": "not compiled yet",
    "conv and max_pool with three spatial axes, more than 64 cells along one, or maps beyond 2³⁰": "not compiled yet",
    "conv with fewer than 4 samples": "faster there",
    "max_pool_backward with ties other than 'first'": "a convention for study",
    "pad, pad_backward": "not compiled yet",
    "patches, patches_backward": "memory moves; NumPy does them as fast",
    "softmax and cross_entropy along another axis than the last": "not compiled yet",
}

FEW_SAMPLES = 4  # with fewer most lanes of a vector are empty, and NumPy's convolutions are faster
_LARGEST = 1 << 30  # as in module.cpp

threads.on_change(_native.set_threads)


def instruction_set() -> str:
    """The instruction set that was chosen for this processor: avx512, avx2 or baseline."""
    return str(_native.instruction_set())


def _c(array: Array) -> Array:
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _served(g: Geometry, x: Index) -> bool:
    """Whether the compiled code computes this for maps of shape x; it counts in 32 bits."""
    padded = g.padded(x[2:])
    small = prod(padded) <= _LARGEST and max(*x, *g.stride, *g.dilation) <= _LARGEST
    return g.rank <= 2 and max(g.kernel) <= 64 and min(x) > 0 and small


def _numbers(g: Geometry, x: Index, y: Index) -> tuple[int, ...]:
    """The geometry between maps of shapes x and y, as the compiled kernels take it: with two spatial axes."""
    one, zero = (1,) * (2 - g.rank), (0,) * (2 - g.rank)
    before = (pair[0] for pair in g.padding)
    windows = (*one, *g.kernel, *one, *g.stride, *zero, *before, *one, *g.dilation)
    return (*x[:2], *one, *x[2:], y[1], *windows, g.groups, *one, *y[2:])


# ---- convolution


def conv(x: Array, w: Array, b: Array | None, g: Geometry) -> Array:
    """y (N, F, *P) from x (N, C, *S) and w (F, C/groups, *K)."""
    if len(x) < FEW_SAMPLES or not _served(g, x.shape):
        return vectorized.conv(x, w, b, g)
    y = empty((len(x), len(w), *g.output(x.shape[2:])), x.dtype)
    _native.conv(y, _c(x), _c(w), None if b is None else _c(b), *_numbers(g, x.shape, y.shape))
    return y


def conv_input_gradient(dy: Array, w: Array, g: Geometry, spatial: Index) -> Array:
    """dx (N, C, *S) from dy (N, F, *P)."""
    shape = (len(dy), w.shape[1] * g.groups, *spatial)
    if len(dy) < FEW_SAMPLES or not _served(g, shape):
        return vectorized.conv_input_gradient(dy, w, g, spatial)
    dx = empty(shape, dy.dtype)
    _native.conv_input_gradient(dx, _c(dy), _c(w), *_numbers(g, dx.shape, dy.shape))
    return dx


def conv_kernel_gradients(dy: Array, x: Array, g: Geometry) -> Array:
    """dw kept apart by sample: (N, F, C/groups, *K)."""
    if len(x) < FEW_SAMPLES or not _served(g, x.shape):
        return vectorized.conv_kernel_gradients(dy, x, g)
    dw = empty((len(dy), dy.shape[1], x.shape[1] // g.groups, *g.kernel), dy.dtype)
    _native.conv_kernel_gradient(dw, _c(dy), _c(x), *_numbers(g, x.shape, dy.shape), 1)
    return dw


def conv_kernel_gradient(dy: Array, x: Array, g: Geometry) -> Array:
    """dw (F, C/groups, *K), the sum over all uses."""
    if len(x) < FEW_SAMPLES or not _served(g, x.shape):
        return vectorized.conv_kernel_gradient(dy, x, g)
    dw = empty((dy.shape[1], x.shape[1] // g.groups, *g.kernel), dy.dtype)
    _native.conv_kernel_gradient(dw, _c(dy), _c(x), *_numbers(g, x.shape, dy.shape), 0)
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


# ---- max pooling


def max_pool(x: Array, g: Geometry) -> Array:
    """The largest input under each window."""
    if not _served(g, x.shape):
        return vectorized.max_pool(x, g)
    y = empty((*x.shape[:2], *g.output(x.shape[2:])), x.dtype)
    _native.max_pool(y, _c(x), *_numbers(g, x.shape, y.shape))
    return y


def max_pool_backward(dy: Array, x: Array, y: Array, g: Geometry, ties: str) -> Array:
    """dx: the winner of each window gets its upstream gradient."""
    if not _served(g, x.shape) or ties != "first":
        return vectorized.max_pool_backward(dy, x, y, g, ties)
    dx = empty(x.shape, dy.dtype)
    _native.max_pool_backward(dx, _c(dy), _c(x), _c(y), *_numbers(g, x.shape, y.shape))
    return dx


# ---- elementwise


def _elementwise(compiled: Callable[..., None]) -> Callable[..., Array]:
    def run(*arrays: Array) -> Array:
        result = empty_like(arrays[0])
        compiled(result, *map(_c, arrays))
        return result

    return run


sigmoid = _elementwise(_native.sigmoid)
sigmoid_backward = _elementwise(_native.sigmoid_backward)
tanh = _elementwise(_native.tanh)
tanh_backward = _elementwise(_native.tanh_backward)
relu = _elementwise(_native.relu)
relu_backward = _elementwise(_native.relu_backward)


# ---- batch normalization


def _maps(x: Array) -> tuple[int, int, int]:
    return len(x), x.shape[1], prod(x.shape[2:])


def batch_statistics(x: Array) -> tuple[Array, Array]:
    """Mean and (biased) variance of each channel."""
    mean, variance = empty(x.shape[1:2], x.dtype), empty(x.shape[1:2], x.dtype)
    _native.batch_statistics(mean, variance, _c(x), *_maps(x))
    return mean, variance


def normalize(x: Array, mean: Array, inverse_std: Array) -> Array:
    """(x − mean) · inverse_std, channel by channel."""
    y = empty_like(x)
    _native.normalize(y, _c(x), _c(mean), _c(inverse_std), *_maps(x))
    return y


def scale_shift(x: Array, scale: Array, shift: Array) -> Array:
    """scale · x + shift, channel by channel."""
    y = empty_like(x)
    _native.scale_shift(y, _c(x), _c(scale), _c(shift), *_maps(x))
    return y


def normalize_backward(dy: Array, normal: Array, factor: Array) -> Array:
    """dx through scale and normalization with the batch's own statistics."""
    dx = empty_like(normal)
    _native.normalize_backward(dx, _c(dy), _c(normal), _c(factor), *_maps(normal))
    return dx


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
