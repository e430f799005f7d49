"""What a network makes of data that it is not trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sharedgrad.data import batches
from sharedgrad.errors import ConfigError
from sharedgrad.losses import CrossEntropy
from sharedgrad.network import Network
from sharedgrad.parameter import Array
from sharedgrad.training.metrics import Metrics, true_classes

Loss = Callable[[Any, Any], tuple[float, Any]]


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


def measured(loss: Loss, y: Any, target: Any) -> tuple[float, Any]:
    """A loss's value as Python's own number, whatever kind of number it returned, and its upstream gradient.

    Raises:
        ConfigError: It returned something else.
    """
    found: Any = loss(y, target)
    if not isinstance(found, tuple) or len(found) != 2:
        problem = f"expected a pair (value, upstream), got {type(found).__name__}"
        raise ConfigError("loss", problem, "return the loss and its gradient with respect to y")
    value, upstream = found
    try:
        return float(value), upstream
    except (TypeError, ValueError):
        problem = f"expected a pair (value, upstream) that begins with a number, got {type(value).__name__}"
        raise ConfigError("loss", problem, "sum or average over the samples") from None


def evaluate(
    network: Network,
    images: Array,
    labels: Array,
    loss: Loss | None = None,
    normalize: Callable[[Array], Array] | None = None,
    batch_size: int = 256,
) -> Evaluation:
    """Loss, accuracy and predictions in evaluation mode; changes nothing.

    Args:
        network: A network with one input and one output.
        images: Samples along the first axis.
        labels: One class or target for each.
        loss: ``loss(y, target) -> (value, upstream)``; CrossEntropy() if None.
        normalize: Applied to the images of a batch.
        batch_size: Samples at a time; bounds the memory.

    Raises:
        DataError: There is not one label per image, or none at all.
        ShapeError: The images do not fit the network.
    """
    loss = loss or CrossEntropy()
    metrics, predictions = Metrics(), []
    for x, target in batches(images, labels, batch_size, shuffle=False, normalize=normalize):
        y = network.predict(x, batch_size=len(x))
        metrics.add(measured(loss, y, target)[0], y, target, loss)
        predictions.append(y if true_classes(y, target, loss) is None else np.argmax(y, axis=1))
    return Evaluation(metrics.loss, metrics.accuracy, np.concatenate(predictions))
