"""One weight that several layers see in different ways: transposed, a part of it, in another shape."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import sharedgrad as sg
from sharedgrad import errors, kernels
from sharedgrad.parameter import Parameter, ParameterView, Weight
from tests.helpers import Array, close, same_bits
from tests.layers.settings import LAYERS, setting

WAYS: dict[str, Callable[[], Any]] = {"layer by layer": lambda: kernels.use("vectorized")}
if kernels.compiled():
    WAYS["compiled"] = nullcontext

OPTIMIZERS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "sgd": (
        lambda p: sg.SGD(p, lr=0.002, momentum=0.9, nesterov=True, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, lr=0.002, momentum=0.9, nesterov=True, weight_decay=0.01),
    ),
    "adam": (lambda p: sg.Adam(p, lr=0.02), lambda p: torch.optim.Adam(p, lr=0.02)),
}


@pytest.fixture(params=WAYS, name="way")
def computed(request: pytest.FixtureRequest) -> Iterator[str]:
    with WAYS[request.param]():
        yield request.param


def autoencoder(dtype: str = "float64") -> sg.Network:
    encoder, decoder = sg.Linear(6, 4), sg.Linear(4, 6)
    decoder.tie("weight", encoder.weight.T)
    return sg.Network({"encoder": encoder, "tanh": sg.Tanh(), "decoder": decoder}, (6,), dtype=dtype)


def stacked() -> sg.Network:
    """Three layers that each read a part of one matrix, which a fourth holds as a whole; one part upside down."""
    whole, first, second, third = sg.Linear(5, 9), sg.Linear(9, 3), sg.Linear(3, 5), sg.Linear(5, 4)
    first.tie("weight", whole.weight.T[:3])
    second.tie("weight", whole.weight[2:5].T)
    third.tie("weight", whole.weight[::2][:4])
    layers = {"third": third, "add": sg.Linear(4, 5), "whole": whole, "relu": sg.ReLU(), "first": first}
    return sg.Network({**layers, "second": second}, (5,), dtype="float64")


def convolutions() -> sg.Network:
    """There and back with one kernel, and a dense layer that reads the kernel too."""
    there, back, dense = sg.Conv2d(3, 4, 3, padding=1), sg.Conv2d(4, 3, 3, padding=1), sg.Linear(27, 4)
    back.tie("weight", there.weight.transpose(1, 0, 2, 3))
    dense.tie("weight", there.weight.reshape(4, -1))
    layers = {"there": there, "relu": sg.ReLU(), "back": back, "flat": sg.Flatten(), "dense": dense}
    return sg.Network(layers, (3, 3, 3), dtype="float64")


NETWORKS = {"autoencoder": autoencoder, "stacked": stacked, "convolutions": convolutions}


def randomized(net: sg.Network) -> sg.Network:
    rng = np.random.default_rng(5831)
    for parameter in net.parameters():
        parameter.value = 0.5 * rng.normal(size=parameter.shape)
    return net


def torch_forward(net: sg.Network, tensors: dict[Parameter, torch.Tensor], x: Array) -> torch.Tensor:
    """The same network in PyTorch, with each view made of the one tensor."""
    h = torch.tensor(x)
    for node in net:
        layer: Any = node.layer
        if isinstance(layer, sg.Linear | sg.Conv2d):
            weight = layer.weight.view.apply(tensors[layer.weight.base])
            bias = tensors[layer.bias]
            if isinstance(layer, sg.Linear):
                h = functional.linear(h, weight, bias)
            else:
                h = functional.conv2d(h, weight, bias, padding=1)
        else:
            h = {sg.Tanh: torch.tanh, sg.ReLU: torch.relu, sg.Flatten: lambda t: t.flatten(1)}[type(layer)](h)
    return h


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_training_agrees_with_pytorch(name: str, optimizer: str, way: str) -> None:
    net = randomized(NETWORKS[name]())
    tensors = {p: torch.tensor(p.value, requires_grad=True) for p in net.parameters()}
    mine, theirs = (make(given) for make, given in zip(OPTIMIZERS[optimizer], (tensors, tensors.values()), strict=True))
    rng = np.random.default_rng(5832)
    for _ in range(10):
        x = rng.normal(size=(4, *net.inputs["input"]))
        y, tape = net.forward(x)
        output = torch_forward(net, tensors, x)
        upstream = rng.normal(size=y.shape)
        theirs.zero_grad()
        output.backward(torch.tensor(upstream))
        gradients = tape.backward(upstream)
        close(y, output.detach().numpy())
        for parameter, tensor in tensors.items():
            close(gradients[parameter], tensor.grad.numpy())
            assert gradients[parameter].flags.c_contiguous
        mine.step(gradients)
        theirs.step()
    for parameter, tensor in tensors.items():
        close(parameter.value, tensor.detach().numpy())


def of_another(weight: Weight, number: int) -> ParameterView:
    """A view that shows this very value, of a Parameter that is larger or in another order."""
    value, rng = weight.value, np.random.default_rng(number)
    if number % 3 == 0:
        base = Parameter(value.T.shape, lambda *_: value.T, "base", value.dtype)
        return ParameterView(base, base.view.transpose(base.shape))
    if number % 3 == 1:
        larger = rng.normal(size=[2 * n + 1 for n in value.shape])
        larger[tuple(slice(1, None, 2) for _ in value.shape)] = value
        base = Parameter(larger.shape, lambda *_: larger, "base", value.dtype)
        return ParameterView(base, base.view.slice(base.shape, tuple(slice(1, None, 2) for _ in value.shape)))
    base = Parameter((value.size,), lambda *_: value.reshape(-1), "base", value.dtype)
    return ParameterView(base, base.view.reshape(base.shape, value.shape))


WITH_PARAMETERS = [name for name in LAYERS if setting(name, 0).layer.parameters()]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", WITH_PARAMETERS)
def test_every_layer_sees_a_view_as_it_sees_a_weight_of_its_own(name: str, seed: int, way: str) -> None:
    case, twin = setting(name, seed), setting(name, seed)
    for number, (attribute, weight) in enumerate(case.layer.parameters().items(), seed):
        case.layer.tie(attribute, of_another(weight, number))
    ours, plain = (sg.Network({"one": c.layer}, c.shapes[0][1:], dtype="float64", seed=4) for c in (case, twin))
    rng = np.random.default_rng(seed)
    x = case.draw(rng, case.shapes[0])
    results = []
    for net, c in ((ours, case), (plain, twin)):
        y, tape = net.forward(x, training=c.training)
        upstream = np.random.default_rng(seed).normal(size=y.shape)
        found = [tape.backward(upstream, inputs=True), tape.trace(upstream).gradients()]
        if not (c.training and c.layer.mixes_samples):
            found += [tape.backward(upstream, by_sample=net.parameters()), *tape.clipped_by_sample(upstream, 0.5)]
        results.append((y, found[0].inputs["input"], *found))
    for mine, theirs in zip(*results, strict=True):
        if isinstance(mine, np.ndarray):
            close(mine, theirs)
            continue
        for attribute, weight in case.layer.parameters().items():
            expected = theirs[twin.layer.parameters()[attribute]]
            lead = expected.ndim - len(weight.shape)
            close(mine[weight], weight.view.back(expected, lead, weight.base.shape))


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_kept_apart_and_clipped_add_the_views(name: str, way: str) -> None:
    net = randomized(NETWORKS[name]())
    rng = np.random.default_rng(77)
    x = rng.normal(size=(5, *net.inputs["input"]))
    y, tape = net.forward(x)
    upstream = rng.normal(size=y.shape)
    parts = tape.backward(upstream, by_sample=net.parameters())
    squares = np.zeros(5)
    for n in range(5):
        _, single = net.forward(x[n : n + 1])
        own = single.backward(upstream[n : n + 1])
        squares[n] = own.norm() ** 2
        for parameter in net.parameters():
            close(parts[parameter][n], own[parameter])
    limit = float(np.sqrt(np.median(squares)))
    clipped, norms = tape.clipped_by_sample(upstream, limit)
    close(norms, np.sqrt(squares))
    factors = np.minimum(1, limit / norms)
    assert factors.min() < 1 == factors.max()
    for parameter in net.parameters():
        close(clipped[parameter], np.tensordot(factors, parts[parameter], 1))


def test_a_view_has_the_value_of_now_and_makes_it_once() -> None:
    weight = sg.Linear(3, 2).weight
    view = weight.T
    first = view.value
    assert first is view.value
    assert first.flags.c_contiguous
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 1
    weight.value = weight.value + 1
    assert view.value is not first
    np.testing.assert_array_equal(view.value, weight.value.T)
    assert (view.version, view.dtype, view.shape) == (weight.version, weight.dtype, (3, 2))
    with pytest.raises(errors.ConfigError, match=r"weight \(transposed\): is a view, .*; set that of weight"):
        view.value = first


def test_views_of_views_are_views_of_the_parameter() -> None:
    weight = sg.Conv2d(2, 4, 3).weight
    assert weight.T.T is weight
    assert weight[:] is weight
    assert weight.reshape(*weight.shape) is weight.reshape(weight.shape) is weight
    assert weight.transpose(1, 0, 2, 3).transpose((1, 0, 2, 3)) is weight
    assert weight[1:][:2] == weight[1:3]
    assert hash(weight[1:][:2]) == hash(weight[1:3])
    assert weight[1:3] != weight[:2]
    assert weight.T != sg.Conv2d(2, 4, 3).weight.T
    assert weight[0, 1].base is weight
    np.testing.assert_array_equal(weight[0, 1, ..., ::2].value, weight.value[0, 1, ..., ::2])
    assert repr(weight[1:3].reshape(-1)) == "ParameterView(weight ([1:3, 0:2, 0:3, 0:3], reshaped to 36), 36, float32)"
    with pytest.raises(errors.ShapeError, match="weight: a slice picks nothing"):
        weight[4:]
    with pytest.raises(errors.ShapeError, match="weight: expected whole numbers, got"):
        weight.transpose("ab")
    with pytest.raises(TypeError, match="not iterable"):
        list(weight)


def test_the_network_has_the_parameter_once() -> None:
    net = autoencoder()
    weight = net["encoder"].parameters()["weight"]
    assert [p.name for p in net.parameters()] == ["encoder.weight", "encoder.bias", "decoder.bias"]
    assert net.aliases() == {"decoder.weight": "encoder.weight (transposed)"}
    assert net.parameter("decoder.weight") == weight.T
    state = net.state_dict()
    np.testing.assert_array_equal(state["decoder.weight"], state["encoder.weight"].T)
    optimizer = sg.SGD([*net.parameters(), net.parameter("decoder.weight")], lr=0.1)
    assert optimizer.parameters == net.parameters()
    assert "6 + shared with encoder (transposed)" in sg.summarize(net).text(200)
    assert sg.summarize(net).parameters == 24 + 4 + 6


def test_a_parameter_takes_the_name_of_the_whole() -> None:
    """The first node holds a view, the second the Parameter."""
    first, second = sg.Linear(4, 6), sg.Linear(6, 4)
    first.tie("weight", second.weight.T)
    net = sg.Network({"first": first, "second": second}, (4,))
    assert [p.name for p in net.parameters()] == ["second.weight", "first.bias", "second.bias"]
    assert net.aliases() == {"first.weight": "second.weight (transposed)"}


@pytest.mark.parametrize("name", NETWORKS)
def test_names_and_views_lead_to_the_one_gradient(name: str) -> None:
    net = randomized(NETWORKS[name]())
    rng = np.random.default_rng(8)
    y, tape = net.forward(rng.normal(size=(3, *net.inputs["input"])))
    upstream = rng.normal(size=y.shape)
    gradients = tape.backward(upstream) + 2 * tape.backward(upstream)
    for alias in net.state_dict():
        weight = net.parameter(alias)
        assert gradients[alias] is gradients[weight] is gradients[weight.base]
        apart = tape.backward(upstream, by_sample=[alias])
        assert apart[alias].shape == (3, *weight.base.shape)
        assert tape.backward(upstream, by_sample=[weight])[alias].shape == (3, *weight.base.shape)


def test_a_tape_sees_through_views_that_the_weight_has_changed() -> None:
    decoder, weight = sg.Linear(4, 6), sg.Parameter((4, 6), lambda rng, shape: rng.normal(size=shape))
    decoder.tie("weight", weight.T)
    net = sg.Network([decoder], (4,))
    y, tape = net.forward(np.ones((2, 4)))
    weight.value = weight.value * 2
    with pytest.raises(errors.StaleTapeError, match=r"0\.weight: its value has changed"):
        tape.backward(y)
    y, tape = net.forward(np.ones((2, 4)))
    decoder.tie("weight", weight[:, :].T)  # the same view anew
    tape.backward(y)
    decoder.tie("weight", weight.reshape(6, 4))
    with pytest.raises(errors.StaleTapeError, match="a parameter has been tied"):
        tape.backward(y)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_configuration_restores_the_views(name: str) -> None:
    net = randomized(NETWORKS[name]())
    again = sg.Network.from_config(json.loads(json.dumps(net.to_config())))
    assert again.aliases() == net.aliases()
    assert again.to_config() == net.to_config()
    assert {n: p.view for n, p in again._named_parameters().items()} == {
        n: p.view for n, p in net._named_parameters().items()
    }
    again.load_state_dict(net.state_dict())
    x = np.random.default_rng(2).normal(size=(2, *net.inputs["input"]))
    same_bits(again.predict(x), net.predict(x))
    again.parameter(again.parameters()[0].name).value = np.zeros(again.parameters()[0].shape)
    assert not np.array_equal(again.predict(x), net.predict(x))


def test_a_layer_called_twice_is_no_tie_of_its_own() -> None:
    encoder, decoder = sg.Linear(4, 4), sg.Linear(4, 4)
    decoder.tie("weight", encoder.weight.T)
    net = sg.Network({"encoder": encoder, "decoder": decoder, "again": decoder}, (4,))
    assert list(net.to_config()["ties"]) == ["decoder.weight"]
    again = sg.Network.from_config(net.to_config())
    assert again.aliases() == net.aliases()
    assert again.aliases()["again.weight"] == "encoder.weight (transposed)"


TIES: dict[str, Any] = {
    "expected a list of steps, got None": {"parameter": "0.weight"},
    "there is no parameter ''": {"view": []},
    "there is no parameter '7.weight'": {"parameter": "7.weight", "view": [{"transpose": [1, 0]}]},
    "expected transpose, slice, reshape or cast, got {'turn': 1}": {"parameter": "0.weight", "view": [{"turn": 1}]},
    "expected each of its 2 axes once to transpose": {"parameter": "0.weight", "view": [{"transpose": [0, 0]}]},
    "a tied parameter keeps its type, got a cast": {"parameter": "0.weight", "view": [{"cast": "float32"}]},
    r"expected a weight of shape \(6, 4\) to tie, got \(4, 6\)": {"parameter": "0.weight", "view": []},
    "expected alias -> name": 3,
}


@pytest.mark.parametrize("message", TIES)
def test_ties_that_make_no_sense(message: str) -> None:
    config = {
        "nodes": [
            {"layer": "Linear", "in_features": 6, "out_features": 4},
            {"layer": "Linear", "in_features": 4, "out_features": 6},
        ],
        "ties": TIES[message] if isinstance(TIES[message], int) else {"1.weight": TIES[message]},
    }
    with pytest.raises((errors.ConfigError, errors.ShapeError), match=message):
        sg.Network.from_config(config)


def parts_only() -> sg.Network:
    """Two layers that read parts of a matrix that no layer holds as a whole."""
    matrix = sg.Parameter((5, 4), lambda rng, shape: rng.normal(size=shape), "matrix")
    first, second = sg.Linear(4, 3), sg.Linear(3, 4)
    first.tie("weight", matrix[:3])
    second.tie("weight", matrix[2:].T)
    return sg.Network({"first": first, "second": second}, (4,), dtype="float64")


def test_parts_of_a_parameter_that_no_layer_holds() -> None:
    net = randomized(parts_only())
    assert [p.name for p in net.parameters()] == ["first.weight", "first.bias", "second.bias"]
    assert net.aliases() == {}
    other = parts_only()
    other.load_state_dict(net.state_dict())
    same_bits(other.parameters()[0].value, net.parameters()[0].value)
    with pytest.raises(errors.ConfigError, match=r"first\.weight: is a view of a Parameter that no layer .* holds"):
        net.to_config()


def test_names_of_one_weight_must_agree_through_their_views() -> None:
    net = randomized(autoencoder())
    before, state = net.state_dict(), net.state_dict()
    state["decoder.weight"][5, 1] += 1e-9
    with pytest.raises(errors.CheckpointError, match=r"decoder\.weight and encoder\.weight are one shared parameter"):
        net.load_state_dict(state)
    overlapping = randomized(parts_only())
    state = overlapping.state_dict()
    state["second.weight"][0, 0] += 1  # matrix[2, 0], which the first layer sees too
    with pytest.raises(errors.CheckpointError, match=r"second\.weight and first\.weight are one shared parameter"):
        overlapping.load_state_dict(state)
    for name, value in net.state_dict().items():
        same_bits(value, before[name])


def test_one_name_of_a_weight_is_enough_if_it_shows_all_of_it() -> None:
    net, other = randomized(autoencoder()), autoencoder()
    state = net.state_dict()
    del state["encoder.weight"]
    other.load_state_dict(state)
    same_bits(other.parameter("encoder.weight").value, net.parameter("encoder.weight").value)
    state = randomized(parts_only()).state_dict()
    del state["second.weight"]
    with pytest.raises(errors.CheckpointError, match=r"does not fit this network: second\.weight missing"):
        parts_only().load_state_dict(state)


def test_a_nan_agrees_with_itself() -> None:
    net = autoencoder()
    state = {name: np.full_like(value, np.nan) for name, value in net.state_dict().items()}
    net.load_state_dict(state)
    assert np.isnan(net.parameter("encoder.weight").value).all()


def test_a_view_needs_the_layers_shape() -> None:
    first, second = sg.Linear(3, 4), sg.Linear(4, 3)
    with pytest.raises(errors.ShapeError, match=r"expected a weight of shape \(3, 4\) to tie, got \(2, 4\)"):
        second.tie("weight", first.weight.T[:2])


@pytest.mark.parametrize("name", NETWORKS)
def test_every_name_leads_to_all_uses_of_the_one_weight(name: str, way: str) -> None:
    net = randomized(NETWORKS[name]())
    rng = np.random.default_rng(9)
    y, tape = net.forward(rng.normal(size=(3, *net.inputs["input"])))
    upstream = rng.normal(size=y.shape)
    trace, gradients = tape.trace(upstream), tape.backward(upstream)
    for parameter in net.parameters():
        parameter.value = parameter.value + 1  # a trace holds its own values
    for alias in net.state_dict():
        weight, uses = net.parameter(alias), trace[alias]
        assert uses is trace[weight] is trace[weight.base]
        calls = [a for a in net.state_dict() if net.parameter(a).base is weight.base]
        assert [(call.node, call.view) for call in uses.calls] == [
            (a.rpartition(".")[0], net.parameter(a).view) for a in calls
        ]
        close(uses.gradient, gradients[alias])
        close(uses.sum(by="call").sum(0), gradients[alias])
        element = tuple(int(n) - 1 for n in weight.base.shape)
        close(uses.products(*element).values.sum(), gradients[alias][element])
