"""How often the checker is right, counted on random exercises.

    python -m tests.checking.rates detection|innocent|wrong|pairs [--count N] [--seed S]

Each command prints its rates and every case that went wrong; the suite runs small samples of all of them.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import sharedgrad as sg
from sharedgrad.checking import conventions
from sharedgrad.checking.answers import Answer, read, together
from sharedgrad.checking.diagnosis import Trial, diagnose
from sharedgrad.checking.given import Given
from sharedgrad.checking.right import magnitude, of_layer, right, targets, total
from sharedgrad.checking.rules import Outcome, outcomes
from sharedgrad.checking.search import is_right, rules_for, way

DIGITS = (None, 2, 3, 4, 6, -2, -3, -4, -6)  # decimals, or significant digits if negative


@dataclass
class Rates:
    """Counts, and the cases that went wrong in words."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        total_ = sum(v for k, v in self.counts.items() if not k.startswith("(")) or 1
        lines = [f"{self.name}:", *(f"  {k}: {v} ({100 * v / total_:.1f} %)" for k, v in sorted(self.counts.items()))]
        return "\n".join([*lines, *(f"  {f}" for f in self.failures[:20])])


def a_layer(rng: np.random.Generator) -> tuple[sg.Layer, tuple[int, ...]]:
    """A random layer with a random setting, and the shape of its input."""
    n, c = int(rng.integers(1, 4)), int(rng.integers(1, 4))

    def pick(*choices: Any) -> Any:
        return choices[int(rng.integers(len(choices)))]

    kind = pick(
        "conv2d", "conv2d", "conv2d", "conv1d", "linear", "tokens", "max", "max", "avg", "curve", "softmax", "rnn"
    )
    if kind == "conv2d":
        groups = pick(1, 1, 1, c)
        kernel = pick((3, 3), (2, 2), (3, 2), (2, 3), (1, 3))
        setting = {"stride": pick(1, 1, 2, 3), "padding": pick(0, 1, 2), "dilation": pick(1, 1, 1, 2), "groups": groups}
        size = (n, c, int(rng.integers(5, 9)), int(rng.integers(5, 9)))
        return sg.Conv2d(c, groups * int(rng.integers(1, 4)), kernel, **setting), size
    if kind == "conv1d":
        setting = {"stride": pick(1, 2), "padding": pick(0, 1, 2)}
        return sg.Conv1d(c, int(rng.integers(1, 4)), pick(2, 3), **setting), (n, c, int(rng.integers(5, 10)))
    if kind == "linear":
        features, outputs = int(rng.integers(2, 6)), int(rng.integers(2, 6))
        return sg.Linear(features, pick(outputs, features)), (n, features)
    if kind == "tokens":
        return sg.Linear(3, 4), (n, 4, 3)
    if kind in ("max", "avg"):
        window = pick((2, 2), (3, 3), (3, 2))
        stride, padding = pick(None, 1, 2), pick(0, 0, 1)
        layer = sg.MaxPool2d if kind == "max" else sg.AvgPool2d
        return layer(window, stride, padding), (n, c, int(rng.integers(4, 8)), int(rng.integers(4, 8)))
    if kind == "curve":
        return pick(sg.ReLU, sg.Sigmoid, sg.Tanh)(), (n, int(rng.integers(3, 8)))
    if kind == "softmax":
        return sg.Softmax(), (n, int(rng.integers(2, 6)))
    return sg.RNN(int(rng.integers(1, 4)), int(rng.integers(2, 4))), (n, int(rng.integers(2, 5)), 0)


def a_given(rng: np.random.Generator, ties: bool = False) -> Given:
    """A random layer with random numbers."""
    layer, shape = a_layer(rng)
    if isinstance(layer, sg.RNN):
        shape = (*shape[:2], layer.input_size)
    net = sg.Network({"layer": layer}, shape[1:], dtype="float64")
    for parameter in net.parameters():
        parameter.value = rng.normal(size=parameter.shape)
    x = np.round(rng.normal(size=shape), 1) if ties else rng.normal(size=shape)
    dy = rng.normal(size=net.forward(x)[0].shape)
    return of_layer(layer, x, dy)


def rounded(array: np.ndarray, digits: int | None, dtype: Any) -> Any:
    """As a person or a program writes it: nested lists of numbers with so many decimals or significant digits."""
    array = array.astype(dtype)
    if digits is None:
        return array.tolist()
    if digits > 0:
        return np.round(array.astype(np.float64), digits).tolist()
    return np.vectorize(lambda v: float(f"{v:.{-digits}g}"), otypes=[float])(array).tolist()


def answers(given: Given, arrays: dict[str, np.ndarray], digits: int | None, dtype: Any) -> dict[str, Answer]:
    found = {name: read(rounded(array, digits, dtype), name) for name, array in arrays.items()}
    return together(found)


def innocent(count: int, seed: int = 0) -> Rates:
    """Right answers over random settings, both types, all conventions, several roundings."""
    rng, rates = np.random.default_rng(seed), Rates("right answers")
    for number in range(count):
        given = a_given(rng, ties=bool(rng.integers(2)))
        choices = [None, *conventions.conventions(given)]
        convention = choices[int(rng.integers(len(choices)))]
        arrays = {}
        for target in targets(given):
            array = total(right(convention.given if convention else given, target))
            arrays[target] = convention.back(target, array) if convention else array
        digits, dtype = DIGITS[int(rng.integers(len(DIGITS)))], (np.float32, np.float64)[int(rng.integers(2))]
        report = diagnose([Trial(given, answers(given, arrays, digits, dtype))], seconds=0.0)
        fine = report.verdict in ("right", "right under a convention")
        fine |= report.verdict == "cannot tell" and len(report.readings) >= 2
        rates.counts[report.verdict] += 1
        if not fine or report.verdict == "cannot tell":
            name = convention.id if convention else "as usual"
            rates.failures.append(f"{number}: {given.kind} {name}, digits {digits}, {dtype.__name__}: {report.ids}")
    return rates


def wrong(count: int, seed: int = 0) -> Rates:
    """Answers that are wrong by more than their rounding: one cell moved, or a known mistake."""
    rng, rates = np.random.default_rng(seed), Rates("wrong answers")
    number = 0
    while number < count:
        given = a_given(rng)
        digits, dtype = DIGITS[int(rng.integers(len(DIGITS)))], (np.float32, np.float64)[int(rng.integers(2))]
        arrays = {t: total(right(given, t)) for t in targets(given)}
        target = list(arrays)[int(rng.integers(len(arrays)))]
        changed = _moved(rng, arrays[target], digits) if rng.integers(2) else _mistaken(rng, given, target)
        if changed is None or not _differs(given, target, changed, digits):
            continue
        number += 1
        arrays[target] = changed
        report = diagnose([Trial(given, answers(given, arrays, digits, dtype))], seconds=0.0)
        rates.counts[report.verdict] += 1
        if report.verdict.startswith("right"):
            rates.failures.append(f"{number}: {given.kind} {target}, digits {digits}: {report.verdict} {report.ids}")
    return rates


def _moved(rng: np.random.Generator, array: np.ndarray, digits: int | None) -> np.ndarray:
    changed = array.copy()
    cell = int(rng.integers(array.size))
    size = float(np.abs(array).max()) or 1.0
    unit = 10.0**-digits if digits and digits > 0 else size * 10.0 ** -(-digits if digits else 5)
    changed.reshape(-1)[cell] += (2 + 8 * rng.random()) * unit * (1 if rng.integers(2) else -1)
    return changed


def _mistaken(rng: np.random.Generator, given: Given, target: str) -> np.ndarray | None:
    found = list(single_outcomes(given, target))
    return found[int(rng.integers(len(found)))].array if found else None


def _differs(given: Given, target: str, changed: np.ndarray, digits: int | None) -> bool:
    """Whether it is wrong by more than its rounding (and float32's noise) somewhere."""
    result = right(given, target)
    array = total(result)
    if array.shape != changed.shape:
        return True
    size = np.abs(changed)
    unit = 10.0**-digits if digits and digits > 0 else size * 10.0 ** (1 - (-digits if digits else 7))
    return bool((np.abs(changed - array) > 1.5 * unit + 1e-6 * magnitude(result)).any())


def single_outcomes(given: Given, target: str) -> Iterator[Outcome]:
    """Every wrong array that one mistake makes of these numbers."""
    for rule in rules_for(given.kind, target):
        for outcome in outcomes(way(target), given, [rule]):
            if outcome.array.size and np.isfinite(outcome.array).all() and not is_right(given, target, outcome.array):
                yield outcome


def detection(count: int, seed: int = 0, digits: int | None = None) -> Rates:
    """Every procedure of the library on fresh numbers, the other arrays right: is it found, and named first?"""
    rng, rates = np.random.default_rng(seed), Rates("one mistake")
    for _ in range(count):
        given = a_given(rng)
        arrays = {t: total(right(given, t)) for t in targets(given)}
        for target in arrays:
            for outcome in single_outcomes(given, target):
                mixed = {**arrays, target: outcome.array}
                report = diagnose([Trial(given, answers(given, mixed, digits, np.float64))], seconds=0.0)
                names = [{e.id, *e.same} for e in report.explanations]
                first = bool(names) and outcome.ids[0] in names[0]
                known = any(outcome.ids[0] in group for group in names)
                rates.counts["named first" if first else "named later" if known else report.verdict] += 1
                if not first:
                    words = f"{given.kind} {target} {outcome.ids[0]} {outcome.notes[0]}"
                    rates.failures.append(f"{words}: {report.verdict} {report.ids[:3]}")
    return rates


def pairs(count: int, seed: int = 0) -> Rates:
    """Two mistakes, in different arrays and in the same one, on 8×8 inputs of 3 channels."""
    rng, rates = np.random.default_rng(seed), Rates("two mistakes")
    number = -1
    while number + 1 < count:
        given = an_image(rng)
        arrays = {t: total(right(given, t)) for t in targets(given)}
        same = number % 2 == 1
        chosen = [("dw", "dx")[int(rng.integers(2))]] if same else ["dw", "dx"]
        wanted: list[set[str]] = []
        if same:
            rules = rules_for(given.kind, chosen[0])
            a, b = (rules[int(i)] for i in rng.choice(len(rules), 2, replace=False))
            found = [o for o in outcomes(way(chosen[0]), given, [a, b], 3) if _is_pair(given, chosen[0], o)]
            if not found or a.id == b.id:
                continue
            number += 1
            outcome = found[int(rng.integers(len(found)))]
            arrays[chosen[0]] = outcome.array
            wanted.append(set(outcome.ids))
        else:
            for target in chosen:
                found = list(single_outcomes(given, target))
                outcome = found[int(rng.integers(len(found)))]
                arrays[target] = outcome.array
                wanted.append({outcome.ids[0]})
            number += 1
        start = time.monotonic()
        report = diagnose([Trial(given, answers(given, arrays, None, np.float64))])
        seconds = time.monotonic() - start
        groups = [[set(i.split(" + ")) for i in (e.id, *e.same)] for e in report.explanations]
        hit = all(any(w in group for group in groups) for w in wanted)
        kind = "same array" if same else "different arrays"
        rates.counts[f"{kind}: {'found' if hit else 'missed'}"] += 1
        if not hit or seconds > 10:
            rates.failures.append(f"{kind} {wanted}: {report.ids[:4]} in {seconds:.1f} s")
    return rates


def _is_pair(given: Given, target: str, outcome: Outcome) -> bool:
    """Whether it takes both mistakes to get there."""
    if not outcome.array.size or not np.isfinite(outcome.array).all() or is_right(given, target, outcome.array):
        return False
    for single in single_outcomes(given, target):
        if single.array.shape == outcome.array.shape and np.allclose(single.array, outcome.array):
            return False
    return True


def an_image(rng: np.random.Generator) -> Given:
    """A convolution over 8×8 images of 3 channels."""
    stride, padding = int(rng.integers(1, 3)), int(rng.integers(0, 3))
    layer = sg.Conv2d(3, int(rng.integers(2, 5)), 3, stride=stride, padding=padding)
    samples = int(rng.integers(1, 3))
    net = sg.Network({"layer": layer}, (3, 8, 8), dtype="float64")
    for parameter in net.parameters():
        parameter.value = rng.normal(size=parameter.shape)
    x = rng.normal(size=(samples, 3, 8, 8))
    return of_layer(layer, x, rng.normal(size=net.forward(x)[0].shape))


COMMANDS = {"detection": detection, "innocent": innocent, "wrong": wrong, "pairs": pairs}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=COMMANDS)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.monotonic()
    print(COMMANDS[options.what](options.count, options.seed))
    print(f"  in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
