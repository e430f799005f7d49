"""Norms and inner products of sums of uses, over one or several calls of one weight, in bounded memory.

With S_k the sum of the uses of group k, in all calls:

    ‖S_k‖² = Σ_{u,v in k} ⟨g_u, g_v⟩                          the Gram form
    ⟨δ_u ⊗ p_u, δ_v ⊗ p_v⟩  = Σ_b (δ_u,b · δ_v,b)(p_u,b · p_v,b)     Outer or Window with Outer or Window
    ⟨lookup u, lookup v⟩    = [row_u = row_v] δ_u · δ_v             sums sparse by row, where all are lookups
    ⟨lookup u, δ_v ⊗ p_v⟩   = δ_v[row_u] (δ_u · p_v)

or from the sums S_k themselves, materialized a few groups at a time. Whichever costs fewer multiplications is taken;
pairs of kinds that have no closed form are materialized. All is added in float64. Where nearly all of a Gram sum
cancels, its rounding would show: such groups are materialized after all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from sharedgrad import kernels
from sharedgrad.parameter import Array
from sharedgrad.uses.arrays import boxes, plain
from sharedgrad.uses.base import Uses
from sharedgrad.uses.direct import Direct
from sharedgrad.uses.limits import get_memory_limit
from sharedgrad.uses.lookup import Lookup, Rows
from sharedgrad.uses.outer import Outer
from sharedgrad.uses.window import Window

Calls = Sequence[Uses]
Names = Sequence[str]

_CANCELLED = 1e-7  # of (Σ‖g_u‖)²; below it a Gram sum has lost more than half of float64's digits


def group_squares(calls: Calls, names: Names) -> Array:
    """‖S_k‖² (K,) in float64 for each index k of the named axes, which all calls have in the same lengths."""
    calls = _aligned(calls)
    first = calls[0]
    if len(calls) == 1 and set(names) == set(first.axes):
        return first.grouped(first.squared(), names)[:, 0]
    if len(calls) == 1 and isinstance(first, Window) and tuple(names) == ("sample",):
        return kernels.of(first.small).conv_kernel_squares(first.small, first.big, first.geometry)
    if all_lookups(calls):
        return _lookup_squares(calls, names)
    gram = _gram_is_cheaper(calls, names, names)
    found = np.zeros(first.lengths(names))
    for box in boxes(found.shape, _groups_at_once(calls, names, gram)):
        parts = [call.in_box(names, box) for call in calls]
        squares = _squares_from_gram(parts, names) if gram else _squares_from_sums(parts, names)
        found[box] = squares.reshape(found[box].shape)
    return found.reshape(-1)


def group_products(calls: Calls, others: Calls, names: Names) -> Array:
    """⟨S_k, S'_l⟩ (K, L) in float64: k over groups of ``calls``, l over groups of ``others``, by the same axes."""
    together = _aligned([*calls, *others])
    calls, others = together[: len(calls)], together[len(calls) :]
    if all_lookups(together):
        return _lookup_products(calls, others, names)
    gram = _gram_is_cheaper(together, names, ())
    rows, columns = calls[0].lengths(names), others[0].lengths(names)
    found = np.zeros((*rows, *columns))
    for box in boxes(rows, _groups_at_once(calls, names, gram, squared=True)):
        left = [call.in_box(names, box) for call in calls]
        for other in boxes(columns, _groups_at_once(others, names, gram, squared=True)):
            right = [call.in_box(names, other) for call in others]
            products = _products_from_gram if gram else _products_from_sums
            found[(*box, *other)] = products(left, right, names).reshape(found[(*box, *other)].shape)
    return found.reshape(prod(rows), prod(columns))


# ---- which calls see the same cells of the weight


def _aligned(calls: Calls) -> list[Uses]:
    """The calls, outer products of a transposed matrix turned to how the others see it."""
    fixed = [call for call in calls if not _can_swap(call)]
    target = (fixed or calls)[0].view.uncast
    turned = []
    for call in calls:
        if call.view.uncast != target and _can_swap(call) and isinstance(call, Outer):
            swapped = call.swapped()
            call = swapped if swapped.view.uncast == target else call
        turned.append(call)
    return turned


def _can_swap(call: Uses) -> bool:
    return isinstance(call, Outer) and call.blocks[0] == 1 and len(call.seen) == 2


def _apart(a: Uses, b: Uses) -> bool:
    """Whether the calls see slices of the weight that have no cell in common."""
    pairs = zip(a.view.parts or (), b.view.parts or (), strict=False)
    sets = [tuple({part} if isinstance(part, int) else set(part) for part in pair) for pair in pairs]
    return any(not (left & right) for left, right in sets)


def _same(calls: Calls) -> bool:
    return all(call.view.uncast == calls[0].view.uncast for call in calls)


# ---- which of the two costs less


