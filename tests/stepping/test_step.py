"""A step in one call against the loop that it stands for: the same bits, whatever it is made of."""

from __future__ import annotations

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad.errors import ConfigError, DataError, ShapeError, StaleTapeError
from sharedgrad.optimizers import SCHEDULES
from tests.stepping.cases import (
    BATCHES,
    LABELS,
    LOSSES,
    NETWORKS,
    OPTIMIZERS,
    SOFT,
    X,
    agree,
    both,
    net_of,
    network,
    unaligned,
)


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


def test_evaluation_mode() -> None:
    step, loop, same, _ = both(network, sg.CrossEntropy(), OPTIMIZERS["SGD"], training=False)
    agree(step, loop, same, LABELS)
    assert step.network.step == 0


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
        net["back"].tie("weight", net["left"].weight.T)
        return net

    step, loop, same, _ = both(make, sg.MSE(), OPTIMIZERS["momentum"])
    rng = np.random.default_rng(0)
    target = rng.normal(size=(5, 4))
    for _ in range(3):
        x = {"a": rng.normal(size=(5, 4)), "b": rng.normal(size=(5, 4))}
        assert step(x, target) == loop(x, target)
        same()
    with pytest.raises(ConfigError, match="expected an array for each of a, b"):
        step({"a": target, "c": target}, target)
    with pytest.raises(ConfigError, match="expected an array for each of a, b"):
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
    nets = [step.network, net_of(loop)]
    for net, optimizer in zip(nets, optimizers, strict=True):
        net.load_state_dict(other.state_dict())
        optimizer.load_state_dict(before)
    agree(step, loop, same, LABELS)
    for net in nets:
        net["dropout"].p = 0.6
        net["out"].bias.value = np.ones(3)
    agree(step, loop, same, LABELS)


def test_a_network_of_another_type_takes_the_layers_over_between_steps() -> None:
    step, loop, same, _ = both(network, sg.CrossEntropy(), OPTIMIZERS["SGD"])
    agree(step, loop, same, LABELS)
    for one, net in ((step, step.network), (loop, net_of(loop))):
        sg.Network([net["norm"]], (4, 3, 3), dtype="float64")
        with pytest.raises(ConfigError, match=r"0\.\w+: is float64 now, this network float32"):
            one(X[:4], LABELS[:4])


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
            sg.compile_step(*given)
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


def test_arrays_that_are_not_aligned() -> None:
    step, loop, same, _ = both(network, sg.CrossEntropy(), OPTIMIZERS["SGD"])
    x, labels = X[:4].astype(np.float32), LABELS[:4].astype(np.int64)
    for _ in range(2):
        assert step(unaligned(x), unaligned(labels)) == loop(x, labels)
        same()
