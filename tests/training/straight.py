"""The run of ``job`` from start to end, and whether another one ends with its bits."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sharedgrad.training.files import METRICS
from sharedgrad.training.history import History
from tests.training import job


@cache
def uninterrupted() -> tuple[dict[str, np.ndarray], int, History]:
    net = job.network()
    history = job.fit(net)
    return net.state_dict(), net.step, history


def without_speed(history: History) -> list[Any]:
    return [replace(row, images_per_second=0.0) for row in history.rows]


def finishes_with_the_same_bits(folder: Path) -> None:
    weights, step, history = uninterrupted()
    net = job.network(seed=0)
    resumed = job.fit(net, out=folder, resume=True)
    for name, array in net.state_dict().items():
        assert array.tobytes() == weights[name].tobytes(), name
    assert net.step == step
    assert without_speed(resumed) == without_speed(history)
    assert without_speed(History.read(folder / METRICS)) == without_speed(history)
    assert not list(folder.glob(".*"))
