"""Arrays that do not fit a network: the message names what would make them fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad import Add, Conv2d, Flatten, Layer, Linear, Network
from sharedgrad.errors import ConfigError, DataError, ShapeError, SharedgradError

RNG = np.random.default_rng(0)


def convolutional(channels: int, declared: bool) -> Network:
    shape = (channels, 8, 8) if declared else None
    return Network([Conv2d(channels, 4, 3), Flatten(), Linear(144, 3)], shape)


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize(
    ("channels", "shape", "change"),
    [
        (1, (5, 8, 8, 1), "channels come first: x.transpose(0, 3, 1, 2)"),
        (3, (5, 8, 8, 3), "channels come first: x.transpose(0, 3, 1, 2)"),
        (3, (8, 8, 3), "a single image, channels first: x.transpose(2, 0, 1)[None]"),
        (1, (5, 8, 8), "grey images need a channel axis: x[:, None]"),
        (1, (8, 8), "a single grey image needs a sample and a channel axis: x[None, None]"),
    ],
)
def test_the_change_that_is_named_helps(channels: int, shape: tuple[int, ...], change: str, declared: bool) -> None:
    net, x = convolutional(channels, declared), RNG.random(shape)
    with pytest.raises(ShapeError) as raised:
        net.forward(x)
    assert str(raised.value).startswith(f"network input 'input': expected samples × {channels}×8×8, got an array of ")
    assert str(raised.value).endswith(change)
    changed = eval(change.split(": ")[1], {"x": x})
    assert net.predict(changed).shape == (len(changed), 3)


def test_a_single_sample_without_a_declared_shape() -> None:
    for net, x in ((convolutional(3, False), RNG.random((3, 8, 8))), (Network([Linear(4, 3)]), RNG.random(4))):
        with pytest.raises(ShapeError, match=r"a single sample needs a sample axis: x\[None\]"):
            net.predict(x)
        net.predict(x[None])


def test_flat_images() -> None:
    with pytest.raises(ShapeError, match=r"got an array of 5×64; x.reshape\(-1, 1, 8, 8\)"):
        convolutional(1, True).predict(RNG.random((5, 64)))


def test_another_size_than_declared_is_the_datas_affair() -> None:
    expected = "expected samples × 1×8×8, got an array of 5×1×10×10; bring the data to this size"
    with pytest.raises(ShapeError, match=expected):
        convolutional(1, True).predict(RNG.random((5, 1, 10, 10)))
    with pytest.raises(ShapeError, match="set in_features=256"):  # nothing was declared: it may be the layer's
        convolutional(1, False).predict(RNG.random((5, 1, 10, 10)))


def test_a_size_that_the_layers_take_is_taken() -> None:
    net = Network([Conv2d(1, 4, 3)], (1, 8, 8))
    assert net.predict(RNG.random((5, 1, 10, 10))).shape == (5, 4, 8, 8)


def test_the_input_that_is_wrong_is_named() -> None:
    net = Network({"sum": (Add(), "p", "q")}, {"p": (3,), "q": (3,)})
    with pytest.raises(ShapeError, match="network input 'q': expected samples × 3, got an array of 2×4"):
        net.predict(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(ShapeError, match="layer 'sum'"):
        Network({"sum": (Add(), "p", "q")}, {"p": None, "q": None}).predict(np.ones((2, 3)), np.ones((2, 4)))


class Even(Layer):
    def forward(self, *inputs, context):
        return inputs[0], None

    def backward(self, saved, upstream, needs):
        return (upstream,), []

    def output_shape(self, *shapes):
        (shape,) = shapes
        if shape[0] % 2:
            raise ConfigError(self.label, "needs an even number of features", "pad them")
        if shape[0] > 4:
            raise ValueError("too many features")
        return shape


def test_a_layers_own_error_is_not_swallowed() -> None:
    with pytest.raises(ConfigError, match=r"layer '0' \(Even\): needs an even number of features; pad them"):
        Network([Even()], (3,))
    with pytest.raises(ConfigError, match=r"layer '0' \(Even\): too many features"):
        Network([Even()], (6,))
    with pytest.raises(ConfigError, match=r"layer 'even' \(Even\): got 2 inputs \(p, q\), which it does not take"):
        Network({"even": (Even(), "p", "q")}, {"p": (2,), "q": (2,)})


def test_channels_last_is_refused_where_no_layer_would_notice() -> None:
    for channels in (1, 3):
        net = Network([Flatten(), Linear(64 * channels, 3)], (channels, 8, 8))
        assert net.predict(RNG.random((5, channels, 8, 8))).shape == (5, 3)
        with pytest.raises(ShapeError, match=rf"got an array of 5×8×8×{channels}; channels come first"):
            net.predict(RNG.random((5, 8, 8, channels)))
    assert Network([Flatten(), Linear(64, 3)], (4, 4, 4)).predict(RNG.random((5, 4, 4, 4))).shape == (5, 3)


X, Y = RNG.random((4, 1, 8, 8)), np.array([0, 1, 2, 0])
NOTHING = X[:0], Y[:0]
BATCH, PART = "leave out batches without samples", "leave out parts without samples"


def step(net: Network) -> Any:
    return sg.compile_step(net, sg.CrossEntropy(), sg.SGD(net.parameters(), lr=0.1))


WITHOUT_SAMPLES: dict[str, tuple[Callable[[Network], Any], str]] = {
    "forward": (lambda net: net.forward(NOTHING[0]), "network input 'input': expected at least one sample of 1×8×8"),
    "predict": (lambda net: net.predict(NOTHING[0]), "network input 'input': expected at least one sample of 1×8×8"),
    "step": (lambda net: step(net)(*NOTHING), "network input 'input': expected at least one sample of 1×8×8"),
    "loss": (lambda net: sg.CrossEntropy()(np.ones((0, 3)), NOTHING[1]), "CrossEntropy: expected at least one output"),
    "MSE": (lambda net: sg.MSE()(np.ones((0, 3)), np.ones((0, 3))), "MSE: expected at least one output"),
    "fit": (lambda net: sg.fit(net, NOTHING, epochs=1), "train: expected at least one sample, got none"),
    "validation": (lambda net: sg.fit(net, (X, Y), NOTHING, epochs=1), "validation: expected at least one sample"),
    "one batch": (lambda net: sg.fit(net, [(X, Y), NOTHING], epochs=1), "train: batch 1: expected at least one sample"),
    "evaluate": (lambda net: sg.evaluate(net, *NOTHING), "evaluate: expected at least one sample, got none"),
    "batches": (lambda net: sg.data.batches(*NOTHING, 2), "batches: expected at least one sample, got images of 0×1×8"),
}


@pytest.mark.parametrize("name", WITHOUT_SAMPLES)
def test_a_batch_without_samples(name: str) -> None:
    call, message = WITHOUT_SAMPLES[name]
    with pytest.raises(SharedgradError) as caught:
        call(convolutional(1, True))
    assert str(caught.value).startswith(message)
    assert caught.value.fix in (BATCH, PART)


def test_nothing_to_measure_and_a_number_alone() -> None:
    with pytest.raises(DataError, match="at least one image, got an array of 0×1×8×8; measure the training part"):
        sg.data.Normalization.of(NOTHING[0])
    with pytest.raises(ShapeError, match="at least one sample, got one number; pass an array, samples first"):
        Network([Linear(4, 3)]).predict(1.0)
