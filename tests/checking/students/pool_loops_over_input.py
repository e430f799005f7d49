"""Loops over input rows and works out which output row each belongs to; negative results wrap around."""

import numpy as np


def max_pool_backward_naive(dout, cache):
    x, pool_param = cache
    ph, pw, s = pool_param["pool_height"], pool_param["pool_width"], pool_param["stride"]
    n, c, _, _ = dout.shape
    dx = np.zeros_like(x)
    for a, ch in np.ndindex(n, c):
        for top in range(0, x.shape[2], s):
            for left in range(0, x.shape[3], s):
                i, j = 1 + (top - ph) // s, 1 + (left - pw) // s
                winner = x[a, ch, top : top + ph, left : left + pw].argmax()
                row, col = np.unravel_index(winner, (ph, pw))
                dx[a, ch, top + row, left + col] += dout[a, ch, i, j]
    return dx
