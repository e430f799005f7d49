"""NaN and infinity: seen wherever PyTorch shows them, and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sharedgrad as sg
from sharedgrad import kernels
from tests.helpers import Array

NAN, INF = np.nan, np.inf
ALL = ["reference", "vectorized", pytest.param("native", marks=pytest.mark.compiled)]


def _ours(layer: sg.Layer, x: Array, upstream: Array) -> tuple[Array, Array]:
    y, saved = layer.forward(x, context=sg.Context())
    (dx,), _ = layer.backward(saved, upstream, (True,))
    assert dx is not None
    return y, dx


def _theirs(module: Any, x: Array, upstream: Array) -> tuple[Array, Array]:
    into = torch.tensor(x, requires_grad=True)
    y = module(into)
    y.backward(torch.tensor(upstream))
    assert into.grad is not None
    return y.detach().numpy(), into.grad.numpy()


def _compare(layer: sg.Layer, module: Any, x: Array, upstream: Array) -> None:
    for actual, expected in zip(_ours(layer, x, upstream), _theirs(module, x, upstream), strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("name", ALL)
def test_max_pooling_shows_nan_to_whom_it_came_from(name: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 2, 6, 8))
    x[0, 1, 2, 3], x[2, 0, 5, 0], x[1, 1, 0, 7] = NAN, NAN, INF
    with kernels.use(name):
        _compare(sg.MaxPool2d(2), nn.MaxPool2d(2), x, rng.normal(size=(3, 2, 3, 4)))
        _compare(sg.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 2, 1), x, rng.normal(size=(3, 2, 3, 4)))


@pytest.mark.parametrize("name", ALL)
def test_padding_never_wins_against_minus_infinity(name: str) -> None:
    x, upstream = np.full((1, 2, 4, 4), -INF), np.arange(1.0, 9).reshape(1, 2, 2, 2)
    x[0, 1, 3, 3] = 1
    with kernels.use(name):
        _compare(sg.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 2, 1), x, upstream)
        for ties in ("last", "share"):
            _, dx = _ours(sg.MaxPool2d(3, 2, 1, ties=ties), x, upstream)
            np.testing.assert_allclose(dx.sum(axis=(2, 3)), upstream.sum(axis=(2, 3)))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("ties", ["first", "last", "share"])
def test_nan_equals_nan_among_winners(ties: str, name: str) -> None:
    x, upstream = np.array([[[[1, NAN], [NAN, 4]]]]), np.array([[[[6.0]]]])
    expected = {"first": [[0, 6], [0, 0]], "last": [[0, 0], [6, 0]], "share": [[0, 3], [3, 0]]}[ties]
    layer = sg.MaxPool2d(2, ties=ties)
    with kernels.use(name):
        _, dx = _ours(layer, x, upstream)
        y, saved = layer.forward(x, context=sg.Context())
        np.testing.assert_array_equal(layer.input_terms(saved, upstream).total(), dx)
    np.testing.assert_array_equal(dx, [[expected]])
    assert np.isnan(y)


@pytest.mark.parametrize("name", ALL)
def test_relu_shows_nan_on_both_ways(name: str) -> None:
    x, upstream = np.array([[-1, 0, 2, NAN, NAN, INF, -INF, 3, -2]]), np.array([[1, 2, NAN, 4, NAN, 6, 7, 8, NAN]])
    with kernels.use(name):
        _compare(sg.ReLU(), nn.ReLU(), x, upstream)


NETWORKS: dict[str, list[sg.Layer]] = {
    "pooled at once": [sg.Conv2d(1, 4, 3), sg.ReLU(), sg.MaxPool2d(2)],
    "pooled later": [sg.Conv2d(1, 4, 3), sg.ReLU(), sg.MaxPool2d(3, 2, 1)],
    "gated": [sg.Conv2d(1, 4, 3), sg.ReLU(), sg.Conv2d(4, 4, 3, padding=1), sg.ReLU()],
    "minimal filtering": [sg.Conv2d(1, 16, 3), sg.ReLU(), sg.Conv2d(16, 16, 3, padding=1), sg.ReLU()],
    "1×1": [sg.Conv2d(1, 4, 3), sg.ReLU(), sg.Conv2d(4, 4, 1), sg.ReLU()],
    "depthwise": [sg.Conv2d(1, 4, 3), sg.ReLU(), sg.Conv2d(4, 4, 3, groups=4), sg.ReLU()],
    "normalized": [sg.Conv2d(1, 4, 3), sg.BatchNorm2d(4), sg.ReLU(), sg.Conv2d(4, 4, 3), sg.Sigmoid()],
}


@pytest.mark.compiled
@pytest.mark.parametrize("samples", [1, 3, 17])
@pytest.mark.parametrize("name", NETWORKS)
def test_compiled_networks_show_nan_as_layers_do(name: str, samples: int, instruction_set: str) -> None:
    network = sg.Network([*NETWORKS[name], sg.Flatten()], (1, 10, 10))
    rng = np.random.default_rng(samples)
    x = rng.normal(size=(samples, 1, 10, 10))
    x[-1, 0, 4, 5] = NAN

    def both_ways() -> list[Array]:
        y, tape = network.forward(x, training=False)
        upstream = np.random.default_rng(1).normal(size=y.shape)
        upstream[-1, 3] = NAN
        apart = tape.backward(upstream, inputs=True, by_sample=network.parameters())
        found = tape.backward(upstream, inputs=True)
        return [y, found.inputs["input"], *found.values(), *apart.values()]

    compiled = both_ways()
    with kernels.use("vectorized"):
        expected = both_ways()
    for a, b in zip(compiled, expected, strict=True):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    assert np.isnan(compiled[0]).any()
    assert any(np.isnan(a).any() for a in compiled[2:])


@pytest.mark.parametrize("name", ["vectorized", pytest.param("native", marks=pytest.mark.compiled)])
def test_clipping_does_not_hide_nan(name: str) -> None:
    network = sg.Network([sg.Linear(3, 2)], (3,))
    with kernels.use(name):
        _, tape = network.forward(np.ones((2, 3)))
        upstream = np.array([[1, 2], [NAN, 3]])
        total, norms = tape.clipped_by_sample(upstream, 1.0)
        assert np.isnan(norms).tolist() == [False, True]
        assert all(np.isnan(total[p]).all() for p in total)
        clipped = tape.backward(upstream).clipped(1.0)
        assert all(np.isnan(clipped[p]).all() for p in clipped)
