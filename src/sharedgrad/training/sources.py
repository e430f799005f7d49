"""Where batches come from: arrays or tensors, several inputs by name, or any iterable of batches of one's own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from sharedgrad.data import batches
from sharedgrad.data.batching import Augment, Normalize
from sharedgrad.data.capacity import first_not_finite
from sharedgrad.errors import ConfigError, DataError
from sharedgrad.network import Network
from sharedgrad.parameter import Array
from sharedgrad.randomness import generator

Inputs = Array | dict[str, Array]
Batch = tuple[Inputs, Array]
_CHUNK = 4096  # samples hashed at a time


class Arrays:
    """Images (N, …) or name -> array for several inputs, and labels (N, …).

    Raises:
        DataError: Numbers are NaN or infinite.
    """

    def __init__(self, name: str, x: Any, y: Any, network: Network) -> None:
        if isinstance(x, tuple) and len(network.inputs) > 1:
            x = dict(zip(network.inputs, x, strict=False))
        self.x = {key: array(value) for key, value in x.items()} if isinstance(x, Mapping) else array(x)
        self.y = array(y)
        _check_there(name, self.y, "leave out parts without samples")
        if isinstance(self.x, dict):
            _check_names(name, self.x, self.y, network)
        for part, values in (*_named(self.x), ("labels", self.y)):
            _check_finite(name, part, values)

    def count(self, size: int) -> int:
        """Number of batches of an epoch."""
        return -(-len(self.y) // size)

    def batches(
        self,
        size: int,
        seed: int,
        epoch: int,
        augment: Augment | None,
        normalize: Normalize | None,
        start: int,
        shuffle: bool = True,
    ) -> Iterator[Batch]:
        """The batches of an epoch, as :func:`sharedgrad.data.batches` makes them."""
        if not isinstance(self.x, dict):
            return batches(
                self.x,
                self.y,
                size,
                seed=seed,
                epoch=epoch,
                augment=augment,
                normalize=normalize,
                start=start,
                shuffle=shuffle,
            )
        if augment or normalize:
            raise ConfigError("fit", "several inputs cannot be augmented or normalized", "change the arrays before")
        inputs, order = self.x, np.arange(len(self.y))
        chosen = batches(order, self.y, size, seed=seed, epoch=epoch, start=start, shuffle=shuffle)
        return (({name: values[places] for name, values in inputs.items()}, target) for places, target in chosen)

    def digest(self) -> str:
        """A fingerprint of all numbers."""
        digest = hashlib.blake2b(digest_size=16)
        for _, values in (*_named(self.x), ("labels", self.y)):
            digest.update(repr((values.dtype.str, values.shape)).encode())
            for start in range(0, len(values), _CHUNK):
                digest.update(values[start : start + _CHUNK].tobytes())
        return digest.hexdigest()


class Batches:
    """An iterable of batches (x, y) that can be gone through once an epoch, e.g. a list or a PyTorch DataLoader.

    Its order is its own: a resumed run passes over as many batches as it has learnt from.

    Raises:
        ConfigError: It can be gone through only once, or its length is not known.
    """

    def __init__(self, name: str, source: Any) -> None:
        once = not hasattr(source, "__len__") or isinstance(source, str) or hasattr(source, "__next__")
        if once or not hasattr(source, "__iter__"):
            problem = f"expected a pair (images, labels) or batches with a length, got {type(source).__name__}"
            samples = hasattr(source, "__getitem__") and hasattr(source, "__len__") and not isinstance(source, str)
            fix = "give arrays, a list of batches, or an object with __iter__ and __len__"
            raise ConfigError(name, problem, "put the data set into a DataLoader" if samples else fix)
        if not len(source):
            raise DataError(name, "there are no batches", "give at least one")
        self._name, self._source, self._length = name, source, len(source)

    def count(self, size: int) -> int:
        """Number of batches of an epoch."""
        return self._length

    def batches(
        self,
        size: int,
        seed: int,
        epoch: int,
        augment: Augment | None,
        normalize: Normalize | None,
        start: int,
        shuffle: bool = True,
    ) -> Iterator[Batch]:
        """The batches as they come, changed as images are."""
        number = -1
        for number, batch in enumerate(self._source):
            if number < start:
                continue
            if not isinstance(batch, tuple | list) or len(batch) != 2:
                raise DataError(self._name, f"expected batches (x, y), got {type(batch).__name__}")
            given, target = batch
            _check_there(f"{self._name}: batch {number}", target, "leave out batches without samples")
            if isinstance(given, Mapping):
                yield {key: array(value) for key, value in given.items()}, array(target)
                continue
            x = array(given)
            if augment is not None:
                x = augment(x, generator(seed, "augment", epoch, number))
            yield (x if normalize is None else normalize(x)), array(target)
        if number + 1 != self._length:
            problem = f"has a length of {self._length}, but gave {number + 1} batches"
            raise DataError(self._name, problem, "let __iter__ begin anew each time")

    def digest(self) -> str:
        """What is known of them without going through them."""
        return f"{type(self._source).__name__} of {self._length} batches"


def source(name: str, value: Any, network: Network) -> Arrays | Batches:
    """Whatever :func:`sharedgrad.fit` was given.

    Raises:
        ConfigError, DataError: It is neither a pair of arrays nor batches.
    """
    pair = isinstance(value, tuple | list) and len(value) == 2
    if pair and not all(isinstance(batch, tuple | list) for batch in value):
        x, y = value
        return Arrays(name, x, y, network)
    if isinstance(value, np.ndarray) or hasattr(value, "detach"):
        problem = f"expected a pair (images, labels), got {type(value).__name__}"
        raise ConfigError(name, problem, "put both into one argument: (x, y)")
    return Batches(name, value)


def array(value: Any) -> Any:
    """A PyTorch tensor as the NumPy array that shares its numbers; anything else as it is."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def passed(inputs: Inputs, network: Network) -> list[Array]:
    """The inputs in the order in which the network takes them."""
    return [inputs[name] for name in network.inputs] if isinstance(inputs, dict) else [inputs]


def _named(x: Inputs) -> list[tuple[str, Array]]:
    return list(x.items()) if isinstance(x, dict) else [("images", x)]


def _check_names(name: str, x: dict[str, Array], y: Array, network: Network) -> None:
    if x.keys() != network.inputs.keys():
        raise ConfigError(name, f"expected inputs {', '.join(network.inputs)}, got {', '.join(x)}")
    lengths = {key: len(values) for key, values in x.items()}
    if set(lengths.values()) != {len(y)}:
        got = ", ".join(f"{count} of {key}" for key, count in lengths.items())
        raise DataError(name, f"expected {len(y)} samples, one for each label, got {got}")


def _check_there(where: str, labels: Any, fix: str) -> None:
    if np.shape(array(labels))[:1] == (0,):
        raise DataError(where, "expected at least one sample, got none", fix)


def _check_finite(name: str, part: str, values: object) -> None:
    """NaN in the data is told before it looks like a diverged run."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "f" and values.ndim:
        wrong = first_not_finite(values)
        if wrong is not None:
            problem = f"{part} hold NaN or infinite numbers (first in sample {wrong})"
            raise DataError(name, problem, "remove or mend them")
