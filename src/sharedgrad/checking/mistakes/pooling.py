"""Mistakes in pooling: the winner (or every cell) of a window gets its upstream gradient, and paths add."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from sharedgrad.checking.columns import flat
from sharedgrad.checking.given import Given
from sharedgrad.checking.rules import rule
from sharedgrad.checking.tables import adds_to, keep, last_of, reads, scaled, table, winners
from sharedgrad.parameter import Array
from sharedgrad.uses.terms import Terms

POOLS = "max_pool avg_pool"


def _all_rows(g: Given) -> Terms:
    """dy sent to every cell of its window, as it is."""
    m = g.meetings
    y = flat(g["dy"].shape, m["sample"], m["filter"], m["position"])
    x = flat(g["x"].shape, m["sample"], m["input_channel"], m["source"])
    return table("dx", g["x"].shape, x, {"dy": (g["dy"], y)}, m)


@rule("pool_all_ties", "dx", "max_pool", stage="given")
def _(g: Given) -> Given:
    return g.with_options(ties="all")


@rule("pool_overwrite", "dx", POOLS)
def _(t: Terms, g: Given) -> Terms:
    return keep(t, last_of(t, "position"))


@rule("pool_window_overwritten", "dx", POOLS)
def _(t: Terms, g: Given) -> Terms:
    every = _all_rows(g)
    latest = np.full(g["x"].size, -1)
    size = int(np.prod(g.positions))
    np.maximum.at(latest, every.cell, np.ravel_multi_index(tuple(every.use["position"].T), g.positions))
    mine = np.ravel_multi_index(tuple(t.use["position"].T), g.positions)
    assert size > 0
    return keep(t, latest[t.cell] == mine)


@rule("pool_wrong_cell", "dx", "max_pool")
def _(t: Terms, g: Given) -> Iterator[tuple[str, Terms]]:
    u, w = t.use, g.window
    before = np.array([pair[0] for pair in w.padding])
    yield "the place inside the window used as a place in the input", adds_to(
        t, u["sample"], u["input_channel"], u["offset"]
    )  # fmt: skip
    if w.rank == 2:
        start = u["position"] * w.stride - before
        swapped = start + u["offset"][:, ::-1]
        yield "row and column exchanged inside the window", adds_to(t, u["sample"], u["input_channel"], swapped)
        yield "row and column exchanged", adds_to(t, u["sample"], u["input_channel"], u["source"][:, ::-1])
        place = u["offset"][:, 0] * w.kernel[1] + u["offset"][:, 1]
        split = np.stack(np.divmod(place, w.kernel[0]), axis=1)
        yield "the winner's number split by the window's height", adds_to(
            t, u["sample"], u["input_channel"], start + split
        )  # fmt: skip
    first = u["position"] * w.stride - before
    yield "always the window's first cell", adds_to(t, u["sample"], u["input_channel"], first)


@rule("pool_return_in_loop", "dx", POOLS)
def _(t: Terms, g: Given) -> Iterator[tuple[str, Terms]]:
    first = (t.use["position"] == 0).all(1)
    yield "the first window of every map", keep(t, first)
    yield "the first window of all", keep(t, first & (t.use["sample"][:, 0] == 0) & (t.use["filter"][:, 0] == 0))
    yield "the first row of windows", keep(t, t.use["position"][:, 0] == 0)
    yield "the first sample", keep(t, t.use["sample"][:, 0] == 0)
    yield "the first map", keep(t, (t.use["sample"][:, 0] == 0) & (t.use["filter"][:, 0] == 0))


@rule("stride_missing_in_loop", "dx", "max_pool avg_pool")
def _(t: Terms, g: Given) -> Terms | None:
    if max(g.window.stride) == 1:
        return None
    narrow = g.sliding(stride=(1,) * g.window.rank)
    if g.kind == "max_pool":
        m = narrow.meetings
        inside = (m["position"] < np.array(g.positions)).all(1)
        shape = g["dy"].shape
        dy = flat(shape, m["sample"], m["filter"], m["position"])
        x = flat(g["x"].shape, m["sample"], m["input_channel"], m["source"])
        return table("dx", g["x"].shape, np.where(inside & winners(narrow), x, -1), {"dy": (g["dy"], dy)}, m)
    before = np.array([pair[0] for pair in g.window.padding])
    every = scaled(_all_rows(g), 1 / g.window.cells)
    u = every.use
    return adds_to(every, u["sample"], u["input_channel"], u["position"] - before + u["offset"])


@rule("pool_to_every_cell", "dx", "max_pool")
def _(t: Terms, g: Given) -> Iterator[tuple[str, Terms]]:
    every = _all_rows(g)
    yield "the whole value to each", every
    yield "an equal part to each, as in average pooling", scaled(every, 1 / g.window.cells)


@rule("pool_input_for_upstream", "dx", "max_pool")
def _(t: Terms, g: Given) -> Iterator[tuple[str, Terms]]:
    from sharedgrad.uses.terms import Factor

    yield "the input's value", replace(t, factors={"x": Factor("x", g["x"], t.cell)})
    yield "the input's value times the gradient", replace(t, factors={**t.factors, "x": Factor("x", g["x"], t.cell)})
    yield "1, without the gradient", replace(t, factors={})


@rule("pool_smallest_wins", "dx y", "max_pool", stage="given")
def _(g: Given) -> Given:
    return g.replaced(x=-g["x"])


@rule("pool_winner_at_input_not_window", "dx", "max_pool", stage="result")
def _(_: Array, g: Given) -> Array:
    dx = np.zeros(g["x"].shape)
    top = g["x"].reshape(g.samples, g["x"].shape[1], -1).argmax(2)
    for n, c in np.ndindex(*top.shape):
        dx[n, c].reshape(-1)[top[n, c]] = g["dy"][n, c].sum()
    return dx


@rule("avg_not_divided", "dx y", "avg_pool")
def _(t: Terms, g: Given) -> Terms:
    return replace(t, coefficient=None)


@rule("avg_divided_wrongly", "dx", "avg_pool")
def _(t: Terms, g: Given) -> Iterator[tuple[str, Terms]]:
    k = g.window.kernel
    bare = replace(t, coefficient=None)
    if len(k) > 1:
        yield "by the sum of the window's sides", scaled(bare, 1 / sum(k))
        yield "by the window's height", scaled(bare, 1 / k[0])
        yield "by its height squared", scaled(bare, 1 / k[0] ** 2)
    yield "twice", scaled(bare, 1 / g.window.cells**2)
    yield "by the number of windows", scaled(bare, 1 / np.prod(g.positions))


@rule("pool_wrong_channel", "dx", POOLS)
def _(t: Terms, g: Given) -> Iterator[tuple[str, Terms]]:
    channels = g["x"].shape[1]
    if channels > 1:
        zero = np.zeros_like(t.use["filter"])
        yield "the first channel's gradient in all", reads(t, "dy", t.use["sample"], zero, t.use["position"])
    if g.samples > 1:
        zero = np.zeros_like(t.use["sample"])
        yield "the first sample's gradient in all", reads(t, "dy", zero, t.use["filter"], t.use["position"])


@rule("wrong_loop_index", "dx", POOLS)
def _(t: Terms, g: Given) -> Terms | None:
    if g.window.rank != 2 or g.positions[0] != g.positions[1]:
        return None
    return reads(t, "dy", t.use["sample"], t.use["filter"], t.use["position"][:, ::-1])


@rule("stride_edge_row_dropped", "dx", POOLS)
def _(t: Terms, g: Given) -> Iterator[tuple[str, Terms]]:
    kept = t.use["position"] < np.array(g.positions) - 1
    yield "the last row and column of windows left out", keep(t, np.all(kept, axis=1))
    if g.window.rank == 2:
        yield "the last row of windows left out", keep(t, kept[:, 0])
        yield "the last column of windows left out", keep(t, kept[:, 1])
