"""Choices that are no mistakes: other conventions, which must fit everything that a person gives.

A convention changes what is given (read x with another padding, turn the kernel) and, where needed, turns the answer
back. It is decided by the numbers alone only where it shows: a turned kernel also shows in y.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from sharedgrad.checking.given import Given, turned
from sharedgrad.checking.right import LOSSES
from sharedgrad.parameter import Array

Back = Callable[[str, Array], Array]


@dataclass(frozen=True)
class Convention:
    """Another way to read the same exercise.

    Attributes:
        id: Its name in reports.
        title: What it says.
        given: The exercise read this way.
        back: (target, right array) -> the array as a person with this convention writes it.
        shows_in: Arrays that must be given for it to be told from a mistake; empty: it cannot be one.
    """

    id: str
    title: str
    given: Given
    back: Back
    shows_in: tuple[str, ...] = ()


def conventions(given: Given) -> Iterator[Convention]:
    """Every convention that may apply to this kind of layer, one at a time."""
    if given.kind == "conv":
        yield from _of_convolution(given)
    if given.kind in ("max_pool", "avg_pool") and any(sum(pair) for pair in given.window.padding):
        yield _padding(given)
    if given.kind == "max_pool":
        for ties in ("first", "last", "share"):
            if ties != given.options.get("ties", "first"):
                words = {"first": "the first winner", "last": "the last winner", "share": "all winners in equal parts"}
                title = f"of equal values in a window {words[ties]} take{'' if ties == 'share' else 's'} the gradient"
                yield Convention(f"ties_{ties}", title, given.with_options(ties=ties), _same)
    if given.kind == "avg_pool" and any(sum(pair) for pair in given.window.padding):
        count = not given.options.get("count_include_pad", True)
        title = "the padding counts in the mean" if count else "the padding does not count in the mean"
        yield Convention("count_include_pad", title, given.with_options(count_include_pad=count), _same, ("y",))
    if given.kind == "relu":
        for slope in (1.0, 0.5):
            title = f"ReLU′(0) = {slope:g}"
            yield Convention(f"relu_at_zero_{slope:g}", title, given.with_options(slope_at_zero=slope), _same)
    if given.kind in LOSSES:
        choices = ("mean", "sum", "half_sum") if given.kind == "mse" else ("mean", "sum")
        for reduction in choices:
            if reduction != given.options.get("reduction", "mean"):
                title = f"the loss is the {reduction.replace('_', ' ')} over the batch"
                yield Convention(
                    f"loss_{reduction}", title, given.with_options(reduction=reduction), _same, ("y",)
                )  # fmt: skip
    if "dy" in given and given.samples > 1 and given.kind not in LOSSES:
        scaled = given.replaced(dy=given["dy"] / given.samples)
        title = f"the loss is the mean over the {given.samples} samples, and dy is each sample's own"
        yield Convention("batch_mean", title, scaled, _same, ("dx", "dw" if "w" in given else "dx"))


def _of_convolution(given: Given) -> Iterator[Convention]:
    rank = given.window.rank
    if given.window.cells > 1:

        def back(target: str, array: Array) -> Array:
            return turned(array, rank) if target in ("dw", "w_updated") else array

        flipped = given.replaced(w=np.ascontiguousarray(turned(given["w"], rank)))
        yield Convention(
            "true_convolution", "the layer is a true convolution: it turns the kernel", flipped, back, ("y",)
        )
    if any(sum(pair) for pair in given.window.padding):
        yield _padding(given)


def _padding(given: Given) -> Convention:
    half = tuple((total // 2, total - total // 2) for total, _ in given.window.padding)
    return Convention(
        "padding_total", "the padding is the total of both sides", given.sliding(padding=half), _same, ("y",)
    )


def _same(_: str, array: Array) -> Array:
    return array
