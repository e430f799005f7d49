"""One weight in several places: one array, one gradient (the sum over its uses), one update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import sharedgrad as sg
from sharedgrad import errors
from sharedgrad.optimizers import Optimizer

RNG = np.random.default_rng(26755)
X = RNG.normal(size=(3, 2, 6, 5))
UPSTREAM = RNG.normal(size=(3, 2, 6, 5))

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda p: sg.SGD(p, lr=0.05),
    "momentum": lambda p: sg.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda p: sg.Adam(p, lr=0.02, weight_decay=0.01),
    "adamw": lambda p: sg.AdamW(p, lr=0.02, weight_decay=0.1),
}


def conv() -> sg.Conv2d:
    return sg.Conv2d(2, 2, 3, padding=1)


def two_calls(first: sg.Layer, second: sg.Layer) -> sg.Network:
    return sg.Network({"a": first, "tanh": sg.Tanh(), "b": second}, (2, 6, 5), dtype="float64")


def one_layer_twice() -> sg.Network:
    layer = conv()
    return two_calls(layer, layer)


def tied_by_method() -> sg.Network:
    first, second = conv(), conv()
    for name, parameter in first.parameters().items():
        second.tie(name, parameter)
    return two_calls(first, second)


def tied_by_assignment() -> sg.Network:
    first, second = conv(), conv()
    second.weight, second.bias = first.weight, first.bias
    return two_calls(first, second)


def tied_in_the_network() -> sg.Network:
    net = two_calls(conv(), conv())
    for name, parameter in net["a"].parameters().items():
        net["b"].tie(name, parameter)
    return net


TIED = [one_layer_twice, tied_by_method, tied_by_assignment, tied_in_the_network]


def twins(net: sg.Network) -> sg.Network:
    """The same network with a copy of the weights for each use."""
    untied = two_calls(conv(), conv())
    untied.load_state_dict(net.state_dict())
    return untied


@pytest.mark.parametrize("build", TIED)
def test_the_gradient_of_a_tied_weight_is_the_sum_of_what_untied_twins_get(build: Callable[[], sg.Network]) -> None:
    net = build()
    y, tape = net.forward(X)
    expected, untied = twins(net).forward(X)
    np.testing.assert_array_equal(y, expected)
    tied, apart = tape.backward(UPSTREAM, inputs=True), untied.backward(UPSTREAM, inputs=True)
    assert len(tied) == 2
    for name in ("weight", "bias"):
        np.testing.assert_array_equal(tied[f"a.{name}"], apart[f"b.{name}"] + apart[f"a.{name}"])
    np.testing.assert_array_equal(tied.inputs["input"], apart.inputs["input"])


@pytest.mark.parametrize("build", TIED)
def test_the_gradient_of_a_tied_weight_agrees_with_pytorch(build: Callable[[], sg.Network]) -> None:
    net = build()
    layer = torch.nn.Conv2d(2, 2, 3, padding=1, dtype=torch.float64)
    layer.load_state_dict({name: torch.tensor(p.value) for name, p in net["a"].parameters().items()})
    x = torch.tensor(X, requires_grad=True)
    layer(torch.tanh(layer(x))).backward(torch.tensor(UPSTREAM))
    gradients = net.forward(X)[1].backward(UPSTREAM, inputs=True)
    for name, parameter in layer.named_parameters():
        np.testing.assert_allclose(gradients[f"a.{name}"], parameter.grad, rtol=1e-9)
    np.testing.assert_allclose(gradients.inputs["input"], x.grad, rtol=1e-9)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("build", TIED)
def test_tied_weights_stay_one_array_through_updates(build: Callable[[], sg.Network], name: str) -> None:
    net = build()
    optimizer = OPTIMIZERS[name](net.parameters())
    start = net.state_dict()
    for _ in range(5):
        y, tape = net.forward(X)
        optimizer.step(tape.backward(sg.MSE()(y, UPSTREAM)[1]))
    state = net.state_dict()
    assert list(state) == ["a.weight", "a.bias", "b.weight", "b.bias"]
    for attribute in ("weight", "bias"):
        first, second = (net[node].parameters()[attribute] for node in "ab")
        assert first is second
        assert np.array_equal(state[f"a.{attribute}"], state[f"b.{attribute}"])
        assert np.array_equal(state[f"b.{attribute}"], first.value)
        assert not np.array_equal(state[f"a.{attribute}"], start[f"a.{attribute}"])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_tied_weight_is_updated_once_per_step_with_the_summed_gradient(name: str) -> None:
    """The reference: a lone parameter of the same value, given the twins' gradients, added."""
    net = one_layer_twice()
    lone = sg.Parameter((2, 2, 3, 3), lambda *_: net.parameter("a.weight").value, "lone", np.float64)
    tied, single = OPTIMIZERS[name](net.parameters()), OPTIMIZERS[name]([lone])
    for _ in range(5):
        apart = twins(net).forward(X)[1].backward(UPSTREAM)
        single.step(sg.Gradients({lone: apart["b.weight"] + apart["a.weight"]}))
        tied.step(net.forward(X)[1].backward(UPSTREAM))
        np.testing.assert_array_equal(net.parameter("a.weight").value, lone.value)


