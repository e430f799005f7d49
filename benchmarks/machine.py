"""The machine that was measured on: processor, caches, memory, versions, and its peak in float32."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from timeit import repeat

import numpy as np
from threadpoolctl import threadpool_limits

import sharedgrad as sg
from benchmarks.options import Options

ROOT = Path(__file__).parents[1]
TRIES = 50


def use_threads(count: int, rivals: bool) -> None:
    """Let sharedgrad and PyTorch run on so many threads."""
    sg.set_threads(count)
    if rivals and find_spec("torch"):
        import torch

        torch.set_num_threads(count)


def describe(options: Options) -> dict[str, object]:
    """What a reader needs to judge the figures, as plain data."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "caches of a core": _caches(),
        "memory in GiB": _memory(),
        "load at the start": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("numpy", "torch", "jax", "onnxruntime", "opacus", "backpack-for-pytorch")},
        "sharedgrad": sg.__version__,
        "kernels": _kernels(),
        "threads": options.threads,
        "peak GFLOP/s, float32": peak(options.threads, options.rivals),
    }


@cache
def peak(threads: int, rivals: bool) -> float:
    """The most operations a second, in 10⁹, that a matrix product reached: several sizes, NumPy's and PyTorch's."""
    return max(_product(size, threads, rivals) for size in (256, 512, 1024))


def _product(n: int, threads: int, rivals: bool) -> float:
    a, b = np.random.default_rng(0).normal(size=(2, n, n)).astype(np.float32)
    with threadpool_limits(limits=threads, user_api="blas"):
        seconds = min(repeat(lambda: a @ b, number=1, repeat=TRIES))
    if rivals and find_spec("torch"):
        import torch

        torch.set_num_threads(threads)
        left, right = torch.tensor(a), torch.tensor(b)
        seconds = min(seconds, *repeat(lambda: left @ right, number=1, repeat=TRIES))
    return 2e-9 * n**3 / seconds


def _kernels() -> str:
    if not sg.kernels.compiled():
        return "NumPy"
    return f"compiled, instruction set {sg.kernels.native.instruction_set()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _caches() -> str:
    """Level, kind and size of each, as Linux tells them."""
    found = []
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        found.append(f"L{level} {kind.lower()} {size}")
    return ", ".join(found) or "unknown"


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """The commit of this checkout, with "-dirty" where files have changed since."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
