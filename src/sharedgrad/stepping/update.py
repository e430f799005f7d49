"""An optimizer's update as operations of a program, which write over values and states that nobody else holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from operator import is_
from typing import Any, NamedTuple

import numpy as np

from sharedgrad.kernels.native.maps import Map
from sharedgrad.kernels.native.program import Program, doubles
from sharedgrad.kernels.native.recycled import empty_like
from sharedgrad.kernels.native.updates import Rule
from sharedgrad.optimizers import SGD, Adam, AdamW, Combined, Optimizer
from sharedgrad.parameter import Array, Parameter
from sharedgrad.plan.lowering import Lowering, Settings, State, number_of

LOSS = 3  # settings of a loss: smoothing, count, and a place for the sum

_COMPILED = (SGD, Adam, AdamW)  # and Combined of them


def compiled(optimizer: Optimizer) -> bool:
    """Whether :class:`Update` serves it: a subclass may do anything."""
    if type(optimizer) is Combined:
        return all(type(part) in _COMPILED for part in optimizer.optimizers)
    return type(optimizer) in _COMPILED


class Group(NamedTuple):
    """One optimizer, and what of it a program is written for.

    Attributes:
        rule: How values change.
        states: Names of the states that are arrays in a parameter's shape.
        first: Where among the settings its own are.
        parameters: In their order.
    """

    optimizer: Any
    rule: Rule
    states: tuple[str, ...]
    first: int
    parameters: list[Parameter]


class AtOnce(NamedTuple):
    """The step of a dense layer's weight for one sample, whose gradient δ ⊗ x is never written.

    Attributes:
        bias: Where the bias's gradient goes, if there is one.
    """

    bias: Map | None
    delta: Map
    x: Map


class Update:
    """What ``optimizer.step(gradients)`` does, bit by bit, to the parameters that have a gradient.

    The first update works on copies of values and states. They belong to their parameter alone, so the next one may
    write over them, as long as nobody has got hold of one: an array that was handed out stays what it was.

    Args:
        optimizer: SGD, Adam, AdamW, or groups of them.

    Attributes:
        groups: Of all optimizers, as they were found last.
        owned: The arrays that it has made.
        count: How many settings there are, with the loss's.
        steps: Of each group the parameters' numbers of steps, with the next one; only Adam counts them.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._parts: Any = optimizer.optimizers if isinstance(optimizer, Combined) else [optimizer]
        self.owned: list[Array] = []
        self.groups: list[Group] = []
        self.steps: list[list[int]] = []
        self._rules: list[Any] = []

    def changed(self) -> bool:
        """Whether programs of before do not serve: there are other parameters, or other rules."""
        rules = [(o.momentum > 0, o.nesterov) if isinstance(o, SGD) else o.decoupled for o in self._parts]
        if rules == self._rules and [o.parameters for o in self._parts] == [g.parameters for g in self.groups]:
            return False
        self._rules, self.groups, first = rules, [], LOSS
        for o in self._parts:
            rule, parameters = _rule(o), o.parameters.copy()
            states = ("mean", "square") if rule.name == "adam" else ("momentum",) * rule.states
            self.groups.append(Group(o, rule, states, first, parameters))
            first += rule.settings(len(parameters))
        self.count = first
        return True

    def settings(self, loss: Sequence[float]) -> list[float]:
        """What holds for the next step, behind the loss's own."""
        settings, self.steps = [*loss], []
        for o in self._parts:
            lr = o.lr if o is self._optimizer else o.lr * self._optimizer.lr
            steps = [] if isinstance(o, SGD) else _steps(o)
            self.steps.append(steps)
            own = (o.momentum, o.weight_decay) if isinstance(o, SGD) else (*o.betas, o.eps, o.weight_decay)
            settings += (lr, *own, *steps)
        return settings


def _rule(o: Any) -> Rule:
    return Rule("sgd", int(o.momentum > 0), o.nesterov) if isinstance(o, SGD) else Rule("adam", 2, o.decoupled)


def _steps(adam: Adam) -> list[int]:
    """The parameters' numbers of steps, with the next one."""
    counts = [state.get("steps", 0) for state in map(adam.state.__getitem__, adam.parameters)]
    if len(set(map(id, counts))) == 1:  # as a rule
        return [1 + int(counts[0])] * len(counts)
    return [1 + int(count) for count in counts]


