"""``python -m benchmarks.probe NET KIND BATCH THREADS``: bytes of memory that training steps need at their peak.

KIND is sharedgrad, one of PyTorch's, or "traced plain", "traced norms", "traced norms and shares" for PyTorch models.
Linux only: /proc/self tells the peak, and lets it be set back.
"""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from pathlib import Path

from benchmarks import machine, training
from benchmarks.timing import Call

STEPS = 4


def main() -> None:
    name, kind, batch, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    machine.use_threads(threads, rivals=kind != "sharedgrad")
    _step("wide8", kind, 4)()  # what the library itself loads when it first runs does not count
    step = _step(name, kind, batch)
    if kind.startswith("compiled"):
        step()  # nor does the compiler
    gc.collect()
    _give_back()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is held now
    before = _status("VmRSS")
    for _ in range(STEPS):
        step()
    print(_status("VmHWM") - before)


def _step(name: str, kind: str, batch: int) -> Call:
    if kind.startswith("traced ") and name != "wide8":
        from benchmarks import traced_models

        return traced_models.step(name, kind.removeprefix("traced "))
    if kind == "sharedgrad":
        return training.training_step(name, batch)
    from benchmarks import rival

    return rival.training_step(name, batch, kind)


def _give_back() -> None:
    """Hand freed memory back to the system, so that steps cannot live on what setting up has left."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def _status(field: str) -> int:
    """One line of /proc/self/status, in bytes."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if not found:
        raise OSError(f"/proc/self/status has no {field}")
    return int(found[1]) * 1024


if __name__ == "__main__":
    main()
