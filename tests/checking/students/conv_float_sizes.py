"""The output size is computed with / and is no whole number's type: range refuses."""

import numpy as np


def conv_backward_naive(dout, cache):
    x, w, b, conv_param = cache
    s, p = conv_param["stride"], conv_param["pad"]
    n, c, h, wide = x.shape
    f, _, kh, kw = w.shape
    oh, ow = 1 + (h + 2 * p - kh) / s, 1 + (wide + 2 * p - kw) / s
    xp = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    dxp, dw, db = np.zeros_like(xp), np.zeros_like(w), dout.sum((0, 2, 3))
    for i in range(oh):
        for j in range(ow):
            rows, cols = slice(i * s, i * s + kh), slice(j * s, j * s + kw)
            for k in range(f):
                dw[k] += (xp[:, :, rows, cols] * dout[:, k, i, j][:, None, None, None]).sum(0)
            for a in range(n):
                dxp[a, :, rows, cols] += (w * dout[a, :, i, j][:, None, None, None]).sum(0)
    return dxp[:, :, p:-p, p:-p], dw, db
