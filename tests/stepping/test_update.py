"""What becomes of values and states: written over in place or not, of few parameters, at once, group by group."""

from __future__ import annotations

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad.optimizers import Optimizer
from tests.stepping.cases import LABELS, NETWORKS, OPTIMIZERS, X, agree, both, groups, large_dense, network, unaligned


@pytest.mark.compiled
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("optimizer", ["momentum", "Adam"])
def test_in_place_where_nobody_holds_an_array(optimizer: str, name: str) -> None:
    net = NETWORKS[name]()
    made = OPTIMIZERS[optimizer](net)
    step = sg.compile_step(net, sg.CrossEntropy(), made)
    step(X[:4], LABELS[:4])
    weight = net["out"].weight
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
    rng = np.random.default_rng(0)
    agree(*alone[:3], rng.normal(size=(3, 100)), rng.normal(size=(3, 200)), [slice(0, 1), slice(1, 2), slice(0, 3)])


@pytest.mark.parametrize("held", [["0.weight"], ["0.weight", "2.weight"], ["2.bias"]])
def test_one_sample_where_the_optimizer_holds_a_few_parameters(held: list[str]) -> None:
    def some(net: sg.Network) -> Optimizer:
        return sg.SGD([net.parameter(name) for name in held], lr=0.1, weight_decay=0.01)

    step, loop, same, _ = both(large_dense, sg.CrossEntropy(), some)
    x = np.random.default_rng(1).normal(size=(1, 200)).astype(np.float32)
    for _ in range(3):
        assert step(x, [1]) == loop(x, [1])
        same()


def test_an_optimizer_that_is_given_other_parameters_between_steps() -> None:
    x = np.random.default_rng(0).normal(size=(11, 200))
    for name in ("SGD", "momentum", "Adam"):
        step, loop, same, optimizers = both(large_dense, sg.CrossEntropy(), OPTIMIZERS[name])
        agree(step, loop, same, LABELS, x)
        frozen = [optimizer.parameters.pop(2) for optimizer in optimizers]
        agree(step, loop, same, LABELS, x)
        for optimizer, parameter in zip(optimizers, frozen, strict=True):
            optimizer.parameters.insert(0, parameter)
        agree(step, loop, same, LABELS, x)


def test_the_rate_of_a_group_can_be_set_between_steps() -> None:
    step, loop, same, optimizers = both(network, sg.CrossEntropy(), groups)
    for rate in (0.1, 0.7):
        for optimizer in optimizers:
            optimizer.lr, optimizer.optimizers[0].lr = 0.5, rate
        agree(step, loop, same, LABELS)
        for optimizer in optimizers:
            assert optimizer.rates == (0.5 * rate, 0.01)
            assert [group.lr for group in optimizer.optimizers] == [rate, 0.02]


@pytest.mark.parametrize("optimizer", ["momentum", "Adam"])
def test_gradients_that_are_not_aligned(optimizer: str) -> None:
    values = []
    for given in (np.array, unaligned):
        net = network()
        made, random = OPTIMIZERS[optimizer](net), np.random.default_rng(0)
        drawn = {p: given(random.normal(size=p.shape).astype(np.float32)) for p in net.parameters()}
        made.step(sg.Gradients(drawn))
        values.append([p.value.tobytes() for p in net.parameters()])
    assert values[0] == values[1]
