"""Mistakes in the gradient of a bias: db[f] = Σ dy[n,f,o]."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sharedgrad.checking.given import Given
from sharedgrad.checking.rules import rule
from sharedgrad.checking.tables import keep, last_of, reads
from sharedgrad.parameter import Array
from sharedgrad.uses.terms import Terms


def _places(g: Given) -> int:
    return int(g["dy"][0].size // g["b"].size)


@rule("db_mean_over_positions", "db", "conv linear", stage="result")
def _(a: Array, g: Given) -> Array | None:
    return a * (1 / _places(g)) if _places(g) > 1 else None


@rule("mean_over_uses", "db", "conv linear", stage="result")
def _(a: Array, g: Given) -> Array | None:
    return a * (1 / (_places(g) * g.samples)) if g.samples > 1 and _places(g) > 1 else None


@rule("db_batch_mean", "db", "conv linear", stage="result")
def _(a: Array, g: Given) -> Array | None:
    return a * (1 / g.samples) if g.samples > 1 else None


@rule("db_not_summed", "db", "conv linear", stage="result")
def _(_: Array, g: Given) -> Iterator[tuple[str, Array]]:
    if g["dy"].size > g["b"].size:
        yield "dy itself", g["dy"]
        if g.samples > 1 and g.kind == "conv":
            yield "one for each sample", g["dy"].sum(tuple(range(2, g["dy"].ndim)))


@rule("untied_bias", "db", "conv", stage="result")
def _(_: Array, g: Given) -> Array:
    return g["dy"].sum(0)


@rule("db_summed_over_everything", "db", "conv linear", stage="result")
def _(db: Array, g: Given) -> Iterator[tuple[str, Array]]:
    if db.size > 1:
        yield "the same number for every filter", np.full(db.shape, db.sum())
        yield "a single number", db.sum().reshape(1)


@rule("db_wrong_axis_layout", "db", "conv linear", stage="result")
def _(_: Array, g: Given) -> Iterator[tuple[str, Array]]:
    dy = g["dy"]
    for axis in range(dy.ndim):
        if axis != (dy.ndim - 1 if g.kind == "linear" else 1) and dy.size > dy.shape[axis]:
            kept = "the sample" if axis == 0 else f"axis {axis}"
            yield f"kept {kept} instead of the filter", dy.sum(tuple(a for a in range(dy.ndim) if a != axis))


@rule("overwritten_not_accumulated", "db", "conv linear")
def _(t: Terms, g: Given) -> Iterator[tuple[str, Terms]]:
    yield "the last value remains", keep(t, last_of(t, "sample", "position"))
    if g.samples > 1:
        yield "the last sample remains", keep(t, t.use["sample"][:, 0] == g.samples - 1)


@rule("db_from_input", "db", "linear conv", stage="result")
def _(_: Array, g: Given) -> Array:
    return g["x"].sum(tuple(a for a in range(g["x"].ndim) if a != (g["x"].ndim - 1 if g.kind == "linear" else 1)))


@rule("db_multiplied_by_bias", "db", "conv linear", stage="result")
def _(db: Array, g: Given) -> Array | None:
    return db * g["b"] if np.any(g["b"]) else None


@rule("wrong_loop_index", "db", "conv")
def _(t: Terms, g: Given) -> Terms | None:
    if g.window.rank != 2 or g.positions[0] == g.positions[1]:
        return None
    return reads(t, "dy", t.use["sample"], t.use["filter"], t.use["position"][:, ::-1])
