"""The ways back to per-sample norms, and to the sum of clipped per-sample gradients, without keeping these.

First all nodes backward, where every parameter adds its squared norms, sample by sample, to one row of numbers. Then
each sample's factor. Then the parameters' gradients, from upstream gradients that are scaled by these factors.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from sharedgrad.kernels.native.maps import Map
from sharedgrad.parameter import Parameter, Weight
from sharedgrad.plan.forward import Forward
from sharedgrad.plan.lowering import MaxNorm, Norms, Squares
from sharedgrad.plan.steps.step import Weighted
from sharedgrad.plan.traced import Traced


class SampleNorms(Traced):
    """All nodes backward, to the squared norms of the samples' gradients.

    Args:
        forward, given, wanted, known: As for ``plan.traced.Traced``.
        tied: Parameters that have other uses too, perhaps elsewhere: their uses must be added before their norm is
            known, so what their gradients are made of is copied instead.

    Attributes:
        squares: Where the norms are added up, in float64.
    """

    sums_later = False  # whether the samples' gradients are summed in the same program

    def __init__(
        self,
        forward: Forward,
        given: Collection[str],
        wanted: Collection[str],
        known: Collection[str],
        tied: Collection[Parameter],
    ) -> None:
        self._tied = tied
        super().__init__(forward, given, wanted, known)

    def start(self) -> None:
        """No squares yet."""
        super().start()
        self.squares = self.place_of_squares(self.builder.samples * (8 // self.builder.dtype.itemsize))
        self.emit("zero", (self.squares,))

    def place_of_squares(self, numbers: int) -> Map:
        """An array from outside."""
        return self.array(Squares(), (numbers,), 1)

    def parameter_gradients(self, step: Weighted, *arguments: Any) -> Any:
        """Their norms; of a step with tied ones the maps."""
        tied = any(p.base in self._tied for node in step.nodes for p in node.layer.parameters().values())
        return step.copies(self, *arguments) if tied else step.norms(self, *arguments)

    def add_squares(self, parameter: Weight, apart: Map) -> None:
        """Of a parameter so small that its samples' gradients are kept until they are summed."""
        self.emit("add_squares", (self.squares, apart))
        self.sum_later(parameter, apart)

    def sum_later(self, parameter: Weight, apart: Map) -> None:
        """Sum samples' gradients that are kept until their factors are known."""

    def read_scaled(self, delta: Map, parameters: Sequence[Weight], sums: Callable[..., None]) -> None:
        """Let ``sums(*maps for the parameters)`` read this upstream gradient again, once that is scaled."""


class Clipped(SampleNorms):
    """All nodes backward, to the sum of clipped gradients, where no parameter is used in several places.

    Args:
        forward, given, wanted: As for ``plan.backward.Backward``.
    """

    sums_later = True

    def __init__(self, forward: Forward, given: Collection[str], wanted: Collection[str]) -> None:
        self._factors = Map(1, 1, -(-forward.builder.samples // forward.builder.lanes) * forward.builder.lanes)
        self._scaled: dict[Map, None] = {}  # upstream gradients that are read again, scaled
        self._sums: list[tuple[Sequence[Weight], Callable[..., None]]] = []  # what comes after the factors
        super().__init__(forward, given, wanted, (), ())

    def place_of_squares(self, numbers: int) -> Map:
        """In the program's own memory."""
        return Map(1, 1, numbers)

    def finish(self) -> None:
        """The factors, and the gradients with them."""
        norms, most = self.array(Norms(), (self.builder.samples,), 1), self.array(MaxNorm(), self._one_double, 1)
        self.emit("clip_factors", (self._factors, norms, self.squares, most))
        for delta in self._scaled:
            self.emit("scale_samples", (delta, self._factors))
        for parameters, write in self._sums:
            write(*(self.gradient(p)[0] for p in parameters))

    @property
    def _one_double(self) -> tuple[int]:
        return (8 // self.builder.dtype.itemsize,)

    def sum_later(self, parameter: Weight, apart: Map) -> None:
        """Sum samples' gradients that are kept until their factors are known."""
        self._sums.append(([parameter], lambda total: self.emit("weighted_sum", (total, apart, self._factors))))

    def read_scaled(self, delta: Map, parameters: Sequence[Weight], sums: Callable[..., None]) -> None:
        """Let ``sums(*maps for the parameters)`` read this upstream gradient again, once that is scaled."""
        self._scaled[delta] = None
        self.holders[delta] += 1  # to the end: no operation may write over it
        self._sums.append((parameters, sums))
