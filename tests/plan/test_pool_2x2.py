"""An activation and max pooling in windows of 2×2, computed at once, against the same layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad import kernels
from tests.helpers import Array, close, numbers

ACTIVATIONS: dict[str, list[sg.Layer]] = {
    "none": [],
    "relu": [sg.ReLU()],
    "sigmoid": [sg.Sigmoid()],
    "tanh": [sg.Tanh()],
}
EACH_ACTIVATION = pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
SAMPLES = [1, 2, 3, 5, 8, 17]  # rounded up to powers of two they are the lanes: 1, 2, 4, 8 and a whole vector
pytestmark = pytest.mark.compiled


def _both(net: sg.Network, x: Array, at: str | None = None, inputs: bool = False) -> list[tuple[Array, sg.Gradients]]:
    """The output and the gradients, compiled and layer by layer."""
    found = []
    for name in ("native", "vectorized"):
        with kernels.use(name):
            y, tape = net.forward(x)
            shape = y.shape if at is None else (len(x), *net.shapes()[at])
            upstream: Any = np.random.default_rng(1).normal(size=shape)
            found.append((y, tape.backward(upstream if at is None else {at: upstream}, inputs)))
    return found


def _compare(net: sg.Network, x: Array, at: str | None = None) -> None:
    (y, gradients), (expected, others) = _both(net, x, at)
    close(y, expected, 1e-5)
    assert set(gradients) == set(others)
    for parameter in gradients:
        close(gradients[parameter], others[parameter])


@pytest.mark.parametrize("samples", SAMPLES)
@EACH_ACTIVATION
@pytest.mark.parametrize("size", [(2, 2), (5, 7), (9, 36), (12, 3)])
def test_like_layer_by_layer(activation: list[sg.Layer], size: tuple[int, int], samples: int) -> None:
    rng = np.random.default_rng(samples)
    layers = [sg.Conv2d(2, 3, 3, padding=1), *activation, sg.MaxPool2d(2), sg.Conv2d(3, 2, 3, padding=2)]
    for dtype in ("float32", "float64"):
        net = sg.Network(layers, (2, *size), dtype=dtype)
        _compare(net, rng.normal(size=(samples, 2, *size)).astype(dtype))


def _three_by_three(rng: np.random.Generator) -> dict[str, Any]:
    """What may be computed with fewer multiplications."""
    return {"kernel_size": 3, "padding": int(rng.integers(2))}


def _any_window(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "kernel_size": numbers(rng, 1, 5, 2),
        "padding": numbers(rng, 0, 2, 2),
        "stride": tuple(int(n) for n in rng.choice([1, 1, 2, 3], 2)),
        "dilation": int(rng.choice([1, 1, 2])),
    }


@pytest.mark.parametrize("seed", range(5))
@EACH_ACTIVATION
@pytest.mark.parametrize("window", [_three_by_three, _any_window])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_after_any_convolution(
    dtype: str,
    first: bool,
    window: Callable[[np.random.Generator], dict[str, Any]],
    activation: list[sg.Layer],
    seed: int,
) -> None:
    """With samples enough for whole vectors the convolution's outputs are pooled before they are stored; and its
    outputs' gradient is not stored either, if the convolution is the first layer."""
    rng = np.random.default_rng(seed)
    groups, samples = int(rng.choice([1, 1, 1, 2, 3])), int(rng.choice([8, 13, 16, 19, 33]))
    channels, filters = (groups * int(n) for n in rng.choice([1, 2, 5, 9, 26, 40], 2))
    conv = sg.Conv2d(channels, filters, **window(rng), groups=groups, bias=bool(rng.integers(2)))
    size = tuple(int(n) for n in rng.integers(11, 16, 2))
    if min(conv.output_shape((channels, *size))[1:]) < 2:
        size = (40, 40)
    before = [] if first else [sg.Conv2d(2, channels, 1)]
    layers = [*before, conv, *activation, sg.MaxPool2d(2), sg.Conv2d(filters, 2, 1)]
    net = sg.Network(layers, (channels if first else 2, *size), dtype=dtype)
    x = rng.normal(size=(samples, *net.shapes()["input"])).astype(dtype)
    _compare(net, x)
    with kernels.use("vectorized"):
        expected = net.predict(x)
    close(net.predict(x), expected, 1e-5)


@EACH_ACTIVATION
def test_after_a_convolution_of_more_channels_than_are_added_up_at_once(activation: list[sg.Layer]) -> None:
    rng = np.random.default_rng(0)
    net = sg.Network([sg.Conv2d(140, 17, 3, padding=1), *activation, sg.MaxPool2d(2)], (140, 7, 10))
    _compare(net, rng.normal(size=(19, 140, 7, 10)).astype(np.float32))


