"""The definition: every operation as loops over its uses, the way a textbook writes it.

Slow on purpose and chosen only explicitly (``with kernels.use("reference")``). All else is tested against it.
Shapes: x (N, C, *S), w (F, C/groups, *K), y and dy (N, F, *P) with any number of spatial axes; the padding of
the geometry reads zeros.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np

from sharedgrad.geometry import Geometry
from sharedgrad.parameter import Array

Index = tuple[int, ...]
Arrays = list[Array]


def _uses(g: Geometry, spatial: Index, positions: Index) -> Iterator[tuple[Index, Index, Index]]:
    """(position, kernel offset, input index) for every use whose input index is not in the padding."""
    for position in np.ndindex(*positions):
        for offset in np.ndindex(*g.kernel):
            source = g.source(position, offset)
            if all(0 <= i < n for i, n in zip(source, spatial, strict=True)):
                yield position, offset, source


def _channels(g: Geometry, filters: int, group_channels: int) -> Iterator[tuple[int, int, int]]:
    """(filter, channel within the group, channel of the input) for every pair that a filter connects."""
    for f, c in product(range(filters), range(group_channels)):
        yield f, c, f // (filters // g.groups) * group_channels + c


# ---- convolution: y[n,f,o] = b[f] + Σ_{c,k} w[f,c,k] · x[n, c, o·stride − padding + k·dilation]


def conv(x: Array, w: Array, b: Array | None, g: Geometry) -> Array:
    """Convolution (cross-correlation) of x (N, C, *S) with w (F, C/groups, *K)."""
    spatial, positions = x.shape[2:], g.output(x.shape[2:])
    y = np.zeros((len(x), len(w), *positions), x.dtype)
    for n in range(len(x)):
        for position, offset, source in _uses(g, spatial, positions):
            for f, c, channel in _channels(g, len(w), w.shape[1]):
                y[n, f, *position] += w[f, c, *offset] * x[n, channel, *source]
    if b is not None:
        for f in range(len(w)):
            y[:, f] += b[f]
    return y


def conv_input_gradient(dy: Array, w: Array, g: Geometry, spatial: Index) -> Array:
    """dx[source] += w · dy[position] for every use: the paths back to one input add."""
    dx = np.zeros((len(dy), w.shape[1] * g.groups, *spatial), dy.dtype)
    for n in range(len(dy)):
        for position, offset, source in _uses(g, spatial, dy.shape[2:]):
            for f, c, channel in _channels(g, len(w), w.shape[1]):
                dx[n, channel, *source] += w[f, c, *offset] * dy[n, f, *position]
    return dx


def conv_kernel_gradients(dy: Array, x: Array, g: Geometry) -> Array:
    """dw[n] += dy[position] · x[source] for every use, kept apart by sample: (N, F, C/groups, *K)."""
    filters, group_channels = dy.shape[1], x.shape[1] // g.groups
    dw = np.zeros((len(dy), filters, group_channels, *g.kernel), dy.dtype)
    for n in range(len(dy)):
        for position, offset, source in _uses(g, x.shape[2:], dy.shape[2:]):
            for f, c, channel in _channels(g, filters, group_channels):
                dw[n, f, c, *offset] += dy[n, f, *position] * x[n, channel, *source]
    return dw


def conv_kernel_gradient(dy: Array, x: Array, g: Geometry) -> Array:
    """The gradient of the shared kernel: the sum over all its uses, samples and positions."""
    dw = np.zeros((dy.shape[1], x.shape[1] // g.groups, *g.kernel), dy.dtype)
    for sample in conv_kernel_gradients(dy, x, g):
        dw += sample
    return dw


# ---- patches: what a window sees, one row per position and group; and the way back, which adds


def patches(x: Array, g: Geometry) -> Array:
    """(N, *P, groups, C/groups · cells): the inputs that each use of the kernel is multiplied with."""
    positions, group_channels = g.output(x.shape[2:]), x.shape[1] // g.groups
    p = np.zeros((len(x), *positions, x.shape[1], *g.kernel), x.dtype)
    for n, channel in product(range(len(x)), range(x.shape[1])):
        for position, offset, source in _uses(g, x.shape[2:], positions):
            p[n, *position, channel, *offset] = x[n, channel, *source]
    return p.reshape(len(x), *positions, g.groups, group_channels * g.cells)


def patches_backward(dp: Array, g: Geometry, spatial: Index) -> Array:
    """Add each patch cell's gradient to the input cell that it was read from."""
    positions = dp.shape[1:-2]
    channels = g.groups * (dp.shape[-1] // g.cells)
    dp = dp.reshape(len(dp), *positions, channels, *g.kernel)
    dx = np.zeros((len(dp), channels, *spatial), dp.dtype)
    for n, channel in product(range(len(dp)), range(channels)):
        for position, offset, source in _uses(g, spatial, positions):
            dx[n, channel, *source] += dp[n, *position, channel, *offset]
    return dx


# ---- padding that is not zeros


def _padding_source(i: int, n: int, mode: str) -> int:
    """The cell of an axis of n cells that index i, possibly outside, reads."""
    if mode == "circular":
        return i % n
    if mode == "replicate":
        return min(max(i, 0), n - 1)
    return -i if i < 0 else 2 * (n - 1) - i if i >= n else i  # reflect


def _padding_sources(g: Geometry, spatial: Index, mode: str) -> Iterator[tuple[Index, Index]]:
    for target in np.ndindex(*g.padded(spatial)):
        yield (
            target,
            tuple(
                _padding_source(i - before, n, mode)
                for i, n, (before, _) in zip(target, spatial, g.padding, strict=True)
            ),
        )


def pad(x: Array, g: Geometry, mode: str) -> Array:
    """x (N, C, *S) grown by the geometry's padding; mode: reflect, replicate or circular."""
    y = np.zeros((*x.shape[:2], *g.padded(x.shape[2:])), x.dtype)
    for n, c in np.ndindex(*x.shape[:2]):
        for target, source in _padding_sources(g, x.shape[2:], mode):
            y[n, c, *target] = x[n, c, *source]
    return y


def pad_backward(dy: Array, g: Geometry, mode: str, spatial: Index) -> Array:
    """A cell that was copied into the padding gets the gradients of all its copies, added."""
    dx = np.zeros((*dy.shape[:2], *spatial), dy.dtype)
    for n, c in np.ndindex(*dy.shape[:2]):
        for target, source in _padding_sources(g, spatial, mode):
            dx[n, c, *source] += dy[n, c, *target]
    return dx


# ---- blocks: y[u,b,o] = Σ_i w[b,o,i] · p[u,b,i]; with one block this is the dense layer


def blocks(p: Array, w: Array) -> Array:
    """Each block's own matrix times each use's vector: p (*U, B, I), w (B, O, I) -> (*U, B, O)."""
    y = np.zeros((*p.shape[:-1], w.shape[1]), p.dtype)
    for u in np.ndindex(*p.shape[:-2]):
        for b, o, i in np.ndindex(*w.shape):
            y[*u, b, o] += w[b, o, i] * p[*u, b, i]
    return y


def blocks_input_gradient(delta: Array, w: Array) -> Array:
    """dp[u,b,i] = Σ_o w[b,o,i] · δ[u,b,o]."""
    dp = np.zeros((*delta.shape[:-1], w.shape[2]), delta.dtype)
    for u in np.ndindex(*delta.shape[:-2]):
        for b, o, i in np.ndindex(*w.shape):
            dp[*u, b, i] += w[b, o, i] * delta[*u, b, o]
    return dp


def outer_sum(delta: Array, p: Array, keep: int = 0) -> Array:
    """Σ_u δ[u,b,o] · p[u,b,i] over all but the first ``keep`` use axes: (*kept, B, O, I)."""
    total = np.zeros((*delta.shape[:keep], *delta.shape[-2:], p.shape[-1]), delta.dtype)
    for u in np.ndindex(*delta.shape[:-2]):
        for b, o, i in np.ndindex(*total.shape[keep:]):
            total[*u[:keep], b, o, i] += delta[*u, b, o] * p[*u, b, i]
    return total


# ---- pooling


def max_pool(x: Array, g: Geometry) -> Array:
    """The largest input under each window; the padding never wins."""
    positions = g.output(x.shape[2:])
    y = np.full((*x.shape[:2], *positions), -np.inf, x.dtype)
    for n, c in np.ndindex(*x.shape[:2]):
        for position, _, source in _uses(g, x.shape[2:], positions):
            y[n, c, *position] = max(y[n, c, *position], x[n, c, *source])
    return y


def max_pool_backward(dy: Array, x: Array, y: Array, g: Geometry, ties: str) -> Array:
    """The winner gets the upstream gradient; ties: "first" or "last" in row-major order, or "share" equally."""
    dx = np.zeros(x.shape, dy.dtype)
    for n, c in np.ndindex(*x.shape[:2]):
        winners: dict[Index, list[Index]] = {}
        for position, _, source in _uses(g, x.shape[2:], y.shape[2:]):
            if x[n, c, *source] == y[n, c, *position]:
                winners.setdefault(position, []).append(source)
        for position, sources in winners.items():
            chosen = {"first": sources[:1], "last": sources[-1:], "share": sources}[ties]
            for source in chosen:
                dx[n, c, *source] += dy[n, c, *position] / len(chosen)
    return dx


def _divisors(g: Geometry, spatial: Index, count_padding: bool) -> dict[Index, int]:
    """How many cells each window averages over: all, or only those that lie in the input."""
    positions = g.output(spatial)
    if count_padding:
        return {position: g.cells for position in np.ndindex(*positions)}
    counts = dict.fromkeys(np.ndindex(*positions), 0)
    for position, _, _ in _uses(g, spatial, positions):
        counts[position] += 1
    return counts


def avg_pool(x: Array, g: Geometry, count_padding: bool) -> Array:
    """The mean of the inputs under each window."""
    positions = g.output(x.shape[2:])
    counts = _divisors(g, x.shape[2:], count_padding)
    y = np.zeros((*x.shape[:2], *positions), x.dtype)
    for n, c in np.ndindex(*x.shape[:2]):
        for position, _, source in _uses(g, x.shape[2:], positions):
            y[n, c, *position] += x[n, c, *source] / counts[position]
    return y


def avg_pool_backward(dy: Array, g: Geometry, spatial: Index, count_padding: bool) -> Array:
    """Every cell of a window gets the same part of its upstream gradient; windows that overlap add."""
    counts = _divisors(g, spatial, count_padding)
    dx = np.zeros((*dy.shape[:2], *spatial), dy.dtype)
    for n, c in np.ndindex(*dy.shape[:2]):
        for position, _, source in _uses(g, spatial, dy.shape[2:]):
            dx[n, c, *source] += dy[n, c, *position] / counts[position]
    return dx


# ---- elementwise


def _each(function: Callable[..., float], *arrays: Array) -> Array:
    result = np.empty(arrays[0].shape, arrays[0].dtype)
    for index in np.ndindex(*result.shape):
        result[index] = function(*(float(a[index]) for a in arrays))
    return result


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^−x), written so that e never overflows."""
    return _each(lambda v: 1 / (1 + math.exp(-v)) if v >= 0 else math.exp(v) / (1 + math.exp(v)), x)


def sigmoid_backward(dy: Array, y: Array) -> Array:
    """dx = dy · y · (1 − y), with y the sigmoid's output."""
    return _each(lambda up, s: up * s * (1 - s), dy, y)


