"""Maps that make no sense are refused when a program is made, or when it runs on arrays of other sizes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("sharedgrad.kernels.native", reason="no kernels were compiled", exc_type=ImportError)

from sharedgrad.kernels.native.maps import Map
from sharedgrad.kernels.native.program import Builder, Program

THREE = Map(1, 1, 3, outside=0)
VECTOR = Builder(1, np.dtype(float)).lanes
BLOCK = Map(VECTOR, VECTOR, 3, outside=0)


def made(*maps: Map) -> Program:
    """A program that clears them, with one array from outside."""
    b = Builder(1, np.dtype(float))
    b.outside = 1
    for m in maps:
        b.emit("clear_margins", (m,))
    return b.build()


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ([replace(THREE, offset=-1)], "a size is out of range"),
        ([replace(THREE, samples=-1)], "a size is out of range"),
        ([replace(THREE, channels=-1)], "a size is out of range"),
        ([replace(THREE, channels=2**40)], "a size is out of range"),
        ([replace(BLOCK, margins=(0, 0, 0, 2**30 + 1))], "a size is out of range"),
        ([replace(THREE, samples=2**30, height=2**30)], "a size is out of range"),
        ([Map(1, 1, 3, kept=True, offset=2**62)], "a size is out of range"),
        ([replace(THREE, lanes=0)], "neither blocks for vectors of"),
        ([replace(THREE, lanes=3)], "neither blocks for vectors of"),
        ([replace(BLOCK, lanes=2 * VECTOR)], "neither blocks for vectors of"),
        ([replace(THREE, margins=(0, 0, 0, 1))], "neither blocks for vectors of"),
        ([Map(2**29, VECTOR, 3, by_channel=True)], "too many samples to lie by channel"),
        ([THREE, Map(1, 1, 2, outside=0)], "another map of the same array has 3 numbers"),
        ([Map(1, 1, 3, outside=3)], "there are 1 arrays from outside"),
    ],
)
def test_maps_that_make_no_sense_are_refused(maps: list[Map], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        made(*maps)


@pytest.mark.parametrize(
    "m",
    [
        replace(THREE, channels=4),
        replace(THREE, channels=2),
        replace(THREE, offset=1),
        replace(THREE, lanes=VECTOR, by_channel=True),  # a whole vector
        Map(1, 1, 3, kept=True),
    ],
)
def test_arrays_have_the_sizes_of_their_maps(m: Map) -> None:
    made(THREE).run(np.empty(0), [np.ones(3)])
    with pytest.raises(ValueError, match="an array has another size than its map"):
        made(m).run(np.empty(0), [np.ones(3)])


def test_a_program_keeps_to_the_vectors_that_it_was_written_for() -> None:
    kept, vector, *written = made(THREE).__reduce__()[1]
    with pytest.raises(AssertionError, match=f"vectors of {2 * vector} numbers, where they have {vector}"):
        Program(kept, 2 * vector, *written)
