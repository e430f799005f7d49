"""What is not compiled: a step goes as the loop is written, and gives the same bits."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np

import sharedgrad as sg
from sharedgrad.optimizers import Optimizer
from sharedgrad.stepping import CompiledStep
from tests.stepping.cases import LABELS, OPTIMIZERS, SOFT, agree, both, groups, network


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


def test_groups_of_groups_go_as_the_loop() -> None:
    def nested(net: sg.Network) -> Optimizer:
        return sg.Combined(groups(net), sg.Adam(net["conv"].parameters().values()))

    step, loop, same, _ = both(network, sg.CrossEntropy(), nested)
    agree(step, loop, same, LABELS)
    assert step.way.startswith("as the loop")


def test_chosen_kernels_are_obeyed() -> None:
    step, loop, same, _ = both(network, sg.CrossEntropy(), OPTIMIZERS["SGD"])
    with sg.kernels.use("vectorized"):
        agree(step, loop, same, LABELS)
    assert step.way.startswith("as the loop:")
    agree(step, loop, same, LABELS)


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
