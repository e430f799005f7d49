"""The gradient of a convolution's input, twice: as a scatter, and as a gather with the kernel turned."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sharedgrad.document.blocks import Block, Equation, Grid, Paragraph, Row, Section
from sharedgrad.document.expression import Affine, Cell, Entry, Expression, LeftOut, Product, Sigma, Sum, Symbol
from sharedgrad.explaining.cells import Limits, equations, grid, sums, wanted
from sharedgrad.explaining.general import CELL, OFFSET, variables
from sharedgrad.explaining.names import Names
from sharedgrad.geometry import Geometry
from sharedgrad.graph import Node
from sharedgrad.parameter import Array

_OVERLAYS = 6  # more of them say nothing new
ROTATION = (
    "Why is the kernel turned here and not above? Scattering asks, for each output position: which input cells did the "
    "window touch? The kernel lies on them as it did going forward, unturned. Gathering asks, for each input cell: "
    "which outputs did it go into, through which weight? The cell met the first weight of the kernel in the last "
    "window "
    "that covers it, and the last weight in the first window: going forward through the outputs is going backward "
    "through the kernel. So a kernel that slides over dy has to be turned by 180°. The products are the same, "
    "only in another order; each of them is added once in both."
)


def both_ways(names: Names, node: Node, limits: Limits) -> list[Block]:
    """Scatter, then gather, on the same numbers."""
    dx = names.dx(node)
    ways = [_scatter(names, node, dx, limits), _gather(names, node, dx, limits)]
    return [section for section in ways if section is not None]


# ---- scatter


def _scatter(names: Names, node: Node, dx: Symbol, limits: Limits) -> Section:
    """dx starts as zeros; each position adds its kernel, times its dy, to its window."""
    dy = names.gradient(node.name)
    assert dy is not None
    opening = Paragraph.of(
        f"{dx.key} starts as zeros. At each output position the kernel is multiplied by the dy of that position and "
        "added to the window that the position read; with several filters, each adds its own."
    )
    blocks: list[Block] = [opening]
    if dx.array.size <= limits.grid // 4 or not limits.how:
        overlays = list(_overlays(names, node, dy, dx))
        active = [overlay for overlay in overlays if overlay[3]]
        for patch, after, marks, _, where in active[: max(_OVERLAYS, limits.few)]:
            blocks += _overlay(names, node, dx, patch, after, marks, where)
        blocks += _not_shown(len(active) - max(_OVERLAYS, limits.few), len(overlays) - len(active))
    terms = names.input_terms(node, 0, wanted(dx, limits))
    if terms is not None:
        blocks += [Paragraph.of("Cell by cell:"), sums(dx, terms, names.of_factors(node, terms), limits)]
    return Section("Scatter: add the kernel into each window", (*blocks, grid(dx, limits)), f"{dx.key}.scatter")


def _overlays(
    names: Names, node: Node, dy: Symbol, dx: Symbol
) -> Iterator[tuple[Array, Array, dict[tuple[int, ...], str], bool, str]]:
    """Every position: what it adds (C, *K), dx after it, the cells it touched, whether it adds anything, its name."""
    layer, g = node.layer, node.layer.geometry  # type: ignore[attr-defined]
    w, so_far = layer.weight.value, np.zeros_like(dx.array)  # type: ignore[attr-defined]
    spatial = dx.array.shape[2:]
    for n in range(len(dy.array)):
        for position in np.ndindex(*dy.array.shape[2:]):
            patch = _patch(dy.array[(n, slice(None), *position)], w, g)
            marks: dict[tuple[int, ...], str] = {}
            for offset in np.ndindex(*g.kernel):
                cell = g.source(position, offset)
                if all(0 <= i < size for i, size in zip(cell, spatial, strict=True)):
                    so_far[(n, slice(None), *cell)] += patch[(slice(None), *offset)]
                    marks.update({(n, c, *cell): "used" for c in range(dx.array.shape[1])})
            visible = [
                i for i, size in zip((n, *position), (len(dy.array), *dy.array.shape[2:]), strict=True) if size > 1
            ]
            yield patch, so_far.copy(), marks, bool(patch.any()), f"[{','.join(map(str, visible))}]" if visible else ""


def _patch(delta: Array, w: Array, g: Geometry) -> Array:
    """Σ_f dy[f] · w[f] (C, *K), group by group."""
    filters = len(w) // g.groups
    parts = [
        np.tensordot(delta[b * filters : (b + 1) * filters], w[b * filters : (b + 1) * filters], 1)
        for b in range(g.groups)
    ]
    return np.concatenate(parts)


def _overlay(
    names: Names, node: Node, dx: Symbol, patch: Array, after: Array, marks: dict[tuple[int, ...], str], where: str
) -> list[Block]:
    w = names.seen(node, "weight")
    added = _like(f"dy{where}·{w.name}" if len(w.array) == 1 else f"added at {where}", patch)
    so_far = Symbol(f"{dx.name} so far", after, dx.owner, dx.hidden)
    return [Row((Grid(added), "added into the window:", Grid(so_far, marks)))]


def _like(name: str, array: Array) -> Symbol:
    return Symbol(name, array, "", tuple(a for a, n in enumerate(array.shape) if n == 1))


def _not_shown(more: int, zeros: int) -> list[Block]:
    words = []
    if more > 0:
        words.append(f"{more:,} more positions add to their windows in the same way")
    if zeros:
        words.append(f"at {zeros:,} positions dy is 0 and nothing is added")
    return [Paragraph.of(f"({'; '.join(words)}.)")] if words else []


# ---- gather


def _gather(names: Names, node: Node, dx: Symbol, limits: Limits) -> Section | None:
    """dx[u] = Σ_k turned[k] · spread[u + k·dilation]."""
    g = node.layer.geometry  # type: ignore[attr-defined]
    dy, w = names.gradient(node.name), names.seen(node, "weight")
    assert dy is not None
    flipped = np.flip(w.array, tuple(range(2, w.array.ndim))).copy()
    turned = names.helper(f"{w.name}_turned", flipped, node.name)
    spread = names.helper("dy_spread", _spread(dy.array, g, dx.array.shape[2:]), node.name)

    def right(cell: Cell) -> Expression:
        assert cell.index is not None
        n, c, *place = cell.index
        products: list[Expression] = []
        for f in _filters(c, w.array, g):
            for k in np.ndindex(*g.kernel):
                read = [u + i * d for u, i, d in zip(place, k, g.dilation, strict=True)]
                products.append(Product((turned.cell(f, c % w.array.shape[1], *k), spread.cell(n, f, *read))))
        return _without_zeros(products, limits)

    blocks: list[Block] = [
        Paragraph.of(_preparation(g)),
        Row((Grid(w), "turned by 180°:", Grid(turned))) if w.array.size <= limits.grid // 4 else grid(turned, limits),
        grid(spread, limits),
    ]
    if g.groups == 1:
        blocks.append(_formula(dx, turned, spread, g))
    blocks += [equations(dx, limits, right), Paragraph.of(ROTATION)]
    return Section("Gather: slide the turned kernel over dy", tuple(blocks), f"{dx.key}.gather")


def _filters(channel: int, w: Array, g: Geometry) -> range:
    """The filters that see a channel."""
    per_group, group = len(w) // g.groups, channel // w.shape[1]
    return range(group * per_group, (group + 1) * per_group)


def _without_zeros(products: list[Expression], limits: Limits) -> Expression:
    if len(products) <= limits.terms:
        return Sum(tuple(products))
    kept = [p for p in products if p.value != 0]
    what = "terms that are 0"
    if len(kept) > limits.terms:
        kept, what = sorted(kept, key=lambda p: -abs(p.value))[: limits.terms], "more terms"
    rest = [p for p in products if not any(p is k for k in kept)]
    return Sum(tuple(kept), LeftOut(len(rest), sum(p.value for p in rest), what))


def _spread(dy: Array, g: Geometry, spatial: tuple[int, ...]) -> Array:
    """dy with stride − 1 zeros between its cells and as many around them that the turned kernel covers all of dx."""
    sizes = [n + d * (k - 1) for n, d, k in zip(spatial, g.dilation, g.kernel, strict=True)]
    wide = np.zeros((*dy.shape[:2], *sizes))
    for position in np.ndindex(*dy.shape[2:]):
        place = [
            o * s - before + d * (k - 1)
            for o, s, (before, _), d, k in zip(position, g.stride, g.padding, g.dilation, g.kernel, strict=True)
        ]
        if all(0 <= i < n for i, n in zip(place, sizes, strict=True)):  # a window in the padding alone reaches no cell
            wide[(slice(None), slice(None), *place)] = dy[(slice(None), slice(None), *position)]
    return wide


def _preparation(g: Geometry) -> str:
    steps = []
    if any(s > 1 for s in g.stride):
        steps.append(
            f"{_each([s - 1 for s in g.stride])} zeros are put between its cells, because the kernel moved by more "
            "than one"
        )
    steps.append("zeros are put around it, so that the kernel reaches every cell of dx")
    dilated = (
        " The cells of the kernel stay as far apart as its dilation says." if any(d > 1 for d in g.dilation) else ""
    )
    return f"The same sum, asked from the side of the input. dy is spread first: {'; '.join(steps)}.{dilated}"


def _each(numbers: list[int]) -> str:
    return str(numbers[0]) if len(set(numbers)) == 1 else "×".join(map(str, numbers))


def _formula(dx: Symbol, turned: Symbol, spread: Symbol, g: Geometry) -> Equation:
    _, (n, c) = variables(dx.array.shape[:2], "nc")
    over_f, (f,) = variables([len(turned.array)], "f")
    _, u = variables(dx.array.shape[2:], CELL[: g.rank])
    over_k, k = variables(g.kernel, OFFSET[: g.rank])
    met = [a + Affine({name: x * d for name, x in b.factors.items()}) for a, b, d in zip(u, k, g.dilation, strict=True)]
    body = Product((Entry(turned, (f, c, *k)), Entry(spread, (n, f, *met))))
    over = {**over_f, **over_k}
    return Equation(Entry(dx, (n, c, *u)), Sigma(over, body) if over else body)
