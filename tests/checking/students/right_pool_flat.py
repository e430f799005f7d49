"""All samples and channels of one window at once; the first winner, added."""

import numpy as np


def max_pool_backward_naive(dout, cache):
    x, pool_param = cache
    ph, pw, s = pool_param["pool_height"], pool_param["pool_width"], pool_param["stride"]
    n, c, oh, ow = dout.shape
    dx = np.zeros_like(x)
    for i in range(oh):
        for j in range(ow):
            flat = x[:, :, i * s : i * s + ph, j * s : j * s + pw].reshape(n, c, -1).argmax(-1)
            for a, ch in np.ndindex(n, c):
                row, col = np.unravel_index(flat[a, ch], (ph, pw))
                dx[a, ch, i * s + row, j * s + col] += dout[a, ch, i, j]
    return dx
