"""A pass taken apart: calls in forward order, weights by every name, values that nothing changes afterwards."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad import kernels
from sharedgrad.errors import ConfigError
from tests.helpers import Array, close, collector_at_rest, same_bits

MODELS = {
    "lenet5": (sg.models.lenet5, (1, 16, 16)),
    "cnn": (sg.models.cnn, (1, 12, 12)),
    "vgg": (sg.models.vgg, (3, 8, 8)),
    "resnet20": (sg.models.resnet20, (3, 8, 8)),
}


def small(dtype: str = "float64") -> sg.Network:
    """Everything that programs fuse: normalization, activations, pooling, a sum, a layer that is used twice."""
    conv = sg.Conv2d(4, 4, 3, padding=1)
    graph: dict[str, Any] = {
        "stem": sg.Conv2d(2, 4, 3, padding=1, bias=False),  # one before a norm has a gradient of zero
        "norm": sg.BatchNorm2d(4),
        "relu": sg.ReLU(),
        "once": conv,
        "tanh": sg.Tanh(),
        "twice": conv,
        "sum": (sg.Add(), "twice", "relu"),
        "after": sg.ReLU(),
        "pool": sg.MaxPool2d(2),
        "drop": sg.Dropout(0.3),
        "flat": sg.Flatten(),
        "head": sg.Linear(36, 3),
        "side": (sg.Linear(36, 2, bias=False), "flat"),
    }
    return sg.Network(graph, (2, 6, 6), ["head", "side"], seed=4, dtype=dtype)


def upstreams(net: sg.Network, samples: int, *names: str) -> dict[str, Array]:
    rng = np.random.default_rng(8)
    shapes = net.shapes()
    return {name: rng.normal(size=(samples, *shapes[name])) for name in names}


def batch(net: sg.Network, samples: int) -> Array:
    return np.random.default_rng(2).normal(size=(samples, *net.shapes()["input"]))


def everything(trace: sg.Trace) -> dict[str, Array]:
    """All that a trace tells, by name."""
    found: dict[str, Array] = {f"gradient {p.name}": array for p, array in trace.gradients().items()}
    found |= {f"input {name}": array for name, array in trace.inputs.items()}
    for name, call in trace.calls.items():
        found |= {f"upstream {name}": call.upstream, f"output {name}": call.output}
        found |= {f"x {name} {i}": x for i, x in enumerate(call.xs)}
        for i, uses in enumerate(call.uses):
            found[f"sum {name} {i}"] = uses.sum(by="sample")
    return found


@pytest.mark.parametrize("samples", [1, 3, 16, 19])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_compiled_trace_is_that_of_the_layers(samples: int, training: bool, dtype: str) -> None:
    net = small(dtype)
    at = upstreams(net, samples, "head", "side", "norm", "once", "tanh", "pool")
    x = batch(net, samples)
    _, tape = net.forward(x, training=training)
    trace = tape.trace(at)
    net.step = 0
    with kernels.use("vectorized"):
        by_layers = net.forward(x, training=training)[1].trace(at)
        expected = everything(by_layers)
    found = everything(trace)
    assert list(found) == list(expected)
    for name, array in found.items():
        close(array, expected[name])


@pytest.mark.parametrize("samples", [3, 16])
def test_what_flows_through_each_node_is_what_the_tape_goes_on_with(samples: int) -> None:
    net = small()
    at = upstreams(net, samples, "head", "side")
    x = batch(net, samples)
    y, tape = net.forward(x)
    trace = tape.trace(at)
    expected = tape.backward(at, inputs=True)
    for name in ("stem", "norm", "relu"):  # all that flows back to the stem flows through each of them
        again = tape.backward({name: trace.calls[name].upstream}, inputs=True)
        close(again["stem.weight"], expected["stem.weight"])
        close(again.inputs["input"], expected.inputs["input"])
    for name in ("head", "side"):
        close(trace.calls[name].output, y[name])
        same_bits(trace.calls[name].upstream, at[name])
    assert list(trace.calls) == [node.name for node in net]
    assert trace.calls["sum"].inputs == ("twice", "relu")
    close(sum(trace.calls["sum"].xs), trace.calls["sum"].output)
    assert trace.calls["sum"].uses == []


def test_a_weight_is_found_by_each_of_its_names() -> None:
    net = small()
    _, tape = net.forward(batch(net, 3))
    trace = tape.trace(upstreams(net, 3, "head"))
    weight = trace["once.weight"]
    assert trace["twice.weight"] is weight
    assert trace[net.parameter("twice.weight")] is weight
    assert trace.weights["once.weight"] is weight
    assert list(trace.weights) == [p.name for p in net.parameters() if p.name != "side.weight"]
    for what in ("side.weight", net.parameter("side.weight"), "nothing"):
        with pytest.raises(KeyError, match=r"no use of .* in this trace; there are stem.weight, norm.weight"):
            trace[what]
    with pytest.raises(KeyError, match="no gradient passed through a node 'side' in this trace; there are stem, norm"):
        trace.calls["side"]


@pytest.mark.parametrize("samples", [3, 16])
@pytest.mark.parametrize("name", MODELS)
def test_no_convolution_or_dense_layer_runs_forward_again(
    name: str, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernels.compiled():
        pytest.skip("no kernels were compiled")
    build, shape = MODELS[name]
    net = build(shape, 10)
    x = np.random.default_rng(0).normal(size=(samples, *shape))
    y, tape = net.forward(x)
    upstream = np.random.default_rng(1).normal(size=y.shape)
    expected = tape.backward(upstream)
    ran: list[str] = []
    for kernel in ("conv", "blocks", "max_pool"):
        monkeypatch.setattr(kernels.native, kernel, lambda *args, kernel=kernel: ran.append(kernel))
    for kind in {type(node.layer) for node in net}:
        monkeypatch.setattr(kind, "forward", lambda *args, kind=kind, **more: ran.append(kind.__name__))
    trace = tape.trace(upstream)
    for weight in net.parameters():
        close(trace[weight].sum(by="sample").sum(axis=0), expected[weight])
    assert ran == []
    monkeypatch.undo()
    close(trace.calls[net.nodes[0].name].output, net.nodes[0].layer.forward(x.astype("f"), context=None)[0])


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_training_goes_on_and_a_trace_stays_what_it_was(compiled: bool, training: bool) -> None:
    net = small("float32")
    x = batch(net, 5)
    at = upstreams(net, 5, "head", "side")

    def step() -> None:
        _, tape = net.forward(x + net.step)
        optimizer.step(tape.backward(at))

    def forward() -> sg.Tape:
        net.step = 7
        if compiled:
            return net.forward(x, training=training)[1]
        with kernels.use("vectorized"):
            return net.forward(x, training=training)[1]

    optimizer = sg.SGD(net.parameters(), lr=0.01)
    step()
    tape = forward()
    trace, late = tape.trace(at), tape.trace(at)  # nothing is asked of the second before training goes on
    expected = {name: array.copy() for name, array in everything(trace).items()}
    values = {name: trace[name].weight.value for name in trace.weights}
    for _ in range(10):
        step()
    net["norm"].tie("bias", net["once"].parameters()["bias"])
    del tape
    for again in (everything(trace), everything(late)):
        assert list(again) == list(expected)
        for name, array in again.items():
            same_bits(array, expected[name])
    for name, value in values.items():
        same_bits(late[name].weight.value, value)
    assert not np.array_equal(values["stem.weight"], net.parameter("stem.weight").value)


class Nested(sg.Layer):
    """A user's layer that keeps its parameter in a list, and a buffer that it reads."""

    def __init__(self) -> None:
        self.scales = [sg.Parameter((3,), lambda _, shape: np.full(shape, 2.0), "scale", np.float64)]
        self.count = sg.parameter.Buffer(np.full((3,), 3.0))

    def parameters(self) -> dict[str, sg.Parameter]:
        return {"scale": self.scales[0]}

    def forward(self, *inputs: Array, context: Any) -> tuple[Array, Any]:
        return inputs[0] * self.scales[0].value * context.read(self.count), inputs[0]

    def backward(self, saved: Any, upstream: Array, needs: Any) -> Any:
        axes = {"sample": upstream.shape[:1]}
        dx = upstream * self.scales[0].value * self.count.value
        return (dx,), [sg.uses.Direct(self.scales[0], upstream * saved * self.count.value, axes)]

    def output_shape(self, *shapes: Any) -> Any:
        return shapes[0]


