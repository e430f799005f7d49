from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sharedgrad import (
    RNN,
    SGD,
    Adam,
    AdamW,
    BatchNorm2d,
    Callback,
    Conv2d,
    CrossEntropy,
    Flatten,
    Gradients,
    Layer,
    Linear,
    Network,
    Parameter,
    Sigmoid,
    Softmax,
    Tape,
    uses,
)
from sharedgrad.document import terminal
from sharedgrad.document.numbers import show
from sharedgrad.training import State, Step, fit
from sharedgrad.training.report import place, step_report

RNG = np.random.default_rng(2)
X, Y = RNG.normal(size=(5, 2, 6, 5)), RNG.integers(0, 3, 5)
NUMBER = r"[-+]?\d[\d.]*(?:e[-+]\d+)?"


def numbers(line: str) -> list[float]:
    return [float(n) for n in re.findall(NUMBER, line)]


def shown(step: Step) -> str:
    """The report on lines as long as they need to be."""
    return terminal.text([step_report(step)], width=300)


def conv_net(seed: int = 0) -> Network:
    conv = Conv2d(2, 4, 3, stride=2, padding=(1, 2), groups=2)
    return Network(
        {"conv": conv, "act": Sigmoid(), "flat": Flatten(), "fc": Linear(48, 3)}, (2, 6, 5), seed=seed, dtype="float64"
    )


def one_step(net: Network, x: Any = X, y: Any = Y, **arguments: Any) -> Step:
    step = fit(net, (x, y), epochs=2, **arguments).step
    assert step is not None
    return step


