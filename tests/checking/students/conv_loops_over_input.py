"""Loops over input rows and works out which output row each belongs to; negative results wrap around."""

import numpy as np


def conv_backward_naive(dout, cache):
    x, w, b, conv_param = cache
    s, p = conv_param["stride"], conv_param["pad"]
    n, c, h, wide = x.shape
    f, _, kh, kw = w.shape
    _, _, oh, ow = dout.shape
    xp = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    dxp, dw, db = np.zeros_like(xp), np.zeros_like(w), dout.sum((0, 2, 3))
    for a in range(n):
        for k in range(f):
            for top in range(0, h, s):
                for left in range(0, wide, s):
                    i, j = 1 + (top + 2 * p - kh) // s, 1 + (left + 2 * p - kw) // s
                    dw[k] += dout[a, k, i, j] * xp[a, :, top : top + kh, left : left + kw]
                    dxp[a, :, top : top + kh, left : left + kw] += dout[a, k, i, j] * w[k]
    return dxp[:, :, p : p + h, p : p + wide], dw, db
