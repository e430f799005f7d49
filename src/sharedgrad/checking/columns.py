"""Rows of meetings: which sample, position, filter, channel and kernel offset come together in one product.

The tables of terms of windowed layers, and the mistakes that change them, are written with these columns: an index
into x, w or y is worked out from them, so a mistake is the same line with one thing exchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from sharedgrad.errors import ConfigError
from sharedgrad.geometry import Geometry
from sharedgrad.parameter import Array
from sharedgrad.uses.terms import PADDING

Columns = Mapping[str, Array]  # name -> (M, k): one column for each axis that the name stands for
MOST_ROWS = 300_000  # products of one layer: beyond that, a search through all mistakes takes too long
_PAD_MODES: dict[str, Any] = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def windows(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...] | None, geometry: Geometry, padding_mode: str = "zeros"
) -> Columns:
    """Rows in the order (sample, position, filter, channel in the group, offset).

    Columns: sample, filter, channel (within the group), input_channel (1 each); position, offset and source (d each),
    where source is the cell of x, below 0 or beyond the end in the padding of zeros. Without a kernel's shape (pooling)
    every channel is its own filter and there is one channel.
    """
    d = geometry.rank
    filters, channels = (x_shape[1], 1) if w_shape is None else w_shape[:2]
    groups = filters if w_shape is None else geometry.groups
    shape = (x_shape[0], *geometry.output(x_shape[2:]), filters, channels, *geometry.kernel)
    limit_rows(shape)
    index = np.indices(shape).reshape(len(shape), -1).T
    position, offset = index[:, 1 : 1 + d], index[:, 3 + d :]
    before = np.array([pair[0] for pair in geometry.padding])
    source = position * geometry.stride - before + offset * geometry.dilation
    if padding_mode != "zeros":
        source = _mapped(source, x_shape[2:], geometry, padding_mode)
    filter_, channel = index[:, 1 + d, None], index[:, 2 + d, None]
    return {
        "sample": index[:, :1],
        "position": position,
        "filter": filter_,
        "channel": channel,
        "input_channel": filter_ // max(filters // groups, 1) * channels + channel,
        "offset": offset,
        "source": source,
    }


def limit_rows(shape: tuple[int, ...]) -> None:
    """Refuse a table that is too large.

    Raises:
        ConfigError: It would have more than ``MOST_ROWS`` rows.
    """
    if prod(shape) > MOST_ROWS:
        problem = f"{prod(shape):,} products are too many to try mistakes on (at most {MOST_ROWS:,})"
        raise ConfigError("check", problem, "take fewer samples, channels or positions")


def _mapped(source: Array, spatial: tuple[int, ...], geometry: Geometry, mode: str) -> Array:
    """The cells that the padding reads where it is not zeros."""
    columns = []
    for axis, (size, (before, after)) in enumerate(zip(spatial, geometry.padding, strict=True)):
        real = np.pad(np.arange(size), (before, after), _PAD_MODES[mode])
        columns.append(real[source[:, axis] + before])
    return np.stack(columns, axis=1)


def flat(shape: tuple[int, ...], *columns: Array) -> Array:
    """Flat index (M,) of the cells that the columns name together; ``PADDING`` where they lie outside."""
    index = np.concatenate(columns, axis=1)
    inside = np.all((index >= 0) & (index < np.array(shape)), axis=1)
    safe = np.where(inside.reshape(-1, 1), index, 0)
    return np.where(inside, np.ravel_multi_index(tuple(safe.T), shape), PADDING)