@pytest.mark.parametrize("build", TIED)
def test_parameters_lists_a_shared_weight_once_and_names_its_aliases(build: Callable[[], sg.Network]) -> None:
    net = build()
    assert [p.name for p in net.parameters()] == ["a.weight", "a.bias"]
    assert net.aliases() == {"b.weight": "a.weight", "b.bias": "a.bias"}
    assert net.parameter("b.weight") is net.parameter("a.weight")


def test_an_optimizer_given_a_shared_weight_twice_updates_it_once() -> None:
    net = one_layer_twice()
    weight = net.parameter("a.weight")
    before, gradients = weight.value, net.forward(X)[1].backward(UPSTREAM)
    sg.SGD([weight, weight, net.parameter("b.weight")], lr=0.1).step(gradients)
    np.testing.assert_allclose(weight.value, before - 0.1 * gradients[weight], rtol=1e-12)


@pytest.mark.parametrize("build", TIED)
def test_saving_and_restoring_keeps_tied_weights_one(build: Callable[[], sg.Network]) -> None:
    net, other = build(), build()
    state = {name: value + 0.25 for name, value in net.state_dict().items()}
    other.load_state_dict(state)
    assert other["a"].parameters()["weight"] is other["b"].parameters()["weight"]
    assert all(np.array_equal(other.state_dict()[name], value) for name, value in state.items())
    half = {name: value for name, value in state.items() if name.startswith("b.")}
    net.load_state_dict(half)  # one name of each shared weight is enough
    assert np.array_equal(net.parameter("a.weight").value, state["a.weight"])


def test_two_names_of_one_weight_must_not_carry_different_values() -> None:
    net = one_layer_twice()
    state = net.state_dict()
    state["b.weight"][0, 0, 0, 0] += 1e-9
    before = net.state_dict()
    with pytest.raises(errors.CheckpointError, match=r"b\.weight and a\.weight are one shared parameter but differ"):
        net.load_state_dict(state)
    assert all(np.array_equal(net.state_dict()[name], value) for name, value in before.items())


def trained_filters(difference: float) -> tuple[Any, Any]:
    """Two filters whose outputs enter the loss alike: what they start as, and what they have become."""
    rng = np.random.default_rng(11851)
    net = sg.Network(
        {"conv": sg.Conv2d(1, 2, 3), "tanh": sg.Tanh(), "pool": sg.GlobalAvgPool(), "out": sg.Linear(2, 1)},
        dtype="float64",
    )
    first = rng.normal(size=(1, 3, 3))
    start = np.stack([first, first + difference * rng.normal(size=(1, 3, 3))])
    net.load_state_dict({"conv.weight": start, "conv.bias": np.zeros(2), "out.weight": [[0.5, 0.5]], "out.bias": [0.0]})
    optimizer = sg.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for _ in range(20):
        y, tape = net.forward(rng.normal(size=(4, 1, 6, 6)))
        optimizer.step(tape.backward(sg.MSE()(y, rng.normal(size=(4, 1)))[1]))
    return start, net.parameter("conv.weight").value


def test_two_filters_started_equal_stay_equal() -> None:
    start, kernels = trained_filters(0.0)
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert np.abs(kernels - start).min() > 1e-3


def test_two_filters_started_differently_part_although_each_is_one_array_at_all_positions() -> None:
    start, kernels = trained_filters(0.1)
    changes = kernels - start
    assert np.abs(changes[0] - changes[1]).max() > 0.01
    assert kernels.shape == (2, 1, 3, 3)  # one kernel for each filter, whatever the number of positions


