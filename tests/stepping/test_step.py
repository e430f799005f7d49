"""A step in one call against the loop that it stands for: the same bits, whatever it is made of."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad.errors import ConfigError, DataError, ShapeError, StaleTapeError
from sharedgrad.optimizers import SCHEDULES, Optimizer
from sharedgrad.stepping import CompiledStep
from tests.helpers import Array

RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(11, 2, 6, 6)), RNG.integers(0, 3, 11)
SOFT = RNG.dirichlet(np.ones(3), 11)
BATCHES = [slice(0, 4), slice(4, 8), slice(8, 11), slice(2, 6)]  # one is smaller


def network(dtype: str = "float32") -> sg.Network:
    conv, second = sg.Conv2d(2, 4, 3, padding=1), sg.Conv2d(4, 4, 3, padding=1)
    layers: dict[str, Any] = {
        "conv": conv,
        "norm": sg.BatchNorm2d(4),
        "relu": sg.ReLU(),
        "second": second,
        "again": second,  # shared: its gradient is the sum over both calls
        "tanh": sg.Tanh(),
        "pool": sg.MaxPool2d(2),
        "dropout": sg.Dropout(0.3),
        "flat": sg.Flatten(),
        "out": sg.Linear(36, 3),
    }
    return sg.Network(layers, (2, 6, 6), dtype=dtype)


def untied(dtype: str = "float32") -> sg.Network:
    """Every weight has one use: all of a step is one program."""
    layers = {
        "conv": sg.Conv2d(2, 4, 3, padding=1),
        "norm": sg.BatchNorm2d(4),
        "relu": sg.ReLU(),
        "second": sg.Conv2d(4, 5, 3, padding=1, bias=False),
        "pool": sg.MaxPool2d(2),
        "dropout": sg.Dropout(0.3),
        "flat": sg.Flatten(),
        "out": sg.Linear(45, 3),
    }
    return sg.Network(layers, (2, 6, 6), dtype=dtype)


NETWORKS = {"shared": network, "untied": untied}


def groups(net: sg.Network) -> Optimizer:
    """Two groups; the first convolution is frozen."""
    norm, out = net["norm"].parameters().values(), net["out"].parameters().values()
    return sg.Combined(sg.SGD(out, lr=0.1, momentum=0.9), sg.AdamW(norm, lr=0.02))


OPTIMIZERS: dict[str, Callable[[sg.Network], Optimizer]] = {
    "SGD": lambda net: sg.SGD(net.parameters(), lr=0.1),
    "momentum": lambda net: sg.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01),
    "Nesterov": lambda net: sg.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True),
    "Adam": lambda net: sg.Adam(net.parameters(), lr=0.01, weight_decay=0.02),
    "AdamW": lambda net: sg.AdamW(net.parameters(), lr=0.01, betas=(0.8, 0.95)),
    "groups": groups,
}
LOSSES: dict[str, tuple[Any, Any]] = {
    "CrossEntropy": (sg.CrossEntropy(), LABELS),
    "smoothed": (sg.CrossEntropy(0.1, "sum"), LABELS.astype(np.uint8)),
    "weighted": (sg.CrossEntropy(weight=[1, 2, 0.5]), LABELS),
    "soft": (sg.CrossEntropy(0.2), SOFT),
    "MSE": (sg.MSE("half_sum"), SOFT),
    "BinaryCrossEntropy": (sg.BinaryCrossEntropy(), SOFT),
}


def written_out(net: sg.Network, loss: Any, optimizer: Any, max_norm: float | None = None, **mode: bool) -> Any:
    def step(x: Any, target: Any) -> float:
        y, tape = net.forward(*(x.values() if isinstance(x, dict) else [x]), **mode)
        value, upstream = loss(y, target)
        gradients = tape.backward(upstream)
        optimizer.step(gradients if max_norm is None else gradients.clipped(max_norm))
        return float(value)

    return step


def both(make: Callable[[], sg.Network], loss: Any, optimizer: Any, **given: Any) -> tuple[Any, ...]:
    """The step and the loop, on networks of their own, and whether they are still the same."""
    nets = [make(), make()]
    optimizers = [optimizer(net) for net in nets]
    step = sg.compile_step(nets[0], loss, optimizers[0], **given)
    loop = written_out(nets[1], loss, optimizers[1], **given)

    def same() -> None:
        assert nets[0].step == nets[1].step
        for state in (nets, optimizers):
            first, second = (one.state_dict() for one in state)
            assert first.keys() == second.keys()
            for name, array in first.items():
                assert array.dtype == second[name].dtype
                assert array.tobytes() == second[name].tobytes(), name

    return step, loop, same, optimizers


def agree(step: Any, loop: Any, same: Any, target: Any, x: Any = X, batches: Any = BATCHES) -> None:
    for batch in batches:
        assert step(x[batch], target[batch]) == loop(x[batch], target[batch])
        same()


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> int:
    sg.set_threads(request.param)
    count: int = request.param
    return count


@pytest.mark.parametrize("net", NETWORKS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_and_schedule(optimizer: str, dtype: str, net: str, threads: int) -> None:
    step, loop, same, optimizers = both(lambda: NETWORKS[net](dtype), sg.CrossEntropy(), OPTIMIZERS[optimizer])
    lr = optimizers[0].lr
    for schedule in SCHEDULES.values():
        for progress, batch in zip((0.0, 0.3, 0.6, 0.9), BATCHES, strict=True):
            for one in optimizers:
                one.lr = lr * schedule(progress)
            x = X[batch].astype(dtype)
            assert step(x, LABELS[batch]) == loop(x, LABELS[batch])
    same()
    assert step.way == ("compiled" if sg.kernels.compiled() else step.way)


@pytest.mark.parametrize("net", NETWORKS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_loss(loss: str, dtype: str, net: str) -> None:
    made, target = LOSSES[loss]
    agree(*both(lambda: NETWORKS[net](dtype), made, OPTIMIZERS["momentum"])[:3], target)
    agree(*both(lambda: NETWORKS[net](dtype), made, OPTIMIZERS["Adam"], max_norm=0.3)[:3], target)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", [True, False])
def test_large_dense_layers_of_one_sample_take_their_step_at_once(dtype: str, bias: bool, instruction_set: str) -> None:
    def make() -> sg.Network:
        layers = [sg.Flatten(), sg.Linear(72, 301, bias=bias), sg.Tanh(), sg.Linear(301, 61, bias=bias), sg.ReLU()]
        return sg.Network([*layers, sg.Linear(61, 3)], (2, 6, 6), dtype=dtype)

    for given in ({}, {"max_norm": 0.5}):
        step, loop, same, optimizers = both(
            make, sg.CrossEntropy(), lambda net: sg.SGD(net.parameters(), lr=0.1, weight_decay=0.03), **given
        )
        agree(step, loop, same, LABELS, X, [slice(0, 1), slice(1, 2), slice(2, 5), slice(5, 6)])
        if sg.kernels.compiled():
            at_once = [len(passes.at_once) for passes in step._passes.values()]
            assert at_once == [2 if given == {} and key[-1][0] == 1 else 0 for key in step._passes]
        for one in optimizers:
            one.momentum, one.lr = 0.9, 0.02
        agree(step, loop, same, LABELS, X, [slice(0, 1), slice(1, 2), slice(2, 5), slice(5, 6)])
    alone = both(lambda: sg.Network([sg.Linear(200, 100, bias=False)], (200,)), sg.MSE(), OPTIMIZERS["SGD"])
    agree(*alone[:3], RNG.normal(size=(3, 100)), RNG.normal(size=(3, 200)), [slice(0, 1), slice(1, 2), slice(0, 3)])


def test_evaluation_mode() -> None:
    step, loop, same, _ = both(network, sg.CrossEntropy(), OPTIMIZERS["SGD"], training=False)
    agree(step, loop, same, LABELS)
    assert step.network.step == 0


class Doubled(sg.Layer):
    def forward(self, *inputs: Any, context: sg.Context) -> tuple[Any, Any]:
        return 2 * inputs[0], None

    def backward(self, saved: Any, upstream: Any, needs: Any) -> tuple[Any, list[Any]]:
        return (2 * upstream,), []

    def output_shape(self, *shapes: Any) -> Any:
        return shapes[0]


class Plain(Optimizer):
    def _new(self, values: Any, gradients: Any, states: Any) -> Any:
        return [w - self.lr * g for w, g in zip(values, gradients, strict=True)]


class Slower(sg.SGD):
    def step(self, gradients: sg.Gradients) -> None:
        super().step(gradients * 0.5)


def huber(y: Any, target: Any) -> tuple[Any, Any]:
    difference = y - target
    return np.sum(np.abs(difference)), np.clip(difference, -1, 1)


def test_what_is_not_compiled_goes_as_the_loop() -> None:
    def foreign() -> sg.Network:
        return sg.Network([sg.Flatten(), sg.Linear(72, 5), Doubled(), sg.Linear(5, 3)], (2, 6, 6))

    for make, loss, target, optimizer, why in (
        (foreign, sg.CrossEntropy(), LABELS, OPTIMIZERS["Adam"], "in Python: "),
        (network, huber, SOFT, OPTIMIZERS["Adam"], "the loss huber"),
        (network, sg.MSE(), SOFT, lambda net: Plain(net.parameters(), 0.1), "the optimizer Plain"),
        (network, sg.MSE(), SOFT, lambda net: Slower(net.parameters(), 0.1), "the optimizer Slower"),
    ):
        step, loop, same, _ = both(make, loss, optimizer)
        agree(step, loop, same, target)
        if sg.kernels.compiled():
            assert step.way.startswith("as the loop:")
            assert why in step.way


def test_chosen_kernels_are_obeyed() -> None:
    step, loop, same, _ = both(network, sg.CrossEntropy(), OPTIMIZERS["SGD"])
    with sg.kernels.use("vectorized"):
        agree(step, loop, same, LABELS)
    assert step.way.startswith("as the loop:")
    agree(step, loop, same, LABELS)


def test_views_and_inputs_by_name() -> None:
    def make() -> sg.Network:
        layers = {
            "left": (sg.Linear(4, 5), "a"),
            "right": (sg.Linear(4, 5), "b"),
            "sum": (sg.Add(), "left", "right"),
            "relu": sg.ReLU(),
            "back": sg.Linear(5, 4),
        }
        net = sg.Network(layers, {"a": (4,), "b": (4,)})
        net["back"].tie("weight", net["left"].weight.T)  # type: ignore[attr-defined]
        return net

    step, loop, same, _ = both(make, sg.MSE(), OPTIMIZERS["momentum"])
    target = RNG.normal(size=(5, 4))
    for _ in range(3):
        x = {"a": RNG.normal(size=(5, 4)), "b": RNG.normal(size=(5, 4))}
        assert step(x, target) == loop(x, target)
        same()
    with pytest.raises(ConfigError, match="expected a, b"):
        step({"a": target, "c": target}, target)
    with pytest.raises(ConfigError, match="expected a, b"):
        step(target, target)


def test_any_array_and_a_sample_alone() -> None:
    step, loop, same, _ = both(network, sg.MSE(), OPTIMIZERS["SGD"])
    for x in (X[:4].tolist(), X[:4, :, ::-1], X[:4].astype(np.float32).swapaxes(2, 3)):
        assert step(x, SOFT[:4]) == loop(np.array(x), SOFT[:4])
        same()
    alone = both(lambda: sg.Network([sg.Linear(3, 3)], (3,)), sg.MSE(), OPTIMIZERS["SGD"])
    agree(*alone[:3], SOFT, SOFT)
    assert alone[0](SOFT[0], SOFT[1]) == alone[1](SOFT[0], SOFT[1])
    alone[2]()


def test_layers_and_values_that_are_set_between_steps() -> None:
    step, loop, same, optimizers = both(network, sg.CrossEntropy(), OPTIMIZERS["momentum"])
    agree(step, loop, same, LABELS)
    other = network()
    before = optimizers[1].state_dict()
    nets = [step.network, _net_of(loop)]
    for net, optimizer in zip(nets, optimizers, strict=True):
        net.load_state_dict(other.state_dict())
        optimizer.load_state_dict(before)
    agree(step, loop, same, LABELS)
    for net in nets:
        net["dropout"].p = 0.6  # type: ignore[attr-defined]
        net["out"].bias.value = np.ones(3)  # type: ignore[attr-defined]
    agree(step, loop, same, LABELS)


def test_an_optimizer_that_is_given_other_parameters_between_steps() -> None:
    x = RNG.normal(size=(11, 200))
    for name in ("SGD", "momentum", "Adam"):
        step, loop, same, optimizers = both(_large_dense, sg.CrossEntropy(), OPTIMIZERS[name])
        agree(step, loop, same, LABELS, x)
        frozen = [optimizer.parameters.pop(2) for optimizer in optimizers]
        agree(step, loop, same, LABELS, x)
        for optimizer, parameter in zip(optimizers, frozen, strict=True):
            optimizer.parameters.insert(0, parameter)
        agree(step, loop, same, LABELS, x)


def test_a_network_of_another_type_takes_the_layers_over_between_steps() -> None:
    step, loop, same, _ = both(network, sg.CrossEntropy(), OPTIMIZERS["SGD"])
    agree(step, loop, same, LABELS)
    for one, net in ((step, step.network), (loop, _net_of(loop))):
        sg.Network([net["norm"]], (4, 3, 3), dtype="float64")
        with pytest.raises(ConfigError, match=r"0\.\w+: is float64 now, this network float32"):
            one(X[:4], LABELS[:4])


def _net_of(loop: Any) -> sg.Network:
    return next(c.cell_contents for c in loop.__closure__ if isinstance(c.cell_contents, sg.Network))


@pytest.mark.compiled
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("optimizer", ["momentum", "Adam"])
def test_in_place_where_nobody_holds_an_array(optimizer: str, name: str) -> None:
    net = NETWORKS[name]()
    made = OPTIMIZERS[optimizer](net)
    step = sg.compile_step(net, sg.CrossEntropy(), made)
    step(X[:4], LABELS[:4])
    weight = net["out"].weight  # type: ignore[attr-defined]
    place = weight.value.ctypes.data
    version = weight.version
    step(X[:4], LABELS[:4])
    assert (weight.value.ctypes.data, weight.version) == (place, version + 1)
    for held in (weight.value, weight.value[1:], memoryview(weight.value), made.state[weight][made.state_names[0]]):
        kept = np.array(held)
        for _ in range(2):
            step(X[:4], LABELS[:4])
        assert np.array_equal(held, kept)
        assert not weight.value.flags.writeable
    del held
    assert not np.array_equal(weight.value, kept)


def test_tapes_and_traces_of_before() -> None:
    net = network()
    step = sg.compile_step(net, sg.CrossEntropy(), sg.SGD(net.parameters(), lr=0.1))
    for _ in range(2):
        step(X[:4], LABELS[:4])
    y, tape = net.forward(X[:4])
    trace = tape.trace(np.ones_like(y))
    want = {name: array.copy() for name, array in zip(trace.weights, trace.gradients().values(), strict=False)}
    output = step.output
    before = output.copy()
    step(X[:4], LABELS[:4])
    assert np.array_equal(output, before)
    with pytest.raises(StaleTapeError):
        tape.backward(np.ones_like(y))
    for name, array in zip(trace.weights, trace.gradients().values(), strict=False):
        assert np.array_equal(array, want[name])


@pytest.mark.parametrize("name", NETWORKS)
def test_mistakes_are_told_as_in_the_loop(name: str) -> None:
    step, loop, same, _ = both(NETWORKS[name], sg.CrossEntropy(), OPTIMIZERS["SGD"])
    agree(step, loop, same, LABELS)
    for x, target, error in (
        (X[:4], LABELS[:4] + 3, DataError),
        (X[:4], LABELS[:3], ShapeError),
        (X[:4, :, :5], LABELS[:4], ShapeError),
        (X[:0], LABELS[:0], ShapeError),
        ("images", LABELS[:4], ShapeError),
    ):
        said = []
        for one in (step, loop):
            with pytest.raises(error) as caught:
                one(x, target)
            said.append(str(caught.value))
        assert said[0] == said[1]
        same()
    net = network()
    for given in ((network, sg.MSE(), 0), (net, None, 0), (net, sg.MSE, 0), (net, sg.MSE(), 0)):
        with pytest.raises(ConfigError, match="compile_step"):
            sg.compile_step(*given)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="max_norm"):
        sg.compile_step(net, sg.MSE(), OPTIMIZERS["SGD"](net), max_norm=0)
    with pytest.raises(ConfigError, match="gradients of its parameters"):
        sg.compile_step(net, sg.CrossEntropy(), OPTIMIZERS["SGD"](network()))(X, LABELS)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_loss_that_is_not_finite(name: str) -> None:
    step, loop, same, _ = both(NETWORKS[name], sg.CrossEntropy(), OPTIMIZERS["momentum"])
    bad = X[:4] * np.nan
    assert np.isnan([step(bad, LABELS[:4]), loop(bad, LABELS[:4])]).all()
    same()
    net = NETWORKS[name]()
    careful = sg.compile_step(net, sg.CrossEntropy(), sg.SGD(net.parameters(), lr=0.1), finite_only=True)
    for _ in range(2):
        before = {p.name: (p.value, p.version, p.value.copy()) for p in net.parameters()}
        assert np.isnan(careful(bad, LABELS[:4]))
        for p in net.parameters():
            value, version, numbers = before[p.name]
            assert p.value is value
            assert p.version == version
            assert np.array_equal(value, numbers)
        del before, value
        assert np.isfinite(careful(X[:4], LABELS[:4]))


def test_two_threads_and_copies() -> None:
    step, loop, same, _ = both(network, sg.CrossEntropy(), OPTIMIZERS["Adam"])
    with step._busy:  # as if another thread were within a step
        agree(step, loop, same, LABELS)
    if sg.kernels.compiled():
        assert "another thread" in step.way
    agree(step, loop, same, LABELS)
    net = step.network
    for twin in (copy.deepcopy(step), pickle.loads(pickle.dumps(sg.compile_step(net, sg.MSE(), step.optimizer)))):
        assert isinstance(twin, CompiledStep)
        assert twin.network is not net
        assert "no step" in repr(twin)


def _large_dense() -> sg.Network:
    return sg.Network([sg.Linear(200, 100), sg.ReLU(), sg.Linear(100, 3)], (200,))


@pytest.mark.parametrize("held", [["0.weight"], ["0.weight", "2.weight"], ["2.bias"]])
def test_one_sample_where_the_optimizer_holds_a_few_parameters(held: list[str]) -> None:
    def some(net: sg.Network) -> Optimizer:
        return sg.SGD([net.parameter(name) for name in held], lr=0.1, weight_decay=0.01)

    step, loop, same, _ = both(_large_dense, sg.CrossEntropy(), some)
    x = np.random.default_rng(1).normal(size=(1, 200)).astype(np.float32)
    for _ in range(3):
        assert step(x, [1]) == loop(x, [1])
        same()


def _unaligned(array: Array) -> Array:
    """The same numbers, a byte behind where their type belongs."""
    found = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    found[:] = array
    assert not found.flags.aligned
    return found


def test_arrays_that_are_not_aligned() -> None:
    step, loop, same, _ = both(network, sg.CrossEntropy(), OPTIMIZERS["SGD"])
    x, labels = X[:4].astype(np.float32), LABELS[:4].astype(np.int64)
    for _ in range(2):
        assert step(_unaligned(x), _unaligned(labels)) == loop(x, labels)
        same()


@pytest.mark.parametrize("optimizer", ["momentum", "Adam"])
def test_gradients_that_are_not_aligned(optimizer: str) -> None:
    values = []
    for given in (np.array, _unaligned):
        net = network()
        made, random = OPTIMIZERS[optimizer](net), np.random.default_rng(0)
        drawn = {p: given(random.normal(size=p.shape).astype(np.float32)) for p in net.parameters()}
        made.step(sg.Gradients(drawn))
        values.append([p.value.tobytes() for p in net.parameters()])
    assert values[0] == values[1]


def test_groups_of_groups_go_as_the_loop() -> None:
    def nested(net: sg.Network) -> Optimizer:
        return sg.Combined(groups(net), sg.Adam(net["conv"].parameters().values()))

    step, loop, same, _ = both(network, sg.CrossEntropy(), nested)
    agree(step, loop, same, LABELS)
    assert step.way.startswith("as the loop")


def test_the_rate_of_a_group_can_be_set_between_steps() -> None:
    step, loop, same, optimizers = both(network, sg.CrossEntropy(), groups)
    for rate in (0.1, 0.7):
        for optimizer in optimizers:
            optimizer.lr, optimizer.optimizers[0].lr = 0.5, rate
        agree(step, loop, same, LABELS)
        for optimizer in optimizers:
            assert optimizer.rates == (0.5 * rate, 0.01)
            assert [group.lr for group in optimizer.optimizers] == [rate, 0.02]