def place_of_settings(way: Lowering, update: Update) -> Map:
    """An array from outside."""
    return way.array(Settings(), (doubles(update.count, way.builder.dtype.itemsize),), 1)


class Written:
    """An update at the end of a program.

    Args:
        update: Whose groups say what becomes of which parameter.
        way: What is being written.
        gradients: Of parameters, or their steps at once.
        settings: Where all settings are.

    Attributes:
        parameters: Those that change.
        places: Where their values and states are among the arrays from outside.
    """

    def __init__(
        self, update: Update, way: Lowering, gradients: Mapping[Parameter, Map | AtOnce], settings: Map
    ) -> None:
        self._update, self._settings = update, settings
        self.parameters: list[Parameter] = []
        self._states: list[tuple[Any, Parameter, str]] = []  # the optimizer's of a parameter, and its name
        self._counted: list[list[int]] = []  # of each group, which of the optimizer's parameters
        values, kept = list[Map](), list[Map]()
        steps: list[tuple[Map | AtOnce, list[Map], Group, int]] = []
        for g in update.groups:
            self._counted.append([i for i, p in enumerate(g.parameters) if p in gradients])
            for place in self._counted[-1]:
                p, size = g.parameters[place], (prod(g.parameters[place].shape),)
                own = [way.row(p), *(way.array(State(p, name), size, 1) for name in g.states)]
                steps.append((gradients[p], own, g, place))
                self.parameters.append(p)
                self._states += [(g.optimizer, p, name) for name in g.states]
                values.append(own[0])
                kept += own[1:]
        self.places = [number_of(m) for m in (*values, *kept)]
        for gradient, own, g, place in sorted(steps, key=lambda step: isinstance(step[0], Map)):
            if isinstance(gradient, AtOnce):  # these come first: they give biases' gradients
                way.emit("linear_descent", (*own, *own, *gradient, settings), g.first)
            else:
                g.rule.emit(way.builder, own, own, gradient, settings, g.first, place)

    def run(self, program: Program, memory: Array | None, arrays: list[Any], settings: Array) -> None:
        """Carry out the program, over the values and states where nobody else holds them, else over copies.

        Args:
            program: That this is the end of.
            memory: That it keeps, if it does.
            arrays: From outside; the other ones are there.
            settings: All settings.
        """
        arrays[number_of(self._settings)] = settings
        update, found = self._update, self._found()
        in_place = len(found) == len(update.owned) and all(map(is_, found, update.owned))
        if in_place:
            del found  # which holds them too
            self._put(arrays, update.owned)
            in_place = program.run(memory, arrays, update.owned)
        if in_place:
            for p in self.parameters:  # nobody else holds the array, and it is another value now
                p.version += 1
        else:
            update.owned = self._copies()
            self._put(arrays, update.owned)
            program.run(memory, arrays)
            self._hand_over(update.owned)
        self._count()

    def _found(self) -> list[Any]:
        """Values and states as they are now; None for a state that has not been made."""
        return [p.value for p in self.parameters] + [o.state[p].get(name) for o, p, name in self._states]

    def _put(self, arrays: list[Any], own: list[Array]) -> None:
        for i, array in zip(self.places, own, strict=True):
            arrays[i] = array

    def _copies(self) -> list[Array]:
        copies = [empty_like(p.value) for p in (*self.parameters, *(p for _, p, _ in self._states))]
        for copy, array in zip(copies, self._found(), strict=True):
            copy[...] = 0 if array is None else array
        return copies

    def _hand_over(self, own: list[Array]) -> None:
        values, states = own[: len(self.parameters)], own[len(self.parameters) :]
        for p, array in zip(self.parameters, values, strict=True):
            p.replace(array)
        for (o, p, name), array in zip(self._states, states, strict=True):
            o.state[p][name] = array

    def _count(self) -> None:
        """Adam's numbers of steps."""
        for g, places, steps in zip(self._update.groups, self._counted, self._update.steps, strict=True):
            if not steps:
                continue
            state, counts = g.optimizer.state, {t: np.asarray(t, np.int64) for t in set(steps)}
            for place in places:
                state[g.parameters[place]]["steps"] = counts[steps[place]]
