"""One number of one weight in one step of training: all its uses, their sum, and the update made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from sharedgrad.optimizers import Optimizer
from sharedgrad.parameter import Gradients, Parameter
from sharedgrad.traces import Trace
from sharedgrad.uses import Terms, Window

Axes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Step:
    """What ``training.report`` explains.

    Attributes:
        epoch, batch: When it was, both from 1.
        batches: Number of batches of an epoch.
        weight: Name of the weight.
        element: Which of its numbers: the one with the largest gradient.
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


def take(
    when: tuple[int, int, int],
    parameters: Sequence[Parameter],
    trace: Trace,
    gradients: Gradients,
    applied: Gradients,
    optimizer: Optimizer,
) -> Step:
    """Make the update, and keep what it did to one number.

    Args:
        when: Epoch and batch, from 1, and the number of batches of an epoch.
        parameters: The network's.
        trace: The way back with the uses apart.
        gradients: What ``tape.backward`` gave.
        applied: What the optimizer gets.
        optimizer: It makes the update.
    """
    before = {p: p.value for p in parameters}
    optimizer.step(applied)
    parameter = shared([p for p in parameters if p in gradients], trace)
    uses, gradient = trace[parameter], gradients[parameter]
    element = tuple(int(i) for i in np.unravel_index(np.argmax(np.abs(gradient)), gradient.shape))
    terms = uses.entry(*element).products()  # of this number alone: the arrays of the whole weight are let go
    return Step(
        *when,
        parameter.name,
        element,
        tuple(call.axes for call in uses.calls),
        terms,
        float(gradient[element]),
        float(applied[parameter][element]),
        float(before[parameter][element]),
        float(parameter.value[element]),
        parameter.dtype,
        optimizer,
        parameter.value is not before[parameter],
        optimizer.lr,
    )
