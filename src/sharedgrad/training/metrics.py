"""Loss and accuracy, summed over batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sharedgrad.parameter import Array


@dataclass
class Metrics:
    """Sums over the batches so far, in Python's own numbers: a checkpoint brings them back bit by bit.

    Attributes:
        samples: Samples seen.
        loss_sum: Σ (loss of a batch × its samples).
        labels: Class labels compared; 0 where the targets are no classes.
        correct: How many of them were predicted.
    """

    samples: int = 0
    loss_sum: float = 0.0
    labels: int = 0
    correct: int = 0

    def add(self, value: float, y: Array, target: Array) -> None:
        """Count one batch in: its loss, the network's output and the targets."""
        self.samples += len(target)
        self.loss_sum += value * len(target)
        if are_classes(y, target):
            self.labels += target.size
            self.correct += int(np.count_nonzero(np.argmax(y, axis=1) == target))

    @property
    def loss(self) -> float:
        """Mean loss of the samples seen; NaN before the first."""
        return self.loss_sum / self.samples if self.samples else float("nan")

    @property
    def accuracy(self) -> float | None:
        """Share of the labels that were predicted; None where the targets are no classes."""
        return self.correct / self.labels if self.labels else None


def are_classes(y: Array, target: Array) -> bool:
    """Whether the targets are class numbers for the scores y (N, C, *positions)."""
    return y.ndim >= 2 and target.dtype.kind in "iu" and target.shape == (len(y), *y.shape[2:])
