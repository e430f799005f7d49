"""Check: say which number is wrong, and which mistake explains it.

given.py      one layer with its numbers           columns.py, tables.py   its definition as tables of terms
rules.py      wrong procedures, which compose      mistakes/               the library, catalogue.toml its words
answers.py    numbers with what their digits say   conventions.py          other choices, which are no mistakes
search.py     which mistakes reproduce an answer   innocence.py            false alarms
diagnosis.py  the verdict on one layer             walk.py, network.py     a network step by step
report.py     the finding, words.py as a document  exercises.py, classroom.py, audit.py   for who teaches
code/         a person's code instead of numbers
own_layer.py  a person's layer: bench.py calls it, differences.py measures, layer_report.py says
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sharedgrad.checking.layer_report import LayerReport
    from sharedgrad.checking.report import Report
    from sharedgrad.layers.layer import Layer

__all__ = ["assert_backward", "assert_layer", "check_backward", "check_layer", "check_numbers"]


def check_numbers(
    exercise: Mapping[str, Any] | str | Path,
    seconds: float = 10.0,
    progress: Callable[[float], None] | None = None,
) -> Report:
    """Say which of somebody's numbers are wrong, and which mistake explains them.

    Args:
        exercise: The layer or network with its numbers and "answers", as plain data, JSON text, or a .json file.
        seconds: How long pairs of mistakes are tried where no single one fits.
        progress: Called with the part that is done while they are.

    Raises:
        SharedgradError: The exercise cannot be read; one line that names the field.

    >>> report = check_numbers({"layer": "conv1d", "x": [1, 2, 3], "w": [0.3, 0.5], "upstream": [-0.1, 0.2],
    ...                         "answers": {"dw": [0.15, 0.2]}})
    >>> report.verdict, report.ids[0]
    ('wrong', 'mean_over_positions')
    """
    from sharedgrad.checking import api  # the library of mistakes is loaded when it is used

    return api.check(exercise, seconds, progress)


def check_backward(
    fn: Callable[..., Any] | type,
    layer: Layer | str,
    forward: Callable[..., Any] | None = None,
    signature: str | None = None,
    timeout: float = 5.0,
    megabytes: int = 1024,
    seconds: float = 10.0,
) -> Report:
    """Say whether a backward pass is right, and if not, which mistake is in it.

    The code runs in a process of its own: one that loads it anew from its file, or, where that cannot be (a notebook's
    function, a lambda), one that is forked. Time and memory are limited against accidents; this is no security sandbox.

    Args:
        fn: A function (its arguments are known by their names: dout, x, w, b, stride, padding …; or dout and a cache
            as in cs231n or deeplearning.ai), a class with ``forward`` and ``backward``, or a
            ``torch.autograd.Function``.
        layer: What it belongs to: a layer, whose settings are used wherever the code is not told any; or a name with
            settings, "conv2d:stride=2".
        forward: The person's own forward pass, which makes the cache.
        signature: The arguments and results by name, e.g. "dout, x, w, b -> dx, dw, db".
        timeout: Seconds for one call.
        megabytes: Memory that it may take.
        seconds: How long pairs of mistakes are tried where no single one fits.

    Raises:
        SharedgradError: It cannot be loaded or called; one line that says why.

    >>> def backward(dout, x):
    ...     return dout * (x >= -1)
    >>> report = check_backward(backward, layer="relu")
    >>> report.verdict
    'wrong'
    """
    from sharedgrad.checking.code import api
    from sharedgrad.checking.code.process import Limits

    limits = Limits(timeout, megabytes=megabytes)
    return api.check(api.of_object(fn, forward), layer, signature, limits, seconds)


def assert_backward(fn: Callable[..., Any] | type, layer: Layer | str, **options: Any) -> None:
    """Pass if a backward pass is right, also under another convention; for pytest.

    Args:
        fn: The backward pass, as for :func:`check_backward`.
        layer: What it belongs to.
        options: What else :func:`check_backward` takes.

    Raises:
        AssertionError: It is wrong, or nobody can tell; the message is the report.
        SharedgradError: It cannot be loaded or called.
    """
    report = check_backward(fn, layer, **options)
    if report.exit_code:
        raise AssertionError(f"\n{report}")


def check_layer(layer: Layer, *inputs: Any, input_shape: Any = None, like: Layer | str | None = None) -> LayerReport:
    """Say whether a layer of one's own keeps the contract of ``Layer`` and goes back rightly.

    Tried in training and in evaluation mode, on copies, so that the layer stays as it is: shapes beside
    ``output_shape``; float32 and float64 stay what they are; calls of their own, also twice in one network; nothing is
    changed in place; one gradient for each input that needs one; uses that are those of each sample; ``config``,
    ``uses_per_sample``, ``input_terms`` and ``output_terms`` where they are defined; and in float64, with an upstream
    gradient of unequal numbers, every gradient beside finite differences (of large arrays 200 numbers and sums over
    all of them). Randomness from ``context.random()`` is the same in all of these.

    Args:
        layer: One layer, ready to be called.
        inputs: Example arrays (N, …), one for each input; needed where an input holds indices.
        input_shape: Instead of them the shape of one sample, or a list of shapes for several inputs: random numbers.
        like: A built-in layer that it should agree with, ``sg.Conv2d(2, 3, 3, stride=2)`` or "conv2d:stride=2": what
            differs is named as :func:`check_numbers` names mistakes. Parameters of other names than weight and bias
            are taken in their order.

    Returns:
        A report, true if nothing is wrong, which prints itself.

    Raises:
        ConfigError: It is no layer, there are no inputs, or there is no such built-in layer.

    >>> from sharedgrad import ReLU
    >>> bool(check_layer(ReLU(), input_shape=(4,)))
    True
    """
    from sharedgrad.checking import own_layer

    return own_layer.check(layer, inputs, input_shape, like)


def assert_layer(layer: Layer, *inputs: Any, **options: Any) -> None:
    """Pass if a layer of one's own is right; for pytest.

    Args:
        layer, inputs: As for :func:`check_layer`.
        options: What else it takes.

    Raises:
        AssertionError: Something is wrong; the message is the report.
        ConfigError: As for :func:`check_layer`.
    """
    report = check_layer(layer, *inputs, **options)
    if not report:
        raise AssertionError(f"\n{report}")
