"""Compiled programs beside the same networks layer by layer: what is computed together, and what must then not be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad import kernels
from tests.helpers import Array, close, same_bits

pytestmark = pytest.mark.compiled

Layers = dict[str, Any]


def residual() -> Layers:
    """Sums whose last term is a batch norm, with and without a ReLU, and with a norm on either side."""
    return {
        "conv": (sg.Conv2d(2, 6, 3, padding=1), "input"),
        "bn": sg.BatchNorm2d(6),
        "relu": sg.ReLU(),
        "conv1": sg.Conv2d(6, 6, 3, padding=1, bias=False),
        "bn1": sg.BatchNorm2d(6),
        "add1": (sg.Add(), "bn1", "relu"),
        "relu1": sg.ReLU(),
        "conv2": sg.Conv2d(6, 6, 3, padding=1, bias=False),
        "bn2": sg.BatchNorm2d(6),
        "short": (sg.Conv2d(6, 6, 1), "relu1"),
        "short_bn": sg.BatchNorm2d(6),
        "add2": (sg.Add(), "bn2", "short_bn"),
        "conv3": sg.Conv2d(6, 6, 1),
        "bn3": sg.BatchNorm2d(6),
        "add3": (sg.Add(), "add2", "bn3"),
        "mean": sg.GlobalAvgPool(),
        "out": sg.Linear(6, 3),
    }


def strided() -> Layers:
    """Depthwise convolutions with strides and dilations among 1×1 ones."""
    return {
        "conv": (sg.Conv2d(2, 9, 1), "input"),
        "depth1": sg.Conv2d(9, 9, 3, stride=2, padding=1, groups=9),
        "relu1": sg.ReLU(),
        "point1": sg.Conv2d(9, 9, 1),
        "relu2": sg.ReLU(),
        "depth2": sg.Conv2d(9, 9, (2, 3), stride=(1, 2), padding=(1, 2), dilation=(1, 2), groups=9, bias=False),
        "point2": sg.Conv2d(9, 7, 1, stride=2),
        "mean": sg.GlobalAvgPool(),
        "out": sg.Linear(7, 3),
    }


def separable() -> Layers:
    """Depthwise and 1×1 convolutions, each ReLU's gradient completed by the convolution after it, or by two paths."""
    return {
        "conv": (sg.Conv2d(2, 9, 1), "input"),
        "depth1": sg.Conv2d(9, 9, 3, padding=1, groups=9),
        "relu1": sg.ReLU(),
        "point1": sg.Conv2d(9, 9, 1),
        "relu2": sg.ReLU(),
        "depth2": sg.Conv2d(9, 9, 5, padding=2, groups=9, bias=False),
        "relu3": sg.ReLU(),
        "point2": sg.Conv2d(9, 7, 1, bias=False),
        "relu4": sg.ReLU(),
        "again": (sg.Conv2d(9, 7, (1, 3), padding=(0, 1)), "relu3"),
        "sum": (sg.Add(), "relu4", "again"),
        "relu5": sg.ReLU(),
        "depth3": sg.Conv2d(7, 7, 3, groups=7, padding=1),
        "short": (sg.Add(), "depth3", "relu5"),
        "relu6": sg.ReLU(),
        "twice": (sg.Add(), "relu6", "again"),
        "depth4": (sg.Conv2d(7, 7, 3, groups=7, padding=1), "relu6"),
        "all": (sg.Add(), "twice", "depth4"),
        "mean": sg.GlobalAvgPool(),
        "out": sg.Linear(7, 3),
    }


def broad() -> Layers:
    """So many channels that a 1×1 convolution takes them in two parts, with ReLUs on either side."""
    return {
        "conv": (sg.Conv2d(2, 5, 1), "input"),
        "relu": sg.ReLU(),
        "widen": sg.Conv2d(5, 300, 1),
        "relu1": sg.ReLU(),
        "narrow": sg.Conv2d(300, 5, 1),
        "relu2": sg.ReLU(),
        "mean": sg.GlobalAvgPool(),
        "out": sg.Linear(5, 3),
    }


