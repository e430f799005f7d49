"""Loss and accuracy, summed over batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sharedgrad.losses import CrossEntropy
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

    def add(self, value: float, y: Array, target: Array, loss: object = None) -> None:
        """Count one batch in: its loss, the network's output, the targets and what compared them."""
        self.samples += len(target)
        self.loss_sum += value * len(target)
        classes = true_classes(y, target, loss)
        if classes is not None:
            self.labels += classes.size
            self.correct += int(np.count_nonzero(np.argmax(y, axis=1) == classes))

    @property
    def loss(self) -> float:
        """Mean loss of the samples seen; NaN before the first."""
        return self.loss_sum / self.samples if self.samples else float("nan")

    @property
    def accuracy(self) -> float | None:
        """Share of the labels that were predicted; None where the targets are no classes."""
        return self.correct / self.labels if self.labels else None


def true_classes(y: Array, target: Array, loss: object = None) -> Array | None:
    """The class numbers (N, *positions) for the scores y (N, C, *positions); None where the targets are no classes.

    Of soft targets, which CrossEntropy takes, the likeliest.
    """
    if y.ndim < 2:
        return None
    if target.dtype.kind in "iu" and target.shape == (len(y), *y.shape[2:]):
        return target
    if isinstance(loss, CrossEntropy) and target.shape == y.shape:
        likeliest: Array = np.argmax(target, axis=1)
        return likeliest
    return None
