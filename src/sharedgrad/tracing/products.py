"""Matrix products with a parameter, and rows that are looked up in one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sharedgrad.tracing.place import Place
from sharedgrad.tracing.site import Build, Lead, Site, Use, lead
from sharedgrad.tracing.weights import Held, Seen
from sharedgrad.uses import Direct, Lookup, Outer, View
from sharedgrad.uses import Uses as AnyUses


def linear(site: Site) -> list[Use] | None:
    """y = x wᵀ + b: one use for each vector of x."""
    x, w, b = site.bound("input weight bias")
    if w.ndim != 2:
        return None
    place = _vectors(site, x)
    return site.uses((w, _outer(Held(x), place, View())), (b, _vector(place)))


def matmul(site: Site) -> list[Use] | None:
    """x @ w, w @ x, with a matrix w; also with vectors."""
    first, second = (site.bound("self other") if "other" in site.kwargs else site.bound("self mat2"))[:2]
    return _product(site, *((second, first) if site.name == "__rmatmul__" else (first, second)))


def _product(site: Site, left: Any, right: Any, scale: float = 1.0) -> list[Use] | None:
    found: list[Use] = []
    if (seen := site.seen(right)) is not None:
        if right.ndim != 2:
            return None
        build = _outer(Held(left), _vectors(site, left), View.transpose(tuple(right.shape)), scale)
        found.append(Use(seen, build(seen)))
    if (seen := site.seen(left)) is not None:
        if left.ndim != 2:
            return None
        found.append(Use(seen, _columns(site, right, scale)(seen)))
    return found


def addmm(site: Site) -> list[Use] | None:
    """beta · bias + alpha · x @ w, as GPT-2's layers call it."""
    bias, left, right, beta, alpha = site.bound("input mat1 mat2 beta alpha", beta=1, alpha=1)
    found = _product(site, left, right, float(alpha))
    if found is None or (site.seen(bias) is not None and (bias.ndim != 1 or beta == 0)):
        return None
    samples = next((site.place(t) for t in (left, right) if site.place(t) is not None), None)
    place = lead(site.out.shape, (0,), samples, "token")
    return found + site.uses((bias, _vector(place, float(beta))))


def embedding(site: Site) -> list[Use] | None:
    """Rows of a table; the row of ``padding_idx`` learns nothing."""
    index, w, padding, _, _, by_frequency = site.bound(
        "input weight padding_idx max_norm norm_type scale_grad_by_freq", norm_type=2.0
    )
    held, samples, meeting = Held(index.clone()), site.place(index), site.meeting

    def rows(seen: Seen) -> Callable[[torch.Tensor, Place | None], AnyUses]:
        def made(delta: torch.Tensor, place: Place | None) -> AnyUses:
            """Of the gradient at the rows, or at a sum that they were broadcast to."""
            looked_up = held.get()
            if by_frequency:
                delta = delta / torch.bincount(looked_up.reshape(-1), minlength=w.shape[0])[looked_up][..., None]
            chosen = looked_up.expand(delta.shape[:-1])
            if padding is not None:
                delta = delta.masked_fill((chosen == padding % w.shape[0])[..., None], 0)
            axes = lead(chosen.shape, range(chosen.ndim), place, "token")
            return Lookup(seen.weight, axes.first(chosen).cpu(), axes.first(delta), axes.axes, seen.view)

        return made

    seen = site.seen(w)
    if seen is None:
        return []
    meeting.seen, meeting.rows = seen, rows(seen)
    return [Use(seen, lambda delta: meeting.rows(delta, samples or meeting.place), lambda: meeting.whole)]


def _vectors(site: Site, x: torch.Tensor) -> Lead:
    """The use axes of what multiplies the vectors of x (…, I)."""
    samples, dims = site.place(x), range(x.ndim - 1)
    known = samples if samples is not None and samples.axis in dims else None
    return lead(x.shape, dims, known, "token" if x.ndim < 4 else "position")


def _outer(held: Held, place: Lead, turned: View, scale: float = 1.0) -> Any:
    """δ ⊗ p for a weight that is seen as (O, I), or turned to be."""

    def build(seen: Seen) -> Build:
        def made(delta: torch.Tensor) -> AnyUses:
            patch = place.first(held.get().to(delta.dtype))
            delta = place.first(delta if scale == 1 else delta * scale)
            if patch.ndim > delta.ndim:  # the product with a vector has no last axis
                delta = delta[..., None]
            return Outer(seen.weight, delta[..., None, :], patch[..., None, :], place.axes, seen.view.then(turned))

        return made

    return build


def _columns(site: Site, right: torch.Tensor, scale: float) -> Any:
    """w (O, I) @ x (…, I, K): one use for each column of x; x may be a vector."""
    held, samples, vector = Held(right), site.place(right), right.ndim == 1
    shape = right.mT.shape if not vector else right.shape
    if samples is not None and not vector:  # I and K change places
        axis = {right.ndim - 1: right.ndim - 2, right.ndim - 2: None}.get(samples.axis, samples.axis)
        samples = None if axis is None else samples._replace(axis=axis)
    place = lead(shape, range(len(shape) - 1), None if vector else samples, "token")

    def build(seen: Seen) -> Build:
        def made(delta: torch.Tensor) -> AnyUses:
            x = held.get().to(delta.dtype)
            patch, delta = (x, delta) if vector else (place.first(x.mT), place.first(delta.mT))
            return Outer(seen.weight, delta[..., None, :] * scale, patch[..., None, :], place.axes, seen.view)

        return made

    return build


def _vector(place: Lead, scale: float = 1.0) -> Any:
    """A bias (O,): the upstream gradient of each vector."""

    def build(seen: Seen) -> Build:
        def made(delta: torch.Tensor) -> AnyUses:
            return Direct(seen.weight, place.first(delta if scale == 1 else delta * scale), place.axes, view=seen.view)

        return made

    return build
