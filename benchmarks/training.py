"""One training step of sharedgrad: forward, cross-entropy, backward, plain SGD."""

from __future__ import annotations

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