def test_layers_of_ones_own_keep_their_values_too() -> None:
    layer = Nested()
    net = sg.Network({"first": layer, "tanh": sg.Tanh(), "second": layer}, (3,), dtype="float64")
    x, upstream = np.random.default_rng(0).normal(size=(2, 2, 3))
    trace = net.forward(x)[1].trace(upstream)
    expected = {name: array.copy() for name, array in everything(trace).items()}
    late = net.forward(x)[1].trace(upstream)
    layer.scales[0].value = [5.0, 6.0, 7.0]
    layer.count.replace(np.zeros(3))
    for name, array in everything(late).items():
        same_bits(array, expected[name])
    close(expected["output second"], np.tanh(x * 6) * 6)


def test_one_sample_without_a_sample_axis() -> None:
    net = small()
    x = batch(net, 1)[0]
    _, tape = net.forward(x, training=False)
    at = {name: array[0] for name, array in upstreams(net, 1, "head", "side").items()}
    trace = tape.trace(at)
    assert trace.inputs["input"].shape == x.shape
    assert trace.calls["stem"].x.shape == (1, *x.shape)
    close(trace.inputs["input"], tape.backward(at, inputs=True).inputs["input"])


def taken_apart(trace: sg.Trace) -> dict[str, Array]:
    """What the terms of every call's input gradients add up to, and its inner gradients."""
    found = {}
    for name, call in trace.calls.items():
        found |= {f"dx {name} {i}": call.dx_terms(i).total() for i in range(len(call.inputs))}
        found |= {f"{key} {name}": np.asarray(value) for key, value in call.inner.items()}
    return found


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_what_flows_to_a_node_is_the_terms_of_all_that_read_it(compiled: bool, training: bool) -> None:
    net = small()
    at = upstreams(net, 3, "head", "side", "norm", "pool")
    with kernels.use("native" if compiled and kernels.compiled() else "vectorized"):
        trace = net.forward(batch(net, 3), training=training)[1].trace(at)
        arrived = {name: array.copy() for name, array in at.items()}
        for name, call in trace.calls.items():
            assert (call.dx.target, call.dx.shape, name) == ("dx", call.x.shape, call.node)
            for i, source in enumerate(call.inputs):
                arrived[source] = arrived.get(source, 0) + call.dx_terms(i).total()
        for name, array in arrived.items():
            close(array, trace.inputs[name] if name in trace.inputs else trace.calls[name].upstream)
        for name in ("stem", "once", "twice", "sum", "pool", "flat", "head", "side"):
            close(trace.calls[name].y_terms().total(), trace.calls[name].output)


