"""Networks that are compiled in part: the same numbers whatever runs where, and every question across the seams."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad import kernels
from sharedgrad.kernels import set_threads
from tests.helpers import Array, close, same_bits
from tests.plan.in_torch import gradients as gradients_of_torch
from tests.plan.networks import Case, Swish, draw

pytestmark = pytest.mark.compiled

SEEDS = 60


def mixed(seed: int, training: bool | None = None) -> Case:
    return draw(seed, "double", training=training, foreign=0.35)


def _agree(actual: dict[str, Array], expected: dict[str, Array]) -> None:
    assert set(actual) == set(expected)
    for name, array in actual.items():
        close(array, expected[name], 1e-8)


def _named(gradients: sg.Gradients) -> dict[str, Array]:
    return {p.name: array for p, array in gradients.items()}


@pytest.mark.parametrize("seed", range(SEEDS))
def test_agrees_with_layer_by_layer(seed: int) -> None:
    case, twin = mixed(seed), mixed(seed)
    y, tape = case.net.forward(*case.inputs, training=case.training)
    found = tape.backward(case.upstreams, inputs=True)
    with kernels.use("vectorized"):
        expected_y, plain = twin.net.forward(*twin.inputs, training=twin.training)
        expected = plain.backward(twin.upstreams, inputs=True)
    outputs, expected_outputs = (v if isinstance(v, dict) else {"y": v} for v in (y, expected_y))
    _agree(outputs, expected_outputs)
    _agree(_named(found), _named(expected))
    _agree(dict(found.inputs), dict(expected.inputs))
    for key, buffer in case.net._named_buffers().items():
        close(buffer.value.astype(float), twin.net._named_buffers()[key].value.astype(float))


def test_the_networks_that_are_drawn_are_mixed() -> None:
    pieces = [len(mixed(seed).net.forward(*mixed(seed).inputs)[1]._done) for seed in range(SEEDS)]
    assert sum(n > 2 for n in pieces) > SEEDS / 2


@pytest.mark.parametrize("seed", range(SEEDS))
def test_agrees_with_pytorch(seed: int) -> None:
    case = mixed(seed, training=False)
    y, tape = case.net.forward(*case.inputs, training=False)
    found = tape.backward(case.upstreams, inputs=True)
    values, parameters, inputs = gradients_of_torch(case)
    for name, value in (y if isinstance(y, dict) else {case.net.outputs[0]: y}).items():
        close(value, values[name])
    _agree(_named(found), parameters)
    _agree(dict(found.inputs), inputs)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_gradients_by_sample_and_their_clipped_sum(seed: int) -> None:
    """Against the definition: each sample's gradient from a backward pass of its own."""
    case = mixed(seed, training=False)
    _, tape = case.net.forward(*case.inputs, training=False)
    rows = []
    for n in range(len(case.inputs[0])):
        alone = {
            name: np.where(np.arange(len(up)).reshape(-1, *[1] * (up.ndim - 1)) == n, up, 0)
            for name, up in case.upstreams.items()
        }
        rows.append(_named(tape.backward(alone)))
    expected = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    _agree(_named(tape.backward(case.upstreams, by_sample=case.net.parameters())), expected)
    norms = np.sqrt(sum((np.square(a).reshape(len(a), -1).sum(1) for a in expected.values()), np.zeros(len(rows))))
    limit = float(np.median(norms)) or 1.0
    total, found = tape.clipped_by_sample(case.upstreams, limit)
    close(found, norms)
    factors = np.minimum(1, limit / np.maximum(norms, 1e-300))
    _agree(_named(total), {name: np.tensordot(factors, a, 1) for name, a in expected.items()})


@pytest.mark.parametrize("seed", range(SEEDS))
def test_traces_go_across_the_seams(seed: int) -> None:
    case = mixed(seed)
    _, tape = case.net.forward(*case.inputs, training=case.training)
    trace, gradients = tape.trace(case.upstreams), tape.backward(case.upstreams, inputs=True)
    _agree(_named(trace.gradients()), _named(gradients))
    _agree(dict(trace.gradients().inputs), dict(gradients.inputs))
    with kernels.use("vectorized"):
        by_layers = tape.trace(case.upstreams)
    assert list(trace.calls) == list(by_layers.calls)
    for name, call in trace.calls.items():
        close(call.upstream, by_layers.calls[name].upstream)
        close(call.output, by_layers.calls[name].output)
        for use, expected in zip(call.uses, by_layers.calls[name].uses, strict=True):
            close(use.sum(by="sample"), expected.sum(by="sample"), 1e-8)


