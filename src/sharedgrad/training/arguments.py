"""What stays the same throughout a training run, and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from sharedgrad.data import batches
from sharedgrad.data.capacity import first_not_finite
from sharedgrad.errors import ConfigError, DataError
from sharedgrad.geometry import whole
from sharedgrad.network import Network
from sharedgrad.optimizers import SCHEDULES, Optimizer, Schedule
from sharedgrad.parameter import Array
from sharedgrad.training.evaluate import Loss

Pair = tuple[Array, Array]
Augment = Callable[[Array, np.random.Generator], Array]
Normalize = Callable[[Array], Array]
_PLAIN = (str, int, float, tuple, list, np.generic, type(None))
_CHUNK = 4096  # samples hashed at a time


@dataclass(frozen=True)
class Arguments:
    """The arguments of :func:`sharedgrad.fit`, checked.

    Raises:
        ConfigError: An argument makes no sense.
        DataError: Images and labels do not fit together.
    """

    network: Network
    train: Pair
    validation: Pair | None
    epochs: int
    batch_size: int
    loss: Loss
    optimizer: Optimizer
    schedule: str | Schedule
    augment: Augment | None
    normalize: Normalize | None
    max_norm: float | None
    seed: int

    def __post_init__(self) -> None:
        self._check_kinds()
        whole(self.epochs, "epochs")
        if isinstance(self.schedule, str) and self.schedule not in SCHEDULES:
            choices = ", ".join(SCHEDULES)
            raise ConfigError("schedule", f"there is no {self.schedule!r}", f"choose from {choices}")
        if self.max_norm is not None:
            _check_positive("max_norm", self.max_norm)
        if len(self.network.inputs) != 1 or len(self.network.outputs) != 1:
            raise ConfigError("fit", "expected a network with one input and one output", "write the loop out")
        if not set(self.optimizer.parameters) & set(self.network.parameters()):
            problem = "it holds no parameter of this network"
            raise ConfigError("optimizer", problem, "make it with network.parameters()")
        _check_finite("train", self.train)
        if self.validation is not None:
            _check_finite("validation", self.validation)
        next(self.batches(0))  # augmentation and normalization fit the images, or say so before anything is written
        if self.validation is not None:
            batches(*self.validation, self.batch_size)

    def _check_kinds(self) -> None:
        """What each argument has to be, before anything is done with it."""
        _check_pair("train", self.train)
        if self.validation is not None:
            _check_pair("validation", self.validation)
        if not isinstance(self.optimizer, Optimizer):
            raise ConfigError("optimizer", f"expected an Optimizer, got {_kind(self.optimizer)}")
        _check_callable("loss", self.loss)
        if not isinstance(self.schedule, str):
            _check_callable("schedule", self.schedule)
        if self.augment is not None:
            _check_callable("augment", self.augment)
        if self.normalize is not None:
            _check_callable("normalize", self.normalize)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Pair]:
        """The training batches of an epoch (from 0), without the first ``start``."""
        return batches(
            *self.train,
            self.batch_size,
            seed=self.seed,
            epoch=epoch,
            augment=self.augment,
            normalize=self.normalize,
            start=start,
        )

    @property
    def batches_per_epoch(self) -> int:
        """How many there are."""
        return -(-len(self.train[0]) // self.batch_size)

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
            "training data": _digest(self.train),
            "validation data": None if self.validation is None else _digest(self.validation),
        }
        plain: dict[str, Any] = json.loads(json.dumps(described))
        return plain


def _check_pair(name: str, value: object) -> None:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ConfigError(name, f"expected a pair (images, labels), got {_kind(value)}")


def _check_finite(name: str, pair: Pair) -> None:
    """NaN in the data is told before it looks like a diverged run."""
    for part, array in zip(("images", "labels"), pair, strict=True):
        if isinstance(array, np.ndarray) and array.dtype.kind == "f" and array.ndim:
            wrong = first_not_finite(array)
            if wrong is not None:
                problem = f"{part} hold NaN or infinite numbers (first in sample {wrong})"
                raise DataError(name, problem, "remove or mend them")


def _check_positive(name: str, value: object) -> None:
    if not (isinstance(value, Real) and float(value) > 0):
        raise ConfigError(name, f"expected a positive number, got {value!r}")


def _check_callable(name: str, value: object) -> None:
    if isinstance(value, type) or not callable(value):
        raise ConfigError(name, f"expected a function or an object that can be called, got {_kind(value)}")


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def _described(thing: object) -> str | None:
    """Class and numbers of a loss, an optimizer and the like; the name of a function."""
    if thing is None or isinstance(thing, str):
        return thing
    if hasattr(thing, "__qualname__"):
        return str(thing.__qualname__)
    plain = {k: v for k, v in getattr(thing, "__dict__", {}).items() if isinstance(v, _PLAIN) and k != "parameters"}
    return f"{type(thing).__name__}({', '.join(f'{k}={v!r}' for k, v in plain.items())})"


def _digest(pair: Pair) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in pair:
        digest.update(repr((array.dtype.str, array.shape)).encode())
        for start in range(0, len(array), _CHUNK):
            digest.update(array[start : start + _CHUNK].tobytes())
    return digest.hexdigest()
