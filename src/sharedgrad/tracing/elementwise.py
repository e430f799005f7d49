"""Parameters that are added to an activation, multiply it, or are expanded: broadcast, one use for each repetition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sharedgrad.tracing.site import Build, Lead, Site, Use, lead
from sharedgrad.tracing.weights import Held, Seen
from sharedgrad.uses import Direct, Uses

Local = Callable[[], torch.Tensor] | float


def added(site: Site) -> list[Use] | None:
    """a + alpha · b."""
    a, b, alpha = site.bound("input other alpha", alpha=1)
    return _together(site, (a, b, 1.0), (b, a, float(alpha)))


def subtracted(site: Site) -> list[Use] | None:
    """a − alpha · b."""
    a, b, alpha = site.bound("input other alpha", alpha=1)
    return _together(site, (a, b, 1.0), (b, a, -float(alpha)))


def multiplied(site: Site) -> list[Use] | None:
    """a · b: the local derivative is the other factor."""
    a, b = site.bound("input other")
    return _together(site, (a, b, _value(b)), (b, a, _value(a)))


def divided(site: Site) -> list[Use] | None:
    """a / b, with a parameter above; one below is none of the first-class operations."""
    a, b = site.bound("input other")
    if site.kwargs.get("rounding_mode") or site.seen(b) is not None:
        return None
    held = Held(b) if isinstance(b, torch.Tensor) else None
    return _together(site, (a, b, 1 / b if held is None else lambda: 1 / held.get()))


def expanded(site: Site) -> list[Use] | None:
    """A parameter repeated along axes: its gradient is the sum over them."""
    (a,) = site.args[:1]
    seen = site.seen(a)
    return None if seen is None else [_use(site, seen, a, 1.0)]


def repeated(site: Site) -> list[Use] | None:
    """A parameter repeated along axes that have one index, as the biases of attention are: as :func:`expanded`."""
    (a,), out = site.args[:1], site.out
    seen = site.seen(a)
    own = (1,) * (out.ndim - a.ndim) + tuple(a.shape)
    if seen is None or any(n not in (1, m) for n, m in zip(own, out.shape, strict=True)):
        return None
    return [_use(site, seen, a, 1.0)]


def _value(tensor: Any) -> Local:
    return Held(tensor).get if isinstance(tensor, torch.Tensor) else float(tensor or 0)


def _together(site: Site, *sides: tuple[Any, Any, Local]) -> list[Use] | None:
    """The uses of the sides that show a parameter; None if what stands on the other side is no activation.

    A parameter that meets a number, a mask of its own shape or another parameter is not used by the model there: it is
    being regularized or reparametrized, and that is for somebody else to name.
    """
    found = []
    for tensor, other, local in sides:
        seen = site.seen(tensor)
        if seen is None:
            continue
        repeated = site.out.numel() > tensor.numel()
        if not isinstance(other, torch.Tensor) or site.seen(other) or not (site.known(other) or repeated):
            return None
        found.append(_use(site, seen, tensor, local))
    return found


def _use(site: Site, seen: Seen, tensor: torch.Tensor, local: Local) -> Use:
    """Contributions of the parameter's shape, one for each cell of the axes that it is repeated along."""
    out, own = tuple(site.out.shape), tuple(tensor.shape)
    missing = len(out) - len(own)
    dims = [d for d in range(len(out)) if d < missing or own[d - missing] == 1]
    known = [(t, site.place(t)) for t in _tensors(site) if site.known(t)]
    places = {p._replace(axis=p.axis + len(out) - t.ndim) for t, p in known if p is not None}
    samples = places.pop() if len(places) == 1 else None
    rest = "token" if dims == list(range(len(dims))) and len(dims) < 3 else "position"  # as of the last axes' norms

    def place() -> Lead:
        return lead(out, dims, samples if known else site.meeting.place, rest)

    return Use(seen, _build(seen, place, out, own, local))


def _tensors(site: Site) -> list[torch.Tensor]:
    return [a for a in (*site.args, *site.kwargs.values()) if isinstance(a, torch.Tensor)]


def _build(seen: Seen, place: Callable[[], Lead], out: tuple[int, ...], own: tuple[int, ...], local: Local) -> Build:
    def spread(values: torch.Tensor, ahead: Lead) -> torch.Tensor:
        lengths = tuple(n for lengths in ahead.axes.values() for n in lengths)
        return ahead.first(values.expand(out)).reshape(*lengths, *own)

    def build(delta: torch.Tensor) -> Uses:
        ahead = place()
        if isinstance(local, float | int):
            return Direct(seen.weight, spread(delta * local, ahead), ahead.axes, view=seen.view)
        factor = spread(local().to(delta.dtype), ahead)
        return Direct(seen.weight, spread(delta, ahead), ahead.axes, factor, seen.view)

    return build
