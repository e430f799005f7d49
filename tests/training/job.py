"""A small training run with everything that a resumed one could get wrong; as a script, one that is killed.

    python job.py FOLDER SIGNAL FUNCTION CALL

runs it with a checkpoint after every batch and sends itself the signal at call number CALL of a
function.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import numpy as np

from sharedgrad import SGD, BatchNorm2d, Conv2d, Dropout, Flatten, Linear, MaxPool2d, Network, ReLU
from sharedgrad.data import Augmentation, Normalization
from sharedgrad.parameter import Parameter
from sharedgrad.stepping import CompiledStep
from sharedgrad.training import checkpoint, loop
from sharedgrad.training.history import History

EPOCHS, BATCH_SIZE, BATCHES = 3, 8, 5
RNG = np.random.default_rng(0)
TRAIN = (RNG.integers(0, 256, (37, 2, 6, 6), np.uint8), RNG.integers(0, 3, 37))
VALIDATION = (RNG.integers(0, 256, (11, 2, 6, 6), np.uint8), RNG.integers(0, 3, 11))


def network(seed: int = 0) -> Network:
    conv = Conv2d(2, 4, 3, padding=1)
    layers = [conv, BatchNorm2d(4), ReLU(), MaxPool2d(2), Dropout(0.3), Flatten(), Linear(36, 3)]
    return Network(layers, (2, 6, 6), seed=seed)


def sgd(net: Network) -> SGD:
    return SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3)


def fit(net: Network, **arguments: Any) -> History:
    """The run; arguments replace or add to its own."""
    own: dict[str, Any] = {
        "epochs": EPOCHS,
        "batch_size": BATCH_SIZE,
        "optimizer": sgd(net),
        "schedule": "one-cycle",
        "augment": Augmentation(flip=True, crop=2),
        "normalize": Normalization.of(TRAIN[0]),
        "max_norm": 1.0,
        "seed": 7,
    }
    return loop.fit(net, TRAIN, VALIDATION, **{**own, **arguments})


FUNCTIONS = {
    "fsync": (os, "fsync"),
    "replace": (os, "replace"),
    "change": (Parameter, "replace"),
    "step": (CompiledStep, "__call__"),
    "measure": (loop, "measure"),
    "close": (loop, "Metrics"),  # where an epoch becomes a row of the history
    "csv": (History, "write"),
}


def signal_at(number: int, function: str, call: int) -> None:
    """Have this process send itself a signal just before a call of a function."""
    owner, name = FUNCTIONS[function]
    original, calls = getattr(owner, name), [0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    setattr(owner, name, counted)


if __name__ == "__main__":
    folder, number, function, call = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits an ignored one
    checkpoint.SECONDS = 0.0
    signal_at(int(number), function, int(call))
    fit(network(), out=folder, resume=True)
