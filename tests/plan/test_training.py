"""Whole trainings: rounding is the only difference between compiled programs and NumPy's kernels."""

from __future__ import annotations

import numpy as np

import sharedgrad as sg
from sharedgrad import data, kernels
from tests.helpers import Array

STEPS = 300


def _network() -> sg.Network:
    layers = [
        sg.Conv2d(1, 6, 3, padding=1),
        sg.Tanh(),
        sg.MaxPool2d(2),
        sg.Conv2d(6, 12, 3, bias=False),
        sg.BatchNorm2d(12),
        sg.ReLU(),
        sg.Flatten(),
        sg.Linear(48, 32),
        sg.ReLU(),
        sg.Dropout(0.2),
        sg.Linear(32, 10),
    ]
    return sg.Network(layers, (1, 8, 8))


def _trained(x: Array, labels: Array, name: str) -> tuple[sg.Network, list[float]]:
    with kernels.use(name):  # type: ignore[arg-type]
        net, loss, losses = _network(), sg.CrossEntropy(), []
        optimizer = sg.SGD(net.parameters(), lr=0.02, momentum=0.9)
        order = np.random.default_rng(0)
        for _ in range(STEPS):
            batch = order.choice(len(x), 1 + order.integers(50), replace=False)
            y, tape = net.forward(x[batch])
            value, upstream = loss(y, labels[batch])
            optimizer.step(tape.backward(upstream))
            losses.append(value)
    return net, losses


def test_a_training_takes_the_way_that_numpy_takes() -> None:
    digits = data.load("digits")
    x = np.asarray(digits.x, np.float32) / 255
    compiled, losses = _trained(x, digits.y, "native")
    plain, expected = _trained(x, digits.y, "vectorized")
    assert np.mean(expected[-50:]) < 0.3 * np.mean(expected[:10])
    np.testing.assert_allclose(losses, expected, atol=1e-3)
    for name, value in compiled.state_dict().items():
        np.testing.assert_allclose(value, plain.state_dict()[name], atol=1e-3, err_msg=name)
    same = np.argmax(compiled.predict(x), axis=1) == np.argmax(plain.predict(x), axis=1)
    assert same.mean() > 0.998
