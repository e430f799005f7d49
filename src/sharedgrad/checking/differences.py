"""A gradient compared with finite differences, cell by cell, or along random directions where there are many cells.

Central differences in float64: (f(v + h) − f(v − h)) / 2h, whose error is of the order h² and of rounding / h.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sharedgrad.parameter import Array

Function = Callable[[Array], Array]  # an array -> the terms that the number to be differentiated is the sum of

_STEP = 1e-5
_TOLERANCE = 1e-6  # of the largest number of the array
_MOST_CELLS = 200
_DIRECTIONS = 2
_LOOSE = 1e-4  # along a direction, of the gradient's norm: a few cells may lie at kinks


@dataclass(frozen=True)
class Compared:
    """What came of it.

    Attributes:
        cells: Flat indices that were measured.
        measured: What finite differences give there.
        wrong: Mask of those where the gradient is another one.
        kinks: How many lie at a kink, where any slope between those of the two sides will do.
        astray: Whether a sum over all cells differs although the measured ones agree.
    """

    cells: Array
    measured: Array
    wrong: Array
    kinks: int
    astray: bool

    @property
    def agrees(self) -> bool:
        """Whether nothing differs."""
        return not self.wrong.any() and not self.astray


def compare(function: Function, at: Array, gradient: Array, random: np.random.Generator) -> Compared:
    """Compare the gradient of Σ ``function(at)`` with finite differences; at most 200 cells one by one.

    Args:
        function: Gives the terms; called with arrays in float64.
        at: Where.
        gradient: What is to be compared, in the same shape.
        random: Chooses cells and directions.
    """
    middle, flat = function(at), gradient.reshape(-1)
    rounding = 8 * np.finfo(np.float64).eps * float(np.abs(middle).sum()) / _STEP
    cells = np.arange(at.size)
    if at.size > _MOST_CELLS:
        cells = np.sort(random.choice(at.size, _MOST_CELLS, replace=False))
    left, right = (np.array([_slope(function, at, int(cell), middle, side) for cell in cells]) for side in (-1, 1))
    measured = (left + right) / 2
    scale = max(np.abs(measured).max(initial=0.0), np.abs(flat[cells]).max(initial=0.0))
    slack = _TOLERANCE * scale + rounding
    off = ~(np.abs(measured - flat[cells]) <= slack)
    bent = np.abs(left - right) > 1e-3 * scale + 2 * rounding
    between = (flat[cells] >= np.minimum(left, right) - slack) & (flat[cells] <= np.maximum(left, right) + slack)
    kinks = off & bent & between
    astray = False
    if at.size > _MOST_CELLS and not kinks.any():
        astray = any(_astray(function, at, gradient, rounding, random) for _ in range(_DIRECTIONS))
    return Compared(cells, measured, off & ~kinks, int(kinks.sum()), astray)


def _slope(function: Function, at: Array, cell: int, middle: Array, side: int) -> float:
    """The slope on one side of a cell."""
    moved = at.copy()
    step = side * _STEP * max(1.0, abs(float(at.reshape(-1)[cell])))
    moved.reshape(-1)[cell] += step
    return float((function(moved) - middle).sum() / step)


def _astray(function: Function, at: Array, gradient: Array, rounding: float, random: np.random.Generator) -> bool:
    direction = random.standard_normal(at.shape)
    change = function(at + _STEP * direction) - function(at - _STEP * direction)
    off = abs(float(change.sum()) / (2 * _STEP) - float((gradient * direction).sum()))
    return not off <= _LOOSE * float(np.sqrt((gradient**2).sum())) + rounding
