"""Whether the uses of a parameter add up to the gradient that the pass itself deposited.

The residual is ‖Σ g_u − G‖ / Σ‖g_u‖: exactly, or bounded by what random directions show of the difference
(:mod:`~sharedgrad.tracing.sketch`), which costs operations on few channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf, isfinite, sqrt
from typing import Any

import numpy as np
import torch

from sharedgrad.tracing.measuring import Measured, measured, square_of, squares_of
from sharedgrad.tracing.sketch import REACH, Sketch
from sharedgrad.uses import Uses
from sharedgrad.uses.arrays import plain, real

TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "float16": 2**-8, "bfloat16": 2**-6}
EPS = {"float64": 2**-52, "float32": 2**-23, "float16": 2**-10, "bfloat16": 2**-7}


@dataclass(frozen=True)
class Certificate:
    """What the comparison of a parameter's uses with its gradient gave.

    Attributes:
        residual: ‖Σ g_u − G‖ / Σ‖g_u‖, or an upper bound of it.
        bound: Whether it is a bound by random directions.
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
        """Whether ‖G‖ ≤ 16·eps·Σ‖g_u‖: the uses cancel, and what is left is rounding.

        Where half precision was computed in, sums were added in float32 all the same; each use is rounded by itself,
        so that what is left is of the size of eps·√(Σ‖g_u‖²).
        """
        return self.norm <= 16 * self.eps * (self.length if self.eps <= EPS["float32"] else sqrt(self.square))

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
    squares = [squares_of(call) for call in uses]
    return _certificate(_length(difference), False, squares, _norm(gradient), types)


class Comparing:
    """The uses of one parameter, which come in parts, compared with its gradient.

    Args:
        gradient: G, what the pass deposited.
        types: The types that the calls computed in.
        seed: Another one for each parameter and pass.
        wide: Whether to multiply with random directions in float64 what is in another type.

    Attributes:
        norm: ‖G‖.
    """

    def __init__(self, gradient: torch.Tensor, types: Sequence[str], seed: int, wide: bool = False) -> None:
        self._gradient, self._types = gradient.detach(), types
        self._sketch, self._wide = Sketch(gradient.shape, seed, gradient.device, wide), wide
        self._groups = 0  # of the uses that the sketch can show
        self._seen = torch.zeros((), dtype=torch.float64, device=gradient.device)  # their sum, as it shows it
        self._whole: torch.Tensor | None = None  # the sum of the others, in float64
        self._squares: list[Any] = []
        self.norm = _norm(self._gradient)

    def add(self, part: Uses, direction: torch.Tensor | None = None) -> Measured:
        """Some more uses; gives what was found of them on the way."""
        found = measured(part, self._sketch, direction)
        self._squares.append(found.squares)
        if found.shown is not None and found.groups == (self._groups or found.groups):
            self._groups, self._seen = found.groups, self._seen + found.shown.double()
        else:
            total = (_whole(part) if found.total is None else found.total).to(self._gradient.device)
            self._whole = total if self._whole is None else self._whole + total
        return found

    def certificate(self) -> Certificate:
        """The bound, when all uses have been added; the residual itself where all of the difference is seen."""
        exact, rest = not self._groups or self._sketch.exact(self._groups), self._gradient
        if self._wide or exact or self._whole is not None:
            rest = rest.double()
        if self._whole is not None:
            rest = rest - self._whole
        if self._groups:
            rest = self._sketch.of(real(rest), self._groups).double() - self._seen
        distance = _length(rest) / (1 if exact else REACH)
        return _certificate(distance, not exact, self._squares, self.norm, self._types)


def probed(
    uses: Iterable[Uses], gradient: torch.Tensor, types: Sequence[str], seed: int, wide: bool = False
) -> Certificate:
    """A bound of the residual by random directions; see :class:`Comparing`."""
    comparing = Comparing(gradient, types, seed, wide)
    for part in uses:
        comparing.add(part)
    return comparing.certificate()


def _whole(part: Uses) -> torch.Tensor:
    """The sum of these uses in the weight's shape, in float64."""
    return torch.as_tensor(_wide(part.sum()))


def _certificate(
    distance: float, bound: bool, squares: Sequence[Any], norm: float, types: Sequence[str]
) -> Certificate:
    length = float(sum(np.sqrt(s).sum() for s in squares))
    residual = distance / length if length > 0 else 0.0 if distance == 0 else inf
    tolerance = max((TOLERANCE[name] for name in types), default=TOLERANCE["float64"])
    square = float(sum(s.sum() for s in squares))
    eps = max((EPS[name] for name in types), default=EPS["float64"])
    return Certificate(residual if isfinite(residual) else inf, bound, tolerance, length, square, norm, eps)


def _norm(gradient: torch.Tensor) -> float:
    return sqrt(square_of(gradient))


def _length(tensor: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))


def _wide(array: Any) -> Any:
    """As a NumPy array in float64."""
    return np.asarray(plain(array) if not isinstance(array, np.ndarray) else array, np.float64)
