"""Channels last; rows and columns of the slice exchanged, the input is passed back instead of the upstream gradient,
and the result is made with its sizes as separate arguments, which fails."""

import numpy as np


def pool_backward(dA, cache, mode="max"):
    a_prev, hparameters = cache
    s, f = hparameters["stride"], hparameters["f"]
    m, oh, ow, c = dA.shape
    d_prev = np.zeros(m, oh, ow, c)
    for i, h, v, k in np.ndindex(m, oh, ow, c):
        top, left = h * s, v * s
        window = (i, slice(left, left + f), slice(top, top + f), k)
        if mode == "max":
            d_prev[window] += a_prev[window] * (a_prev[window] == a_prev[window].max())
        else:
            d_prev[window] += a_prev[window].sum() / (f * f)
    return d_prev
