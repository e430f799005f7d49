"""Parameter, whose identity is sharing, views of it, and Gradients, which are values that add."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from sharedgrad.arrays import Array, indices, numbers, positive
from sharedgrad.errors import ConfigError, ShapeError
from sharedgrad.geometry import text
from sharedgrad.randomness import generator
from sharedgrad.view import Index, View

Initializer = Callable[[np.random.Generator, tuple[int, ...]], Array]

__all__ = [
    "Array",
    "Buffer",
    "Gradients",
    "Initializer",
    "Parameter",
    "ParameterView",
    "Parameters",
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
        if self._value is None:
            self.initialize(0)
        assert self._value is not None
        return self._value

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

    def rewritten(self) -> None:
        """Its array, which nobody else held, has been written over: the value is another one now."""
        self.version += 1

    def initialize(self, seed: int, key: str = "") -> None:
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

    def cast(self, dtype: np.dtype[Any]) -> None:
        """Change the type that the value is kept in."""
        if dtype != self.dtype:
            self.dtype = dtype
            if self._value is not None:
                self.value = self._value

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

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copied array could be written to; the value cannot."""
        vars(self).update(state)
        self._keep(self._value)

    def _keep(self, array: Array) -> None:
        array.setflags(write=False)
        self._value = array


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


def first_names(named: Mapping[str, Weight]) -> dict[Parameter, str]:
    """The first name of each Parameter, rather of the whole than of a view."""
    first: dict[Parameter, str] = {}
    for name, weight in sorted(named.items(), key=lambda entry: not entry[1].view.identity):
        first.setdefault(weight.base, name)
    return first


K = TypeVar("K")


def _add(a: Mapping[K, Array], b: Mapping[K, Array]) -> dict[K, Array]:
    total = dict(a)
    for key, array in b.items():
        if key in total and total[key].shape != array.shape:
            got = f"{text(total[key].shape)} and {text(array.shape)}"
            raise ShapeError(getattr(key, "name", str(key)), f"expected gradients of one shape to add, got {got}")
        total[key] = total[key] + array if key in total else array
    return total
