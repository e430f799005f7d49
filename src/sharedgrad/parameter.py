"""Parameter, whose identity is sharing, views of it, and buffers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from sharedgrad.arrays import Array, indices, numbers, positive
from sharedgrad.errors import ConfigError, ShapeError
from sharedgrad.geometry import text
from sharedgrad.randomness import generator
from sharedgrad.view import Index, View

Initializer = Callable[[np.random.Generator, tuple[int, ...]], Array]


class Revision:
    """Changes of what layers and parameters are, beside numbers: what was worked out from them holds as long as
    ``latest`` stays. No number comes twice, whatever threads do."""

    latest = 0
    _numbers = count(1)

    @classmethod
    def advance(cls) -> None:
        """There has been a change."""
        cls.latest = next(cls._numbers)


__all__ = [
    "Array",
    "Buffer",
    "Initializer",
    "Parameter",
    "ParameterView",
    "Parameters",
    "Revision",
    "Weight",
    "first_names",
    "indices",
    "numbers",
    "positive",
]


class Weight(ABC):
    """What a layer holds and reads: a Parameter, or a view of one.

    Attributes:
        base: The Parameter itself.
        view: How it is seen.
        name: For messages and tables.
        shape: The shape that the layer sees.
    """

    base: Parameter
    view: View
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    version: int
    __iter__: ClassVar[None] = None  # indices alone would make it a sequence

    @property
    @abstractmethod
    def value(self) -> Array:
        """The array that the layer reads, read-only and row by row in memory."""

    @value.setter
    @abstractmethod
    def value(self, new: ArrayLike) -> None: ...

    @property
    def T(self) -> Weight:  # noqa: N802 (NumPy's name)
        """The axes in reverse: ``decoder.tie("weight", encoder.weight.T)``."""
        return self.transpose()

    def transpose(self, *axes: int | Iterable[int]) -> Weight:
        """The axes in another order, in reverse if none is given; as in NumPy.

        Raises:
            ShapeError: It is no order of the axes.
        """
        return self.seen(View.transpose(self.shape, _several(axes), self.name))

    def reshape(self, *shape: int | Iterable[int]) -> Weight:
        """The same cells, row by row, in another shape; one size may be −1.

        Raises:
            ShapeError: The numbers of cells differ.
        """
        return self.seen(View.reshape(self.shape, _several(shape), self.name))

    def __getitem__(self, index: Index) -> Weight:
        """A part of it: ``weight[:4]``, ``weight[..., 0]``; whole numbers and slices with steps of at least 1.

        Raises:
            ShapeError: It reaches outside, picks nothing, or is no such index.
        """
        return self.seen(View.slice(self.shape, index, self.name))

    def seen(self, later: View) -> Weight:
        """What a view shows of it."""
        view = self.view.then(later)
        return self.base if view.identity else ParameterView(self.base, view)


def _several(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Numbers given one by one or as one sequence."""
    return tuple(given[0]) if len(given) == 1 and isinstance(given[0], Iterable) else given


