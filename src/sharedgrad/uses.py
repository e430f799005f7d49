"""The algebra of uses: the gradient of a shared weight, kept as the terms of its sum.

A *use* is one place where a weight enters the computation; its *contribution* is the upstream gradient at that
place times the local derivative; the gradient is the plain sum of the contributions. Four kinds cover every
layer. They hold factors, not contributions: δ_u and p_u of each use u, whose outer products add up to
G = Σ_u δ_u ⊗ p_u = ΔᵀP, so that any partial sum is a matrix product and nothing is materialized unasked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from math import prod

import numpy as np
from numpy.typing import ArrayLike

from sharedgrad import kernels
from sharedgrad.errors import ConfigError, ShapeError
from sharedgrad.geometry import Geometry, Ints, Padding, text
from sharedgrad.parameter import Array, Parameter, Weight, numbers

Axes = Mapping[str, tuple[int, ...]]
Index = tuple[int, ...]


class Uses(ABC):
    """All uses of one parameter in one call of one layer.

    Attributes:
        parameter: The shared weight.
        axes: What tells the uses apart, in order: name -> shape, e.g. ``{"sample": (64,), "position": (28, 28)}``.
    """

    def __init__(self, parameter: Weight, axes: Axes) -> None:
        self.parameter, self.axes = parameter, dict(axes)

    @property
    def shape(self) -> Index:
        """The lengths of all use axes, one after the other."""
        return tuple(n for lengths in self.axes.values() for n in lengths)

    @property
    def count(self) -> int:
        """The number of uses."""
        return prod(self.shape)

    def gradient(self) -> Array:
        """The sum of all contributions, in the parameter's shape."""
        return self.sum()

    @abstractmethod
    def sum(self, by: str | Sequence[str] = ()) -> Array:
        """Partial sums: one for each index of the axes in ``by``, over all other axes.

        Args:
            by: The axes to keep apart. ``()`` is the gradient, all axes are the single contributions.

        Returns:
            Array of shape (lengths of the axes in ``by``, in the order of ``axes``, then the parameter's shape).
        """

    def own(self, by: str | Sequence[str] = ()) -> Array:
        """``sum(by)`` in the Parameter's own shape, where the layer has seen a view of it."""
        total, seen = self.sum(by), self.parameter
        if seen.view.identity:
            return total
        return np.ascontiguousarray(seen.view.back(total, total.ndim - len(seen.shape), seen.base.shape))

    @abstractmethod
    def part(self, samples: slice, weights: Array | None = None) -> Uses:
        """The uses of some samples alone, their contributions multiplied by one weight (len,) for each sample."""

    @abstractmethod
    def factors(self, **use: int | Sequence[int]) -> tuple[Array, ...]:
        """The factors of one use, given by an index on every axis, e.g. ``factors(sample=0, position=(3, 4))``."""

    @abstractmethod
    def contribution(self, **use: int | Sequence[int]) -> Array:
        """The contribution of one use, in the parameter's shape."""

    @abstractmethod
    def terms(self, *element: int) -> Array:
        """What every use contributes to one element of the parameter: an array of shape :attr:`shape`."""

    def place(self, index: Index) -> dict[str, Index]:
        """An index over all use axes, taken apart axis by axis: what ``contribution(**place)`` takes."""
        use: dict[str, Index] = {}
        start = 0
        for name, lengths in self.axes.items():
            use[name] = index[start : start + len(lengths)]
            start += len(lengths)
        return use

    def _of_samples(self, array: Array, samples: slice, weights: Array | None = None) -> Array:
        """A factor's part that belongs to some samples, perhaps times one weight for each."""
        (axis,) = self._kept("sample")
        chosen = array[(slice(None),) * axis + (samples,)]
        if weights is None:
            return chosen
        shape = [-1 if i == axis else 1 for i in range(array.ndim)]
        return np.asarray(chosen * weights.reshape(shape).astype(array.dtype))

    def _fewer(self, samples: slice) -> dict[str, tuple[int, ...]]:
        """The axes of some samples' uses."""
        return {**self.axes, "sample": (len(range(*self.axes["sample"])[samples]),)}

    def _kept(self, by: str | Sequence[str]) -> list[int]:
        """The axis numbers that ``by`` keeps apart."""
        names = (by,) if isinstance(by, str) else tuple(by)
        for name in names:
            if name not in self.axes:
                raise ConfigError(
                    f"uses of {self.parameter.name}",
                    f"there is no axis {name!r}",
                    f"choose from {', '.join(self.axes)}",
                )
        numbers: list[int] = []
        start = 0
        for name, lengths in self.axes.items():
            if name in names:
                numbers += range(start, start + len(lengths))
            start += len(lengths)
        return numbers

    def _index(self, use: Mapping[str, int | Sequence[int]]) -> Index:
        """One number for each use axis, checked."""
        index: Index = ()
        for name, lengths in self.axes.items():
            given = use.get(name, ())
            part = tuple(given) if isinstance(given, Iterable) else (given,)
            fits = all(isinstance(i, int | np.integer) and 0 <= i < n for i, n in zip(part, lengths, strict=False))
            if len(part) != len(lengths) or not fits:
                expected = ", ".join(f"0 to {n - 1}" for n in lengths)
                raise ConfigError(
                    f"uses of {self.parameter.name}",
                    f"expected {name}={expected}, got {name}={use.get(name)!r}",
                )
            index += part
        if unknown := set(use) - set(self.axes):
            raise ConfigError(f"uses of {self.parameter.name}", f"there is no axis {', '.join(sorted(unknown))}")
        return index

    def _element(self, element: Index) -> int:
        """The flat number of one element of the parameter, checked."""
        shape = self.parameter.shape
        fits = all(isinstance(i, int | np.integer) and -n <= i < n for i, n in zip(element, shape, strict=False))
        if len(element) != len(shape) or not fits:
            raise ConfigError(f"uses of {self.parameter.name}", f"no element {element} in shape {shape}")
        return int(np.ravel_multi_index(tuple(i % n for i, n in zip(element, shape, strict=True)), shape))

    def __repr__(self) -> str:
        axes = ", ".join(f"{name} {text(lengths)}" for name, lengths in self.axes.items())
        return f"{type(self).__name__}({self.parameter.name} {text(self.parameter.shape)}: {self.count} uses, {axes})"

    def __str__(self) -> str:
        """The sum written out, where it is short enough to read."""
        if self.count * prod(self.parameter.shape) > 200:
            return repr(self)
        rows = [self._row(index) for index in np.ndindex(*self.shape)]
        left = max(len(row[0]) for row in rows)
        middle = max(len(row[1]) for row in rows)
        lines = [f"{a:<{left}}  {b:<{middle}} = {c}" for a, b, c in rows]
        name = f"gradient of {self.parameter.name}"
        return "\n".join([*lines, f"{name:<{left + middle + 2}} = {_numbers(self.gradient())}"])

    def _row(self, index: Index) -> tuple[str, str, str]:
        use = self.place(index)
        where = ", ".join(f"{name} {','.join(map(str, use[name]))}" for name, n in self.axes.items() if prod(n) > 1)
        factors = " × ".join(_numbers(np.squeeze(f)) for f in self.factors(**use))
        return where, factors, _numbers(self.contribution(**use))


