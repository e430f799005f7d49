"""What the ways forward and back share: which array from outside is which, and where maps are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod
from typing import Any, NamedTuple

from sharedgrad.graph import Node
from sharedgrad.kernels.native import program as ops
from sharedgrad.kernels.native.maps import Map
from sharedgrad.kernels.native.program import Builder
from sharedgrad.kernels.native.recycled import empty
from sharedgrad.layers.layer import Shape
from sharedgrad.parameter import Array, Buffer, Parameter, Weight
from sharedgrad.plan.prepared import Prepared


class Mask(NamedTuple):
    """The factors of a dropout node, drawn anew for every step."""

    node: Node


class Input(NamedTuple):
    """A network input."""

    name: str


class Output(NamedTuple):
    """A node's output, as a plain array."""

    name: str


class Upstream(NamedTuple):
    """The gradient that is given at a node."""

    name: str


class InputGradient(NamedTuple):
    """The gradient at a network input."""

    name: str


class Delta(NamedTuple):
    """The whole gradient at a node's output: what was given there and what came back."""

    name: str


class Value(NamedTuple):
    """What a node has computed, for a node with parameters that has read it."""

    name: str


class Gradient(NamedTuple):
    """A parameter's gradient from one call, of all samples or sample by sample."""

    parameter: Weight
    by_sample: bool


class MaxNorm(NamedTuple):
    """The largest norm that a sample's gradient keeps, in float64 whatever the program's type."""


class Norms(NamedTuple):
    """The norm of each sample's gradient."""


class Squares(NamedTuple):
    """The square of that, in float64."""


class Labels(NamedTuple):
    """The classes that a loss compares with, in int64."""


class Settings(NamedTuple):
    """What a loss and updates take besides arrays, in float64."""


class State(NamedTuple):
    """What an optimizer keeps of a parameter."""

    parameter: Parameter
    name: str


class Kernel(NamedTuple):
    """A convolution's kernel, prepared."""

    parameter: Parameter
    prepared: Prepared


class Statistics(NamedTuple):
    """Where batch normalization left its batch's mean and variance."""

    node: Node
    mean: Map
    variance: Map
    values: int


Outside = (
    Input
    | Output
    | Upstream
    | InputGradient
    | Gradient
    | Delta
    | Value
    | MaxNorm
    | Norms
    | Squares
    | Labels
    | Settings
    | State
    | Kernel
    | Mask
    | Weight
    | Buffer
)


def number_of(m: Map) -> int:
    """Which of the arrays from outside it is."""
    assert m.outside is not None
    return m.outside


class Lowering:
    """What forward and backward share: a builder, and which array from outside is which.

    Args:
        shapes: Of inputs and nodes, without the sample axis.
        builder: Of a program of its own.
        after: What has been written into the same program before, instead.

    Attributes:
        shapes: Of inputs and nodes, without the sample axis.
        fixed: Arrays from outside that are the same in every run, in their places; None elsewhere.
    """

    def __init__(self, shapes: Mapping[str, Shape], builder: Builder, after: Lowering | None = None) -> None:
        self.shapes, self.builder = shapes, builder
        self.outside: list[Outside] = []
        self._parameters: dict[Weight | Buffer, Map] = {}
        if after is not None:
            self.builder, self.outside, self._parameters = after.builder, after.outside, after._parameters
        self._weights, self._buffers = list[tuple[int, Weight]](), list[tuple[int, Buffer]]()
        self._kernels: list[tuple[int, Kernel]] = []
        self.emit = self.builder.emit

    def array(self, what: Outside, shape: Shape, samples: int | None = None) -> Map:
        """A plain array from outside; of all samples if ``samples`` is not given."""
        self.outside.append(what)
        samples = self.builder.samples if samples is None else samples
        channels, *spatial = shape
        height, width = ops.spatial(tuple(spatial)) if spatial else (1, 1)
        return self.builder.array(channels, height, width, samples=samples)

    def numbered(self, kind: Any) -> list[tuple[int, Any]]:
        """Which arrays from outside are of this kind, each with its number."""
        return [(i, what) for i, what in enumerate(self.outside) if isinstance(what, kind)]

    def build(self) -> None:
        """The program, of all that has been written."""
        self.program = self.builder.build()
        self._weights, self._buffers = self.numbered(Weight), self.numbered(Buffer)
        self._kernels = self.numbered(Kernel)
        self.fixed: list[Any] = [None] * len(self.outside)

    def release(self, places: Collection[int]) -> None:
        """Leave these places among the arrays empty: somebody else fills them."""
        self._weights = [(i, weight) for i, weight in self._weights if i not in places]

    def memory(self) -> Array:
        """What the program keeps; zeros at first, so that margins are."""
        memory = empty((self.program.kept,), self.builder.dtype)
        memory.fill(0)
        return memory

    def arrays(self, buffers: Mapping[Buffer, Array]) -> list[Any]:
        """What the program runs on: the values that weights and buffers have now; the other places are still empty."""
        arrays = self.fixed.copy()
        for i, weight in self._weights:
            arrays[i] = weight.value
        for i, (parameter, prepared) in self._kernels:
            arrays[i] = prepared.of_value(parameter)
        for i, buffer in self._buffers:
            arrays[i] = buffers[buffer]
        return arrays

    def parameter(self, p: Weight | Buffer | None) -> Map | None:
        """A parameter's value as one row of numbers."""
        return None if p is None else self.row(p)

    def row(self, p: Weight | Buffer) -> Map:
        """The same of one that is there."""
        if p not in self._parameters:
            shape = p.shape if isinstance(p, Weight) else p.value.shape
            self._parameters[p] = self.array(p, (prod(shape),), 1)
        return self._parameters[p]

    def place(self, shape: Shape) -> Map:
        """A map in blocks for (C, L) or (C, H, W), a plain vector for (K,)."""
        if len(shape) == 1:
            return self.builder.vector(shape[0])
        return self.builder.map(shape[0], *ops.spatial(shape[1:]))
