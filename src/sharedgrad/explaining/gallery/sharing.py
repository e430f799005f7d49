"""Why it stays shared: the two theories of the question, played over several updates beside the truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import acos, degrees, sqrt

import numpy as np

from sharedgrad.calculation import Calculation
from sharedgrad.document.blocks import Block, Equation, Paragraph, Part, Section, Table
from sharedgrad.document.expression import Cell, Difference, Number, Product, Quotient, Symbol
from sharedgrad.explaining import whole
from sharedgrad.explaining.backward import gradient_sum
from sharedgrad.explaining.cells import Limits
from sharedgrad.explaining.names import Names
from sharedgrad.losses import MSE
from sharedgrad.network import Network
from sharedgrad.parameter import Array

_UPDATES = 5
_PLACES = ((0, 0), (0, 1), (7, 20), (15, 15), (29, 29))
_MIDDLE = (0, 0, 1, 1)


def blocks(names: Names, limits: Limits) -> list[Block]:
    """The truth, the two theories, and what sharing is not."""
    return [
        _truth(names, limits),
        _first_theory(names),
        _second_theory(names),
        _direction(names),
        _between_filters(names),
        whole.given(names, limits),
    ]


def _truth(names: Names, limits: Limits) -> Section:
    conv = names.network_node("conv")
    parameter = conv.layer.parameters()["weight"]
    (use,), dw = names.uses(conv, parameter), names.weight_gradient(parameter)
    assert dw is not None
    cell, w, new = dw.cell(*_MIDDLE), names.weight(parameter), names.updated(parameter)
    rate = names.calculation.learning_rate or 0.0
    step = Difference(w.cell(*_MIDDLE), Product((Number(rate), cell)))
    return Section(
        "What happens: one weight, one gradient, one update",
        (
            Paragraph.of(
                "There is one number, ",
                w.cell(*_MIDDLE),
                ". It stands in the formula of the loss 900 times, once for each "
                "place; the derivative of the loss has a term for each. They are added, and the one number is changed "
                "once. There are no 900 copies that could come apart.",
            ),
            Equation.cell(cell, gradient_sum(names, [(conv, use)], cell, limits)),
            Equation.cell(new.cell(*_MIDDLE), step),
        ),
        "truth",
    )


# ---- the first theory: copies that start equal stay equal


def _contributions(names: Names) -> Array:
    """What each of the 900 places contributes to the gradient of the kernel (30, 30, 3, 3)."""
    conv = names.network_node("conv")
    (use,) = names.uses(conv, conv.layer.parameters()["weight"])
    return np.asarray(use.sum(by=("sample", "position")))[0, :, :, 0, 0]


def _first_theory(names: Names) -> Section:
    contributions, rate = _contributions(names), names.calculation.learning_rate or 0.0
    w = names.weight(names.network.parameter("conv.weight"))
    copies = w.array[_MIDDLE] - rate * contributions[..., 1, 1]
    rows: list[tuple[Part, ...]] = []
    for place in _PLACES:
        before = float(w.array[_MIDDLE])
        rows.append((f"{place[0]},{place[1]}", before, float(contributions[(*place, 1, 1)]), float(copies[place])))
    different = len(np.unique(copies))
    return Section(
        'Theory 1: "weights that start equal stay equal"',
        (
            Paragraph.of(
                "Suppose that every place had a copy of its own, all equal at first, and each copy were updated "
                "with what its own "
                "place contributes. Five of the 900 copies of ",
                w.cell(*_MIDDLE),
                ":",
            ),
            Table(("place", "before", "its gradient", "after"), tuple(rows)),
            Paragraph.of(
                f"They do not stay equal: after one update the 900 copies have {different} different values, from ",
                float(copies.min()),
                " to ",
                float(copies.max()),
                ". The upstream gradients and the windows differ from place to place, and so do the updates. The "
                "asker's doubt "
                "about this theory was right.",
            ),
        ),
        "theory-1",
    )


# ---- the second theory: the copies are set to their mean


@dataclass(frozen=True)
class _State:
    loss: float
    kernel: Array
    dense: Array
    kernel_gradient: Array
    dense_gradient: Array


def _played(calculation: Calculation, rates: tuple[float, float], updates: int) -> Iterator[_State]:
    """The loss and the weights over some updates, each layer with a learning rate of its own."""
    config = calculation.to_config()
    for _ in range(updates + 1):
        at = Calculation.of(config)
        result = at.run()
        kernel, dense = (np.asarray(config["numbers"]["weights"][n]) for n in ("conv.weight", "dense.weight"))
        gradients = result.gradients["conv.weight"], result.gradients["dense.weight"]
        yield _State(result.losses[0], kernel, dense, *gradients)
        changed = {
            "conv.weight": kernel - rates[0] * gradients[0],
            "dense.weight": dense - rates[1] * gradients[1],
        }
        config = {**config, "numbers": {**config["numbers"], "weights": {n: a.tolist() for n, a in changed.items()}}}


def _second_theory(names: Names) -> Section:
    rate = names.calculation.learning_rate or 0.0
    contributions = _contributions(names)
    count = contributions[..., 0, 0].size
    parameter = names.network.parameter("conv.weight")
    w, dw = names.weight(parameter), names.weight_gradient(parameter)
    assert dw is not None
    copies = w.array[0, 0] - rate * contributions
    mean = Symbol("mean of the copies", copies.mean(axis=(0, 1)))
    step = Product((Quotient(Number(rate), Number(float(count))), dw.cell(*_MIDDLE)))
    truth = list(_played(names.calculation, (rate, rate), _UPDATES))
    theory = list(_played(names.calculation, (rate / count, rate), _UPDATES))
    rows = tuple(
        (n, a.loss, float(a.kernel[_MIDDLE]), b.loss, float(b.kernel[_MIDDLE]))
        for n, (a, b) in enumerate(zip(truth, theory, strict=True))
    )
    return Section(
        'Theory 2: "afterwards they are set to their mean"',
        (
            Paragraph.of(
                "Update every copy with its own contribution, then set all of them to their mean. The mean of 900 "
                "copies is the old "
                "weight minus the learning rate times the mean of the contributions, and that is the plain sum "
                "with the learning "
                "rate divided by 900:"
            ),
            Equation(mean.cell(1, 1), Difference(Cell(w, _MIDDLE), step), mean.cell(1, 1).value),
            Paragraph.of(
                "So within one layer this theory is harmless: it is the sum, with another learning rate. Both "
                "played over several "
                f"updates of the whole network (learning rate {rate:g}; the dense layer's weights are used once "
                "each, their mean is "
                "themselves):"
            ),
            Table(("update", "loss (sum)", f"{w.key}[1,1]", "loss (mean)", f"{w.key}[1,1] "), rows),
        ),
        "theory-2",
    )


def _direction(names: Names) -> Section:
    rate, count = names.calculation.learning_rate or 0.0, 900
    state = next(_played(names.calculation, (rate, rate), 0))
    conv, dense = np.linalg.norm(state.kernel_gradient), np.linalg.norm(state.dense_gradient)
    length = {"sum": sqrt(conv**2 + dense**2), "mean": sqrt((conv / count) ** 2 + dense**2)}
    cosine = (conv * conv / count + dense * dense) / (length["sum"] * length["mean"])
    rows = (
        ("sum", float(conv), float(dense), float(conv**2 / length["sum"] ** 2)),
        ("mean", float(conv / count), float(dense), float((conv / count) ** 2 / length["mean"] ** 2)),
    )
    return Section(
        "Why it matters all the same: 900 here, 1 there",
        (
            Paragraph.of(
                "The number of uses differs from layer to layer. Dividing by it makes the step of the convolution "
                "900 times smaller and "
                "leaves that of the dense layer as it is: over the whole network the step has not only another "
                "length but another "
                "direction, and is no longer the gradient's."
            ),
            Table(("rule", "length in conv.w", "length in dense.w", "share of conv.w in the step"), rows),
            Paragraph.of("The angle between the two steps is ", degrees(acos(min(float(cosine), 1.0))), " degrees."),
        ),
        "direction",
    )


# ---- between filters nothing is shared


def _filters(names: Names, second: float) -> Iterator[float]:
    """The largest difference between two filters, over some updates; the second starts so much larger."""
    x = names.value("input").array
    kernel = names.weight(names.network.parameter("conv.weight")).array
    dense = names.weight(names.network.parameter("dense.weight")).array
    config = {
        "dtype": "float64",
        "inputs": {"input": list(x.shape[1:])},
        "nodes": [
            {"name": "conv", "layer": "Conv2d", "in_channels": 1, "out_channels": 2, "kernel_size": 3, "bias": False},
            {"name": "tanh", "layer": "Tanh"},
            {"name": "flatten", "layer": "Flatten"},
            {"name": "dense", "layer": "Linear", "in_features": 1800, "out_features": 1, "bias": False},
        ],
    }
    network = Network.from_config(config)
    both = np.concatenate([kernel, kernel + second])
    network.load_state_dict({"conv.weight": both, "dense.weight": np.concatenate([dense, dense], axis=1)})
    loss, rate = MSE("half_sum"), names.calculation.learning_rate or 0.0
    for _ in range(_UPDATES + 1):
        value = network.parameter("conv.weight").value
        yield float(np.abs(value[0] - value[1]).max())
        y, tape = network.forward(x)
        gradients = tape.backward(loss(y, np.ones_like(y))[1])
        for parameter in network.parameters():
            parameter.value = parameter.value - rate * gradients[parameter]


def _between_filters(names: Names) -> Section:
    rows = tuple(
        (n, same, other) for n, (same, other) in enumerate(zip(_filters(names, 0.0), _filters(names, 0.1), strict=True))
    )
    return Section(
        "Sharing within a filter is not sharing between filters",
        (
            Paragraph.of(
                "A layer with two filters has two kernels, each shared by all places of its own map, and nothing "
                "makes them equal. Here "
                "two filters with a tanh behind them, and equal dense weights for both: started equal they get "
                "equal gradients and "
                "stay equal (so filters are drawn at random), started differently they go different ways. The "
                "largest difference "
                "between the two kernels:"
            ),
            Table(("update", "started equal", "started differently"), rows),
        ),
        "filters",
    )
