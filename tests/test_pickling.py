"""What goes to another process and comes back. Our own files hold no pickles."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad.errors import ConfigError, ShapeError
from tests.helpers import Array, close, same_bits
from tests.layers.settings import LAYERS, setting
from tests.shares import share


def _network() -> sg.Network:
    layers: dict[str, Any] = {
        "conv": sg.Conv2d(1, 4, 3, padding=1, init="glorot"),
        "norm": sg.BatchNorm2d(4),
        "relu": sg.ReLU(),
        "pool": sg.MaxPool2d(2),
        "flat": sg.Flatten(),
        "dense": sg.Linear(36, 36),
        "turned": sg.Linear(36, 36),
    }
    layers["turned"].tie("weight", layers["dense"].weight.T)
    return sg.Network(layers, input_shape=(1, 6, 6))


def _batch(seed: int, count: int = 6) -> Array:
    return np.random.default_rng(seed).normal(size=(count, 1, 6, 6)).astype(np.float32)


def test_a_network_goes_through_a_pickle_with_its_ties() -> None:
    network, x = _network(), _batch(0)
    y, _ = network.forward(x)  # plans are there, buffers have changed
    twin = pickle.loads(pickle.dumps(network))
    same_bits(np.asarray(twin.predict(x)), np.asarray(network.predict(x)))
    same_bits(np.asarray(twin.forward(x)[0]), np.asarray(network.forward(x)[0]))
    assert twin.aliases() == network.aliases() != {}
    twin.parameter("dense.weight").value = np.zeros((36, 36))
    assert not twin.parameter("turned.weight").value.any()
    assert network.parameter("turned.weight").value.any()
    assert y.shape == (6, 36)


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_goes_through_a_pickle(name: str) -> None:
    layer = setting(name, 0).layer
    twin = pickle.loads(pickle.dumps(layer))
    assert repr(twin) == repr(layer)
    for name, parameter in layer.parameters().items():
        same_bits(twin.parameters()[name].value, parameter.value)


class Scaled(sg.Layer):
    """Its first weight is drawn by a lambda, which no pickle holds."""

    def __init__(self) -> None:
        self.scale = sg.Parameter((1,), lambda rng, shape: rng.normal(size=shape), "scale")

    def forward(self, *inputs: Array, context: sg.Context) -> tuple[Array, Any]:
        return inputs[0] * self.scale.value, inputs[0]

    def backward(self, saved: Any, upstream: Array, needs: Any) -> Any:
        axes = {"sample": upstream.shape[:1], "feature": upstream.shape[1:]}
        use = sg.uses.Direct(self.scale, upstream[..., None], axes, local=saved[..., None])
        return (upstream * self.scale.value,), [use]

    def output_shape(self, *shapes: tuple[int, ...]) -> tuple[int, ...]:
        return shapes[0]


def test_a_layer_of_ones_own_with_a_lambda_inside() -> None:
    network = sg.Network([Scaled()], input_shape=(3,))
    for twin in (pickle.loads(pickle.dumps(network)), deepcopy(network)):
        same_bits(twin.predict(np.ones(3)), network.predict(np.ones(3)))


def test_gradients_keep_their_names_and_find_their_network_again() -> None:
    network, x = _network(), _batch(1)
    gradients = share(network, x)
    came = pickle.loads(pickle.dumps(gradients))
    same_bits(came["turned.weight"], gradients["dense.weight"])
    own = came.to(network)
    for parameter in network.parameters():
        same_bits(own[parameter], gradients[parameter])
    same_bits(own["turned.weight"], gradients["turned.weight"])
    same_bits(own.inputs["input"], gradients.inputs["input"])
    sg.SGD(network.parameters(), 0.1).step(own)


def test_gradients_of_another_network_are_refused() -> None:
    gradients = share(_network(), _batch(1))
    with pytest.raises(ConfigError, match=r"there is no 'dense\.weight'"):
        gradients.to(sg.Network([sg.Linear(36, 36)]))
    dense = {name: sg.Linear(6, 6) for name in ("dense", "turned")}
    other = sg.Network({"conv": sg.Conv2d(1, 4, 3), "norm": sg.BatchNorm2d(4), **dense})
    with pytest.raises(ShapeError, match=r"dense\.weight: expected shape \(36, 36\), the network has \(6, 6\)"):
        gradients.to(other)


def test_data_parallel_training_with_processes() -> None:
    """Two processes, each with half of a batch: the sum of their gradients is the whole batch's."""
    network, x = _network(), _batch(2, 8)
    whole = share(network, x)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        first, second = pool.map(share, [network, network], [x[:4], x[4:]])
    total = first.to(network) + second.to(network)
    for parameter in network.parameters():
        close(total[parameter], whole[parameter], 1e-5)


@pytest.mark.parametrize("kind", [sg.SGD, sg.Adam])
def test_an_optimizer_goes_along_with_its_network(kind: Any) -> None:
    network = _network()
    optimizer = kind(network.parameters(), 0.1, **({"momentum": 0.9} if kind is sg.SGD else {}))
    optimizer.step(share(network, _batch(3)))
    twin, own = pickle.loads(pickle.dumps((network, optimizer)))
    for net, steps in ((network, optimizer), (twin, own)):
        steps.step(share(net, _batch(4)))
    for a, b in zip(network.parameters(), twin.parameters(), strict=True):
        same_bits(a.value, b.value)


@pytest.mark.parametrize("again", [deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_values_of_a_copy_cannot_be_written_to_either(again: Any) -> None:
    first = sg.Linear(3, 3)
    second = sg.Linear(3, 3)
    second.weight = first.weight.T
    twin = again(sg.Network([first, sg.Reshape((3, 1, 1)), sg.BatchNorm2d(3), sg.Flatten(), second], (3,)))
    for held in (*twin.parameters(), *twin._named_buffers().values(), twin.parameter("4.weight")):
        assert not held.value.flags.writeable
    assert np.array_equal(twin.parameter("4.weight").value, twin.parameter("0.weight").value.T)


@pytest.mark.parametrize("samples", [1, 6])
def test_a_tape_goes_back_from_its_copy(samples: int) -> None:
    network = _network()
    y, tape = network.forward(_batch(0, samples))
    expected = tape.backward(np.asarray(y), inputs=True)
    for copied in (deepcopy(tape), pickle.loads(pickle.dumps(tape))):
        found = copied.backward(np.asarray(y), inputs=True)
        for a, b in zip(found.values(), expected.values(), strict=True):
            same_bits(a, b)
