"""The nets that are measured, as sharedgrad's, and their data. ``torch_nets`` holds the same for PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

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


class Swish(sg.Layer):
    """A layer of somebody's own: y = x · sigmoid(x)."""

    def forward(self, *inputs: np.ndarray, context: sg.Context) -> tuple[np.ndarray, Any]:
        """x of any shape -> y."""
        (x,) = inputs
        s = 1 / (1 + np.exp(-x))
        return x * s, (x, s)

    def backward(
        self, saved: Any, upstream: np.ndarray, needs: Sequence[bool]
    ) -> tuple[tuple[np.ndarray | None, ...], list[sg.uses.Uses]]:
        """dy -> dx."""
        x, s = saved
        return (upstream * (s + x * s * (1 - s)),), []

    def output_shape(self, *shapes: tuple[int, ...]) -> tuple[int, ...]:
        """The input's shape."""
        return shapes[0]


def cnn(padding_mode: str = "zeros", activation: type[sg.Layer] = sg.ReLU) -> sg.Network:
    """``models.cnn`` with another padding, or another activation behind the first dense layer."""
    layers = [
        *(sg.Conv2d(1, 32, 3, padding=1, padding_mode=padding_mode), sg.ReLU(), sg.MaxPool2d(2)),
        *(sg.Conv2d(32, 64, 3, padding=1, padding_mode=padding_mode), sg.ReLU(), sg.MaxPool2d(2)),
        *(sg.Flatten(), sg.Linear(3136, 128), activation(), sg.Linear(128, 10)),
    ]
    return sg.Network(layers, GRAY)


NETS: dict[str, Callable[[], sg.Network]] = {
    "lenet5": partial(sg.models.lenet5, GRAY, 10),
    "cnn": partial(sg.models.cnn, GRAY, 10),
    "vgg": partial(sg.models.vgg, COLOUR, 10),
    "resnet20": partial(sg.models.resnet20, COLOUR, 10),
    "separable": separable,
}
VARIED: dict[str, Callable[[], sg.Network]] = {
    "cnn, an own layer": partial(cnn, activation=Swish),
    "cnn, reflecting padding": partial(cnn, padding_mode="reflect"),
}
WIDE: dict[str, Callable[[], sg.Network]] = {f"wide{c}": partial(wide, c) for c in CHANNELS}


def build(name: str) -> sg.Network:
    """The net of that name, always with the same first weights."""
    return (NETS | WIDE | VARIED)[name]()


def data(name: str, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (batch, channels, height, width) in float32 and their classes, always the same."""
    rng = np.random.default_rng(0)
    shape = GRAY if name == "lenet5" or name.startswith("cnn") else COLOUR
    return rng.normal(size=(batch, *shape)).astype(np.float32), rng.integers(0, 10, batch)
