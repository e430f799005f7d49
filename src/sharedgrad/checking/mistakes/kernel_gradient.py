"""Mistakes in the gradient of a shared kernel: dw[f,c,k] = Σ dy[n,f,o] · x[n,c,s(o,k)]."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from sharedgrad.checking.given import Given, turned
from sharedgrad.checking.rules import rule
from sharedgrad.checking.tables import adds_to, conv_dw, keep, last_of, reads
from sharedgrad.parameter import Array
from sharedgrad.uses.terms import Terms

USES = 400  # so many uses of a kernel are tried one by one


@rule("mean_over_positions", "dw", "conv", stage="result")
def _(a: Array, g: Given) -> Array:
    return a * (1 / prod(g.positions))


@rule("mean_over_uses", "dw", "conv", stage="result")
def _(a: Array, g: Given) -> Array | None:
    return a * (1 / (prod(g.positions) * g.samples)) if g.samples > 1 else None


@rule("batch_mean_vs_sum", "dw db", "conv linear embedding", stage="result")
def _(a: Array, g: Given) -> Iterator[tuple[str, Array]]:
    if g.samples > 1:
        yield f"divided by the {g.samples} samples", a * (1 / g.samples)
        yield f"divided twice by the {g.samples} samples", a * (1 / g.samples**2)
        yield f"multiplied by the {g.samples} samples", a * g.samples


@rule("grad_not_zeroed", "dw db", "conv linear embedding", stage="result")
def _(a: Array, g: Given) -> Iterator[tuple[str, Array]]:
    yield "counted twice", a * 2
    yield "counted three times", a * 3


@rule("overwritten_not_accumulated", "dw", "conv")
def _(t: Terms, g: Given) -> Iterator[tuple[str, Terms]]:
    yield "the last position of the last sample remains", keep(t, last_of(t, "sample", "position"))
    last = np.array(g.positions) - 1
    yield "the last position of every sample remains", keep(t, (t.use["position"] == last).all(1))
    if g.samples > 1:
        yield "the last sample remains", keep(t, t.use["sample"][:, 0] == g.samples - 1)


@rule("overwritten_not_accumulated", "dw", "linear")
def _(t: Terms, g: Given) -> Terms:
    return keep(t, last_of(t, "sample", "position"))


@rule("only_one_use_counted", "dw", "conv")
def _(t: Terms, g: Given) -> Iterator[tuple[str, Terms]]:
    if g.samples * prod(g.positions) > USES:
        return
    for n in range(g.samples):
        for o in np.ndindex(*g.positions):
            here = (t.use["sample"][:, 0] == n) & (t.use["position"] == o).all(1)
            sample = f"sample {n}, " if g.samples > 1 else ""
            yield f"only the use at {sample}position {_place(o)}", keep(t, here)


@rule("only_one_sample_counted", "dw db", "conv linear")
def _(t: Terms, g: Given) -> Iterator[tuple[str, Terms]]:
    for n in range(g.samples if g.samples > 1 else 0):
        yield f"only sample {n}", keep(t, t.use["sample"][:, 0] == n)


def _place(index: tuple[int, ...]) -> str:
    return str(index[0]) if len(index) == 1 else f"({', '.join(map(str, index))})"


@rule("only_one_use_counted", "dw", "conv")
def _(t: Terms, g: Given) -> Terms | None:
    return keep(t, (t.use["position"] == t.use["offset"]).all(1))  # the "corresponding" output of each weight


@rule("summed_then_multiplied", "dw", "conv", stage="result")
def _(_: Array, g: Given) -> Iterator[tuple[str, Array]]:
    t, count = conv_dw(g), prod(g.positions)
    pair = t.cell * g.samples + t.use["sample"][:, 0]  # the marginals are sums over the positions of a sample
    sums = [np.bincount(pair, f.values, minlength=g["w"].size * g.samples) for f in t.factors.values()]
    product = (sums[0] * sums[1]).reshape(-1, g.samples).sum(1).reshape(g["w"].shape)
    yield "", product
    yield "with both means", product / count**2
    yield "with one mean", product / count


@rule("dw_flipped", "dw", "conv", stage="result")
def _(dw: Array, g: Given) -> Array:
    return turned(dw, g.window.rank)


@rule("dw_spatially_transposed", "dw", "conv", stage="result")
def _(dw: Array, g: Given) -> Array | None:
    return np.swapaxes(dw, -1, -2) if g.window.rank == 2 and dw.shape[-1] == dw.shape[-2] else None


@rule("dw_true_convolution", "dw", "conv")
def _(t: Terms, g: Given) -> Terms:
    turned_over = np.array(g.positions) - 1 - t.use["position"]
    return reads(t, "dy", t.use["sample"], t.use["filter"], turned_over)


@rule("dw_summed_over_channels", "dw", "conv", stage="result")
def _(dw: Array, g: Given) -> Iterator[tuple[str, Array]]:
    if dw.shape[1] > 1:
        total = np.broadcast_to(dw.sum(1, keepdims=True), dw.shape)
        yield "the sum in every channel", total
        yield "the mean in every channel", total / dw.shape[1]


@rule("dw_one_channel_for_all", "dw", "conv", stage="result")
def _(dw: Array, g: Given) -> Array | None:
    return np.broadcast_to(dw[:, :1], dw.shape) if dw.shape[1] > 1 else None


@rule("dw_filters_mixed", "dw", "conv", stage="result")
def _(dw: Array, g: Given) -> Array | None:
    return np.broadcast_to(dw.sum(0, keepdims=True), dw.shape) if len(dw) > 1 and g.window.groups == 1 else None


@rule("groups_ignored", "dw", "conv")
def _(t: Terms, g: Given) -> Terms | None:
    return reads(t, "x", t.use["sample"], t.use["channel"], t.use["source"]) if g.window.groups > 1 else None


@rule("wrong_loop_index", "dw", "conv")
def _(t: Terms, g: Given) -> Iterator[tuple[str, Terms]]:
    u = t.use
    if g.window.rank == 2 and g.positions[0] == g.positions[1] > 1:
        yield "row and column of dy exchanged", reads(t, "dy", u["sample"], u["filter"], u["position"][:, ::-1])
    if g["w"].shape[1] > 1 and g.window.groups == 1:
        yield "x read at the filter's number", reads(t, "x", u["sample"], u["filter"], u["source"])
    if len(g["w"]) > 1:
        yield "dy read at the channel's number", reads(t, "dy", u["sample"], u["channel"], u["position"])


@rule("stride_missing_in_loop", "dw", "conv")
def _(t: Terms, g: Given) -> Terms | None:
    if max(g.window.stride) == 1:
        return None
    u, w = t.use, g.window
    before = np.array([pair[0] for pair in w.padding])
    return reads(t, "x", u["sample"], u["input_channel"], u["position"] - before + u["offset"] * w.dilation)


@rule("dilation_ignored", "dw", "conv")
def _(t: Terms, g: Given) -> Terms | None:
    if max(g.window.dilation) == 1:
        return None
    u, w = t.use, g.window
    before = np.array([pair[0] for pair in w.padding])
    return reads(t, "x", u["sample"], u["input_channel"], u["position"] * w.stride - before + u["offset"])


@rule("dw_from_unpadded_input", "dw", "conv")
def _(t: Terms, g: Given) -> Terms | None:
    if not any(sum(pair) for pair in g.window.padding):
        return None
    u, w = t.use, g.window
    return reads(t, "x", u["sample"], u["input_channel"], u["position"] * w.stride + u["offset"] * w.dilation)


@rule("stride_edge_row_dropped", "dw", "conv")
def _(t: Terms, g: Given) -> Iterator[tuple[str, Terms]]:
    position, last = t.use["position"], np.array(g.positions) - 1
    kept = position < last
    source, end = t.use["source"], np.array(g["x"].shape[2:]) - 1
    read = source < end
    if g.window.rank == 1:
        yield "the last position left out", keep(t, kept[:, 0])
        yield "the input's last cell never read", keep(t, read[:, 0])
        return
    yield "the last row and column of positions left out", keep(t, np.all(kept, axis=1))
    yield "the last row of positions left out", keep(t, kept[:, 0])
    yield "the last column of positions left out", keep(t, kept[:, 1])
    yield "the input's last row never read", keep(t, read[:, 0])
    yield "the input's last column never read", keep(t, read[:, 1])
    yield "the input's last row and column never read", keep(t, np.all(read, axis=1))


@rule("loops_shortened_by_kernel", "dw dx db", "conv")
def _(t: Terms, g: Given) -> Terms | None:
    ends = np.array(g.positions) - np.array(g.window.kernel) + 1
    return keep(t, np.all(t.use["position"] < ends, axis=1)) if max(g.window.kernel) > 1 else None


@rule("groups_ignored", "dw", "conv")
def _(t: Terms, g: Given) -> Terms | None:
    if g.window.groups == 1:
        return None
    u = t.use
    first = u["filter"] % (len(g["w"]) // g.window.groups)
    return adds_to(t, first, u["channel"], u["offset"])
