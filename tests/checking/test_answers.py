"""Numbers as people write them: every common notation, what the digits promise, and one clear line for the rest."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad.checking.answers import Typed, parse, read, together
from sharedgrad.errors import SharedgradError

NOTATIONS = {
    "[[1, 2], [3, 4]]": [[1, 2], [3, 4]],
    "[[1. 2.]\n [3. 4.]]": [[1, 2], [3, 4]],
    "array([[1., 2.],\n       [3., 4.]], dtype=float32)": [[1, 2], [3, 4]],
    "tensor([[1., 2.], [3., 4.]], grad_fn=<MulBackward0>)": [[1, 2], [3, 4]],
    "np.array([1, 2])": [1, 2],
    "1 2; 3 4": [[1, 2], [3, 4]],
    "[1 2; 3 4]": [[1, 2], [3, 4]],
    "1 2\n3 4": [[1, 2], [3, 4]],
    "1,2\n3,4\n": [[1, 2], [3, 4]],
    "1\t2\n3\t4": [[1, 2], [3, 4]],
    "| 1 | 2 |\n|---|---|\n| 3 | 4 |": [[1, 2], [3, 4]],
    r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}": [[1, 2], [3, 4]],
    r"$\left[\begin{array}{cc} 1 & 2 \\ 3 & 4 \end{array}\right]$": [[1, 2], [3, 4]],
    "{{1, 2}, {3, 4}}": [[1, 2], [3, 4]],
    "-1.5e-3": -0.0015,
    "−2": -2,
    "1/4 1/2": [0.25, 0.5],
    "(1, 2, 3)": [1, 2, 3],
}


@pytest.mark.parametrize("text", NOTATIONS)
def test_pasted_arrays_are_read(text: str) -> None:
    np.testing.assert_allclose(read(text, "dw").values, NOTATIONS[text])


BAD: list[Any] = [
    "", "   ", "abc", "[1, 2", "1, 2]", "[[1, 2], [3]]", "1 2\n3", "[1, ..., 3]", "1/0", "[" * 50, "]" * 9, "0x10",
    None, True, {"a": 1}, [1, "x"], [1, None], [[1], 2], object(), [10**400], [[[[[[[[[[1]]]]]]]]]], np.array(["a"]),
    np.array([1j]), "nan [", "\x00", "--", "1e", "∞", ["1 2", "3"],
]  # fmt: skip


@pytest.mark.parametrize("value", BAD, ids=lambda v: repr(v)[:20])
def test_what_is_no_array_gets_one_clear_line(value: Any) -> None:
    with pytest.raises(SharedgradError, match=r"^answers: dw: [^\n]*$"):
        read(value, "answers: dw")


def test_random_text_never_ends_in_a_traceback() -> None:
    rng = np.random.default_rng(0)
    alphabet = list("0123456789.,;-+eE[](){}\\&| \n\tabxnif/$_=")
    for _ in range(3000):
        text = "".join(rng.choice(alphabet, int(rng.integers(1, 30))))
        try:
            read(text, "dw")
        except SharedgradError:
            continue


def test_random_json_never_ends_in_a_traceback() -> None:
    rng = np.random.default_rng(0)
    fields = ["layer", "x", "w", "b", "upstream", "answers", "stride", "padding", "layout", "step", "dtype", "loss",
              "learning_rate", "nodes", "numbers", "groups", "kernel_size"]  # fmt: skip
    values: list[Any] = ["conv2d", "conv1d", "linear", "relu", "x", 1, 0, -1, 2.5, None, True, [], {}, [1, 2, 3],
                         [[1, 2], [3, 4]], {"dw": [1]}, {"dw": [[1, 2], [3, 4]]}, {"y": 1}, "1 2; 3 4", 10**9, "NHWC",
                         [[[1]]], "float32"]  # fmt: skip
    base = {"layer": "conv2d", "x": [[1, 2, 3], [4, 5, 6], [7, 8, 9]], "w": [[1, 2], [3, 4]],
            "upstream": [[1, 0], [0, 1]], "answers": {"dw": [[1, 2], [3, 4]]}}  # fmt: skip
    for _ in range(400):
        data = dict(base)
        for _ in range(int(rng.integers(1, 4))):
            data[fields[int(rng.integers(len(fields)))]] = values[int(rng.integers(len(values)))]
        message, report = "", None
        try:
            report = sg.check_numbers(data, seconds=0.0)
        except SharedgradError as error:
            message = str(error)
        assert "\n" not in message
        if report is not None:
            json.dumps(report.to_json())
            assert str(report)


@pytest.mark.parametrize(
    ("text", "decimals", "digits"),
    [("0.37", 2, 2), ("12.30", 2, 4), ("120.0", 0, 2), ("0.00120", 5, 3), ("1.5e-3", 4, 2), ("7", 0, 1), ("250", 0, 3)],
)
def test_digits_are_counted(text: str, decimals: int, digits: int) -> None:
    answer = read([Typed(text)], "dw")
    assert (answer.most_decimals, answer.most_digits) == (decimals, digits)


def test_an_answer_stands_for_an_interval() -> None:
    answer = read([0.37, 1.25, -2.5, 0.01], "dw")
    assert answer.fits(np.array([0.374, 1.2451, -2.504, 0.014]), 1.0)
    assert not answer.fits(np.array([0.374, 1.2451, -2.51, 0.014]), 1.0)
    assert answer.fits(np.array([0.379, 1.259, -2.5, 0.019]), 1.0)  # cut off, every one of them
    assert not answer.fits(np.array([0.379, 1.241, -2.5, 0.019]), 1.0)


def test_whole_numbers_are_exact() -> None:
    answer = read([3, 4, 0, 12, 7], "dw")
    assert answer.fits(np.array([3.0, 4, 0, 12, 7]), 1.0)
    assert not answer.fits(np.array([3.0, 4, 0.4, 12, 7]), 1.0)
    assert not read([0, 0, 0, 0], "dw").fits(np.array([0.3, 0.2, 0.1, 0.4]), 1.0)


def test_significant_digits() -> None:
    answer = read([12.3, 0.0123, 1230.0, 0.00456], "dw")
    assert answer.fits(np.array([12.34, 0.01234, 1234.0, 0.004561]), 1.0)
    assert not answer.fits(np.array([12.34, 0.01234, 1234.0, 0.00461]), 1.0)


def test_float32_numbers_are_known_by_their_values() -> None:
    values = np.random.default_rng(0).normal(size=6).astype(np.float32)
    assert read(values, "dw").float32
    assert read(values.tolist(), "dw").float32
    assert not read(values.astype(float) * 1.1, "dw").float32


def test_a_small_array_knows_the_digits_of_the_others() -> None:
    sheet = together({"dw": read([0.123, 0.456, 1.789, 0.1], "dw"), "db": read([1.1], "db")})
    assert sheet["db"].fits(np.array([1.14]), 1.0)
    assert not sheet["db"].strictly().fits(np.array([1.14]), 1.0)
    assert sheet["db"].strictly().fits(np.array([1.1003]), 1.0)


def test_numbers_keep_their_text() -> None:
    (number,) = parse("0.50", "dw") if isinstance(parse("0.50", "dw"), list) else [parse("0.50", "dw")]
    assert number.text == "0.50"
