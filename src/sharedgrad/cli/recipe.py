"""What ``sharedgrad train`` takes where the person says nothing; found by experiment on digits, MNIST and CIFAR-10."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from sharedgrad.data import Dataset, Part
from sharedgrad.optimizers import SGD, Adam, AdamW, Optimizer

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": partial(SGD, momentum=0.9, nesterov=True, weight_decay=1e-4),
    "adam": Adam,
    "adamw": AdamW,
}
LEARNING_RATES = {"sgd": 0.02, "adam": 0.003, "adamw": 0.003}
VAL_FRACTION = 0.2


def default_epochs(images: int) -> int:
    """So many that about 100,000 images are seen, from 3 to 30."""
    return min(max(round(100_000 / images), 3), 30)


class Parts(NamedTuple):
    """What to train on, what to watch after every epoch, and what the accuracy at the end is measured on."""

    train: Part
    watched: Part | None
    final: Part | None
    watched_name: str | None
    final_name: str | None


def divide(dataset: Dataset, val_fraction: float | None, seed: int) -> Parts:
    """The parts of a data set: its test part is watched, unless a fraction of the training part is to be.

    A fraction of 0 holds nothing out.
    """
    everything = Part(dataset.x, dataset.y)
    if dataset.x_test is None or dataset.y_test is None:
        if val_fraction == 0:
            return Parts(everything, None, None, None, None)
        train, held_out = dataset.split(VAL_FRACTION if val_fraction is None else val_fraction, seed)
        return Parts(train, held_out, held_out, "held-out", "held-out")
    test = Part(dataset.x_test, dataset.y_test)
    if not val_fraction:
        return Parts(everything, test, test, "test", "test")
    train, held_out = dataset.split(val_fraction, seed)
    return Parts(train, held_out, test, "held-out", "test")
