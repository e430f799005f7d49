"""Mistakes in the gradient with respect to a convolution's input, and in its forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from sharedgrad.checking.columns import flat
from sharedgrad.checking.given import Given, turned
from sharedgrad.checking.rules import rule
from sharedgrad.checking.tables import adds_to, conv_dw, keep, last_of, reads
from sharedgrad.geometry import Geometry
from sharedgrad.parameter import Array
from sharedgrad.uses.terms import Terms


def _other_offset(t: Terms, g: Given) -> Array:
    return np.array(g.window.kernel) - 1 - t.use["offset"]


@rule("dx_kernel_not_rotated", "dx", "conv")
def _(t: Terms, g: Given) -> Terms:
    return reads(t, "w", t.use["filter"], t.use["channel"], _other_offset(t, g))


@rule("dx_rotated_in_scatter", "dx", "conv")
def _(t: Terms, g: Given) -> Terms:
    return reads(t, "w", t.use["filter"], t.use["channel"], _other_offset(t, g))


@rule("kernel_transposed", "dx y", "conv")
def _(t: Terms, g: Given) -> Terms | None:
    if g.window.rank != 2 or g.window.kernel[0] != g.window.kernel[1] or g.window.cells == 1:
        return None
    return reads(t, "w", t.use["filter"], t.use["channel"], t.use["offset"][:, ::-1])


@rule("flipped_channels_too", "dx", "conv")
def _(t: Terms, g: Given) -> Iterator[tuple[str, Terms]]:
    u, (filters, channels) = t.use, g["w"].shape[:2]
    offset = u["offset"]
    if channels > 1:
        yield "the channels as well", reads(t, "w", u["filter"], channels - 1 - u["channel"], offset)
    if filters > 1:
        yield "the filters as well", reads(t, "w", filters - 1 - u["filter"], u["channel"], offset)
        yield "all axes", reads(t, "w", filters - 1 - u["filter"], channels - 1 - u["channel"], offset)


@rule("dx_no_sum_over_filters", "dx", "conv")
def _(t: Terms, g: Given) -> Iterator[tuple[str, Terms]]:
    for f in range(len(g["w"]) if len(g["w"]) > 1 else 0):
        yield f"only filter {f}", keep(t, t.use["filter"][:, 0] == f)


@rule("dx_overwritten", "dx", "conv")
def _(t: Terms, g: Given) -> Iterator[tuple[str, Terms]]:
    yield "the last window's value remains", keep(t, last_of(t, "position"))
    if len(g["w"]) > 1:
        yield "the last filter's value at the last window remains", keep(t, last_of(t, "position", "filter"))
        yield "filter by filter, the last filter's last window remains", keep(t, last_of(t, "filter", "position"))


@rule("dx_mean_over_filters", "dx", "conv", stage="result")
def _(dx: Array, g: Given) -> Array | None:
    return dx / len(g["w"]) if len(g["w"]) > 1 else None


@rule("groups_ignored", "dx", "conv")
def _(t: Terms, g: Given) -> Terms | None:
    u = t.use
    return adds_to(t, u["sample"], u["channel"], u["source"]) if g.window.groups > 1 else None


@rule("wrong_loop_index", "dx", "conv")
def _(t: Terms, g: Given) -> Iterator[tuple[str, Terms]]:
    u = t.use
    if g["w"].shape[1] > 1 or len(g["w"]) > 1:
        yield "added to the channel of the filter's number", adds_to(t, u["sample"], u["filter"], u["source"])
    if g["w"].shape[1] > 1:
        yield "w read at the filter's number for the channel", reads(t, "w", u["filter"], u["filter"], u["offset"])
    if g.window.rank == 2 and g.positions[0] == g.positions[1] > 1:
        yield "row and column of dy exchanged", reads(t, "dy", u["sample"], u["filter"], u["position"][:, ::-1])


@rule("stride_missing_in_loop", "dx", "conv")
def _(t: Terms, g: Given) -> Terms | None:
    if max(g.window.stride) == 1:
        return None
    whole = _scatter_all(g)
    before = np.array([pair[0] for pair in g.window.padding])
    u = whole.use
    return adds_to(
        whole, u["sample"], u["input_channel"], u["position"] - before + u["offset"] * g.window.dilation
    )  # fmt: skip


def _scatter_all(g: Given) -> Terms:
    """The table of dx with the rows that fall into the padding; they are added to the padded input."""
    from sharedgrad.checking.tables import table

    m = g.meetings
    shape = (*g["x"].shape[:2], *g.window.padded(g["x"].shape[2:]))
    before = np.array([pair[0] for pair in g.window.padding])
    cell = flat(shape, m["sample"], m["input_channel"], m["source"] + before)
    y = flat(g["dy"].shape, m["sample"], m["filter"], m["position"])
    w = flat(g["w"].shape, m["filter"], m["channel"], m["offset"])
    whole = table("dx", shape, cell, {"dy": (g["dy"], y), "w": (g["w"], w)}, m)
    return replace(whole, shape=g["x"].shape, cell=np.zeros_like(whole.cell))


@rule("stride_not_dilated", "dx", "conv", stage="result")
def _(_: Array, g: Given) -> Iterator[tuple[str, Array]]:
    if max(g.window.stride) == 1:
        return
    k = np.array(g.window.kernel)
    full = _gather(g, tuple(int(n) for n in k - 1), (1,) * len(k))
    yield "", full
    dx = np.zeros(g["x"].shape)
    corner = tuple(slice(0, min(a, b)) for a, b in zip(dx.shape, full.shape, strict=True))
    dx[corner] = full[corner]
    yield "filled up with zeros", dx


@rule("stride_padding_guessed", "dx", "conv", stage="result")
def _(_: Array, g: Given) -> Iterator[tuple[str, Array]]:
    size = g["x"].shape[2:]
    for stride in range(1, 4):
        for pad in range(max(g.window.kernel) + 3):
            geometry = Geometry.of(g.window.rank, g.window.kernel, stride, pad)
            if geometry.output(g["dy"].shape[2:]) == size and (stride, pad) != _right_full(g):
                yield f"padding {pad}, stride {stride}", _gather(g, (pad,) * g.window.rank, (stride,) * g.window.rank)


def _right_full(g: Given) -> tuple[int, int] | None:
    if max(g.window.stride) > 1 or len(set(g.window.kernel)) > 1:
        return None
    return 1, g.window.kernel[0] - 1 - g.window.padding[0][0]


def _gather(g: Given, pad: tuple[int, ...], stride: tuple[int, ...]) -> Array:
    """dx as a correlation of dy with the rotated kernel."""
    from sharedgrad import kernels

    if g.window.groups > 1:
        raise ValueError("no single correlation with groups")
    w = turned(np.swapaxes(g["w"], 0, 1), g.window.rank)
    geometry = Geometry.of(g.window.rank, g.window.kernel, stride, pad)
    dy = np.pad(g["dy"], ((0, 0), (0, 0), *((p, p) for p in pad)))
    return kernels.of(dy).conv(dy, np.ascontiguousarray(w), None, geometry.without_padding())


@rule("padding_not_cropped", "dx", "conv", stage="result")
def _(_: Array, g: Given) -> Iterator[tuple[str, Array]]:
    padded = _padded_dx(g)
    if padded is None:
        return
    size = g["x"].shape[2:]
    yield "the gradient of the padded input", padded
    start = tuple(slice(0, n) for n in size)
    end = tuple(slice(p - n, p) for p, n in zip(padded.shape[2:], size, strict=True))
    yield "cut at the wrong side, rows and columns from 0", padded[_spatial(*start)]
    yield "cut at the wrong side, the last rows and columns", padded[_spatial(*end)]


def _spatial(*slices: slice) -> tuple[Any, ...]:
    return (..., *slices)


def _padded_dx(g: Given) -> Array | None:
    if not any(sum(pair) for pair in g.window.padding):
        return None
    shape = g.window.padded(g["x"].shape[2:])
    around = [(0, 0), (0, 0), *g.window.padding]
    whole = Given(
        "conv", {**g.arrays, "x": np.pad(g["x"], around)}, g.window.without_padding(), g.options
    )  # fmt: skip
    from sharedgrad.checking.tables import conv_dx

    total = conv_dx(whole).total()
    assert total.shape[2:] == shape
    return total


@rule("crop_minus_zero", "dx", "conv", stage="result")
def _(dx: Array, g: Given) -> Array | None:
    if any(sum(pair) for pair in g.window.padding):
        return None
    return dx[_spatial(*(slice(0, 0),) * g.window.rank)]


@rule("pad_gt_k_minus_1", "dx", "conv", stage="result")
def _(_: Array, g: Given) -> Iterator[tuple[str, Array]]:
    over = [k - 1 - pair[0] for k, pair in zip(g.window.kernel, g.window.padding, strict=True)]
    if min(over) >= 0 or max(g.window.stride) > 1:
        return
    yield "no padding instead of a negative one", _gather(g, tuple(max(o, 0) for o in over), g.window.stride)
    yield "the sign of the padding lost", _gather(g, tuple(abs(o) for o in over), g.window.stride)


@rule("padding_hard_coded", "dx dw y", "conv", stage="given")
def _(g: Given) -> Iterator[tuple[str, Given]]:
    now = g.window.padding
    for p in (0, 1, 2):
        other = ((p, p),) * g.window.rank
        if other != now:
            yield f"as if the padding were {p}", _with_padding(g, other)


def _with_padding(g: Given, padding: tuple[tuple[int, int], ...]) -> Given:
    changed = g.sliding(padding=padding)
    if "dy" in g and changed.positions != g.positions:
        ends = tuple(slice(0, n) for n in changed.positions)
        if any(a > b for a, b in zip(changed.positions, g.positions, strict=True)):
            raise ValueError("there is no upstream gradient for so many positions")
        changed = changed.replaced(dy=g["dy"][_spatial(*ends)])
    return changed


@rule("pad_total_vs_per_side", "y dx dw", "conv", stage="given")
def _(g: Given) -> Iterator[tuple[str, Given]]:
    if not any(sum(pair) for pair in g.window.padding):
        return
    half = tuple((b // 2, a - a // 2) for b, a in g.window.padding)
    double = tuple((2 * b, 2 * a) for b, a in g.window.padding)
    yield "half of it on each side", _with_padding(g, half)
    yield "twice as much on each side", _with_padding(g, double)


@rule("dw_returned_as_dx", "dx", "conv", stage="result")
def _(_: Array, g: Given) -> Array:
    return conv_dw(g).total()


@rule("stride_edge_row_dropped", "dx db", "conv")
def _(t: Terms, g: Given) -> Iterator[tuple[str, Terms]]:
    kept = t.use["position"] < np.array(g.positions) - 1
    what = "row and column of positions" if g.window.rank == 2 else "position"
    yield f"the last {what} left out", keep(t, np.all(kept, axis=1))
    if g.window.rank == 2:
        yield "the last row of positions left out", keep(t, kept[:, 0])
        yield "the last column of positions left out", keep(t, kept[:, 1])


@rule("dilation_ignored", "dx", "conv")
def _(t: Terms, g: Given) -> Terms | None:
    if max(g.window.dilation) == 1:
        return None
    whole = _scatter_all(g)
    before = np.array([pair[0] for pair in g.window.padding])
    u = whole.use
    return adds_to(whole, u["sample"], u["input_channel"], u["position"] * g.window.stride - before + u["offset"])


# ---- forward


@rule("no_cross_channel_sum_forward", "y", "conv", stage="result")
def _(_: Array, g: Given) -> Iterator[tuple[str, Array]]:
    from sharedgrad.checking.tables import conv_y

    if g["w"].shape[1] == 1:
        return
    bare = replace(g, arrays={k: v for k, v in g.arrays.items() if k != "b"})
    t = conv_y(bare)
    filters, channels = g["w"].shape[:2]
    shape = (g.samples, filters, channels, *g.positions)
    maps = adds_to(t, t.use["sample"], t.use["filter"], t.use["channel"], t.use["position"], shape=shape).total()
    bias = g["b"].reshape(1, -1, *(1,) * (maps.ndim - 2)) if "b" in g else 0.0
    yield "one map for each filter and channel", maps.reshape(g.samples, -1, *g.positions)
    for c in range(channels):
        yield f"only channel {c}", maps[:, :, c] + bias


@rule("bias_missing_forward", "y", "conv linear", stage="given")
def _(g: Given) -> Given | None:
    return g.replaced(b=np.zeros_like(g["b"])) if "b" in g and np.any(g["b"]) else None


@rule("bias_added_for_each_channel", "y", "conv", stage="given")
def _(g: Given) -> Iterator[tuple[str, Given]]:
    if "b" not in g:
        return
    if g["w"].shape[1] > 1:
        yield "once for each channel", g.replaced(b=g["b"] * g["w"].shape[1])
    if g.window.cells > 1:
        yield "once for each kernel cell", g.replaced(b=g["b"] * g.window.cells * g["w"].shape[1])


@rule("stride_ignored_forward", "y", "conv max_pool avg_pool", stage="given")
def _(g: Given) -> Given | None:
    return g.sliding(stride=(1,) * g.window.rank) if max(g.window.stride) > 1 else None


@rule("groups_ignored", "y", "conv")
def _(t: Terms, g: Given) -> Terms | None:
    return reads(t, "x", t.use["sample"], t.use["channel"], t.use["source"]) if g.window.groups > 1 else None
