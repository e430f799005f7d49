"""Convolutions and transposed convolutions: windows that slide."""

from __future__ import annotations

from typing import Any

import torch

from sharedgrad.geometry import Geometry
from sharedgrad.tracing.site import Build, Site, Use
from sharedgrad.tracing.weights import Held, Seen
from sharedgrad.uses import Direct, Uses, Window


def convolution(site: Site) -> list[Use] | None:
    """conv1d to conv3d: one use of the kernel and of the bias for each sample and position of the output."""
    defaults = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    x, w, b, stride, padding, dilation, groups = site.bound(
        "input weight bias stride padding dilation groups", **defaults
    )
    rank = w.ndim - 2
    numbers = (_numbers(n, rank) for n in (stride, padding, dilation))
    steps, pads, dilations = numbers
    geometry = Geometry.of(rank, tuple(w.shape[2:]), steps, pads, dilations, groups, site.name)
    batched, axis, held = x.ndim == rank + 2, site.axis(x), Held(x)

    def kernel(seen: Seen) -> Build:
        def build(delta: torch.Tensor) -> Uses:
            small, big = (m if batched else m[None] for m in (delta, held.get().to(delta.dtype)))
            return _named(Window(seen.weight, small, big, geometry, view=seen.view), axis)

        return build

    return site.uses((w, kernel), (b, _bias(batched, axis)))


def transposed(site: Site) -> list[Use] | None:
    """conv_transpose1d to 3d: one use of the kernel for each sample and position of the *input*."""
    defaults = {"stride": 1, "padding": 0, "output_padding": 0, "groups": 1, "dilation": 1}
    x, w, b, stride, padding, extra, groups, dilation = site.bound(
        "input weight bias stride padding output_padding groups dilation", **defaults
    )
    rank = w.ndim - 2
    steps, befores, extras, dilations = (_each(n, rank) for n in (stride, padding, extra, dilation))
    # The output's additional cells lie behind the last window; what does not fit into the padding is cut off.
    after = [max(p - e, 0) for p, e in zip(befores, extras, strict=True)]
    cut = [max(e - p, 0) for p, e in zip(befores, extras, strict=True)]
    pads = tuple(zip(befores, after, strict=True))
    geometry = Geometry.of(rank, tuple(w.shape[2:]), steps, pads, dilations, groups, site.name)
    batched, axis, held = x.ndim == rank + 2, site.axis(x), Held(x)

    def kernel(seen: Seen) -> Build:
        def build(delta: torch.Tensor) -> Uses:
            ends = [slice(0, n - c) for n, c in zip(delta.shape[-rank:], cut, strict=True)]
            reached = delta[(slice(None),) * (delta.ndim - rank) + tuple(ends)]
            small, big = (m if batched else m[None] for m in (held.get().to(delta.dtype), reached))
            return _named(Window(seen.weight, small, big, geometry, upstream="big", view=seen.view), axis)

        return build

    return site.uses((w, kernel), (b, _bias(batched, axis)))


def _bias(batched: bool, axis: int | None) -> Any:
    def bias(seen: Seen) -> Build:
        def build(delta: torch.Tensor) -> Uses:
            maps = (delta if batched else delta[None]).movedim(1, -1)
            axes = {"sample": maps.shape[:1], "position": maps.shape[1:-1]}
            return _named(Direct(seen.weight, maps, axes, view=seen.view), axis)

        return build

    return bias


def _named(uses: Uses, axis: int | None) -> Uses:
    """The first axis is called "sample" only where it is known to tell samples apart."""
    if axis != 0:
        uses.axes = {"row" if name == "sample" else name: lengths for name, lengths in uses.axes.items()}
    return uses


def _numbers(value: Any, rank: int) -> Any:
    """A setting as ``Geometry.of`` reads it: PyTorch also takes one number in a list."""
    return value if isinstance(value, str) else _each(value, rank)


def _each(value: Any, rank: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * rank if len(values) == 1 else values
