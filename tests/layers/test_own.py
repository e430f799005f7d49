"""Layers that are not built in: what they return is checked where they are called."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad.errors import ConfigError, ShapeError
from tests.helpers import Array, close


class Gelu(sg.Layer):
    """As people write it: √(2/π) is a float64, and NumPy promotes."""

    def forward(self, *inputs: Array, context: sg.Context) -> tuple[Array, Any]:
        (x,) = inputs
        t = np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
        return 0.5 * x * (1 + t), (x, t)

    def backward(self, saved: Any, upstream: Array, needs: Any) -> Any:
        x, t = saved
        slope = np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x**2)
        return (upstream * (0.5 * (1 + t) + 0.5 * x * (1 - t**2) * slope),), []

    def output_shape(self, *shapes: Any) -> Any:
        return shapes[0]


class Gain(sg.Layer):
    """y = gain · x with one gain a feature; each test puts a fault of its own into it."""

    faults: dict[str, Callable[..., Any]]

    def __init__(self, features: int = 3) -> None:
        self.features, self.faults = features, {}
        self.gain = sg.Parameter((features,), lambda rng, shape: rng.normal(1, 0.5, shape), "gain")

    def forward(self, *inputs: Array, context: sg.Context) -> tuple[Array, Any]:
        result = inputs[0] * self.gain.value, inputs[0]
        return self.faults.get("forward", lambda y, saved: (y, saved))(*result)

    def backward(self, saved: Any, upstream: Array, needs: Any) -> Any:
        use = sg.uses.Direct(self.gain, upstream, {"sample": (len(upstream),)}, local=saved)
        return self.faults.get("backward", lambda dx, uses: ((dx,), uses))(upstream * self.gain.value, [use])

    def output_shape(self, *shapes: Any) -> Any:
        return self.faults.get("output_shape", lambda shape: shape)(shapes[0])

    def config(self) -> dict[str, Any]:
        return {"features": self.features}


def _network(layer: sg.Layer, last: bool, dtype: str = "float32") -> sg.Network:
    layers = [("first", sg.Linear(3, 3)), ("mine", layer)]
    return sg.Network(layers if last else [*layers, ("end", sg.Linear(3, 3))], (3,), dtype=dtype)


def _step(network: sg.Network) -> sg.Gradients:
    rng = np.random.default_rng(0)
    y, tape = network.forward(rng.normal(size=(4, 3)))
    assert y.dtype == network.dtype
    return tape.backward(rng.normal(size=y.shape), inputs=True)


@pytest.mark.parametrize("last", [False, True])
def test_results_of_another_type_are_cast_with_one_warning(last: bool) -> None:
    network = _network(Gelu(), last)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = _step(network)
        _step(network)
    assert str(seen[0].message).startswith(
        "layer 'mine' (Gelu): the output of forward is float64 and is cast to float32"
    )
    assert len(seen) == 1
    exact = _step(sg.Network.from_config({**network.to_config(), "dtype": "float64"}))
    for name in ("first.weight", "first.bias"):
        assert found[name].dtype == np.float32
        close(found[name], exact[name], 1e-5)


def test_gradients_of_another_type_are_cast_too() -> None:
    layer = Gain()
    layer.faults["backward"] = lambda dx, uses: (
        (dx.astype(np.float64),),
        [sg.uses.Direct(layer.gain, np.ones((4, 3)), {"sample": (4,)})],
    )
    with pytest.warns(UserWarning, match="the gradient of input 0 is float64 and is cast to float32"):
        found = _step(_network(layer, False))
    assert {a.dtype for a in (*found.values(), *found.inputs.values())} == {np.dtype(np.float32)}


def use_of_another(dx: Array, uses: Any) -> Any:
    return (dx,), [
        sg.uses.Direct(sg.Parameter((3,), lambda rng, shape: np.ones(shape), "w"), dx, {"sample": (len(dx),)})
    ]


FAULTS: dict[str, tuple[str, Callable[..., Any], type[Exception], str]] = {
    "no pair": ("forward", lambda y, saved: y, ConfigError, "expected a pair from forward, got an array of float32"),
    "a list": (
        "forward",
        lambda y, saved: (y.tolist(), saved),
        ConfigError,
        "as the output of forward, got a list of 4",
    ),
    "whole numbers": (
        "forward",
        lambda y, saved: (y > 0, saved),
        ConfigError,
        "output of forward, got an array of bool",
    ),
    "nothing": ("forward", lambda y, saved: (None, saved), ConfigError, "output of forward, got None"),
    "a shape": (
        "forward",
        lambda y, saved: (y[:, :2], saved),
        ShapeError,
        "output_shape says 4×3, the output .* is 4×2",
    ),
    "samples": ("forward", lambda y, saved: (y[:1], saved), ShapeError, "says 4×3, the output of forward is 1×3"),
    "no tuple": ("backward", lambda dx, uses: (dx, uses), ConfigError, "a gradient for each input, got an array"),
    "no uses": (
        "backward",
        lambda dx, uses: (dx,),
        ConfigError,
        "a pair from backward, got a tuple of 1; backward ret",
    ),
    "count": ("backward", lambda dx, uses: ((dx, dx), uses), ConfigError, "expected 1 input gradients .*, got 2"),
    "missing": ("backward", lambda dx, uses: ((None,), uses), ConfigError, "as the gradient of input 0, got None"),
    "dx": ("backward", lambda dx, uses: ((dx.T,), uses), ShapeError, "has 4×3, the gradient of input 0 is 3×4"),
    "a dict": (
        "backward",
        lambda dx, uses: ((dx,), {"gain": dx}),
        ConfigError,
        "a list of uses .*, got a dict; return",
    ),
    "an array": ("backward", lambda dx, uses: ((dx,), [dx]), ConfigError, "uses .* got an array of float32 among them"),
    "foreign": ("backward", use_of_another, ConfigError, "a use of w, which is no parameter of this layer"),
}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_errors_that_name_the_layer(fault: str, last: bool) -> None:
    where, wrong, kind, message = FAULTS[fault]
    layer = Gain()
    network = _network(layer, last)
    layer.faults[where] = wrong
    with pytest.raises(kind, match=rf"^layer 'mine' \(Gain\): .*{message}"):
        _step(network)


def test_an_output_shape_that_lies() -> None:
    layer = Gain()
    layer.faults["output_shape"] = lambda shape: (6,)
    network = sg.Network([layer], (3,))
    with pytest.raises(
        ShapeError, match=r"layer '0' \(Gain\): with samples, output_shape says 2×6, the output of forward is 2×3"
    ):
        network.predict(np.ones((2, 3)))


def test_uses_of_another_shape() -> None:
    layer = Gain()
    network = _network(layer, True)
    layer.faults["backward"] = lambda dx, uses: ((dx,), [sg.uses.Direct(layer.gain, dx[:, :1], {"sample": (4,)})])
    with pytest.raises(ShapeError, match=r"uses of mine\.gain: expected contributions of shape 3, got 1"):
        _step(network)


def test_a_trace_checks_too() -> None:
    layer = Gain()
    network = _network(layer, True)
    y, tape = network.forward(np.ones((4, 3)))
    layer.faults["backward"] = lambda dx, uses: ((dx,), None)
    with pytest.raises(ConfigError, match=r"layer 'mine' \(Gain\): expected a list of uses from backward, got None"):
        tape.trace(np.ones_like(y))["mine.gain"]


def test_a_subclass_of_a_built_in_layer_is_ones_own() -> None:
    class Doubled(sg.ReLU):
        def forward(self, *inputs: Array, context: sg.Context) -> tuple[Array, Any]:
            return inputs[0] * np.float64(2), inputs[0]

    assert sg.ReLU.built_in
    assert not Doubled.built_in
    with pytest.warns(UserWarning, match=r"layer '0' \(Doubled\): the output of forward is float64"):
        sg.Network([Doubled()], (3,)).predict(np.ones(3))
