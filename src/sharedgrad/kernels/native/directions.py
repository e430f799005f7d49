"""What a few directions show of the channels of maps, compiled."""

from __future__ import annotations

from sharedgrad.kernels.native.operations import DIRECTIONS
from sharedgrad.kernels.native.recycled import empty
from sharedgrad.kernels.native.single import kind_of, operation, run
from sharedgrad.parameter import Array


def along_directions(x: Array, directions: Array) -> tuple[Array, Array]:
    """Σ_c x² and Σ_c d · x in one pass: x (N, groups, C, S), d (groups, C, 8) -> (N, groups, S), (N, groups, 8, S)."""
    samples, groups, channels, cells = x.shape
    squares, seen = empty((samples, groups, cells), x.dtype), empty((samples, groups, DIRECTIONS, cells), x.dtype)
    shapes = (samples, groups, 1, cells), seen.shape, x.shape, (groups, channels, 1, DIRECTIONS)
    run(operation(kind_of(x), "along_directions", shapes), squares, seen, x, directions)
    return squares, seen


def channel_uses(delta: Array, x: Array | None, coefficients: Array) -> tuple[Array, Array, Array]:
    """Uses t = δ · (a x + b) of channels, or δ alone, in one pass.

    Args:
        delta: (N, C, S), x likewise or None.
        coefficients: a, b and a direction v (3, C).

    Returns:
        Σ_c t² (N, S), Σ_c v · t (N, S), Σ_s t (N, C).
    """
    samples, channels, cells = delta.shape
    found = [empty(shape, delta.dtype) for shape in ((samples, cells), (samples, cells), (samples, channels))]
    map_of = samples, channels, 1, cells
    shapes = *(a.shape for a in found), map_of, None if x is None else map_of, (3, channels)
    program = operation(kind_of(delta), "channel_uses", shapes)
    run(program, *found, delta, *(() if x is None else (x,)), coefficients)
    squares, products, totals = found
    return squares, products, totals