def _numbers(array: Array) -> str:
    return np.array2string(
        np.squeeze(array),
        precision=6,
        suppress_small=True,
        separator=", ",
        formatter={"float_kind": "{:.6g}".format},
    ).replace("\n", "")


class Outer(Uses):
    """Contributions δ_u ⊗ p_u in B blocks: a dense layer's weight (B = 1), an unshared kernel (B = positions).

    Args:
        parameter: The weight; its shape holds B·O·I elements in this order.
        delta: Upstream gradients (*U, B, O).
        patch: What the weight was multiplied with (*U, B, I).
        axes: Names and lengths of U.
    """

    def __init__(self, parameter: Weight, delta: Array, patch: Array, axes: Axes) -> None:
        super().__init__(parameter, axes)
        self.delta, self.patch = delta, patch

    def sum(self, by: str | Sequence[str] = ()) -> Array:
        """Σ_u δ_u ⊗ p_u over the axes that are not in ``by``: one matrix product for each index kept."""
        kept = self._kept(by)
        first = tuple(range(len(kept)))
        delta, patch = np.moveaxis(self.delta, kept, first), np.moveaxis(self.patch, kept, first)
        total = kernels.of(delta).outer_sum(delta, patch, len(kept))
        return total.reshape(*total.shape[: len(kept)], *self.parameter.shape)

    def part(self, samples: slice, weights: Array | None = None) -> Outer:
        """The weights go into δ_u."""
        delta, patch = self._of_samples(self.delta, samples, weights), self._of_samples(self.patch, samples)
        return Outer(self.parameter, delta, patch, self._fewer(samples))

    def factors(self, **use: int | Sequence[int]) -> tuple[Array, ...]:
        """δ_u (B, O) and p_u (B, I) of one use."""
        index = self._index(use)
        return self.delta[index].copy(), self.patch[index].copy()

    def contribution(self, **use: int | Sequence[int]) -> Array:
        """δ_u ⊗ p_u of one use."""
        delta, patch = self.factors(**use)
        return (delta[:, :, None] * patch[:, None, :]).reshape(self.parameter.shape)

    def terms(self, *element: int) -> Array:
        """δ_u[b,o] · p_u[b,i] for every use u."""
        flat, blocks, inputs = self._element(element), self.delta.shape[-2], self.patch.shape[-1]
        b, o, i = np.unravel_index(flat, (blocks, self.delta.shape[-1], inputs))
        return np.asarray(self.delta[..., b, o] * self.patch[..., b, i])


