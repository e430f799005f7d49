"""NumPy without a compiler: the same names as ``reference``, in the same files, as operations on whole arrays."""

from sharedgrad.kernels.vectorized.activations import (
    relu,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    softmax,
    softmax_backward,
    tanh,
    tanh_backward,
)
from sharedgrad.kernels.vectorized.convolution import (
    conv,
    conv_input_gradient,
    conv_kernel_gradient,
    conv_kernel_gradients,
)
from sharedgrad.kernels.vectorized.dense import blocks, blocks_input_gradient, outer_sum
from sharedgrad.kernels.vectorized.losses import cross_entropy
from sharedgrad.kernels.vectorized.normalization import batch_statistics, normalize, normalize_backward, scale_shift
from sharedgrad.kernels.vectorized.padding import pad, pad_backward
from sharedgrad.kernels.vectorized.pooling import avg_pool, avg_pool_backward, max_pool, max_pool_backward
from sharedgrad.kernels.vectorized.updates import adam, sgd
from sharedgrad.kernels.vectorized.uses import (
    along_directions,
    channel_uses,
    conv_kernel_squares,
    outer_products,
    row_dots,
    row_products,
    row_sums,
    window_squares,
)
from sharedgrad.kernels.vectorized.windows import patches, patches_backward

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
