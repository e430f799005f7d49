"""What is kept of one training step: one number of one weight, before and after."""

from __future__ import annotations

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad.training.step import Step, part_of, shared, take
from tests.helpers import close

RNG = np.random.default_rng(8)
LAYERS = {
    "convolution": lambda: ([sg.Flatten(), sg.Reshape((1, 6, 6)), sg.Conv2d(1, 2, 3), sg.Flatten()], "2.weight"),
    "recurrence": lambda: ([sg.Reshape((6, 6)), sg.RNN(6, 3)], "1.weight_ih_l0"),
    "dense": lambda: ([sg.Flatten(), sg.Linear(36, 2)], "1.weight"),
}


def network(kind: str) -> tuple[sg.Network, str]:
    layers, chosen = LAYERS[kind]()
    return sg.Network(layers, (1, 6, 6), dtype="float64", seed=1), chosen


def one_step(net: sg.Network, factor: float = 1.0, lr: float = 0.5) -> tuple[Step, sg.Gradients]:
    y, tape = net.forward(RNG.normal(size=(4, 1, 6, 6)))
    upstream = RNG.normal(size=y.shape)
    gradients, optimizer = tape.backward(upstream), sg.SGD(net.parameters(), lr=lr)
    part = part_of(net.parameters(), tape.trace(upstream), gradients)
    step = take((2, 3, 5), net.parameters(), [part], gradients, gradients * factor, optimizer)
    return step, gradients


@pytest.mark.parametrize("kind", LAYERS)
def test_a_kernel_that_slides_is_chosen_else_a_weight_that_is_used_more_than_once(kind: str) -> None:
    net, chosen = network(kind)
    y, tape = net.forward(RNG.normal(size=(4, 1, 6, 6)))
    assert shared(net.parameters(), tape.trace(np.ones_like(y))).name == chosen
    assert one_step(net)[0].weight == chosen


@pytest.mark.parametrize("kind", LAYERS)
def test_the_number_with_the_largest_gradient_its_terms_and_its_update(kind: str) -> None:
    net, chosen = network(kind)
    parameter = net.parameter(chosen)
    assert isinstance(parameter, sg.Parameter)
    before = parameter.value
    step, gradients = one_step(net, factor=0.25)
    assert (step.epoch, step.batch, step.batches) == (2, 3, 5)
    assert abs(step.gradient) == np.abs(gradients[parameter]).max()
    assert step.gradient == gradients[parameter][step.element]
    assert step.applied == 0.25 * step.gradient
    assert (step.before, step.after) == (before[step.element], parameter.value[step.element])
    close(np.array(step.after), step.before - 0.5 * step.applied)
    close(np.array(step.terms.values.sum()), step.gradient)
    assert len(step.terms) == sum(int(np.prod(sum(axes.values(), ()))) for axes in step.calls)
    assert step.trained


def test_a_weight_that_the_optimizer_does_not_train_stays() -> None:
    net, chosen = network("dense")
    y, tape = net.forward(RNG.normal(size=(4, 1, 6, 6)))
    gradients = tape.backward(np.ones_like(y))
    bias = [p for p in net.parameters() if p.name != chosen]
    part = part_of(net.parameters(), tape.trace(np.ones_like(y)), gradients)
    step = take((1, 1, 1), net.parameters(), [part], gradients, gradients, sg.SGD(bias, lr=1))
    assert (step.weight, step.trained, step.after) == (chosen, False, step.before)
