"""Numbers as people write them, with what their digits promise.

An answer of 0.37 says: between 0.365 and 0.375. People round to so many decimals or to so many significant digits, and
some cut instead of rounding; a number with all its digits comes from a computer, in float32 or float64. Each of these
is a reading of the answer, and a value fits if it fits all numbers of the array under one reading.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sharedgrad.errors import DataError
from sharedgrad.parameter import Array

_SMALL = 3  # an array of so few numbers may end in zeros by chance
_FULL = 12  # so many significant digits: not rounded by a person


class Typed(float):
    """A number that remembers how it was written."""

    text: str

    def __new__(cls, text: str) -> Typed:
        """A number from its text."""
        number = super().__new__(cls, text)
        number.text = text
        return number


@dataclass(frozen=True)
class Answer:
    """One array that a person computed.

    Attributes:
        values: The numbers, float64.
        decimals: Decimals that each number shows, without trailing zeros unless they were typed.
        digits: Significant digits likewise.
        float32: Whether the numbers are known to come from float32.
        least_digits: Digits that the person used elsewhere: a small array alone cannot show how it was rounded.
        least_decimals: Decimals likewise.
        strict: Whether a small array is read with these digits and no others.
        written: The numbers as they were written, where ``values`` were worked out from them.
    """

    values: Array
    decimals: Array
    digits: Array
    float32: bool = False
    least_digits: int = 0
    least_decimals: int = 0
    strict: bool = False
    written: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.values.shape

    def reshaped(self, *shape: int) -> Answer:
        """The same numbers in another shape."""
        return replace(
            self,
            values=self.values.reshape(shape),
            decimals=self.decimals.reshape(shape),
            digits=self.digits.reshape(shape),
        )

    def moved(self, *axes: int) -> Answer:
        """The same numbers with their axes in another order."""
        return replace(
            self,
            values=self.values.transpose(axes),
            decimals=self.decimals.transpose(axes),
            digits=self.digits.transpose(axes),
        )

    def minus_from(self, base: Array) -> Answer:
        """base − answer, with the answer's digits: the step of an update."""
        return replace(self, values=base - self.values, written=self.values)

    def strictly(self) -> Answer:
        """A small array as if it were rounded to as many digits as the person's other answers; others as they are."""
        return replace(self, strict=self.values.size <= _SMALL and not self.computed)

    @property
    def most_decimals(self) -> int:
        """Decimals, if all numbers were rounded to the same number of them."""
        return int(self.decimals.max(initial=0))

    @property
    def most_digits(self) -> int:
        """Significant digits, likewise."""
        return int(self.digits.max(initial=0))

    @property
    def computed(self) -> bool:
        """Whether a computer printed all digits of at least one number."""
        return self.most_digits >= _FULL

    def readings(self) -> list[Array]:
        """Half the unit of the last digit of each number, for each way to have rounded; whole numbers are exact."""
        exact = np.zeros(self.shape)
        decimals = max(self.most_decimals, self.least_decimals) if self.strict else self.most_decimals
        fixed = [np.full(self.shape, 0.5 * 10.0**-decimals)] if decimals else [exact]
        digits = max(self.most_digits, self.least_digits) if self.strict else self.most_digits
        if digits < 2:
            return fixed
        size = np.abs(self.values if self.written is None else self.written)
        exponent = np.floor(np.log10(np.where(size == 0, 1, size)))
        significant = np.where(size == 0, exact, 0.5 * 10.0 ** (exponent - digits + 1))
        return [*fixed, significant]

    def noise(self) -> float:
        """The relative error of the arithmetic that may be in it, on top of the rounding of its digits."""
        if self.float32:
            return 4 * float(np.finfo(np.float32).eps)
        return 1e-10 if self.computed else 0.5 * float(np.finfo(np.float32).eps)

    def fits(self, array: Array, magnitude: Array | float) -> bool:
        """Whether an array is this answer, within its digits and the noise of its arithmetic.

        Args:
            array: What a procedure gives, in any shape that the answer can only have by dropping axes of length 1.
            magnitude: Σ |terms| of each number: what the noise is measured by.
        """
        if bare(array.shape) != bare(self.shape) or not np.isfinite(array).all():
            return False
        array = array.reshape(self.shape)
        slack = self._slack(array, magnitude)
        off = np.abs(self.values - array)
        if any((off <= half * (1 + 1e-9) + slack).all() for half in self.readings()):
            return True
        return self._cut_off(array, slack)

    def _slack(self, array: Array, magnitude: Array | float) -> Array:
        size = np.asarray(magnitude, np.float64)
        size = size.reshape(array.shape) if size.size == array.size else np.full(array.shape, size.max(initial=0.0))
        return self.noise() * (np.abs(array) + size) + 1e-300

    def _cut_off(self, array: Array, slack: Array) -> bool:
        """Whether every number is the array's with the later digits cut off instead of rounded."""
        if array.size <= _SMALL or self.computed or not self.most_decimals:
            return False
        unit = 10.0**-self.most_decimals
        toward_zero = np.abs(array) - np.abs(self.values)
        one_side = array * self.values >= 0
        return bool((one_side & (toward_zero >= -slack) & (toward_zero < unit + slack)).all())

    def wrong_cells(self, array: Array, magnitude: Array | float) -> Array:
        """A mask of the numbers that no reading explains (the reading that leaves the fewest is taken).

        All of them where the shape is another one.
        """
        if bare(array.shape) != bare(self.shape):
            return np.ones(self.shape, bool)
        if self.fits(array, magnitude):
            return np.zeros(self.shape, bool)
        array = array.reshape(self.shape)
        slack = self._slack(array, magnitude)
        masks = [~(np.abs(self.values - array) <= half * (1 + 1e-9) + slack) for half in self.readings()]
        return min(masks, key=lambda mask: int(mask.sum()))