@pytest.mark.parametrize("seed", range(4))
def test_every_number_can_be_recomputed(seed: int) -> None:
    """From the loss alone, by loops that know nothing of uses."""
    net, batches = conv_net(seed), []
    values, forward = net.state_dict(), net.forward
    net.forward = lambda x: batches.append(x) or forward(x)
    step = one_step(net, optimizer=SGD(net.parameters(), lr=0.25), batch_size=5)
    lines = [line for line in shown(step).splitlines() if line]
    f, c, a, b = (int(i) for i in re.findall(r"\d+", lines[0].partition("[")[2].partition("]")[0]))
    assert lines[0] == f"One weight, conv.weight[{f},{c},{a},{b}], in batch 1 of 1 of epoch 1"
    assert lines[2] == "used 60 times: 5 samples × 3×4 positions"
    assert lines[3].split("  ")[1:2] == ["its largest contributions"]
    assert lines[3].split()[-5:] == ["upstream", "δ", "input", "x", "product"]

    padded = np.pad(batches[0], ((0, 0), (0, 0), (1, 1), (2, 2)))
    delta = upstream(batches[0], values)
    terms = {
        (n, i, j): (delta[n, f, i, j], padded[n, f // 2 + c, 2 * i + a, 2 * j + b]) for n, i, j in np.ndindex(5, 3, 4)
    }
    products = {use: d * x for use, (d, x) in terms.items()}
    largest = sorted(products, key=lambda use: -abs(products[use]))[:3]
    for line, use in zip(lines[5:8], largest, strict=True):
        n, i, j = use
        assert line.startswith(f"  sample {n}, position {i},{j} ")
        assert numbers(line)[3:] == pytest.approx([*terms[use], products[use]], rel=1e-3)

    total = sum(products.values())
    assert lines[8].startswith("the sum of all 60 is the gradient: ")
    assert lines[8].endswith("(tape.backward: the same).")
    assert numbers(lines[8])[1] == pytest.approx(total, rel=1e-5)
    before = values["conv.weight"][f, c, a, b]
    assert lines[9] == "one update of the one weight (SGD, learning rate of this step 0.25):"
    assert lines[10].startswith(f"  new = {place(step)} - 0.25·gradient = ")
    printed = numbers(re.sub(r"[()]| - ", "  ", lines[10]))
    assert printed[-4:] == pytest.approx([before, 0.25, total, before - 0.25 * total], rel=1e-3)
    assert step.after == pytest.approx(before - 0.25 * total, rel=1e-9)
    assert place(step) == f"conv.weight[{f},{c},{a},{b}]"


def upstream(x: np.ndarray, values: dict[str, np.ndarray]) -> np.ndarray:
    """The gradient at the convolution's output by central differences of the loss."""
    labels = next(Y[list(order)] for order in orders() if np.array_equal(X[list(order)], x))
    net = conv_net()
    net.load_state_dict(values)
    out = net["conv"].forward(x, context=None)[0]
    head = Network([Sigmoid(), Flatten(), Linear(48, 3)], (4, 3, 4), dtype="float64")
    head.load_state_dict({"2.weight": values["fc.weight"], "2.bias": values["fc.bias"]})
    delta = np.zeros_like(out)
    for index in np.ndindex(*out.shape):
        sides = []
        for change in (1e-5, -1e-5):
            moved = out.copy()
            moved[index] += change
            sides.append(CrossEntropy()(head.predict(moved), labels)[0])
        delta[index] = (sides[0] - sides[1]) / 2e-5
    return delta


class Shift(Layer):
    """y = x + b."""

    def __init__(self) -> None:
        self.b = Parameter((3,), lambda _, shape: np.zeros(shape), "b")

    def forward(self, *inputs: Any, context: Any) -> tuple[Any, Any]:
        return inputs[0] + self.b.value, None

    def backward(self, saved: Any, upstream: Any, needs: Any) -> Any:
        return (upstream,), [uses.Direct(self.b, upstream, {"sample": upstream.shape[:1]})]

    def output_shape(self, *shapes: Any) -> Any:
        return shapes[0]


def orders() -> Any:
    from itertools import permutations

    return permutations(range(5))


@pytest.mark.parametrize("kind", ["momentum", "decay", "adam", "adamw"])
def test_other_optimizers_show_what_they_did(kind: str) -> None:
    net = conv_net()
    optimizer = {
        "momentum": lambda p: SGD(p, lr=0.1, momentum=0.9),
        "decay": lambda p: SGD(p, lr=0.1, weight_decay=0.5),
        "adam": lambda p: Adam(p, lr=0.1),
        "adamw": lambda p: AdamW(p, lr=0.1),
    }[kind](net.parameters())
    step = one_step(net, optimizer=optimizer, batch_size=2, schedule=lambda progress: 0.5)
    line = shown(step).splitlines()[-1]
    assert element_of(shown(step)) == step.element
    assert numbers(line)[:3] == pytest.approx([step.before, step.after, step.after - step.before], rel=2e-3)
    assert "learning rate of this step 0.05" in line
    words = {"momentum": "momentum 0.9", "decay": "weight decay 0.5", "adam": "(Adam, ", "adamw": "weight decay 0.01"}
    assert words[kind] in line


def element_of(text: str) -> tuple[int, ...]:
    return tuple(int(i) for i in re.findall(r"\d+", text.partition("[")[2].partition("]")[0]))


def test_clipping_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    net = conv_net()
    norms = []
    backward = Tape.backward

    def watched(*arguments: Any) -> Gradients:
        gradients = backward(*arguments)
        norms.append(gradients.norm())
        return gradients

    monkeypatch.setattr(Tape, "backward", watched)
    step = one_step(net, optimizer=SGD(net.parameters(), lr=1.0), max_norm=1e-3)
    text = shown(step)
    clipped = text.partition("clipped to max_norm")[2].partition("\n")[0].rstrip(".")
    assert numbers(clipped)[-1] == pytest.approx(step.gradient * 1e-3 / norms[0], rel=1e-5)
    assert step.applied == pytest.approx(numbers(clipped)[-1], rel=1e-5)
    assert step.after == pytest.approx(step.before - numbers(clipped)[-1], abs=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_the_weight_with_the_largest_gradient_is_shown(seed: int) -> None:
    net = conv_net(seed)
    before = net.state_dict()["conv.weight"]
    step = one_step(net, optimizer=SGD(net.parameters(), lr=1.0), batch_size=5)
    change = np.abs(conv_after_one(seed) - before)
    assert change[step.element] == change.max() == pytest.approx(abs(step.gradient))


def conv_after_one(seed: int) -> np.ndarray:
    net = conv_net(seed)
    fit(net, (X, Y), epochs=1, optimizer=SGD(net.parameters(), lr=1.0), batch_size=5)
    return net.parameter("conv.weight").value


@pytest.mark.parametrize(("batch_size", "when"), [(5, "batch 1 of 1"), (2, "batch 2 of 3"), (1, "batch 3 of 5")])
def test_the_middle_of_the_first_epoch_is_shown(batch_size: int, when: str) -> None:
    assert shown(one_step(conv_net(), batch_size=batch_size)).partition("], in ")[2].startswith(f"{when} of epoch 1\n")


def test_after_resuming_it_is_the_first_step_since(tmp_path: Path) -> None:
    class Stop(Callback):
        def on_epoch(self, state: State) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(conv_net(), (X, Y), epochs=2, batch_size=2, out=tmp_path, callbacks=[Stop()])
    step = one_step(conv_net(), batch_size=2, out=tmp_path, resume=True)
    assert (step.epoch, step.batch) == (2, 1)
    assert fit(conv_net(), (X, Y), epochs=2, batch_size=2, out=tmp_path, resume=True).step is None


def test_keeping_a_step_keeps_one_number_of_each_use_alone() -> None:
    step = one_step(conv_net(), batch_size=5)
    assert sum(factor.array.size for factor in step.terms.factors.values()) == 2 * 60


def test_calls_of_one_layer_are_added() -> None:
    conv = Conv2d(2, 2, 3, padding=1)
    net = Network([BatchNorm2d(2), conv, Sigmoid(), conv, Flatten(), Linear(60, 3)], (2, 6, 5))
    text = shown(one_step(net, batch_size=5))
    assert "1.weight[" in text
    assert "used 300 times: 5 samples × 6×5 positions + 5 samples × 6×5 positions" in text
    assert re.search(r"^  call [12], sample \d, position \d,\d ", text, re.M)
    assert "tape.backward: the same" in text


def test_a_sum_that_does_not_agree_is_told() -> None:
    step = one_step(conv_net())
    text = shown(replace(step, gradient=2 * step.gradient))
    assert "which does not agree" in text
    assert "the same" not in text


@pytest.mark.parametrize(
    ("layers", "shape", "batch", "first", "used"),
    [
        ([RNN(3, 4, last=True), Linear(4, 3)], (6, 3), 5, "0.weight_ih_l0", "30 times: 5 samples × 6 time steps"),
        ([Linear(3, 4), Flatten(), Linear(24, 3)], (6, 3), 5, "0.weight", "30 times: 5 samples × 6 tokens"),
        ([Flatten(), Linear(18, 3)], (6, 3), 5, "1.weight", "5 times: 5 samples"),
        ([Flatten(), Linear(18, 3)], (6, 3), 1, "1.weight", "once: 1 sample"),
        ([BatchNorm2d(2), Flatten(), Linear(60, 3)], (2, 6, 5), 5, "0.weight", "150 times: 5 samples × 6×5 positions"),
    ],
)
def test_networks_without_convolutions(
    layers: list[Any], shape: tuple[int, ...], batch: int, first: str, used: str
) -> None:
    net = Network(layers, shape)
    x = RNG.normal(size=(5, *shape))
    text = shown(one_step(net, x, batch_size=batch))
    assert text.startswith(f"One weight, {first}[")
    assert f"\nused {used}\n" in text
    assert "(tape.backward: the same)" in text


def test_contributions_that_are_no_products() -> None:
    text = shown(one_step(Network([Shift(), Linear(3, 3)], (3,)), RNG.normal(size=(5, 3)), batch_size=5))
    assert text.splitlines()[5].split("  ") == ["", "its largest contributions", "upstream δ"]
    assert re.fullmatch(r"  sample \d +-?[\d.]+", text.splitlines()[7])
    assert "(tape.backward: the same)" in text


@pytest.mark.filterwarnings("ignore:.*stands before CrossEntropy")  # it is what makes the gradient zero
def test_a_gradient_of_zero_and_an_update_of_nothing() -> None:
    net = Network([Conv2d(2, 1, (6, 5)), Flatten(), Softmax()], (2, 6, 5))  # softmax of one number is 1
    text = shown(one_step(net, y=np.zeros(5, np.int64), optimizer=SGD(net.parameters(), lr=0.1)))
    assert "is the gradient: 0 (tape.backward: the same)" in text
    weight = net.parameter("0.weight").value[0, 0, 0, 0]
    assert f"= {show(weight)} - 0.1·0 = {show(weight)}" in text.replace("(-0)", "0")


def test_an_update_too_small_to_change_the_weight() -> None:
    net = conv_net()
    step = one_step(net, optimizer=Adam(net.parameters(), lr=1e-30))
    said = shown(step).splitlines()[-1]
    assert "one update of the one weight: too small for float64, it stays " in said
    assert "→" not in said


def test_a_weight_that_is_not_trained() -> None:
    net = conv_net()
    step = one_step(net, optimizer=SGD([net.parameter("fc.weight")], lr=0.1))
    assert shown(step).splitlines()[-1] == "no update: the optimizer does not train conv.weight"
