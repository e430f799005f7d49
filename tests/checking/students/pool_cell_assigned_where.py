"""The winner's cell is assigned, and two equal winners make the conversion to a number fail."""

import numpy as np


def max_pool_backward_naive(dout, cache):
    x, pool_param = cache
    ph, pw, s = pool_param["pool_height"], pool_param["pool_width"], pool_param["stride"]
    n, c, oh, ow = dout.shape
    dx = np.zeros_like(x)
    for a, ch, i, j in np.ndindex(n, c, oh, ow):
        top, left = i * s, j * s
        window = x[a, ch, top : top + ph, left : left + pw]
        row, col = np.where(window == window.max())
        dx[a, ch, top + row.item(), left + col.item()] = dout[a, ch, i, j]
    return dx
