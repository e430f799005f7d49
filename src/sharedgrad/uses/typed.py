"""The uses of one kernel on numbers as a person types them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from sharedgrad.errors import ShapeError
from sharedgrad.geometry import Geometry, Ints, Padding, text
from sharedgrad.parameter import Parameter, numbers
from sharedgrad.uses.shared import SharedWeight
from sharedgrad.uses.window import Window


def kernel_uses(
    x: ArrayLike,
    w: ArrayLike,
    upstream: ArrayLike,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
) -> SharedWeight:
    """The uses of one kernel on one single-channel input: the numbers as one would type them.

    Args:
        x: Input, with one axis (a signal) or two (an image).
        w: Kernel, with as many axes.
        upstream: Gradient of the loss with respect to each output position.
        stride: Distance between positions; padding and dilation as in ``Conv2d``.
        padding: Zeros around the input.
        dilation: Distance between kernel cells.

    Raises:
        ShapeError: The arrays do not fit together.

    >>> u = kernel_uses([1, 2, 3], w=[0.3, 0.5], upstream=[-0.1, 0.2])
    >>> print(u)
    position 0  -0.1 × [1, 2] = [-0.1, -0.2]
    position 1  0.2 × [2, 3]  = [0.4, 0.6]
    gradient of w             = [0.3, 0.4]
    >>> print(u.share(by="position").round(3))
    [-0.44  1.44]
    """
    inputs, kernel, delta = (numbers(a, np.float64, "kernel_uses") for a in (x, w, upstream))
    if not inputs.ndim == kernel.ndim == delta.ndim or kernel.ndim == 0:
        axes = f"x {inputs.ndim}, w {kernel.ndim}, upstream {delta.ndim}"
        raise ShapeError("kernel_uses", f"expected the same number of axes everywhere, got {axes}")
    geometry = Geometry.of(kernel.ndim, kernel.shape, stride, padding, dilation, where="kernel_uses")
    if delta.shape != (positions := geometry.output(inputs.shape, "kernel_uses")):
        raise ShapeError("kernel_uses: upstream", f"expected shape {text(positions)}, got {text(delta.shape)}")
    parameter = Parameter((1, 1, *kernel.shape), lambda _, shape: kernel.reshape(shape), "w", np.float64)
    return SharedWeight([Window(parameter, delta[None, None], inputs[None, None], geometry)])
