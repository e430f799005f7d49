"""Keep to the memory that there is: refuse what does not fit, and go through the rest in chunks."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sharedgrad.errors import DataError

_CHUNK = 2**22


def available() -> int:
    """Bytes of memory that may still be taken; ``sys.maxsize`` where the system does not tell."""
    limits = [sys.maxsize]
    with contextlib.suppress(AttributeError, OSError, ValueError):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits.append(1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")))
    # A container's own limit; the text is "max" where there is none.
    with contextlib.suppress(OSError, ValueError):
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(limits)


def ensure_fits(size: int, where: object, fix: str) -> None:
    """Raise DataError unless ``size`` bytes are available."""
    free = available()
    if size > free:
        raise DataError(where, f"needs {_amount(size)} of memory, but {_amount(free)} are available", fix)


def reserve(shape: tuple[int, ...], dtype: DTypeLike, where: object, fix: str) -> NDArray[Any]:
    """An uninitialized array, or DataError where it does not fit into memory."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    ensure_fits(size, where, fix)
    try:
        return np.empty(shape, dtype)
    except (MemoryError, ValueError) as error:
        raise DataError(where, f"needs {_amount(size)} of memory, more than can be taken", fix) from error


def chunks(x: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Views of consecutive samples of x, of at most about four million values each and one sample at least."""
    step = max(1, _CHUNK // max(1, math.prod(x.shape[1:])))
    return (x[start : start + step] for start in range(0, len(x), step))


def first_not_finite(x: NDArray[Any]) -> int | None:
    """The number of the first sample of x (N, …) with a NaN or infinite value; None if there is none."""
    start = 0
    for chunk in chunks(x):
        finite = np.isfinite(chunk).reshape(len(chunk), -1).all(axis=1)
        if not finite.all():
            return start + int(np.argmin(finite))
        start += len(chunk)
    return None


def _amount(size: int) -> str:
    return f"{size / 2**30:,.2f} GiB" if size >= 2**27 else f"{size:,} bytes"
