"""Single operations, each as a program of its own; a whole network in one program is the matter of ``plan``."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from sharedgrad.kernels.native import _native
from sharedgrad.kernels.native.maps import Map
from sharedgrad.kernels.native.program import Builder, Program, spatial
from sharedgrad.parameter import Array

Index = tuple[int, ...]
Kind = tuple[str, str]


def instruction_set() -> str:
    """The instruction set that was chosen for this processor: avx512, avx2 or baseline."""
    return str(_native.instruction_set())


def kind_of(array: Array) -> Kind:
    """What a program depends on besides shapes: the type's character and the instruction set."""
    return array.dtype.char, _native.instruction_set()


def contiguous(array: Array) -> Array:
    """The array in C order, each number at an address of its size's multiples; itself if it is so."""
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else np.array(array, order="C")


def run(program: Program, *arrays: Array) -> None:
    """Carry out a program that keeps nothing."""
    program.run(None, [contiguous(a) for a in arrays])


@lru_cache(512)
def operation(kind: Kind, name: str, shapes: tuple[Index | None, ...], *numbers: int) -> Program:
    """One operation on plain arrays (N, C, H, W), of which some may be missing; H and W may be left out."""
    b = builder(1, kind)
    b.emit(name, tuple(None if s is None else _array(b, *s) for s in shapes), *numbers)
    return b.build()


def _array(b: Builder, samples: int, channels: int, height: int = 1, width: int = 1) -> Map:
    return b.array(channels, height, width, samples)


def builder(samples: int, kind: Kind) -> Builder:
    """For N samples of this kind."""
    return Builder(samples, np.dtype(kind[0]))


def plain(b: Builder, shape: Index) -> Map:
    """A plain array (N, C, *S) from outside."""
    return b.array(shape[1], *spatial(shape[2:]), samples=shape[0])


def blocked(b: Builder, source: Map) -> Map:
    """A map that holds what a plain array does."""
    m = b.map(*source.shape)
    b.emit("relayout", (m, source))
    return m
