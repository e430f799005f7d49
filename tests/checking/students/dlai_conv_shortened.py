"""Channels last; the stride is ignored and the loops end f - 1 positions early."""

import numpy as np


def conv_backward(dZ, cache):
    a_prev, w, b, hparameters = cache
    p = hparameters["pad"]
    m = a_prev.shape[0]
    f, _, _, c = w.shape
    _, oh, ow, _ = dZ.shape
    padded = np.pad(a_prev, ((0, 0), (p, p), (p, p), (0, 0)))
    d_padded, dw, db = np.zeros_like(padded), np.zeros_like(w), np.zeros((1, 1, 1, c))
    for i, h, v, k in np.ndindex(m, oh - f + 1, ow - f + 1, c):
        top, left = h, v
        window = (i, slice(top, top + f), slice(left, left + f))
        d_padded[window] += w[..., k] * dZ[i, h, v, k]
        dw[..., k] += padded[window] * dZ[i, h, v, k]
        db[..., k] += dZ[i, h, v, k]
    return d_padded[:, p:-p, p:-p], dw, db
