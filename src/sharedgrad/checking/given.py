"""What an exercise gives: one layer, its settings and its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from sharedgrad.checking.columns import Columns, windows
from sharedgrad.geometry import Geometry
from sharedgrad.layers.layer import Layer
from sharedgrad.parameter import Array


@dataclass(frozen=True)
class Given:
    """One call of one layer, in float64, with all axes (the samples first) and channels before positions.

    Attributes:
        kind: What the tables of terms and the mistakes go by: "conv", "linear", "max_pool" …
        arrays: "x", "dy" (the upstream gradient) and the parameters under short names ("w", "b", or the layer's
            own names); for losses "target".
        geometry: How a window slides; None where there is none.
        options: Other settings, e.g. ``ties``, ``learning_rate``, ``reduction``.
        layer: The engine's layer with these parameters; None where the kind is no layer (a loss).
    """

    kind: str
    arrays: Mapping[str, Array]
    geometry: Geometry | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    layer: Layer | None = None

    def __getitem__(self, name: str) -> Array:
        """One of the arrays."""
        return self.arrays[name]

    def __contains__(self, name: object) -> bool:
        return name in self.arrays

    @property
    def window(self) -> Geometry:
        """The geometry of a kind that has one."""
        assert self.geometry is not None
        return self.geometry

    @property
    def samples(self) -> int:
        """N."""
        return len(self.arrays["x"])

    @property
    def positions(self) -> tuple[int, ...]:
        """The output's spatial shape."""
        return self.window.output(self["x"].shape[2:])

    @cached_property
    def meetings(self) -> Columns:
        """Which sample, position, filter, channel and kernel offset meet: one row for each product."""
        return windows(self["x"].shape, self["w"].shape if "w" in self else None, self.window, self.padding_mode)

    @property
    def padding_mode(self) -> str:
        """What the padding reads."""
        return str(self.options.get("padding_mode", "zeros"))

    def replaced(self, **arrays: Array) -> Given:
        """The same with other arrays."""
        return replace(self, arrays={**self.arrays, **arrays})

    def sliding(self, **changes: Any) -> Given:
        """The same with another geometry: ``sliding(stride=(1, 1))``."""
        return replace(self, geometry=replace(self.window, **changes))

    def with_options(self, **options: Any) -> Given:
        """The same with other settings."""
        return replace(self, options={**self.options, **options})


def turned(array: Array, axes: int) -> Array:
    """The array with its last ``axes`` axes reversed: the kernel rotated by 180 degrees."""
    return np.flip(array, tuple(range(array.ndim - axes, array.ndim))) if axes else array
