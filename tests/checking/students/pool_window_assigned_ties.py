"""The whole window is assigned, and every cell that equals the maximum gets the full value."""

import numpy as np


def max_pool_backward_naive(dout, cache):
    x, pool_param = cache
    ph, pw, s = pool_param["pool_height"], pool_param["pool_width"], pool_param["stride"]
    n, c, oh, ow = dout.shape
    dx = np.zeros_like(x)
    for a, ch, i, j in np.ndindex(n, c, oh, ow):
        top, left = i * s, j * s
        window = x[a, ch, top : top + ph, left : left + pw]
        dx[a, ch, top : top + ph, left : left + pw] = (window == window.max()) * dout[a, ch, i, j]
    return dx
