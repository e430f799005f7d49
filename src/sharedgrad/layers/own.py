"""Layers that are not built in: what they return is checked where they are called.

The engine calls every layer through :func:`forward` and :func:`backward`. Those of this package are covered by tests
and cost nothing here; anybody else's may return a wrong shape or kind, which would end in an error far from the cause.
NumPy's promotion makes float64 of float32 easily (``np.sqrt(2.0) * x``), so real numbers of another type are cast, with
one warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from sharedgrad.errors import ConfigError, ShapeError
from sharedgrad.geometry import text
from sharedgrad.layers.context import Context
from sharedgrad.layers.layer import Layer, Shape
from sharedgrad.parameter import Array, Parameter
from sharedgrad.uses import Direct, Lookup, Outer, Uses, Window

_KINDS = frozenset({Outer, Window, Direct, Lookup})
FORWARD, BACKWARD = "forward returns (output, saved)", "backward returns (input gradients, uses)"


def forward(layer: Layer, inputs: Sequence[Array], context: Context) -> tuple[Array, Any]:
    """``layer.forward``, checked if the layer is not built in.

    Raises:
        ConfigError: It does not return (output, saved) with the output an array of real numbers.
        ShapeError: The output does not have the shape that ``output_shape`` says.
    """
    result: Any = layer.forward(*inputs, context=context)
    if layer.built_in:
        return result
    if type(result) is not tuple or len(result) != 2:
        raise ConfigError(layer.label, f"expected a pair from forward, got {_kind(result)}", FORWARD)
    output, saved = result
    shape = (len(inputs[0]), *layer.output_shape(*[x.shape[1:] for x in inputs]))
    dtype = next((x.dtype for x in inputs if x.dtype.kind == "f"), None) or _own_type(layer)
    return _checked(layer, output, shape, dtype, "the output of forward", "with samples, output_shape says"), saved


def backward(
    layer: Layer, saved: Any, upstream: Array, needs: Sequence[bool], shapes: Callable[[], Sequence[Shape]]
) -> tuple[tuple[Array | None, ...], list[Uses]]:
    """``layer.backward``, checked if the layer is not built in.

    Args:
        layer, saved, upstream, needs: As for ``Layer.backward``.
        shapes: Gives the inputs' shapes, samples included.

    Raises:
        ConfigError: It does not return (input gradients, uses): one gradient for each input, a list of uses of its own
            parameters.
        ShapeError: A gradient has not its input's shape, or a use's not its parameter's.
    """
    result: Any = layer.backward(saved, upstream, needs)
    if layer.built_in:
        return result
    if type(result) is not tuple or len(result) != 2:
        raise ConfigError(layer.label, f"expected a pair from backward, got {_kind(result)}", BACKWARD)
    gradients, uses = result
    if not isinstance(gradients, tuple | list):
        problem = f"expected a tuple with a gradient for each input, got {_kind(gradients)}"
        raise ConfigError(layer.label, problem, "return (dx,), uses")
    if len(gradients) != len(needs):
        problem = f"expected {len(needs)} input gradients from backward, got {len(gradients)}"
        raise ConfigError(layer.label, problem, "return None for those that are not needed")
    checked: list[Array | None] = [None] * len(needs)
    if any(needs):
        for i, (gradient, needed, shape) in enumerate(zip(gradients, needs, shapes(), strict=True)):
            if needed:
                name = f"the gradient of input {i}"
                checked[i] = _checked(layer, gradient, shape, upstream.dtype, name, "the input has")
    return tuple(checked), _checked_uses(layer, uses)


def _checked(layer: Layer, array: Any, shape: Shape, dtype: np.dtype[Any], what: str, says: str) -> Array:
    if type(array) is not np.ndarray or array.dtype.kind != "f":
        raise ConfigError(layer.label, f"expected an array of {dtype} as {what}, got {_kind(array)}")
    if array.shape != shape:
        expected, got = text(shape) or "a number", text(array.shape) or "a single number"
        raise ShapeError(layer.label, f"{says} {expected}, {what} is {got}")
    return array if array.dtype is dtype or array.dtype == dtype else _cast(layer, array, dtype, what)


def _cast(layer: Layer, array: Array, dtype: np.dtype[Any], what: str) -> Array:
    if not layer.warned:
        layer.__dict__["warned"] = True  # not by setattr: plans and tapes need not be made anew
        problem = f"{layer.label}: {what} is {array.dtype} and is cast to {dtype}, the network's type"
        warnings.warn(f"{problem}; keep to x.dtype inside, e.g. x.dtype.type(0.5)", UserWarning, stacklevel=2)
    return array.astype(dtype)


def _checked_uses(layer: Layer, uses: Any) -> list[Uses]:
    if not isinstance(uses, list | tuple):
        problem = f"expected a list of uses from backward, got {_kind(uses)}"
        raise ConfigError(layer.label, problem, "return [] or e.g. [sg.uses.Outer(self.weight, delta, patch, axes)]")
    for use in uses:
        if type(use) not in _KINDS and not isinstance(use, Uses):  # the second costs more
            problem = f"expected uses (Outer, Window, Direct, Lookup) from backward, got {_kind(use)} among them"
            raise ConfigError(layer.label, problem)
        if not _holds(layer, use.weight):
            name = getattr(use.weight, "name", repr(use.weight))
            raise ConfigError(layer.label, f"backward returns a use of {name}, which is no parameter of this layer")
    return list(uses)


def summed(layers: Iterable[Layer], parameter: Parameter, gradient: Array) -> Array:
    """A parameter's gradient that its uses add up to; in the parameter's type, if a layer not built in holds it."""
    for layer in layers:
        if not layer.built_in and any(parameter is weight.base for weight in layer.parameters().values()):
            return _cast(layer, gradient, parameter.dtype, f"what the uses of {parameter.name} add up to")
    return gradient


def _holds(layer: Layer, weight: Any) -> bool:
    for value in vars(layer).values():  # as nearly always, and cheap
        if value is weight:
            return True
    return any(weight is held.base for held in layer.parameters().values())


def _own_type(layer: Layer) -> np.dtype[Any]:
    return next((weight.dtype for weight in layer.parameters().values()), np.dtype(np.float32))


def _kind(value: Any) -> str:
    """What came, in words."""
    if isinstance(value, np.ndarray | np.generic):
        return f"an array of {value.dtype}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"a {type(value).__name__}"
