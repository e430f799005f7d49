"""A matrix product for each output position."""

import numpy as np


def conv_backward_naive(dout, cache):
    x, w, b, conv_param = cache
    s, p = conv_param["stride"], conv_param["pad"]
    n, c, h, wide = x.shape
    f, _, kh, kw = w.shape
    _, _, oh, ow = dout.shape
    xp = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    dxp, dw, db = np.zeros_like(xp), np.zeros_like(w), dout.sum((0, 2, 3))
    flat = w.reshape(f, -1)
    for i in range(oh):
        for j in range(ow):
            window = (slice(None), slice(None), slice(i * s, i * s + kh), slice(j * s, j * s + kw))
            delta = dout[:, :, i, j]
            dw += (delta.T @ xp[window].reshape(n, -1)).reshape(w.shape)
            dxp[window] += (delta @ flat).reshape(n, c, kh, kw)
    return dxp[:, :, p : h + p, p : wide + p], dw, db