def test_a_weight_that_several_stretches_use_has_one_norm() -> None:
    """The norm of the sum over all its uses, not of each stretch's part."""
    shared = sg.Linear(5, 5)
    net = sg.Network([shared, Swish(), shared, sg.ReLU(), Swish(), shared], (5,), dtype="float64")
    x, upstream = np.random.default_rng(0).normal(size=(2, 7, 5))
    _, tape = net.forward(x)
    assert len(tape._recordings) == 3
    apart = tape.backward(upstream, by_sample=net.parameters())
    _, norms = tape.clipped_by_sample(upstream, 1.0)
    expected = np.sqrt(sum(np.square(a).reshape(7, -1).sum(1) for a in apart.values()))
    close(norms, expected)


@pytest.mark.parametrize("name", ["conv", "relu", "tanh", "pool"])
@pytest.mark.parametrize("seen", [(), ("conv",), ("relu",)])
def test_a_gradient_given_between_convolution_and_pool_goes_the_compiled_way(
    name: str, seen: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    activation = sg.Tanh() if name == "tanh" else sg.ReLU()
    graph = {"conv": sg.Conv2d(2, 3, 3), "relu": activation, "pool": sg.MaxPool2d(2), "flat": sg.Flatten()}
    at = "relu" if name == "tanh" else name
    net = sg.Network(graph | {"dense": sg.Linear(27, 2)}, (2, 8, 8), ["dense", *seen], dtype="float64")
    rng = np.random.default_rng(0)
    _, tape = net.forward(rng.normal(size=(16, 2, 8, 8)))
    upstreams = {"dense": rng.normal(size=(16, 2)), at: rng.normal(size=(16, *net.shapes()[at]))}
    with kernels.use("vectorized"):
        expected = tape.backward(upstreams, inputs=True)
    monkeypatch.setattr(sg.Tape, "_through_layer", None)
    for inputs in (True, False):
        found = tape.backward(upstreams, inputs=inputs)
        _agree(_named(found), _named(expected))
        if inputs:
            _agree(dict(found.inputs), dict(expected.inputs))


def _net(dtype: str = "float32") -> sg.Network:
    layers = [
        *(sg.Conv2d(3, 16, 3, padding=1, padding_mode="reflect"), sg.ReLU(), sg.MaxPool2d(2), Swish()),
        *(sg.Conv2d(16, 24, 3), sg.BatchNorm2d(24), sg.ReLU(), sg.Flatten(), sg.Linear(24 * 14 * 14, 20)),
        *(Swish(), sg.Linear(20, 10)),
    ]
    return sg.Network(layers, (3, 32, 32), dtype=dtype)


def test_the_number_of_threads_changes_no_bit() -> None:
    rng = np.random.default_rng(0)
    x, upstream = rng.normal(size=(33, 3, 32, 32)), rng.normal(size=(33, 10))

    def run() -> list[Array]:
        net = _net()
        y, tape = net.forward(x)
        gradients = tape.backward(upstream, inputs=True)
        _, late = net.forward(x, training=False)
        total, norms = late.clipped_by_sample(upstream, 1.0)
        return [y, norms, *gradients.inputs.values(), *dict(gradients).values(), *dict(total).values()]

    set_threads(1)
    expected = run()
    for count in (2, 3):
        set_threads(count)
        for actual, one in zip(run(), expected, strict=True):
            same_bits(actual, one)


class Same(sg.Layer):
    """Returns what it has read, and the gradient that it was given."""

    def forward(self, *inputs: Array, context: sg.Context) -> tuple[Array, Any]:
        return inputs[0], inputs[0]

    def backward(self, saved: Any, upstream: Array, needs: Any) -> tuple[tuple[Array | None, ...], list[sg.uses.Uses]]:
        assert (saved >= 0).all()
        return (upstream,), []

    def output_shape(self, *shapes: tuple[int, ...]) -> tuple[int, ...]:
        return shapes[0]


def test_outputs_are_the_callers_own() -> None:
    net = sg.Network([sg.Linear(3, 3), sg.ReLU(), Same()], (3,))
    x = np.ones((4, 3), np.float32)
    y, tape = net.forward(x)
    before = _named(tape.backward(np.ones_like(y)))
    y[...] = -1
    for name, array in _named(tape.backward(np.ones_like(y))).items():
        same_bits(array, before[name])


def test_kernels_chosen_after_the_forward_pass_go_back_layer_by_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    net, passed = sg.Network([sg.Linear(3, 2)], (3,)), list[str]()
    _, tape = net.forward(np.ones((4, 3)))
    walk = sg.Tape._through_layer
    monkeypatch.setattr(sg.Tape, "_through_layer", lambda *a: passed.append(a[1].name) or walk(*a))
    with kernels.use("vectorized"):
        tape.backward(np.ones((4, 2)))
        tape.clipped_by_sample(np.ones((4, 2)), 1.0)
    assert passed == ["0"] * 3  # of the clipped sum, once for the norms and once for the sum
