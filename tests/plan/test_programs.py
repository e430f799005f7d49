"""Networks as compiled programs: the same numbers as layer by layer, whatever the network and however it is used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad import kernels
from tests.helpers import Array, close
from tests.plan.networks import MODES, Case, draw

pytestmark = pytest.mark.compiled

SEEDS = 60


def _outputs(case: Case, y: Any) -> dict[str, Array]:
    return y if isinstance(y, dict) else {case.net.outputs[0]: y}


def compiled(tape: sg.Tape) -> bool:
    """Whether the whole pass was one program."""
    return len(tape._done) == len(tape._recordings) == 1


def _close(actual: Array, expected: Array) -> None:
    """What cancels, as the gradient of a bias before batch norm, leaves rounding errors of what was added."""
    close(actual, expected, 1e-3 if actual.dtype == np.float32 else None)


def _same_gradients(actual: sg.Gradients, expected: sg.Gradients) -> None:
    """The same parameters (by name: they may be two networks') and numbers."""
    assert {p.name for p in actual} == {p.name for p in expected}
    for parameter, gradient in actual.items():
        _close(gradient, expected[parameter.name])
    assert set(actual.inputs) == set(expected.inputs)
    for name, gradient in actual.inputs.items():
        _close(gradient, expected.inputs[name])


def _same_step(case: Case, twin: Case, exact: bool) -> None:
    """One forward and backward pass, compiled and layer by layer."""
    y, tape = case.net.forward(*case.inputs, training=case.training)
    assert compiled(tape)
    gradients = tape.backward(case.upstreams, inputs=case.want_inputs)
    with kernels.use("vectorized"):
        expected_y, plain = twin.net.forward(*twin.inputs, training=twin.training)
        assert not plain._recordings
        expected = plain.backward(twin.upstreams, inputs=twin.want_inputs)
    for name, value in _outputs(case, y).items():
        compare = np.testing.assert_array_equal if exact else _close
        compare(value, _outputs(twin, expected_y)[name])
    _same_gradients(gradients, expected)
    for key, buffer in case.net._named_buffers().items():
        close(buffer.value.astype(case.net.dtype), twin.net._named_buffers()[key].value.astype(case.net.dtype))


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("mode", MODES)
def test_agrees_with_layer_by_layer(seed: int, mode: str, instruction_set: str) -> None:
    case, twin = draw(seed, mode), draw(seed, mode)
    _same_step(case, twin, mode == "whole")
    rng = np.random.default_rng(seed)
    for i, x in enumerate(case.inputs):  # once more, in memory that has been used
        case.inputs[i] = twin.inputs[i] = rng.permutation(x.ravel()).reshape(x.shape)
    _same_step(case, twin, mode == "whole")


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_tape_traces_what_it_goes_back(seed: int) -> None:
    case = draw(seed, "double")
    _, tape = case.net.forward(*case.inputs, training=case.training)
    gradients = tape.backward(case.upstreams, inputs=True)
    trace = tape.trace(case.upstreams)
    _same_gradients(trace.gradients(), gradients)
    _same_gradients(tape.backward(case.upstreams, inputs=True), gradients)
    with kernels.use("vectorized"):
        by_layers = tape.trace(case.upstreams)
    assert list(trace.calls) == list(by_layers.calls)
    for name, call in trace.calls.items():
        _close(call.upstream, by_layers.calls[name].upstream)
        _close(call.output, by_layers.calls[name].output)
        for use, expected in zip(call.uses, by_layers.calls[name].uses, strict=True):
            _close(use.sum(by="sample"), expected.sum(by="sample"))


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("mode", ["double", "whole"])
def test_gradients_sample_by_sample_are_the_traces(seed: int, mode: str, instruction_set: str) -> None:
    case = draw(seed, mode)
    _, tape = case.net.forward(*case.inputs, training=case.training)
    norms = {p for n in case.net if isinstance(n.layer, sg.BatchNorm2d) for p in n.layer.parameters().values()}
    apart = [p for p in case.net.parameters() if p not in norms]
    assert compiled(tape)
    found = tape._back(tape._upstreams(case.upstreams), tape._structure.wanted(False), frozenset(apart))
    trace = tape.trace(case.upstreams)
    for parameter, gradient in found.items():
        uses = trace[parameter]
        _close(gradient, uses.sum(by="sample") if parameter in apart else uses.gradient)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_prediction_is_the_forward_pass_in_evaluation_mode(seed: int) -> None:
    case = draw(seed, "double", training=False)
    y, _ = case.net.forward(*case.inputs, training=False)
    for batch_size in (4, 256):
        predicted = _outputs(case, case.net.predict(*case.inputs, batch_size=batch_size))
        for name, value in _outputs(case, y).items():
            close(predicted[name], value)


def test_one_cell_is_flattened_beside_windows_that_reach_beyond_it() -> None:
    """A batch of one: the map could pass for the vector, but has margins and the vector has none."""
    graph = {
        "before": (sg.Conv2d(1, 2, 3, padding=1), "input"),
        "flat": (sg.Flatten(), "before"),
        "dense": (sg.Linear(2, 3), "flat"),
        "beside": (sg.Conv2d(2, 2, 3, padding=1), "before"),
    }
    net = sg.Network(graph, (1, 1, 1), ["dense", "beside"], dtype="float64")
    x, upstreams = np.ones((1, 1, 1, 1)), {"dense": np.ones((1, 3)), "beside": np.ones((1, 2, 1, 1))}
    gradients = net.forward(x)[1].backward(upstreams, inputs=True)
    with kernels.use("vectorized"):
        _same_gradients(gradients, net.forward(x)[1].backward(upstreams, inputs=True))


def test_a_relu_behind_a_sum_of_three_takes_the_whole_sum() -> None:
    """What a sum of parts would lose: −2 and 1 are negative together, but with 3 they are not."""
    graph = {name: (sg.Linear(1, 1), "input") for name in ("a", "b", "c")}
    net = sg.Network(graph | {"sum": (sg.Add(), "a", "b", "c"), "relu": (sg.ReLU(), "sum")}, (1,))
    for name, weight in {"a": -2.0, "b": 1.0, "c": 3.0}.items():
        net.parameter(f"{name}.weight").value = [[weight]]
    assert net.predict([[1.0], [-1.0]]).tolist() == [[2.0], [0.0]]


def _goes_layer_by_layer(net: sg.Network, *inputs: Array) -> bool:
    """Whether it does, with the numbers of NumPy's kernels."""
    y, tape = net.forward(*inputs)
    upstream = np.random.default_rng(1).normal(size=y.shape)
    gradients = tape.backward(upstream, inputs=True)
    net.step = 0
    with kernels.use("vectorized"):
        expected, plain = net.forward(*inputs)
        close(y, expected)
        _same_gradients(gradients, plain.backward(upstream, inputs=True))
    return not tape._recordings


@pytest.mark.parametrize(
    "layer",
    [
        sg.Conv2d(1, 2, (1, 65)),
        sg.Conv2d(1, 2, 3, stride=2**31 - 1),
        sg.Conv2d(1, 2, 3, stride=2**30 + 1),
        sg.MaxPool2d((65, 1)),
        sg.MaxPool2d(2, 2**31 - 1),
        sg.AvgPool2d((1, 70), 2**30 + 1),
        sg.MaxPool2d(2, ties="share"),
        sg.Softmax(),
    ],
)
def test_what_no_program_computes_goes_layer_by_layer(layer: sg.Layer) -> None:
    net = sg.Network([layer], (1, 72, 72))
    assert _goes_layer_by_layer(net, np.random.default_rng(0).normal(size=(2, 1, 72, 72)))


def test_chosen_kernels_compute_layer_by_layer() -> None:
    net, x = sg.Network([sg.Linear(3, 2)], (3,)), np.ones((2, 3))
    assert compiled(net.forward(x)[1])
    for name in ("vectorized", "reference"):
        with kernels.use(name):
            assert not net.forward(x)[1]._recordings
    with kernels.use("native"):
        assert compiled(net.forward(x)[1])
