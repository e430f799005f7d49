import json
import re
from typing import Any

import numpy as np
import pytest

from sharedgrad.data import Normalization, capacity
from sharedgrad.errors import ConfigError, DataError, ShapeError

RNG = np.random.default_rng(5)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_measures_mean_and_deviation_per_channel_over_all_chunks(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "_CHUNK", 1000)
    x = (RNG.random((50, 3, 4, 5)) * [[[50]], [[120]], [[250]]]).astype(dtype)
    norm = Normalization.of(x)
    np.testing.assert_allclose(norm.mean, x.mean(axis=(0, 2, 3), dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(norm.std, x.std(axis=(0, 2, 3), dtype=np.float64), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normalized_training_part_has_mean_0_and_deviation_1(dtype: type) -> None:
    x = RNG.integers(0, 256, (200, 2, 6, 6), dtype=np.uint8)
    y = Normalization.of(x)(x, dtype)
    assert y.dtype == dtype
    np.testing.assert_allclose(y.mean(axis=(0, 2, 3), dtype=np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(y.std(axis=(0, 2, 3), dtype=np.float64), 1, rtol=1e-6)


def test_result_is_a_new_array_and_the_input_stays() -> None:
    x = RNG.random((4, 1, 2, 2)).astype(np.float32)
    before = x.copy()
    y = Normalization((0.0,), (1.0,))(x)
    assert not np.shares_memory(x, y)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("value", [0.0, 0.1, 7.3])
def test_constant_channel_has_deviation_1(value: float) -> None:
    x = np.full((1500, 2, 3, 3), value)
    x[:, 1] = RNG.random((1500, 3, 3))
    norm = Normalization.of(x)
    assert norm.std[0] == 1
    np.testing.assert_allclose(norm(x)[:, 0], 0, atol=1e-6)


def test_float64_pixels_beyond_float32_are_normalized_before_the_cast() -> None:
    x = 1e100 * RNG.random((50, 1, 3, 3))
    y = Normalization.of(x)(x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.std(), 1, rtol=1e-5)


def test_too_large_pixels_are_refused() -> None:
    with pytest.raises(DataError, match="too large to normalize"):
        Normalization.of(np.array([1e300, -1e300]).reshape(2, 1, 1, 1))


@pytest.mark.parametrize(
    ("x", "scale"),
    [
        (np.array([0, 1], np.uint8), 1.0),
        (np.array([0.0, 1.0]), 1 / 255),
        (np.array([0.2, 0.9], np.float32), 1 / 255),
        (np.array([-0.1, 0.5]), None),
        (np.array([0.0, 1.5]), None),
    ],
)
def test_range_of_image_files_follows_from_the_training_range(x: np.ndarray, scale: float | None) -> None:
    assert Normalization.of(x.reshape(2, 1, 1, 1)).scale == scale


def test_image_files_are_brought_to_the_training_range() -> None:
    pixels = RNG.integers(0, 256, (3, 2, 2), dtype=np.uint8)
    as_floats = Normalization((0.5, 0.4, 0.3), (0.1, 0.2, 0.3), scale=1 / 255)
    expected = (pixels / 255 - np.array([0.5, 0.4, 0.3])[:, None, None]) / np.array([0.1, 0.2, 0.3])[:, None, None]
    np.testing.assert_allclose(as_floats.from_file(pixels, np.float64), expected, rtol=1e-12)
    assert as_floats.from_file(pixels).dtype == np.float32
    as_bytes = Normalization((100.0, 90.0, 80.0), (50.0, 60.0, 70.0))
    np.testing.assert_array_equal(as_bytes.from_file(pixels), as_bytes(pixels))


def test_image_files_are_refused_where_the_range_is_unknown() -> None:
    with pytest.raises(DataError, match=r"floats outside \[0, 1\]"):
        Normalization((0.0,), (1.0,), scale=None).from_file(np.zeros((1, 2, 2), np.uint8))


def test_wrong_number_of_channels() -> None:
    with pytest.raises(ShapeError, match=re.escape("expected images (N, 1, H, W), got shape (2, 3, 4, 4)")):
        Normalization((0.0,), (1.0,))(np.zeros((2, 3, 4, 4)))


@pytest.mark.parametrize("scale", [1.0, 1 / 255, None])
def test_configuration_survives_json_exactly(scale: float | None) -> None:
    norm = Normalization((0.1, 1 / 3), (0.7, 1e-9), scale)
    assert Normalization.from_config(json.loads(json.dumps(norm.to_config()))) == norm


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"mean": [0], "std": [1]},
        {"mean": 0, "std": 1, "scale": 1},
        {"mean": ["a"], "std": [1], "scale": 1},
        {"mean": [0, 0], "std": [1], "scale": 1},
        {"mean": [], "std": [], "scale": 1},
        {"mean": [0], "std": [0], "scale": 1},
        {"mean": [float("nan")], "std": [1], "scale": 1},
        {"mean": [0], "std": [float("inf")], "scale": 1},
        {"mean": [0], "std": [1], "scale": -1},
        [],
    ],
)
def test_foreign_configuration_is_refused(config: Any) -> None:
    with pytest.raises(ConfigError, match=r"^normalization: expected"):
        Normalization.from_config(config)
