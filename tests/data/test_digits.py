import numpy as np
from sklearn.datasets import load_digits

from sharedgrad.data import load


def test_digits_are_complete_and_use_the_whole_range() -> None:
    data = load("digits")
    assert data.x.shape == (1797, 1, 8, 8)
    assert data.x.dtype == np.uint8
    assert (data.x.min(), data.x.max()) == (0, 255)
    assert data.classes == tuple("0123456789")
    assert data.x_test is data.y_test is None


def test_pixels_and_labels_are_those_of_scikit_learn() -> None:
    data, source = load("digits"), load_digits()
    np.testing.assert_array_equal(data.y, source.target)
    np.testing.assert_array_equal(np.rint(data.x[:, 0] * (16 / 255)), source.images)
