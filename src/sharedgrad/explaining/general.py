"""The general formulas of layers, as trees whose indices are variables: a test evaluates them at every index.

Letters: n sample, f filter, c channel, i and j the position, k and l the offset in the kernel, u and v a cell of the
input; axes of length 1 are not written.
"""

from __future__ import annotations

from collections.abc import Sequence

from sharedgrad.document.blocks import Equation
from sharedgrad.document.expression import (
    Affine,
    Entry,
    Expression,
    Function,
    Largest,
    Number,
    Product,
    Quotient,
    Sigma,
    Sum,
    Symbol,
)
from sharedgrad.explaining.names import Names
from sharedgrad.geometry import Geometry
from sharedgrad.graph import Node

POSITION, OFFSET, CELL = "ijh", "klm", "uvt"


def variables(shape: Sequence[int], letters: Sequence[str]) -> tuple[dict[str, range], tuple[Affine, ...]]:
    """A variable for every axis that is longer than 1: their ranges, and the index that they make."""
    over = {letter: range(n) for letter, n in zip(letters, shape, strict=True) if n > 1}
    return over, tuple(Affine.of(letter) if n > 1 else Affine() for letter, n in zip(letters, shape, strict=True))


def _read(symbol: Symbol, *index: Affine) -> Entry:
    return Entry(symbol, index)


def _sum(over: dict[str, range], body: Expression) -> Expression:
    return Sigma(over, body) if over else body


def _meets(g: Geometry, i: Sequence[Affine], k: Sequence[Affine]) -> list[Affine]:
    """position·stride − padding + offset·dilation, on each axis."""
    return [
        Affine({n: f * s for n, f in a.factors.items()}) + Affine({n: f * d for n, f in b.factors.items()}) + (-before)
        for a, b, s, d, (before, _) in zip(i, k, g.stride, g.dilation, g.padding, strict=True)
    ]


def convolution(names: Names, node: Node) -> dict[str, Equation]:
    """y, dw, db and dx of a convolution without groups that pads with zeros: key -> general formula."""
    layer, g = node.layer, node.layer.geometry  # type: ignore[attr-defined]
    x, y, dy = names.value(node.inputs[0]), names.value(node.name), names.gradient(node.name)
    w = names.seen(node, "weight")
    samples, filters, *positions = y.array.shape
    over_n, (n,) = variables([samples], "n")
    _, (f,) = variables([filters], "f")
    over_c, (c,) = variables([x.array.shape[1]], "c")
    over_i, i = variables(positions, POSITION[: g.rank])
    over_k, k = variables(g.kernel, OFFSET[: g.rank])
    met = _meets(g, i, k)
    products = _sum({**over_c, **over_k}, Product((_read(w, f, c, *k), _read(x, n, c, *met))))
    bias = layer.bias  # type: ignore[attr-defined]
    terms = products if bias is None else Sum((products, _read(names.seen(node, "bias"), f)))
    found = {"y": Equation(_read(y, n, f, *i), terms)}
    if dy is None:
        return found
    everywhere = {**over_n, **over_i}
    delta = _read(dy, n, f, *i)
    if (dw := names.weight_gradient(layer.weight)) is not None:  # type: ignore[attr-defined]
        found["dw"] = Equation(_read(dw, f, c, *k), _sum(everywhere, Product((delta, _read(x, n, c, *met)))))
    if bias is not None and (db := names.weight_gradient(bias)) is not None:
        found["db"] = Equation(_read(db, f), _sum(everywhere, delta))
    return found


def linear(names: Names, node: Node) -> dict[str, Equation]:
    """y, dw, db and dx of a dense layer; the axes between the sample and the features are tokens."""
    layer = node.layer
    x, y, dy = names.value(node.inputs[0]), names.value(node.name), names.gradient(node.name)
    w, bias = names.seen(node, "weight"), layer.bias  # type: ignore[attr-defined]
    outputs, inputs = w.array.shape
    over_u, u = variables(y.array.shape[:-1], ["n", "t", "s", "r"][: y.array.ndim - 1])
    over_o, (o,) = variables([outputs], "o")
    over_i, (i,) = variables([inputs], "i")
    products = _sum(over_i, Product((_read(w, o, i), _read(x, *u, i))))
    terms = products if bias is None else Sum((products, _read(names.seen(node, "bias"), o)))
    found = {"y": Equation(_read(y, *u, o), terms)}
    if dy is None:
        return found
    if (dw := names.weight_gradient(layer.weight)) is not None:  # type: ignore[attr-defined]
        found["dw"] = Equation(_read(dw, o, i), _sum(over_u, Product((_read(dy, *u, o), _read(x, *u, i)))))
    if bias is not None and (db := names.weight_gradient(bias)) is not None:
        found["db"] = Equation(_read(db, o), _sum(over_u, _read(dy, *u, o)))
    dx = names.dx(node)
    found["dx"] = Equation(_read(dx, *u, i), _sum(over_o, Product((_read(dy, *u, o), _read(w, o, i)))))
    return found


def pooling(names: Names, node: Node) -> dict[str, Equation]:
    """y of a pooling layer; where its gradient goes depends on the numbers."""
    x, y, g = names.value(node.inputs[0]), names.value(node.name), node.layer.geometry  # type: ignore[attr-defined]
    _, i = variables(y.array.shape[2:], POSITION[: g.rank])
    over_k, k = variables(g.kernel, OFFSET[: g.rank])
    _, (n, c) = variables(y.array.shape[:2], "nc")
    window = _read(x, n, c, *_meets(g, i, k))
    if type(node.layer).__name__.startswith("Max"):
        return {"y": Equation(_read(y, n, c, *i), Largest(over_k, window) if over_k else window)}
    if any(before or after for before, after in g.padding) and not node.layer.count_include_pad:  # type: ignore[attr-defined]
        return {}
    mean = Product((Quotient(Number(1), Number(float(g.cells))), _sum(over_k, window)))
    return {"y": Equation(_read(y, n, c, *i), mean)}


def elementwise(names: Names, node: Node, function: str) -> dict[str, Equation]:
    """y of a function that is applied to every number."""
    x, y = names.value(node.inputs[0]), names.value(node.name)
    letters = ["n", "c", *POSITION][: y.array.ndim] if y.array.ndim > 2 else ["n", "i"][: y.array.ndim]
    _, index = variables(y.array.shape, letters)
    return {"y": Equation(_read(y, *index), Function(function, (_read(x, *index),)))}


def formulas(names: Names, node: Node) -> dict[str, Equation]:
    """The general formulas of a node, by what they give: "y", "dw", "db", "dx"; those that there are."""
    kind = type(node.layer).__name__
    if kind in ("Conv1d", "Conv2d", "Conv3d"):
        plain = node.layer.groups == 1 and node.layer.padding_mode == "zeros"  # type: ignore[attr-defined]
        return convolution(names, node) if plain else {}
    if kind == "Linear":
        return linear(names, node)
    if kind.startswith(("MaxPool", "AvgPool")):
        return pooling(names, node)
    if kind in ("Sigmoid", "Tanh", "ReLU"):
        return elementwise(names, node, kind.lower())
    return {}
