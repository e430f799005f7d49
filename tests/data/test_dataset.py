from typing import Any

import numpy as np
import pytest

from sharedgrad.data import Dataset
from sharedgrad.errors import ConfigError, DataError

RNG = np.random.default_rng(0)


def make(**changes: Any) -> Dataset:
    values: dict[str, Any] = {
        "name": "toys",
        "x": RNG.random((6, 1, 3, 2)),
        "y": np.array([0, 1, 0, 1, 0, 1]),
        "x_test": RNG.random((2, 1, 3, 2)),
        "y_test": np.array([1, 0]),
        "classes": ("car", "doll"),
    }
    return Dataset(**(values | changes))


def with_pixel(value: float) -> np.ndarray:
    x = np.zeros((30, 1, 600, 500), np.float32)
    x[21, 0, 590, 499] = value
    return x


def test_good_data_pass_with_and_without_test_part() -> None:
    assert make().input_shape == (1, 3, 2)
    assert make(x_test=None, y_test=None).x_test is None


ZEROS = np.zeros(6, np.int64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": np.array([0, 1])}, "6 training images, but 2 training labels"),
        ({"x": np.zeros((0, 1, 3, 2)), "y": ZEROS[:0]}, "training part is empty"),
        ({"x_test": np.zeros((0, 1, 3, 2)), "y_test": ZEROS[:0]}, "test part is empty"),
        ({"x": np.zeros((6, 1, 0, 2))}, r"\(6, 1, 0, 2\), expected \(N, C, H, W\)"),
        ({"x": np.zeros((6, 3, 2))}, r"expected \(N, C, H, W\)"),
        ({"x": np.zeros((6, 1, 3, 2), np.int32)}, "int32, expected uint8"),
        ({"y": ZEROS}, r"one class \('car'\)"),
        ({"y": np.array([0, 1, 0, 2, 0, 1])}, "training label 2 is out of range, expected 0 to 1"),
        ({"y": np.array([0, 1, 0, -1, 0, 1])}, "training label -1 is out of range"),
        ({"y_test": np.array([0, 5])}, "test label 5 is out of range"),
        ({"y": np.array([0.0, 1, 0, 1, 0, 1])}, "labels are float64"),
        (
            {"x_test": np.zeros((2, 1, 2, 3))},
            r"test images have shape \(1, 2, 3\), training images \(1, 3, 2\)",
        ),
        ({"x_test": None}, "must come together"),
        (
            {"y_test": np.array([0, 2]), "classes": ("car", "doll", "kite")},
            "'kite' has test samples but no training",
        ),
        ({"classes": ("car", "car")}, "same name"),
        ({"classes": ("car", "\udc80")}, "not valid text"),
        ({"x_test": np.full((2, 1, 3, 2), np.nan)}, "test image 0 has NaN or infinite"),
    ],
)
def test_bad_data_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"^toys: .*{message}"):
        make(**changes)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_found_in_any_chunk(value: float) -> None:
    with pytest.raises(DataError, match="training image 21 has NaN or infinite pixels"):
        make(x=with_pixel(value), y=np.arange(30) % 2)


def test_split_divides_each_class_by_the_fraction() -> None:
    y = np.repeat([0, 1, 2], [50, 20, 3])
    x = np.arange(73, dtype=np.float64)[:, None, None, None] * np.ones((1, 1, 2, 2))
    data = make(x=x, y=y, x_test=None, y_test=None, classes=("a", "b", "c"))
    train, held_out = data.split(0.2, seed=3)
    assert np.bincount(held_out.y).tolist() == [10, 4, 1]
    used = np.concatenate([train.x[:, 0, 0, 0], held_out.x[:, 0, 0, 0]])
    assert sorted(used) == list(range(73))
    for part in (train, held_out):
        np.testing.assert_array_equal(part.y, y[part.x[:, 0, 0, 0].astype(int)])


def test_split_depends_on_the_seed_alone() -> None:
    data = make(x=RNG.random((60, 1, 3, 2)), y=np.arange(60) % 2)
    first, again, other = (data.split(0.5, seed)[1].x for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_split_keeps_one_sample_of_each_class_in_training() -> None:
    data = make(y=np.array([0, 0, 0, 0, 0, 1]))
    train, held_out = data.split(0.99, seed=0)
    assert np.bincount(train.y).tolist() == [1, 1]
    assert held_out.y.tolist() == [0, 0, 0, 0]


def test_split_of_a_class_without_samples() -> None:
    train, held_out = make(classes=("car", "doll", "kite")).split(0.34, seed=0)
    assert (len(train.y), len(held_out.y)) == (4, 2)


def test_split_that_holds_out_nothing_says_so() -> None:
    with pytest.raises(DataError, match="holds out none of the 6 samples"):
        make().split(0.01, seed=0)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_senseless_fraction(fraction: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        make().split(fraction, seed=0)
