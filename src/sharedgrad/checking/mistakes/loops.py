"""Mistakes in how loops run, carried out as loops: over the input instead of the output, with windows of the upstream."""

from __future__ import annotations

import numpy as np

from sharedgrad.checking.given import Given
from sharedgrad.checking.rules import rule
from sharedgrad.parameter import Array

POOLS = "max_pool avg_pool"


def _one_number(pair: tuple[int, ...]) -> int:
    if len(set(pair)) > 1:
        raise ValueError("loops of this kind know one number for both axes")
    return pair[0]


@rule("wrong_loop_index", "dx dw", "conv", stage="result")
def _(result: Array, g: Given) -> tuple[tuple[str, Array], ...]:
    """Loops over input rows; the output row worked out from them may be negative, and then counts from the end."""
    if g.window.rank != 2 or g.window.groups > 1 or max(g.window.dilation) > 1:
        return ()
    dw, dxp = _over_the_input(g)
    p = _one_number(tuple(before for before, _ in g.window.padding))
    rows, columns = g["x"].shape[2:]
    dx = dxp[:, :, p : p + rows, p : p + columns]
    return (("loops over the input's rows and columns", dw if result.shape == dw.shape and _is_dw(result, g) else dx),)


def _is_dw(result: Array, g: Given) -> bool:
    from sharedgrad.checking.tables import conv_dw

    return result.shape == g["w"].shape and bool(np.allclose(result, conv_dw(g).total()))


def _over_the_input(g: Given) -> tuple[Array, Array]:
    x, w, dy = g["x"], g["w"], g["dy"]
    s, p = _one_number(g.window.stride), _one_number(tuple(before for before, _ in g.window.padding))
    kh, kw = w.shape[2:]
    xp = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    dw, dxp = np.zeros_like(w), np.zeros_like(xp)
    for top in range(0, x.shape[2], s):
        for left in range(0, x.shape[3], s):
            delta = dy[:, :, 1 + (top + 2 * p - kh) // s, 1 + (left + 2 * p - kw) // s]
            window = (slice(None), slice(None), slice(top, top + kh), slice(left, left + kw))
            dw += np.einsum("nf,ncij->fcij", delta, xp[window])
            dxp[window] += np.einsum("nf,fcij->ncij", delta, w)
    return dw, dxp


@rule("wrong_loop_index", "dx", "max_pool", stage="result")
def _(_: Array, g: Given) -> tuple[tuple[str, Array], ...]:
    if g.window.rank != 2 or any(sum(pair) for pair in g.window.padding):
        return ()
    x, dy, s = g["x"], g["dy"], _one_number(g.window.stride)
    ph, pw = g.window.kernel
    dx = np.zeros_like(x)
    for n, c in np.ndindex(*x.shape[:2]):
        for top in range(0, x.shape[2], s):
            for left in range(0, x.shape[3], s):
                delta = dy[n, c, 1 + (top - ph) // s, 1 + (left - pw) // s]
                winner = x[n, c, top : top + ph, left : left + pw].argmax()
                row, column = np.unravel_index(winner, (ph, pw))
                dx[n, c, top + row, left + column] += delta
    return (("loops over the input's rows and columns", dx),)


@rule("pool_upstream_window", "dx", "max_pool", stage="result")
def _(_: Array, g: Given) -> Array | None:
    """dx[window] += mask · dy[window]: an error unless the two slices happen to fit each other."""
    if any(sum(pair) for pair in g.window.padding):
        return None
    x, dy = g["x"], g["dy"]
    dx = np.zeros_like(x)
    for n, c, *place in np.ndindex(*dy.shape):
        ends = zip(place, g.window.stride, g.window.kernel, strict=True)
        window = (n, c, *(slice(o * s, o * s + k) for o, s, k in ends))
        dx[window] += (x[window] == x[window].max()) * dy[window]
    return dx
