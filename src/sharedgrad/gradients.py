"""Gradients, which are values that add."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

import numpy as np

from sharedgrad.arrays import Array, positive
from sharedgrad.errors import ConfigError, ShapeError
from sharedgrad.geometry import text
from sharedgrad.parameter import Parameter, Weight, first_names


class _Named(Protocol):
    def parameter(self, name: str) -> Weight: ...


class Gradients(Mapping[Parameter, Array]):
    """Parameter -> gradient of the loss. A value: it adds, scales and never goes stale.

    Look a gradient up by its Parameter, by a view of it or by a name that it has in the network. It has the
    Parameter's own shape, or (N, *shape) where ``tape.backward`` was asked to keep it apart by sample.

    Args:
        arrays: The gradients.
        inputs: Gradient of the loss with respect to each network input, where it was asked for.
        names: What the names in a network stand for; without them the parameters' own names hold.

    Attributes:
        inputs: As above.
    """

    def __init__(
        self,
        arrays: Mapping[Parameter, Array],
        inputs: Mapping[str, Array] | None = None,
        names: Mapping[str, Weight] | None = None,
    ) -> None:
        self._arrays, self._names = dict(arrays), names or {}
        self.inputs: dict[str, Array] = dict(inputs or {})

    def __getitem__(self, key: Weight | str) -> Array:
        parameter = self._named(key) if isinstance(key, str) else key
        parameter = parameter.base if isinstance(parameter, Weight) else parameter
        if parameter not in self._arrays:
            what = f"named {key!r}" if isinstance(key, str) else f"of {getattr(key, 'name', repr(key))}"
            raise KeyError(f"no gradient {what}; there are {', '.join(p.name for p in self._arrays)}")
        return self._arrays[parameter]

    def _named(self, name: str) -> Weight | None:
        if name in self._names:
            return self._names[name]
        called = [p for p in self._arrays if p.name == name]
        if len(called) > 1:
            raise KeyError(f"{len(called)} parameters are called {name!r}; look them up by the parameters themselves")
        return called[0] if called else None

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __eq__(self, other: object) -> bool:
        """Identity, as for arrays of arrays there is no one meaning of equal."""
        return self is other

    __hash__ = object.__hash__

    def __add__(self, other: Gradients) -> Gradients:
        """The gradient of the sum of two losses; a parameter in only one of them keeps its gradient.

        Raises:
            ShapeError: One of them keeps a gradient apart by sample, the other does not.
        """
        if not isinstance(other, Gradients):
            return NotImplemented
        both = {**other._names, **self._names}
        names = {n: w for n, w in both.items() if other._names.get(n, w).base is self._names.get(n, w).base}
        return Gradients(_add(self._arrays, other._arrays), _add(self.inputs, other.inputs), names)

    def __mul__(self, factor: float) -> Gradients:
        return Gradients(
            {p: a * a.dtype.type(factor) for p, a in self._arrays.items()},
            {n: a * a.dtype.type(factor) for n, a in self.inputs.items()},
            self._names,
        )

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Gradients:
        return self * (1 / divisor)

    def __neg__(self) -> Gradients:
        return self * -1.0

    def to(self, network: _Named) -> Gradients:
        """The same for a network whose parameters have the same names, e.g. in the process that has the original.

        Raises:
            ConfigError: The network has no parameter of a name.
            ShapeError: Its shape differs there.
        """
        first = {p: p.name for p in self._arrays} | first_names(self._names)
        found = {p: network.parameter(first[p]).base for p in self._arrays}
        for parameter, own in found.items():
            if own.shape != parameter.shape:
                raise ShapeError(first[parameter], f"expected shape {parameter.shape}, the network has {own.shape}")
        names = {name: found[w.base].seen(w.view) for name, w in self._names.items() if w.base in found}
        return Gradients({found[p]: array for p, array in self._arrays.items()}, self.inputs, names)

    def pairs(self, parameters: Iterable[Parameter]) -> list[tuple[Parameter, Array]]:
        """Those of the parameters that have a gradient, each with it."""
        return [(p, self._arrays[p]) for p in parameters if p in self._arrays]

    def norm(self) -> float:
        """The Euclidean norm of all parameter gradients taken together (accumulated in float64).

        Raises:
            ConfigError: A gradient is kept apart by sample.
        """
        for parameter, array in self._arrays.items():
            if array.shape != parameter.shape:
                fix = "sum it over its first axis; tape.clipped_by_sample(upstream, max_norm) gives the samples' norms"
                raise ConfigError("norm", f"the gradient of {parameter.name} is kept apart by sample", fix)
        return float(np.sqrt(sum(float(np.sum(np.square(a, dtype=np.float64))) for a in self._arrays.values())))

    def clipped(self, max_norm: float) -> Gradients:
        """Scaled down to ``max_norm`` if the norm is larger (Pascanu et al. 2013, arXiv:1211.5063).

        If the norm is NaN, all becomes NaN, as in PyTorch: it is not to be overlooked.
        """
        max_norm, norm = positive(max_norm, "max_norm"), self.norm()
        return self if norm <= max_norm else self * (max_norm / norm)

    def __repr__(self) -> str:
        return "Gradients(" + ", ".join(f"{p.name}: {text(p.shape)}" for p in self._arrays) + ")"


K = TypeVar("K")


def _add(a: Mapping[K, Array], b: Mapping[K, Array]) -> dict[K, Array]:
    total = dict(a)
    for key, array in b.items():
        if key in total and total[key].shape != array.shape:
            got = f"{text(total[key].shape)} and {text(array.shape)}"
            raise ShapeError(getattr(key, "name", str(key)), f"expected gradients of one shape to add, got {got}")
        total[key] = total[key] + array if key in total else array
    return total
