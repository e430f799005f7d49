"""Networks whose samples' gradients are kept apart, and each sample's gradient by a backward pass of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import sharedgrad as sg
from tests.helpers import Array

Build = Callable[[str], sg.Network]
IMAGE = (2, 9, 8)
BATCHES = (1, 3, 16, 17, 33)


def plain(dtype: str) -> sg.Network:
    """Strides, padding on one side, dilation; a dense layer without a bias."""
    layers = [
        *(sg.Conv2d(2, 5, (3, 2), stride=(2, 1), padding=((1, 0), (0, 2))), sg.ReLU(), sg.MaxPool2d(2)),
        *(sg.Conv2d(5, 4, 2, dilation=(1, 2), padding=1, bias=False), sg.Sigmoid(), sg.AvgPool2d(2, padding=1)),
        *(sg.Flatten(), sg.Linear(24, 7, bias=False), sg.Tanh(), sg.Linear(7, 3)),
    ]
    return sg.Network(layers, IMAGE, dtype=dtype, seed=1)


def grouped(dtype: str) -> sg.Network:
    """Groups, down to depthwise, and a stride that leaves cells out."""
    layers = [
        *(sg.Conv2d(2, 6, 3, padding=1, groups=2), sg.ReLU(), sg.Conv2d(6, 6, 3, groups=6, stride=3, padding=2)),
        *(sg.Tanh(), sg.Conv2d(6, 4, 1, groups=2), sg.GlobalAvgPool(), sg.Linear(4, 3)),
    ]
    return sg.Network(layers, IMAGE, dtype=dtype, seed=2)


def signal(dtype: str) -> sg.Network:
    layers = [sg.Conv1d(3, 5, 4, stride=2, padding=3, dilation=2), sg.ReLU(), sg.Conv1d(5, 2, 1), sg.Flatten()]
    return sg.Network(layers, (3, 11), dtype=dtype, seed=3)


def wide(dtype: str) -> sg.Network:
    """Many channels on few positions: the norms of its kernels come from inner products."""
    layers = [
        *(sg.Conv2d(2, 40, 3, padding=1, stride=2), sg.ReLU(), sg.Conv2d(40, 44, 3, padding=1), sg.ReLU()),
        *(sg.Conv2d(44, 40, (2, 3), padding=(0, 2), dilation=(3, 2), groups=2), sg.Flatten(), sg.Linear(320, 2)),
    ]
    return sg.Network(layers, IMAGE, dtype=dtype, seed=4)


def residual(dtype: str) -> sg.Network:
    """One upstream gradient flows to several layers that have parameters."""
    layers: dict[str, Any] = {
        "stem": sg.Conv2d(2, 3, 3, padding=1),
        "tanh": sg.Tanh(),
        "skip": (sg.Sigmoid(), "tanh"),
        "left": (sg.Conv2d(3, 3, 3, padding=1), "tanh"),
        "right": (sg.Conv2d(3, 3, 1), "tanh"),
        "sum": (sg.Add(), "left", "right", "skip"),
        "relu": sg.ReLU(),
        "pool": sg.GlobalAvgPool(),
        "a": (sg.Linear(3, 4), "pool"),
        "b": (sg.Linear(3, 4), "pool"),
        "scores": (sg.Add(), "a", "b"),
    }
    return sg.Network(layers, IMAGE, dtype=dtype, seed=5)


def dropped(dtype: str) -> sg.Network:
    layers = [sg.Conv2d(2, 3, 3), sg.Dropout(0.4), sg.ReLU(), sg.Flatten(), sg.Linear(126, 4), sg.Dropout(0.5)]
    return sg.Network(layers, IMAGE, dtype=dtype, seed=6)


def normalized(dtype: str) -> sg.Network:
    layers = [
        *(sg.Conv2d(2, 5, 3), sg.BatchNorm2d(5), sg.ReLU(), sg.Conv2d(5, 3, 3, bias=False), sg.BatchNorm2d(3)),
        *(sg.Tanh(), sg.Flatten(), sg.Linear(60, 3)),
    ]
    net = sg.Network(layers, IMAGE, dtype=dtype, seed=7)
    rng = np.random.default_rng(7)
    for layer in (node.layer for node in net):
        if isinstance(layer, sg.BatchNorm2d):
            for p in layer.parameters().values():
                p.value = rng.normal(1, 0.5, p.shape)
    for _ in range(3):
        net.forward(rng.normal(1, 2, (8, *IMAGE)))
    return net


def tied(dtype: str) -> sg.Network:
    """Two convolutions share their kernel, and one layer is called twice."""
    first, second, dense = sg.Conv2d(2, 2, 3, padding=1), sg.Conv2d(2, 2, 3, padding=1), sg.Linear(144, 144)
    second.tie("weight", first.weight)
    layers = [first, sg.Tanh(), second, sg.Flatten(), dense, sg.ReLU(), dense]
    return sg.Network(layers, IMAGE, dtype=dtype, seed=8)


def tokens(dtype: str) -> sg.Network:
    """A recurrent layer, and a dense one on every time step."""
    layers = [sg.RNN(4, 5), sg.Linear(5, 3), sg.Flatten(), sg.Linear(21, 2)]
    return sg.Network(layers, (7, 4), dtype=dtype, seed=9)


def unshared(dtype: str) -> sg.Network:
    layers = [sg.LocallyConnected2d(2, 3, (9, 8), 3), sg.Tanh(), sg.Flatten(), sg.Linear(126, 2)]
    return sg.Network(layers, IMAGE, dtype=dtype, seed=10)


COMPILED_NETS = (plain, grouped, signal, wide, residual, dropped, normalized, tied)
NETS = (*COMPILED_NETS, tokens, unshared)


class Case:
    """A tape, an upstream gradient, and every sample's gradient by a backward pass of its own, in float64."""

    def __init__(self, build: Build, samples: int, dtype: str = "float64", sizes: float = 1.0) -> None:
        rng = np.random.default_rng(samples)
        self.net = build(dtype)
        self.samples = samples
        x = rng.normal(size=(samples, *next(iter(self.net.inputs.values()))))
        y, self.tape = self.net.forward(x, training=build is not normalized)
        self.upstream = rng.normal(size=y.shape) * np.exp(rng.normal(0, sizes, (samples,) + (1,) * (y.ndim - 1)))
        self.parameters = self.net.parameters()
        self.dtype = np.dtype(dtype)

    def alone(self) -> dict[sg.Parameter, Array]:
        """(N, *shape): the upstream gradients of all other samples are zero."""
        rows = []
        for n in range(self.samples):
            upstream = np.zeros_like(self.upstream)
            upstream[n] = self.upstream[n]
            rows.append(self.tape.backward(upstream))
        return {p: np.stack([row[p] for row in rows]).astype(np.float64) for p in self.parameters}
