"""An optimizer's update as operations of a program, which write over values and states that nobody else holds."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from operator import attrgetter, is_
from typing import Any, NamedTuple

import numpy as np

from sharedgrad.kernels.native.maps import Map
from sharedgrad.kernels.native.program import Program, doubles
from sharedgrad.kernels.native.recycled import empty_like
from sharedgrad.kernels.native.updates import Rule, adam_rule, sgd_rule
from sharedgrad.optimizers import SGD, Adam, AdamW, Combined, Optimizer
from sharedgrad.parameter import Array, Parameter
from sharedgrad.plan.lowering import Lowering, Settings, State, number_of

_VALUE = attrgetter("value")
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
        groups: As they were when the settings were asked for.
        count: How many settings there are then.
        owned: The arrays that it has made.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._parts: Any = optimizer.optimizers if isinstance(optimizer, Combined) else [optimizer]
        self.owned: list[Array] = []
        self.groups: list[Group] = []
        self.count = 0

    def settings(self, *loss: float) -> tuple[list[float], bool]:
        """What holds for the next step, behind a loss's own settings; and whether programs of before do not, because
        of other parameters or rules."""
        groups, settings = list[Group](), list(loss)
        for o in self._parts:
            lr = o.lr if o is self._optimizer else o.lr * self._optimizer.lr
            if isinstance(o, SGD):
                rule, own = sgd_rule(bool(o.momentum), o.nesterov, lr, o.momentum, o.weight_decay)
            else:
                steps = [1 + int(o.state[p].get("steps", 0)) for p in o.parameters]
                rule, own = adam_rule(lr, o.betas, o.eps, o.weight_decay, o.decoupled, steps)
            states = ("mean", "square") if rule.name == "adam" else ("momentum",) * rule.states
            groups.append(Group(o, rule, states, len(settings), o.parameters.copy()))
            settings += own
        changed = groups != self.groups
        self.groups, self.count = groups, len(settings)
        return settings, changed


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
    """

    def __init__(
        self, update: Update, way: Lowering, gradients: Mapping[Parameter, Map | AtOnce], settings: Map
    ) -> None:
        self._update, self._settings = update, settings
        self._groups = [g._replace(parameters=[p for p in g.parameters if p in gradients]) for g in update.groups]
        self.parameters = [p for g in self._groups for p in g.parameters]
        self._places: list[int] = []  # of values and states among the arrays
        steps: list[tuple[Map | AtOnce, list[Map], Group, int]] = []
        for g, whole in zip(self._groups, update.groups, strict=True):
            lists = [[m for m in map(way.parameter, g.parameters) if m is not None]]
            lists += [[way.array(State(p, name), (prod(p.shape),), 1) for p in g.parameters] for name in g.states]
            self._places += [number_of(m) for maps in lists for m in maps]
            for p, *own in zip(g.parameters, *lists, strict=True):
                steps.append((gradients[p], own, g, whole.parameters.index(p)))
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
        found = list[Any]()
        for o, _, names, _, used in self._groups:
            found += map(_VALUE, used)
            for name in names:
                found += [o.state[p].get(name) for p in used]
        return found

    def _put(self, arrays: list[Any], own: list[Array]) -> None:
        for i, array in zip(self._places, own, strict=True):
            arrays[i] = array

    def _copies(self) -> list[Array]:
        copies, found = list[Array](), iter(self._found())
        for g in self._groups:
            for p in g.parameters * (1 + len(g.states)):
                array, own = next(found), empty_like(p.value)
                own[...] = 0 if array is None else array
                copies.append(own)
        return copies

    def _hand_over(self, own: list[Array]) -> None:
        arrays = iter(own)
        for g in self._groups:
            for p in g.parameters:
                p.replace(next(arrays))
            for name in g.states:
                for p in g.parameters:
                    g.optimizer.state[p][name] = next(arrays)

    def _count(self) -> None:
        """Adam's numbers of steps."""
        counts: dict[int, Array] = {}
        for o, rule, _, _, used in self._groups:
            for p in used if rule.name == "adam" else ():
                t = 1 + int(o.state[p].get("steps", 0))
                if t not in counts:
                    counts[t] = np.asarray(t, np.int64)
                o.state[p]["steps"] = counts[t]
