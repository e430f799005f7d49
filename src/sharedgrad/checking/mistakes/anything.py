"""Mistakes that any layer's gradient can have: signs, factors left out, wrong shapes, updates."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import numpy as np

from sharedgrad.checking.given import Given
from sharedgrad.checking.rules import rule
from sharedgrad.checking.tables import conv_dw, dense_dw, keep, scaled, without
from sharedgrad.parameter import Array
from sharedgrad.uses.terms import Terms

GRADIENTS = (
    "dx dw db delta dweight dbias dweight_ih_l0 dweight_hh_l0 dbias_ih_l0 dbias_hh_l0 "
    "w_updated b_updated"
)  # fmt: skip


@rule("sign_flipped", GRADIENTS, stage="result")
def _(result: Array, g: Given) -> Array:
    return -result


@rule("upstream_ignored", "dx dw", "conv linear avg_pool max_pool layer")
def _(t: Terms, g: Given) -> Terms:
    return without(t, "dy")


@rule("input_ignored", "dw", "conv linear")
def _(t: Terms, g: Given) -> Terms:
    return without(t, "x")


@rule("weight_ignored", "dx", "conv linear")
def _(t: Terms, g: Given) -> Terms:
    return without(t, "w")


@rule("dx_overwritten", "dx", "layer")
def _(t: Terms, g: Given) -> Terms | None:
    latest = np.zeros(int(np.prod(t.shape)), np.int64)
    latest[t.cell] = np.arange(len(t))  # of terms for the same cell the last one remains
    return t.rows(latest[np.unique(t.cell)]) if len(np.unique(t.cell)) < len(t) else None


@rule("values_not_signed", "dx dw db", "conv linear max_pool avg_pool", stage="result")
def _(result: Array, g: Given) -> Array:
    return np.abs(result)


@rule("normalized", "dx dw db", stage="result")
def _(result: Array, g: Given) -> Iterator[tuple[str, Array]]:
    length = float(np.sqrt((result**2).sum()))
    if length > 0 and result.size > 1:
        yield "divided by its length", result / length
        yield "divided by its largest value", result / np.abs(result).max()


@rule("shape_of_gradient_wrong", "dw", "conv linear", stage="result")
def _(dw: Array, g: Given) -> Iterator[tuple[str, Array]]:
    for axis in range(dw.ndim):
        if dw.shape[axis] > 1:
            shortened = dw.sum(axis, keepdims=True)
            yield f"summed over axis {axis} and spread again", np.broadcast_to(shortened, dw.shape)


@rule("flatten_order", "dx", "flatten reshape", stage="result")
def _(_: Array, g: Given) -> Iterator[tuple[str, Array]]:
    shape = g["x"].shape[1:]
    for order in permutations(range(len(shape))):
        if order != tuple(range(len(shape))):
            back = np.argsort(order)
            unrolled = g["dy"].reshape(g.samples, *(shape[a] for a in order))
            yield f"axes in the order {order}", unrolled.transpose(0, *(b + 1 for b in back))


@rule("flatten_order", "y", "flatten", stage="result")
def _(_: Array, g: Given) -> Iterator[tuple[str, Array]]:
    axes = range(1, g["x"].ndim)
    for order in permutations(axes):
        if order != tuple(axes):
            yield f"axes in the order {order}", g["x"].transpose(0, *order).reshape(g.samples, -1)


# ---- updates; what is changed is the step, w_new = w − step


@rule("shared_weight_set_to_mean", "w_updated", "conv", stage="result")
def _(step: Array, g: Given) -> Array:
    return step / float(np.prod(g.positions))


@rule("bias_not_updated", "b_updated", stage="result")
def _(step: Array, g: Given) -> Array:
    return np.zeros_like(step)


@rule("weights_not_updated", "w_updated", stage="result")
def _(step: Array, g: Given) -> Array:
    return np.zeros_like(step)


@rule("learning_rate_missing", "w_updated b_updated", stage="result")
def _(step: Array, g: Given) -> Iterator[tuple[str, Array]]:
    rate = g.options.get("learning_rate", 1.0)
    if rate not in (0.0, 1.0):
        yield "left out", step / rate
        yield "twice", step * rate


@rule("gradient_for_weight", "w_updated b_updated", stage="result")
def _(step: Array, g: Given) -> Iterator[tuple[str, Array]]:
    value = g["w" if step.shape == g["w"].shape else "b"] if "w" in g else None
    if value is not None and value.shape == step.shape:
        yield "only the step itself, the old weight left out", value - step
        yield "the old weight left out, with a minus", value + step


# ---- between layers


@rule("residual_not_summed", "dx", "branch")
def _(t: Terms, g: Given) -> Iterator[tuple[str, Terms]]:
    for name in sorted({int(b) for b in t.use["branch"][:, 0]}):
        yield f"only branch {name}", keep(t, t.use["branch"][:, 0] == name)


@rule("node_visited_per_path", "dx", "branch")
def _(t: Terms, g: Given) -> Terms:
    return scaled(t, int(t.use["branch"].max()) + 1)


@rule("upstream_from_updated_weights", "dx", "conv linear", stage="given")
def _(g: Given) -> Given | None:
    rate = g.options.get("learning_rate", 0.0)
    if not rate:
        return None
    gradient = conv_dw(g) if g.kind == "conv" else dense_dw(g)
    return g.replaced(w=g["w"] - rate * gradient.total())
