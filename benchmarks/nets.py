"""The nets that are measured, as sharedgrad's, and their data. ``torch_nets`` holds the same for PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

import sharedgrad as sg

GRAY, COLOUR = (1, 28, 28), (3, 32, 32)
CHANNELS = (8, 16, 32, 64, 128, 256)


def separable() -> sg.Network:
    """Depthwise 3×3 and 1×1 convolutions in turn, 64 channels."""
    layers: list[sg.Layer] = [sg.Conv2d(3, 64, 1)]
    for _ in range(2):
        layers += [sg.Conv2d(64, 64, 3, padding=1, groups=64), sg.ReLU(), sg.Conv2d(64, 64, 1), sg.ReLU()]
    return sg.Network([*layers, sg.GlobalAvgPool(), sg.Linear(64, 10)], COLOUR)


def wide(channels: int) -> sg.Network:
    """Two 3×3 convolutions of so many channels, each pooled."""
    layers = [
        *(sg.Conv2d(3, channels, 3, padding=1), sg.ReLU(), sg.MaxPool2d(2)),
        *(sg.Conv2d(channels, channels, 3, padding=1), sg.ReLU(), sg.MaxPool2d(2)),
        *(sg.Flatten(), sg.Linear(channels * 64, 10)),
    ]
    return sg.Network(layers, COLOUR)


NETS: dict[str, Callable[[], sg.Network]] = {
    "lenet5": partial(sg.models.lenet5, GRAY, 10),
    "cnn": partial(sg.models.cnn, GRAY, 10),
    "vgg": partial(sg.models.vgg, COLOUR, 10),
    "resnet20": partial(sg.models.resnet20, COLOUR, 10),
    "separable": separable,
}
WIDE: dict[str, Callable[[], sg.Network]] = {f"wide{c}": partial(wide, c) for c in CHANNELS}


def build(name: str) -> sg.Network:
    """The net of that name, always with the same first weights."""
    return (NETS | WIDE)[name]()


def data(name: str, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (batch, channels, height, width) in float32 and their classes, always the same."""
    rng = np.random.default_rng(0)
    shape = GRAY if name in ("lenet5", "cnn") else COLOUR
    return rng.normal(size=(batch, *shape)).astype(np.float32), rng.integers(0, 10, batch)
