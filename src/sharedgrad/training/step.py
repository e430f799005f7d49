"""One number of one weight in one step of training: all its uses, their sum, and the update made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod

import numpy as np

from sharedgrad.gradients import Gradients
from sharedgrad.optimizers import Optimizer
from sharedgrad.parameter import Parameter
from sharedgrad.traces import Trace
from sharedgrad.uses import Terms, Window
from sharedgrad.uses.terms import Factor

Axes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Step:
    """What ``training.report`` explains.

    Attributes:
        epoch, batch: When it was, both from 1.
        batches: Number of batches of an epoch.
        weight: Name of the weight.
        element: Which of its numbers: the one with the largest gradient (in the first part of a batch in parts).
        calls: The use axes of each call of the weight, in forward order.
        terms: What each use contributed, factor by factor.
        gradient: What ``tape.backward`` gave.
        applied: What the optimizer was given: the gradient, scaled down if the gradients were clipped.
        before: The number before the update.
        after: The number after it.
        dtype: Type of the weight.
        optimizer: What made the update.
        trained: Whether it trains this weight.
        learning_rate: The rate of this step.
    """

    epoch: int
    batch: int
    batches: int
    weight: str
    element: tuple[int, ...]
    calls: tuple[Axes, ...]
    terms: Terms
    gradient: float
    applied: float
    before: float
    after: float
    dtype: np.dtype[np.floating]
    optimizer: Optimizer
    trained: bool
    learning_rate: float


def shared(parameters: Sequence[Parameter], trace: Trace) -> Parameter:
    """The first kernel that slides; without one the first parameter that is used more than once."""
    kernels = (p for p in parameters if isinstance(trace[p].calls[0], Window))
    repeated = (p for p in parameters if trace[p].count > 1)
    return next(chain(kernels, repeated, parameters))


@dataclass(frozen=True)
class Part:
    """What one part of a batch (all of it, where it is computed at once) contributed to the number that is shown."""

    parameter: Parameter
    element: tuple[int, ...]
    calls: tuple[Axes, ...]
    terms: Terms


def part_of(parameters: Sequence[Parameter], trace: Trace, gradients: Gradients, first: Part | None = None) -> Part:
    """Look at one number: that of the largest gradient in the first part, and the same one in all others."""
    if first is None:
        parameter = shared([p for p in parameters if p in gradients], trace)
        gradient = gradients[parameter]
        element = tuple(int(i) for i in np.unravel_index(np.argmax(np.abs(gradient)), gradient.shape))
    else:
        parameter, element = first.parameter, first.element
    uses = trace[parameter]
    terms = uses.entry(*element).products()  # of this number alone: the arrays of the whole weight are let go
    return Part(parameter, element, tuple(call.axes for call in uses.calls), terms)


def _joined(parts: Sequence[Part]) -> tuple[tuple[Axes, ...], Terms]:
    """All uses in a batch, its samples numbered throughout."""
    if len(parts) == 1:
        return parts[0].calls, parts[0].terms
    starts = np.cumsum([0, *(prod(part.calls[0].get("sample", ())) for part in parts)])
    calls = tuple(
        {axis: (int(starts[-1]),) if axis == "sample" else lengths for axis, lengths in axes.items()}
        for axes in parts[0].calls
    )
    terms = [part.terms for part in parts]
    factors = {}
    for name in terms[0].factors:
        values = np.concatenate([t.factors[name].values for t in terms])
        factors[name] = Factor(name, values, np.arange(len(values)))
    use = {
        axis: np.concatenate(
            [t.use[axis] + (start if axis == "sample" else 0) for t, start in zip(terms, starts, strict=False)]
        )
        for axis in terms[0].use
    }
    coefficient = None if terms[0].coefficient is None else np.concatenate([t.coefficient for t in terms])
    call = None if terms[0].call is None else np.concatenate([t.call for t in terms])
    cell = np.concatenate([t.cell for t in terms])
    return calls, Terms(terms[0].target, terms[0].shape, cell, factors, coefficient, call, use)


def take(
    when: tuple[int, int, int],
    parameters: Sequence[Parameter],
    parts: Sequence[Part],
    gradients: Gradients,
    applied: Gradients,
    optimizer: Optimizer,
) -> Step:
    """Make the update, and keep what it did to one number.

    Args:
        when: Epoch and batch, from 1, and the number of batches of an epoch.
        parameters: The network's.
        parts: What the number that is kept is the sum of.
        gradients: What ``tape.backward`` gave.
        applied: What the optimizer gets.
        optimizer: It makes the update.
    """
    before = {p: p.value for p in parameters}
    optimizer.step(applied)
    parameter, element = parts[0].parameter, parts[0].element
    trainer, rate = optimizer.trainer(parameter)
    return Step(
        *when,
        parameter.name,
        element,
        *_joined(parts),
        float(gradients[parameter][element]),
        float(applied[parameter][element]),
        float(before[parameter][element]),
        float(parameter.value[element]),
        parameter.dtype,
        trainer,
        parameter.value is not before[parameter],
        rate,
    )
