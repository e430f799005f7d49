"""Dropout (Srivastava et al. 2014): in training each element is zeroed with probability p, the rest grow.

y = m · x        dx = m · dy        with m = 0 with probability p, else 1 / (1 − p)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sharedgrad.errors import ConfigError
from sharedgrad.layers.context import Context
from sharedgrad.layers.layer import _Elementwise
from sharedgrad.parameter import Array
from sharedgrad.uses import Uses


class Dropout(_Elementwise):
    """Zero elements at random in training mode; pass everything in evaluation mode.

    Args:
        p: Probability of being zeroed, at least 0 and below 1.
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p < 1:
            raise ConfigError("Dropout: p", f"expected a probability of at least 0 and below 1, got {p}")
        self.p = p

    def forward(self, *inputs: Array, context: Context) -> tuple[Array, Any]:
        """y = m · x; in evaluation mode y = x."""
        (x,) = inputs
        if not context.training:
            return x, None
        mask = self.mask(x.shape, x.dtype, context)
        return x * mask, mask

    def mask(self, shape: tuple[int, ...], dtype: np.dtype[Any], context: Context) -> Array:
        """m: 0 with probability p, else 1 / (1 − p)."""
        kept = context.random().random(shape, np.float32) >= self.p
        return np.asarray(kept * dtype.type(1 / (1 - self.p)))

    def backward(
        self, saved: Any, upstream: Array, needs: Sequence[bool]
    ) -> tuple[tuple[Array | None, ...], list[Uses]]:
        """dx = m · dy, with forward's m."""
        return (upstream if saved is None else upstream * saved,), []