class Window(Uses):
    """A kernel that slides: one use for each sample and position, δ_u a pixel of the small map, p_u a window.

    Args:
        parameter: The kernel (F, C/groups, *K).
        small: The upstream gradient (N, F, *P).
        big: The input (N, C, *S), with any padding other than zeros already applied.
        geometry: How the window slides over ``big``.
    """

    def __init__(self, parameter: Weight, small: Array, big: Array, geometry: Geometry) -> None:
        super().__init__(parameter, {"sample": (len(small),), "position": small.shape[2:]})
        self.small, self.big, self.geometry = small, big, geometry

    def gradient(self) -> Array:
        """The sum over all samples and positions, without unfolding the windows into memory at once."""
        return kernels.of(self.small).conv_kernel_gradient(self.small, self.big, self.geometry)

    def sum(self, by: str | Sequence[str] = ()) -> Array:
        """Partial sums; kept apart by sample alone they cost what the gradient costs."""
        kept = self._kept(by)
        if not kept:
            return self.gradient()
        if kept == [0]:
            return kernels.of(self.small).conv_kernel_gradients(self.small, self.big, self.geometry)
        return self._unfolded(self.small, self.big).sum(by)

    def part(self, samples: slice, weights: Array | None = None) -> Window:
        """The weights go into δ_u."""
        small = self._of_samples(self.small, samples, weights)
        return Window(self.parameter, small, self.big[samples], self.geometry)

    def factors(self, **use: int | Sequence[int]) -> tuple[Array, ...]:
        """δ_u (groups, F/groups) and the window p_u (groups, C/groups · cells) of one use."""
        n, *position = self._index(use)
        return self._sample(n).factors(sample=0, position=position)

    def contribution(self, **use: int | Sequence[int]) -> Array:
        """δ_u ⊗ p_u of one use."""
        n, *position = self._index(use)
        return self._sample(n).contribution(sample=0, position=position)

    def terms(self, *element: int) -> Array:
        """δ[n,f,o] · x[n, c, o·stride − padding + k·dilation] for every sample n and position o."""
        f, c, *offset = np.unravel_index(self._element(element), self.parameter.shape)
        filters, channels, *_ = self.parameter.shape
        channel = int(f) // (filters // self.geometry.groups) * channels + int(c)
        padded = np.pad(self.big[:, channel], ((0, 0), *self.geometry.padding))
        reach = self.geometry.reach([int(k) for k in offset], self.small.shape[2:])
        return np.asarray(self.small[:, f] * padded[reach])

    def _sample(self, n: int) -> Outer:
        return self._unfolded(self.small[n : n + 1], self.big[n : n + 1])

    def _unfolded(self, small: Array, big: Array) -> Outer:
        patch = kernels.of(big).patches(big, self.geometry)
        delta = np.moveaxis(small, 1, -1).reshape(*patch.shape[:-1], -1)
        return Outer(self.parameter, delta, patch, {"sample": (len(small),), "position": small.shape[2:]})


class Direct(Uses):
    """Contributions that are the upstream gradient itself (or a product known already): biases, norm scales.

    Args:
        parameter: The parameter, of shape R.
        delta: One contribution for each use (*U, *R).
        axes: Names and lengths of U.
    """

    def __init__(self, parameter: Weight, delta: Array, axes: Axes) -> None:
        super().__init__(parameter, axes)
        self.delta = delta

    def sum(self, by: str | Sequence[str] = ()) -> Array:
        """Σ_u d_u over the axes that are not in ``by``."""
        kept = self._kept(by)
        return np.asarray(self.delta.sum(axis=tuple(a for a in range(len(self.shape)) if a not in kept)))

    def part(self, samples: slice, weights: Array | None = None) -> Direct:
        """The weights go into the contributions."""
        return Direct(self.parameter, self._of_samples(self.delta, samples, weights), self._fewer(samples))

    def factors(self, **use: int | Sequence[int]) -> tuple[Array, ...]:
        """The contribution alone: its local derivative is 1 or multiplied in already."""
        return (self.contribution(**use),)

    def contribution(self, **use: int | Sequence[int]) -> Array:
        """d_u of one use."""
        return np.array(self.delta[self._index(use)])

    def terms(self, *element: int) -> Array:
        """d_u at one element, for every use u."""
        flat = self.delta.reshape(*self.shape, -1)
        return np.array(flat[..., self._element(element)])


