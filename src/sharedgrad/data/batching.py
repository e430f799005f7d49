"""Cut a training part into shuffled batches that a resumed run can take up in the middle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharedgrad.errors import DataError
from sharedgrad.geometry import text, whole
from sharedgrad.randomness import generator

Augment = Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]
Normalize = Callable[[NDArray[Any]], NDArray[Any]]


def batches(
    images: NDArray[Any],
    labels: NDArray[Any],
    size: int,
    *,
    seed: int = 0,
    epoch: int = 0,
    shuffle: bool = True,
    augment: Augment | None = None,
    normalize: Normalize | None = None,
    start: int = 0,
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """The batches of one epoch, each a new pair of arrays (x, y).

    Order and augmentation depend on seed, epoch and batch number alone. So an epoch taken up at batch
    ``start`` yields the very batches that were still to come.

    Args:
        images: Any array with samples along its first axis; (N, C, H, W) where they are augmented.
        labels: One label or target per sample, along the first axis.
        size: Samples per batch, 1 or more; the last batch holds what is left.
        seed: The seed of the run.
        epoch: The number of the epoch, from 0 up; each has its own order.
        shuffle: Whether to draw a random order; else the order of ``images``.
        augment: Changes the images of a batch, e.g. an ``Augmentation``; before ``normalize``.
        normalize: Applied to the images of a batch, e.g. a ``Normalization``.
        start: How many batches to leave out at the beginning.

    Raises:
        ConfigError: ``size``, ``seed``, ``epoch`` or ``start`` is not a whole number in its range.
        DataError: Not arrays, no samples, or not one label per image.
    """
    # Checked here and not in the generator, which would only run at the first iteration.
    _check_arrays(images, labels)
    size = whole(size, "size")
    seed, epoch, start = whole(seed, "seed", 0), whole(epoch, "epoch", 0), whole(start, "start", 0)

    def generate() -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        count = len(images)
        order = generator(seed, "order", epoch).permutation(count) if shuffle else np.arange(count)
        for batch in range(start, -(-count // size)):
            chosen = order[batch * size : (batch + 1) * size]
            x = images[chosen]
            if augment is not None:
                x = augment(x, generator(seed, "augment", epoch, batch))
            if normalize is not None:
                x = normalize(x)
            yield x, labels[chosen]

    return generate()


def _check_arrays(images: Any, labels: Any) -> None:
    for name, array in (("images", images), ("labels", labels)):
        if not isinstance(array, np.ndarray) or not array.ndim:
            got = "a single number" if isinstance(array, np.ndarray) else type(array).__name__
            raise DataError(name, f"expected a NumPy array of samples, got {got}", "convert with np.asarray")
    if len(images) != len(labels):
        raise DataError("batches", f"{len(images)} images, but {len(labels)} labels", "give one label per image")
    if not len(images):
        problem = f"expected at least one sample, got images of {text(images.shape)}"
        raise DataError("batches", problem, "leave out parts without samples")