@pytest.mark.parametrize("apart", [["weight", "bias"], ["weight"], ["bias"]])
@pytest.mark.parametrize("samples", [5, 16, 35])
@EACH_ACTIVATION
def test_a_first_convolution_sample_by_sample(activation: list[sg.Layer], samples: int, apart: list[str]) -> None:
    rng = np.random.default_rng(samples)
    conv = sg.Conv2d(2, 21, 3, padding=1)
    net = sg.Network([conv, *activation, sg.MaxPool2d(2)], (2, 9, 12))
    x, upstream = rng.normal(size=(samples, 2, 9, 12)), rng.normal(size=(samples, 21, 4, 6))
    kept = [conv.parameters()[name] for name in apart]
    found = []
    for name in ("native", "vectorized"):
        with kernels.use(name):
            found.append(net.forward(x)[1].backward(upstream, by_sample=kept))
    for parameter in net.parameters():
        assert found[0][parameter].shape == found[1][parameter].shape
        close(found[0][parameter], found[1][parameter])


@pytest.mark.parametrize("channels", [1, 26])
@EACH_ACTIVATION
def test_not_a_number_goes_through_a_convolution(activation: list[sg.Layer], channels: int) -> None:
    x = np.random.default_rng(0).normal(size=(17, channels, 8, 7))
    x[0, 0, 2, 5] = x[16, 0, 7, 0] = np.nan
    net = sg.Network([sg.Conv2d(channels, channels, 3), *activation, sg.MaxPool2d(2)], x.shape[1:])
    (y, _), (expected, _) = _both(net, x)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    assert np.isnan(y).any()


@pytest.mark.parametrize("samples", SAMPLES)
@EACH_ACTIVATION
def test_the_first_of_equal_activations_wins(activation: list[sg.Layer], samples: int) -> None:
    """Of equals, of zeros, and of numbers that become equal only by rounding."""
    x = np.random.default_rng(0).choice([-30.0, -1.0, 0.0, 0.5, 9.0, 9.000001, 9.000002, 30.0], (samples, 3, 20, 24))
    net = sg.Network([*activation, sg.MaxPool2d(2)], (3, 20, 24))
    (_, gradients), (_, others) = _both(net, x, inputs=True)
    np.testing.assert_allclose(gradients.inputs["input"], others.inputs["input"], rtol=2e-3, atol=1e-9)


@pytest.mark.parametrize("samples", SAMPLES)
@EACH_ACTIVATION
def test_not_a_number_wins_and_stays_where_it_is(activation: list[sg.Layer], samples: int) -> None:
    x = np.random.default_rng(0).normal(size=(samples, 2, 7, 8))
    x[0, 0, 2, 5] = x[-1, 1, 1, 1] = np.nan
    net = sg.Network([*activation, sg.MaxPool2d(2)], (2, 7, 8))
    (y, gradients), (expected, others) = _both(net, x, inputs=True)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    assert np.isnan(y).any()
    np.testing.assert_allclose(gradients.inputs["input"], others.inputs["input"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("at", ["conv", "act", "pool", "fc"])
@pytest.mark.parametrize("activation", [sg.ReLU(), sg.Sigmoid()], ids=["relu", "sigmoid"])
def test_a_gradient_may_be_given_anywhere(activation: sg.Layer, at: str) -> None:
    layers = {"conv": sg.Conv2d(1, 3, 3), "act": activation, "pool": sg.MaxPool2d(2), "flat": sg.Flatten()}
    net = sg.Network({**layers, "fc": sg.Linear(12, 2)}, (1, 6, 6))
    x = np.random.default_rng(0).normal(size=(4, 1, 6, 6))
    for (y, gradients), (_, others) in [_both(net, x, at), _both(net, x)][::-1]:
        assert y.shape == (4, 2)
        for parameter in others:
            close(gradients[parameter], others[parameter])


@pytest.mark.parametrize("outputs", [["act", "pool"], ["conv", "pool"], ["pool"]])
def test_outputs_within_are_the_activations_own(outputs: list[str]) -> None:
    layers = {"conv": sg.Conv2d(1, 3, 3), "act": sg.Tanh(), "pool": sg.MaxPool2d(2)}
    net = sg.Network(layers, (1, 6, 6), outputs=outputs)
    x = np.random.default_rng(0).normal(size=(4, 1, 6, 6))
    given = {name: np.random.default_rng(2).normal(size=(4, *net.shapes()[name])) for name in outputs}
    found = []
    for name in ("native", "vectorized"):
        with kernels.use(name):
            y, tape = net.forward(x)
            found.append((y if len(outputs) > 1 else {"pool": y}, tape.backward(given)))
    for name in outputs:
        close(found[0][0][name], found[1][0][name], 1e-5)
    for parameter in found[1][1]:
        close(found[0][1][parameter], found[1][1][parameter])


def test_a_map_that_others_read_too_is_kept() -> None:
    layers: dict[str, Any] = {
        "conv": sg.Conv2d(1, 3, 3, padding=1),
        "act": sg.Sigmoid(),
        "pool": sg.MaxPool2d(2),
        "wide": (sg.MaxPool2d(2), "act"),
        "sum": (sg.Add(), "pool", "wide"),
    }
    _compare(sg.Network(layers, (1, 6, 6)), np.random.default_rng(0).normal(size=(3, 1, 6, 6)))
