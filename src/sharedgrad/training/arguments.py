"""What stays the same throughout a training run, and its fingerprint."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from sharedgrad.arrays import positive
from sharedgrad.data.batching import Augment, Normalize
from sharedgrad.errors import ConfigError, kind
from sharedgrad.geometry import whole
from sharedgrad.kernels import plain_sums
from sharedgrad.layers import Softmax
from sharedgrad.losses import CrossEntropy, Loss
from sharedgrad.network import Network
from sharedgrad.optimizers import SCHEDULES, Combined, Optimizer, Schedule
from sharedgrad.training.sources import Arrays, Batch, Batches

_EXAMPLE = "e.g. sg.Adam(net.parameters(), lr=0.001)"
_PLAIN = (str, int, float, tuple, list, np.generic, type(None))


@dataclass(frozen=True)
class Arguments:
    """The arguments of :func:`sharedgrad.fit`, checked.

    Raises:
        ConfigError: An argument makes no sense.
        DataError: Images and labels do not fit together.
    """

    network: Network
    train: Arrays | Batches
    validation: Arrays | Batches | None
    epochs: int
    batch_size: int
    loss: Loss
    optimizer: Optimizer
    schedule: str | Schedule
    augment: Augment | None
    normalize: Normalize | None
    max_norm: float | None
    seed: int
    keep: str
    patience: int | None
    accumulate: int

    def __post_init__(self) -> None:
        self._check_kinds()
        whole(self.epochs, "epochs")
        if isinstance(self.schedule, str) and self.schedule not in SCHEDULES:
            choices = ", ".join(SCHEDULES)
            raise ConfigError("schedule", f"there is no {self.schedule!r}", f"choose from {choices}")
        if self.max_norm is not None:
            positive(self.max_norm, "max_norm")
        if self.keep not in ("last", "best"):
            raise ConfigError("keep", f"expected last or best, got {self.keep!r}")
        if self.patience is not None:
            whole(self.patience, "patience")
        if self.validation is None and (self.keep == "best" or self.patience is not None):
            problem = "needs validation data to tell which epoch is the best"
            raise ConfigError(
                "keep" if self.keep == "best" else "patience", problem, "pass validation=(images, labels)"
            )
        _warn_of_two_softmaxes(self.network, self.loss)
        whole(self.accumulate, "accumulate")
        if len(self.network.outputs) != 1:
            raise ConfigError("fit", "expected a network with one output", "write the loop out")
        if not set(self.optimizer.parameters) & set(self.network.parameters()):
            problem = "it holds no parameter of this network"
            raise ConfigError("optimizer", problem, "make it with network.parameters()")
        for part in (self.train, self.validation):
            if isinstance(part, Arrays):
                part.batches(self.batch_size, self.seed, 0, None, None, 0)  # one label for each sample
        if isinstance(self.train, Arrays):
            next(self.batches(0))  # augmentation and normalization fit, or say so before anything is written

    def _check_kinds(self) -> None:
        """What each argument has to be, before anything is done with it."""
        if not isinstance(self.optimizer, Optimizer):
            raise ConfigError("optimizer", f"expected an Optimizer, got {kind(self.optimizer)}", _EXAMPLE)
        _check_callable("loss", self.loss, "e.g. sg.CrossEntropy()")
        if not isinstance(self.schedule, str):
            _check_callable("schedule", self.schedule)
        if self.augment is not None:
            _check_callable("augment", self.augment)
        if self.normalize is not None:
            _check_callable("normalize", self.normalize)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The training batches of an epoch (from 0), without the first ``start``."""
        return self.train.batches(self.batch_size, self.seed, epoch, self.augment, self.normalize, start)

    @property
    def batches_per_epoch(self) -> int:
        """How many there are."""
        return self.train.count(self.batch_size)

    def factor(self, step: int) -> float:
        """The schedule's factor on the learning rate at a step (from 0)."""
        schedule = SCHEDULES[self.schedule] if isinstance(self.schedule, str) else self.schedule
        return schedule(step / (self.epochs * self.batches_per_epoch))

    def settings(self) -> dict[str, Any]:
        """All that the result depends on, as plain data: a run can only be resumed with the same."""
        described = {
            "epochs": self.epochs,
            "batch size": self.batch_size,
            "seed": self.seed,
            "loss": _described(self.loss),
            "optimizer": _described(self.optimizer),
            "trained parameters": [parameter.name for parameter in self.optimizer.parameters],
            "schedule": _described(self.schedule),
            "augmentation": _described(self.augment),
            "normalization": _described(self.normalize),
            "max_norm": self.max_norm,
            "model": self.network.to_config(),
            "training data": self.train.digest(),
            "validation data": None if self.validation is None else self.validation.digest(),
            **({"accumulate": self.accumulate} if self.accumulate > 1 else {}),
            **({"exact": True} if plain_sums() else {}),
        }
        plain: dict[str, Any] = json.loads(json.dumps(described))
        return plain


def _warn_of_two_softmaxes(network: Network, loss: object) -> None:
    last = network[network.outputs[0]]
    if isinstance(loss, CrossEntropy) and isinstance(last, Softmax):
        advice = "leave the layer out, or training will be slow and poor"
        message = f"{last.label} stands before CrossEntropy, which makes a softmax of its own: {advice}"
        warnings.warn(message, UserWarning, stacklevel=6)


def _check_callable(name: str, value: object, fix: str = "") -> None:
    if isinstance(value, type) or not callable(value):
        raise ConfigError(name, f"expected a function or an object that can be called, got {kind(value)}", fix)


def _described(thing: object) -> str | None:
    """Class and numbers of a loss, an optimizer and the like; the name of a function."""
    if thing is None or isinstance(thing, str):
        return thing
    if isinstance(thing, Combined):
        parts = (f"{_described(part)} for {', '.join(p.name for p in part.parameters)}" for part in thing.optimizers)
        return "; ".join(parts)
    if hasattr(thing, "__qualname__"):
        return str(thing.__qualname__)
    plain = {k: v for k, v in getattr(thing, "__dict__", {}).items() if isinstance(v, _PLAIN) and k != "parameters"}
    return f"{type(thing).__name__}({', '.join(f'{k}={v!r}' for k, v in plain.items())})"
