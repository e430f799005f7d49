"""NumPy without a compiler: the same names as reference.py, written as matrix products over whole patches.

A convolution is cut into chunks of samples whose patches fit into the cache. The chunks depend on shapes alone
and their results are added in index order, so any number of threads gives the same bits.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.lib.stride_tricks import as_strided

from sharedgrad.geometry import Geometry
from sharedgrad.kernels.threads import one_blas_thread, parallel
from sharedgrad.parameter import Array

Index = tuple[int, ...]
Arrays = list[Array]

CHUNK_BYTES = 1 << 20  # half of a common second-level cache; the other half is for the result


def _chunks(samples: int, bytes_per_sample: int) -> list[slice]:
    size = max(1, CHUNK_BYTES // max(1, bytes_per_sample))
    return [slice(start, min(start + size, samples)) for start in range(0, samples, size)]


def _zero_padded(x: Array, g: Geometry, fill: float = 0.0) -> Array:
    if not any(map(any, g.padding)):
        return x
    padded = np.full((*x.shape[:2], *g.padded(x.shape[2:])), fill, x.dtype)
    padded[g.interior(x.shape[2:])] = x
    return padded


def _windows(padded: Array, g: Geometry) -> Array:
    """A view (N, C, *K, *P) of what each kernel offset meets at each position."""
    positions = g.without_padding().output(padded.shape[2:])
    steps = padded.strides[2:]
    return as_strided(
        padded,
        (*padded.shape[:2], *g.kernel, *positions),
        (
            *padded.strides[:2],
            *(step * d for step, d in zip(steps, g.dilation, strict=True)),
            *(step * s for step, s in zip(steps, g.stride, strict=True)),
        ),
        writeable=False,
    )


def _columns(x: Array, g: Geometry) -> Array:
    """Patches as columns: (N, groups, C/groups · cells, positions)."""
    windows = _windows(_zero_padded(x, g), g)
    return windows.reshape(len(x), g.groups, x.shape[1] // g.groups * g.cells, prod(windows.shape[2 + g.rank :]))


def _add_columns(columns: Array, g: Geometry, dx: Array, positions: Index) -> None:
    """Add columns (N, groups, C/groups · cells, positions) back to the cells of dx that they were read from."""
    spatial = dx.shape[2:]
    padded = np.zeros((*dx.shape[:2], *g.padded(spatial)), dx.dtype)
    cells = columns.reshape(*dx.shape[:2], *g.kernel, *positions)
    for offset in np.ndindex(*g.kernel):
        padded[g.reach(offset, positions)] += cells[(slice(None), slice(None), *offset)]
    dx[...] = padded[g.interior(spatial)]


def _column_bytes(g: Geometry, channels: int, positions: Index, x: Array) -> int:
    return channels * g.cells * prod(positions) * x.itemsize


# ---- convolution


@one_blas_thread()
def conv(x: Array, w: Array, b: Array | None, g: Geometry) -> Array:
    """y = w · columns(x) + b, one matrix product per sample and group."""
    positions = g.output(x.shape[2:])
    y = np.empty((len(x), g.groups, len(w) // g.groups, prod(positions)), x.dtype)
    matrix = w.reshape(g.groups, len(w) // g.groups, -1)
    bias = None if b is None else b.reshape(g.groups, -1, 1)

    def forward(chunk: slice) -> None:
        np.matmul(matrix, _columns(x[chunk], g), out=y[chunk])
        if bias is not None:
            y[chunk] += bias

    parallel(forward, _chunks(len(x), _column_bytes(g, x.shape[1], positions, x)))
    return y.reshape(len(x), len(w), *positions)


@one_blas_thread()
def conv_input_gradient(dy: Array, w: Array, g: Geometry, spatial: Index) -> Array:
    """d columns = wᵀ · dy, added back to the cells that the columns were read from."""
    positions = dy.shape[2:]
    dx = np.empty((len(dy), w.shape[1] * g.groups, *spatial), dy.dtype)
    transposed = w.reshape(g.groups, len(w) // g.groups, -1).transpose(0, 2, 1)
    delta = dy.reshape(len(dy), g.groups, dy.shape[1] // g.groups, prod(positions))

    def backward(chunk: slice) -> None:
        _add_columns(transposed @ delta[chunk], g, dx[chunk], positions)

    parallel(backward, _chunks(len(dy), _column_bytes(g, dx.shape[1], positions, dy)))
    return dx


@one_blas_thread()
def conv_kernel_gradients(dy: Array, x: Array, g: Geometry) -> Array:
    """dw[n] = dy[n] · columns(x[n])ᵀ, kept apart by sample: (N, F, C/groups, *K)."""
    positions, filters = dy.shape[2:], dy.shape[1]
    shape = (filters, x.shape[1] // g.groups, *g.kernel)
    dw = np.empty((len(dy), g.groups, filters // g.groups, prod(shape[1:])), dy.dtype)
    delta = dy.reshape(len(dy), g.groups, filters // g.groups, prod(positions))

    def backward(chunk: slice) -> None:
        np.matmul(delta[chunk], _columns(x[chunk], g).transpose(0, 1, 3, 2), out=dw[chunk])

    parallel(backward, _chunks(len(dy), _column_bytes(g, x.shape[1], positions, x)))
    return dw.reshape(len(dy), *shape)


def conv_kernel_gradient(dy: Array, x: Array, g: Geometry) -> Array:
    """The gradient of the shared kernel: the sum over all its uses, chunk by chunk in index order."""
    chunks = _chunks(len(dy), _column_bytes(g, x.shape[1], dy.shape[2:], x))
    dw = np.zeros((dy.shape[1], x.shape[1] // g.groups, *g.kernel), dy.dtype)
    for part in parallel(lambda c: conv_kernel_gradients(dy[c], x[c], g).sum(axis=0), chunks):
        dw += part
    return dw


# ---- patches


def patches(x: Array, g: Geometry) -> Array:
    """(N, *P, groups, C/groups · cells): the inputs that each use of the kernel is multiplied with."""
    columns = _columns(x, g).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(columns).reshape(len(x), *g.output(x.shape[2:]), *columns.shape[2:])


def patches_backward(dp: Array, g: Geometry, spatial: Index) -> Array:
    """Add each patch cell's gradient to the input cell that it was read from."""
    positions, (groups, cells) = dp.shape[1:-2], dp.shape[-2:]
    dx = np.empty((len(dp), groups * cells // g.cells, *spatial), dp.dtype)
    columns = dp.reshape(len(dp), prod(positions), groups, cells).transpose(0, 2, 3, 1)
    _add_columns(columns, g, dx, positions)
    return dx


# ---- padding that is not zeros


def _sources(g: Geometry, spatial: Index, mode: str) -> Array:
    """For every cell of the padded map, the flat index of the cell that it copies."""
    numpy_mode = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
    return np.pad(np.arange(prod(spatial)).reshape(spatial), g.padding, mode=numpy_mode)  # type: ignore[call-overload]


def pad(x: Array, g: Geometry, mode: str) -> Array:
    """x (N, C, *S) grown by the geometry's padding; mode: reflect, replicate or circular."""
    return x.reshape(*x.shape[:2], -1)[:, :, _sources(g, x.shape[2:], mode)]


def pad_backward(dy: Array, g: Geometry, mode: str, spatial: Index) -> Array:
    """A cell that was copied into the padding gets the gradients of all its copies, added."""
    inside = g.interior(spatial)
    dx = dy[inside].copy().reshape(*dy.shape[:2], -1)
    sources = _sources(g, spatial, mode)
    border = np.ones(sources.shape, bool)
    border[inside] = False
    copies = dy[:, :, border]
    for i, source in enumerate(sources[border]):
        dx[:, :, source] += copies[:, :, i]
    return dx.reshape(*dy.shape[:2], *spatial)


# ---- blocks; with one block this is the dense layer


@one_blas_thread()
def blocks(p: Array, w: Array) -> Array:
    """Each block's own matrix times each use's vector: p (*U, B, I), w (B, O, I) -> (*U, B, O)."""
    rows = p.reshape(-1, *p.shape[-2:]).swapaxes(0, 1)
    return np.ascontiguousarray((rows @ w.swapaxes(1, 2)).swapaxes(0, 1)).reshape(*p.shape[:-1], w.shape[1])


@one_blas_thread()
def blocks_input_gradient(delta: Array, w: Array) -> Array:
    """dp = δ · w, block by block."""
    rows = delta.reshape(-1, *delta.shape[-2:]).swapaxes(0, 1)
    return np.ascontiguousarray((rows @ w).swapaxes(0, 1)).reshape(*delta.shape[:-1], w.shape[2])


@one_blas_thread()
def outer_sum(delta: Array, p: Array, keep: int = 0) -> Array:
    """Σ_u δ[u,b,o] · p[u,b,i] over all but the first ``keep`` use axes: (*kept, B, O, I)."""
    kept = delta.shape[:keep]
    left = delta.reshape(prod(kept), -1, *delta.shape[-2:]).transpose(0, 2, 3, 1)
    right = p.reshape(prod(kept), -1, *p.shape[-2:]).transpose(0, 2, 1, 3)
    return (left @ right).reshape(*kept, *delta.shape[-2:], p.shape[-1])


# ---- pooling


def max_pool(x: Array, g: Geometry) -> Array:
    """The largest input under each window; the padding never wins."""
    padded, positions = _zero_padded(x, g, -np.inf), g.output(x.shape[2:])
    first, *others = (padded[g.reach(offset, positions)] for offset in np.ndindex(*g.kernel))
    y = first.copy()
    for cell in others:
        np.maximum(y, cell, out=y)
    return y


def max_pool_backward(dy: Array, x: Array, y: Array, g: Geometry, ties: str) -> Array:
    """The winner gets the upstream gradient; ties: "first" or "last" in row-major order, or "share" equally."""
    padded, positions = _zero_padded(x, g, -np.inf), y.shape[2:]
    dx = np.zeros(padded.shape, dy.dtype)
    reaches = [g.reach(offset, positions) for offset in np.ndindex(*g.kernel)]
    if ties == "share":
        counts = sum((padded[reach] == y).astype(dy.dtype) for reach in reaches)
        part = dy / counts
        for reach in reaches:
            dx[reach] += part * (padded[reach] == y)
    else:
        free = np.ones(y.shape, bool)  # windows that have no winner yet
        for reach in reaches if ties == "first" else reversed(reaches):
            won = free & (padded[reach] == y)
            dx[reach] += dy * won
            free ^= won
    return np.ascontiguousarray(dx[g.interior(x.shape[2:])])


def _divisors(g: Geometry, spatial: Index, count_padding: bool, dtype: np.dtype[np.floating]) -> Array:
    positions = g.output(spatial)
    if count_padding:
        return np.full(positions, g.cells, dtype)
    inside = _zero_padded(np.ones((1, 1, *spatial), dtype), g)
    return _columns_sum(inside, g, positions)[0, 0]


def _columns_sum(padded: Array, g: Geometry, positions: Index) -> Array:
    y = np.zeros((*padded.shape[:2], *positions), padded.dtype)
    for offset in np.ndindex(*g.kernel):
        y += padded[g.reach(offset, positions)]
    return y


def avg_pool(x: Array, g: Geometry, count_padding: bool) -> Array:
    """The mean of the inputs under each window."""
    total = _columns_sum(_zero_padded(x, g), g, g.output(x.shape[2:]))
    total /= _divisors(g, x.shape[2:], count_padding, x.dtype)
    return total


def avg_pool_backward(dy: Array, g: Geometry, spatial: Index, count_padding: bool) -> Array:
    """Every cell of a window gets the same part of its upstream gradient; windows that overlap add."""
    part = dy / _divisors(g, spatial, count_padding, dy.dtype)
    dx = np.zeros((*dy.shape[:2], *g.padded(spatial)), dy.dtype)
    for offset in np.ndindex(*g.kernel):
        dx[g.reach(offset, dy.shape[2:])] += part
    return np.ascontiguousarray(dx[g.interior(spatial)])


# ---- elementwise


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^−x) = (1 + tanh(x/2)) / 2, which never overflows."""
    y = np.multiply(x, 0.5)
    np.tanh(y, out=y)
    y += 1
    y *= 0.5
    return y


def sigmoid_backward(dy: Array, y: Array) -> Array:
    """dx = dy · y · (1 − y), with y the sigmoid's output."""
    dx = 1 - y
    dx *= y
    dx *= dy
    return dx


def tanh(x: Array) -> Array:
    """The hyperbolic tangent."""
    return np.tanh(x)


def tanh_backward(dy: Array, y: Array) -> Array:
    """dx = dy · (1 − y²), with y the output."""
    dx = np.square(y)
    np.subtract(1, dx, out=dx)
    dx *= dy
    return dx


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return np.maximum(x, 0)


def relu_backward(dy: Array, y: Array) -> Array:
    """dx = dy where the output is positive, else 0; at 0 the convention is 0."""
    return dy * (y > 0)


def softmax(x: Array, axis: int) -> Array:
    """e^x / Σ e^x along the axis, shifted by the largest x."""
    y = np.exp(x - x.max(axis=axis, keepdims=True))
    y /= y.sum(axis=axis, keepdims=True)
    return y


def softmax_backward(dy: Array, y: Array, axis: int) -> Array:
    """dx_i = y_i · (dy_i − Σ_j dy_j y_j): every output depends on every input."""
    return y * (dy - (dy * y).sum(axis=axis, keepdims=True))


# ---- batch normalization over all axes but the channels


def _by_channel(values: Array, like: Array) -> Array:
    return values.reshape(-1, *(1,) * (like.ndim - 2))


def _channel_mean(x: Array) -> Array:
    """Mean over positions, then over samples: pairwise sums in a fixed order."""
    return x.reshape(*x.shape[:2], -1).mean(axis=2).mean(axis=0)


def batch_statistics(x: Array) -> tuple[Array, Array]:
    """Mean and (biased) variance of each channel of x (N, C, *S), over samples and positions."""
    mean = _channel_mean(x)
    return mean, _channel_mean(np.square(x - _by_channel(mean, x)))


def normalize(x: Array, mean: Array, inverse_std: Array) -> Array:
    """x̂ = (x − mean) · inverse_std, channel by channel."""
    y = x - _by_channel(mean, x)
    y *= _by_channel(inverse_std, x)
    return y


def scale_shift(x: Array, scale: Array, shift: Array) -> Array:
    """scale · x + shift, channel by channel."""
    y = x * _by_channel(scale, x)
    y += _by_channel(shift, x)
    return y


def normalize_backward(dy: Array, normal: Array, factor: Array) -> Array:
    """dx = factor · (dy − mean(dy) − x̂ · mean(dy · x̂)); the means are over the channel."""
    dx = dy - _by_channel(_channel_mean(dy), dy)
    dx -= normal * _by_channel(_channel_mean(dy * normal), normal)
    dx *= _by_channel(factor, normal)
    return dx


# ---- losses and optimizers' steps


def cross_entropy(scores: Array, labels: Array, smoothing: float, count: float) -> tuple[float, Array]:
    """−Σ t · log p over scores (N, C, *P) and labels (N, *P), and p − t; both / count."""
    if labels.size and not (labels.min() >= 0 and labels.max() < scores.shape[1]):
        raise IndexError("a label is no class")
    shifted = scores - scores.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    goal = np.full(scores.shape, smoothing / scores.shape[1], scores.dtype)
    at_class = np.take_along_axis(goal, labels[:, None], 1) + scores.dtype.type(1 - smoothing)
    np.put_along_axis(goal, labels[:, None], at_class, 1)
    # 0 · −∞ is a class that is certainly wrong and not asked for: it costs nothing
    terms = np.multiply(goal, log_p, out=np.zeros_like(goal), where=goal > 0)
    value = -float(np.sum(terms, dtype=np.float64)) / count
    return value, (np.exp(log_p) - goal) / scores.dtype.type(count)


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
    new_values, new_velocities = [], []
    for i, (w, g) in enumerate(zip(values, gradients, strict=True)):
        kind = g.dtype.type
        if weight_decay:
            g = g + kind(weight_decay) * w
        if velocities:
            v = kind(momentum) * velocities[i] + g
            new_velocities.append(v)
            g = g + kind(momentum) * v if nesterov else v
        new_values.append(np.asarray(w - kind(lr) * g))
    return new_values, new_velocities


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
    new: tuple[Arrays, Arrays, Arrays] = ([], [], [])
    for w, g, mean, square, t in zip(values, gradients, means, squares, steps, strict=True):
        kind = g.dtype.type
        if weight_decay and not decoupled:
            g = g + kind(weight_decay) * w
        m = kind(betas[0]) * mean + kind(1 - betas[0]) * g
        v = kind(betas[1]) * square + kind(1 - betas[1]) * g * g
        size = kind(lr / (1 - betas[0] ** t))
        change = size * m / (np.sqrt(v) / kind((1 - betas[1] ** t) ** 0.5) + kind(eps))
        if weight_decay and decoupled:
            change = change + kind(lr * weight_decay) * w
        for arrays, array in zip(new, (w - change, m, v), strict=True):
            arrays.append(np.asarray(array))
    return new
