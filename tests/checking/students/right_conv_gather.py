"""dw by strided slices, dx gathered cell by cell."""

import numpy as np


def conv_backward_naive(dout, cache):
    x, w, b, conv_param = cache
    s, p = conv_param["stride"], conv_param["pad"]
    n, c, h, wide = x.shape
    f, _, kh, kw = w.shape
    _, _, oh, ow = dout.shape
    xp = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    dw, dx = np.zeros_like(w), np.zeros_like(x)
    for u in range(kh):
        for v in range(kw):
            strip = xp[:, :, u : u + oh * s : s, v : v + ow * s : s]
            dw[:, :, u, v] = np.einsum("nfij,ncij->fc", dout, strip)
    for row in range(h):
        for col in range(wide):
            for i in range(oh):
                for j in range(ow):
                    u, v = row + p - i * s, col + p - j * s
                    if 0 <= u < kh and 0 <= v < kw:
                        dx[:, :, row, col] += dout[:, :, i, j] @ w[:, :, u, v]
    return dx, dw, dout.sum((0, 2, 3))
