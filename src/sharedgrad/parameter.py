"""Parameter, whose identity is sharing, and Gradients, which are values that add."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Real
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from sharedgrad.errors import ConfigError, ShapeError
from sharedgrad.geometry import text
from sharedgrad.randomness import generator

Array = np.ndarray[Any, np.dtype[Any]]
Initializer = Callable[[np.random.Generator, tuple[int, ...]], Array]


def numbers(value: Any, dtype: np.dtype[Any] | type, where: str, empty: Callable[..., Array] = np.empty) -> Array:
    """A copy of ``value`` as an array of real numbers, in memory from ``empty``; lists and PyTorch tensors will do.

    Raises:
        ShapeError: It holds something else, or its rows differ in length.
    """
    try:
        array = value if type(value) is np.ndarray else _array(value)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{array.dtype} values")
        copy = empty(array.shape, np.dtype(dtype))
        np.copyto(copy, array, "unsafe")
        return copy
    except (TypeError, ValueError) as error:
        raise ShapeError(where, f"expected an array of numbers, got {error}") from None


def _array(value: Any) -> Array:
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


class Parameter:
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

    def __init__(
        self,
        shape: tuple[int, ...],
        initializer: Initializer,
        name: str = "parameter",
        dtype: np.dtype[Any] | type = np.float32,
    ) -> None:
        self.shape, self.name, self.dtype = shape, name, np.dtype(dtype)
        self.version = 0
        self._initializer = initializer
        self._value: Array | None = None

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

    def initialize(self, seed: int) -> None:
        """Draw the first value; one that is already there stays.

        Raises:
            ConfigError: There is no memory for it.
        """
        if self._value is None:
            random = generator(seed, "initialize", self.name)
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


class Buffer:
    """An array that belongs to a layer and is not trained, e.g. running statistics; replaced, never mutated."""

    def __init__(self, value: ArrayLike, name: str = "buffer") -> None:
        self.name = name
        self.value: Array = np.array(value)

    def replace(self, new: ArrayLike) -> None:
        """Set a new value of the same shape and type."""
        array = np.array(new, self.value.dtype)
        if array.shape != self.value.shape:
            raise ShapeError(self.name, f"expected a value of shape {self.value.shape}, got {array.shape}")
        self.value = array


class Gradients(Mapping[Parameter, Array]):
    """Parameter -> gradient of the loss. A value: it adds, scales and never goes stale.

    Look a gradient up by its Parameter or by the parameter's name. It has the parameter's shape, or (N, *shape)
    where ``tape.backward`` was asked to keep it apart by sample.

    Attributes:
        inputs: gradient of the loss with respect to each network input, where it was asked for.
    """

    def __init__(self, arrays: Mapping[Parameter, Array], inputs: Mapping[str, Array] | None = None) -> None:
        self._arrays = dict(arrays)
        self.inputs: dict[str, Array] = dict(inputs or {})

    def __getitem__(self, key: Parameter | str) -> Array:
        if isinstance(key, str):
            for parameter, array in self._arrays.items():
                if parameter.name == key:
                    return array
            raise KeyError(f"no gradient named {key!r}; there are {', '.join(p.name for p in self._arrays)}")
        if key not in self._arrays:
            name = getattr(key, "name", repr(key))
            raise KeyError(f"no gradient of {name}; there are {', '.join(p.name for p in self._arrays)}")
        return self._arrays[key]

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
        return Gradients(_add(self._arrays, other._arrays), _add(self.inputs, other.inputs))

    def __mul__(self, factor: float) -> Gradients:
        return Gradients(
            {p: a * a.dtype.type(factor) for p, a in self._arrays.items()},
            {n: a * a.dtype.type(factor) for n, a in self.inputs.items()},
        )

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Gradients:
        return self * (1 / divisor)

    def __neg__(self) -> Gradients:
        return self * -1.0

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
        """Scaled down to ``max_norm`` if the norm is larger (Pascanu et al. 2013, arXiv:1211.5063)."""
        max_norm, norm = positive(max_norm, "max_norm"), self.norm()
        return self * (max_norm / norm) if norm > max_norm else self

    def __repr__(self) -> str:
        return "Gradients(" + ", ".join(f"{p.name}: {text(p.shape)}" for p in self._arrays) + ")"


def positive(value: Any, where: str) -> float:
    """A positive number, or one line that says what came."""
    if not isinstance(value, Real) or not float(value) > 0:
        raise ConfigError(where, f"expected a positive number, got {value!r}")
    return float(value)


K = TypeVar("K")


def _add(a: Mapping[K, Array], b: Mapping[K, Array]) -> dict[K, Array]:
    total = dict(a)
    for key, array in b.items():
        if key in total and total[key].shape != array.shape:
            got = f"{text(total[key].shape)} and {text(array.shape)}"
            raise ShapeError(getattr(key, "name", str(key)), f"expected gradients of one shape to add, got {got}")
        total[key] = total[key] + array if key in total else array
    return total
