import numpy as np
import pytest

from sharedgrad.data.labels import encode
from sharedgrad.errors import DataError


def test_numbers_with_gaps_become_indices() -> None:
    values, y, y_test = encode("here", np.array([7, 3, 7, 9], np.uint8), np.array([9, 3], np.uint8))
    assert values == [3, 7, 9]
    assert y.tolist() == [1, 0, 1, 2]
    assert y_test is not None
    assert y_test.tolist() == [2, 0]
    assert y.dtype == y_test.dtype == np.int64


def test_strings_are_sorted_whatever_their_lengths() -> None:
    values, y, y_test = encode("here", np.array(["dog", "cat"]), np.array(["cat"]))
    assert (values, y.tolist()) == (["cat", "dog"], [1, 0])
    assert y_test is not None
    assert y_test.tolist() == [0]


def test_without_test_part() -> None:
    assert encode("here", np.array([1, 0]), None)[2] is None


@pytest.mark.parametrize("unknown", [0, 2, 9])
def test_unknown_test_label_names_sample_and_label(unknown: int) -> None:
    with pytest.raises(DataError, match=f"^here: test sample 1 has label {unknown}, "):
        encode("here", np.array([1, 3]), np.array([1, unknown]))
