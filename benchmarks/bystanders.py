"""Whether other processes, or other virtual machines, took the processors while something was measured."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic

TOLERATED = 0.05  # of the processors' time


class Bystanders:
    """Watches from its making on. Linux only; elsewhere it knows nothing of the others."""

    def __init__(self) -> None:
        self._start, self._others = monotonic(), _others()

    def share(self) -> float | None:
        """The part of all processors' time that was spent elsewhere so far."""
        now = _others()
        if now is None or self._others is None:
            return None
        return max(0.0, now - self._others) / ((monotonic() - self._start) * (os.cpu_count() or 1))

    def __str__(self) -> str:
        text, share = f"{monotonic() - self._start:.1f} s", self.share()
        if share is None or share < TOLERATED:
            return text
        return f"{text}; {share:.0%} of the processors' time went to others: measure again when it is quiet"


def _others() -> float | None:
    """Seconds of processor time since the machine's start, without this process and its ended children."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
        user, nice, system, _, _, interrupts, soft, stolen = (int(field) for field in fields[1:9])
    except (OSError, ValueError):
        return None
    busy = (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")
    return busy - sum(os.times()[:4])
