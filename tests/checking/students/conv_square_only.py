"""The cache holds the padded input; the result is made square, with the height for both sides, and cut with p:-p."""

import numpy as np


def conv_forward_naive(x, w, b, conv_param):
    s, p = conv_param["stride"], conv_param["pad"]
    x = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    n, _, h, wide = x.shape
    f, _, kh, kw = w.shape
    y = np.zeros((n, f, (h - kh) // s + 1, (wide - kw) // s + 1))
    for i in range(y.shape[2]):
        for j in range(y.shape[3]):
            window = x[:, :, i * s : i * s + kh, j * s : j * s + kw]
            y[:, :, i, j] = np.tensordot(window, w, ((1, 2, 3), (1, 2, 3))) + b
    return y, (x, w, b, conv_param)


def conv_backward_naive(dout, cache):
    x, w, b, conv_param = cache
    s, p = conv_param["stride"], conv_param["pad"]
    n, c, h, _ = x.shape
    dxp, dw, db = np.zeros_like(x), np.zeros_like(w), np.zeros_like(b)
    dx = np.zeros((n, c, h - 2 * p, h - 2 * p))
    for a in range(n):
        for k in range(w.shape[0]):
            db[k] += dout[a, k].sum()
            for i in range(dout.shape[2]):
                for j in range(dout.shape[3]):
                    rows, cols = slice(i * s, i * s + w.shape[2]), slice(j * s, j * s + w.shape[3])
                    dw[k] += dout[a, k, i, j] * x[a, :, rows, cols]
                    dxp[a, :, rows, cols] += dout[a, k, i, j] * w[k]
        dx[a] = dxp[a, :, p:-p, p:-p]
    return dx, dw, db
