"""Until the engine has them: ``tape.backward(upstream, by_sample=…)`` and ``tape.clipped(upstream, max_norm)``.

Both are put together from ``tape.trace`` and ``Uses.sum(by="sample")``; delete this file and its one call in
``persample.py`` when the engine brings its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import numpy as np

import sharedgrad as sg

_plain_backward = sg.Tape.backward


def install() -> None:
    """Give Tape what it lacks."""
    if "by_sample" not in inspect.signature(sg.Tape.backward).parameters:
        sg.Tape.backward = _backward
    if not hasattr(sg.Tape, "clipped"):
        sg.Tape.clipped = _clipped


def _backward(
    tape: sg.Tape, upstream: Any, inputs: bool = False, by_sample: Iterable[sg.Parameter] = ()
) -> sg.Gradients:
    apart = set(by_sample)
    if not apart:
        return _plain_backward(tape, upstream, inputs)
    trace = tape.trace(upstream)
    total: dict[sg.Parameter, np.ndarray] = {}
    for uses in (uses for call in trace.calls for uses in call.uses):
        part = uses.sum(by="sample") if uses.parameter in apart else uses.gradient()
        total[uses.parameter] = total[uses.parameter] + part if uses.parameter in total else part
    return sg.Gradients(total, trace.inputs)


def _clipped(tape: sg.Tape, upstream: Any, max_norm: float) -> tuple[sg.Gradients, np.ndarray]:
    apart = _backward(tape, upstream, by_sample=set(tape._structure.used))
    norms = np.sqrt(sum(np.square(array).reshape(len(array), -1).sum(axis=1) for array in apart.values()))
    factors = np.minimum(1, max_norm / np.maximum(norms, np.finfo(norms.dtype).tiny))
    return sg.Gradients({p: np.tensordot(factors, array, 1) for p, array in apart.items()}), norms
