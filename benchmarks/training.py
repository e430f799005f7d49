"""One training step of sharedgrad: forward, cross-entropy, backward, plain SGD; line by line, and in one call."""

from __future__ import annotations

from functools import partial

import sharedgrad as sg
from benchmarks import nets
from benchmarks.timing import Call

# so small that thousands of steps on the same batch hardly move the weights: every step does the same arithmetic
RATE = 1e-5


def training_step(name: str, batch: int) -> Call:
    """A call that makes one step of the net on its data."""
    net, (x, labels) = nets.build(name), nets.data(name, batch)
    loss, optimizer = sg.CrossEntropy(), sg.SGD(net.parameters(), lr=RATE)

    def step() -> None:
        y, tape = net.forward(x)
        _, upstream = loss(y, labels)
        optimizer.step(tape.backward(upstream))

    return step


def step_in_one_call(name: str, batch: int) -> Call:
    """A call of the same step, compiled as a whole."""
    net, (x, labels) = nets.build(name), nets.data(name, batch)
    return partial(sg.compile_step(net, sg.CrossEntropy(), sg.SGD(net.parameters(), lr=RATE)), x, labels)
