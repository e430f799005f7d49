"""Whether other processes, or other virtual machines, took the processors while something was measured."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic


class Bystanders:
    """Watches from its making on. Linux only; elsewhere it knows nothing of the others."""

    def __init__(self) -> None:
        self._start, self._others = monotonic(), _others()

    def share(self, own: float = 0.0) -> float:
        """The part of all processors' time that others took so far, from 0 to 1.

        Args:
            own: Seconds of processor time that processes took meanwhile which are no others.
        """
        taken = _others() - self._others - own
        return max(0.0, taken) / ((monotonic() - self._start) * (os.cpu_count() or 1))


def _others() -> float:
    """Seconds of processor time since the machine's start, without this process and its ended children."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
        user, nice, system, _, _, interrupts, soft, stolen = (int(field) for field in fields[1:9])
    except (OSError, ValueError):
        return 0.0
    busy = (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")
    return busy - sum(os.times()[:4])