def bare(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without its axes of length 1: people leave them out."""
    return tuple(n for n in shape if n != 1)


def read(value: Any, where: str) -> Answer:
    """An answer from numbers, nested lists, an array, a tensor, or text in any common notation.

    Raises:
        DataError: It is no array of numbers.
    """
    if isinstance(value, Answer):
        return value
    if isinstance(value, str):
        return _of_nested(parse(value, where), where)
    if isinstance(value, Mapping):
        raise DataError(where, "expected an array of numbers, got an object")
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray | np.generic):
        return _of_array(np.asarray(value), where)
    return _of_nested(value, where)


def _of_array(array: Array, where: str) -> Answer:
    if array.dtype.kind not in "fiub":
        raise DataError(where, f"expected numbers, got {array.dtype} values")
    kind = array.dtype if array.dtype.kind == "f" else np.dtype(np.float64)
    texts = [np.format_float_positional(v, trim="-") if kind.kind == "f" else str(v) for v in array.reshape(-1)]
    counts = np.array([_shown(t) for t in texts], dtype=np.int64).reshape(-1, 2)
    shape = array.shape
    return Answer(
        array.astype(np.float64), counts[:, 0].reshape(shape), counts[:, 1].reshape(shape), kind == np.float32
    )  # fmt: skip


def _of_nested(value: Any, where: str) -> Answer:
    shape, numbers = _flatten(value, where)
    texts = [n.text if isinstance(n, Typed) else repr(float(n)) if isinstance(n, float) else str(n) for n in numbers]
    counts = np.array([_shown(t) for t in texts], dtype=np.int64).reshape(-1, 2)
    values = np.array([float(n) for n in numbers], np.float64)
    if counts[:, 1].max(initial=0) >= _FULL and _is_float32(values):  # float32 numbers, written as doubles
        return _of_array(values.astype(np.float32).reshape(shape), where)
    return Answer(values.reshape(shape), counts[:, 0].reshape(shape), counts[:, 1].reshape(shape))


def _is_float32(values: Array) -> bool:
    with np.errstate(over="ignore"):
        return bool((values.astype(np.float32) == values).all())


def _flatten(value: Any, where: str, depth: int = 0) -> tuple[tuple[int, ...], list[Any]]:
    if isinstance(value, bool) or value is None or depth > 8:
        raise DataError(where, f"expected numbers, got {'deeper lists' if depth > 8 else value!r}")
    if isinstance(value, int | float | np.number):
        try:
            float(value)
        except OverflowError:
            raise DataError(where, "expected numbers that fit a float, got one with hundreds of digits") from None
        return (), [value]
    if isinstance(value, str):
        return _flatten(parse(value, where), where, depth)
    if not isinstance(value, Sequence | np.ndarray):
        raise DataError(where, f"expected an array of numbers, got {type(value).__name__}")
    parts = [_flatten(v, where, depth + 1) for v in value]
    if any(shape != parts[0][0] for shape, _ in parts):
        raise DataError(where, "expected rows of equal length", "fill the short rows up, or check the brackets")
    inner = parts[0][0] if parts else ()
    return (len(parts), *inner), [n for _, numbers in parts for n in numbers]


def _shown(text: str) -> tuple[int, int]:
    """(decimals, significant digits) that a number's text shows."""
    mantissa, _, exponent = text.strip().lower().lstrip("+-−").partition("e")
    whole, point, fraction = mantissa.partition(".")
    if point and fraction.strip("0") == "":  # 120.0: how a program writes a whole number
        fraction = ""
        significant = whole.strip("0")
        digits = len(whole.lstrip("0").rstrip("0")) if significant else 0
    else:
        digits = len((whole + fraction).lstrip("0"))
    shift = int(exponent) if re.fullmatch(r"[+-]?\d{1,4}", exponent) else 0
    return max(len(fraction) - shift, 0), digits


_NUMBER = re.compile(r"[-+−]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+−]?\d+)?(?:/\d+)?|[-+]?(?:nan|inf(?:inity)?)", re.IGNORECASE)
_WRAPPER = re.compile(r"^\s*(?:[\w.]+\s*\(\s*(?=[\[(])|\$+|\\[\[(])")
_LIMIT = 1_000_000


def parse(text: str, where: str) -> Any:
    """Nested lists of :class:`Typed` numbers from typed or pasted text.

    Python lists, what NumPy and PyTorch print, MATLAB's ``1 2; 3 4``, rows on lines, tables of Markdown, LaTeX's
    matrices, fractions such as 1/3, minus signs of any kind.

    Raises:
        DataError: It is not such text.
    """
    if len(text) > 32 * _LIMIT:
        raise DataError(where, f"expected at most {32 * _LIMIT:,} characters, got {len(text):,}")
    plain = text.replace("−", "-").replace("–", "-").replace("\u00a0", " ").strip()
    plain = re.sub(r"(?:,\s*)?(?:dtype|device|grad_fn|requires_grad)\s*=\s*[^\s,)]+(?:\([^)]*\))?", "", plain)
    plain = re.sub(r"\\(?:begin|end)\{[^}]*\}(?:\{[^}]*\})?|\\(?:left|right)[\[\](){}.|]*|\$|\\[\[\]]", " ", plain)
    plain = re.sub(r"\\[dt]?frac\{([-\d.]+)\}\{([-\d.]+)\}", r"\1/\2", plain)
    while _WRAPPER.match(plain) and plain.rstrip().endswith(")"):
        plain = _WRAPPER.sub("", plain).rstrip()[:-1].strip()
    if any(bracket in plain for bracket in "[({"):
        return _bracketed(plain, where)
    rows = [
        r for r in re.split(r"\\\\|;|\n", plain) if r.strip(" |&,\t") and not re.fullmatch(r"[\s|:+-]*-[\s|:+-]*", r)
    ]
    parsed = [_row(r, where) for r in rows]
    if not parsed:
        raise DataError(where, "expected numbers, got an empty text")
    if len(parsed) == 1:
        return parsed[0][0] if len(parsed[0]) == 1 and not re.search(r"[,\s&|]", rows[0].strip()) else parsed[0]
    return parsed


def _row(text: str, where: str) -> list[Typed]:
    words = [w for w in re.split(r"[,\s&|]+", text.strip()) if w]
    return [_number(word, where) for word in words]


def _number(word: str, where: str) -> Typed:
    if not _NUMBER.fullmatch(word):
        raise DataError(where, f"expected numbers, got {word[:30]!r}")
    if "/" in word:
        above, _, below = word.partition("/")
        if float(below) == 0:
            raise DataError(where, f"expected numbers, got {word[:30]!r}")
        return Typed(repr(float(above) / float(below)))
    return Typed(word)


def _bracketed(text: str, where: str) -> Any:
    depth = 0
    open_lists: list[list[Any]] = [[]]
    tokens = re.compile(r"[\[\](){}]|[^\[\](){},;\s]+|[,;\s]+")
    for token in tokens.findall(text):
        if token in "[({":
            depth += 1
            if depth > 8:
                raise DataError(where, "expected at most 8 axes, got deeper brackets")
            open_lists.append([])
        elif token in "])}":
            if depth == 0:
                raise DataError(where, "a bracket is closed that was never opened")
            depth -= 1
            done = open_lists.pop()
            open_lists[-1].append(done)
        elif token.strip(",; \t\r\n"):
            if token == "...":
                raise DataError(where, "some numbers are left out (…)", "print the whole array")
            open_lists[-1].append(_number(token, where))
        elif ";" in token and depth:  # MATLAB: [1 2; 3 4]
            open_lists[-1].append(";")
    if depth:
        raise DataError(where, "a bracket is not closed")
    outer = [_split_rows(item) for item in open_lists[0]]
    if not outer:
        raise DataError(where, "expected numbers, got an empty text")
    return outer[0] if len(outer) == 1 else outer


def _split_rows(item: Any) -> Any:
    if not isinstance(item, list):
        return item
    if ";" not in item:
        return [_split_rows(i) for i in item]
    rows: list[list[Any]] = [[]]
    for part in item:
        if part == ";":
            rows.append([])
        else:
            rows[-1].append(_split_rows(part))
    return [row for row in rows if row]


def together(answers: Mapping[str, Answer]) -> dict[str, Answer]:
    """Answers of one person: small arrays, which cannot show how they were rounded, know the digits of the others."""
    larger = [a for a in answers.values() if a.values.size > _SMALL and not a.computed]
    digits = max((a.most_digits for a in larger), default=0)
    decimals = max((a.most_decimals for a in larger), default=0)
    return {name: replace(a, least_digits=digits, least_decimals=decimals) for name, a in answers.items()}
