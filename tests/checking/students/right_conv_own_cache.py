"""The forward pass keeps the padded input in a cache of its own form."""

import numpy as np


def conv_forward_naive(x, w, b, conv_param):
    s, p = conv_param["stride"], conv_param["pad"]
    xp = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    kh, kw = w.shape[2:]
    y = np.zeros((x.shape[0], w.shape[0], (xp.shape[2] - kh) // s + 1, (xp.shape[3] - kw) // s + 1))
    for i in range(y.shape[2]):
        for j in range(y.shape[3]):
            window = xp[:, None, :, i * s : i * s + kh, j * s : j * s + kw]
            y[:, :, i, j] = (window * w).sum((2, 3, 4)) + b
    return y, (x, xp, w, conv_param)


def conv_backward_naive(dout, cache):
    x, xp, w, conv_param = cache
    s, p = conv_param["stride"], conv_param["pad"]
    kh, kw = w.shape[2:]
    dw, dxp = np.zeros_like(w), np.zeros_like(xp)
    for a, k, i, j in np.ndindex(*dout.shape):
        top, left = i * s, j * s
        dw[k] += xp[a, :, top : top + kh, left : left + kw] * dout[a, k, i, j]
        dxp[a, :, top : top + kh, left : left + kw] += w[k] * dout[a, k, i, j]
    return dxp[:, :, p : p + x.shape[2], p : p + x.shape[3]], dw, dout.sum(axis=(0, 2, 3))
