"""The kernels that uses need, for tensors that NumPy cannot look at: on other devices, or of bfloat16 or float16.

Imported only where PyTorch is loaded already. Half precision is computed in float32. What is one number a use comes
back as a NumPy array in float64, sums as tensors.
"""

from __future__ import annotations

import sys
from math import prod
from typing import Any

import numpy as np

from sharedgrad.geometry import Geometry
from sharedgrad.parameter import Array

torch: Any = sys.modules["torch"]
Index = tuple[int, ...]


def _real(a: Any) -> Any:
    return a.float() if a.dtype.itemsize < 4 else a


def _numbers(a: Any) -> Array:
    return np.asarray(a.detach().cpu().numpy(), np.float64)


def _padded(x: Any, g: Geometry) -> Any:
    return torch.nn.functional.pad(x, [n for pair in reversed(g.padding) for n in pair])


def _windows(x: Any, g: Geometry) -> Any:
    """A view (N, C, *P, *K) of what each position meets under each kernel offset."""
    windows = _padded(x, g)
    for axis, (k, s, d) in enumerate(zip(g.kernel, g.stride, g.dilation, strict=True), start=2):
        windows = windows.unfold(axis, d * (k - 1) + 1, s)[..., ::d]
    return windows


def patches(x: Any, g: Geometry) -> Any:
    """(N, *P, groups, C/groups · cells): the inputs that each use of the kernel is multiplied with."""
    windows = _windows(x, g)
    rank = g.rank
    last = windows.permute(0, *range(2, 2 + rank), 1, *range(2 + rank, 2 + 2 * rank))
    return last.reshape(*last.shape[: 1 + rank], g.groups, -1)


def conv(x: Any, w: Any, b: Any, g: Geometry) -> Any:
    """y (N, F, *P) from x (N, C, *S) and w (F, C/groups, *K)."""
    convolve = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)[g.rank - 1]
    return convolve(_padded(_real(x), g), _real(w), None if b is None else _real(b), g.stride, 0, g.dilation, g.groups)


def conv_kernel_gradients(dy: Any, x: Any, g: Geometry) -> Any:
    """dw kept apart by sample: (N, F, C/groups, *K)."""
    small, windows = _last(dy, g), _real(patches(x, g))
    shape = (len(dy), dy.shape[1], x.shape[1] // g.groups, *g.kernel)
    return outer_sum(small.reshape(len(dy), -1, *small.shape[-2:]), windows.flatten(1, -3), 1).reshape(shape)


def conv_kernel_gradient(dy: Any, x: Any, g: Geometry) -> Any:
    """dw (F, C/groups, *K), the sum over all uses, sample by sample."""
    total = 0
    for n in range(len(dy)):
        total = total + conv_kernel_gradients(dy[n : n + 1], x[n : n + 1], g)[0]
    return total


def conv_kernel_squares(dy: Any, x: Any, g: Geometry) -> Array:
    """‖dw[n]‖² (N,) in float64 of each sample's kernel gradient, one at a time."""
    apart = (conv_kernel_gradients(dy[n : n + 1], x[n : n + 1], g).reshape(1, -1) for n in range(len(dy)))
    return np.array([row_dots(dw, dw)[0] for dw in apart])


def _last(dy: Any, g: Geometry) -> Any:
    """(N, *P, groups, F/groups)."""
    last = dy.movedim(1, -1)
    return last.reshape(*last.shape[:-1], g.groups, -1)


def blocks(p: Any, w: Any) -> Any:
    """Each block's own matrix times each use's vector: p (*U, B, I), w (B, O, I) -> (*U, B, O)."""
    return (_real(w) @ _real(p)[..., None])[..., 0] if p.shape[-2] > 1 else _real(p) @ _real(w)[0].mT


def blocks_input_gradient(delta: Any, w: Any) -> Any:
    """dp = δ · w, block by block."""
    return blocks(delta, w.mT)


def outer_sum(delta: Any, p: Any, keep: int = 0) -> Any:
    """Σ_u δ[u,b,o] · p[u,b,i] over all but the first ``keep`` use axes: (*kept, B, O, I)."""
    kept = delta.shape[:keep]
    left = _real(delta).reshape(prod(kept), -1, *delta.shape[-2:]).permute(0, 2, 3, 1)
    right = _real(p).reshape(prod(kept), -1, *p.shape[-2:]).permute(0, 2, 1, 3)
    return (left @ right).reshape(*kept, *delta.shape[-2:], p.shape[-1])


def row_sums(index: Array, delta: Any, rows: int) -> Any:
    """total[index[u]] += δ[u] for every use: index (U,), δ (U, D) -> (rows, D)."""
    delta = _real(delta)
    total = delta.new_zeros((rows, delta.shape[1]))
    return total.index_add_(0, torch.from_numpy(np.array(index)).to(delta.device), delta)


def row_dots(a: Any, b: Any) -> Array:
    """Σ_i a[…,i] · b[…,i] in float64; axes of b of length 1 stand for all of a's."""
    return _numbers((a.double() * b.double()).sum(-1))


def row_products(a: Any, b: Any) -> Array:
    """a · bᵀ in float64: a (…, K, W), b (…, L, W) -> (…, K, L)."""
    return _numbers(a.double() @ b.double().mT)


def outer_products(delta: Any, p: Any, delta2: Any, p2: Any) -> Array:
    """⟨δ_u ⊗ p_u, δ'_v ⊗ p'_v⟩ in float64: (K, R, B, O), (K, R, B, I), (K, R', …) -> (K, R, R')."""
    total: Any = 0
    for b in range(delta.shape[2]):
        deltas, inputs = (
            left[:, :, b].double() @ right[:, :, b].double().mT for left, right in ((delta, delta2), (p, p2))
        )
        total = total + deltas * inputs
    return _numbers(total)


def along_directions(x: Any, directions: Any) -> tuple[Any, Any]:
    """Σ_c x² and Σ_c d · x: x (N, groups, C, S), d (groups, C, D) -> (N, groups, S), (N, groups, D, S)."""
    x, directions = _real(x), _real(directions)
    return x.square().sum(2), directions.mT @ x


def window_squares(x: Any, g: Geometry) -> Array:
    """‖p_u,b‖² (N, *P, groups) of every window: squares added over the group's channels, then over a box of cells."""
    squares = x.double().square().reshape(len(x), g.groups, -1, *x.shape[2:]).sum(2)
    boxes = _windows(squares, g).flatten(2 + g.rank).sum(-1)
    return _numbers(boxes.movedim(1, -1))
