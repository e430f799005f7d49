"""Networks that several files of tests make."""

from __future__ import annotations

from typing import Any

import sharedgrad as sg


def small(**arguments: Any) -> sg.Network:
    layers = [sg.Conv2d(1, 2, 3), sg.Tanh(), sg.MaxPool2d(2), sg.Flatten(), sg.Linear(8, 3)]
    return sg.Network(layers, **{"input_shape": (1, 6, 6), **arguments})


def two_inputs() -> sg.Network:
    return sg.Network({"l": (sg.Linear(2, 3), "x"), "sum": (sg.Add(), "l", "z")}, {"x": (2,), "z": (3,)})
