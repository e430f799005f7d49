"""Every strategy of a convolution, on shapes that are to take it, against NumPy."""

from __future__ import annotations

import pytest

from tests import exercise

pytestmark = pytest.mark.compiled


@pytest.mark.usefixtures("instruction_set")
def test_convolutions() -> None:
    exercise.convolutions()


@pytest.mark.usefixtures("instruction_set")
def test_convolutions_without_minimal_filtering() -> None:
    exercise.plainly()
