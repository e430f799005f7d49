"""Two 1-D convolutions in a chain: one weight of the first occurs three times in one output of the second."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sharedgrad as sg


def close(actual: Any, expected: Any, atol: float = 1.01e-15) -> None:
    np.testing.assert_allclose(np.squeeze(actual), np.squeeze(expected), rtol=0, atol=atol)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


ACTIVATIONS = {
    "sigmoid": (sg.Sigmoid, sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x))),
    "tanh": (sg.Tanh, np.tanh, lambda x: 1 - np.tanh(x) ** 2),
}
Y0 = np.array([0.7, -1.3, 0.4, 2.1, -0.6, 1.2, 0.9, -0.2])
W0, W = 0.8, np.array([0.5, -1.1, 0.9])


def chain(activation: str, *rest: tuple[str, sg.Layer], values: dict[str, Any]) -> tuple[sg.Network, Any, sg.Tape]:
    """[w0, 0, 0] and an activation, then the rest."""
    layers = [("conv1", sg.Conv1d(1, 1, 3, bias=False)), ("h1", ACTIVATIONS[activation][0]()), *rest]
    net = sg.Network(layers, (1, len(Y0)), dtype="float64")
    net.load_state_dict({"conv1.weight": [[[W0, 0, 0]]], **values})
    y, tape = net.forward(Y0[None])
    return net, y, tape


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_in_a_chain_of_two_convolutions_the_first_weight_sums_its_three_occurrences(activation: str) -> None:
    layer, h, slope = ACTIVATIONS[activation]
    rest = (("conv2", sg.Conv1d(1, 1, 3, bias=False)), ("h2", layer()))
    _, y2, tape = chain(activation, *rest, values={"conv2.weight": W[None, None]})
    j, error = 1, -0.35  # the error depends on the node j alone
    x2 = sum(w * h(W0 * y0) for w, y0 in zip(W, Y0[j : j + 3], strict=True))
    close(y2[0, j], h(x2))
    occurrences = [error * slope(x2) * w * slope(W0 * y0) * y0 for w, y0 in zip(W, Y0[j : j + 3], strict=True)]
    upstream = np.zeros((1, 4))
    upstream[0, j] = error
    close(tape.backward(upstream)["conv1.weight"][0, 0, 0], sum(occurrences))
    uses = tape.trace(upstream)["conv1.weight"]
    close(uses.products(0, 0, 0).values, [0, *occurrences, 0, 0])
    assert min(map(abs, occurrences)) > 1e-3


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_max_pooling_sums_the_paths_of_its_winners(activation: str) -> None:
    _, h, slope = ACTIVATIONS[activation]
    _, y, tape = chain(activation, ("pool", sg.MaxPool1d(3, 2)), values={})
    y1 = h(W0 * Y0[:6])
    winners = [int(2 * o + np.argmax(y1[2 * o : 2 * o + 3])) for o in range(2)]
    close(y, y1[winners])
    upstream = np.array([0.3, -0.8])
    expected = sum(u * slope(W0 * Y0[i]) * Y0[i] for u, i in zip(upstream, winners, strict=True))
    close(tape.backward(upstream[None])["conv1.weight"][0, 0, 0], expected)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_dense_layer_sums_all_paths(activation: str) -> None:
    _, h, slope = ACTIVATIONS[activation]
    dense = np.random.default_rng(2).normal(size=(2, 6))
    rest = (("flatten", sg.Flatten()), ("dense", sg.Linear(6, 2, bias=False)))
    _, y, tape = chain(activation, *rest, values={"dense.weight": dense})
    close(y, dense @ h(W0 * Y0[:6]))
    upstream = np.array([0.3, -0.8])
    expected = sum(upstream[o] * dense[o, i] * slope(W0 * Y0[i]) * Y0[i] for o in range(2) for i in range(6))
    close(tape.backward(upstream)["conv1.weight"][0, 0, 0], expected, 1e-14)
