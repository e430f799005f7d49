"""What changes while a network is trained: all that a checkpoint has to hold."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sharedgrad.errors import DivergedError
from sharedgrad.network import Network
from sharedgrad.optimizers import Optimizer
from sharedgrad.training.history import History
from sharedgrad.training.metrics import Metrics


@dataclass
class State:
    """How far training has come; callbacks read it.

    Attributes:
        network: The network, with its current weights.
        optimizer: The optimizer, with its current state.
        epochs: Number of epochs of the whole run.
        batches: Number of batches of one epoch.
        epoch: Epochs done.
        batch: Batches done since.
        metrics: Sums over these batches.
        seconds: Time spent on them.
        learning_rate: Rate of the last step; of groups (``Combined``) the factor on theirs, see ``optimizer.rates``.
        history: The epochs done.
        stopped: Whether training ends before all epochs are done.
    """

    network: Network
    optimizer: Optimizer
    epochs: int
    batches: int
    epoch: int = 0
    batch: int = 0
    metrics: Metrics = field(default_factory=Metrics)
    seconds: float = 0.0
    learning_rate: float = 0.0
    history: History = field(default_factory=History)
    stopped: bool = False

    def stop(self) -> None:
        """End training after this batch; called by a callback. A checkpoint keeps the place, and can go on from it."""
        self.stopped = True

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.epoch * self.batches + self.batch

    @property
    def finished(self) -> bool:
        """Whether training is over: all epochs are done, or it was stopped."""
        return self.stopped or self.epoch == self.epochs

    @property
    def loss(self) -> float:
        """Mean training loss since the epoch began; NaN before its first batch."""
        return self.metrics.loss

    @property
    def accuracy(self) -> float | None:
        """Training accuracy since the epoch began; None where the targets are no classes."""
        return self.metrics.accuracy

    @property
    def images_per_second(self) -> float:
        """Training speed since the epoch began."""
        return self.metrics.samples / self.seconds if self.seconds else 0.0

    def ensure_finite(self) -> None:
        """Raise DivergedError if a weight or a running statistic is NaN or infinite."""
        for name, array in self.network.state_dict().items():
            if not np.isfinite(array).all():
                raise self.diverged(f"{name} has become NaN or infinite")

    def diverged(self, what: str) -> DivergedError:
        """The error for a run that has run away: where, and what to do."""
        return DivergedError(
            f"epoch {self.epoch + 1}, batch {min(self.batch + 1, self.batches)} of {self.batches}",
            f"{what} at learning rate {' and '.join(f'{rate:g}' for rate in self.optimizer.rates)}",
            "take a smaller learning rate or clip the gradients (max_norm)",
        )
