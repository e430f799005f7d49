"""Kernels that are prepared for evaluation follow the weights."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad import kernels
from sharedgrad.plan import prepared
from tests.helpers import Array, close, same_bits

pytestmark = pytest.mark.compiled


def _net(channels: int = 32, dtype: str = "float32") -> sg.Network:
    """A convolution of few channels, one that minimal filtering serves, one of stride 2 and one of unusual width."""
    layers = [
        *(sg.Conv2d(1, channels, 3, padding=1), sg.ReLU()),
        *(sg.Conv2d(channels, channels, 3, padding=1), sg.ReLU(), sg.MaxPool2d(2)),
        *(sg.Conv2d(channels, 5, 3, stride=2), sg.Tanh(), sg.Conv2d(5, 3, 2, dilation=2)),
    ]
    return sg.Network(layers, (1, 20, 20), dtype=dtype)


def _x(samples: int, scale: float = 1.0) -> Array:
    return scale * np.random.default_rng(samples).normal(size=(samples, 1, 20, 20)).astype(np.float32)


def _agrees(net: sg.Network, x: Array) -> None:
    found = net.predict(x)
    with kernels.use("vectorized"):
        close(found, net.predict(x), 1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("samples", [1, 2, 3])
def test_predictions_follow_every_change_of_the_weights(samples: int, dtype: str, instruction_set: str) -> None:
    net, x = _net(dtype=dtype), _x(samples).astype(dtype)
    _agrees(net, x)
    weight = net.nodes[2].layer.parameters()["weight"]
    weight.value = -weight.value  # assigned
    _agrees(net, x)
    _, tape = net.forward(x)
    gradients = tape.backward(np.ones((samples, 3, 2, 2), dtype))
    optimizer = sg.SGD(net.parameters(), lr=0.1, momentum=0.9)
    optimizer.step(gradients)  # a step
    _agrees(net, x)
    step = sg.compile_step(net, sg.MSE(), optimizer)
    for _ in range(3):  # steps that write over the arrays
        step(x, np.zeros((samples, 3, 2, 2), dtype))
        _agrees(net, x)


def test_a_kernel_is_prepared_once_for_a_value_and_for_any_number_of_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    whole = prepared.Prepared.__init__
    monkeypatch.setattr(
        prepared.Prepared, "__init__", lambda self, *arguments: (made.append(1), whole(self, *arguments))[1]
    )
    net = _net()
    for samples in (1, 2, 1, 3):
        net.predict(_x(samples))
    assert len(made) == 4
    first = net.nodes[0].layer.parameters()["weight"]
    (own,) = prepared._known[first].values()
    same = own.of_value(first)
    net.predict(_x(1))
    assert own.of_value(first) is same
    first.value = 2 * first.value
    assert own.of_value(first) is not same


def test_prepared_kernels_go_with_their_parameters() -> None:
    net = _net(4)
    net.predict(_x(1))
    weight = weakref.ref(net.parameters()[0])
    assert weight() in prepared._known
    del net
    gc.collect()
    assert weight() is None


def test_numbers_that_are_too_large_take_the_definitions_sums() -> None:
    net = sg.Network([sg.Conv2d(16, 16, 3, padding=1)], (16, 16, 16))
    x = np.random.default_rng(0).normal(size=(1, 16, 16, 16)).astype(np.float32)
    x[0, 3, 5, 6] = 1e30
    found = net.predict(x)
    with kernels.use("vectorized"):
        expected = net.predict(x)
    seen = np.zeros((16, 16), bool)
    seen[4:7, 5:8] = True
    close(found[..., ~seen], expected[..., ~seen], 1e-5)
    close(found[..., seen], expected[..., seen], 1e-5)


def test_minimal_filtering_is_turned_off_under_a_network_that_has_prepared_for_it() -> None:
    net, x = _net(), _x(1)
    first = net.predict(x)
    sg.set_winograd(False)
    try:
        plain = net.predict(x)
        same_bits(plain, _net().predict(x))
    finally:
        sg.set_winograd(True)
    close(plain, first, 1e-4)
    same_bits(net.predict(x), first)


def test_a_kernel_seen_as_a_view_is_read_as_it_is() -> None:
    first, second = (sg.Conv2d(3, 3, 3, padding=1) for _ in range(2))
    second.weight = first.weight.T  # all axes in reverse
    net = sg.Network([first, sg.ReLU(), second], (3, 6, 6))
    x = np.random.default_rng(0).normal(size=(1, 3, 6, 6)).astype(np.float32)
    for _ in range(2):
        _agrees(net, x)
        first.weight.value = first.weight.value + 0.1
