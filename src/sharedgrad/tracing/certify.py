"""Whether the uses of a parameter add up to the gradient that the pass itself deposited.

The residual is ‖Σ g_u − G‖ / Σ‖g_u‖: exactly, or bounded by random rank-one probes (after Freivalds 1979, "Fast
probabilistic algorithms"). A probe v = a ⊗ b, with independent standard normal a and b, costs one-channel operations:

    ⟨Σ g_u − G, v⟩ = Σ_u (δ_u · a)(p_u · b) − aᵀ G b

Whatever the difference D is, ⟨D, v⟩ is small beside ‖D‖ with small probability only: worst where D has rank one, when
it is ‖D‖ times the product of two independent normal numbers. With PROBES probes, the largest of them falls below
REACH · ‖D‖ with a probability below 1e-6; so ‖D‖ ≤ largest / REACH, but for one case in a million.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, prod
from typing import Any

import numpy as np
import torch

from sharedgrad import kernels
from sharedgrad.geometry import Geometry
from sharedgrad.uses import Lookup, Outer, Uses, Window
from sharedgrad.uses.arrays import plain

PROBES = 8
REACH = 0.075  # P(|a·b| < 0.075) = 0.177 for independent standard normals a and b; 0.177⁸ = 9.7e-7
TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "float16": 2**-8, "bfloat16": 2**-6}
EPS = {"float64": 2**-52, "float32": 2**-23, "float16": 2**-10, "bfloat16": 2**-7}


@dataclass(frozen=True)
class Certificate:
    """What the comparison of a parameter's uses with its gradient gave.

    Attributes:
        residual: ‖Σ g_u − G‖ / Σ‖g_u‖, or an upper bound of it.
        bound: Whether it is a bound by random probes.
        tolerance: What it may be, for the type that was computed in.
        length: Σ‖g_u‖.
        square: Σ‖g_u‖².
        norm: ‖G‖.
        eps: Resolution of the type that was computed in.
    """

    residual: float
    bound: bool
    tolerance: float
    length: float
    square: float
    norm: float

    eps: float

    @property
    def certified(self) -> bool:
        """Whether the uses add up to the gradient."""
        return self.residual <= self.tolerance

    @property
    def zero_up_to_rounding(self) -> bool:
        """Whether ‖G‖ ≤ 16·eps·Σ‖g_u‖: the uses cancel, and what is left is rounding."""
        return self.norm <= 16 * self.eps * self.length

    def __str__(self) -> str:
        sign = "≤" if self.bound else "="
        return f"{'certified' if self.certified else 'NOT certified'}, residual {sign} {self.residual:.1e}"


def exact(uses: Sequence[Uses], gradient: Any, own: Any, types: Sequence[str]) -> Certificate:
    """The residual itself.

    Args:
        uses: All uses of the parameter in the pass.
        gradient: G, what the pass deposited.
        own: Σ g_u.
        types: The types that the calls computed in.
    """
    difference = torch.as_tensor(_wide(own)) - gradient.detach().cpu().double()
    return _certificate(_length(difference), False, _squares(uses), gradient, types)


class Probing:
    """Random rank-one probes of the uses of one parameter, which come in parts, and the bound that they give.

    Args:
        gradient: G, what the pass deposited.
        types: The types that the calls computed in.
        seed: Another one for each parameter and pass; PyTorch's and NumPy's global generators are not touched.
    """

    def __init__(self, gradient: torch.Tensor, types: Sequence[str], seed: int) -> None:
        self._gradient, self._types = gradient.detach(), types
        rows = gradient.shape[0] if gradient.ndim > 1 else gradient.numel()
        rng = np.random.Generator(np.random.Philox(key=[seed, 0x7072_6F62]))
        self._a = rng.standard_normal((PROBES, rows))
        self._b = rng.standard_normal((PROBES, gradient.numel() // rows if rows else 0))
        self._sums = np.zeros(PROBES)
        self._own = torch.zeros(())  # the sum of the uses that cost no less by probes, in float64
        self._narrow = False
        self._squares: list[Any] = []

    def add(self, part: Uses) -> Any:
        """Some more uses; gives their ‖g_u‖²."""
        squares = part.squared()
        self._squares.append(squares)
        narrow = _narrow(part, self._a, self._b)
        if narrow is None:
            self._own = self._own + torch.as_tensor(_wide(part.sum()))
        else:
            self._narrow, self._sums = True, self._sums + narrow
        return squares

    def certificate(self) -> Certificate:
        """The bound, when all uses have been added; the residual itself where no probe was needed."""
        rest = self._own - self._gradient.cpu().double()
        if not self._narrow:
            return _certificate(_length(rest), False, self._squares, self._gradient, self._types)
        found = np.abs(self._sums + self._met(rest))
        return _certificate(float(found.max()) / REACH, True, self._squares, self._gradient, self._types)

    def _met(self, tensor: torch.Tensor) -> Any:
        """aᵀ T b of each probe, for a tensor of the parameter's shape."""
        matrix = tensor.reshape(self._a.shape[1], self._b.shape[1])
        return ((torch.from_numpy(self._a) @ matrix) * torch.from_numpy(self._b)).sum(1).numpy()


