"""The flat index of the winner is divided by the window's height instead of its width; the cell is assigned."""

import numpy as np


def max_pool_backward_naive(dout, cache):
    x, pool_param = cache
    ph, pw, s = pool_param["pool_height"], pool_param["pool_width"], pool_param["stride"]
    n, c, oh, ow = dout.shape
    dx = np.zeros_like(x)
    for a, ch, i, j in np.ndindex(n, c, oh, ow):
        top, left = i * s, j * s
        window = x[a, ch, top : top + ph, left : left + pw]
        where = window.argmax()
        dx[a, ch, top + where // ph, left + where % ph] = dout[a, ch, i, j]
    return dx