def tanh(x: Array) -> Array:
    """The hyperbolic tangent."""
    return _each(math.tanh, x)


def tanh_backward(dy: Array, y: Array) -> Array:
    """dx = dy · (1 − y²), with y the output."""
    return _each(lambda up, t: up * (1 - t * t), dy, y)


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return _each(lambda v: v if v > 0 or math.isnan(v) else 0.0, x)


def relu_backward(dy: Array, y: Array) -> Array:
    """dx = dy where the output is positive, else 0; at 0 the convention is 0."""
    return _each(lambda up, v: up if v > 0 else 0.0, dy, y)


def softmax(x: Array, axis: int) -> Array:
    """e^x / Σ e^x along the axis, shifted by the largest x."""
    y = np.empty_like(x)
    rows, out = np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)
    for index in np.ndindex(*rows.shape[:-1]):
        powers = [math.exp(v - max(rows[index])) for v in rows[index]]
        out[index] = [power / math.fsum(powers) for power in powers]
    return y


def softmax_backward(dy: Array, y: Array, axis: int) -> Array:
    """dx_i = y_i · (dy_i − Σ_j dy_j y_j): every output depends on every input."""
    dx = np.empty_like(dy)
    ups, outs, grads = (np.moveaxis(a, axis, -1) for a in (dy, y, dx))
    for index in np.ndindex(*ups.shape[:-1]):
        inner = math.fsum(u * s for u, s in zip(ups[index], outs[index], strict=True))
        grads[index] = [s * (u - inner) for u, s in zip(ups[index], outs[index], strict=True)]
    return dx