def _blocks(call: Uses) -> tuple[int, int, int] | None:
    """B, O and I of outer products, also of windows."""
    if isinstance(call, Outer):
        return call.blocks
    if isinstance(call, Window):
        groups, (filters, channels, *cells) = call.geometry.groups, call.kernel
        return groups, filters // groups, channels * prod(cells)
    return None


def _pair_cost(a: Uses, b: Uses) -> float | None:
    """Multiplications for one inner product between uses; None where there is no closed form."""
    if _apart(a, b):
        return 0
    if a.view.uncast != b.view.uncast or isinstance(a, Direct) or isinstance(b, Direct):
        return None
    left, right = _blocks(a), _blocks(b)
    if left is not None and right is not None:
        return left[0] * (left[1] + left[2]) if left == right else None
    outer = left or right
    return a.seen[-1] if outer is None or outer[0] == 1 else None


def _gram_is_cheaper(calls: Calls, names: Names, paired: Names) -> bool:
    """Whether the Gram form costs less than the sums; ``paired``: the axes whose indices only meet themselves."""
    groups, weight = prod(calls[0].lengths(names)), prod(calls[0].weight.shape)
    sums = float(len(calls) * groups * weight)
    sums += sum(call.count * prod(call.seen) for call in calls if not isinstance(call, Lookup))
    products, partners = 0.0, prod(calls[0].lengths(paired))
    for i, a in enumerate(calls):
        for b in calls[i:]:
            cost = _pair_cost(a, b)
            if cost is None:
                return False
            products += cost * a.count * b.count / partners
    return products < sums


def _groups_at_once(calls: Calls, names: Names, gram: bool, squared: bool = False) -> int:
    """How many groups fit into the memory limit together."""
    groups = max(1, prod(calls[0].lengths(names)))
    uses = [call.count / groups for call in calls]
    windows = [
        n * sum(p for p in _blocks(call) or ()) * (_blocks(call) or (1,))[0]
        for n, call in zip(uses, calls, strict=True)
        if isinstance(call, Window | Outer) and (gram or isinstance(call, Window))
    ]
    if not gram:
        return int(get_memory_limit() / (8 * (3 * prod(calls[0].weight.shape) + sum(windows))))
    if squared:
        return int(np.sqrt(get_memory_limit() / (8 * 4)) / (max(uses) or 1))
    return int(get_memory_limit() / (8 * max(2 * sum(windows) + 3 * max(uses) ** 2, 1)))


# ---- from the sums


def _sums(calls: Calls, names: Names) -> Array:
    """S_k as rows (K, W): the calls are added, in the weight's own shape unless all see the same."""
    own, total = not _same(calls), None
    for call in calls:
        part = call.totals(names)
        part = call.own(part, len(call.axis_numbers(names))) if own else part
        part = part.reshape(prod(call.lengths(names)), -1)
        total = part if total is None else total + part
    assert total is not None
    return total


def _squares_from_sums(calls: Calls, names: Names) -> Array:
    total = _sums(calls, names)
    return kernels.of(total).row_dots(total, total)


def _products_from_sums(calls: Calls, others: Calls, names: Names) -> Array:
    own = _same([*calls, *others])
    left, right = (_sums(some, names) if own or not _same(some) else _own_sums(some, names) for some in (calls, others))
    return kernels.of(left).row_products(left, right)


def _own_sums(calls: Calls, names: Names) -> Array:
    """S_k in the weight's own shape, of calls that all see the same."""
    call = calls[0]
    sums = _sums(calls, names).reshape(-1, *call.seen)
    return call.own(sums, 1).reshape(len(sums), prod(call.weight.shape))


# ---- the Gram form


class _Outers(NamedTuple):
    delta: Array  # (K, R, B, O)
    patch: Array  # (K, R, B, I)


class _Lookups(NamedTuple):
    row: Array  # (K, R)
    delta: Array  # (K, R, D)


_Factors = _Outers | _Lookups


def _factors(call: Uses, names: Names) -> _Factors:
    """The factors, groups first."""
    if isinstance(call, Window):
        call = call.unfolded()
    if isinstance(call, Outer):
        return _Outers(call.grouped(call.delta, names), call.grouped(call.patch, names))
    assert isinstance(call, Lookup)
    return _Lookups(call.grouped(call.index, names), call.grouped(call.delta, names))


def _some(factors: _Factors, uses: slice) -> _Factors:
    return type(factors)(*(factor[:, uses] for factor in factors))


