"""Normalizations: weight and bias multiply and shift what is normalized, x̂; a contribution is dy · x̂, or dy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from sharedgrad.tracing.site import Build, Lead, Site, Use, lead
from sharedgrad.tracing.weights import Held, Seen
from sharedgrad.uses import Direct, Uses

Normalize = Callable[[torch.Tensor], torch.Tensor]


def layer(site: Site) -> list[Use] | None:
    """Each vector (or map) of the last axes normalized by itself."""
    x, shape, w, b, eps = site.bound("input normalized_shape weight bias eps", eps=1e-5)
    return _last_axes(site, x, shape, w, b, lambda v: functional.layer_norm(v, shape, None, None, eps))


def root_mean_square(site: Site) -> list[Use] | None:
    """As :func:`layer`, divided by the root of the mean square."""
    x, shape, w, eps = site.bound("input normalized_shape weight eps")
    return _last_axes(site, x, shape, w, None, lambda v: functional.rms_norm(v, shape, None, eps))


def group(site: Site) -> list[Use] | None:
    """Groups of channels normalized in each sample."""
    x, groups, w, b, eps = site.bound("input num_groups weight bias eps", eps=1e-5)
    return _channels(site, x, w, b, lambda v: functional.group_norm(v, groups, None, None, eps))


def batch(site: Site) -> list[Use] | None:
    """Channels normalized over the whole batch, or by the running statistics, as they were at this call."""
    names = "input running_mean running_var weight bias training momentum eps"
    x, mean, variance, w, b, training, _, eps = site.bound(names, training=False, eps=1e-5)
    mean, variance = _as_they_are(mean, variance, training)
    return _channels(site, x, w, b, lambda v: functional.batch_norm(v, mean, variance, None, None, training, 0.0, eps))


def instance(site: Site) -> list[Use] | None:
    """Each channel of each sample normalized by itself, or by the running statistics."""
    names = "input running_mean running_var weight bias use_input_stats momentum eps"
    x, mean, variance, w, b, own, _, eps = site.bound(names, use_input_stats=True, eps=1e-5)
    mean, variance = _as_they_are(mean, variance, own)
    return _channels(site, x, w, b, lambda v: functional.instance_norm(v, mean, variance, None, None, own, 0.0, eps))


def _as_they_are(mean: Any, variance: Any, own: bool) -> tuple[Any, Any]:
    """The running statistics, which later calls may change; none where the input's own are taken."""
    return (None, None) if own else (mean.clone(), variance.clone())


def _last_axes(site: Site, x: Any, shape: Any, w: Any, b: Any, normalize: Normalize) -> list[Use]:
    count = 1 if isinstance(shape, int) else len(shape)
    samples, dims = site.place(x), range(x.ndim - count)
    known = samples if samples is not None and samples.axis in dims else None
    place = lead(x.shape, dims, known, "token" if len(dims) < 3 else "position")
    return _affine(site, x, w, b, place, normalize)


def _channels(site: Site, x: Any, w: Any, b: Any, normalize: Normalize) -> list[Use]:
    axis = site.axis(x)
    positions = tuple(range(2, x.ndim))
    axes: dict[str, tuple[int, ...]] = {"sample" if axis == 0 else "row": (x.shape[0],)}
    if positions:
        axes["position"] = tuple(x.shape[2:])
    return _affine(site, x, w, b, Lead((0, *positions), axes), normalize)


def _affine(site: Site, x: torch.Tensor, w: Any, b: Any, place: Lead, normalize: Normalize) -> list[Use]:
    held = Held(x)

    def scale(seen: Seen) -> Build:
        def build(delta: torch.Tensor) -> Uses:
            normal = normalize(held.get().to(delta.dtype))
            return Direct(seen.weight, place.first(delta), place.axes, place.first(normal), seen.view)

        return build

    def shift(seen: Seen) -> Build:
        def build(delta: torch.Tensor) -> Uses:
            return Direct(seen.weight, place.first(delta), place.axes, view=seen.view)

        return build

    return site.uses((w, scale), (b, shift))
