"""Batch normalization over all axes but the channels."""

from __future__ import annotations

import numpy as np

from sharedgrad.parameter import Array


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
