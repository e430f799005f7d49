"""Mistakes in dense layers, embeddings and recurrent layers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sharedgrad.checking.given import Given
from sharedgrad.checking.rules import rule
from sharedgrad.checking.tables import keep, last_of, reads
from sharedgrad.parameter import Array
from sharedgrad.uses.terms import Terms


@rule("transpose_missing", "dx", "linear")
def _(t: Terms, g: Given) -> Terms | None:
    if g["w"].shape[0] != g["w"].shape[1]:
        return None
    return reads(t, "w", t.use["channel"], t.use["filter"])


@rule("dw_transposed", "dw", "linear", stage="result")
def _(dw: Array, g: Given) -> Array:
    return dw.T


@rule("transpose_missing_forward", "y", "linear")
def _(t: Terms, g: Given) -> Terms | None:
    if g["w"].shape[0] != g["w"].shape[1]:
        return None
    return reads(t, "w", t.use["channel"], t.use["filter"])


@rule("matrix_product_replaced_by_elementwise", "dx", "linear", stage="result")
def _(_: Array, g: Given) -> Iterator[tuple[str, Array]]:
    w, dy, x = g["w"], g["dy"], g["x"]
    if w.shape[0] == w.shape[1]:
        yield "w times dy, without the sum: the diagonal alone", dy * np.diagonal(w)
    yield "dy times the sums over w's rows", np.broadcast_to((dy * w.sum(1)).sum(-1, keepdims=True), x.shape)
    yield "the sum of dy times the sums over w's columns", dy.sum(-1, keepdims=True) * w.sum(0)


@rule("matrix_product_replaced_by_elementwise", "dw", "linear", stage="result")
def _(_: Array, g: Given) -> Iterator[tuple[str, Array]]:
    dy, x = g["dy"].reshape(-1, g["dy"].shape[-1]), g["x"].reshape(-1, g["x"].shape[-1])
    if x.shape[1] == dy.shape[1]:
        yield "x times dy element by element", (dy * x).sum(0)
    if len(x) > 1:
        yield "the sums over the samples multiplied", np.outer(dy.sum(0), x.sum(0))


@rule("dx_from_weight_sums", "dx", "linear", stage="result")
def _(_: Array, g: Given) -> Array:
    return np.broadcast_to(g["w"].sum(0), g["x"].shape)


@rule("dw_uses_output", "dw", "linear", stage="result")
def _(_: Array, g: Given) -> Array | None:
    from sharedgrad.checking.tables import dense_y

    if g["w"].shape[0] != g["w"].shape[1]:
        return None
    y, dy = dense_y(g).total().reshape(-1, len(g["w"])), g["dy"].reshape(-1, len(g["w"]))
    return np.einsum("no,ni->oi", dy, y)


@rule("dw_is_mean_over_tokens", "dw db", "linear", stage="result")
def _(a: Array, g: Given) -> Array | None:
    tokens = g["x"].size // (g.samples * g["x"].shape[-1])
    return a * (1 / tokens) if tokens > 1 else None


@rule("embedding_gather_assign", "dw", "embedding")
def _(t: Terms, g: Given) -> Terms:
    return keep(t, last_of(t, "sample", "position"))


@rule("embedding_first_only", "dw", "embedding")
def _(t: Terms, g: Given) -> Terms:
    order = np.arange(len(t))
    first = np.full(g["w"].size, len(t))
    np.minimum.at(first, t.cell, order)
    return keep(t, order == first[t.cell])


@rule("embedding_divided_by_count", "dw", "embedding", stage="result")
def _(dw: Array, g: Given) -> Array:
    counts = np.bincount(g["x"].astype(np.int64).reshape(-1), minlength=len(dw))
    return dw / np.maximum(counts, 1)[:, None]


# ---- recurrent: the faults are switches of the table (recurrent.py)

_RNN = "dx dweight_ih_l0 dweight_hh_l0 dbias_ih_l0 dbias_hh_l0 delta"


def _switch(id: str, fault: str, note: str = "", targets: str = _RNN) -> None:
    rule(id, targets, "rnn", stage="given")(lambda g: [(note, g.with_options(fault=fault))])


_switch("transpose_missing", "transpose")
_switch("matrix_product_replaced_by_elementwise", "elementwise", "the sums over w's rows, times delta")
_switch("activation_derivative_missing", "no_tanh")
_switch("tanh_prime_of_activation", "tanh_of_h")
_switch("time_not_carried_back", "not_carried")
_switch("only_last_output", "last_only")
_switch("only_one_use_counted", "first_step", "only the first time step", _RNN.replace("dx", "").replace("delta", ""))
_switch("only_one_use_counted", "last_step", "only the last time step", _RNN.replace("dx", "").replace("delta", ""))
_switch("hidden_state_of_same_step", "same_step", targets="dweight_hh_l0")
_switch("mean_over_time", "mean_time", targets=_RNN.replace("dx", "").replace("delta", ""))
_switch("clipped", "clip", "to −1 … 1", _RNN.replace("dx", "").replace("delta", ""))
