"""An optimizer's update that writes over the values and states which nobody else holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter, is_

import numpy as np

from sharedgrad.gradients import Gradients
from sharedgrad.kernels.native.updates import adam_rule, in_place, sgd_rule
from sharedgrad.optimizers import SGD, Adam, AdamW, Combined, Optimizer
from sharedgrad.parameter import Array, Parameter

_VALUE = attrgetter("value")
COMPILED = (SGD, Adam, AdamW)  # and Combined of them


def compiled(optimizer: Optimizer) -> bool:
    """Whether :class:`Update` serves it: a subclass may do anything."""
    if type(optimizer) is Combined:
        return all(type(part) in COMPILED for part in optimizer.optimizers)
    return type(optimizer) in COMPILED


class Update:
    """What ``optimizer.step(Gradients(gradients))`` does, bit by bit.

    The first update makes new arrays, as ever. They belong to their parameter alone, so the next one may write over
    them, as long as nobody has got hold of one: an array that was handed out stays what it was.

    Args:
        optimizer: SGD, Adam, AdamW, or groups of them.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        parts = optimizer.optimizers if isinstance(optimizer, Combined) else [optimizer]
        self._parts = [_Part(part) for part in parts]

    @property
    def descending(self) -> Sequence[Parameter]:
        """The parameters, where all that becomes of one is w − lr · (gradient + weight_decay · w)."""
        o = self._optimizer
        return o.parameters if type(o) is SGD and not o.momentum else ()

    @property
    def rates(self) -> list[float]:
        """The settings, for these."""
        return [self._optimizer.lr, 0.0, getattr(self._optimizer, "weight_decay", 0.0)]

    def step(self, gradients: dict[Parameter, Array], values: Mapping[Parameter, Array]) -> None:
        """Update every parameter that has a gradient; some have their new value already."""
        for parameter, value in values.items():
            parameter.replace(value)
        if values and not any(p in gradients for p in self._optimizer.parameters):
            return
        if not isinstance(self._optimizer, Combined):
            self._parts[0].step(gradients)
            return
        present = [part for part in self._parts if any(p in gradients for p in part.optimizer.parameters)]
        if not present:
            self._optimizer.step(Gradients(gradients))  # says what is wrong
        for part in present:
            with self._optimizer.scaled(part.optimizer):
                part.step(gradients)


class Lasting(dict[Parameter, Array]):
    """Gradients in memory that every step writes over."""


class _Part:
    """One optimizer, and the arrays that it has made: parameter by parameter, and for each kind of state."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self._lasting: Lasting | None = None
        self._of, self._found = list[Parameter](), (list[Parameter](), list[Array]())
        self._parameters: list[Parameter] = []
        self._arrays: list[Array] = []  # all values, and then each kind of state

    def step(self, gradients: dict[Parameter, Array]) -> None:
        used, given = self._pairs(gradients)
        if used != self._parameters or not self._known() or not self._write(given):
            self.optimizer.step(Gradients(gradients))
            self._adopt(used)

    def _pairs(self, gradients: dict[Parameter, Array]) -> tuple[list[Parameter], list[Array]]:
        """The parameters that have a gradient, and these: looked up once where they stay where they are."""
        parameters = self.optimizer.parameters
        if gradients is self._lasting and parameters == self._of:
            return self._found
        used = [p for p in parameters if p in gradients]
        found = used, [gradients[p] for p in used]
        if isinstance(gradients, Lasting):
            self._lasting, self._of, self._found = gradients, parameters.copy(), found
        return found

    def _names(self) -> tuple[str, ...]:
        """Which states are arrays in the parameter's shape."""
        if isinstance(self.optimizer, SGD):
            return ("momentum",) if self.optimizer.momentum else ()
        return "mean", "square"

    def _adopt(self, used: list[Parameter]) -> None:
        """The arrays that a step has made just now."""
        state = self.optimizer.state
        self._parameters = used
        self._arrays = [p.value for p in used] + [state[p][name] for name in self._names() for p in used]

    def _known(self) -> bool:
        """Whether values and states are still these arrays."""
        state, used = self.optimizer.state, self._parameters
        found = [*map(_VALUE, used), *(state[p].get(name) for name in self._names() for p in used)]
        return bool(used) and len(found) == len(self._arrays) and all(map(is_, found, self._arrays))

    def _write(self, gradients: list[Array]) -> bool:
        """Write over them; False if somebody else holds one, in which case all is as it was."""
        o = self.optimizer
        steps = []
        if isinstance(o, SGD):
            rule = sgd_rule(bool(o.momentum), o.nesterov, o.lr, o.momentum, o.weight_decay)
        else:
            assert isinstance(o, Adam)
            steps = [1 + int(o.state[p]["steps"]) for p in self._parameters]
            rule = adam_rule(o.lr, o.betas, o.eps, o.weight_decay, o.decoupled, steps)
        done = in_place(*rule, gradients, self._arrays)
        if done and isinstance(o, Adam):
            self._count(o, steps)
        if done:
            for p in self._parameters:  # nobody else holds the array, and it is another value now
                p.version += 1
        return done

    def _count(self, adam: Adam, steps: Iterable[int]) -> None:
        counts: dict[int, Array] = {}
        for p, t in zip(self._parameters, steps, strict=True):
            if t not in counts:
                counts[t] = np.asarray(t, np.int64)
            adam.state[p]["steps"] = counts[t]
