"""What an error looks like: the pattern between a wrong array and the right one, in words."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from sharedgrad.checking.answers import Answer, bare
from sharedgrad.checking.given import Given, turned
from sharedgrad.geometry import text
from sharedgrad.parameter import Array


def structure(answer: Answer, right: Array, given: Given, name: str) -> tuple[str, ...]:
    """Sentences on the pattern of the error, the strongest first; none where there is no pattern."""
    if bare(answer.shape) != bare(right.shape):
        return _shape(answer, right, given)
    yours = answer.values.reshape(right.shape)
    found = [*_constant_ratio(answer, yours, right, given), *_moved(answer, right, given), *_equal(yours, right, name)]
    mask = answer.wrong_cells(right, np.abs(right)).reshape(right.shape)
    found += _where(mask, yours)
    return tuple(found)


def _shape(answer: Answer, right: Array, given: Given) -> tuple[str, ...]:
    words = f"the shape is {text(answer.shape) or 'a single number'} where {text(right.shape)} is due"
    for name in ("dy", "w", "x", "b"):
        if name in given and bare(given[name].shape) == bare(answer.shape):
            return (f"{words}: that of {name}",)
    return (words,)


def _constant_ratio(answer: Answer, yours: Array, right: Array, given: Given) -> list[str]:
    inside = np.abs(right) > 1e-9 * np.abs(right).max(initial=0.0)
    if not inside.any() or not yours[inside].all():
        return []
    ratio = float(np.sum(yours * right) / np.sum(right * right))
    if not answer.fits(right * ratio, np.abs(right)) or abs(ratio) < 1e-12:
        return []
    return [f"every number is {_ratio(ratio, given)} times the right one"]


def _ratio(ratio: float, given: Given) -> str:
    if abs(ratio + 1) < 1e-6:
        return "−1"
    for value, name in ((1 / ratio, "1/"), (ratio, "")):
        if abs(value - round(value)) < 1e-3 * abs(value) and 1 < abs(round(value)) < 1e7:
            return f"{'−' if value < 0 else ''}{name}{abs(round(value))}"
    return f"{ratio:.4g}"


def _moved(answer: Answer, right: Array, given: Given) -> list[str]:
    found = []
    rank = 0 if given.geometry is None or right.ndim < given.window.rank + 2 else given.window.rank
    if rank and answer.fits(turned(right, rank), np.abs(right)):
        found.append("it is the right array turned by 180 degrees")
    if rank == 2 and right.shape[-1] == right.shape[-2] and answer.fits(np.swapaxes(right, -1, -2), np.abs(right)):
        found.append("it is the right array with rows and columns exchanged")
    for shift in product((-2, -1, 0, 1, 2), repeat=rank):
        if any(shift) and _shifted(answer.values.reshape(right.shape), right, shift, rank):
            found.append(f"it is the right array shifted by ({', '.join(map(str, shift))})")
            break
    same = np.sort(answer.values.reshape(-1))
    if not found and right.size > 3 and answer.reshaped(*right.shape).shape == right.shape:
        order = np.sort(right.reshape(-1))
        unit = 0.5 * 10.0**-answer.most_decimals if not answer.computed else 1e-9 * np.abs(right).max(initial=0.0)
        if np.allclose(same, order, rtol=1e-9, atol=unit) and len(np.unique(order)) > 2:
            found.append("the numbers are the right ones in other places")
    return found


def _shifted(yours: Array, right: Array, shift: tuple[int, ...], rank: int) -> bool:
    here: tuple[Any, ...] = (
        ...,
        *(slice(max(s, 0), n + min(s, 0)) for s, n in zip(shift, right.shape[-rank:], strict=True)),
    )
    there: tuple[Any, ...] = (
        ...,
        *(slice(max(-s, 0), n + min(-s, 0)) for s, n in zip(shift, right.shape[-rank:], strict=True)),
    )
    a, b = yours[here], right[there]
    return a.size > 3 and np.ptp(b) > 0 and bool(np.allclose(a, b, rtol=1e-6, atol=1e-6 * np.abs(right).max()))


def _equal(yours: Array, right: Array, name: str) -> list[str]:
    if yours.size > 1 and np.ptp(yours) == 0 and np.ptp(right) > 0:
        return ["all numbers are equal"]
    words = {"dw": ("filters", "channels"), "dx": ("samples", "channels"), "y": ("samples", "maps")}.get(name, ())
    found = []
    for axis, what in enumerate(words):
        if axis < yours.ndim and yours.shape[axis] > 1 and not np.ptp(yours, axis=axis).any():
            found.append(f"all {what} are equal")
    return found


def _where(mask: Array, yours: Array) -> list[str]:
    if mask.all() or not mask.any():
        return []
    wrong = np.argwhere(mask)
    for axis in range(mask.ndim):
        places = np.unique(wrong[:, axis])
        if len(places) == 1 < mask.shape[axis]:
            return [f"all wrong numbers lie at index {places[0]} of axis {axis}"]
    return []
