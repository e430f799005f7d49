"""Natural mistakes in Python: each ends in one line that says what was expected, what came and how to mend it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import sharedgrad as sg
from sharedgrad.errors import SharedgradError


def net() -> sg.Network:
    return sg.Network([sg.Linear(2, 2)], (2,))


def gradients(network: sg.Network) -> sg.Gradients:
    y, tape = network.forward(np.ones((1, 2)))
    return tape.backward(y)


MISTAKES: dict[str, Callable[[], Any]] = {
    "threads: expected at most 256, got 300": lambda: sg.set_threads(300),
    "SGD: expected parameters, got Node; pass net.parameters()": lambda: sg.SGD(net(), 0.1),
    "SGD: expected parameters, got none; pass net.parameters()": lambda: sg.SGD([], 0.1),
    "betas: expected a pair (β₁, β₂), got 0.9": lambda: sg.Adam(net().parameters(), betas=0.9),
    "SGD.step: expected gradients of its parameters, got NoneType; make the optimizer with the network's "
    "parameters()": lambda: sg.SGD(net().parameters(), 1).step(None),
    "SGD.step: expected gradients of its parameters, got those of other parameters; make the optimizer with the "
    "network's parameters()": lambda: sg.SGD(net().parameters(), 1).step(gradients(net())),
    "lr: expected a number of at least 0, got '0.1'": lambda: setattr(sg.SGD(net().parameters(), 1), "lr", "0.1"),
    "lr: expected a number of at least 0, got nan": lambda: setattr(sg.SGD(net().parameters(), 1), "lr", np.nan),
    "layer '0' (Linear): expected a Parameter to tie, got ndarray": lambda: net()["0"].tie("weight", np.ones((2, 2))),
    "layer '0' (Linear): weight is a Parameter, got ndarray; set .weight.value to change its numbers, or assign a "
    "Parameter to share it": lambda: setattr(net()["0"], "weight", np.ones((2, 2))),
    "network input 'input': expected an array of numbers, got complex128 values": lambda: net().forward([[1j, 2]]),
    "network: expected a list of layers or name -> layer, got ReLU; put a single layer into a list": lambda: sg.Network(
        sg.ReLU()
    ),
    "network input 'input': expected an array of numbers, got None": lambda: net().predict(None),
    "network input 'input': expected an array of numbers, got a dict; pass one of its arrays: x": lambda: net().forward(
        {"x": np.ones((1, 2))}
    ),
    "network input 'input': expected an array of numbers, got a generator": lambda: net().forward(i for i in "ab"),
    "network input 'input': expected an array of numbers, got parts of different shapes": lambda: net().forward(
        (np.ones((1, 2)), [0])
    ),
    "network inputs: expected an array for each of input, got 2 in order; pass each once, in order or by its "
    "name": lambda: net().forward([[1, 2]], [0]),
    "network inputs: expected an array for each of input, got 0 in order and x by name; pass each once, in order or "
    "by its name": lambda: net().forward(x=[[1, 2]]),
    "network: expected a shape for each of input, got 8; e.g. (channels, height, width)": lambda: net().compilation(8),
    "network: expected a shape for each of input, got (2,), (2,); e.g. (channels, height, width)": lambda: net().shapes(
        (2,), (2,)
    ),
    "node '0': expected a layer, got the class ReLU; make one: ReLU(…)": lambda: sg.Network([sg.ReLU], (2,)),
    "node '0': expected a layer, got str; pass one, e.g. Linear(4, 3)": lambda: sg.Network(["relu"], (2,)),
    "compile_step: optimizer: expected Optimizer, got the class SGD; make one with network.parameters()": lambda: (
        sg.compile_step(net(), sg.MSE(), sg.SGD)
    ),
    "compile_step: max_norm: expected a positive number, got True": lambda: sg.compile_step(
        net(), sg.MSE(), sg.SGD(net().parameters(), 1), max_norm=True
    ),
    "upstream gradient at '0': expected the output's shape (1, 2), got (2, 2); pass what the loss returned for this "
    "pass": lambda: net().forward([[1, 2]])[1].backward(np.ones((2, 2))),
    "CrossEntropy: expected class numbers as integers, got float64 values; pass target.astype(int)": lambda: (
        sg.CrossEntropy()([[1.0, 2]], [0.0])
    ),
    "CrossEntropy: expected an array of numbers, got a dict; pass one of its arrays: a, b": lambda: sg.CrossEntropy()(
        {"a": [[1.0, 2]], "b": [[1.0, 2]]},
        [0],
    ),
    "normalization: expected images (N, C, H, W), got shape (4, 8, 8); bring them to four axes, e.g. "
    "x[:, None]": lambda: sg.data.Normalization.of(np.ones((4, 8, 8))),
    "0.weight: expected an array of numbers, got text": lambda: setattr(net().parameter("0.weight"), "value", "s"),
    "MSE: target: expected an array of numbers, got text": lambda: sg.MSE()([1.0], "a"),
    "state_dict: expected name -> array, got NoneType": lambda: net().load_state_dict(None),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_is_told_in_one_line(message: str) -> None:
    with pytest.raises(SharedgradError) as caught:
        MISTAKES[message]()
    assert str(caught.value) == message


def test_gradients_and_uses_that_are_not_there_are_named() -> None:
    network, other = net(), net()
    y, tape = network.forward(np.ones((1, 2)))
    with pytest.raises(KeyError, match=r"no gradient of 0.bias; there are 0.weight, 0.bias"):
        gradients(network)[other.parameter("0.bias")]
    with pytest.raises(KeyError, match=r"no use of 0.weight in this trace"):
        tape.trace(y)[other.parameter("0.weight")]


def test_gradients_are_divided_and_negated() -> None:
    g = gradients(net())
    np.testing.assert_array_equal((g / 2)["0.weight"], g["0.weight"] / 2)
    np.testing.assert_array_equal((-g)["0.bias"], -g["0.bias"])


def test_pytorch_tensors_are_taken_as_inputs() -> None:
    network = net()
    expected, _ = network.forward(np.ones((3, 2)))
    np.testing.assert_array_equal(network.forward(torch.ones(3, 2, requires_grad=True))[0], expected)
