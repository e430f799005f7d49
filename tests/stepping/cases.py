"""What a step is tried on: networks, losses and optimizers, and the loop that it stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import sharedgrad as sg
from sharedgrad.optimizers import Optimizer
from tests.helpers import Array

_RNG = np.random.default_rng(0)
X, LABELS = _RNG.normal(size=(11, 2, 6, 6)), _RNG.integers(0, 3, 11)
SOFT = _RNG.dirichlet(np.ones(3), 11)
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


def large_dense() -> sg.Network:
    return sg.Network([sg.Linear(200, 100), sg.ReLU(), sg.Linear(100, 3)], (200,))


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


def net_of(loop: Any) -> sg.Network:
    return next(c.cell_contents for c in loop.__closure__ if isinstance(c.cell_contents, sg.Network))


def agree(step: Any, loop: Any, same: Any, target: Any, x: Any = X, batches: Any = BATCHES) -> None:
    for batch in batches:
        assert step(x[batch], target[batch]) == loop(x[batch], target[batch])
        same()


def unaligned(array: Array) -> Array:
    """The same numbers, a byte behind where their type belongs."""
    found = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    found[:] = array
    assert not found.flags.aligned
    return found
