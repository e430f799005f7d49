"""What layers refuse, and what they say of themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad.errors import ConfigError, ShapeError
from sharedgrad.layers import initializers

LC1, LC2 = sg.LocallyConnected1d, sg.LocallyConnected2d


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sg.Conv2d(0, 1, 3), "Conv2d: in_channels: expected a whole number of at least 1, got 0"),
        (lambda: sg.Conv1d(1, 1.5, 3), r"Conv1d: out_channels: expected a whole number of at least 1, got 1\.5"),
        (lambda: sg.Conv2d(1, 1, 0), "Conv2d: kernel_size: .* got 0"),
        (lambda: sg.Conv2d(1, 1, 3, stride=2, padding="same"), "Conv2d: padding: 'same' needs stride 1"),
        (lambda: sg.Conv2d(4, 6, 3, groups=4), "Conv2d: groups: expected a common divisor of 4 input and 6 output"),
        (lambda: sg.Conv2d(4, 6, 3, groups=0), "Conv2d: groups: expected a whole number of at least 1, got 0"),
        (lambda: sg.Conv1d(1, 1, 3, padding_mode="mirror"), "padding_mode: expected one of zeros, .*, got 'mirror'"),
        (lambda: sg.Conv1d(1, 1, 3, init="zeros"), "Conv1d: init: expected 'he' or 'glorot', got 'zeros'"),
        (lambda: LC2(1, 1, (0, 3), 1), "LocallyConnected2d: input_size: expected a whole number of at least 1"),
        (lambda: LC1(3, 2, 4, 1, groups=2), "LocallyConnected1d: groups: expected a common divisor of 3"),
        (lambda: sg.Linear(0, 1), "Linear: in_features: expected a whole number of at least 1, got 0"),
        (lambda: sg.Linear(1, "2"), "Linear: out_features: .* got '2'"),
        (lambda: sg.RNN(2, 0), "RNN: hidden_size: expected a whole number of at least 1, got 0"),
        (lambda: sg.BatchNorm2d(0), "BatchNorm2d: num_features: expected a whole number of at least 1, got 0"),
        (lambda: sg.BatchNorm2d(1, eps=0), "BatchNorm2d: expected eps > 0 and momentum from 0 to 1, got 0 and"),
        (lambda: sg.BatchNorm2d(1, momentum=1.5), "BatchNorm2d: .* got 1e-05 and 1.5"),
        (lambda: sg.MaxPool1d(0), "MaxPool1d: kernel_size: .* got 0"),
        (lambda: sg.AvgPool2d(2, stride=0), "AvgPool2d: stride: .* got 0"),
        (lambda: sg.Concat(0), "Concat: axis: expected an axis other than the sample axis 0"),
        (lambda: sg.Concat(1.0), r"Concat: axis: expected a whole number, got 1\.0"),
        (lambda: sg.Softmax("1"), "Softmax: axis: expected a whole number, got '1'"),
        (lambda: sg.Reshape((2, 0)), "Reshape: shape: expected a whole number of at least 1, got 0"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(make: Callable[[], sg.Layer], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_numpys_whole_numbers_will_do() -> None:
    two = np.int64(2)
    layer = sg.Conv2d(two, two, two, two, two, two, two)
    assert layer.geometry == sg.Conv2d(2, 2, 2, 2, 2, 2, 2).geometry
    assert layer.weight.shape == (2, 1, 2, 2)
    assert sg.Linear(two, two).output_shape((two,)) == (2,)


@pytest.mark.parametrize(
    ("layer", "shapes", "message"),
    [
        (sg.Conv2d(3, 8, 3), [(1, 28, 28)], r"expected samples of shape 3×height×width .*, got 1×28×28; set in_ch"),
        (sg.Conv2d(3, 8, 3), [(3, 28)], "Conv2d: expected samples of shape 3×height×width .*, got 3×28$"),
        (sg.Conv1d(3, 8, 3), [(3, 28, 28)], "Conv1d: expected samples of shape 3×length"),
        (sg.Conv2d(1, 8, 3), [(1, 2, 9)], "Conv2d: a window of 3×3 does not fit into the padded input of 2×9"),
        (sg.Conv1d(1, 1, 5, padding=3, padding_mode="reflect"), [(1, 3)], "at least 4 cells for reflect padding of 3"),
        (sg.Conv1d(1, 1, 5, padding=3, padding_mode="circular"), [(1, 2)], "at least 3 cells for circular padding"),
        (LC1(1, 1, 5, 2), [(1, 6)], "LocallyConnected1d: expected maps of input_size=5, got 6"),
        (sg.MaxPool2d(2), [(4, 9)], "MaxPool2d: expected maps of shape channels×height×width, got 4×9"),
        (sg.MaxPool2d(3), [(4, 2, 9)], "MaxPool2d: a window of 3×3 does not fit"),
        (sg.AvgPool1d(2), [(4, 9, 9)], "AvgPool1d: expected maps of shape channels×length, got 4×9×9"),
        (sg.GlobalAvgPool(), [(4,)], "GlobalAvgPool: expected maps of shape channels×positions, got 4"),
        (sg.Linear(4, 2), [(5,)], "Linear: expected 4 features .*, got 5; set in_features=5"),
        (sg.Linear(12, 2), [(3, 2, 2)], "Linear: expected 12 features .*, got 3×2×2; put a Flatten before it"),
        (sg.Linear(4, 2), [()], "Linear: expected 4 features .*, got a single number"),
        (sg.RNN(4, 2), [(4,)], r"RNN: expected sequences of shape time×4 \(input_size=4\), got 4"),
        (sg.BatchNorm2d(3), [(4, 2, 2)], "BatchNorm2d: expected maps of shape 3×height×width .*; set num_features=4"),
        (sg.Softmax(2), [(3,)], "Softmax: expected samples with an axis 2"),
        (sg.Softmax(-2), [(3,)], "Softmax: expected samples with an axis -2"),
        (sg.Softmax(0), [(3,)], "Softmax: expected samples with an axis 0"),
        (sg.Reshape((2, 3)), [(7,)], "Reshape: expected 6 elements for the shape 2×3, got 7"),
        (sg.Add(), [(3,), (4,)], "Add: expected two or more inputs of one shape, got 3 and 4"),
        (sg.Add(), [(3,)], "Add: expected two or more inputs of one shape, got 3"),
        (sg.Concat(1), [(3, 2), (3, 1)], "Concat: expected inputs that differ along axis 1 alone, got 3×2 and 3×1"),
        (sg.Concat(3), [(3, 2), (3, 2)], "Concat: expected inputs that differ along axis 3 alone"),
        (sg.Concat(-3), [(3, 2), (3, 2)], "Concat: expected inputs that differ along axis -3 alone"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(layer: sg.Layer, shapes: list[Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        layer.output_shape(*shapes)


def test_a_locally_connected_window_must_fit_at_once() -> None:
    with pytest.raises(ShapeError, match=r"LocallyConnected2d: a window of 3×3 does not fit into .* 2×5"):
        LC2(1, 1, (2, 5), 3)


def test_a_named_layer_says_its_name() -> None:
    layer = sg.Conv2d(3, 8, 3)
    layer.name = "stem"
    with pytest.raises(ShapeError, match=r"^layer 'stem' \(Conv2d\): expected"):
        layer.output_shape((1, 9, 9))


@pytest.mark.parametrize(
    ("layer", "shape", "uses", "unshared"),
    [
        (sg.Conv2d(1, 1, 3), (1, 32, 32), 900, 900 * 10),
        (sg.Conv2d(1, 1, 2, bias=False), (1, 3, 3), 4, 16),
        (sg.Conv1d(2, 3, 2, stride=2), (2, 8), 4, 4 * (3 * 2 * 2 + 3)),
        (LC2(1, 1, 3, 2), (1, 3, 3), 1, None),
        (sg.Linear(5, 2), (5,), 1, None),
        (sg.Linear(5, 2), (3, 4, 5), 12, 12 * (5 * 2 + 2)),
        (sg.RNN(2, 3), (6, 2), 6, 6 * (6 + 9 + 3 + 3)),
        (sg.BatchNorm2d(2), (2, 3, 4), 12, None),
        (sg.ReLU(), (3,), 1, None),
    ],
)
def test_how_often_a_sample_uses_a_weight(layer: sg.Layer, shape: Any, uses: int, unshared: int | None) -> None:
    assert layer.uses_per_sample(shape) == uses
    assert layer.without_sharing(shape) == unshared
    samples = 2
    net = sg.Network([layer], shape)
    y, tape = net.forward(np.random.default_rng(0).normal(size=(samples, *shape)))
    for call in tape.trace(np.ones(y.shape)).calls.values():
        for each in call.uses:
            assert each.count == samples * uses


def test_tying_takes_the_other_parameter_and_refuses_another_shape() -> None:
    a, b = sg.RNN(2, 3), sg.RNN(2, 3)
    b.tie("weight_ih_l0", a.weight_ih)
    assert b.parameters()["weight_ih_l0"] is a.weight_ih
    with pytest.raises(ShapeError, match=r"RNN: expected a weight_hh_l0 of shape \(3, 3\) to tie, got \(3, 2\)"):
        b.tie("weight_hh_l0", a.weight_ih)


def test_tying_a_name_that_is_not_there_says_which_there_are() -> None:
    with pytest.raises(ConfigError, match="Linear: has no parameter 'kernel'; choose from weight, bias"):
        sg.Linear(2, 2).tie("kernel", sg.Linear(2, 2).weight)


def test_first_weights_have_the_spread_of_their_formulas() -> None:
    rng = np.random.default_rng(0)
    he = initializers.weights("he", 50, 7, "layer")(rng, (400, 50))
    assert np.std(he) == pytest.approx(np.sqrt(2 / 50), rel=0.02)
    glorot = initializers.weights("glorot", 50, 10, "layer")(rng, (400, 50))
    limit = np.sqrt(6 / 60)
    assert 0.99 * limit < np.abs(glorot).max() <= limit
    assert np.std(glorot) == pytest.approx(limit / np.sqrt(3), rel=0.02)


def test_fan_in_counts_the_group_and_the_kernel() -> None:
    layer = sg.Conv2d(64, 64, (3, 2), groups=2)
    assert np.std(layer.weight.value) == pytest.approx(np.sqrt(2 / (32 * 6)), rel=0.03)
    assert not layer.bias.value.any()
    glorot = sg.Conv2d(32, 64, 3, init="glorot").weight.value
    assert np.abs(glorot).max() == pytest.approx(np.sqrt(6 / (9 * (32 + 64))), rel=0.01)


def test_a_relu_passes_nothing_back_at_zero() -> None:
    _, tape = sg.Network([sg.ReLU()], (3,)).forward([[-1.0, 0.0, 1.0]])
    np.testing.assert_array_equal(tape.backward([[5, 5, 5]], inputs=True).inputs["input"], [[0, 0, 5]])


@pytest.mark.parametrize(
    ("layer", "name", "value"),
    [
        (sg.Conv2d(1, 2, 3), "stride", 2),
        (sg.Conv1d(1, 2, 3), "padding", 1),
        (sg.Conv2d(1, 2, 3), "padding_mode", "reflect"),
        (sg.Conv2d(2, 2, 3), "groups", 2),
        (sg.Conv2d(1, 2, 3), "geometry", sg.Conv2d(1, 2, 3, 2).geometry),
        (LC2(1, 1, 5, 3), "input_size", 6),
        (sg.MaxPool2d(2), "kernel_size", 3),
        (sg.AvgPool1d(2), "stride", 1),
        (sg.Linear(2, 3), "in_features", 3),
        (sg.RNN(2, 3), "hidden_size", 4),
        (sg.BatchNorm2d(2), "num_features", 3),
    ],
)
def test_what_is_settled_when_a_layer_is_made_stays_so(layer: sg.Layer, name: str, value: Any) -> None:
    said, before = repr(layer), getattr(layer, name)
    with pytest.raises(
        ConfigError, match=rf"its {name} is settled when the layer is made; make a new one: \w+\(…, {name}="
    ):
        setattr(layer, name, value)
    assert (repr(layer), getattr(layer, name)) == (said, before)
    setattr(layer, name, before)


def test_settings_that_take_effect_can_be_set() -> None:
    pool, drop = sg.MaxPool2d(2), sg.Dropout(0.5)
    network = sg.Network([pool, drop], (1, 2, 2), dtype="float64")
    pool.ties, drop.p = "share", 0.0
    _, tape = network.forward(np.ones((1, 2, 2)))
    assert (tape.backward([[[4.0]]], inputs=True).inputs["input"] == 1).all()
