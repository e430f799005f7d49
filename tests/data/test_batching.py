from typing import Any

import numpy as np
import pytest

from sharedgrad.data import Augmentation, Normalization, batches
from sharedgrad.errors import ConfigError, DataError

X = np.random.default_rng(0).integers(0, 256, (23, 1, 6, 6), dtype=np.uint8)
Y = np.arange(23)


def together(**options: Any) -> tuple[np.ndarray, np.ndarray]:
    parts = list(batches(X, Y, 5, **options))
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def test_an_epoch_holds_every_sample_once_with_its_label() -> None:
    x, y = together()
    assert sorted(y) == list(range(23))
    np.testing.assert_array_equal(x, X[y])
    assert x.dtype == X.dtype


def test_last_batch_holds_what_is_left() -> None:
    assert [len(y) for _, y in batches(X, Y, 5)] == [5, 5, 5, 5, 3]
    assert [len(y) for _, y in batches(X, Y, 23)] == [23]
    assert [len(y) for _, y in batches(X, Y, 99)] == [23]
    assert [len(y) for _, y in batches(X, Y, 1)] == [1] * 23


def test_order_depends_on_seed_and_epoch_alone() -> None:
    order = {key: tuple(together(seed=key[0], epoch=key[1])[1]) for key in [(0, 0), (0, 1), (1, 0)]}
    assert len(set(order.values())) == 3
    assert tuple(together(seed=0, epoch=1)[1]) == order[0, 1]
    assert tuple(together()[1]) == order[0, 0]


def test_order_does_not_depend_on_the_batch_size() -> None:
    other = np.concatenate([y for _, y in batches(X, Y, 7)])
    np.testing.assert_array_equal(other, together()[1])


def test_without_shuffling_the_order_is_the_images() -> None:
    np.testing.assert_array_equal(together(shuffle=False)[1], Y)


@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_are_the_callers_to_keep(shuffle: bool) -> None:
    labels = Y.copy()
    for x, y in batches(X, labels, 5, shuffle=shuffle):
        assert not np.shares_memory(x, X)
        y[:] = -1
    np.testing.assert_array_equal(labels, Y)


@pytest.mark.parametrize("start", range(7))
def test_an_epoch_taken_up_in_the_middle_goes_on_with_the_same_batches(start: int) -> None:
    options: dict[str, Any] = {
        "seed": 4,
        "epoch": 2,
        "augment": Augmentation(crop=2),
        "normalize": Normalization.of(X),
    }
    whole, rest = list(batches(X, Y, 5, **options)), list(batches(X, Y, 5, start=start, **options))
    assert len(rest) == max(0, 5 - start)
    for (x, y), (x_rest, y_rest) in zip(whole[start:], rest, strict=True):
        np.testing.assert_array_equal(x, x_rest)
        np.testing.assert_array_equal(y, y_rest)


def test_augmentation_differs_between_batches_epochs_and_seeds() -> None:
    def draws(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return rng.random(x.shape)

    seen = [
        x.ravel()[0]
        for seed in (0, 1)
        for epoch in (0, 1)
        for x, _ in batches(X, Y, 5, seed=seed, epoch=epoch, augment=draws)
    ]
    assert len(set(seen)) == len(seen) == 20


def test_normalization_comes_after_augmentation() -> None:
    black = next(batches(X, Y, 5, augment=lambda x, _: np.zeros_like(x), normalize=Normalization((10.0,), (2.0,))))[0]
    assert black.dtype == np.float32
    np.testing.assert_array_equal(black, np.full_like(black, -5))


def test_targets_of_any_shape() -> None:
    targets = np.random.default_rng(0).random((23, 2))
    _, target = next(batches(X, targets, 4, shuffle=False))
    np.testing.assert_array_equal(target, targets[:4])


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((X, Y[:3], 5), {}, DataError, "23 images, but 3 labels"),
        ((X[:0], Y[:0], 5), {}, DataError, "expected at least one sample"),
        ((X.tolist(), Y, 5), {}, DataError, "images: expected a NumPy array of samples, got list"),
        ((X, None, 5), {}, DataError, "labels: expected a NumPy array of samples, got NoneType"),
        ((X, np.array(3), 5), {}, DataError, "labels: .* got a single number"),
        ((X, Y, 0), {}, ConfigError, "size: expected a whole number of at least 1, got 0"),
        ((X, Y, 2.0), {}, ConfigError, "size: expected a whole number of at least 1, got 2.0"),
        ((X, Y, 5), {"seed": -1}, ConfigError, "seed"),
        ((X, Y, 5), {"epoch": "2"}, ConfigError, "epoch"),
        ((X, Y, 5), {"start": -2}, ConfigError, "start"),
    ],
)
def test_bad_arguments_are_refused_at_the_call(
    arguments: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        batches(*arguments, **options)