# ---- batch normalization over all axes but the channels


def batch_statistics(x: Array) -> tuple[Array, Array]:
    """Mean and (biased) variance of each channel of x (N, C, *S), over samples and positions."""
    mean, variance = np.zeros(x.shape[1], x.dtype), np.zeros(x.shape[1], x.dtype)
    for c in range(x.shape[1]):
        values = [float(v) for v in x[:, c].ravel()]
        mean[c] = m = math.fsum(values) / len(values)
        variance[c] = math.fsum((v - m) ** 2 for v in values) / len(values)
    return mean, variance


def normalize(x: Array, mean: Array, inverse_std: Array) -> Array:
    """x̂ = (x − mean) · inverse_std, channel by channel."""
    y = np.empty_like(x)
    for n, c in np.ndindex(*x.shape[:2]):
        y[n, c] = (x[n, c] - mean[c]) * inverse_std[c]
    return y


def scale_shift(x: Array, scale: Array, shift: Array) -> Array:
    """scale · x + shift, channel by channel."""
    y = np.empty_like(x)
    for n, c in np.ndindex(*x.shape[:2]):
        y[n, c] = scale[c] * x[n, c] + shift[c]
    return y


def normalize_backward(dy: Array, normal: Array, factor: Array) -> Array:
    """dx through scale and normalization with the batch's own statistics (Ioffe & Szegedy 2015, arXiv:1502.03167).

    dx = factor · (dy − mean(dy) − x̂ · mean(dy · x̂)), with factor = weight / √(variance + ε); the means are over
    the channel.
    """
    dx = np.empty_like(dy)
    for c in range(dy.shape[1]):
        up, hat = dy[:, c], normal[:, c]
        count = up.size
        mean_up = math.fsum(up.ravel()) / count
        mean_product = math.fsum((up * hat).ravel()) / count
        dx[:, c] = factor[c] * (up - mean_up - hat * mean_product)
    return dx


