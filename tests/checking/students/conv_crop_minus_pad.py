"""The padding is cut off with p:-p, which leaves nothing when p is 0."""

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
            for i in range(oh):
                for j in range(ow):
                    rows, cols = slice(i * s, i * s + kh), slice(j * s, j * s + kw)
                    dw[k] += xp[a, :, rows, cols] * dout[a, k, i, j]
                    dxp[a, :, rows, cols] += w[k] * dout[a, k, i, j]
    return dxp[:, :, p:-p, p:-p], dw, db
