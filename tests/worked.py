"""Worked examples and their numbers: which are computed by a test, and how one layer is run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import sharedgrad as sg

CASES: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "cases/worked_examples.json").read_text())
NOT_COMPUTED = {"gomez-lstm": "there is no LSTM layer yet"}
COMPUTED: dict[str, Callable[[], None]] = {}


def example(name: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def register(test: Callable[[], None]) -> Callable[[], None]:
        COMPUTED[name] = test
        return test

    return register


def numbers(name: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What is given, published and right, as arrays."""

    def arrays(values: dict[str, Any]) -> dict[str, Any]:
        return {key: np.array(v, float) if isinstance(v, list) else v for key, v in values.items()}

    case = CASES[name]
    return arrays(case.get("given", {})), arrays(case.get("published", {})), arrays(case.get("right", {}))


def run(layer: sg.Layer, x: Any, upstream: Any, **values: Any) -> tuple[Any, sg.Gradients, Any]:
    """One layer on one sample: its output, the gradients of its parameters, and dx."""
    x = np.asarray(x, float)
    for name, value in values.items():
        parameter = layer.parameters()[name]
        parameter.cast(np.dtype(float))
        parameter.value = np.reshape(value, parameter.shape)
    net = sg.Network({"layer": layer}, x.shape, dtype="float64")
    y, tape = net.forward(x)
    gradients = tape.backward(np.broadcast_to(upstream, y.shape), inputs=True)
    return y, gradients, gradients.inputs["input"]


def close(actual: Any, expected: Any, decimals: int = 9) -> None:
    """Equal in all printed decimals (one unit more, for sources that cut instead of rounding)."""
    np.testing.assert_allclose(np.squeeze(actual), np.squeeze(expected), rtol=0, atol=1.01 * 10.0**-decimals)
