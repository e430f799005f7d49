"""Channels last; the window starts at h instead of h times the stride."""

import numpy as np


def pool_backward(dA, cache, mode="max"):
    a_prev, hparameters = cache
    f = hparameters["f"]
    m, oh, ow, c = dA.shape
    d_prev = np.zeros_like(a_prev)
    for i, h, v, k in np.ndindex(m, oh, ow, c):
        top, left = h, v
        window = (i, slice(top, top + f), slice(left, left + f), k)
        if mode == "max":
            d_prev[window] += (a_prev[window] == a_prev[window].max()) * dA[i, h, v, k]
        else:
            d_prev[window] += dA[i, h, v, k] / (f * f)
    return d_prev
