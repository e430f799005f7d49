"""The kinds of values that options take, besides those that click knows."""

from __future__ import annotations

import re
from math import isfinite

from click import BadParameter


def size(text: str) -> tuple[int, int]:
    """``32`` or ``32x48`` (height x width) -> (32, 32) or (32, 48)."""
    match = re.fullmatch(r"([1-9][0-9]{0,4})(?:[x×]([1-9][0-9]{0,4}))?", text)
    if not match:
        raise BadParameter(f"{text!r} is no size, expected e.g. 32 or 32x48 (height x width)")
    return int(match[1]), int(match[2] or match[1])


def shape(text: str) -> tuple[int, ...]:
    """``3,32,32`` -> (3, 32, 32)."""
    if not re.fullmatch(r"[1-9][0-9]{0,5}(,[1-9][0-9]{0,5})*", text):
        raise BadParameter(f"{text!r} is no shape, expected e.g. 3,32,32 (channels, height, width)")
    return tuple(map(int, text.split(",")))


def positive(text: str) -> float:
    """A finite number above 0."""
    return _between_0_and(float("inf"), text, "a finite number above 0")


def fraction(text: str) -> float:
    """A number from 0 to below 1."""
    return 0.0 if text.strip() == "0" else _between_0_and(1.0, text, "a number from 0 to below 1")


def _between_0_and(limit: float, text: str, expected: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not (isfinite(number) and 0 < number < limit):
        raise BadParameter(f"{text!r} is not {expected}")
    return number
