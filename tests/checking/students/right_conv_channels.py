"""Channel by channel, with the padding made anew for each image."""

import numpy as np


def conv_backward_naive(dout, cache):
    x, w, b, conv_param = cache
    s, p = conv_param["stride"], conv_param["pad"]
    n, c, h, wide = x.shape
    f, _, kh, kw = w.shape
    _, _, oh, ow = dout.shape
    dxp, dw, sums = np.zeros((n, c, h + 2 * p, wide + 2 * p)), np.zeros_like(w), np.zeros((n, f))
    for a in range(n):
        for k in range(f):
            sums[a, k] = dout[a, k].sum()
            for ch in range(c):
                xp = np.pad(x[a, ch], p)
                for i in range(oh):
                    for j in range(ow):
                        rows, cols = slice(i * s, i * s + kh), slice(j * s, j * s + kw)
                        dw[k, ch] += xp[rows, cols] * dout[a, k, i, j]
                        dxp[a, ch, rows, cols] += w[k, ch] * dout[a, k, i, j]
    return dxp[:, :, p : p + h, p : p + wide], dw, sums.sum(0)
