"""One training step (forward, cross-entropy, backward, plain SGD) beside PyTorch, alternating, on the same data.

    python benchmarks/training_step.py [--nets lenet5,cnn] [--batch 64] [--threads 2] [--repeats 7] [--json FILE]

Float32. PyTorch counts at its best of eager, channels_last and (with --compile) torch.compile. Times are medians
in milliseconds; a ratio above 1 says that sharedgrad is faster. Needs torch.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from torch import nn

import sharedgrad as sg

Step = Callable[[], None]


def convolution(cin: int, cout: int, k: int, pool: bool, act: str, **kw: int) -> tuple[list[sg.Layer], list[nn.Module]]:
    """The same convolution, activation and pooling for both."""
    acts = {"sigmoid": (sg.Sigmoid, nn.Sigmoid), "relu": (sg.ReLU, nn.ReLU)}[act]
    ours: list[sg.Layer] = [sg.Conv2d(cin, cout, k, **kw), acts[0]()]
    theirs: list[nn.Module] = [nn.Conv2d(cin, cout, k, **kw), acts[1]()]
    return ours + [sg.MaxPool2d(2)] * pool, theirs + [nn.MaxPool2d(2)] * pool


def dense(sizes: list[int], act: str) -> tuple[list[sg.Layer], list[nn.Module]]:
    """Dense layers with activations between them."""
    acts = {"sigmoid": (sg.Sigmoid, nn.Sigmoid), "relu": (sg.ReLU, nn.ReLU)}[act]
    ours: list[sg.Layer] = [sg.Flatten()]
    theirs: list[nn.Module] = [nn.Flatten()]
    for number, (i, o) in enumerate(itertools.pairwise(sizes)):
        ours += [acts[0]()] * (number > 0) + [sg.Linear(i, o)]
        theirs += [acts[1]()] * (number > 0) + [nn.Linear(i, o)]
    return ours, theirs


def chain(*parts: tuple[list[sg.Layer], list[nn.Module]]) -> tuple[list[sg.Layer], list[nn.Module]]:
    return [layer for ours, _ in parts for layer in ours], [module for _, theirs in parts for module in theirs]


def lenet5() -> tuple[list[sg.Layer], list[nn.Module]]:
    first = convolution(1, 6, 5, True, "sigmoid", padding=2)
    return chain(first, convolution(6, 16, 5, True, "sigmoid"), dense([400, 120, 84, 10], "sigmoid"))


def cnn() -> tuple[list[sg.Layer], list[nn.Module]]:
    first = convolution(1, 32, 3, True, "relu", padding=1)
    return chain(first, convolution(32, 64, 3, True, "relu", padding=1), dense([3136, 128, 10], "relu"))


def vgg() -> tuple[list[sg.Layer], list[nn.Module]]:
    channels = [3, 64, 64, 128, 128, 256, 256]
    convs = [
        convolution(i, o, 3, number % 2 == 1, "relu", padding=1)
        for number, (i, o) in enumerate(itertools.pairwise(channels))
    ]
    return chain(*convs, dense([4096, 10], "relu"))


def separable() -> tuple[list[sg.Layer], list[nn.Module]]:
    depthwise = [convolution(64, 64, 3, False, "relu", padding=1, groups=64), convolution(64, 64, 1, False, "relu")]
    ours, theirs = chain(([sg.Conv2d(3, 64, 1)], [nn.Conv2d(3, 64, 1)]), *depthwise, *depthwise)
    ours += [sg.GlobalAvgPool(), sg.Linear(64, 10)]
    theirs += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return ours, theirs


class Block(nn.Module):
    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout)
        self.conv2, self.bn2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout)
        same = stride == 1 and cin == cout
        down = [] if same else [nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout)]
        self.shortcut = nn.Sequential(*down)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.shortcut(x))


def torch_resnet20() -> nn.Module:
    stages = [
        (16, 16, 1),
        (16, 16, 1),
        (16, 16, 1),
        (16, 32, 2),
        (32, 32, 1),
        (32, 32, 1),
        (32, 64, 2),
        (64, 64, 1),
        (64, 64, 1),
    ]
    head = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*head, *(Block(*s) for s in stages), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


SHAPES = {
    "lenet5": (1, 28, 28),
    "cnn": (1, 28, 28),
    "vgg": (3, 32, 32),
    "resnet20": (3, 32, 32),
    "separable": (3, 32, 32),
}
CHAINS = {"lenet5": lenet5, "cnn": cnn, "vgg": vgg, "separable": separable}


def our_step(name: str, x: np.ndarray, labels: np.ndarray) -> Step:
    net = sg.models.resnet20(SHAPES[name], 10) if name == "resnet20" else sg.Network(CHAINS[name]()[0], SHAPES[name])
    loss, optimizer = sg.CrossEntropy(), sg.SGD(net.parameters(), lr=0.01)

    def step() -> None:
        y, tape = net.forward(x)
        _, upstream = loss(y, labels)
        optimizer.step(tape.backward(upstream))

    return step


def torch_step(name: str, x: np.ndarray, labels: np.ndarray, kind: str) -> Step:
    module = torch_resnet20() if name == "resnet20" else nn.Sequential(*CHAINS[name]()[1])
    tx, target = torch.tensor(x), torch.tensor(labels)
    if kind == "channels_last":
        module, tx = module.to(memory_format=torch.channels_last), tx.contiguous(memory_format=torch.channels_last)
    model = torch.compile(module) if kind == "compiled" else module
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(tx), target).backward()
        optimizer.step()

    return step


def measure(steps: dict[str, Step], repeats: int) -> dict[str, float]:
    """Median milliseconds of each, in turn; short steps are repeated within one measurement."""
    inner = {}
    for name, step in steps.items():
        step()
        step()
        start = perf_counter()
        step()
        inner[name] = max(1, round(0.05 / max(perf_counter() - start, 1e-6)))
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            start = perf_counter()
            for _ in range(inner[name]):
                step()
            times[name].append((perf_counter() - start) / inner[name] * 1e3)
    return {name: median(t) for name, t in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default=",".join(SHAPES))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile too (needs a C++ compiler, takes minutes)"
    )
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    sg.set_threads(given.threads)
    kinds = ["eager", "channels_last", *(["compiled"] if given.compile else [])]
    print(f"batch {given.batch}, {given.threads} threads, PyTorch {torch.__version__}; milliseconds a step\n")
    print(f"| net | sharedgrad | {' | '.join('PyTorch ' + k for k in kinds)} | best PyTorch / sharedgrad |")
    print("|---" * (len(kinds) + 3) + "|")
    results = {}
    for name in given.nets.split(","):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(given.batch, *SHAPES[name])).astype(np.float32)
        labels = rng.integers(0, 10, given.batch)
        steps = {"sharedgrad": our_step(name, x, labels)} | {k: torch_step(name, x, labels, k) for k in kinds}
        times = results[name] = measure(steps, given.repeats)
        cells = " | ".join(f"{t:.2f}" for t in times.values())
        print(f"| {name} | {cells} | {min(times[k] for k in kinds) / times['sharedgrad']:.2f} |", flush=True)
    if given.json:
        machine = {"processor": platform.processor(), "system": platform.platform(), "torch": torch.__version__}
        given.json.write_text(
            json.dumps({"machine": machine, "arguments": vars(given) | {"json": None}, "ms": results}, indent=2)
        )


if __name__ == "__main__":
    main()
