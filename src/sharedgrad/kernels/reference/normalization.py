"""Batch normalization over all axes but the channels."""

from __future__ import annotations

import math

import numpy as np

from sharedgrad.parameter import Array


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
