"""Arithmetic on arrays, without state. ``kernels.of(array)`` is the one dispatch point, on the array's type.

Beyond operators, sums and reshaping, layers do arithmetic on feature maps only through the names below, so that an
array of another type (a blocked memory order, a torch tensor) can bring its own implementation of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, Protocol, cast

import numpy as np

from sharedgrad.errors import ConfigError
from sharedgrad.geometry import Geometry
from sharedgrad.kernels import vectorized
from sharedgrad.kernels.threads import get_threads, set_threads
from sharedgrad.parameter import Array

__all__ = [
    "Kernels",
    "compiled",
    "empty",
    "get_threads",
    "get_winograd",
    "of",
    "plain_sums",
    "programs",
    "set_threads",
    "set_winograd",
    "use",
]

Index = tuple[int, ...]
Arrays = list[Array]  # one for each parameter


class Kernels(Protocol):
    """What every implementation offers; ``reference`` defines it, formula by formula."""

    def conv(self, x: Array, w: Array, b: Array | None, g: Geometry) -> Array: ...
    def conv_input_gradient(self, dy: Array, w: Array, g: Geometry, spatial: Index) -> Array: ...
    def conv_kernel_gradients(self, dy: Array, x: Array, g: Geometry) -> Array: ...
    def conv_kernel_gradient(self, dy: Array, x: Array, g: Geometry) -> Array: ...
    def patches(self, x: Array, g: Geometry) -> Array: ...
    def patches_backward(self, dp: Array, g: Geometry, spatial: Index) -> Array: ...
    def pad(self, x: Array, g: Geometry, mode: str) -> Array: ...
    def pad_backward(self, dy: Array, g: Geometry, mode: str, spatial: Index) -> Array: ...
    def blocks(self, p: Array, w: Array) -> Array: ...
    def blocks_input_gradient(self, delta: Array, w: Array) -> Array: ...
    def outer_sum(self, delta: Array, p: Array, keep: int = 0) -> Array: ...
    def outer_products(self, delta: Array, p: Array, delta2: Array, p2: Array) -> Array: ...
    def row_sums(self, index: Array, delta: Array, rows: int) -> Array: ...
    def row_dots(self, a: Array, b: Array) -> Array: ...
    def row_products(self, a: Array, b: Array) -> Array: ...
    def window_squares(self, x: Array, g: Geometry) -> Array: ...
    def conv_kernel_squares(self, dy: Array, x: Array, g: Geometry) -> Array: ...
    def max_pool(self, x: Array, g: Geometry) -> Array: ...
    def max_pool_backward(self, dy: Array, x: Array, y: Array, g: Geometry, ties: str) -> Array: ...
    def avg_pool(self, x: Array, g: Geometry, count_padding: bool) -> Array: ...
    def avg_pool_backward(self, dy: Array, g: Geometry, spatial: Index, count_padding: bool) -> Array: ...
    def sigmoid(self, x: Array) -> Array: ...
    def sigmoid_backward(self, dy: Array, y: Array) -> Array: ...
    def tanh(self, x: Array) -> Array: ...
    def tanh_backward(self, dy: Array, y: Array) -> Array: ...
    def relu(self, x: Array) -> Array: ...
    def relu_backward(self, dy: Array, y: Array) -> Array: ...
    def softmax(self, x: Array, axis: int) -> Array: ...
    def softmax_backward(self, dy: Array, y: Array, axis: int) -> Array: ...
    def batch_statistics(self, x: Array) -> tuple[Array, Array]: ...
    def normalize(self, x: Array, mean: Array, inverse_std: Array) -> Array: ...
    def scale_shift(self, x: Array, scale: Array, shift: Array) -> Array: ...
    def normalize_backward(self, dy: Array, normal: Array, factor: Array) -> Array: ...
    def cross_entropy(self, scores: Array, labels: Array, smoothing: float, count: float) -> tuple[float, Array]: ...
    def sgd(
        self,
        values: Arrays,
        gradients: Arrays,
        velocities: Arrays,
        lr: float,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
    ) -> tuple[Arrays, Arrays]: ...
    def adam(
        self,
        values: Arrays,
        gradients: Arrays,
        means: Arrays,
        squares: Arrays,
        steps: list[int],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        decoupled: bool,
    ) -> tuple[Arrays, Arrays, Arrays]: ...


try:
    from sharedgrad.kernels import native
    from sharedgrad.kernels.native.recycled import empty as recycled

    _fastest: Kernels = native
    empty: Callable[..., Array] = recycled
except ImportError:  # nothing was compiled where this was installed
    _fastest, empty = vectorized, np.empty

_COMPILED = (np.dtype(np.float32), np.dtype(np.float64))
_chosen: ContextVar[Kernels | None] = ContextVar("sharedgrad kernels", default=None)


def of(array: Any) -> Kernels:
    """The kernels that serve this array, by its type.

    NumPy arrays are served by the kernels chosen with :func:`use`, else by the fastest for their dtype; PyTorch's
    tensors, recognized without importing it, by the names in ``kernels.torch``, those that uses need.

    Raises:
        ConfigError: There are no kernels for arrays of this type.
    """
    if isinstance(array, np.ndarray | np.generic):
        return _chosen.get() or (_fastest if array.dtype in _COMPILED else vectorized)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        from sharedgrad.kernels import torch as tensors

        return cast(Kernels, tensors)
    raise ConfigError("kernels.of", f"expected a NumPy array or a PyTorch tensor, got {type(array).__name__}")


def programs() -> bool:
    """Whether whole networks run as compiled programs now: there are compiled kernels, and no others were chosen."""
    return compiled() and _chosen.get() in (None, _fastest)


def compiled() -> bool:
    """Whether the compiled kernels were built where this was installed."""
    return _fastest is not vectorized


_winograd = True


def set_winograd(on: bool) -> None:
    """Whether 3×3 convolutions in float32 may take fewer multiplications (as they do at first) or keep to plain sums.

    Minimal filtering (Winograd 1980; Lavin & Gray 2016) is faster and rounds 2 to 6 times as much: docs/kernels.md has
    figures. Only the compiled kernels use it, at stride 1. The setting holds for all threads of the process.

    Raises:
        ConfigError: ``on`` is neither True nor False.
    """
    global _winograd
    if not isinstance(on, bool):
        raise ConfigError("set_winograd", f"expected True or False, got {on!r}")
    _winograd = on
    if compiled():
        native._native.filter_minimally(on)


def get_winograd() -> bool:
    """Whether minimal filtering serves 3×3 convolutions."""
    return _winograd and compiled()


def plain_sums() -> bool:
    """Whether minimal filtering has been turned off, here or where nothing was compiled."""
    return not _winograd


@contextmanager
def use(name: Literal["reference", "vectorized", "native"]) -> Iterator[None]:
    """Within this block, compute with the named kernels: ``with kernels.use("reference"): …``.

    Raises:
        ConfigError: There are no kernels of that name, or none were compiled.
    """
    token = _chosen.set(_named(name))
    try:
        yield
    finally:
        _chosen.reset(token)


def _named(name: str) -> Kernels:
    if name == "reference":
        from sharedgrad.kernels import reference

        return reference
    if name == "vectorized":
        return vectorized
    if name == "native" and compiled():
        return _fastest
    if name == "native":
        raise ConfigError("kernels.use", "no kernels were compiled", "install again where there is a C++ compiler")
    raise ConfigError("kernels.use", f"expected 'reference', 'vectorized' or 'native', got {name!r}")