# ---- cross-entropy behind a softmax: −Σ_c t_c · log p_c, t the class, smoothed; upstream p − t


def cross_entropy(scores: Array, labels: Array, smoothing: float, count: float) -> tuple[float, Array]:
    """Σ over scores (N, C, *P) and labels (N, *P), and the gradient with respect to the scores; both / count.

    t is 1 − smoothing + smoothing/C at the class and smoothing/C elsewhere. A class with t = 0 costs nothing, even
    where its score is −∞.

    Raises:
        IndexError: A label is not from 0 to C − 1.
    """
    upstream, rows, classes = np.empty_like(scores), np.moveaxis(scores, 1, -1), scores.shape[1]
    out, losses = np.moveaxis(upstream, 1, -1), []
    for index in np.ndindex(*labels.shape):
        row = [float(score) for score in rows[index]]
        log_sum = max(row) + math.log(math.fsum(math.exp(v - max(row)) for v in row))
        if not 0 <= labels[index] < classes:
            raise IndexError(f"label {labels[index]} of {classes} classes")
        for c, score in enumerate(row):
            t = smoothing / classes + (1 - smoothing if c == labels[index] else 0)
            losses.append(t * (log_sum - score) if t > 0 else 0.0)
            out[index][c] = (math.exp(score - log_sum) - t) / count
    return math.fsum(losses) / count, upstream


# ---- optimizers' steps: new values and what the next step needs, for all parameters


def sgd(
    values: Arrays,
    gradients: Arrays,
    velocities: Arrays,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> tuple[Arrays, Arrays]:
    """g ← gradient + weight_decay · w,  v ← momentum · v + g,  w ← w − lr · v  (Nesterov: w − lr · (g + momentum · v)).

    ``velocities`` is empty where there is no momentum: then v is g, and none come back.
    """
    new_values, new_velocities = [np.empty_like(w) for w in values], [np.empty_like(v) for v in velocities]
    for i, w in enumerate(values):
        for index in np.ndindex(*w.shape):
            g = float(gradients[i][index]) + weight_decay * float(w[index])
            change = g
            if velocities:
                new_velocities[i][index] = v = momentum * float(velocities[i][index]) + g
                change = g + momentum * v if nesterov else v
            new_values[i][index] = float(w[index]) - lr * change
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
    """m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²,  w ← w − lr · m̂ / (√v̂ + ε), as ``optimizers.Adam`` says.

    ``steps`` counts each parameter's own steps, this one included.
    """
    new = tuple([np.empty_like(a) for a in arrays] for arrays in (values, means, squares))
    for i, w in enumerate(values):
        for index in np.ndindex(*w.shape):
            g = float(gradients[i][index]) + (0 if decoupled else weight_decay * float(w[index]))
            m = betas[0] * float(means[i][index]) + (1 - betas[0]) * g
            v = betas[1] * float(squares[i][index]) + (1 - betas[1]) * g * g
            step = m / (1 - betas[0] ** steps[i]) / (math.sqrt(v / (1 - betas[1] ** steps[i])) + eps)
            shrink = weight_decay * float(w[index]) if decoupled else 0
            new[0][i][index], new[1][i][index], new[2][i][index] = float(w[index]) - lr * (step + shrink), m, v
    return new[0], new[1], new[2]
