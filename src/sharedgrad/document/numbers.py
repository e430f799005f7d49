"""How numbers and names are shown. Rounding happens here and nowhere else, for the eye alone."""

from __future__ import annotations

import unicodedata

DIGITS = 6  # significant digits


def show(value: float, digits: int = DIGITS) -> str:
    """A number with so many significant digits: ``0.1 + 0.2`` -> "0.3"; a zero never has a sign."""
    text = f"{value:.{digits}g}"
    return text[1:] if text in ("-0", "-0.0") else text


def shown(value: float, digits: int = DIGITS) -> float:
    """The number that :func:`show` prints, as somebody would type it into a calculator."""
    return float(show(value, digits))


def count(number: int, noun: str) -> str:
    """``3, "use"`` -> "3 uses"; thousands are separated."""
    return f"{number:,} {noun if number == 1 else noun + 's'}"


def printable(text: str) -> str:
    """Text without what could steer a terminal: control characters become their escapes, line ends blanks."""
    return "".join(_safe(c) for c in text)


def _safe(character: str) -> str:
    if character in "\n\t":
        return " "
    # \N{NO-BREAK SPACE} is "not printable" to Python, yet harmless; format characters may turn the line round
    if character.isprintable() or character == "\u00a0":
        return character
    return character.encode("unicode_escape").decode()


def columns(text: str) -> int:
    """How many columns of a terminal a text takes: wide characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
