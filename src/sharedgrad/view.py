"""Views: how one call sees a weight, transposed, sliced, reshaped or cast, and the way back for its contributions.

A view picks cells of the weight and puts them in another order; the gradient of the weight is then what flows to
the picked cells, in their own places, and zero elsewhere. With A the linear map ``apply``, ``back`` is its
transpose: ⟨apply(w), g⟩ = ⟨w, back(g)⟩.

Arrays are NumPy's or PyTorch's: only methods are called that both have.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import EllipsisType
from typing import Any

import numpy as np

from sharedgrad.errors import ConfigError, ShapeError
from sharedgrad.geometry import text

Shape = tuple[int, ...]
Index = int | slice | EllipsisType | tuple[int | slice | EllipsisType, ...]


@dataclass(frozen=True)
class Transpose:
    """The axes in another order: axis i of what is seen is axis ``axes[i]`` of the array before."""

    axes: tuple[int, ...]

    def apply(self, value: Any) -> Any:
        """No copy."""
        return value.permute(self.axes) if hasattr(value, "permute") else value.transpose(self.axes)

    def shape(self, shape: Shape) -> Shape:
        """The sizes in the new order."""
        if len(self.axes) != len(shape):
            raise ShapeError("view", f"expected {len(self.axes)} axes to transpose, got shape {text(shape)}")
        return tuple(shape[axis] for axis in self.axes)

    def back(self, values: Any, lead: int, shape: Shape) -> Any:
        """The axes in the order before."""
        inverse = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        return Transpose((*range(lead), *(lead + axis for axis in inverse))).apply(values)

    def followed(self, later: Step) -> Step | None:
        """Both steps as one, where they are of one kind."""
        return Transpose(tuple(self.axes[axis] for axis in later.axes)) if isinstance(later, Transpose) else None

    def config(self) -> dict[str, Any]:
        """As plain data."""
        return {"transpose": list(self.axes)}

    def __str__(self) -> str:
        plain = self.axes == tuple(reversed(range(len(self.axes))))
        return "transposed" if plain else f"transposed{self.axes}"


@dataclass(frozen=True)
class Slice:
    """A part of every axis: a range of its cells, or one cell (the axis is gone then)."""

    parts: tuple[int | range, ...]

    @property
    def index(self) -> tuple[int | slice, ...]:
        """What stands between the brackets."""
        return tuple(p if isinstance(p, int) else slice(p.start, p.stop, p.step) for p in self.parts)

    def apply(self, value: Any) -> Any:
        """No copy."""
        return value[self.index]

    def shape(self, shape: Shape) -> Shape:
        """The numbers of cells that are picked."""
        last = [part if isinstance(part, int) else part[-1] for part in self.parts]
        if len(shape) != len(last) or any(cell >= size for cell, size in zip(last, shape, strict=True)):
            raise ShapeError("view", f"the slice [{self}] does not fit shape {text(shape) or 'of a single number'}")
        return tuple(len(part) for part in self.parts if isinstance(part, range))

    def back(self, values: Any, lead: int, shape: Shape) -> Any:
        """Zeros, and the values in the cells that were picked."""
        full = (*values.shape[:lead], *shape)
        whole = values.new_zeros(full) if hasattr(values, "new_zeros") else np.zeros(full, values.dtype)
        whole[(slice(None),) * lead + self.index] = values
        return whole

    def followed(self, later: Step) -> Step | None:
        """Both steps as one, where they are of one kind."""
        if not isinstance(later, Slice):
            return None
        index = iter(later.index)
        return Slice(tuple(part if isinstance(part, int) else _tight(part[next(index)]) for part in self.parts))

    def config(self) -> dict[str, Any]:
        """As plain data: [first, end, step] or a number for each axis."""
        return {"slice": [p if isinstance(p, int) else [p.start, p.stop, p.step] for p in self.parts]}

    def __str__(self) -> str:
        def part(p: int | range) -> str:
            return str(p) if isinstance(p, int) else f"{p.start}:{p.stop}" + (f":{p.step}" if p.step > 1 else "")

        return ", ".join(part(p) for p in self.parts)


@dataclass(frozen=True)
class Reshape:
    """The same cells, row by row, in another shape."""

    target: Shape

    def apply(self, value: Any) -> Any:
        """Copies where the cells do not lie row by row."""
        return value.reshape(self.target)

    def shape(self, shape: Shape) -> Shape:
        """The new shape."""
        if prod(shape) != prod(self.target):
            raise ShapeError("view", f"shape {text(shape)} cannot be reshaped to {text(self.target)}")
        return self.target

    def back(self, values: Any, lead: int, shape: Shape) -> Any:
        """The shape before."""
        return values.reshape((*values.shape[:lead], *shape))

    def followed(self, later: Step) -> Step | None:
        """The last shape decides."""
        return later if isinstance(later, Reshape) else None

    def config(self) -> dict[str, Any]:
        """As plain data."""
        return {"reshape": list(self.target)}

    def __str__(self) -> str:
        return f"reshaped to {text(self.target) or 'a single number'}"


@dataclass(frozen=True)
class Cast:
    """The same numbers in another type; contributions keep the type that they were computed in."""

    dtype: str

    def apply(self, value: Any) -> Any:
        """A copy, unless it has the type already."""
        if hasattr(value, "new_zeros"):
            return value.to(getattr(sys.modules["torch"], self.dtype))
        return value.astype(self.dtype, copy=False)

    def shape(self, shape: Shape) -> Shape:
        """As it was."""
        return shape

    def back(self, values: Any, lead: int, shape: Shape) -> Any:
        """As they are: rounding each contribution would make their sum less exact; what adds them up casts the sum."""
        return values

    def followed(self, later: Step) -> Step | None:
        """Nothing: float64 to float32 to float64 rounds."""
        return self if later == self else None

    def config(self) -> dict[str, Any]:
        """As plain data."""
        return {"cast": self.dtype}

    def __str__(self) -> str:
        return f"as {self.dtype}"


Step = Transpose | Slice | Reshape | Cast


@dataclass(frozen=True)
class View:
    """A composition of steps, first one first; without steps, the weight as it is. Equal steps are equal views."""

    steps: tuple[Step, ...] = ()

    @classmethod
    def transpose(cls, shape: Shape, axes: Sequence[int] = (), where: str = "view") -> View:
        """The axes of an array of ``shape`` in another order; in reverse, if none is given (negative ones count back).

        Raises:
            ShapeError: It is no order of the axes.
        """
        rank = len(shape)
        order = tuple(_numbers(axes, where) or reversed(range(rank)))
        order = tuple(axis + rank if axis < 0 else axis for axis in order)
        if sorted(order) != list(range(rank)):
            raise ShapeError(where, f"expected each of its {rank} axes once to transpose, got {tuple(axes)}")
        return cls() if order == tuple(range(rank)) else cls((Transpose(order),))

    @classmethod
    def slice(cls, shape: Shape, index: Index, where: str = "view") -> View:
        """A part of an array of ``shape``: whole numbers, slices with steps of at least 1, and ``...``.

        Raises:
            ShapeError: It reaches outside, picks nothing, or is no such index.
        """
        given = list(index) if isinstance(index, tuple) else [index]
        dots = [i for i, item in enumerate(given) if item is ...]
        missing = len(shape) - len(given) + len(dots)
        if missing < 0 or len(dots) > 1:
            raise ShapeError(where, f"expected at most {len(shape)} indices, got {len(given) - len(dots)}")
        at = dots[0] if dots else len(given)
        given[at : at + len(dots)] = [slice(None)] * missing
        parts = tuple(_part(item, size, where) for item, size in zip(given, shape, strict=True))
        return cls() if parts == tuple(range(size) for size in shape) else cls((Slice(parts),))

    @classmethod
    def reshape(cls, shape: Shape, target: Sequence[int], where: str = "view") -> View:
        """The cells of an array of ``shape`` in another shape; one size may be −1, which is worked out.

        Raises:
            ShapeError: The numbers of cells differ.
        """
        sizes, total = _numbers(target, where), prod(shape)
        rest = prod(size for size in sizes if size != -1)
        if sizes.count(-1) == 1 and rest and total % rest == 0:
            sizes[sizes.index(-1)] = total // rest
        if min(sizes, default=1) < 1 or prod(sizes) != total:
            raise ShapeError(where, f"shape {text(shape)} cannot be reshaped to {tuple(target)}")
        return cls() if tuple(sizes) == shape else cls((Reshape(tuple(sizes)),))

    @classmethod
    def cast(cls, dtype: Any) -> View:
        """Another type, by name or as the object that NumPy or PyTorch have for it."""
        name = str(dtype if isinstance(dtype, str) or "torch" in str(dtype) else np.dtype(dtype))
        name = name.removeprefix("torch.")
        return cls((Cast(name if name == "bfloat16" else str(np.dtype(name))),))

    def then(self, later: View) -> View:
        """This view, and ``later`` of what it shows."""
        steps = list(self.steps)
        for step in later.steps:
            merged = steps[-1].followed(step) if steps else None
            if merged is not None:
                steps[-1:] = [] if _does_nothing(merged) else [merged]
            else:
                steps.append(step)
        return View(tuple(steps))

    def apply(self, value: Any) -> Any:
        """What the call sees of ``value``, an array or a tensor; without a copy where the steps allow it."""
        for step in self.steps:
            value = step.apply(value)
        return value

    def shape(self, shape: Shape) -> Shape:
        """The shape that a call sees of a weight of ``shape``.

        Raises:
            ShapeError: The view does not fit a weight of this shape.
        """
        for step in self.steps:
            shape = step.shape(shape)
        return shape

    def back(self, contributions: Any, lead: int, shape: Shape) -> Any:
        """Contributions to what the call sees, as contributions to the weight.

        Args:
            contributions: (*lead axes, *seen shape); an array or a tensor.
            lead: Number of axes before the seen shape, which stay.
            shape: The weight's own shape.

        Returns:
            (*lead axes, *shape), zero where the view shows nothing; in the type of ``contributions``.
        """
        before = [shape]
        for step in self.steps:
            before.append(step.shape(before[-1]))
        for step, source in zip(reversed(self.steps), before[-2::-1], strict=True):
            contributions = step.back(contributions, lead, source)
        return contributions

    def cells(self, shape: Shape) -> np.ndarray[Any, np.dtype[Any]]:
        """For each cell that the call sees, in the seen shape: its flat number in the weight (int64)."""
        numbers: np.ndarray[Any, np.dtype[Any]] = self.uncast.apply(np.arange(prod(shape)).reshape(shape))
        return numbers

    @property
    def identity(self) -> bool:
        """Whether the call sees the weight as it is."""
        return not self.steps

    @property
    def uncast(self) -> View:
        """The same without its casts: for arrays that have the weight's shape and another type."""
        return View().then(View(tuple(step for step in self.steps if not isinstance(step, Cast))))

    @property
    def axes(self) -> tuple[int, ...] | None:
        """The order of the axes, if the view is a transpose and nothing else (but casts)."""
        steps = self.uncast.steps
        return steps[0].axes if len(steps) == 1 and isinstance(steps[0], Transpose) else None

    @property
    def parts(self) -> tuple[int | range, ...] | None:
        """The part of each axis of the weight, if the view is a slice and nothing else (but casts)."""
        steps = self.uncast.steps
        return steps[0].parts if len(steps) == 1 and isinstance(steps[0], Slice) else None

    def config(self) -> list[dict[str, Any]]:
        """As plain data, e.g. ``[{"slice": [[0, 4, 1], [0, 8, 1]]}, {"transpose": [1, 0]}]``."""
        return [step.config() for step in self.steps]

    @classmethod
    def from_config(cls, steps: Any, shape: Shape, where: str = "view") -> View:
        """The view of a weight of ``shape`` that :meth:`config` wrote, or a person.

        Raises:
            ConfigError: It is no list of steps.
            ShapeError: A step does not fit.
        """
        if not isinstance(steps, Sequence) or isinstance(steps, str):
            raise ConfigError(where, f"expected a list of steps, got {steps!r}")
        view = cls()
        for step in steps:
            view = view.then(_read(step, view.shape(shape), where))
        return view

    def __str__(self) -> str:
        return ", ".join(f"[{step}]" if isinstance(step, Slice) else str(step) for step in self.steps)


