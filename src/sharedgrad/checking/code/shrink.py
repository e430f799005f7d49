"""The smallest case that still goes wrong in the same way: fewer samples, channels, filters, smaller maps and windows,
and small whole numbers in them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from sharedgrad.checking.code.observe import Outcome
from sharedgrad.checking.code.probes import Probe, Recipe, Subject
from sharedgrad.checking.distinguish import drawn
from sharedgrad.errors import SharedgradError

_SECONDS = 0.8


def smallest(
    outcome: Outcome, subject: Subject, run: Callable[[Probe], Outcome], alike: Callable[[Outcome], bool]
) -> Outcome:
    """Shrink a case one step at a time as long as it stays alike.

    Args:
        outcome: The case to start from.
        subject: What makes probes.
        run: Runs the code on one.
        alike: Whether an outcome shows the same.
    """
    end = time.monotonic() + _SECONDS
    again = True
    while again:
        again = False
        for recipe in _smaller(outcome.probe.recipe):
            if time.monotonic() > end:
                return outcome
            try:
                probe = subject.make(recipe, values=outcome.probe.values)
            except SharedgradError:
                continue
            if probe.given["x"].size >= outcome.probe.given["x"].size and _weight(probe) >= outcome.weight:
                continue
            found = run(probe)
            if alike(found):
                outcome, again = found, True
                break
    friendly = run(replace(outcome.probe, given=drawn(outcome.probe.given, seed=0)))
    return friendly if alike(friendly) else outcome


def _weight(probe: Probe) -> int:
    return sum(int(a.size) for a in probe.given.arrays.values())


def _smaller(r: Recipe) -> Iterator[Recipe]:
    """Each size at its least at once, then one step down."""
    least = (1, 1, tuple(1 for _ in r.size), 1, tuple(1 for _ in r.kernel), 1, 0)
    for name, low in zip(Recipe._fields, least, strict=True):
        now = getattr(r, name)
        if isinstance(now, tuple):
            for axis, n in enumerate(now):
                for less in {max(n // 2, 1), n - 1}:
                    if 1 <= less < n:
                        yield r._replace(**{name: (*now[:axis], less, *now[axis + 1 :])})
        else:
            for less in dict.fromkeys((low, now - 1)):
                if low <= less < now:
                    yield r._replace(**{name: less})