def _use_products(a: _Factors, b: _Factors) -> Array:
    """⟨g_u, g_v⟩ (K, R, R') in float64 between the uses of the same group."""
    if isinstance(a, _Outers) and isinstance(b, _Outers):
        return kernels.of(a.delta).outer_products(*a, *b)
    if isinstance(b, _Lookups) and isinstance(a, _Outers):
        return _use_products(b, a).swapaxes(1, 2)
    assert isinstance(a, _Lookups)
    if isinstance(b, _Outers):
        groups = np.arange(len(a.row))[:, None]
        read = plain(b.delta[:, :, 0].swapaxes(1, 2)[groups, a.row])  # δ_v[row_u] (K, R, R')
        return read * kernels.of(a.delta).row_products(a.delta, b.patch[:, :, 0])
    equal = a.row[:, :, None] == b.row[:, None, :]
    return equal * kernels.of(a.delta).row_products(a.delta, b.delta)


def _chunks(factors: _Factors, partners: int) -> Iterator[slice]:
    """Some of the uses at a time, whose products with so many others fit into memory."""
    groups, count = factors[0].shape[:2]
    step = max(1, int(get_memory_limit() / (8 * 4 * max(1, groups * partners))))
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def _squares_from_gram(calls: Calls, names: Names) -> Array:
    factors = [_factors(call, names) for call in calls]
    total = np.zeros(len(factors[0][0]))
    for i, a in enumerate(factors):
        for j in range(i, len(factors)):
            if not _apart(calls[i], calls[j]):
                for chunk in _chunks(a, factors[j][0].shape[1]):
                    total += (1 if i == j else 2) * _use_products(_some(a, chunk), factors[j]).sum(axis=(1, 2))
    largest = sum(call.grouped(np.sqrt(call.squared()), names).sum(axis=1) for call in calls) ** 2
    for k in np.flatnonzero((total < _CANCELLED * largest) & (largest > 0)):
        index = np.unravel_index(int(k), calls[0].lengths(names))
        one = [call.in_box(names, tuple(slice(int(i), int(i) + 1) for i in index)) for call in calls]
        total[k] = _squares_from_sums(one, names)[0]
    return np.asarray(total)


def _products_from_gram(calls: Calls, others: Calls, names: Names) -> Array:
    groups, other_groups = prod(calls[0].lengths(names)), prod(others[0].lengths(names))
    found = np.zeros((groups, other_groups))
    for call in calls:
        a = _folded(_factors(call, names))
        group = np.arange(a[0].shape[1]) * groups // a[0].shape[1]
        for other in others:
            if _apart(call, other):
                continue
            b = _folded(_factors(other, names))
            for chunk in _chunks(a, b[0].shape[1]):
                products = _use_products(_some(a, chunk), b)[0]
                by_other = products.reshape(len(products), other_groups, -1).sum(axis=2)
                np.add.at(found, group[chunk], by_other)
    return found


def _folded(factors: _Factors) -> _Factors:
    """All groups' uses as those of one."""
    return type(factors)(*(factor.reshape(1, -1, *factor.shape[2:]) for factor in factors))


# ---- lookups alone: sparse by row


def all_lookups(calls: Calls) -> bool:
    """Whether they look rows up in one and the same view of the table: their sums are sparse."""
    return all(isinstance(call, Lookup) for call in calls) and _same(calls)


def sparse_sums(calls: Calls, names: Names) -> Rows:
    """The sums of all calls, sparse by row; they must be lookups alone."""
    found = [call.sparse(names) for call in calls if isinstance(call, Lookup)]
    if len(found) == 1:
        return found[0]
    table = calls[0].seen[0]
    keys = np.concatenate([rows.group * table + rows.row for rows in found])
    unique, place = np.unique(keys, return_inverse=True)
    total, start = None, 0
    for rows in found:
        part = kernels.of(rows.values).row_sums(place[start : start + len(rows.row)], rows.values, len(unique))
        total, start = part if total is None else total + part, start + len(rows.row)
    assert total is not None
    return Rows(unique // table, unique % table, total)


def _lookup_squares(calls: Calls, names: Names) -> Array:
    rows = sparse_sums(calls, names)
    squares = kernels.of(rows.values).row_dots(rows.values, rows.values)
    return np.bincount(rows.group, squares, minlength=prod(calls[0].lengths(names)))


def _lookup_products(calls: Calls, others: Calls, names: Names) -> Array:
    """Row by row of the table: only groups that both read a row have a product there."""
    a, b = sparse_sums(calls, names), sparse_sums(others, names)
    k = kernels.of(a.values)
    found = np.zeros((prod(calls[0].lengths(names)), prod(others[0].lengths(names))))
    order, other_order = np.argsort(a.row, kind="stable"), np.argsort(b.row, kind="stable")
    for row in np.intersect1d(a.row, b.row):
        left = order[slice(*np.searchsorted(a.row[order], [row, row + 1]))]
        right = other_order[slice(*np.searchsorted(b.row[other_order], [row, row + 1]))]
        found[np.ix_(a.group[left], b.group[right])] += k.row_products(a.values[left], b.values[right])
    return found
