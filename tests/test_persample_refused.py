"""What has no gradient for each sample, and what cannot be done with gradients that are kept apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad import kernels
from sharedgrad.errors import ConfigError, ShapeError
from tests.helpers import Array, close
from tests.samples_apart import IMAGE, Case, normalized, plain


@pytest.mark.parametrize("compiled", [True, False])
def test_layers_that_mix_samples_are_refused(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(kernels, "programs", lambda: False)
    net = normalized("float64")
    x = np.random.default_rng(0).normal(size=(4, *IMAGE))
    y, tape = net.forward(x)
    upstream = np.ones_like(y)
    mixed = r"\(BatchNorm2d\) in training mode mixes the samples, so none has a gradient of its own"
    fix = r'; go forward with training=False, or keep its uses apart: trace\(upstream\)\[p\]\.sum\(by="sample"\)'
    with pytest.raises(ConfigError, match=f"by_sample: layer '1' {mixed} with respect to 0.weight{fix}"):
        tape.backward(upstream, by_sample=[net["0"].weight])
    with pytest.raises(ConfigError, match=f"tape.clipped_by_sample: layer '4' {mixed}"):
        tape.clipped_by_sample(upstream, 1.0)
    # what comes after the last such layer has a gradient for each sample, and so have that layer's own parameters
    behind = [net.parameter(name) for name in ("4.weight", "4.bias", "7.weight", "7.bias")]
    apart = tape.backward(upstream, by_sample=behind)
    trace = tape.trace(upstream)
    for p in behind:
        close(apart[p], trace[p].sum(by="sample"))
    tape.backward(upstream)
    net.forward(x, training=False)[1].clipped_by_sample(upstream, 1.0)


def test_a_layer_of_ones_own_may_mix_samples_too() -> None:
    class Centred(sg.Layer):
        mixes_samples = True

        def forward(self, *inputs: Array, context: Any) -> tuple[Array, Any]:
            return inputs[0] - inputs[0].mean(axis=0), None

        def backward(self, saved: Any, upstream: Array, needs: Any) -> Any:
            return (upstream - upstream.mean(axis=0),), []

        def output_shape(self, *shapes: tuple[int, ...]) -> tuple[int, ...]:
            return shapes[0]

    try:
        net = sg.Network({"dense": sg.Linear(3, 2), "centred": Centred()}, (3,))
        _, tape = net.forward(np.ones((4, 3)))
        with pytest.raises(ConfigError, match=r"layer 'centred' \(Centred\) in training mode mixes the samples"):
            tape.clipped_by_sample(np.ones((4, 2)), 1.0)
    finally:
        del sg.Layer.registry["Centred"]


@pytest.mark.parametrize("max_norm", [0, -1.0, float("nan"), "1", None, 1j])
def test_norms_that_are_no_positive_numbers(max_norm: Any) -> None:
    case = Case(plain, 2)
    with pytest.raises(ConfigError, match=r"^tape\.clipped_by_sample: max_norm: expected a positive number, got "):
        case.tape.clipped_by_sample(case.upstream, max_norm)
    with pytest.raises(ConfigError, match=r"^max_norm: expected a positive number, got "):
        case.tape.backward(case.upstream).clipped(max_norm)


def test_parameters_of_another_network() -> None:
    case, other = Case(plain, 2), plain("float64")
    message = "by_sample: 0.weight is no parameter of this network; choose from net.parameters()"
    with pytest.raises(ConfigError) as caught:
        case.tape.backward(case.upstream, by_sample=other.parameters()[:1])
    assert str(caught.value) == message
    for wrong in ("0.weigth", ["0.weigth"], 3, [None], [[]]):
        with pytest.raises(ConfigError, match=r"is no parameter of this network"):
            case.tape.backward(case.upstream, by_sample=wrong)
    one = case.parameters[0]
    for way in (one, [one], "0.weight", ["0.weight"]):
        assert case.tape.backward(case.upstream, by_sample=way)[one].shape == (2, *one.shape)


def test_stale_tapes_and_wrong_shapes() -> None:
    case = Case(plain, 2)
    with pytest.raises(ShapeError, match="expected the output's shape"):
        case.tape.clipped_by_sample(case.upstream[:1], 1.0)
    case.parameters[0].value = case.parameters[0].value + 1
    with pytest.raises(sg.errors.StaleTapeError):
        case.tape.clipped_by_sample(case.upstream, 1.0)


def test_what_is_kept_apart_adds_scales_and_has_no_single_norm() -> None:
    case = Case(plain, 3)
    kernel = case.parameters[0]
    sums, apart = case.tape.backward(case.upstream), case.tape.backward(case.upstream, by_sample=[kernel])
    close((apart + 2 * apart)[kernel], 3 * apart[kernel])
    with pytest.raises(ConfigError, match=r"^norm: the gradient of 0\.weight is kept apart by sample; sum it over"):
        apart.norm()
    with pytest.raises(ConfigError, match="is kept apart by sample"):
        apart.clipped(1.0)
    with pytest.raises(
        ShapeError, match=r"^0\.weight: expected gradients of one shape to add, got 3×5×2×3×2 and 5×2×3"
    ):
        apart + sums
    with pytest.raises(ShapeError, match=r"0\.weight: expected a gradient of shape"):
        sg.SGD(case.parameters, lr=0.1).step(apart)
