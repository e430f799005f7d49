"""Going backward: where paths merge, several losses, several outputs, stale tapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import sharedgrad as sg
from sharedgrad.errors import ConfigError, ShapeError, StaleTapeError
from tests.helpers import close

RNG = np.random.default_rng(11851)
X = RNG.normal(size=(3, 4))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11851)


def module(net: sg.Network, node: str) -> torch.nn.Linear:
    """The PyTorch twin of a dense layer."""
    layer = net[node]
    assert isinstance(layer, sg.Linear)
    twin = torch.nn.Linear(layer.in_features, layer.out_features, dtype=torch.float64)
    twin.load_state_dict({name: torch.tensor(p.value) for name, p in layer.parameters().items()})
    return twin


def deep() -> sg.Network:
    return sg.Network(
        {"hidden": sg.Linear(4, 5), "tanh": sg.Tanh(), "out": sg.Linear(5, 2)}, (4,), dtype="float64", seed=3
    )


def same(a: sg.Gradients, b: sg.Gradients, rtol: float = 0) -> None:
    assert list(a) == list(b)
    assert a.inputs.keys() == b.inputs.keys()
    for p in a:
        np.testing.assert_allclose(a[p], b[p], rtol=rtol, atol=0)
    for name in a.inputs:
        np.testing.assert_allclose(a.inputs[name], b.inputs[name], rtol=rtol, atol=0)


def test_losses_at_the_output_and_at_inner_nodes_add(rng: np.random.Generator) -> None:
    net = deep()
    _, tape = net.forward(X)
    ups: dict[str, Any] = {
        "out": rng.normal(size=(3, 2)),
        "hidden": rng.normal(size=(3, 5)),
        "tanh": rng.normal(size=(3, 5)),
    }
    together = tape.backward(ups, inputs=True)
    separate = [tape.backward({name: up}, inputs=True) for name, up in ups.items()]
    same(together, separate[0] + separate[1] + separate[2], rtol=1e-12)
    assert [p.name for p in separate[1]] == ["hidden.weight", "hidden.bias"]

    hidden, out = module(net, "hidden"), module(net, "out")
    x = torch.tensor(X, requires_grad=True)
    h = hidden(x)
    t = torch.tanh(h)
    nodes = {"out": out(t), "hidden": h, "tanh": t}
    sum((nodes[name] * torch.tensor(up)).sum() for name, up in ups.items()).backward()
    np.testing.assert_allclose(together["hidden.weight"], hidden.weight.grad, rtol=1e-9)
    np.testing.assert_allclose(together["out.weight"], out.weight.grad, rtol=1e-9)
    np.testing.assert_allclose(together.inputs["input"], x.grad, rtol=1e-9)


def test_the_paths_of_a_diamond_add(rng: np.random.Generator) -> None:
    net = sg.Network(
        {
            "stem": sg.Linear(4, 3),
            "left": (sg.Tanh(), "stem"),
            "right": (sg.Linear(3, 3), "stem"),
            "sum": (sg.Add(), "left", "right", "stem", "stem"),
            "joined": (sg.Concat(), "sum", "right"),
            "out": sg.Linear(6, 2),
        },
        (4,),
        dtype="float64",
    )
    upstream = rng.normal(size=(3, 2))
    gradients = net.forward(X)[1].backward(upstream, inputs=True)
    stem, right, out = (module(net, name) for name in ("stem", "right", "out"))
    x = torch.tensor(X, requires_grad=True)
    s = stem(x)
    r = right(s)
    out(torch.cat([torch.tanh(s) + r + s + s, r], 1)).backward(torch.tensor(upstream))
    for name, twin in (("stem", stem), ("right", right), ("out", out)):
        np.testing.assert_allclose(gradients[f"{name}.weight"], twin.weight.grad, rtol=1e-9)
        np.testing.assert_allclose(gradients[f"{name}.bias"], twin.bias.grad, rtol=1e-9)
    np.testing.assert_allclose(gradients.inputs["input"], x.grad, rtol=1e-9)


def test_several_outputs_need_names_and_each_may_stay_away(rng: np.random.Generator) -> None:
    net = sg.Network(
        {"stem": sg.Linear(4, 3), "a": (sg.Linear(3, 2), "stem"), "b": (sg.Linear(3, 1), "stem")},
        (4,),
        outputs=["a", "b"],
        dtype="float64",
    )
    _, tape = net.forward(X)
    ups = {"a": rng.normal(size=(3, 2)), "b": rng.normal(size=(3, 1))}
    with pytest.raises(
        ConfigError, match=r"tape.backward: the network has several outputs \(a, b\); pass name -> grad"
    ):
        tape.backward(ups["a"])
    only = tape.backward({"a": ups["a"]})
    assert [p.name for p in only] == ["a.weight", "a.bias", "stem.weight", "stem.bias"]
    both = tape.backward(ups)
    other = tape.backward({"b": ups["b"]})
    np.testing.assert_allclose(both["stem.weight"], only["stem.weight"] + other["stem.weight"], rtol=1e-12)


def test_going_backward_twice_gives_the_same_and_consumes_nothing(rng: np.random.Generator) -> None:
    net = deep()
    _, tape = net.forward(X)
    one, two = rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
    first = tape.backward(one, inputs=True)
    tape.backward(two)
    same(tape.backward(one, inputs=True), first)
    same(tape.trace(one).gradients(), first, 1e-9)


def test_gradients_are_linear_in_the_upstream(rng: np.random.Generator) -> None:
    _, tape = deep().forward(X)
    one, two = rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
    same(
        tape.backward(2 * one - two, inputs=True),
        2 * tape.backward(one, inputs=True) + -1 * tape.backward(two, inputs=True),
        1e-9,
    )


def test_two_tapes_of_one_network_do_not_mix(rng: np.random.Generator) -> None:
    net, other = deep(), rng.normal(size=(3, 4))
    upstream = rng.normal(size=(3, 2))
    _, first = net.forward(X)
    _, second = net.forward(other)
    same(first.backward(upstream), net.forward(X)[1].backward(upstream))
    same(second.backward(upstream), net.forward(other)[1].backward(upstream))


def test_input_gradients_come_only_when_asked_for(rng: np.random.Generator) -> None:
    _, tape = deep().forward(X)
    upstream = rng.normal(size=(3, 2))
    assert tape.backward(upstream).inputs == {}
    assert tape.backward(upstream, inputs=True).inputs["input"].shape == X.shape


def test_a_network_without_parameters_has_input_gradients_alone() -> None:
    _, tape = sg.Network([sg.Tanh()], (4,), dtype="float64").forward(X)
    gradients = tape.backward(np.ones_like(X), inputs=True)
    assert len(gradients) == 0
    np.testing.assert_allclose(gradients.inputs["input"], 1 - np.tanh(X) ** 2, rtol=1e-12)


def test_an_upstream_at_an_input_is_added_to_its_gradient() -> None:
    _, tape = sg.Network([sg.Tanh()], (4,), dtype="float64").forward(X)
    gradients = tape.backward({"0": np.ones_like(X), "input": np.full_like(X, 5.0)}, inputs=True)
    np.testing.assert_allclose(gradients.inputs["input"], 6 - np.tanh(X) ** 2, rtol=1e-12)


def test_a_tape_goes_stale_when_a_weight_changes(rng: np.random.Generator) -> None:
    net = deep()
    _, tape = net.forward(X)
    upstream = rng.normal(size=(3, 2))
    gradients = tape.backward(upstream)
    sg.SGD(net.parameters(), lr=0.0).step(gradients)
    message = "hidden.weight: its value has changed since this tape's forward pass; call forward again"
    for back in (tape.backward, tape.trace):
        with pytest.raises(StaleTapeError) as caught:
            back(upstream)
        assert str(caught.value) == message
    net.forward(X)[1].backward(upstream)
    net.load_state_dict(net.state_dict())
    net.parameter("out.bias").value = [1.0, 2.0]
    with pytest.raises(StaleTapeError):
        tape.backward(upstream)


@pytest.mark.parametrize(
    ("upstream", "error", "message"),
    [
        (np.ones((2, 2)), ShapeError, "upstream gradient at 'out': expected the output's shape (3, 2), got (2, 2)"),
        (1.0, ShapeError, "upstream gradient at 'out': expected the output's shape (3, 2), got ()"),
        ([["a", "b"]], ShapeError, "upstream gradient at 'out': expected an array of numbers, got "),
        ({"hidden": np.ones((3, 2))}, ShapeError, "upstream gradient at 'hidden': expected the output's shape (3, 5)"),
        (
            {"in": np.ones((3, 2))},
            ConfigError,
            "tape.backward: there is no node 'in'; choose from input, hidden, tanh, out",
        ),
    ],
)
def test_upstreams_that_do_not_fit(upstream: Any, error: type[Exception], message: str) -> None:
    _, tape = deep().forward(X)
    with pytest.raises(error) as caught:
        tape.backward(upstream)
    assert str(caught.value).startswith(message)


def test_a_batch_keeps_its_sample_axis_in_the_upstream() -> None:
    _, tape = deep().forward(X[:1])
    with pytest.raises(ShapeError, match=r"expected the output's shape \(1, 2\), got \(2,\)"):
        tape.backward(np.ones(2))


def test_a_node_that_leads_to_no_output_gets_no_gradient() -> None:
    net = sg.Network({"a": sg.Linear(4, 2), "aside": (sg.Linear(2, 2), "a"), "b": (sg.Tanh(), "a")}, dtype="float64")
    _, tape = net.forward(X)
    assert [p.name for p in tape.backward(np.ones((3, 2)))] == ["a.weight", "a.bias"]


def test_evaluation_mode_differentiates_what_it_computed(rng: np.random.Generator) -> None:
    net = sg.Network({"norm": sg.BatchNorm2d(2), "drop": sg.Dropout(0.5)}, (2, 2, 2), dtype="float64")
    twin = torch.nn.BatchNorm2d(2, dtype=torch.float64)
    x = rng.normal(3, 2, size=(4, 2, 2, 2))
    net.forward(x)
    twin(torch.tensor(x))
    twin.eval()
    tensor = torch.tensor(x, requires_grad=True)
    upstream = rng.normal(size=x.shape)
    twin(tensor).backward(torch.tensor(upstream))
    y, tape = net.forward(x, training=False)
    np.testing.assert_allclose(y, twin(tensor).detach(), rtol=1e-9)
    np.testing.assert_allclose(tape.backward(upstream, inputs=True).inputs["input"], tensor.grad, rtol=1e-9)


def test_a_tie_made_after_the_forward_pass_is_noticed() -> None:
    net = sg.Network({"a": sg.Linear(2, 2), "b": sg.Linear(2, 2)}, (2,))
    y, tape = net.forward(np.ones((1, 2)))
    net["b"].tie("weight", net["a"].parameters()["weight"])
    with pytest.raises(StaleTapeError, match=r"layer 'b' \(Linear\): a parameter has been tied since"):
        tape.backward(np.ones_like(y))


def test_gradients_are_compared_by_identity() -> None:
    y, tape = sg.Network([sg.Linear(2, 2)]).forward(np.ones((1, 2)))
    first, second = tape.backward(y), tape.backward(y)
    assert first == first
    assert first != second


@pytest.mark.parametrize("kernels_name", ["vectorized", pytest.param("native", marks=pytest.mark.compiled)])
@pytest.mark.parametrize(
    ("layer", "name", "value"), [("norm", "eps", 0.1), ("pool", "ties", "last"), ("drop", "p", 0.0)]
)
def test_a_tape_refuses_what_has_been_set_since_its_forward_pass(
    kernels_name: Any, layer: str, name: str, value: Any
) -> None:
    network = sg.Network({"norm": sg.BatchNorm2d(2), "pool": sg.MaxPool2d(2), "drop": sg.Dropout(0.25)}, (2, 4, 4))
    rng = np.random.default_rng(0)
    x, upstream = rng.normal(size=(5, 2, 4, 4)), rng.normal(size=(5, 2, 2, 2))
    with sg.kernels.use(kernels_name):
        _, tape = network.forward(x)
        before = tape.trace(upstream)
        old = getattr(network[layer], name)
        setattr(network[layer], name, value)
        message = rf"layer '{layer}' .*its {name} has been set since this tape's forward pass; call forward again"
        for again in (tape.backward, tape.trace, lambda up: tape.clipped_by_sample(up, 1.0)):
            with pytest.raises(StaleTapeError, match=message):
                again(upstream)
        total = before["norm.weight"].gradient  # a trace is a copy
        setattr(network[layer], name, old)
        close(np.asarray(total), tape.backward(upstream)["norm.weight"], 1e-5)
