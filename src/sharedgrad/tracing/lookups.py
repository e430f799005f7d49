"""Rows that are looked up in a parameter: embeddings, and tables of positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sharedgrad.tracing.place import Place
from sharedgrad.tracing.site import Site, Use, lead
from sharedgrad.tracing.weights import Held
from sharedgrad.uses import Lookup, Uses

Spread = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # the gradient at rows, and which rows: what they learn


def embedding(site: Site) -> list[Use] | None:
    """Rows of a table; the row of ``padding_idx`` learns nothing."""
    index, w, padding, _, _, by_frequency = site.bound(
        "input weight padding_idx max_norm norm_type scale_grad_by_freq", norm_type=2.0
    )

    def learned(delta: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        if by_frequency:
            delta = delta / torch.bincount(rows.reshape(-1), minlength=w.shape[0])[rows][..., None]
        if padding is not None:
            delta = delta.masked_fill((rows == padding % w.shape[0])[..., None], 0)
        return delta

    return _rows(site, w, index, learned)


def indexed(site: Site) -> list[Use] | None:
    """w[index], w a matrix and the index whole numbers in a tensor or a list."""
    w, index = site.args
    if isinstance(index, list) and all(type(i) is int for i in index):
        index = torch.tensor(index, device=w.device)
    if not isinstance(index, torch.Tensor) or index.dtype not in (torch.int64, torch.int32):
        return None
    return _rows(site, w, index)


def selected(site: Site) -> list[Use] | None:
    """Rows of a matrix by ``index_select``."""
    w, dim, index = site.bound("input dim index")
    return _rows(site, w, index) if dim % w.ndim == 0 else None


def _rows(site: Site, w: Any, index: torch.Tensor, learned: Spread | None = None) -> list[Use] | None:
    seen = site.seen(w)
    if seen is None or w.ndim != 2:
        return None
    held, samples, meeting, count = Held(index.clone()), site.place(index), site.meeting, w.shape[0]

    def made(delta: torch.Tensor, place: Place | None) -> Uses:
        """Of the gradient at the rows, or at a sum that they were broadcast to."""
        rows = held.get().long() % count
        delta = delta if learned is None else learned(delta, rows)
        chosen = rows.expand(delta.shape[:-1])
        axes = lead(chosen.shape, range(chosen.ndim), place, "token")
        return Lookup(seen.weight, axes.first(chosen).cpu(), axes.first(delta), axes.axes, seen.view)

    meeting.seen, meeting.rows = seen, made
    return [Use(seen, lambda delta: made(delta, samples or meeting.place), lambda: meeting.whole)]
