"""A person's layer on its own: called as a network calls it, on copies, with faults caught as words."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sharedgrad.errors import ConfigError, SharedgradError
from sharedgrad.geometry import text
from sharedgrad.layers import Context, own
from sharedgrad.layers.layer import Layer
from sharedgrad.parameter import Array, Parameter
from sharedgrad.randomness import generator
from sharedgrad.uses import Uses

Found = tuple[str, str]  # a problem and how to mend it
NODE = "first"


class StoppedError(Exception):
    """The layer cannot be called so; what is wrong is written down."""


@dataclass(frozen=True)
class Passed:
    """What a call and its way back gave."""

    y: Array
    dx: tuple[Array | None, ...]
    uses: list[Uses]
    gradients: Mapping[str, Array]


class Bench:
    """One layer with its numbers, in one mode and type.

    Args:
        layer: The person's, which is copied.
        inputs: One array for each input.
        training: The mode.
        dtype: float32 or float64.
        found: Where faults are written down.
    """

    def __init__(self, layer: Layer, inputs: Sequence[Array], training: bool, dtype: type, found: list[Found]) -> None:
        self.layer, self.training, self.found = deepcopy(layer), training, found
        self.layer.__dict__.update(built_in=False, warned=False, name="")
        self.dtype = np.dtype(dtype)
        self.inputs = [x.astype(dtype) if x.dtype.kind == "f" else x for x in inputs]
        for weight in self.layer.parameters().values():
            weight.base.cast(self.dtype)
        for buffer in self.layer.buffers().values():
            buffer.cast(self.dtype)
        self._vary()

    def _vary(self) -> None:
        """Numbers that are not all alike: weights begin as zeros and ones."""
        for name, parameter in self.parameters.items():
            random = generator(0, "check", name)
            noise, value = random.standard_normal(parameter.shape), parameter.value
            parameter.value = np.where(value == 0, 0.1 * noise, value * (1 + 0.2 * np.tanh(noise)))

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Each once, under the first name that the layer has for it."""
        named: dict[Parameter, str] = {}
        for name, weight in self.layer.parameters().items():
            named.setdefault(weight.base, name)
        return {name: parameter for parameter, name in named.items()}

    def forward(self, inputs: Sequence[Array] | None = None, node: str = NODE, step: int = 0) -> tuple[Array, Any]:
        """(y, saved), as the network's own call makes them."""
        context = Context(self.training, 0, step).enter(node)
        with self.caught("forward"):
            return own.forward(self.layer, self.inputs if inputs is None else inputs, context)

    def backward(
        self, saved: Any, upstream: Array, needs: Sequence[bool] | None = None, inputs: Sequence[Array] | None = None
    ) -> tuple[tuple[Array | None, ...], list[Uses]]:
        """(input gradients, uses), likewise."""
        arrays = self.inputs if inputs is None else inputs
        wanted = self.needs if needs is None else needs
        with self.caught("backward"):
            return own.backward(self.layer, saved, upstream, wanted, lambda: [x.shape for x in arrays])

    def passed(self, upstream: Array, needs: Sequence[bool] | None = None) -> Passed:
        """There and back."""
        y, saved = self.forward()
        dx, uses = self.backward(saved, upstream, needs)
        return Passed(y, dx, uses, self.gradients(uses))

    @property
    def needs(self) -> list[bool]:
        """Gradients of all inputs that are no indices."""
        return [i not in self.layer.index_inputs for i in range(len(self.inputs))]

    def gradients(self, uses: Sequence[Uses]) -> dict[str, Array]:
        """The sum of the uses for each parameter; zeros without any."""
        sums = {name: np.zeros(parameter.shape, self.dtype) for name, parameter in self.parameters.items()}
        names = {parameter: name for name, parameter in self.parameters.items()}
        with self.caught("the sum of the uses"):
            for use in uses:
                sums[names[use.weight]] = sums[names[use.weight]] + use.gradient  # type: ignore[index]
        return sums

    def upstream(self, y: Array, key: str = "upstream") -> Array:
        """A gradient at the output whose numbers are not alike."""
        drawn: Array = np.asarray(generator(0, "check", key).standard_normal(y.shape), self.dtype)
        return drawn

    @contextmanager
    def caught(self, what: str) -> Iterator[None]:
        """Write down what goes wrong inside, casts too.

        Raises:
            StoppedError: Nothing comes of it.
        """
        try:
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                yield
        except StoppedError:
            raise
        except SharedgradError as error:
            self.fault(f"{_without(self.layer.label, error.where)}{error.problem}", error.fix)
            raise StoppedError from None
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}, line {last.lineno}" + (f": {last.line}" if last.line else "")
            shapes = ", ".join(text(x.shape) or "a number" for x in self.inputs)
            problem = f"{what} of inputs {shapes} raises {type(error).__name__}: {error} ({where})"
            self.fault(" ".join(problem.split()))
            raise StoppedError from None
        for warning in seen:
            message = str(warning.message)
            if message.startswith(f"{self.layer.label}: "):  # a cast
                problem, _, fix = message.removeprefix(f"{self.layer.label}: ").partition("; ")
                self.fault(problem.replace(", the network's type", ""), fix)

    def fault(self, problem: str, fix: str = "") -> None:
        """Write one down."""
        self.found.append((problem, fix))


def examples(layer: Layer, given: Sequence[Any], shapes: Any, samples: int = 3) -> list[Array]:
    """The inputs to check a layer with: those that were given, or random ones of these shapes.

    Raises:
        ConfigError: There is neither, or indices cannot be made up.
    """
    where = "check_layer"
    if given:
        arrays = [np.asarray(x) for x in given]
        if bad := next((x for x in arrays if x.dtype.kind not in "fiub" or not x.ndim or not len(x)), None):
            raise ConfigError(where, f"expected arrays of numbers with samples first, got {bad.dtype} {bad.shape}")
        if len({len(x) for x in arrays}) > 1:
            raise ConfigError(where, "expected the same number of samples in every input")
        return [x if i in layer.index_inputs else x.astype(np.float64) for i, x in enumerate(arrays)]
    if shapes is None:
        raise ConfigError(where, "needs the layer's inputs", "pass input_shape=(3, 8, 8) or example arrays")
    if layer.index_inputs:
        raise ConfigError(where, "a layer that takes indices needs examples", "pass arrays of whole numbers")
    try:
        several = [tuple(shapes)] if all(isinstance(n, int) for n in shapes) else [tuple(s) for s in shapes]
        random = generator(0, "check", "inputs")
        return [random.standard_normal((samples, *shape)) for shape in several]
    except (TypeError, ValueError):
        problem = f"expected a shape such as (3, 8, 8), or a list of shapes, got {shapes!r}"
        raise ConfigError("input_shape", problem) from None


def _without(label: str, where: str) -> str:
    """Where a fault is, unless it is the layer itself, which is said anyhow."""
    return "" if where == label else f"{where}: "
