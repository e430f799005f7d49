"""The pictures of a page, as data that stand in it: images, maps of shares, bars. Red goes with the gradient."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from sharedgrad.errors import require
from sharedgrad.parameter import Array

_LEVELS = 24  # colours of one sign
_WITH, _AGAINST = (205, 45, 50), (35, 105, 190)
_LARGEST = 96  # pixels along an image of the page
_FINEST = 40  # and cells along a map


def image(pixels: Array, low: float, high: float, alt: str) -> str:
    """An image (C, H, W) whose values lie between ``low`` and ``high``."""
    scaled = np.clip((pixels.astype(np.float64) - low) / ((high - low) or 1.0), 0, 1)
    grey = len(pixels) not in (3, 4)
    eight_bits = np.round(255 * (scaled.mean(axis=0) if grey else scaled[:3].transpose(1, 2, 0))).astype(np.uint8)
    picture = _pillow().fromarray(eight_bits)
    if max(picture.size) <= _LARGEST:
        return _element(picture, "PNG", alt, "image")
    picture.thumbnail((_LARGEST, _LARGEST))
    return _element(picture, "JPEG", alt, "image")


def coarse(places: Array) -> Array:
    """A map of at most so many cells that they can be told apart: shares added up in squares."""
    step = -(-max(places.shape) // _FINEST)
    rows = np.add.reduceat(places, np.arange(0, places.shape[0], step), axis=0)
    return np.asarray(np.add.reduceat(rows, np.arange(0, places.shape[1], step), axis=1))


def share_map(places: Array, limit: float, alt: str) -> str:
    """Shares (rows, columns) on a scale from −limit to limit; where there is none, one sees through."""
    levels = np.clip(np.round(_LEVELS * places / (limit or 1.0)), -_LEVELS, _LEVELS).astype(np.int64)
    return _element(_colored(levels), "PNG", alt, "map")


def scale(limit: float) -> str:
    """The colours and what they stand for."""
    strip = _element(_colored(np.arange(-_LEVELS, _LEVELS + 1)[None]), "PNG", "", "strip")
    ends = f"<span>{percent(-limit)}</span><span>0</span><span>{percent(limit)}</span>"
    return f'<div class="scale">{strip}<div class="ends">{ends}</div></div>'


def bars(shares: Sequence[float], names: Sequence[str], label: str) -> str:
    """A bar for each share, above or below zero."""
    values = np.asarray(shares, np.float64)
    limit = float(np.abs(values).max()) or 1.0
    wide = 100 / len(values)
    drawn = []
    for number, (value, name) in enumerate(zip(values, names, strict=True)):
        height = 48 * abs(value) / limit
        top = 50 - height if value >= 0 else 50
        kind = "with" if value >= 0 else "against"
        place = f'x="{number * wide + 0.1 * wide:.3f}" y="{top:.3f}" width="{0.8 * wide:.3f}" height="{height:.3f}"'
        drawn.append(f'<rect class="{kind}" {place}><title>{html.escape(name)}: {percent(value)}</title></rect>')
    axis = '<path class="axis" d="M0 50H100"/>'
    role = f'role="img" aria-label="{html.escape(label, quote=True)}"'
    return f'<svg class="bars" viewBox="0 0 100 100" preserveAspectRatio="none" {role}>{"".join(drawn)}{axis}</svg>'


def percent(share: float) -> str:
    """With a sign that is as wide as a plus."""
    text = f"{100 * share:+.0f}" if abs(share) >= 0.995 else f"{100 * share:+.2g}"
    return f"{text.replace('-', '−')}\N{NO-BREAK SPACE}%"


def _colored(levels: Array) -> Any:
    """Levels from −_LEVELS to _LEVELS as a picture with a palette that is clear at zero."""
    steps = np.arange(-_LEVELS, _LEVELS + 1)
    colors = [_WITH if step > 0 else _AGAINST for step in steps]
    picture = _pillow().fromarray((levels + _LEVELS).astype(np.uint8), "P")
    picture.putpalette([channel for color in colors for channel in color])
    picture.info["transparency"] = bytes(int(v) for v in np.round(245 * np.sqrt(np.abs(steps) / _LEVELS)))
    return picture


def _element(picture: Any, form: str, alt: str, kind: str) -> str:
    file = io.BytesIO()
    picture.save(file, form, optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img class="{kind}" src="data:image/{form.lower()};base64,{data}" alt="{html.escape(alt, quote=True)}">'


def _pillow() -> Any:
    return require("PIL.Image", "the page's pictures")
