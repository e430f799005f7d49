import numpy as np
import pytest

from sharedgrad.data import Augmentation
from sharedgrad.errors import ConfigError, ShapeError


def images(n: int = 400, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(2).integers(1, 256, (n, 2, 6, 5)).astype(dtype)


def test_flip_mirrors_about_half_of_the_images_left_to_right() -> None:
    x = images()
    y = Augmentation(flip=True, crop=0)(x, np.random.default_rng(0))
    mirrored = (y == x[..., ::-1]).all(axis=(1, 2, 3))
    assert ((y == x).all(axis=(1, 2, 3)) | mirrored).all()
    assert 160 < mirrored.sum() < 240


def test_crop_gives_every_shift_and_fills_with_zeros() -> None:
    x = images()
    y = Augmentation(flip=False, crop=2)(x, np.random.default_rng(0))
    padded = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)))
    seen = set()
    for i in range(len(x)):
        shifts = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if np.array_equal(y[i], padded[i, :, top : top + 6, left : left + 5])
        ]
        assert len(shifts) == 1
        seen.update(shifts)
    assert len(seen) == 25


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_input_stays_and_type_and_shape_are_kept(dtype: type) -> None:
    x = images(20, dtype)
    before = x.copy()
    y = Augmentation(flip=True, crop=2)(x, np.random.default_rng(0))
    np.testing.assert_array_equal(x, before)
    assert (y.dtype, y.shape) == (x.dtype, x.shape)


def test_same_generator_state_gives_the_same_images() -> None:
    x, augment = images(), Augmentation(flip=True, crop=3)
    first, again, other = (augment(x, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", None),
        ("flip", Augmentation(flip=True, crop=0)),
        ("crop", Augmentation(flip=False, crop=4)),
        ("flip,crop", Augmentation()),
        (" crop=2 , flip ", Augmentation(flip=True, crop=2)),
    ],
)
def test_option_text(text: str, expected: Augmentation | None) -> None:
    assert Augmentation.parse(text) == expected


@pytest.mark.parametrize("text", ["", "flop", "flip,", "none,flip", "crop=", "crop=-1", "crop=²", "crop=1.5", "flip=2"])
def test_foreign_option_text_names_the_option(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--augment: .* is not understood; give none, flip, crop"):
        Augmentation.parse(text)


def test_shift_as_large_as_the_image() -> None:
    with pytest.raises(ConfigError, match="up to 5 pixels can empty images of 6×5"):
        Augmentation(crop=5)(images(2), np.random.default_rng(0))
    with pytest.raises(ConfigError, match="from 0 up"):
        Augmentation(crop=-1)


def test_images_without_channel_axis() -> None:
    with pytest.raises(ShapeError, match=r"expected images \(N, C, H, W\), got shape \(3, 6, 5\)"):
        Augmentation()(np.zeros((3, 6, 5)), np.random.default_rng(0))
