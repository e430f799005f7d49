"""What all kinds of uses have in common: the weight, how the call sees it, and the axes that tell the uses apart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from math import prod
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from sharedgrad.errors import ConfigError, ShapeError
from sharedgrad.geometry import text
from sharedgrad.parameter import Array
from sharedgrad.uses.arrays import Index, as_tensor, copied, given, held, is_tensor, matching, moved, spread
from sharedgrad.uses.terms import Factor, Terms
from sharedgrad.view import View

Axes = Mapping[str, tuple[int, ...]]
By = str | Sequence[str]


class WeightLike(Protocol):
    """What uses are of: a ``Parameter``, or anything else with these attributes."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def shape(self) -> Any:
        """Its own shape."""

    @property
    def dtype(self) -> Any:
        """Its type."""

    @property
    def value(self) -> Any:
        """The array."""


class Uses(ABC):
    """All uses of one weight in one call of one layer.

    They hold the factors of the contributions, not the contributions; what they hand out about the weight (sums,
    contributions, elements) is in the weight's own shape, whatever the call sees of it.

    Attributes:
        weight: The shared weight.
        view: What this call sees of the weight: all of it as it is, or transposed, sliced, reshaped, cast.
        node: The node of the network that the call is of; the tape sets it.
        axes: What tells the uses apart, in order: name -> shape, e.g. ``{"sample": (64,), "position": (28, 28)}``.
    """

    arrays: ClassVar[tuple[str, ...]]  # the attributes that hold factors (*U, …), what carries the scale first

    def __init__(self, weight: Any, axes: Axes, view: View | None = None) -> None:
        seen = getattr(weight, "view", None) if view is None else view
        self.weight: WeightLike = getattr(weight, "base", weight) if view is None else weight
        self.view = View() if seen is None else seen
        self.axes = dict(axes)
        self.node = ""
        self.like: Any = None  # a tensor, where tensors came in: results are tensors then

    def _hold(self, array: Any, rank: int, lead: Index | None = None) -> Array:
        """A factor as the algebra holds it, checked: its number of axes, and that the use axes come first."""
        if is_tensor(array):
            self.like = array
        lead = self.shape if lead is None else lead
        if tuple(array.shape[: len(lead)]) != lead or array.ndim != rank:
            expected = f"factors of {rank} axes, the first of them {text(lead)}"
            raise ShapeError(self._name, f"expected {expected}, got {text(array.shape)}")
        return held(array)

    def _give(self, array: Any) -> Any:
        """A result as whoever asks expects it."""
        return given(array, self.like)

    @property
    def shape(self) -> Index:
        """The lengths of all use axes, one after the other."""
        return tuple(n for lengths in self.axes.values() for n in lengths)

    @property
    def count(self) -> int:
        """The number of uses."""
        return prod(self.shape)

    @property
    def seen(self) -> Index:
        """The shape of what the call sees of the weight."""
        return self.view.shape(tuple(self.weight.shape))

    @property
    def gradient(self) -> Array:
        """The sum of all contributions, in the weight's shape."""
        return self.sum()

    def sum(self, by: By = ()) -> Array:
        """Partial sums: one for each index of the axes in ``by``, over all other axes.

        Args:
            by: The axes to keep apart. ``()`` is the gradient, all axes are the single contributions.

        Returns:
            Array of shape (lengths of the axes in ``by``, in the order of ``axes``, then the weight's shape).
        """
        names = self.ordered(by)
        return self._give(copied(self.own(self.totals(names), len(self.axis_numbers(names)))))

    def own(self, array: Any, lead: int) -> Any:
        """(*lead axes, *seen shape) as (*lead axes, *weight's shape)."""
        return self.view.back(array, lead, tuple(self.weight.shape))

    @abstractmethod
    def totals(self, names: Sequence[str]) -> Array:
        """Partial sums as the algebra needs them: (*lengths of the named axes, in this order, *seen shape)."""

    def squares(self) -> Array:
        """‖g_u‖² for every use (*U), in float64: from the factors, no contribution is computed."""
        return self._give(self.squared())

    @abstractmethod
    def squared(self) -> Array:
        """‖g_u‖² (*U) as a NumPy array in float64."""

    def projection(self, v: Any) -> Array:
        """⟨g_u, v⟩ for every use (*U), in float64.

        Args:
            v: A direction in the weight's shape, e.g. the gradient.

        Raises:
            ShapeError: It has another shape.
        """
        v = held(v)
        if tuple(v.shape) != tuple(self.weight.shape):
            raise ShapeError(self._name, f"expected a direction of {text(self.weight.shape)}, got {text(v.shape)}")
        return self._give(self.projected(self.view.uncast.apply(matching(v, self.factor))))

    @abstractmethod
    def projected(self, v: Array) -> Array:
        """⟨g_u, v⟩ (*U) in float64, with v in the seen shape."""

    def of_samples(self, samples: slice, weights: Array | None = None) -> Uses:
        """The uses of some samples alone, their contributions multiplied by one weight (len,) for each sample.

        Raises:
            ConfigError: The uses have no axis "sample".
        """
        (axis,) = self.axis_numbers(self.ordered("sample"))
        chosen = self.taken([samples if i == axis else slice(None) for i in range(len(self.shape))])
        return chosen if weights is None else chosen.scaled(weights, axis)

    def taken(self, slices: Sequence[slice]) -> Self:
        """The uses in a part of every use axis."""
        part = copy(self)
        part.axes = self.fewer(slices)
        for name, array in self._held():
            setattr(part, name, array[tuple(slices)])
        return part

    def in_box(self, names: Sequence[str], box: Sequence[slice]) -> Self:
        """The uses in a part of the named axes."""
        slices = [slice(None)] * len(self.shape)
        for axis, chosen in zip(self.axis_numbers(names), box, strict=True):
            slices[axis] = chosen
        return self.taken(slices)

    def scaled(self, weights: Array, axis: int) -> Self:
        """Every contribution times the weight of its index on one use axis."""
        part, (name, array) = copy(self), self._held()[0]
        setattr(part, name, array * spread(weights, axis, array))
        return part

    def as_tensors(self, like: Any) -> Self:
        """The same uses with factors that are tensors where ``like`` is one; integers stay with NumPy."""
        part = copy(self)
        for name, array in self._held():
            if is_tensor(array) or array.dtype.kind == "f":
                setattr(part, name, as_tensor(array, like))
        return part

    def _held(self) -> list[tuple[str, Array]]:
        """The factors that there are, by name."""
        both = ((name, getattr(self, name)) for name in self.arrays)
        return [(name, array) for name, array in both if array is not None]

    @property
    def factor(self) -> Array:
        """The factor that carries the scale."""
        return self._held()[0][1]

    @property
    def tensor(self) -> Any:
        """A factor that is held as a tensor; None if all are NumPy arrays."""
        return next((array for _, array in self._held() if is_tensor(array)), None)

    @abstractmethod
    def factors(self, **use: int | Sequence[int]) -> tuple[Array, ...]:
        """The factors of one use, given by an index on every axis, e.g. ``factors(sample=0, position=(3, 4))``."""

    def contribution(self, **use: int | Sequence[int]) -> Array:
        """The contribution of one use, in the weight's shape."""
        return self.taken([slice(i, i + 1) for i in self._index(use)]).sum()

    def products(self, *element: int) -> Terms:
        """What one element of the weight's gradient is the sum of: the factors of every use, and their products.

        Raises:
            ConfigError: There is no such element.
        """
        return self.terms_at(self.element(element))

    @abstractmethod
    def terms_at(self, flat: int) -> Terms:
        """As :meth:`products`, of an element given by its flat number in the weight's shape."""

    def _terms(self, flat: int, factors: Sequence[Factor], chosen: Array | None = None) -> Terms:
        """Terms of the uses with these flat numbers (all, if None), in their order."""
        count = self.count if chosen is None else len(chosen)
        index = np.arange(self.count) if chosen is None else chosen
        places = np.stack(np.unravel_index(index, self.shape), -1) if self.shape else np.zeros((count, 0), np.int64)
        use, start = {}, 0
        for name, lengths in self.axes.items():
            use[name] = places[:, start : start + len(lengths)]
            start += len(lengths)
        named = {factor.name: factor for factor in factors}
        return Terms(self.weight.name, tuple(self.weight.shape), np.full(count, flat), named, use=use)

    def seen_element(self, flat: int) -> int | None:
        """The flat number, in what the call sees, of an element of the weight; None if the call does not see it."""
        if self.view.uncast.identity:
            return flat
        found = np.flatnonzero(self.view.cells(tuple(self.weight.shape)).ravel() == flat)
        return int(found[0]) if len(found) else None

    def place(self, index: Index) -> dict[str, Index]:
        """An index over all use axes, taken apart axis by axis: what ``contribution(**place)`` takes."""
        use: dict[str, Index] = {}
        start = 0
        for name, lengths in self.axes.items():
            use[name] = index[start : start + len(lengths)]
            start += len(lengths)
        return use

    def ordered(self, by: By) -> tuple[str, ...]:
        """The names in ``by``, in the order of :attr:`axes`; an unknown one is refused."""
        names = (by,) if isinstance(by, str) else tuple(by)
        for name in names:
            if name not in self.axes:
                known = ", ".join(self.axes)
                fix = f"choose from {known}" if known else "they have no axes"
                raise ConfigError(self._name, f"there is no axis {name!r}", fix)
        return tuple(name for name in self.axes if name in names)

    def axis_numbers(self, names: Sequence[str]) -> list[int]:
        """The axis numbers of these names, in the order of the names."""
        first, start = {}, 0
        for name, lengths in self.axes.items():
            first[name] = range(start, start + len(lengths))
            start += len(lengths)
        return [number for name in names for number in first[name]]

    def lengths(self, names: Sequence[str]) -> Index:
        """The lengths of these axes, one after the other."""
        return tuple(n for name in names for n in self.axes[name])

    def grouped(self, array: Any, names: Sequence[str]) -> Any:
        """A factor (*U, *rest) as (K, R, *rest), K over the named axes and R over the others."""
        return moved(array, self.axis_numbers(names), len(self.shape))

    def fewer(self, slices: Sequence[slice]) -> dict[str, tuple[int, ...]]:
        """The axes of the uses in a part of every use axis."""
        parts = iter(slices)
        return {name: tuple(len(range(n)[next(parts)]) for n in lengths) for name, lengths in self.axes.items()}

    def _index(self, use: Mapping[str, int | Sequence[int]]) -> Index:
        """One number for each use axis, checked."""
        index: Index = ()
        for name, lengths in self.axes.items():
            value = use.get(name, ())
            part = tuple(value) if isinstance(value, Iterable) else (value,)
            fits = all(isinstance(i, int | np.integer) and 0 <= i < n for i, n in zip(part, lengths, strict=False))
            if len(part) != len(lengths) or not fits:
                expected = ", ".join(f"0 to {n - 1}" for n in lengths)
                raise ConfigError(self._name, f"expected {name}={expected}, got {name}={use.get(name)!r}")
            index += tuple(int(i) for i in part)
        if unknown := set(use) - set(self.axes):
            raise ConfigError(self._name, f"there is no axis {', '.join(sorted(unknown))}")
        return index

    def element(self, element: Sequence[int]) -> int:
        """The flat number of one element of the weight, checked."""
        shape = tuple(self.weight.shape)
        fits = all(isinstance(i, int | np.integer) and -n <= i < n for i, n in zip(element, shape, strict=False))
        if len(element) != len(shape) or not fits:
            raise ConfigError(self._name, f"no element {tuple(element)} in shape {shape}")
        return int(np.ravel_multi_index(tuple(i % n for i, n in zip(element, shape, strict=True)), shape))

    @property
    def _name(self) -> str:
        return f"uses of {self.weight.name}"

    def described(self) -> str:
        """The number of uses and their axes: "50176 uses, sample 64, position 28×28"."""
        uses = "1 use" if self.count == 1 else f"{self.count} uses"
        return ", ".join([uses, *(f"{name} {text(lengths)}" for name, lengths in self.axes.items())])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.weight.name} {text(self.weight.shape)}: {self.described()})"
