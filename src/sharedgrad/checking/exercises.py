"""Exercises with friendly numbers and their keys, chosen so that different mistakes give different answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sharedgrad.checking.distinguish import as_data, classes, drawn
from sharedgrad.checking.given import Given
from sharedgrad.checking.right import of_layer, right, targets, total
from sharedgrad.document import (
    Block,
    Document,
    Equation,
    Grid,
    Paragraph,
    Section,
    Symbol,
    from_terms,
    html,
    latex,
    terminal,
)
from sharedgrad.errors import ConfigError
from sharedgrad.layers.layer import Layer
from sharedgrad.network import Network
from sharedgrad.parameter import Array
from sharedgrad.uses.terms import Terms

TRIES = 24  # drafts of numbers; unless one tells all mistakes apart before, the best is taken
STUDENTS = 1000
# what fits on a sheet of paper; other settings are given on the command line
SHEETS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "Conv1d": ({"in_channels": 1, "out_channels": 1, "kernel_size": 2}, (1, 1, 5)),
    "Conv2d": ({"in_channels": 1, "out_channels": 1, "kernel_size": 2, "padding": 1, "stride": 2}, (1, 1, 4, 3)),
    "Linear": ({"in_features": 3, "out_features": 3}, (2, 3)),
    "MaxPool1d": ({"kernel_size": 3, "stride": 2}, (1, 1, 7)),
    "MaxPool2d": ({"kernel_size": 2, "stride": 1}, (1, 1, 3, 4)),
    "AvgPool1d": ({"kernel_size": 2, "stride": 1}, (1, 1, 4)),
    "AvgPool2d": ({"kernel_size": 2, "stride": 1}, (1, 1, 3, 4)),
    "ReLU": ({}, (2, 4)),
    "Sigmoid": ({}, (1, 4)),
    "Tanh": ({}, (1, 4)),
    "Softmax": ({}, (1, 3)),
    "RNN": ({"input_size": 1, "hidden_size": 2}, (1, 3, 1)),
}
_NAMES = {"x": "x, the input", "w": "w, the weights", "b": "b, the bias", "dy": "dy, the upstream gradient"}


@dataclass(frozen=True)
class Sheet:
    """One exercise.

    Attributes:
        layer: The layer's class.
        settings: Its arguments, as a configuration has them.
        given: The numbers.
        asked: Names of the arrays to compute.
    """

    layer: str
    settings: Mapping[str, Any]
    given: Given
    asked: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """What ``sharedgrad check`` reads, with the right answers."""
        sizes = {"in_channels", "out_channels", "in_features", "out_features", "input_size", "hidden_size"}
        if self.layer in ("Conv1d", "Conv2d"):
            sizes = sizes | {"kernel_size"}
        kept = {k: v for k, v in self.settings.items() if k not in sizes}
        key = {name: total(right(self.given, name)).tolist() for name in self.asked}
        return {"layer": self.layer, **kept, **as_data(self.given), "answers": key}


def sheet(layer: str, seed: int, number: int = 0, settings: Mapping[str, Any] | None = None) -> Sheet:
    """One exercise with friendly numbers.

    Args:
        layer: Such as "conv2d".
        seed: The same seed gives the same exercises.
        number: Which of them.
        settings: Arguments of the layer instead of the usual ones.

    Raises:
        ConfigError: There is no exercise for this layer, or its settings make no sense.
    """
    kinds = {name.lower(): name for name in SHEETS}
    if layer.lower() not in kinds:
        raise ConfigError("exercise", f"there is none for {layer!r}", f"choose from {', '.join(kinds)}")
    kind = kinds[layer.lower()]
    usual, shape = SHEETS[kind]
    chosen = {**usual, **(settings or {})}
    given = _given(Layer.registry[kind](**chosen), shape)
    asked = tuple(t for t in targets(given) if not (kind == "RNN" and t == "dbias_hh_l0"))
    best = _telling_most(given, asked, seed, number)
    return Sheet(kind, chosen, best, asked)


def _telling_most(given: Given, asked: Sequence[str], seed: int, number: int) -> Given:
    """Friendly numbers that tell as many mistakes apart as generic ones do, or the best of some drafts."""
    possible = sum(len(classes(drawn(given, seed, friendly=False), t)) for t in asked)
    best, most = given, -1
    for attempt in range(TRIES):
        draft = drawn(given, seed, number * TRIES + attempt, spread=attempt // 4)
        told = sum(len(classes(draft, t)) for t in asked)
        if told > most:
            best, most = draft, told
        if told >= possible:
            break
    return best


def _given(layer: Layer, shape: tuple[int, ...]) -> Given:
    network = Network({"layer": layer}, shape[1:], dtype="float64")
    for parameter in network.parameters():
        parameter.value = np.ones(parameter.shape)
    y, _ = network.forward(np.ones(shape))
    return of_layer(layer, np.ones(shape), np.ones(np.shape(y)))


def question(exercise: Sheet, title: str) -> Document:
    """The sheet: what is given, and empty places for what is asked."""
    settings = ", ".join(f"{k} {v}" for k, v in exercise.settings.items())
    blocks: list[Block] = [
        Paragraph.of(f"A {exercise.layer} layer ({settings})." if settings else f"A {exercise.layer} layer.")
    ]
    blocks += [
        Section(_NAMES.get(name, name), (_grid(name, array),)) for name, array in exercise.given.arrays.items()
    ]  # fmt: skip
    blocks.append(Paragraph.of(f"Compute {', '.join(exercise.asked)}."))
    return Document(title, tuple(blocks))


def key(exercise: Sheet, title: str) -> Document:
    """The answers, each with the sum of its first number written out."""
    sections = []
    for name in exercise.asked:
        result = right(exercise.given, name)
        array = total(result)
        blocks: list[Block] = [_grid(name, array)]
        if isinstance(result, Terms) and array.size:
            first = (0,) * array.ndim
            terms = result.of(*first)
            symbols = {n: Symbol(n, f.array) for n, f in terms.factors.items()}
            if len(terms):
                blocks.append(
                    Equation(Symbol(name, array).cell(*first), from_terms(terms, symbols, 16), float(array[first]))
                )
        sections.append(Section(name, tuple(blocks), key=name))
    return Document(title, tuple(sections))


def _grid(name: str, array: Array) -> Grid:
    return Grid(Symbol(name, array.reshape(1, -1) if array.ndim < 2 else array))


def write(
    layer: str, seed: int, students: int, out: str | Path, settings: Mapping[str, Any] | None = None
) -> list[Path]:
    """Sheets and keys for a class: text, LaTeX and HTML, the exercises as JSON, and a template for the answers.

    Raises:
        ConfigError: The arguments make no sense, or the folder cannot be written.
    """
    if not 1 <= students <= STUDENTS:
        raise ConfigError("students", f"expected a number from 1 to {STUDENTS}, got {students}")
    folder = Path(out)
    files: list[tuple[str, str]] = []
    template = ["student,array,index,value"]
    for number in range(students):
        exercise = sheet(layer, seed, number, settings)
        name = f"{number + 1:0{len(str(students))}d}"
        for what, document in (
            ("sheet", question(exercise, f"Exercise {name}: {exercise.layer}")),
            ("key", key(exercise, f"Key {name}: {exercise.layer}")),
        ):
            files += [
                (f"{what}-{name}.txt", terminal.render(document).rstrip() + "\n"),
                (f"{what}-{name}.tex", latex.render(document)),
                (f"{what}-{name}.html", html.render(document)),
            ]
        files.append((f"exercise-{name}.json", json.dumps(exercise.to_json(), indent=1) + "\n"))
        template += _rows(name, exercise)
    files.append(("answers-template.csv", "\n".join(template) + "\n"))
    return _written(folder, files)


def _rows(student: str, exercise: Sheet) -> list[str]:
    rows = []
    for name in exercise.asked:
        for index in np.ndindex(*total(right(exercise.given, name)).shape):
            rows.append(f"{student},{name},{' '.join(map(str, index))},")
    return rows


def _written(folder: Path, files: Sequence[tuple[str, str]]) -> list[Path]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files:
            (folder / name).write_text(content, "utf-8")
    except OSError as error:
        raise ConfigError(error.filename or folder, f"cannot be written ({error.strerror})") from None
    return [folder / name for name, _ in files]
