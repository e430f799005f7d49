"""The gradient of a classifier over a whole data set, taken apart batch by batch: memory holds one batch's uses.

Twice through the data: first for the gradient G, then for the share ⟨g_u, G⟩ / ‖G‖² of every use in it. The network
runs in evaluation mode, in which no sample depends on another, so that the gradient is the plain sum over the batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from sharedgrad.errors import ConfigError, DataError
from sharedgrad.losses import CrossEntropy
from sharedgrad.network import Network
from sharedgrad.parameter import Array
from sharedgrad.tape import Tape
from sharedgrad.tracing.tally import Tally
from sharedgrad.uses import SharedWeight, Window

Normalize = Callable[[Array], Array]
Progress = Callable[[int, int], None]
FILTERS = 6  # filters of a weight that are looked at: those with the largest gradients


@dataclass(frozen=True, eq=False)
class Seen:
    """What the network made of every sample.

    Attributes:
        scores: The outputs (N, classes).
        labels: The true classes (N,).
    """

    scores: Array
    labels: Array

    @property
    def predicted(self) -> Array:
        """The class of the largest score (N,)."""
        return np.argmax(self.scores, axis=1)

    @property
    def log_p(self) -> Array:
        """Logarithms of the probabilities (N, classes)."""
        shifted = self.scores.astype(np.float64)
        shifted -= shifted.max(axis=1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

    @property
    def losses(self) -> Array:
        """The cross-entropy of every sample (N,)."""
        return -self.log_p[np.arange(len(self.labels)), self.labels]

    @property
    def accuracy(self) -> float:
        """The share of samples whose class was predicted."""
        return float((self.predicted == self.labels).mean())


@dataclass(frozen=True, eq=False)
class Survey:
    """The gradient of the mean cross-entropy over a data set, taken apart.

    Attributes:
        seen: What the network made of every sample.
        weights: Name -> what its uses came to.
        filters: Name -> index on its first axis -> the same of that filter alone, for the filters with the largest
            gradients of kernels that slide.
        shares: The share of every sample in the gradient of all weights together (N,); NaN where it is undefined.
        adapting: Kinds of layers that do something else in training mode, e.g. "Dropout".
    """

    seen: Seen
    weights: dict[str, Tally]
    filters: dict[str, dict[int, Tally]]
    shares: Array
    adapting: tuple[str, ...]


def survey(
    network: Network,
    images: Array,
    labels: Array,
    normalize: Normalize,
    params: Sequence[str] = (),
    batch_size: int = 64,
    progress: Progress = lambda done, total: None,
) -> Survey:
    """Take the gradient over these samples apart.

    Args:
        network: A classifier with one input and one output.
        images: Samples as they lie in the data set (N, …).
        labels: Their classes (N,).
        normalize: Applied to the images of a batch.
        params: Names of the weights to look at; all of them, if none is given.
        batch_size: Samples at a time; bounds the memory, changes the result by rounding alone.
        progress: Called with the number of samples done and of all; every sample counts twice.

    Raises:
        ConfigError: There is no such weight.
        DataError: The loss is not a finite number.
    """
    chosen = _chosen(network, params)
    total, scores = 2 * len(labels), []
    gradients = {name: np.zeros(network.parameter(name).base.shape) for name in chosen}
    for start, y, tape, upstream in _passes(network, images, labels, normalize, batch_size):
        found = tape.backward(upstream)
        for name in chosen:
            if network.parameter(name).base in found:
                gradients[name] += found[name]
        scores.append(y)
        progress(min(start + batch_size, len(labels)), total)
    seen = Seen(np.concatenate(scores), labels)
    if not np.isfinite(seen.losses).all():
        raise DataError("trace", "the loss is not a finite number", "train again with a smaller learning rate")
    weights = {name: Tally(name, gradient, network.dtype) for name, gradient in gradients.items()}
    filters: dict[str, dict[int, Tally]] = {name: {} for name in chosen}
    for start, _, tape, upstream in _passes(network, images, labels, normalize, batch_size):
        trace = tape.trace(upstream)
        for name, tally in weights.items():
            if name not in trace.weights:
                continue
            weight = trace.weights[name]
            tally.add(weight, start)
            if start == 0:
                filters[name] = _filters(tally, weight, network.dtype)
            for index, part in filters[name].items():
                part.add(weight.filter(index), start)
        progress(len(labels) + min(start + batch_size, len(labels)), total)
    return Survey(seen, weights, filters, _together(weights.values(), len(labels)), _adapting(network))


def _passes(
    network: Network, images: Array, labels: Array, normalize: Normalize, size: int
) -> Iterator[tuple[int, Array, Tape, Array]]:
    """For every batch: where it starts, the scores, the tape, and the upstream gradient of the sum of the losses."""
    loss = CrossEntropy(reduction="sum")
    for start in range(0, len(labels), size):
        y, tape = network.forward(normalize(images[start : start + size]), training=False)
        yield start, y, tape, loss(y, labels[start : start + size])[1]


def _chosen(network: Network, params: Sequence[str]) -> list[str]:
    """First names of the weights to look at, in forward order."""
    known = [p.name for p in network.parameters()]
    if not known:
        raise ConfigError("trace", "the network has no weights")
    aliases = {alias: name for alias, (name, _) in network.shared().items()}
    for name in params:
        if name not in known and name not in aliases:
            guess = get_close_matches(name, known, 1)
            fix = f"did you mean {guess[0]}?" if guess else f"choose from {', '.join(known)}"
            raise ConfigError(f"--param {name}", "there is no such parameter", fix)
    wanted = {aliases.get(name, name) for name in params}
    return [name for name in known if not wanted or name in wanted]


def _filters(tally: Tally, weight: SharedWeight, dtype: np.dtype[np.floating]) -> dict[int, Tally]:
    """The filters with the largest gradients, of a kernel that slides and has several."""
    gradient = tally.gradient
    if not isinstance(weight.calls[0], Window) or len(gradient) < 2:
        return {}
    norms = np.linalg.norm(gradient.reshape(len(gradient), -1), axis=1)
    largest = np.argsort(-norms, kind="stable")[:FILTERS]
    return {int(i): Tally(f"{tally.name}[{i}]", gradient[i], dtype, keep=1) for i in sorted(largest)}


def _together(weights: Iterable[Tally], samples: int) -> Array:
    """Shares in the gradient of all weights together: those of each weight, weighted by its ‖G‖²."""
    defined = [w for w in weights if not w.zero_up_to_rounding and len(w.shares) == samples]
    square = sum(w.square for w in defined)
    if not square:
        return np.full(samples, np.nan)
    return np.asarray(sum(w.shares * (w.square / square) for w in defined))


def _adapting(network: Network) -> tuple[str, ...]:
    kinds = [type(node.layer).__name__ for node in network]
    return tuple(dict.fromkeys(kind for kind in kinds if kind.startswith(("BatchNorm", "Dropout"))))
