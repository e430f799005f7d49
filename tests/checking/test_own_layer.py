"""The check of a person's own layer: right ones pass, and each fault is found and named."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad.errors import ConfigError
from sharedgrad.parameter import Buffer
from tests.helpers import Array

BUILT_IN: list[tuple[sg.Layer, Any]] = [
    (sg.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), (2, 7, 5)),
    (sg.Linear(4, 3), (4,)),
    (sg.BatchNorm2d(2), (2, 3, 3)),
    (sg.Dropout(0.5), (5,)),
    (sg.Add(), [(3,), (3,)]),
    (sg.Concat(), [(3,), (2,)]),
    (sg.RNN(3, 4), (5, 3)),
    (sg.MaxPool2d(2), (2, 6, 6)),
    (sg.AvgPool2d(3, padding=1), (2, 6, 6)),
    (sg.Softmax(), (5,)),
    (sg.LocallyConnected2d(2, 3, (5, 5), 2), (2, 5, 5)),
    (sg.Flatten(), (2, 3)),
    (sg.ReLU(), (300,)),
]


@pytest.mark.parametrize(
    ("layer", "shape"), BUILT_IN, ids=lambda v: type(v).__name__ if isinstance(v, sg.Layer) else ""
)
def test_the_layers_of_this_package_pass(layer: sg.Layer, shape: Any) -> None:
    report = sg.check_layer(layer, input_shape=shape)
    assert report, str(report)
    assert report.verdict == "right"
    assert any("finite differences" in remark for remark in report.remarks)


class Scaled(sg.Layer):
    """y = gain · x + other inputs; each test puts a fault of its own into it."""

    def __init__(self, features: int = 3, **faults: Callable[..., Any]) -> None:
        self.features, self.faults = features, faults
        self.gain = sg.Parameter((features,), lambda rng, shape: np.ones(shape), "gain")
        self.kept: Any = None

    def forward(self, *inputs: Array, context: sg.Context) -> tuple[Array, Any]:
        y, saved = inputs[0] * self.gain.value, inputs[0]
        for other in inputs[1:]:
            y = y + other
        fault = self.faults.get("forward")
        return fault(self, y, saved, context) if fault else (y, saved)

    def backward(self, saved: Any, upstream: Array, needs: Any) -> Any:
        fault = self.faults.get("backward")
        if fault:
            return fault(self, saved, upstream, needs)
        dx = upstream * self.gain.value if needs[0] else None
        return (dx, *(upstream if need else None for need in needs[1:])), [use(self, saved, upstream)]

    def output_shape(self, *shapes: Any) -> Any:
        return shapes[0]

    def config(self) -> dict[str, Any]:
        return {"features": self.features}


def use(layer: Scaled, saved: Array, upstream: Array) -> sg.uses.Uses:
    return sg.uses.Direct(layer.gain, upstream, {"sample": (len(upstream),)}, local=saved)


def test_a_right_one_passes_with_one_input_and_several() -> None:
    assert sg.check_layer(Scaled(), input_shape=(3,))
    assert sg.check_layer(Scaled(), input_shape=[(3,), (3,)])
    layer = Scaled()
    before = layer.gain.value.copy()
    assert sg.check_layer(layer, np.arange(6.0).reshape(2, 3))
    assert np.array_equal(layer.gain.value, before)
    assert layer.gain.dtype == np.float32


def keep(layer: Scaled, y: Array, saved: Array, context: sg.Context) -> tuple[Array, Any]:
    layer.kept = saved
    return y, None


def from_kept(layer: Scaled, saved: Any, upstream: Array, needs: Any) -> Any:
    return (upstream * layer.gain.value,), [use(layer, layer.kept, upstream)]


def in_place(layer: Scaled, saved: Any, upstream: Array, needs: Any) -> Any:
    found = [use(layer, saved, upstream.copy())]
    upstream *= layer.gain.value
    return (upstream,), found


def clipped_in_place(layer: Scaled, y: Array, saved: Array, context: sg.Context) -> tuple[Array, Any]:
    saved += 1
    return y, saved


def random(layer: Scaled, y: Array, saved: Array, context: sg.Context) -> tuple[Array, Any]:
    return y + np.random.default_rng().normal(size=y.shape).astype(y.dtype), saved


def averaged(layer: Scaled, saved: Any, upstream: Array, needs: Any) -> Any:
    return (upstream * layer.gain.value,), [use(layer, saved, upstream / len(upstream))]


def half(layer: Scaled, saved: Any, upstream: Array, needs: Any) -> Any:
    dx = (upstream * layer.gain.value / 2).astype(upstream.dtype)
    return (dx,), [use(layer, saved, upstream)]


def one_cell(layer: Scaled, saved: Any, upstream: Array, needs: Any) -> Any:
    dx = upstream * layer.gain.value
    dx[1, 2] += 0.5
    return (dx,), [use(layer, saved, upstream)]


def without_uses(layer: Scaled, saved: Any, upstream: Array, needs: Any) -> Any:
    return (upstream * layer.gain.value,), []


def turned_samples(layer: Scaled, saved: Any, upstream: Array, needs: Any) -> Any:
    return (upstream * layer.gain.value,), [use(layer, saved[::-1].copy(), upstream[::-1].copy())]


def gain_from_needs(layer: Scaled, saved: Any, upstream: Array, needs: Any) -> Any:
    return (upstream * layer.gain.value,), [use(layer, saved, upstream if needs[0] else 0 * upstream)]


def mixing(layer: Scaled, y: Array, saved: Array, context: sg.Context) -> tuple[Array, Any]:
    return y - y.mean(axis=0), saved


def other_type(layer: Scaled, y: Array, saved: Array, context: sg.Context) -> tuple[Array, Any]:
    return y.astype(np.float64), saved


def crash(layer: Scaled, y: Array, saved: Array, context: sg.Context) -> tuple[Array, Any]:
    if not context.training:
        raise KeyError("mask")
    return y, saved


FAULTS: dict[str, tuple[dict[str, Callable[..., Any]], str]] = {
    "kept on self": ({"forward": keep, "backward": from_kept}, "the gradient of gain of a call is another one once"),
    "upstream": ({"backward": in_place}, "backward changes the upstream gradient in place; work on a new array"),
    "input": ({"forward": clipped_in_place}, "input 0 is changed in place"),
    "random": ({"forward": random}, "two passes with the same seed and step give different outputs; draw from context"),
    "mean": (
        {"backward": averaged},
        r"the gradient of gain\[0\]: expected .*; 3 of 3 numbers differ: .* 1/3 times the",
    ),
    "half": ({"backward": half}, r"dx\[0, 0\]: expected .* got .*; 9 of 9 numbers differ: every number is 1/2 times"),
    "one cell": ({"backward": one_cell}, r"dx\[1, 2\]: expected .*; 1 of 9 numbers differ"),
    "no uses": ({"backward": without_uses}, r"the gradient of gain\[0\]: expected .* got 0; 3 of 3 .*: all zeros"),
    "samples": ({"backward": turned_samples}, "the uses of gain at sample=0 are not the gradient of sample 0"),
    "needs": ({"backward": gain_from_needs}, "other gradients change when that of input 0 is not needed"),
    "mixing": ({"forward": mixing}, "the output of sample 0 depends on the other samples"),
    "type": ({"forward": other_type}, "the output of forward is float64 and is cast to float32; keep to x.dtype"),
    "crash": (
        {"forward": crash},
        r"in evaluation mode: forward of inputs 3×3 raises KeyError: 'mask' \(test_own_layer",
    ),
    "shape": ({"backward": lambda layer, s, u, n: ((u[:1],), [])}, "the input has 3×3, the gradient of input 0 is 1×3"),
    "no tuple": ({"backward": lambda layer, s, u, n: (u, [])}, "a gradient for each input, got an array of float32"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_one_line_that_names_the_layer(fault: str) -> None:
    faults, message = FAULTS[fault]
    report = sg.check_layer(Scaled(**faults), input_shape=(3,))
    assert not report
    assert report.exit_code == 1
    lines = [str(f) for f in report.faults]
    assert all(line.startswith("Scaled") and "\n" not in line for line in lines)
    assert any(re.search(message, line) for line in lines), lines
    with pytest.raises(AssertionError, match="Scaled: "):
        sg.assert_layer(Scaled(**faults), input_shape=(3,))


class Buffered(Scaled):
    """Keeps a running mean; its buffer is changed at once, which a pass that fails could not take back."""

    def __init__(self) -> None:
        super().__init__(forward=Buffered.moved)
        self.mean = Buffer(np.zeros(3, np.float32))

    def moved(self, y: Array, saved: Array, context: sg.Context) -> tuple[Array, Any]:
        self.mean.replace((0.9 * self.mean.value + 0.1 * y.mean(axis=0)).astype(self.mean.value.dtype))
        return y, saved


class Counted(Scaled):
    """Says how often its gain is used; wrongly if told so."""

    said = 1

    def uses_per_sample(self, *shapes: Any) -> int:
        return self.said


def test_uses_per_sample_is_compared_with_the_uses() -> None:
    assert sg.check_layer(Counted(), input_shape=(3,))
    layer = Counted()
    layer.said = 4
    (fault,) = sg.check_layer(layer, input_shape=(3,)).faults
    assert "uses_per_sample says 4, backward returns 3 uses for 3 samples; mend it" in str(fault)


class Termed(Scaled):
    """Gives its terms; doubled if told so."""

    factor = 1.0

    def input_terms(self, saved: Any, upstream: Array, which: int = 0, cells: Any = None) -> Any:
        here = np.arange(upstream.size)
        named = {
            "dy": sg.uses.terms.Factor("dy", upstream, here),
            "gain": sg.uses.terms.Factor("gain", self.gain.value, here % 3),
        }
        return sg.uses.Terms("dx", upstream.shape, here, named, np.full(upstream.size, self.factor))


def test_terms_add_up() -> None:
    assert sg.check_layer(Termed(), input_shape=(3,))
    layer = Termed()
    layer.factor = 2.0
    (fault,) = sg.check_layer(layer, input_shape=(3,)).faults
    assert fault.problem == "input_terms of input 0 do not add up to the input gradient of backward"


def test_kinks_in_examples_are_no_faults() -> None:
    assert sg.check_layer(sg.ReLU(), np.zeros((2, 3)))
    assert sg.check_layer(sg.MaxPool2d(2), np.ones((1, 1, 4, 4)))


def test_a_wrong_cell_among_many_is_found() -> None:
    class Sparse(sg.ReLU):
        def backward(self, saved: Any, upstream: Array, needs: Any) -> Any:
            (dx,), uses = super().backward(saved, upstream, needs)
            assert dx is not None
            dx = dx.copy()
            dx[:, 500:] = 0
            return (dx,), uses

    assert sg.check_layer(sg.ReLU(), input_shape=(1000,))
    assert not sg.check_layer(Sparse(), input_shape=(1000,))


class Averaging(sg.Conv2d):
    """A convolution whose kernel gradient is the mean over positions."""

    def backward(self, saved: Any, upstream: Array, needs: Any) -> Any:
        dx, uses = super().backward(saved, upstream, needs)
        positions = upstream.shape[2] * upstream.shape[3]
        return dx, [u.of_samples(slice(None), np.full(len(upstream), 1 / positions, upstream.dtype)) for u in uses]


@pytest.mark.parametrize("like", ["conv2d:stride=2", sg.Conv2d(2, 3, 3, stride=2)])
def test_a_mistake_is_named_beside_a_built_in_layer(like: Any) -> None:
    right = sg.check_layer(sg.Conv2d(2, 3, 3, stride=2), input_shape=(2, 7, 6), like=like)
    assert right, str(right)
    found = sg.check_layer(Averaging(2, 3, 3, stride=2), input_shape=(2, 7, 6), like=like)
    assert found.likeness is not None
    assert "mean_over_positions" in found.likeness.ids
    assert "averaged" in str(found)


def test_another_function_than_the_built_in_layers() -> None:
    found = sg.check_layer(sg.Conv2d(2, 3, 3, padding=1), input_shape=(2, 7, 6), like="conv2d:padding=1")
    assert found
    found = sg.check_layer(sg.Tanh(), input_shape=(4,), like="sigmoid")
    assert not found.faults
    assert not found


def test_arguments_that_make_no_sense() -> None:
    for call in (
        lambda: sg.check_layer(Scaled, input_shape=(3,)),
        lambda: sg.check_layer(Scaled()),
        lambda: sg.check_layer(Scaled(), input_shape="3"),
        lambda: sg.check_layer(Scaled(), ["a"]),
        lambda: sg.check_layer(Scaled(), input_shape=(3,), like="gelu"),
    ):
        with pytest.raises(ConfigError) as error:
            call()
        assert "\n" not in str(error.value)


def test_buffers_are_changed_by_the_context() -> None:
    lines = [str(f) for f in sg.check_layer(Buffered(), input_shape=(3,)).faults]
    assert any("forward changes its buffer mean at once; write context.update(self.mean, new)" in s for s in lines)


def test_a_report_shows_itself() -> None:
    report = sg.check_layer(Scaled(backward=half), input_shape=(3,))
    assert max(map(len, str(report).splitlines())) <= 80
    assert report.to_json()["verdict"] == "wrong"
    assert "1/2 times" in report._repr_html_()
