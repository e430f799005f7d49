"""The definition of each kind of layer as tables of terms, one for each array that a person computes.

    TABLES[kind][target](given) -> Terms        its total() is the right answer

Tables of windowed and dense layers carry their columns (:mod:`columns`) in ``use``; helpers at the end rewrite a
table: read a factor elsewhere, add to another cell, keep some rows. The tests compare every total with the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from sharedgrad.checking.columns import Columns, flat, limit_rows
from sharedgrad.checking.given import Given
from sharedgrad.parameter import Array
from sharedgrad.uses.terms import ABSENT, Factor, Terms

Table = Callable[[Given], Terms]


def table(target: str, shape: tuple[int, ...], cell: Array, reads: Mapping[str, tuple[Array, Array]], use: Columns,
          coefficient: Array | None = None) -> Terms:  # fmt: skip
    """Terms from reads: name -> (array, flat index); rows whose cell lies outside the target are dropped."""
    factors = {name: Factor(name, array, index) for name, (array, index) in reads.items()}
    terms = Terms(target, shape, cell, factors, coefficient, use=use)
    return terms if (cell >= 0).all() else terms.rows(np.flatnonzero(cell >= 0))


# ---- convolution


def _conv_index(g: Given) -> dict[str, Array]:
    m = g.meetings
    return {
        "x": flat(g["x"].shape, m["sample"], m["input_channel"], m["source"]),
        "w": flat(g["w"].shape, m["filter"], m["channel"], m["offset"]),
        "y": flat((g.samples, len(g["w"]), *g.positions), m["sample"], m["filter"], m["position"]),
    }


def conv_y(g: Given) -> Terms:
    """y[n,f,o] = b[f] + Σ w[f,c,k] · x[n,c,s]."""
    i = _conv_index(g)
    shape = (g.samples, len(g["w"]), *g.positions)
    return with_bias(table("y", shape, i["y"], {"x": (g["x"], i["x"]), "w": (g["w"], i["w"])}, g.meetings), g)


def conv_dw(g: Given) -> Terms:
    """dw[f,c,k] = Σ dy[n,f,o] · x[n,c,s]."""
    i = _conv_index(g)
    return table("dw", g["w"].shape, i["w"], {"dy": (g["dy"], i["y"]), "x": (g["x"], i["x"])}, g.meetings)


def conv_dx(g: Given) -> Terms:
    """dx[n,c,s] = Σ dy[n,f,o] · w[f,c,k]."""
    i = _conv_index(g)
    return table("dx", g["x"].shape, i["x"], {"dy": (g["dy"], i["y"]), "w": (g["w"], i["w"])}, g.meetings)


def db(g: Given) -> Terms:
    """db[f] = Σ dy[n,f,o]: one term for each sample and position."""
    dy = g["dy"]
    index = np.indices(dy.shape).reshape(dy.ndim, -1).T
    axis = _output_axis(g)
    rest = [a for a in range(1, dy.ndim) if a != axis]
    use = {"sample": index[:, :1], "filter": index[:, axis, None], "position": index[:, rest]}
    return table("db", g["b"].shape, index[:, axis], {"dy": (dy, np.arange(dy.size))}, use)


def _output_axis(g: Given) -> int:
    return g["dy"].ndim - 1 if g.kind == "linear" else 1


def with_bias(products: Terms, g: Given) -> Terms:
    """The products and, if there is a bias, one more term for every cell of y: the bias alone."""
    if "b" not in g or g["b"].size == 0:
        return products
    cells = np.arange(int(np.prod(products.shape)))
    index = np.stack(np.unravel_index(cells, products.shape), axis=1)
    axis = products.shape and (len(products.shape) - 1 if g.kind == "linear" else 1)
    lack = np.full(len(cells), ABSENT)
    none = np.full(len(products), ABSENT)
    reads = {name: (f.array, np.concatenate([f.index, lack])) for name, f in products.factors.items()}
    reads["b"] = (g["b"], np.concatenate([none, index[:, axis]]))
    use = {name: np.concatenate([c, np.full((len(cells), c.shape[1]), ABSENT)]) for name, c in products.use.items()}
    return table("y", products.shape, np.concatenate([products.cell, cells]), reads, use)


# ---- dense: x (N, *T, I), y (N, *T, O)


def _dense(g: Given) -> tuple[Columns, dict[str, Array]]:
    rows = g["x"].reshape(g.samples, -1, g["x"].shape[-1]).shape
    shape = (*rows[:2], *g["w"].shape)
    limit_rows(shape)
    n, t, o, i = np.indices(shape).reshape(4, -1, 1)
    use = {"sample": n, "position": t, "filter": o, "channel": i}
    return use, {
        "x": flat(rows, n, t, i),
        "w": flat(g["w"].shape, o, i),
        "y": flat((*rows[:2], len(g["w"])), n, t, o),
    }


def dense_y(g: Given) -> Terms:
    """y[…,o] = b[o] + Σ_i w[o,i] · x[…,i]."""
    use, i = _dense(g)
    shape = (*g["x"].shape[:-1], len(g["w"]))
    return with_bias(table("y", shape, i["y"], {"x": (g["x"], i["x"]), "w": (g["w"], i["w"])}, use), g)


def dense_dw(g: Given) -> Terms:
    """dw[o,i] = Σ dy[…,o] · x[…,i]."""
    use, i = _dense(g)
    return table("dw", g["w"].shape, i["w"], {"dy": (g["dy"], i["y"]), "x": (g["x"], i["x"])}, use)


def dense_dx(g: Given) -> Terms:
    """dx[…,i] = Σ_o dy[…,o] · w[o,i]."""
    use, i = _dense(g)
    return table("dx", g["x"].shape, i["x"], {"dy": (g["dy"], i["y"]), "w": (g["w"], i["w"])}, use)


# ---- pooling


def winners(g: Given) -> Array:
    """Which rows of the meetings hold the winner of their window; with ties="share", all that are equal (M,)."""
    m, x = g.meetings, g["x"]
    index = flat(x.shape, m["sample"], m["input_channel"], m["source"])
    values = np.where(index >= 0, x.reshape(-1)[index], -np.inf).reshape(-1, g.window.cells)
    equal = values == values.max(axis=1, keepdims=True)
    ties = g.options.get("ties", "first")
    if ties in ("share", "all"):
        return equal.reshape(-1)
    best = equal.argmax(1) if ties == "first" else equal.shape[1] - 1 - equal[:, ::-1].argmax(1)
    return (np.arange(equal.shape[1]) == best[:, None]).reshape(-1)


def _pool_index(g: Given) -> tuple[tuple[int, ...], Array, Array]:
    m = g.meetings
    shape = (*g["x"].shape[:2], *g.positions)
    return shape, flat(shape, m["sample"], m["filter"], m["position"]), flat(
        g["x"].shape, m["sample"], m["input_channel"], m["source"]
    )  # fmt: skip


def max_pool_y(g: Given) -> Terms:
    """y[n,c,o] = x at the winner of the window."""
    shape, y, x = _pool_index(g.with_options(ties="first"))
    terms = table("y", shape, y, {"x": (g["x"], x)}, g.meetings)
    return terms.rows(np.flatnonzero(winners(g.with_options(ties="first"))))


def max_pool_dx(g: Given) -> Terms:
    """dx[n,c,s] = Σ dy[n,c,o] over the windows that s wins (ties share it, if they do)."""
    _, y, x = _pool_index(g)
    won = winners(g)
    counts = won.reshape(-1, g.window.cells).sum(1)
    share = np.repeat(1 / counts, g.window.cells) if g.options.get("ties") == "share" else None
    terms = Terms("dx", g["x"].shape, x, {"dy": Factor("dy", g["dy"], y)}, share, use=g.meetings)
    return terms.rows(np.flatnonzero(won & (x >= 0)))


def avg_pool_weights(g: Given, x: Array) -> Array:
    """1/K for each row, where K counts the padding or not."""
    if g.options.get("count_include_pad", True):
        return np.full(len(x), 1 / g.window.cells)
    inside = (x >= 0).reshape(-1, g.window.cells)
    return np.repeat(1 / inside.sum(1), g.window.cells)


def avg_pool_y(g: Given) -> Terms:
    """y[n,c,o] = Σ x[n,c,s] / K."""
    shape, y, x = _pool_index(g)
    return table("y", shape, y, {"x": (g["x"], x)}, g.meetings, avg_pool_weights(g, x))


def avg_pool_dx(g: Given) -> Terms:
    """dx[n,c,s] = Σ dy[n,c,o] / K."""
    _, y, x = _pool_index(g)
    return table("dx", g["x"].shape, x, {"dy": (g["dy"], y)}, g.meetings, avg_pool_weights(g, x))


# ---- embedding: x holds row numbers (N, T), w (V, D)


def embedding_y(g: Given) -> Terms:
    """y[n,t,d] = w[x[n,t], d]."""
    use, w, y, shape = _lookups(g)
    return table("y", shape, y, {"w": (g["w"], w)}, use)


def embedding_dw(g: Given) -> Terms:
    """dw[r,d] = Σ dy[n,t,d] over the places where x[n,t] = r."""
    use, w, y, _ = _lookups(g)
    return table("dw", g["w"].shape, w, {"dy": (g["dy"], y)}, use)


def _lookups(g: Given) -> tuple[Columns, Array, Array, tuple[int, ...]]:
    rows = g["x"].astype(np.int64)
    shape = (*rows.shape, g["w"].shape[1])
    place, d = (i.reshape(-1, 1) for i in np.indices((rows.size, shape[-1])))
    row = rows.reshape(-1)[place]
    use = {"sample": place // max(rows[0].size, 1), "position": place % max(rows[0].size, 1), "channel": d, "row": row}
    return use, flat(g["w"].shape, row, d), flat((rows.size, shape[-1]), place, d), shape


def branch_dx(g: Given) -> Terms:
    """dx = Σ of the gradients that the readers of one value send back; "dy" holds them, the readers first."""
    dy = g["dy"]
    place = np.arange(dy[0].size)
    cell, branch = np.tile(place, len(dy)), np.repeat(np.arange(len(dy)), len(place))
    return table("dx", dy.shape[1:], cell, {"dy": (dy, np.arange(dy.size))}, {"branch": branch[:, None]})


TABLES: dict[str, dict[str, Table]] = {
    "conv": {"y": conv_y, "dx": conv_dx, "dw": conv_dw, "db": db},
    "linear": {"y": dense_y, "dx": dense_dx, "dw": dense_dw, "db": db},
    "max_pool": {"y": max_pool_y, "dx": max_pool_dx},
    "avg_pool": {"y": avg_pool_y, "dx": avg_pool_dx},
    "branch": {"dx": branch_dx},
    "embedding": {"y": embedding_y, "dw": embedding_dw},
}


# ---- rewriting a table


def reads(terms: Terms, name: str, *columns: Array) -> Terms:
    """The same terms, with one factor read at the cells that the columns name (0 outside)."""
    factor = terms.factors[name]
    index = np.where(factor.index == ABSENT, ABSENT, flat(factor.array.shape, *columns))
    return replace(terms, factors={**terms.factors, name: replace(factor, index=index)})


def without(terms: Terms, name: str) -> Terms:
    """The same terms without one factor."""
    return replace(terms, factors={n: f for n, f in terms.factors.items() if n != name})


def adds_to(terms: Terms, *columns: Array, shape: tuple[int, ...] | None = None) -> Terms:
    """The same products, added to the cells that the columns name; those outside the target are lost."""
    shape = shape or terms.shape
    cell = flat(shape, *columns)
    return replace(terms, shape=shape, cell=cell).rows(np.flatnonzero(cell >= 0))


def scaled(terms: Terms, factor: float | Array) -> Terms:
    """The same terms, each multiplied by a number."""
    ones = np.ones(len(terms)) if terms.coefficient is None else terms.coefficient
    return replace(terms, coefficient=ones * factor)


def keep(terms: Terms, rows: Array) -> Terms:
    """The terms of a mask (M,)."""
    return terms.rows(np.flatnonzero(rows))


def last_of(terms: Terms, *names: str) -> Array:
    """A mask: the rows that come last for their cell when the loops assign instead of adding.

    Rows with the same values in the columns ``names`` happen at once (one array assignment of a loop's body), so they
    still add up among themselves.
    """
    steps = np.concatenate([terms.use[name] for name in names], axis=1)
    step = np.ravel_multi_index(tuple(steps.T), tuple(steps.max(axis=0, initial=0) + 1)) if len(steps) else steps[:, 0]
    latest = np.full(int(np.prod(terms.shape)), -1)
    np.maximum.at(latest, terms.cell, step)
    return step == latest[terms.cell]
