from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from sharedgrad import (
    RNN,
    SGD,
    Adam,
    AdamW,
    BatchNorm2d,
    Conv2d,
    CrossEntropy,
    Flatten,
    Linear,
    Network,
    Sigmoid,
    Softmax,
)
from sharedgrad.training import Step, fit
from sharedgrad.training.report import idea

RNG = np.random.default_rng(2)
X, Y = RNG.normal(size=(5, 2, 6, 5)), RNG.integers(0, 3, 5)
NUMBER = r"[-+]?\d[\d.]*(?:e[-+]\d+)?"


def numbers(line: str) -> list[float]:
    return [float(n) for n in re.findall(NUMBER, line)]


def conv_net(seed: int = 0) -> Network:
    conv = Conv2d(2, 4, 3, stride=2, padding=(1, 2), groups=2)
    return Network(
        {"conv": conv, "act": Sigmoid(), "flat": Flatten(), "fc": Linear(48, 3)}, (2, 6, 5), seed=seed, dtype="float64"
    )


def last_step(net: Network, x: Any = X, y: Any = Y, **arguments: Any) -> Step:
    step = fit(net, (x, y), epochs=2, **arguments).last_step
    assert step is not None
    return step


@pytest.mark.parametrize("seed", range(4))
def test_every_number_can_be_recomputed(seed: int) -> None:
    """From the loss alone, by loops that know nothing of uses."""
    net = conv_net(seed)
    step = last_step(net, optimizer=SGD(net.parameters(), lr=0.25), batch_size=5)
    lines = idea(step).splitlines()
    weight = net.parameter("conv.weight")
    f, c, a, b = (int(i) for i in re.findall(r"\d+", lines[0].partition("[")[2].partition("]")[0]))
    assert lines[0] == f"One weight, conv.weight[{f}, {c}, {a}, {b}], in the last batch:"
    assert lines[1] == "  used 60 times: 5 samples × 3×4 positions"

    assert lines[2] == "  its largest contributions (upstream δ × input x):"

    values = {p.name: v for p, v in step.before.items()}
    padded = np.pad(step_input(step), ((0, 0), (0, 0), (1, 1), (2, 2)))
    delta = upstream(step, values)
    terms = {
        (n, i, j): (delta[n, f, i, j], padded[n, f // 2 + c, 2 * i + a, 2 * j + b]) for n, i, j in np.ndindex(5, 3, 4)
    }
    products = {use: d * x for use, (d, x) in terms.items()}
    largest = sorted(products, key=lambda use: -abs(products[use]))[:3]
    for line, use in zip(lines[3:6], largest, strict=True):
        n, i, j = use
        assert line.startswith(f"    sample {n}, position {i},{j} ")
        assert numbers(line)[3:] == pytest.approx([*terms[use], products[use]], rel=1e-3)

    total = sum(products.values())
    assert lines[6].startswith("  the sum of all 60 is the gradient: ")
    assert lines[6].endswith("(tape.backward: the same)")
    assert numbers(lines[6])[1] == pytest.approx(total, rel=1e-5)
    before, after = values["conv.weight"][f, c, a, b], weight.value[f, c, a, b]
    assert numbers(lines[7])[:4] == pytest.approx([before, 0.25, total, after], rel=1e-3)
    assert after == pytest.approx(before - 0.25 * total, rel=1e-9)
    assert len(lines) == 8


def step_input(step: Step) -> np.ndarray:
    (uses,) = step.trace[next(p for p in step.before if p.name == "conv.weight")]
    return uses.big  # type: ignore[attr-defined,no-any-return]


def upstream(step: Step, values: dict[str, np.ndarray]) -> np.ndarray:
    """The gradient at the convolution's output by central differences of the loss."""
    x = step_input(step)
    labels = next(Y[list(order)] for order in orders() if np.array_equal(X[list(order)], x))
    net = conv_net()
    net.load_state_dict(values)
    out = net["conv"].forward(x, context=None)[0]  # type: ignore[arg-type]
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
    step = last_step(net, optimizer=optimizer, batch_size=2, schedule=lambda progress: 0.5)
    line = idea(step).splitlines()[-1]
    element = element_of(idea(step))
    before, after = (float(v[net.parameter("conv.weight")][element]) for v in (step.before, step.after))
    assert net.parameter("conv.weight").value[element] == after
    assert numbers(line)[:3] == pytest.approx([before, after, after - before], rel=2e-3)
    assert "learning rate of this step 0.05" in line
    words = {"momentum": "momentum 0.9", "decay": "weight decay 0.5", "adam": "(Adam, ", "adamw": "weight decay 0.01"}
    assert words[kind] in line


def element_of(text: str) -> tuple[int, ...]:
    return tuple(int(i) for i in re.findall(r"\d+", text.partition("[")[2].partition("]")[0]))


def test_clipping_is_told() -> None:
    net = conv_net()
    step = last_step(net, optimizer=SGD(net.parameters(), lr=1.0), max_norm=1e-3)
    text = idea(step)
    weight = net.parameter("conv.weight")
    element = element_of(text)
    clipped = next(line for line in text.splitlines() if "clipped to max_norm" in line)
    factor = 1e-3 / step.gradients.norm()
    assert numbers(clipped)[-1] == pytest.approx(step.gradients[weight][element] * factor, rel=1e-5)
    assert numbers(text.splitlines()[-1])[2] == pytest.approx(numbers(clipped)[-1], rel=1e-5)
    before, after = (float(v[weight][element]) for v in (step.before, step.after))
    assert after == pytest.approx(before - numbers(clipped)[-1], abs=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_the_weight_with_the_largest_gradient_is_shown(seed: int) -> None:
    step = last_step(conv_net(seed))
    gradient = np.abs(step.gradients["conv.weight"])
    assert gradient[element_of(idea(step))] == gradient.max()


def test_calls_of_one_layer_are_added() -> None:
    conv = Conv2d(2, 2, 3, padding=1)
    net = Network([BatchNorm2d(2), conv, Sigmoid(), conv, Flatten(), Linear(60, 3)], (2, 6, 5))
    text = idea(last_step(net, batch_size=5))
    assert "1.weight[" in text
    assert "used 300 times: 5 samples × 6×5 positions + 5 samples × 6×5 positions" in text
    assert re.search(r"^    call [12], sample \d, position \d,\d ", text, re.M)
    assert "tape.backward: the same" in text


def test_a_sum_that_does_not_agree_is_told() -> None:
    step = last_step(conv_net())
    wrong = step.gradients * 2.0
    text = idea(Step(step.trace, wrong, wrong, step.before, step.after, step.optimizer, step.learning_rate))
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
    text = idea(last_step(net, x, batch_size=batch))
    assert text.startswith(f"One weight, {first}[")
    assert f"  used {used}\n" in text
    assert "(tape.backward: the same)" in text


def test_where_the_factors_are_not_kept_apart_the_contributions_are_shown() -> None:
    net = Network([BatchNorm2d(2), Flatten(), Linear(60, 3)], (2, 6, 5))
    step = last_step(net)
    text = idea(step)
    (uses,) = step.trace[net.parameter("0.weight")]
    terms = uses.terms(*element_of(text))
    largest = terms.flat[np.argmax(np.abs(terms))]
    assert "its largest contributions (upstream δ × local derivative):" in text
    assert text.splitlines()[3].endswith(f"   {largest:+.4g}")


def test_a_gradient_of_zero_and_an_update_of_nothing() -> None:
    net = Network([Conv2d(2, 1, (6, 5)), Flatten(), Softmax()], (2, 6, 5))  # softmax of one number is 1
    text = idea(last_step(net, y=np.zeros(5, np.int64), optimizer=SGD(net.parameters(), lr=0.1)))
    assert "is the gradient: 0 (tape.backward: the same)" in text
    weight = net.parameter("0.weight").value[0, 0, 0, 0]
    assert f"{weight:.4g} − 0.1 × 0 = {weight:.4g}" in text


def test_an_update_too_small_to_change_the_weight() -> None:
    net = conv_net()
    step = last_step(net, optimizer=Adam(net.parameters(), lr=1e-30))
    said = idea(step).splitlines()[-1]
    assert "one update of the one weight: too small for float64, it stays " in said
    assert "→" not in said


def test_a_weight_that_is_not_trained() -> None:
    net = conv_net()
    step = last_step(net, optimizer=SGD([net.parameter("fc.weight")], lr=0.1))
    assert idea(step).splitlines()[-1] == "  no update: the optimizer does not train conv.weight"
