"""Channels last; a window of the upstream gradient is taken where one value is due, and its mean is added once more."""

import numpy as np


def pool_backward(dA, cache, mode="max"):
    a_prev, hparameters = cache
    s, f = hparameters["stride"], hparameters["f"]
    m, oh, ow, c = dA.shape
    d_prev = np.zeros_like(a_prev)
    for i, h, v, k in np.ndindex(m, oh, ow, c):
        top, left = h * s, v * s
        window = (i, slice(top, top + f), slice(left, left + f), k)
        if mode == "max":
            d_prev[window] += (a_prev[window] == a_prev[window].max()) * dA[window]
        else:
            d_prev[window] += dA[window].mean() / (f * f) + dA[window].mean()
    return d_prev
