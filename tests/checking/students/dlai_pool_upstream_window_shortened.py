"""Channels last; loops over the input without the stride, with a window of the upstream gradient where one value is due."""

import numpy as np


def pool_backward(dA, cache, mode="max"):
    a_prev, hparameters = cache
    f = hparameters["f"]
    m, _, _, c = dA.shape
    d_prev = np.zeros_like(a_prev)
    for i, h, v, k in np.ndindex(m, a_prev.shape[1] - f + 1, a_prev.shape[2] - f + 1, c):
        top, left = h, v
        window = (i, slice(top, top + f), slice(left, left + f), k)
        if mode == "max":
            d_prev[window] += (a_prev[window] == a_prev[window].max()) * dA[window]
        else:
            d_prev[window] += dA[window].mean() / (f * f) + dA[window].mean()
    return d_prev
