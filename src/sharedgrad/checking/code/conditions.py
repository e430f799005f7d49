"""Where code works and where it does not: the settings that separate the two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from sharedgrad.checking.code.observe import Outcome
from sharedgrad.checking.code.probes import Probe
from sharedgrad.checking.given import Given


_ENOUGH, _MOST = 3, 0.6


@dataclass(frozen=True)
class Condition:
    """A property of a probe.

    Attributes:
        id: The mistake that it points to if code fails exactly there.
        words: "the padding is not 1".
        holds: Whether a probe has it.
    """

    id: str
    words: str
    holds: Callable[[Probe], bool]


def _sliding(test: Callable[[Given], bool]) -> Callable[[Probe], bool]:
    return lambda probe: probe.given.geometry is not None and test(probe.given)


def _padding(g: Given) -> int:
    return max(before for before, _ in g.window.padding)


def _left_over(g: Given) -> bool:
    w, size = g.window, g["x"].shape[2:]
    return any(
        (n - k) % s for n, k, s in zip(w.padded(size), (d * (k - 1) + 1 for d, k in zip(w.dilation, w.kernel, strict=True)),
                                       w.stride, strict=True)
    )  # fmt: skip


def _same_size(g: Given) -> bool:
    return all(2 * p[0] == k - 1 for p, k in zip(g.window.padding, g.window.kernel, strict=True))


def _channels(probe: Probe) -> int:
    shape = probe.given["x"].shape
    return shape[1] if len(shape) > 1 else 1


CONDITIONS: tuple[Condition, ...] = (
    Condition("crop_minus_zero", "the padding is 0", _sliding(lambda g: _padding(g) == 0)),
    Condition("padding_hard_coded", "the padding is not 1", _sliding(lambda g: _padding(g) != 1)),
    Condition("padding_hard_coded", "there is padding", _sliding(lambda g: _padding(g) > 0)),
    Condition("padding_hard_coded", "the padding is above 1", _sliding(lambda g: _padding(g) > 1)),
    Condition("stride_hard_coded", "the stride is above 1", _sliding(lambda g: max(g.window.stride) > 1)),
    Condition("square_assumed", "height and width differ", _sliding(lambda g: len(set(g["x"].shape[2:])) > 1)),
    Condition("square_assumed", "the output's height and width differ", _sliding(lambda g: len(set(g.positions)) > 1)),
    Condition("square_assumed", "the window's height and width differ", _sliding(lambda g: len(set(g.window.kernel)) > 1)),
    Condition("ties_not_expected", "there are equal values in a window", lambda p: p.values == "ties"),
    Condition("left_over_cells", "cells are left over at the end", _sliding(_left_over)),
    Condition("overlap_not_expected", "windows overlap", _sliding(lambda g: min(
        k - s for k, s in zip(g.window.kernel, g.window.stride, strict=True)) > 0)),
    Condition("overlap_not_expected", "windows do not touch each other", _sliding(lambda g: max(
        s - k for k, s in zip(g.window.kernel, g.window.stride, strict=True)) > 0)),
    Condition("kernel_size_hard_coded", "the kernel is not 3×3", _sliding(lambda g: set(g.window.kernel) != {3})),
    Condition("kernel_size_hard_coded", "the window is not 2×2", _sliding(lambda g: set(g.window.kernel) != {2})),
    Condition("same_size_assumed", "the padding is not (kernel − 1)/2", _sliding(lambda g: not _same_size(g))),
    Condition("one_sample_assumed", "there are several samples", lambda p: p.given.samples > 1),
    Condition("one_sample_fails", "there is one sample", lambda p: p.given.samples == 1),
    Condition("one_channel_assumed", "there are several channels", lambda p: _channels(p) > 1),
    Condition("one_channel_fails", "there is one channel", lambda p: _channels(p) == 1),
    Condition("one_filter_assumed", "there are several filters", lambda p: "w" in p.given and len(p.given["w"]) > 1),
    Condition("one_filter_fails", "there is one filter", lambda p: "w" in p.given and len(p.given["w"]) == 1),
    Condition("sizes_assumed_equal", "filters and channels differ in number",
              lambda p: "w" in p.given and len(p.given["w"]) != _channels(p)),
)  # fmt: skip


def separating(bad: Sequence[Outcome], fine: Sequence[Outcome]) -> tuple[Condition, ...]:
    """One condition, or two, that hold for all the bad outcomes (one of the two each) and for none of the fine ones.

    Nothing where all are bad or none is, or where no two conditions separate them.
    """
    if not bad or not fine:
        return ()
    able = [c for c in CONDITIONS if not any(c.holds(o.probe) for o in fine)]
    for size in (1, 2):
        for some in combinations(able, size):
            if all(any(c.holds(o.probe) for c in some) for o in bad):
                return some
    return ()


def mostly(bad: Sequence[Outcome], fine: Sequence[Outcome]) -> tuple[Condition, ...]:
    """A condition under which all is bad and that holds for most of the bad outcomes, where none separates them."""
    if len(fine) < _ENOUGH:
        return ()
    able = [c for c in CONDITIONS if not any(c.holds(o.probe) for o in fine)]
    best = max(able, key=lambda c: sum(c.holds(o.probe) for o in bad), default=None)
    if best is None or sum(best.holds(o.probe) for o in bad) < _MOST * len(bad):
        return ()
    return (best,)