def run(
    layers: Callable[[], Layers],
    samples: int,
    size: tuple[int, int],
    dtype: str = "float64",
    outputs: Any = None,
    upstreams: tuple[str, ...] = (),
    training: bool = True,
) -> dict[str, Array]:
    """Everything that one step computes, by name."""
    net = sg.Network(layers(), (2, *size), outputs=outputs, dtype=dtype, seed=5)
    rng = np.random.default_rng(samples)
    for name, array in net.state_dict().items():  # nothing is one or zero
        if not name.endswith("tracked"):
            array += rng.uniform(-0.3, 0.3, array.shape).astype(dtype)
            net.load_state_dict(net.state_dict() | {name: array})
    x = rng.normal(size=(samples, 2, *size))
    y, tape = net.forward(x, training=training)
    results = dict(y) if isinstance(y, dict) else {"out": y}
    shapes = net.shapes((2, *size))
    deltas = {name: rng.normal(size=(samples, *shapes[name])) for name in (*results, *upstreams)}
    gradients = tape.backward(deltas, inputs=True)
    found = {f"d {p.name}": gradients[p] for p in gradients}
    return results | found | {"dx": gradients.inputs["input"]} | net.state_dict()


def compare(*arguments: Any, **settings: Any) -> None:
    actual = run(*arguments, **settings)
    with kernels.use("vectorized"):
        expected = run(*arguments, **settings)
    assert actual.keys() == expected.keys()
    for name in expected:
        close(actual[name], expected[name], 1e-3 if expected[name].dtype == np.float32 else 1e-9)


@pytest.mark.parametrize("samples", [1, 3, 16, 17, 33])
@pytest.mark.parametrize("training", [True, False])
def test_residual_blocks(samples: int, training: bool) -> None:
    compare(residual, samples, (7, 5), training=training)
    compare(residual, samples, (4, 9), "float32", training=training)


@pytest.mark.parametrize("names", [("bn1",), ("add1",), ("relu1", "short_bn"), ("bn3", "add2"), ("relu", "bn")])
def test_losses_and_outputs_at_inner_nodes(names: tuple[str, ...]) -> None:
    compare(residual, 17, (5, 6), upstreams=names)
    compare(residual, 17, (5, 6), outputs=("out", *names))


@pytest.mark.parametrize("samples", [1, 8, 16, 17, 33])
def test_depthwise_and_pointwise_convolutions(samples: int) -> None:
    compare(separable, samples, (7, 9))
    compare(separable, samples, (16, 11), "float32")
    compare(broad, samples, (3, 5))
    compare(strided, samples, (13, 10))


@pytest.mark.parametrize("names", [("relu1",), ("relu2", "depth1"), ("relu3", "relu4"), ("relu5", "sum"), ("point1",)])
def test_losses_and_outputs_beside_a_relu(names: tuple[str, ...]) -> None:
    compare(separable, 17, (5, 6), upstreams=names)
    compare(separable, 17, (5, 6), outputs=("out", *names))


def test_statistics_far_from_zero() -> None:
    """Mean 1000 and standard deviation 1 in float32, where squares alone would leave nothing of the variance."""
    rng = np.random.default_rng(0)
    x = rng.normal(1000, 1, (33, 3, 19, 21)).astype(np.float32)
    x[0, 0, 0, 0] = 0  # the first number is not a typical one
    net = sg.Network([sg.BatchNorm2d(3, momentum=1)], (3, 19, 21))
    y, _ = net.forward(x)
    wide = x.astype(np.float64)
    state = net.state_dict()
    count = wide[:, 0].size
    np.testing.assert_allclose(state["0.running_mean"], wide.mean((0, 2, 3)), rtol=2e-7)
    np.testing.assert_allclose(state["0.running_var"], wide.var((0, 2, 3)) * count / (count - 1), rtol=1e-5)
    close(y[1:], ((wide - wide.mean((0, 2, 3), keepdims=True)) / wide.std((0, 2, 3), keepdims=True))[1:], 1e-3)


def test_not_a_number_stays_one_in_its_channel() -> None:
    x = np.ones((17, 2, 5, 5), np.float32)
    x[16, 0, 2, 2] = np.nan
    y, _ = sg.Network([sg.BatchNorm2d(2), sg.ReLU()], (2, 5, 5)).forward(x)
    assert np.isnan(y[:, 0]).all()
    assert (y[:, 1] == 0).all()


@pytest.mark.parametrize("layers", [residual, separable])
def test_the_number_of_threads_changes_no_bit(layers: Callable[[], Layers]) -> None:
    results = []
    for threads in (1, 2, 3):
        kernels.set_threads(threads)
        results.append(run(layers, 33, (16, 16), "float32"))
    for result in results[1:]:
        for name, array in results[0].items():
            same_bits(result[name], array)
