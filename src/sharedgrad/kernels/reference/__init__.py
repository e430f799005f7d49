"""The definition: every operation as loops over its uses, the way a textbook writes it; one file a layer family.

Slow on purpose and chosen only explicitly (``with kernels.use("reference")``). All else is tested against it.
Shapes: x (N, C, *S), w (F, C/groups, *K), y and dy (N, F, *P) with any number of spatial axes; the padding of
the geometry reads zeros.
"""

from sharedgrad.kernels.reference.activations import (
    relu,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    softmax,
    softmax_backward,
    tanh,
    tanh_backward,
)
from sharedgrad.kernels.reference.convolution import (
    conv,
    conv_input_gradient,
    conv_kernel_gradient,
    conv_kernel_gradients,
)
from sharedgrad.kernels.reference.dense import blocks, blocks_input_gradient, outer_sum
from sharedgrad.kernels.reference.losses import cross_entropy
from sharedgrad.kernels.reference.normalization import batch_statistics, normalize, normalize_backward, scale_shift
from sharedgrad.kernels.reference.padding import pad, pad_backward
from sharedgrad.kernels.reference.pooling import avg_pool, avg_pool_backward, max_pool, max_pool_backward
from sharedgrad.kernels.reference.updates import adam, sgd
from sharedgrad.kernels.reference.uses import (
    along_directions,
    channel_uses,
    conv_kernel_squares,
    outer_products,
    row_dots,
    row_products,
    row_sums,
    window_squares,
)
from sharedgrad.kernels.reference.windows import patches, patches_backward

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