def _does_nothing(step: Step) -> bool:
    return isinstance(step, Transpose) and step.axes == tuple(range(len(step.axes)))


def _numbers(given: Sequence[int], where: str) -> list[int]:
    try:
        return [operator.index(number) for number in given]
    except TypeError:
        raise ShapeError(where, f"expected whole numbers, got {given!r}") from None


def _part(item: Any, size: int, where: str) -> int | range:
    """The cells of an axis of ``size`` that an index means."""
    if isinstance(item, slice):
        try:
            found = range(size)[item]
        except (TypeError, ValueError):
            found = range(0)
        if item.step is not None and not _whole(item.step, 1):
            raise ShapeError(where, f"expected a slice with a step of at least 1, got {item.step!r}")
        if not found:
            raise ShapeError(where, f"a slice picks nothing of an axis of {size}")
        return _tight(found)
    if not _whole(item, -size) or item >= size:
        raise ShapeError(where, f"expected slices or whole numbers below {size}, got {item!r}", "use basic slices")
    return int(item) % size


def _tight(cells: Any) -> Any:
    """A range that ends with its last cell, so that equal parts look alike; a number stays."""
    if isinstance(cells, int):
        return cells
    return range(cells[0], cells[-1] + 1, cells.step if len(cells) > 1 else 1)


def _whole(value: Any, least: int) -> bool:
    return bool(isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= least)


def _read(step: Any, shape: Shape, where: str) -> View:
    """One step of :meth:`View.config`, as a view of an array of ``shape``."""
    kind: Any
    value: Any
    kind, value = next(iter(step.items())) if isinstance(step, Mapping) and len(step) == 1 else (None, None)
    try:
        if kind == "transpose":
            return View.transpose(shape, value, where)
        if kind == "slice":
            return View.slice(shape, tuple(slice(*p) if isinstance(p, Iterable) else p for p in value), where)
        if kind == "reshape":
            return View.reshape(shape, value, where)
        if kind == "cast" and isinstance(value, str):
            return View.cast(value)
    except TypeError as error:
        raise ConfigError(where, f"expected a {kind} step, got {value!r} ({error})") from None
    raise ConfigError(where, f"expected transpose, slice, reshape or cast, got {step!r}")
