"""Single convolutions in GFLOP/s: forward, input gradient and weight gradient, beside PyTorch's forward.

    python benchmarks/convolutions.py [--batch 64] [--threads 2] [--repeats 7]

Float32, stride 1, "same" padding; a multiplication and an addition are two operations. PyTorch counts at its better
of the two memory formats, each already in its own. The last column is the time of the weight gradients kept apart by
sample over that of their sum. Needs torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from timeit import repeat, timeit

import numpy as np
import torch

import sharedgrad as sg
from sharedgrad import kernels
from sharedgrad.geometry import Geometry

# channels, filters, height and width, kernel, groups
SHAPES = [
    (1, 6, 28, 5, 1),
    (1, 32, 28, 3, 1),
    (3, 64, 32, 1, 1),
    (16, 16, 32, 3, 1),
    (64, 64, 32, 1, 1),
    (64, 64, 32, 3, 1),
    (128, 128, 16, 3, 1),
    (256, 256, 8, 3, 1),
    (64, 64, 32, 3, 64),
]


def alternating(runs: list[Callable[[], object]], repeats: int) -> list[float]:
    """Median seconds of each, in turn, every turn about 50 ms long."""
    for run in runs:
        run()
    turns = [max(1, round(0.05 / min(repeat(run, number=1, repeat=3)))) for run in runs]
    times = [[timeit(run, number=n) / n for run, n in zip(runs, turns, strict=True)] for _ in range(repeats)]
    return [median(column) for column in zip(*times, strict=True)]


def torch_forwards(x: np.ndarray, w: np.ndarray, groups: int) -> list[Callable[[], object]]:
    def run(layout: torch.memory_format) -> Callable[[], object]:
        tx, tw = (torch.tensor(a).contiguous(memory_format=layout) for a in (x, w))
        return lambda: torch.nn.functional.conv2d(tx, tw, padding=w.shape[-1] // 2, groups=groups)

    return [run(torch.contiguous_format), run(torch.channels_last)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.set_grad_enabled(False)
    sg.set_threads(given.threads)
    print(f"batch {given.batch}, {given.threads} threads, PyTorch {torch.__version__}; GFLOP/s\n")
    print("| convolution | forward | input gradient | weight gradient | PyTorch forward | by sample / sum |")
    print("|---" * 6 + "|")
    rng = np.random.default_rng(0)
    for c, f, size, k, groups in SHAPES:
        g = Geometry.of(2, k, padding="same", groups=groups)
        x = rng.normal(size=(given.batch, c, size, size)).astype(np.float32)
        w = rng.normal(size=(f, c // groups, k, k)).astype(np.float32)
        ours = kernels.of(x)
        dy = ours.conv(x, w, None, g)
        runs: list[Callable[[], object]] = [
            lambda ours=ours, x=x, w=w, g=g: ours.conv(x, w, None, g),
            lambda ours=ours, dy=dy, w=w, g=g, s=x.shape[2:]: ours.conv_input_gradient(dy, w, g, s),
            lambda ours=ours, dy=dy, x=x, g=g: ours.conv_kernel_gradient(dy, x, g),
            lambda ours=ours, dy=dy, x=x, g=g: ours.conv_kernel_gradients(dy, x, g),
        ]
        forward, dx, dw, by_sample, *theirs = alternating([*runs, *torch_forwards(x, w, groups)], given.repeats)
        operations = 2e-9 * given.batch * f * size * size * (c // groups) * k * k
        cells = " | ".join(f"{operations / t:.0f}" for t in (forward, dx, dw, min(theirs)))
        name = f"{c}→{f}, {k}×{k} on {size}×{size}" + (f", {groups} groups" if groups > 1 else "")
        print(f"| {name} | {cells} | {by_sample / dw:.2f} |", flush=True)


if __name__ == "__main__":
    main()
