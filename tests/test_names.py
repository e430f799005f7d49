"""Names are the network's: a layer that stands in two networks has a name in each."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from tests.helpers import Array, same_bits


def _two() -> tuple[sg.Network, sg.Network]:
    """The second network's last layer is the first one's first, where it is called "0"."""
    first = sg.Network([sg.Linear(3, 3), sg.ReLU()], (3,))
    return first, sg.Network([sg.Linear(3, 3), sg.Tanh(), first["0"]], (3,))


def _gradients(network: sg.Network, trace: bool = False) -> sg.Gradients:
    rng = np.random.default_rng(0)
    y, tape = network.forward(rng.normal(size=(4, 3)))
    upstream = rng.normal(size=y.shape)
    return tape.trace(upstream).gradients() if trace else tape.backward(upstream)


def test_first_weights_differ_although_both_were_called_the_same() -> None:
    first, second = _two()
    a, b = (second.parameter(name).value for name in ("0.weight", "2.weight"))
    assert not np.array_equal(a, b)
    same_bits(b, first.parameter("0.weight").value)
    alone = sg.Network([sg.Linear(3, 3)], (3,))  # as ever
    same_bits(alone.parameter("0.weight").value, b)


@pytest.mark.parametrize("trace", [False, True])
def test_gradients_have_the_names_of_their_network(trace: bool) -> None:
    first, second = _two()
    found = _gradients(second, trace)
    for name in ("0.weight", "2.weight", "0.bias", "2.bias"):
        same_bits(found[name], found[second.parameter(name)])
    assert not np.array_equal(found["0.weight"], found["2.weight"])
    same_bits(_gradients(first)["0.weight"], _gradients(first)[first.parameter("0.weight")])


def test_a_name_of_two_networks_is_ambiguous_in_the_sum_of_their_gradients() -> None:
    networks = [sg.Network([sg.Linear(3, 3)], (3,)) for _ in range(2)]
    total = _gradients(networks[0]) + _gradients(networks[1])
    with pytest.raises(KeyError, match=r"2 parameters are called '0\.weight'; look them up by the parameters"):
        total["0.weight"]
    same_bits(total[networks[1].parameter("0.weight")], _gradients(networks[1])["0.weight"])


def _trained(network: sg.Network, optimizer: sg.Adam, steps: int) -> list[Array]:
    for _ in range(steps):
        optimizer.step(_gradients(network))
    return [p.value for p in network.parameters()]


def test_an_optimizers_state_is_complete_and_fits_the_rebuilt_network() -> None:
    _, network = _two()
    optimizer = sg.Adam(network.parameters(), 0.1)
    _trained(network, optimizer, 2)
    state = optimizer.state_dict()
    expected = [f"{n}/{key}" for n, key in itertools.product(network.state_dict(), ("mean", "square", "steps"))]
    assert sorted(state) == sorted(expected)
    again = sg.Network.from_config(network.to_config())
    again.load_state_dict(network.state_dict())
    resumed = sg.Adam(again.parameters(), 0.1)
    resumed.load_state_dict(state)
    for a, b in zip(_trained(network, optimizer, 2), _trained(again, resumed, 2), strict=True):
        same_bits(a, b)


def test_parameters_of_several_networks_in_one_optimizer() -> None:
    networks = [sg.Network([sg.Linear(3, 3)], (3,)) for _ in range(2)]

    def optimizer() -> Any:
        return sg.SGD([*networks[0].parameters(), *networks[1].parameters()], 0.1, momentum=0.9)

    first = optimizer()
    first.step(_gradients(networks[0]) + 2.0 * _gradients(networks[1]))
    state = first.state_dict()
    assert list(state) == [f"0.{p}{n}/momentum" for n in ("", " (2)") for p in ("weight", "bias")]
    second = optimizer()
    second.load_state_dict(state)
    for a, b in zip(first.state.values(), second.state.values(), strict=True):
        same_bits(a["momentum"], b["momentum"])
