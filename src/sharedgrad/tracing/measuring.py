"""Norms, inner products and sums of uses from their factors, in few passes, on the device and in the type of the model.

The same numbers as ``Uses.squares``, ``Uses.projection`` and ``Uses.sum``, while a training step runs.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from sharedgrad import kernels
from sharedgrad.geometry import Geometry
from sharedgrad.tracing.sketch import Sketch
from sharedgrad.uses import Direct, Lookup, Outer, Uses, Window
from sharedgrad.uses.arrays import matching, plain, real, tensor, wide

SAFE = 1e-20, 1e20  # where the largest square lies outside, float32 loses others: all are computed again in float64
CONVOLVED = 1 << 21  # bytes of a map that are convolved at once
ROW = 1 << 15  # numbers in a row that PyTorch's norm adds up exactly enough in float32, without a copy of them


class Measured(NamedTuple):
    """What is asked of some uses.

    Attributes:
        squares: ‖g_u‖² (*U) as a NumPy array in float64.
        products: ⟨g_u, v⟩ (*U) likewise, if a direction v was given.
        shown: Their sum as a sketch shows it, or None where the sketch cannot.
        groups: The groups that the sketch has seen.
        total: Else their sum in the weight's shape, in float64.
    """

    squares: Any
    products: Any
    shown: torch.Tensor | None
    groups: int
    total: torch.Tensor | None


def measured(call: Uses, sketch: Sketch, direction: torch.Tensor | None = None) -> Measured:
    """Everything about some uses that is answered in passing.

    Args:
        call: The uses.
        sketch: Random directions for their weight.
        direction: v in the weight's shape, of a length around 1.
    """
    if isinstance(call, Direct):
        squares, products, total = _direct(call, direction)
        return Measured(squares, products, None, 1, total)
    shown: torch.Tensor | None
    if isinstance(call, Window) and sketch.fits(call):
        groups = call.geometry.groups
        squares, shown = _window(call, sketch)
    else:
        squares, shown, groups = _squared(call), sketch.of_uses(call), 1
    products = None if direction is None else _products(call, direction)
    whole = torch.as_tensor(wide(plain(call.sum()))) if shown is None else None
    return Measured(squares, products, shown, groups, whole)


def squares_of(call: Uses) -> Any:
    """‖g_u‖² (*U) as a NumPy array in float64."""
    if isinstance(call, Direct):
        return _direct(call, None)[0]
    return _squared(call)


def square_of(values: torch.Tensor) -> float:
    """The sum of all squares."""
    rows = real(values.detach())
    return float(_squares(rows.reshape(len(rows), -1) if rows.ndim else rows.reshape(1, 1)).sum())


def _squared(call: Uses) -> Any:
    if isinstance(call, Outer):
        return _numbers((_squares(tensor(call.delta)) * _squares(tensor(call.patch))).sum(-1))
    if isinstance(call, Lookup):
        return _numbers(_squares(tensor(call.delta)))
    if isinstance(call, Window):
        groups = call.geometry.groups
        small, big = (_squares(tensor(m).unflatten(1, (groups, -1)), 2) for m in (call.small, call.big))
        return _numbers((small * _boxes(big, call.geometry)).sum(1))
    return call.squared()


def _window(call: Window, sketch: Sketch) -> tuple[Any, torch.Tensor]:
    """One pass over each of the maps gives the squares of its pixels, and what the sketch needs of it."""
    g = call.geometry
    (small, few), (big, fewer) = (
        _seen(wide(maps) if sketch.wide else maps, g.groups, directions)
        for maps, directions in zip((call.small, call.big), sketch.sides(call), strict=True)
    )
    return _numbers((small * _boxes(big, g)).sum(1)), sketch.of_maps(few, fewer, g)


def _seen(maps: Any, groups: int, directions: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Σ_c x² (N, groups, *S) in float64, and the maps along some directions (N, groups · directions, *S)."""
    grouped = maps.reshape(len(maps), groups, maps.shape[1] // groups, prod(maps.shape[2:]))
    if directions is None:
        squares = _squares(tensor(grouped), 2)
        return squares.reshape(len(maps), groups, *maps.shape[2:]), tensor(maps)
    sums, seen = kernels.of(grouped).along_directions(grouped, matching(directions, grouped))
    if not _safe(sums):
        sums, _ = kernels.of(grouped).along_directions(wide(grouped), wide(matching(directions, grouped)))
    cells = maps.shape[2:]
    shown = tensor(seen).reshape(len(maps), groups * seen.shape[2], *cells)
    return tensor(sums).double().reshape(len(maps), groups, *cells), shown


def _boxes(squares: torch.Tensor, g: Geometry) -> torch.Tensor:
    """The sums over the windows of maps (N, groups, *S): along one axis after the other."""
    if any(n for pair in g.padding for n in pair):
        squares = functional.pad(squares, [n for pair in reversed(g.padding) for n in pair])
    for axis, (k, s, d) in enumerate(zip(g.kernel, g.stride, g.dilation, strict=True), start=2):
        count = (squares.shape[axis] - d * (k - 1) - 1) // s + 1
        before = (slice(None),) * axis
        parts = [squares[(*before, slice(i * d, i * d + s * (count - 1) + 1, s))] for i in range(k)]
        squares = sum(parts[1:], parts[0])
    return squares


def _products(call: Uses, direction: torch.Tensor) -> Any:
    if isinstance(call, Window):
        v = call.view.uncast.apply(matching(direction, call.factor)).reshape(call.kernel)
        return _met(call, v)
    if isinstance(call, Outer) and call.blocks[0] == 1:
        v = call.view.uncast.apply(direction.to(tensor(call.factor).dtype)).reshape(call.blocks[1:])
        delta, patch = tensor(call.delta)[..., 0, :], tensor(call.patch)[..., 0, :]
        met = (patch @ v.mT).mul_(delta) if len(v) <= v.shape[1] else (delta @ v).mul_(patch)
        return _numbers(met.sum(-1))
    return np.asarray(plain(call.projection(direction)))


def _met(call: Window, v: Any) -> Any:
    """small_u · conv(big, v)_u, some samples at a time."""
    samples, found = call.shape[0], np.empty(call.shape)
    step = max(1, CONVOLVED // max(1, max(call.small.nbytes, call.big.nbytes) // max(1, samples)))
    for start in range(0, samples, step):
        some = slice(start, start + step)
        met = tensor(kernels.of(call.big).conv(call.big[some], v, None, call.geometry))
        found[some] = _numbers(met.mul_(tensor(call.small[some])).sum(1))
    return found


def _direct(call: Direct, direction: torch.Tensor | None) -> tuple[Any, Any, torch.Tensor]:
    """Squares, products and the sum, in the weight's shape, of elementwise uses."""
    uses = len(call.shape)
    v = None if direction is None else call.view.uncast.apply(direction).reshape(-1)
    if uses > 1 and call.count and len(call.seen) == 1 and (found := _channels(call, v)) is not None:
        squares, products, total = found
    else:
        delta = tensor(call.delta)
        made = delta if call.local is None else delta * tensor(call.local)
        rows = made if made.ndim == uses + 1 else made.reshape(*made.shape[:uses], -1)
        squares = _numbers(_squares(rows))
        products = None if v is None else _numbers((rows * v.to(rows.dtype)).sum(-1))
        total = (made.sum(tuple(range(uses))) if uses else made).double()
    return squares, products, call.own(total, 0)


def _channels(call: Direct, v: torch.Tensor | None) -> tuple[Any, Any, torch.Tensor] | None:
    """As :func:`_direct`, in one pass, of maps (N, C, *P) that lie in this order in memory; else None."""
    if call.tensor is not None:
        return None
    maps = [np.moveaxis(f, -1, 1) for f in (call.delta, call.local) if f is not None]
    if not all(m.flags.c_contiguous for m in maps):
        return None
    coefficients = np.zeros((3, maps[0].shape[1]), maps[0].dtype)
    coefficients[0] = 1
    if v is not None:
        coefficients[2] = v.numpy()
    delta, x = ([m.reshape(*m.shape[:2], -1) for m in maps] + [None])[:2]
    squares, products, totals = kernels.of(delta).channel_uses(delta, x, coefficients)
    if not _safe(squares):
        return None
    squares, products = (a.astype(np.float64).reshape(call.shape) for a in (squares, products))
    return squares, None if v is None else products, torch.from_numpy(totals.sum(0, dtype=np.float64))


def _squares(values: torch.Tensor, axis: int = -1) -> torch.Tensor:
    """Σ v² along one axis, in float64; added in the values' own type where it can hold them."""
    in_a_row = values.stride(axis) == 1 and values.shape[axis] < ROW
    found = torch.linalg.vector_norm(values, dim=axis).square() if in_a_row else values.square().sum(axis)
    return found.double() if _safe(found) else values.double().square().sum(axis)


def _safe(squares: Any) -> bool:
    """Whether these sums of squares have lost nothing that matters to the range of their type."""
    small = squares.dtype in (torch.float32, np.float32)
    return not small or 0 in squares.shape or SAFE[0] < float(squares.max()) < SAFE[1]


def _numbers(values: torch.Tensor) -> Any:
    return values.detach().cpu().double().numpy()