def probed(uses: Sequence[Uses], gradient: torch.Tensor, types: Sequence[str], seed: int) -> Certificate:
    """A bound of the residual by random rank-one probes; see :class:`Probing`."""
    probing = Probing(gradient, types, seed)
    for call in uses:
        probing.add(call)
    return probing.certificate()


def _narrow(call: Uses, a: Any, b: Any) -> Any:
    """Σ_u ⟨g_u, a ⊗ b⟩ of each probe by operations on few channels; None where the sum of the uses is as cheap."""
    if isinstance(call, Outer) and call.blocks[0] == 1 and not call.view.uncast.identity and len(call.seen) == 2:
        call = call.swapped()
    if not call.view.uncast.identity or call.tensor is not None:
        return None
    if isinstance(call, Outer) and call.blocks[0] == 1 and min(call.blocks[1:]) > PROBES:
        delta, patch = (f.reshape(-1, f.shape[-1]) for f in (call.delta, call.patch))
        return _inner(delta @ a.T.astype(delta.dtype), patch @ b.T.astype(patch.dtype))
    if isinstance(call, Lookup):
        products = call.delta.reshape(-1, call.delta.shape[-1]) @ b.T.astype(call.delta.dtype)
        return _inner(products, a.T[call.index.reshape(-1)])
    if isinstance(call, Window) and call.kernel[0] // call.geometry.groups > PROBES:
        return _window(call, a, b)
    return None


def _window(call: Window, a: Any, b: Any) -> Any:
    """In each group, one filter for each probe slides over the big map, and one of one cell over the small map."""
    groups, small, big = call.geometry.groups, call.small, call.big
    filters = np.tile(b.reshape(PROBES, *call.kernel[1:]), (groups, *[1] * (len(call.kernel) - 1)))
    y = kernels.of(big).conv(big, filters.astype(big.dtype), None, call.geometry)
    pixel = Geometry.of(call.geometry.rank, 1, groups=groups)
    rows = a.reshape(PROBES, groups, -1).swapaxes(0, 1).reshape(groups * PROBES, -1, *pixel.kernel)
    left = kernels.of(small).conv(small, np.ascontiguousarray(rows, small.dtype), None, pixel)
    shape = (len(small), groups, PROBES, prod(small.shape[2:]))
    products = np.einsum("ngpu,ngpu->ngp", left.reshape(shape), y.reshape(shape))
    return products.astype(np.float64).sum(axis=(0, 1))


def _inner(left: Any, right: Any) -> Any:
    return (left.astype(np.float64) * right).sum(axis=0)


def _squares(uses: Sequence[Uses]) -> list[Any]:
    return [call.squared() for call in uses]


def _certificate(
    distance: float, bound: bool, squares: Sequence[Any], gradient: Any, types: Sequence[str]
) -> Certificate:
    length = float(sum(np.sqrt(s).sum() for s in squares))
    residual = distance / length if length > 0 else 0.0 if distance == 0 else inf
    tolerance = max((TOLERANCE[name] for name in types), default=TOLERANCE["float64"])
    norm, square = _length(gradient.detach()), float(sum(s.sum() for s in squares))
    eps = max((EPS[name] for name in types), default=EPS["float64"])
    return Certificate(residual if isfinite(residual) else inf, bound, tolerance, length, square, norm, eps)


def _length(tensor: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))


def _wide(array: Any) -> Any:
    """As a NumPy array in float64."""
    return np.asarray(plain(array) if not isinstance(array, np.ndarray) else array, np.float64)
