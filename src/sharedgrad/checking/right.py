"""The right answer to every array of every kind of layer, as a table of terms where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from sharedgrad import losses
from sharedgrad.checking import elementwise, recurrent
from sharedgrad.checking.columns import MOST_ROWS
from sharedgrad.checking.given import Given
from sharedgrad.checking.tables import TABLES
from sharedgrad.errors import ConfigError
from sharedgrad.layers import Context
from sharedgrad.layers.layer import Layer
from sharedgrad.parameter import Array
from sharedgrad.uses.terms import Terms

KINDS: dict[str, str] = {
    **{f"Conv{d}d": "conv" for d in (1, 2, 3)},
    **{f"MaxPool{d}d": "max_pool" for d in (1, 2, 3)},
    **{f"AvgPool{d}d": "avg_pool" for d in (1, 2, 3)},
    "Linear": "linear", "Embedding": "embedding", "RNN": "rnn", "ReLU": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh",
    "Softmax": "softmax", "LogSoftmax": "log_softmax", "Flatten": "flatten", "Reshape": "reshape",
}  # fmt: skip
SHORT = {"weight": "w", "bias": "b"}
UPDATES = {"w_updated": "dw", "b_updated": "db"}
_SHORT_KINDS = ("conv", "linear", "embedding")
_CURVES = ("relu", "sigmoid", "tanh", "softmax", "log_softmax")
LOSSES = {"cross_entropy": losses.CrossEntropy, "mse": losses.MSE, "binary_cross_entropy": losses.BinaryCrossEntropy}


def of_layer(layer: Layer, x: Array, dy: Array | None = None, **options: Any) -> Given:
    """The numbers of one call of a layer; other kinds than those with tables keep the layer's own parameter names."""
    kind = KINDS.get(type(layer).__name__, "layer")
    named = {n: np.asarray(p.value, np.float64) for n, p in layer.parameters().items()}
    if kind in _SHORT_KINDS:
        named = {SHORT.get(n, n): value for n, value in named.items()}
    arrays = {"x": np.asarray(x, np.float64), **named}
    if dy is not None:
        arrays["dy"] = np.asarray(dy, np.float64)
    for name in ("ties", "padding_mode", "count_include_pad", "axis", "last"):
        if hasattr(layer, name):
            options.setdefault(name, getattr(layer, name))
    return Given(kind, arrays, getattr(layer, "geometry", None), options, layer)


def targets(given: Given) -> list[str]:
    """The arrays that can be asked for."""
    if given.kind in LOSSES:
        return ["y", "dx"]
    if given.kind == "rnn":
        return ["y", "delta", *parameters(given), "dx"]
    wanted = ["y"]
    if "dy" in given:
        wanted += parameters(given)
        if given.kind != "embedding":
            wanted.append("dx")
    return wanted


def parameters(given: Given) -> list[str]:
    """Names of the gradients of its parameters."""
    if given.layer is None:
        return [f"d{name}" for name in ("w", "b") if name in given]
    short = given.kind in _SHORT_KINDS
    return [f"d{SHORT.get(name, name) if short else name}" for name in given.layer.parameters()]


def right(given: Given, target: str) -> Terms | Array:
    """The right array, as terms where the kind has a table.

    Raises:
        ConfigError: There is no such array.
    """
    tables = TABLES.get(given.kind, {})
    if target in UPDATES:
        gradient = total(right(given, UPDATES[target]))
        return gradient * given.options.get("learning_rate", 1.0)
    if target in tables and not too_large(given):
        return tables[target](given)
    if given.kind in _CURVES and target in ("y", "dx"):
        return elementwise.activation_y(given) if target == "y" else elementwise.activation_dx(given)
    if given.kind in LOSSES:
        return _loss(given)[target]
    if given.kind == "layer" and target == "dx":
        return _input_terms(given)
    found = recurrent.backward(given) if given.kind == "rnn" else engine(given)
    if target not in found:
        raise ConfigError("answers", f"{given.kind} has no array {target!r}", f"choose from {', '.join(found)}")
    return found[target]


def too_large(given: Given) -> bool:
    """Whether there are too many products for a table; the engine still knows the answer."""
    if given.layer is None or given.kind not in ("conv", "linear", "max_pool", "avg_pool"):
        return False
    x = given["x"]
    if given.kind == "linear":
        return x.size * len(given["w"]) > MOST_ROWS
    reads = given["w"].size if "w" in given else x.shape[1] * given.window.cells
    return given.samples * prod(given.positions) * reads > MOST_ROWS


def total(result: Terms | Array) -> Array:
    """The array that terms add up to."""
    return result.total() if isinstance(result, Terms) else result


def magnitude(result: Terms | Array) -> Array:
    """Σ |terms| of each cell: what rounding errors of a sum are measured by."""
    if isinstance(result, Terms):
        sums = np.bincount(result.cell, np.abs(result.values), minlength=int(np.prod(result.shape)))
        return sums.reshape(result.shape)
    return np.abs(result) + (np.abs(result).max() if result.size else 0.0)


def _loss(given: Given) -> dict[str, Array]:
    names = ("reduction", "label_smoothing", "from_logits")
    loss = LOSSES[given.kind](**{n: given.options[n] for n in names if n in given.options})
    target = given["target"].astype(np.int64) if given.kind == "cross_entropy" else given["target"]
    value, upstream = loss(given["x"], target)
    return {"y": np.array(value), "dx": upstream}


def engine(given: Given) -> dict[str, Array]:
    """What the layer itself computes: y, and with an upstream gradient every gradient, under the names used here."""
    assert given.layer is not None
    inputs = _inputs(given)
    y, saved = given.layer.forward(*inputs, context=_context(given))
    found = {"y": y}
    if "dy" in given:
        dxs, uses = given.layer.backward(saved, given["dy"].reshape(y.shape), [True] * len(inputs))
        named = {id(p): n for n, p in given.layer.parameters().items()}
        for use in uses:
            name = named[id(use.weight)]
            name = f"d{SHORT.get(name, name) if given.kind in _SHORT_KINDS else name}"
            found[name] = found[name] + use.gradient if name in found else use.gradient
        found.update({f"dx{n or ''}": dx for n, dx in enumerate(dxs) if dx is not None})
    return found


def _input_terms(given: Given) -> Terms | Array:
    """dx as the layer's own terms; as an array where it does not give them, or too many."""
    assert given.layer is not None
    y, saved = given.layer.forward(*_inputs(given), context=_context(given))
    try:
        return given.layer.input_terms(saved, given["dy"].reshape(y.shape))
    except ConfigError:
        return engine(given)["dx"]


def _context(given: Given) -> Context:
    return Context(training=bool(given.options.get("training", True)))


def _inputs(given: Given) -> Sequence[Array]:
    return [given["x"], *(given.arrays[f"x{n}"] for n in range(1, 9) if f"x{n}" in given)]