class Parameter(Weight):
    """One trainable array. Two layers that hold the same Parameter object share it: that is all tying is.

    The value is never changed in place: an update replaces it, so an array once handed out stays what it was,
    and ``version`` counts the replacements (a tape checks it before it goes backward).

    Args:
        shape: Shape of the value.
        initializer: ``(random generator, shape) -> array``; called when a network seeds its parameters, or with
            seed 0 when the value is first read outside any network.
        name: For messages and tables; a network names its parameters ``node.attribute``.
        dtype: float32 or float64; a network makes all its parameters one type.
    """

    view = View()

    def __init__(
        self,
        shape: tuple[int, ...],
        initializer: Initializer,
        name: str = "parameter",
        dtype: np.dtype[Any] | type = np.float32,
    ) -> None:
        self.shape, self.name, self.dtype = shape, name, np.dtype(dtype)
        self.version = 0
        self._initializer: Initializer | None = initializer
        self._value: Array | None = None
        self.drawn_as = ""  # under which name in a network the first value was drawn

    def __getstate__(self) -> dict[str, Any]:
        """For pickling and copying: a value that has been drawn is not drawn again (initializers may be lambdas)."""
        drawn = {} if self._value is None else {"_initializer": None}
        return {**vars(self), **drawn}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copied array could be written to; the value cannot."""
        vars(self).update(state)
        if self._value is not None:
            self._value.setflags(write=False)

    @property
    def base(self) -> Parameter:  # type: ignore[override]
        """Itself."""
        return self

    @property
    def value(self) -> Array:
        """The array, read-only: assign a new one to change it (``p.value = p.value - 0.1 * g``)."""
        value = self._value
        if value is None:
            value = self.initialize(0)
        return value

    @value.setter
    def value(self, new: ArrayLike) -> None:
        self.replace(numbers(new, self.dtype, self.name))

    def replace(self, new: Array) -> None:
        """Take ``new`` over without a copy; the caller gives it away (optimizers do)."""
        if new.shape != self.shape:
            raise ShapeError(self.name, f"expected a value of shape {self.shape}, got {new.shape}")
        new = np.asarray(new, self.dtype, order="C")
        new.setflags(False)  # type: ignore[call-arg]  # write=False, which takes twice as long by name
        self._value = new
        self.version += 1

    def initialize(self, seed: int, key: str = "") -> Array:
        """Draw the first value; one that is already there stays.

        Args:
            seed: The seed.
            key: Parameters of one seed and key get the same numbers; the name by default.

        Raises:
            ConfigError: There is no memory for it.
        """
        if self._value is None:
            assert self._initializer is not None
            self.drawn_as = key or self.name
            random = generator(seed, "initialize", self.drawn_as)
            try:
                first = self._initializer(random, self.shape).astype(self.dtype)
            except (MemoryError, ValueError) as error:
                raise ConfigError(self.name, f"{error}", "use a smaller layer") from None
            self.replace(first)
        assert self._value is not None
        return self._value

    def cast(self, dtype: np.dtype[Any]) -> None:
        """Change the type that the value is kept in."""
        if dtype != self.dtype:
            self.dtype = dtype
            if self._value is not None:
                self.value = self._value
            Revision.advance()

    def __repr__(self) -> str:
        return f"Parameter({self.name}, {text(self.shape) or 'scalar'}, {self.dtype})"


class ParameterView(Weight):
    """A Parameter as one layer sees it: transposed, a part of it, in another shape. ``parameter.T`` makes one.

    It has no gradient and no state of its own: both are the Parameter's, in the Parameter's shape. Two views of
    one Parameter that show the same are equal.
    """

    def __init__(self, base: Parameter, view: View) -> None:
        self.base, self.view, self.shape = base, view, view.shape(base.shape)
        self._value: tuple[Array, Array] | None = None  # the Parameter's, and what is seen of it

    @property
    def name(self) -> str:  # type: ignore[override]
        """The Parameter's name and the view in words."""
        return f"{self.base.name} ({self.view})"

    @property
    def dtype(self) -> np.dtype[Any]:  # type: ignore[override]
        """The Parameter's."""
        return self.base.dtype

    @property
    def version(self) -> int:  # type: ignore[override]
        """The Parameter's."""
        return self.base.version

    @property
    def value(self) -> Array:
        """What is seen now: a copy, made once for each value of the Parameter.

        Raises:
            ConfigError: It is assigned to; the Parameter's own value can be.
        """
        known, whole = self._value, self.base.value
        if known is None or known[0] is not whole:
            known = whole, np.array(self.view.apply(whole), order="C")
            known[1].setflags(write=False)
            self._value = known
        return known[1]

    @value.setter
    def value(self, new: ArrayLike) -> None:
        raise ConfigError(self.name, "is a view, which has no value of its own", f"set that of {self.base.name}")

    def __getstate__(self) -> dict[str, Any]:
        """For pickling and copying: what is seen is worked out again."""
        return {**vars(self), "_value": None}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ParameterView):
            return NotImplemented
        return self.base is other.base and self.view == other.view

    def __hash__(self) -> int:
        return hash((self.base, self.view))

    def __repr__(self) -> str:
        return f"ParameterView({self.name}, {text(self.shape) or 'scalar'}, {self.dtype})"


class Parameters(list[Parameter]):
    """A network's parameters, each once, and the names that they have in that network."""

    def __init__(self, names: Mapping[Parameter, str]) -> None:
        super().__init__(names)
        self.names = dict(names)


class Buffer:
    """An array that belongs to a layer and is not trained, e.g. running statistics; replaced, never mutated."""

    def __init__(self, value: ArrayLike, name: str = "buffer") -> None:
        self.name = name
        self._keep(np.array(value))

    @property
    def value(self) -> Array:
        """The array, read-only: assign a new one to change it. It is kept in the type that the buffer has."""
        return self._value

    @value.setter
    def value(self, new: ArrayLike) -> None:
        self.replace(new)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that the value is kept in."""
        return self._value.dtype

    def replace(self, new: ArrayLike) -> None:
        """Set a new value of the same shape, in the same type.

        Raises:
            ShapeError: It has another shape, or holds something else than numbers.
        """
        array = numbers(new, self.dtype, self.name)
        if array.shape != self._value.shape:
            raise ShapeError(self.name, f"expected a value of shape {self._value.shape}, got {array.shape}")
        self._keep(array)

    def cast(self, dtype: np.dtype[Any]) -> None:
        """Change the type that real numbers are kept in; whole ones stay whole."""
        if self.dtype.kind == "f" and self.dtype != dtype:
            self._keep(self._value.astype(dtype))
            Revision.advance()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copied array could be written to; the value cannot."""
        vars(self).update(state)
        self._keep(self._value)

    def _keep(self, array: Array) -> None:
        array.setflags(write=False)
        self._value = array


def first_names(named: Mapping[str, Weight]) -> dict[Parameter, str]:
    """The first name of each Parameter, rather of the whole than of a view."""
    first: dict[Parameter, str] = {}
    for name, weight in sorted(named.items(), key=lambda entry: not entry[1].view.identity):
        first.setdefault(weight.base, name)
    return first
