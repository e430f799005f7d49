"""Pictures of shares: what is drawn is what ``share`` gives, on one scale around zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import sharedgrad as sg
from sharedgrad.errors import ConfigError
from tests.helpers import Array, close

RNG = np.random.default_rng(2)
X, Y = RNG.normal(size=(9, 2, 6, 5)), RNG.integers(0, 3, 9)


@pytest.fixture(scope="module")
def trace() -> Any:
    twice = sg.Linear(5, 5)
    layers = {
        "conv": sg.Conv2d(2, 4, 3, padding=1),
        "tanh": sg.Tanh(),
        "rows": sg.Reshape((6, 20)),
        "rnn": sg.RNN(20, 5),
        "flat": sg.Flatten(),
        "in": sg.Linear(30, 5),
        "a": twice,
        "middle": sg.Tanh(),
        "b": twice,
        "scores": sg.Linear(5, 3),
    }
    net = sg.Network(layers, (2, 6, 5), dtype="float64")
    y, tape = net.forward(X)
    return tape.trace(sg.CrossEntropy()(y, Y)[1])


def panels(figure: Any) -> list[Any]:
    """The axes that show a map of shares."""
    return [a for a in figure.axes if a.images and a.images[-1].get_cmap().name in ("RdBu_r", "shares")]


def shown(axes: Any) -> Array:
    return np.asarray(axes.images[-1].get_array(), np.float64)


def words(figure: Any) -> str:
    return str(figure.get_supxlabel())


def test_maps_of_the_samples_with_the_largest_shares(trace: Any) -> None:
    u = trace["conv.weight"]
    figure = u.plot(samples=4)
    chosen = [part.use["sample"][0] for part in u.top(4, "sample", sign=0)]
    shares = 100 * u.share(("sample", "position"))
    assert len(panels(figure)) == 4
    limit = np.abs(shares[chosen]).max()
    for axes, n in zip(panels(figure), chosen, strict=True):
        close(shown(axes), shares[n])
        assert axes.images[-1].get_clim() == pytest.approx((-limit, limit))
        assert axes.get_title() == f"sample {n}: {shares[n].sum():+.3g} %"
    assert f"one scale of ±{limit:.3g} %" in words(figure)


def test_maps_over_images_that_are_given(trace: Any) -> None:
    u = trace["conv.weight"]
    figure = u.plot(samples=[7, 0], images=X, labels=["cat", "dog", *["x"] * 5, "bird", "x"])
    maps = panels(figure)
    assert [axes.get_title().split(":")[0] for axes in maps] == ["sample 7 (bird)", "sample 0 (cat)"]
    for axes, n in zip(maps, (7, 0), strict=True):
        close(np.asarray(axes.images[0].get_array()), X[n].mean(axis=0))
    tensors = u.plot(samples=[7], images=torch.tensor(X), labels=torch.arange(9))
    assert panels(tensors)[0].get_title().startswith("sample 7 (7)")


def test_one_filter_and_all_samples_together(trace: Any) -> None:
    one = trace["conv.weight"].filter(3)
    (only,) = panels(one.plot(samples=0))
    close(shown(only), 100 * one.share("position"))


def test_steps_are_curves(trace: Any) -> None:
    u = trace["rnn.weight_hh_l0"]
    figure = u.plot(samples=[2, 5])
    together, apart = figure.axes
    close(np.array([bar.get_height() for bar in together.patches]), 100 * u.share("time"))
    for line, n in zip(apart.get_lines()[:2], (2, 5), strict=True):
        close(np.asarray(line.get_ydata()), 100 * u.share(("sample", "time"))[n])
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert low == -high


def test_calls_and_samples_are_bars(trace: Any) -> None:
    u = trace["a.weight"]
    (axes,) = u.plot().axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    close(np.array([bar.get_width() for bar in axes.patches]), 100 * u.share("call"))
    mixed = [w for w in trace.weights.values() if w.top(4, "sample", sign=0) != w.top(4, "sample")]
    (axes,) = mixed[0].plot("sample", samples=4).axes  # the largest are of either sign
    best = [part.value for part in mixed[0].top(4, "sample", sign=0)]
    close(np.array([bar.get_width() for bar in axes.patches]), 100 * np.array(best))
    assert trace["scores.weight"].plot().axes[0].get_ylim()[0] > 0  # one use a sample: bars of samples


def test_of_pytorch_and_of_answers_that_were_kept() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.Flatten(), torch.nn.Linear(36, 3)).double()
    x, y = torch.tensor(X), torch.tensor(Y)
    found = []
    for keep in ("factors", ["share:sample,position", "share:position"]):
        with sg.trace(model, keep=keep) as t:
            torch.nn.functional.cross_entropy(model(x), y).backward()
        maps = panels(t["0.weight"].plot(images=x, samples=2))
        close(shown(panels(t["0.weight"].plot(samples=0))[0]).sum(), 100.0)
        found.append(np.stack([shown(axes) for axes in maps]))
    close(found[1], found[0])
    with pytest.raises(ConfigError, match="share:sample was not kept"):
        t["0.weight"].plot("sample")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"by": "time"}, "there is no axis 'time' to draw; choose from position, sample"),
        ({"by": "call"}, "there is no axis 'call' to draw"),
        ({"samples": -1}, "expected a number of samples or their indices, got -1"),
        ({"samples": [9]}, "expected indices from 0 to 8, got 9"),
        ({"samples": [1.5]}, "expected indices from 0 to 8, got 1.5"),
        ({"images": X[:4]}, r"expected images \(9, channels, height, width\)"),
        ({"images": X[:, 0, 0]}, "expected images"),
        ({"images": "x.png"}, "expected arrays of numbers, got str"),
        ({"images": [1, 2]}, "expected images"),
        ({"samples": 2.5}, "expected indices from 0 to 8, got 2.5"),
        ({"labels": 3}, "expected a label for every sample, got 3"),
        ({"labels": [1]}, "expected a label for every sample, got 1"),
    ],
)
def test_what_people_get_wrong(trace: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trace["conv.weight"].plot(**arguments)


def test_shares_that_are_undefined_are_not_drawn() -> None:
    net = sg.Network([sg.Conv2d(2, 3, 3)], (2, 6, 5))
    _, tape = net.forward(X)
    for by in ("position", "sample"):
        with pytest.raises(ConfigError, match="zero up to rounding"):
            tape.trace(np.zeros((9, 3, 4, 3)))["0.weight"].plot(by)


def test_volumes_have_no_picture() -> None:
    net = sg.Network([sg.Conv1d(2, 3, 3)], (2, 7))
    y, tape = net.forward(RNG.normal(size=(3, 2, 7)))
    figure = tape.trace(RNG.normal(size=y.shape))["0.weight"].plot()
    assert figure.axes[-1].get_xlabel() == "position"
    model = torch.nn.Conv3d(1, 2, 2)
    with sg.trace(model) as t:
        model(torch.randn(2, 1, 3, 3, 3)).square().sum().backward()
    with pytest.raises(ConfigError, match="position has 3 axes; a picture has one or two"):
        t["weight"].plot()
