"""What to say where an array does not fit a network: the change that would make it fit, if there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

from sharedgrad.errors import ConfigError, ShapeError
from sharedgrad.geometry import text

Shape = tuple[int, ...]


def explained(
    error: ShapeError,
    declared: Mapping[str, Shape | None],
    given: Mapping[str, Shape],
    shapes: Callable[..., Any],
) -> ShapeError:
    """The error of a network that was given arrays which its layers do not take.

    Args:
        error: What the layers say.
        declared: Input name -> shape of one sample, or None.
        given: Input name -> shape of the array, samples first.
        shapes: ``Network.shapes``: raises ShapeError for shapes of samples that do not fit.
    """
    wrong = [name for name, shape in declared.items() if shape not in (None, given[name][1:])]
    name = wrong[0] if wrong else next(iter(given))
    if not wrong and len(given) > 1:
        return error
    array, shape = given[name], declared[name]
    where = f"network input {name!r}"
    for fitting, change in _changes(array, shape):
        if fitting == shape or (shape is None and _fits(shapes, fitting)):
            return ShapeError(where, f"expected samples × {text(fitting)}, got an array of {text(array)}", change)
    if shape is None:
        return error
    fix = "bring the data to this size, or make the network with another input_shape"
    return ShapeError(where, f"expected samples × {text(shape)}, got an array of {text(array)}", fix)


def no_samples(where: str, declared: Shape | None, given: Shape) -> ShapeError:
    """The error for an array without a single sample in it."""
    expected = "at least one sample" + (f" of {text(declared)}" if declared else "")
    if not given:
        return ShapeError(where, f"expected {expected}, got one number", "pass an array, samples first")
    return ShapeError(where, f"expected {expected}, got an array of {text(given)}", "leave out batches without samples")


def refuse_channels_last(name: str, declared: Shape | None, given: Shape) -> None:
    """A network that begins with Flatten would take (H, W, C) for (C, H, W) without a word.

    Raises:
        ShapeError: A sample of the array has the declared shape with the channels last.
    """
    sample = given[1:]
    if declared is not None and len(declared) == 3 and sample != declared and sample == (*declared[1:], declared[0]):
        expected = f"expected samples × {text(declared)}, got an array of {text(given)}"
        raise ShapeError(f"network input {name!r}", expected, "channels come first: x.transpose(0, 3, 1, 2)")


def _changes(array: Shape, declared: Shape | None) -> Iterator[tuple[Shape, str]]:
    """What people forget: the shape that a sample would have, and how to get it."""
    yield array, "a single sample needs a sample axis: x[None]"
    yield (1, *array[1:]), "grey images need a channel axis: x[:, None]"
    yield (1, *array), "a single grey image needs a sample and a channel axis: x[None, None]"
    if len(array) == 4:
        yield (array[3], *array[1:3]), "channels come first: x.transpose(0, 3, 1, 2)"
    if len(array) == 3:
        yield (array[2], *array[:2]), "a single image, channels first: x.transpose(2, 0, 1)[None]"
    if declared is not None and prod(array[1:]) == prod(declared):
        yield declared, f"x.reshape(-1, {', '.join(map(str, declared))}), if that is the order of its numbers"


def _fits(shapes: Callable[..., Any], sample: Shape) -> bool:
    try:
        shapes(sample)
    except (ShapeError, ConfigError):
        return False
    return True
