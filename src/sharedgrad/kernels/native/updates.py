"""Optimizers' steps, compiled: new values and what the next step needs, for all parameters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import numpy as np

from sharedgrad.kernels.native.maps import Map
from sharedgrad.kernels.native.program import Builder, Program, doubles
from sharedgrad.kernels.native.recycled import empty_like
from sharedgrad.kernels.native.single import Kind, builder, contiguous, kind_of
from sharedgrad.parameter import Array

Arrays = list[Array]

_STEPS = 5  # where among Adam's settings the numbers of steps begin


class Rule(NamedTuple):
    """How values change, but for the settings, which may be others in every step.

    These are of sgd lr, momentum and decay; of adam lr, β₁, β₂, ε and decay, and then every parameter's number of
    steps, with this one.

    Attributes:
        name: sgd or adam.
        states: How many arrays in the parameter's shape it keeps.
        variant: Whether the momentum is Nesterov's, or the weight decay decoupled.
    """

    name: str
    states: int
    variant: bool

    def settings(self, parameters: int) -> int:
        """How many settings there are for so many parameters."""
        return 3 if self.name == "sgd" else _STEPS + parameters

    def emit(
        self, b: Builder, new: Sequence[Map], old: Sequence[Map], gradient: Map, settings: Map, first: int, place: int
    ) -> None:
        """The step of one parameter, of its value and states.

        Args:
            b: What to append it to.
            new, old: Where they will be, and are.
            gradient: The parameter's.
            settings: Numbers in float64.
            first: Where the rule's own are among these.
            place: The parameter's, among those whose numbers of steps Adam's settings end with.
        """
        steps = (first + _STEPS + place,) if self.name == "adam" else ()
        states: list[Map | None] = [*chain.from_iterable(zip(new[1:], old[1:], strict=True))] or [None, None]
        b.emit(self.name, (new[0], old[0], gradient, settings, *states), int(self.variant), first, *steps)


@lru_cache(512)
def _program(kind: Kind, rule: Rule, sizes: tuple[int, ...], settings: int) -> Program:
    """All parameters. From outside come settings, gradients, old values and states, and new ones."""
    b = builder(1, kind)

    def arrays(kinds: int) -> list[list[Map]]:
        return [[b.array(size) for size in sizes] for _ in range(kinds)]

    (numbers,), (gradients,) = [b.array(doubles(settings, b.dtype.itemsize))], arrays(1)
    old, new = arrays(1 + rule.states), arrays(1 + rule.states)
    for i, gradient in enumerate(gradients):
        rule.emit(b, [a[i] for a in new], [a[i] for a in old], gradient, numbers, 0, i)
    return b.build()


def _run(rule: Rule, settings: list[float], gradients: Arrays, old: Arrays, new: Arrays) -> None:
    """Of all values, then the states, each one after the other."""
    sizes = tuple([w.size for w in old[: len(gradients)]])
    program = _program(kind_of(old[0]), rule, sizes, len(settings))
    program.run(None, [np.array(settings).view(old[0].dtype), *gradients, *old, *new])


def _new(rule: Rule, settings: list[float], gradients: Arrays, old: list[Arrays]) -> list[Arrays]:
    """New values, and a new list of arrays for each kind of state."""
    new = [[empty_like(w) for w in old[0]] for _ in old]
    try:
        _run(rule, settings, gradients, [*chain(*old)], [*chain(*new)])
    except (TypeError, ValueError):  # arrays of several types or memory orders: rare, so it is not checked beforehand
        common = settings if rule.name == "sgd" else settings[: -len(old[0])]
        for i, (w, *given) in enumerate(zip(old[0], gradients, *old, strict=True)):
            own = [contiguous(np.asarray(a, w.dtype)).reshape(w.shape) for a in given]
            steps = settings[len(common) :][i : i + 1]
            _run(rule, [*common, *steps], own[:1], own[1:], [arrays[i] for arrays in new])
    return new


def sgd(
    values: Arrays,
    gradients: Arrays,
    velocities: Arrays,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> tuple[Arrays, Arrays]:
    """Stochastic gradient descent, with momentum where there are velocities."""
    rule, settings = Rule("sgd", int(bool(velocities)), nesterov), [lr, momentum, weight_decay]
    new, *news = _new(rule, settings, gradients, [values, velocities] if velocities else [values])
    return new, news[0] if news else []


def adam(
    values: Arrays,
    gradients: Arrays,
    means: Arrays,
    squares: Arrays,
    steps: list[int],
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    decoupled: bool,
) -> tuple[Arrays, Arrays, Arrays]:
    """Adam, and with ``decoupled`` weight decay AdamW."""
    rule, settings = Rule("adam", 2, decoupled), [lr, *betas, eps, weight_decay, *steps]
    new, new_means, new_squares = _new(rule, settings, gradients, [values, means, squares])
    return new, new_means, new_squares
