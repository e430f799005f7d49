"""What a network makes of data that it is not trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from sharedgrad.losses import CrossEntropy, Loss, measured
from sharedgrad.network import Network
from sharedgrad.parameter import Array
from sharedgrad.training.metrics import Metrics, true_classes
from sharedgrad.training.sources import Arrays, Batch, Inputs, passed


class Evaluation(NamedTuple):
    """The result of :func:`evaluate`.

    Attributes:
        loss: Mean loss.
        accuracy: Share of the labels that were predicted; None where the targets are no classes.
        predictions: The class of the largest score for each sample; the outputs themselves where the targets are
            no classes.
    """

    loss: float
    accuracy: float | None
    predictions: Array


def evaluate(
    network: Network,
    images: Inputs,
    labels: Array,
    loss: Loss | None = None,
    normalize: Callable[[Array], Array] | None = None,
    batch_size: int = 256,
) -> Evaluation:
    """Loss, accuracy and predictions in evaluation mode; changes nothing.

    Args:
        network: A network with one output.
        images: Samples along the first axis, NumPy arrays or PyTorch tensors; input name -> array for several inputs.
        labels: One class or target for each.
        loss: ``loss(y, target) -> (value, upstream)``; CrossEntropy() if None.
        normalize: Applied to the images of a batch.
        batch_size: Samples at a time; bounds the memory.

    Raises:
        DataError: There is not one label per image, or none at all.
        ShapeError: The images do not fit the network.
    """
    data = Arrays("evaluate", images, labels, network)
    return measure(network, data.batches(batch_size, 0, 0, None, normalize, 0, shuffle=False), loss or CrossEntropy())


def measure(network: Network, batches: Iterable[Batch], loss: Loss) -> Evaluation:
    """As :func:`evaluate`, of batches that are ready for the network."""
    metrics, predictions = Metrics(), []
    for x, target in batches:
        y = network.predict(*passed(x, network), batch_size=len(target))
        metrics.add(measured(loss, y, target)[0], y, target, loss)
        predictions.append(y if true_classes(y, target, loss) is None else np.argmax(y, axis=1))
    return Evaluation(metrics.loss, metrics.accuracy, np.concatenate(predictions))
