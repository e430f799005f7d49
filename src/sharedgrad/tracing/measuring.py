"""Norms and inner products of single uses, from their factors in few passes, by PyTorch's own operations.

The same numbers as ``Uses.squares`` and ``Uses.projection``, while a training step runs: on the device of the model, by
the threads that the step itself uses, and in the type that it computes in. Only convolutions on the CPU are ours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from sharedgrad import kernels
from sharedgrad.geometry import Geometry
from sharedgrad.uses import Direct, Lookup, Outer, Uses, Window
from sharedgrad.uses.arrays import matching, real

SAFE = 1e-20, 1e20  # where the largest square lies outside, float32 loses others: all are computed again in float64

ROW = 1 << 15  # numbers in a row that PyTorch's norm adds up exactly enough in float32, without a copy of them


def squares(call: Uses) -> Any:
    """‖g_u‖² (*U) as a NumPy array in float64."""
    if isinstance(call, Window):
        groups = call.geometry.groups
        small, big = (_squares(tensor(m).unflatten(1, (groups, -1)), 2) for m in (call.small, call.big))
        return _numbers((small * _boxes(big, call.geometry)).sum(1))
    if isinstance(call, Outer):
        return _numbers((_squares(tensor(call.delta), -1) * _squares(tensor(call.patch), -1)).sum(-1))
    if isinstance(call, Lookup):
        return _numbers(_squares(tensor(call.delta), -1))
    if isinstance(call, Direct):
        return _numbers(_squares(_rows(call), -1))
    return call.squared()


def products(call: Uses, direction: torch.Tensor) -> Any:
    """⟨g_u, v⟩ (*U) as a NumPy array in float64.

    Args:
        call: The uses.
        direction: v in the weight's shape, of a length around 1.
    """
    if isinstance(call, Window):
        v = call.view.uncast.apply(matching(direction, call.factor)).reshape(call.kernel)
        met = tensor(kernels.of(call.big).conv(call.big, v, None, call.geometry))
        return _numbers(met.mul_(tensor(call.small)).sum(1))
    v = call.view.uncast.apply(direction.to(tensor(call.factor).dtype))
    if isinstance(call, Outer) and call.blocks[0] == 1:
        delta, patch = tensor(call.delta)[..., 0, :], tensor(call.patch)[..., 0, :]
        v = v.reshape(call.blocks[1:])
        met = (patch @ v.mT).mul_(delta) if len(v) <= v.shape[1] else (delta @ v).mul_(patch)
        return _numbers(met.sum(-1))
    if isinstance(call, Direct):
        return _numbers((_rows(call) * v.reshape(-1)).sum(-1))
    return np.asarray(call.projection(direction))


def contributions(call: Direct) -> torch.Tensor:
    """All contributions (*U, *R)."""
    delta = tensor(call.delta)
    return delta if call.local is None else delta * tensor(call.local)


def tensor(array: Any) -> Any:
    """A factor as a tensor of the same memory; half precision as float32."""
    return real(torch.from_numpy(array) if isinstance(array, np.ndarray) else array)


def squared(values: torch.Tensor) -> torch.Tensor:
    """The sum of all squares, a number in float64."""
    return _squares(values.reshape(len(values), -1) if values.ndim else values.reshape(1, 1), -1).sum()


def _rows(call: Direct) -> torch.Tensor:
    made = contributions(call)
    uses = len(call.shape)
    return made if made.ndim == uses + 1 else made.reshape(*made.shape[:uses], -1)


def _squares(values: torch.Tensor, axis: int) -> torch.Tensor:
    """Σ v² along one axis, in float64; added in the values' own type where it can hold them."""
    in_a_row = values.stride(axis) == 1 and values.shape[axis] < ROW
    found = torch.linalg.vector_norm(values, dim=axis).square() if in_a_row else values.square().sum(axis)
    if found.dtype == torch.float64 or not found.numel():
        return found.double()
    if not SAFE[0] < float(found.max()) < SAFE[1]:
        return values.double().square().sum(axis)
    return found.double()


def _boxes(squares: torch.Tensor, g: Geometry) -> torch.Tensor:
    """The sums over the windows of maps (N, groups, *S): along one axis after the other."""
    if any(n for pair in g.padding for n in pair):
        squares = functional.pad(squares, [n for pair in reversed(g.padding) for n in pair])
    for axis, (k, s, d) in enumerate(zip(g.kernel, g.stride, g.dilation, strict=True), start=2):
        count = (squares.shape[axis] - d * (k - 1) - 1) // s + 1
        before = (slice(None),) * axis
        parts = [squares[(*before, slice(i * d, i * d + s * (count - 1) + 1, s))] for i in range(k)]
        squares = parts[0] if k == 1 else torch.stack(parts).sum(0) if k < 4 else sum(parts[1:], parts[0])
    return squares


def _numbers(values: torch.Tensor) -> Any:
    return values.detach().cpu().double().numpy()
