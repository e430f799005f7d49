"""The way back to the sum of clipped per-sample gradients, without keeping all samples' gradients.

First all nodes backward, where every parameter adds its squared norms, sample by sample, to one row of numbers. Then
each sample's factor. Then the parameters' gradients, from upstream gradients that are scaled by these factors.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from sharedgrad.kernels.native.program import Map
from sharedgrad.parameter import Weight
from sharedgrad.plan.backward import Backward
from sharedgrad.plan.forward import Forward
from sharedgrad.plan.lowering import MaxNorm, Norms, UnsupportedError
from sharedgrad.plan.steps.step import Weighted


class Clipped(Backward):
    """All nodes backward, to the sum of clipped gradients.

    Args:
        forward, given, wanted: As for ``plan.backward.Backward``.

    Attributes:
        squares: Where the samples' squared norms are added up, in float64.

    Raises:
        UnsupportedError: As there; or a parameter is used in several places: its uses must be added before its norm
            is known.
    """

    sums_early = False  # what is summed must be scaled first

    def __init__(self, forward: Forward, given: Collection[str], wanted: Collection[str]) -> None:
        samples, lanes = forward.builder.samples, forward.builder.lanes
        self.squares = Map(1, 1, samples * (8 // forward.builder.dtype.itemsize))
        self._factors = Map(1, 1, -(-samples // lanes) * lanes)
        self._scaled: dict[Map, None] = {}  # upstream gradients that are read again, scaled
        self._sums: list[tuple[Sequence[Weight], Callable[..., None]]] = []  # what comes after the factors
        super().__init__(forward, given, wanted, ())

    def start(self) -> None:
        """No squares yet."""
        self.emit("zero", (self.squares,))

    def finish(self) -> None:
        """The factors, and the gradients with them."""
        used = [p.base for parameters, _ in self._sums for p in parameters]
        if len(set(used)) < len(used):
            raise UnsupportedError("a parameter that is used in several places")
        norms, most = self.array(Norms(), (self.builder.samples,), 1), self.array(MaxNorm(), self._one_double, 1)
        self.emit("clip_factors", (self._factors, norms, self.squares, most))
        for delta in self._scaled:
            self.emit("scale_samples", (delta, self._factors))
        for parameters, write in self._sums:
            write(*(self.gradient(p)[0] for p in parameters))

    @property
    def _one_double(self) -> tuple[int]:
        return (8 // self.builder.dtype.itemsize,)

    def parameter_gradients(self, step: Weighted, *arguments: Any) -> Any:
        """Their norms now, their sums later."""
        return step.norms(self, *arguments)

    def add_squares(self, parameter: Weight, apart: Map) -> None:
        """Of a parameter so small that its samples' gradients are kept until they are summed."""
        self.emit("add_squares", (self.squares, apart))
        self.sum_later(parameter, apart)

    def sum_later(self, parameter: Weight, apart: Map) -> None:
        """Sum samples' gradients that are kept until their factors are known."""
        self._sums.append(([parameter], lambda total: self.emit("weighted_sum", (total, apart, self._factors))))

    def read_scaled(self, delta: Map, parameters: Sequence[Weight], sums: Callable[..., None]) -> None:
        """Let ``sums(*maps for the parameters)`` read this upstream gradient again, once that is scaled."""
        self._scaled[delta] = None
        self.holders[delta] += 1  # to the end: no operation may write over it
        self._sums.append((parameters, sums))