def test_a_siamese_network_sums_over_both_inputs() -> None:
    encoder = sg.Linear(4, 3)
    net = sg.Network(
        {
            "left code": (encoder, "left"),
            "right code": (encoder, "right"),
            "both": (sg.Concat(), "left code", "right code"),
            "tanh": sg.Tanh(),
            "same": sg.Linear(6, 1),
        },
        {"left": (4,), "right": (4,)},
        dtype="float64",
    )
    rng = np.random.default_rng(5)
    left, right, upstream = rng.normal(size=(5, 4)), rng.normal(size=(5, 4)), rng.normal(size=(5, 1))
    _, tape = net.forward(left, right)
    gradients = tape.backward(upstream, inputs=True)

    one = torch.nn.Linear(4, 3, dtype=torch.float64)
    two = torch.nn.Linear(6, 1, dtype=torch.float64)
    for module, node in ((one, "left code"), (two, "same")):
        module.load_state_dict({name: torch.tensor(p.value) for name, p in net[node].parameters().items()})
    tensors = [torch.tensor(a, requires_grad=True) for a in (left, right)]
    two(torch.tanh(torch.cat([one(t) for t in tensors], 1))).backward(torch.tensor(upstream))
    np.testing.assert_allclose(gradients["left code.weight"], one.weight.grad, rtol=1e-9)
    np.testing.assert_allclose(gradients["left code.bias"], one.bias.grad, rtol=1e-9)
    for name, tensor in zip(("left", "right"), tensors, strict=True):
        np.testing.assert_allclose(gradients.inputs[name], tensor.grad, rtol=1e-9)
    uses = tape.trace(upstream)[encoder.weight]
    assert [call.node for call in uses.calls] == ["left code", "right code"]
    np.testing.assert_allclose(uses.sum(by="call").sum(axis=0), one.weight.grad, rtol=1e-9)


def test_a_weight_shared_by_several_chained_calls_sums_all_of_them() -> None:
    layer = sg.Linear(3, 3)
    net = sg.Network([layer, sg.Tanh(), layer, sg.Tanh(), layer, sg.Tanh(), layer], dtype="float64")
    rng = np.random.default_rng(6)
    x, upstream = rng.normal(size=(2, 3)), rng.normal(size=(2, 3))
    _, tape = net.forward(x)
    module = torch.nn.Linear(3, 3, dtype=torch.float64)
    module.load_state_dict({name: torch.tensor(p.value) for name, p in layer.parameters().items()})
    h = torch.tensor(x)
    for _ in range(3):
        h = torch.tanh(module(h))
    module(h).backward(torch.tensor(upstream))
    gradients = tape.backward(upstream)
    np.testing.assert_allclose(gradients["0.weight"], module.weight.grad, rtol=1e-9)
    uses = tape.trace(upstream)[layer.weight]
    by_call = uses.sum(by="call")
    np.testing.assert_allclose(by_call.sum(axis=0), gradients["0.weight"], rtol=1e-9)
    assert by_call.shape == (4, 3, 3)
    assert not np.allclose(gradients["0.weight"], by_call[0])
    assert not np.allclose(gradients["0.weight"], by_call.mean(axis=0))


def test_a_weight_shared_within_one_layer_sums_too() -> None:
    layer = sg.RNN(2, 2)
    layer.tie("bias_hh_l0", layer.parameters()["bias_ih_l0"])
    layer.tie("weight_hh_l0", layer.parameters()["weight_ih_l0"])
    net = sg.Network({"rnn": layer}, (4, 2), dtype="float64")
    rng = np.random.default_rng(7)
    x, upstream = rng.normal(size=(3, 4, 2)), rng.normal(size=(3, 4, 2))
    gradients = net.forward(x)[1].backward(upstream)
    apart = sg.Network({"rnn": sg.RNN(2, 2)}, (4, 2), dtype="float64")
    apart.load_state_dict(net.state_dict())
    twin = apart.forward(x)[1].backward(upstream)
    for kind in ("weight", "bias"):
        expected = twin[f"rnn.{kind}_ih_l0"] + twin[f"rnn.{kind}_hh_l0"]
        np.testing.assert_allclose(gradients[f"rnn.{kind}_ih_l0"], expected, rtol=1e-12)
    assert len(gradients) == 2


def test_a_shared_parameter_needs_the_same_shape() -> None:
    first, second = sg.Linear(3, 4), sg.Linear(4, 3)
    with pytest.raises(errors.ShapeError, match=r"Linear: expected a weight of shape \(3, 4\) to tie, got \(4, 3\)"):
        second.tie("weight", first.weight)