class Lookup(Uses):
    """Rows of a table that were read: each use adds its upstream gradient to the row that it read.

    Args:
        parameter: The table (V, D).
        index: Which row each use read (*U), integers from 0 to V − 1.
        delta: Upstream gradients (*U, D).
        axes: Names and lengths of U.
    """

    def __init__(self, parameter: Weight, index: Array, delta: Array, axes: Axes) -> None:
        super().__init__(parameter, axes)
        self.index, self.delta = index, delta

    def sum(self, by: str | Sequence[str] = ()) -> Array:
        """Σ_u over the axes that are not in ``by``; a row read several times adds, it is never assigned."""
        kept = self._kept(by)
        first = tuple(range(len(kept)))
        index = np.moveaxis(self.index, kept, first)
        lengths = index.shape[: len(kept)]
        index = index.reshape(prod(lengths), -1)
        delta = np.moveaxis(self.delta, kept, first).reshape(*index.shape, -1)
        total = np.zeros((len(index), *self.parameter.shape), self.delta.dtype)
        np.add.at(total, (np.arange(len(index))[:, None], index), delta)
        return total.reshape(*lengths, *self.parameter.shape)

    def part(self, samples: slice, weights: Array | None = None) -> Lookup:
        """The weights go into δ_u."""
        index, delta = self._of_samples(self.index, samples), self._of_samples(self.delta, samples, weights)
        return Lookup(self.parameter, index, delta, self._fewer(samples))

    def factors(self, **use: int | Sequence[int]) -> tuple[Array, ...]:
        """The row number and the upstream gradient (D,) of one use."""
        index = self._index(use)
        return np.array(self.index[index]), np.array(self.delta[index])

    def contribution(self, **use: int | Sequence[int]) -> Array:
        """A table of zeros with the upstream gradient in the row that was read."""
        row, delta = self.factors(**use)
        table = np.zeros(self.parameter.shape, self.delta.dtype)
        table[row] = delta
        return table

    def terms(self, *element: int) -> Array:
        """δ_u[d] where use u read this row, else 0."""
        row, column = np.unravel_index(self._element(element), self.parameter.shape)
        return np.where(self.index == row, self.delta[..., column], 0)


_AT_ONCE = 1 << 22  # numbers of gradients kept apart by sample that are in memory together


def squared_norms(calls: Sequence[Uses], samples: int) -> Array:
    """‖g_n‖² (N,) in float64 of one parameter: each sample's gradient, its uses in all calls added first."""
    squares = np.zeros(samples)
    step = max(1, _AT_ONCE // max(1, prod(calls[0].parameter.base.shape)))
    for start in range(0, samples, step):
        chosen = slice(start, start + step)
        total = calls[0].part(chosen).own("sample").astype(np.float64)
        for uses in calls[1:]:
            total += uses.part(chosen).own("sample")
        squares[chosen] = np.square(total).reshape(len(total), -1).sum(axis=1)
    return squares


def kernel_uses(
    x: ArrayLike,
    w: ArrayLike,
    upstream: ArrayLike,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
) -> Window:
    """The uses of one kernel on one single-channel input: the numbers as one would type them.

    Args:
        x: Input, with one axis (a signal) or two (an image).
        w: Kernel, with as many axes.
        upstream: Gradient of the loss with respect to each output position.
        stride: Distance between positions; padding and dilation as in ``Conv2d``.
        padding: Zeros around the input.
        dilation: Distance between kernel cells.

    Raises:
        ShapeError: The arrays do not fit together.

    >>> print(kernel_uses([1, 2, 3], w=[0.3, 0.5], upstream=[-0.1, 0.2]))
    position 0  -0.1 × [1, 2] = [-0.1, -0.2]
    position 1  0.2 × [2, 3]  = [0.4, 0.6]
    gradient of w             = [0.3, 0.4]
    """
    inputs, kernel, delta = (numbers(a, np.float64, "kernel_uses") for a in (x, w, upstream))
    if not inputs.ndim == kernel.ndim == delta.ndim or kernel.ndim == 0:
        axes = f"x {inputs.ndim}, w {kernel.ndim}, upstream {delta.ndim}"
        raise ShapeError("kernel_uses", f"expected the same number of axes everywhere, got {axes}")
    geometry = Geometry.of(kernel.ndim, kernel.shape, stride, padding, dilation, where="kernel_uses")
    if delta.shape != (positions := geometry.output(inputs.shape, "kernel_uses")):
        raise ShapeError("kernel_uses: upstream", f"expected shape {text(positions)}, got {text(delta.shape)}")
    parameter = Parameter((1, 1, *kernel.shape), lambda _, shape: kernel.reshape(shape), "w", np.float64)
    return Window(parameter, delta[None, None], inputs[None, None], geometry)