def test_terms_and_inner_gradients_stay_what_they_were() -> None:
    layer = sg.RNN(3, 4)
    net = sg.Network({"rnn": layer, "again": sg.RNN(4, 4), "out": sg.Linear(4, 2)}, (5, 3), dtype="float64")
    x = np.random.default_rng(1).normal(size=(2, 5, 3))
    y, tape = net.forward(x)
    upstream = np.random.default_rng(2).normal(size=y.shape)
    expected, late = taken_apart(tape.trace(upstream)), tape.trace(upstream)
    for parameter in net.parameters():
        parameter.value = parameter.value + 1
    assert set(late.calls["rnn"].inner) == {"delta", "dh", "dh_from_output", "dh_from_next"}
    again = taken_apart(late)
    assert list(again) == list(expected)
    for name, array in again.items():
        same_bits(array, expected[name])
    close(late.calls["rnn"].dx.total(), late.inputs["input"])
    assert late.calls["out"].inner == {}


def test_some_cells_of_large_maps_and_inputs_that_are_not_there() -> None:
    net = small()
    trace = net.forward(batch(net, 3))[1].trace(upstreams(net, 3, "head"))
    call = trace.calls["twice"]
    assert set(call.dx_terms(cells=[7, 11]).cell) == {7, 11}
    assert call.dx_terms(cells=[7]).values.sum() == pytest.approx(call.dx.total().flat[7])
    assert set(call.y_terms(cells=[5]).cell) == {5}
    joined = sg.Network({"a": sg.Linear(3, 2), "b": (sg.Linear(3, 4), "input"), "c": (sg.Concat(), "a", "b")}, (3,))
    call_of_two = joined.forward(np.ones((1, 3)))[1].trace(np.arange(6.0)[None]).calls["c"]
    assert [call_of_two.dx_terms(i).total().tolist() for i in range(2)] == [[[0, 1]], [[2, 3, 4, 5]]]
    with pytest.raises(ConfigError, match=r"call 'sum': there is no input 2; choose from 0 \(twice\), 1 \(relu\)"):
        trace.calls["sum"].dx_terms(2)
    with pytest.raises(ConfigError, match="call 'twice': there is no input -1; choose from 0"):
        call.dx_terms(-1)
    with pytest.raises(ConfigError, match=r"layer 'tanh' \(Tanh\): does not give its output as a sum of terms"):
        trace.calls["tanh"].y_terms()


def test_a_trace_gives_its_memory_back_at_once() -> None:
    net = small()
    _, tape = net.forward(batch(net, 2))
    trace = tape.trace(upstreams(net, 2, "head", "side"))
    uses = trace["stem.weight"]
    assert uses.norm(by="sample").shape == (2,)
    alive = weakref.ref(trace)
    with collector_at_rest():
        del trace, uses
        assert alive() is None
