"""Compiled kernels for NumPy arrays of float32 and float64: the names of ``Kernels``, in C++.

Importing this module fails where nothing was compiled; ``kernels.of`` then takes ``vectorized``. What has no
compiled kernel is taken from there too; :func:`fallbacks` says what and why.
"""

from __future__ import annotations

from sharedgrad.kernels import threads, vectorized
from sharedgrad.kernels.native import _native
from sharedgrad.kernels.native.activations import (
    relu,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    softmax,
    softmax_backward,
    tanh,
    tanh_backward,
)
from sharedgrad.kernels.native.convolution import (
    conv,
    conv_input_gradient,
    conv_kernel_gradient,
    conv_kernel_gradients,
    conv_kernel_squares,
)
from sharedgrad.kernels.native.dense import blocks, blocks_input_gradient, outer_sum
from sharedgrad.kernels.native.directions import along_directions, channel_uses
from sharedgrad.kernels.native.fallback import LIMITS
from sharedgrad.kernels.native.losses import cross_entropy
from sharedgrad.kernels.native.pooling import avg_pool, avg_pool_backward, max_pool, max_pool_backward
from sharedgrad.kernels.native.single import instruction_set
from sharedgrad.kernels.native.updates import adam, sgd
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

__all__ = [
    "adam",
    "along_directions",
    "avg_pool",
    "avg_pool_backward",
    "batch_statistics",
    "blocks",
    "blocks_input_gradient",
    "channel_uses",
    "conv",
    "conv_input_gradient",
    "conv_kernel_gradient",
    "conv_kernel_gradients",
    "conv_kernel_squares",
    "cross_entropy",
    "fallbacks",
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

threads.on_change(_native.set_threads)


def fallbacks() -> dict[str, list[str]]:
    """What NumPy computes although there are compiled kernels: names of kernels, by the reason."""
    borrowed = [name for name in vectorized.__all__ if globals()[name] is getattr(vectorized, name)]
    return {"no compiled kernel of their own": borrowed, **LIMITS}
