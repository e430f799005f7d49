"""A step's programs: what is one, what comes between two, and who else holds an array."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad.errors import ConfigError, ShapeError
from tests.plan.networks import MODES, draw
from tests.stepping.cases import LABELS, OPTIMIZERS, SOFT, X, both, groups, network, untied

pytestmark = pytest.mark.compiled


@pytest.mark.parametrize(
    ("make", "loss", "max_norm", "programs"),
    [
        (untied, sg.CrossEntropy(0.1), None, 1),
        (untied, sg.MSE(), None, 2),
        (untied, sg.CrossEntropy(), 0.1, 2),
        (untied, sg.MSE(), 0.1, 3),
        (network, sg.CrossEntropy(), None, 2),  # gradients of several uses are added in Python
    ],
)
@pytest.mark.parametrize("optimizer", [OPTIMIZERS["SGD"], OPTIMIZERS["AdamW"], groups])
def test_phases_that_are_compiled_are_one_program(
    make: Any, loss: Any, max_norm: float | None, programs: int, optimizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = make()
    step = sg.compile_step(net, loss, optimizer(net), max_norm=max_norm)
    target = LABELS if isinstance(loss, sg.CrossEntropy) else SOFT
    step(X, target)
    (passes,) = step._passes.values()
    ran: list[Any] = []
    for way in {
        id(way): way for way in (passes._forward, passes._way, passes._alone) if hasattr(way, "program")
    }.values():
        monkeypatch.setattr(way.program, "run", noting(ran, way.program.run))
    step(X, target)
    assert len(ran) == programs


def noting(ran: list[Any], run: Callable[..., Any]) -> Callable[..., Any]:
    def noted(*arguments: Any) -> Any:
        ran.append(run)
        return run(*arguments)

    return noted


@pytest.mark.parametrize("optimizer", ["SGD", "momentum", "Adam"])
def test_somebody_gets_hold_of_an_array_during_the_program(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step, loop, same, _ = both(untied, sg.CrossEntropy(), OPTIMIZERS[optimizer])
    held: list[Any] = []
    for _ in range(3):
        assert step(X, LABELS) == loop(X, LABELS)
        same()
        (passes,) = step._passes.values()
        run = passes._way.program.run

        before = [(p, p.value, p.value.copy()) for p in step.network.parameters()]
        with monkeypatch.context() as patched:
            patched.setattr(passes._way.program, "run", lambda m, a, *o, run=run: False if o else run(m, a))
            assert step(X, LABELS) == loop(X, LABELS)
        same()
        assert all(np.array_equal(value, numbers) and p.value is not value for p, value, numbers in before)
        held.append(before)
        del before


def test_a_thread_that_reads_values_all_the_time_sees_none_change() -> None:
    step, loop, same, _ = both(untied, sg.CrossEntropy(), OPTIMIZERS["Adam"])
    parameters, done, changed = list(step.network.parameters()), False, list[str]()

    def read() -> None:
        while not done:
            for p in parameters:
                value = p.value
                if not np.array_equal(value, value.copy(), equal_nan=True):
                    changed.append(p.name)

    reader = Thread(target=read)
    reader.start()
    try:
        for _ in range(40):
            assert step(X, LABELS) == loop(X, LABELS)
    finally:
        done = True
        reader.join()
    same()
    assert not changed


def test_a_normalization_that_refuses_its_batch_does_so_before_anything_changes() -> None:
    def make() -> sg.Network:
        return sg.Network([sg.Conv2d(2, 3, 6), sg.BatchNorm2d(3), sg.Flatten(), sg.Linear(3, 3)], (2, 6, 6))

    step, loop, same, _ = both(make, sg.CrossEntropy(), OPTIMIZERS["SGD"])
    said = []
    for one in (step, loop):
        with pytest.raises(ShapeError) as caught:
            one(X[:1], LABELS[:1])
        said.append(str(caught.value))
    assert said[0] == said[1]
    same()
    assert step(X[:2], LABELS[:2]) == loop(X[:2], LABELS[:2])
    same()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(12))
def test_networks_drawn_at_random(mode: str, seed: int) -> None:
    cases = [draw(seed, mode), draw(seed, mode)]
    nets = [case.net for case in cases]
    x = dict(zip(nets[0].inputs, cases[0].inputs, strict=True))
    y = nets[0].predict(*cases[0].inputs)
    if isinstance(y, dict) or not nets[0].parameters():
        pytest.skip("several outputs, or nothing to train")
    optimizers = [sg.SGD(net.parameters(), lr=0.01, momentum=0.5) for net in nets]
    labels = np.random.default_rng(seed).integers(0, y.shape[1], len(y))
    loss, target = (sg.CrossEntropy(), labels) if y.ndim == 2 else (sg.MSE("sum"), np.zeros_like(y))
    step = sg.compile_step(nets[0], loss, optimizers[0], training=cases[0].training)
    for _ in range(3):
        out, tape = nets[1].forward(*cases[1].inputs, training=cases[1].training)
        expected, upstream = loss(out, target)
        gradients = tape.backward(upstream)
        if not len(gradients):  # nothing that has weights leads to the output
            with pytest.raises(ConfigError, match="expected gradients"):
                step(x, target)
            return
        optimizers[1].step(gradients)
        assert step(x, target) == expected
        for a, b in zip(nets[0].state_dict().values(), nets[1].state_dict().values(), strict=True):
            assert a.tobytes() == b.tobytes()


def test_a_gradient_that_two_branches_share_stays_until_the_weight_has_taken_its_step() -> None:
    def make() -> sg.Network:
        layers = {
            "left": (sg.Linear(200, 100), "x"),
            "tanh": (sg.Tanh(), "left"),  # its way back would write over the sum's gradient
            "right": (sg.Linear(200, 100), "x"),
            "sum": (sg.Add(), "tanh", "right"),
            "out": sg.Linear(100, 3),
        }
        return sg.Network(layers, {"x": (200,)})

    step, loop, same, _ = both(make, sg.CrossEntropy(), OPTIMIZERS["SGD"])
    x = np.random.default_rng(0).normal(size=(1, 200)).astype(np.float32)
    for _ in range(3):
        assert step(x, LABELS[:1]) == loop(x, LABELS[:1])
        same()
    (passes,) = step._passes.values()
    assert len(passes.at_once) == 2
