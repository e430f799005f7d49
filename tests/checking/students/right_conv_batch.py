"""Loops over filters and window starts; all samples at once."""

import numpy as np


def conv_backward_naive(dout, cache):
    x, w, b, conv_param = cache
    s, p = conv_param["stride"], conv_param["pad"]
    n, c, h, wide = x.shape
    f, _, kh, kw = w.shape
    _, _, oh, ow = dout.shape
    xp = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    dxp, dw, db = np.zeros_like(xp), np.zeros_like(w), dout.sum((0, 2, 3))
    for k in range(f):
        for i, top in enumerate(range(0, h + 2 * p - kh + 1, s)):
            for j, left in enumerate(range(0, wide + 2 * p - kw + 1, s)):
                delta = dout[:, k, i, j].reshape(-1, 1, 1, 1)
                dw[k] += (xp[:, :, top : top + kh, left : left + kw] * delta).sum(0)
                dxp[:, :, top : top + kh, left : left + kw] += w[k] * delta
    return dxp[:, :, p : p + h, p : p + wide], dw, db
