"""What compiled programs compute beside the samples, to fill their vectors, never reaches a result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad import kernels
from tests.helpers import Array, close

pytestmark = pytest.mark.compiled

DEPTH = 20  # each normalization of a constant channel multiplies what is in absent samples by about 300

CONVOLUTIONS = {  # each with as many channels as its own kernel of the weight gradient serves
    "plain": (lambda c: sg.Conv2d(c, c, 5, padding=2), 4),
    "minimal filtering": (lambda c: sg.Conv2d(c, c, 3, padding=1), 16),
    "1×1": (lambda c: sg.Conv2d(c, c, 1), 8),
    "depthwise": (lambda c: sg.Conv2d(c, c, 3, padding=1, groups=c), 4),
}


def _deep(kind: str) -> sg.Network:
    """Convolutions and batch norms whose channels, for all samples, are below zero before the ReLU and dead after it."""
    convolution, channels = CONVOLUTIONS[kind]
    layers: list[sg.Layer] = [sg.Conv2d(1, channels, 1)]
    for _ in range(DEPTH):
        norm = sg.BatchNorm2d(channels)
        norm.bias.value = np.random.default_rng(0).uniform(-1, -0.5, channels)
        layers += [norm, sg.ReLU(), convolution(channels)]
    return sg.Network([*layers, sg.GlobalAvgPool(), sg.Linear(channels, 3)], (1, 4, 4))


def _gradients(network: sg.Network, x: Array) -> list[Array]:
    y, tape = network.forward(x)
    found = tape.backward(np.linspace(-1, 1, y.size).reshape(y.shape), inputs=True)
    return [y, found.inputs["input"], *(found[p] for p in network.parameters())]


@pytest.mark.parametrize("samples", [15, 17, 3])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_dead_channels_through_many_batch_norms(kind: str, samples: int, instruction_set: str) -> None:
    network, x = _deep(kind), np.ones((samples, 1, 4, 4))
    found = _gradients(network, x)
    with kernels.use("vectorized"):
        expected = _gradients(network, x)
    for a, b in zip(found, expected, strict=True):
        close(a, b, 1e-3)
