"""A network's way forward and back for inputs of one shape, in memory that it uses again for every step."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod
from typing import Any

import numpy as np

from sharedgrad.kernels.native.program import doubles
from sharedgrad.kernels.native.recycled import empty
from sharedgrad.layers.context import Context
from sharedgrad.parameter import Array, Parameter, Weight
from sharedgrad.plan import Plan, Recording
from sharedgrad.plan.backward import Backward
from sharedgrad.plan.forward import Forward
from sharedgrad.plan.lowering import Next, Rates
from sharedgrad.plan.steps.dense import LinearStep
from sharedgrad.plan.steps.step import Weighted
from sharedgrad.stepping.update import Lasting

Store = dict[tuple[str, tuple[int, ...]], Array]
Values = dict[Parameter, Array]

_LARGE = 1 << 14  # numbers of a weight for which a new array at once is the shorter way


class Descent(Backward):
    """The way back, on which some weights of dense layers take their step at once: their gradients are never written.

    Args:
        forward, given, wanted: As for ``plan.backward.Backward``.
        at_once: These weights; a single sample has passed.
    """

    def __init__(
        self, forward: Forward, given: Collection[str], wanted: Collection[str], at_once: Collection[Parameter]
    ) -> None:
        self._at_once = at_once
        super().__init__(forward, given, wanted, frozenset())

    def parameter_gradients(self, step: Weighted, *arguments: Any) -> Any:
        """As ever, but for the weights that take their step."""
        if not isinstance(step, LinearStep) or step.layer.weight not in self._at_once:
            return super().parameter_gradients(step, *arguments)
        (delta,), layer = arguments, step.layer
        new = self.array(Next(layer.weight), (prod(layer.weight.shape),), 1)
        rates = self.array(Rates(), (doubles(3, self.builder.dtype.itemsize),), 1)
        db = self.gradient(layer.bias)[0] if layer.bias is not None else None
        self.emit("linear_descent", (new, self.parameter(layer.weight), db, delta, step.x, rates), 0)
        return None


def _at_once(forward: Forward, samples: int, descending: Collection[Parameter]) -> set[Parameter]:
    """The large weights of dense layers that are used once."""
    if samples > 1:
        return set()
    held = [w for node in forward.nodes for w in node.layer.parameters().values()]
    once = {w for w in held if isinstance(w, Parameter) and [other.base for other in held].count(w) == 1}
    return {p for p in once.intersection(descending) if prod(p.shape) >= _LARGE}


class Passes:
    """A plan and the one way back that a step needs.

    Args:
        plan: Of a whole network with one output.
        wanted: Names whose gradient leads to a parameter.
        store: Arrays for gradients, which passes over other numbers of samples use as well.
        descending: Parameters that plain descent updates: of large weights of dense layers, one sample makes the new
            value at once.

    Attributes:
        at_once: These weights.
    """

    def __init__(
        self, plan: Plan, wanted: frozenset[str], store: Store, descending: Collection[Parameter] = ()
    ) -> None:
        forward = plan.lowered
        self._plan, self._dtype = plan, forward.builder.dtype
        (self._output,) = forward.outputs
        self.at_once = _at_once(forward, forward.builder.samples, descending)
        self._way = way = Descent(forward, forward.outputs, wanted, self.at_once)
        self._others = way.numbered(Next | Rates)
        self._gradients: list[tuple[Weight, Array]] = []
        for number, (weight, _) in way.gradients:  # in the order in which a tape adds them
            key = f"{weight.base.name} {len(self._gradients)}", weight.shape
            array = store.setdefault(key, empty(weight.shape, self._dtype))
            self._gradients.append((weight, array))
            way.fixed[number] = array
        self._single = Lasting(
            {w.base: array for w, array in self._gradients}
        )  # if each has one use and is seen as it is
        self._plain = len(self._single) == len(self._gradients) and all(w.view.identity for w, _ in self._gradients)

    def forward(self, inputs: Mapping[str, Array], context: Context) -> tuple[Array, Recording]:
        """The output (N, *shape), the caller's own, and what the way back needs."""
        outputs, recording = self._plan.forward(inputs, context)
        return outputs[self._output], recording

    def backward(
        self, recording: Recording, upstream: Array, rates: list[float]
    ) -> tuple[dict[Parameter, Array], Values]:
        """The gradient of each parameter, in memory that the next step writes over; or its new value instead.

        Args:
            recording: Of the pass forward.
            upstream: The gradient at the output.
            rates: The settings of plain descent.
        """
        way, values = self._way, dict[Parameter, Array]()
        arrays = way.arrays(recording.buffers)
        for i, _ in way.upstreams:
            arrays[i] = upstream
        for i, what in self._others:
            if isinstance(what, Rates):
                arrays[i] = np.array(rates).view(self._dtype)
            else:
                arrays[i] = values[what.parameter] = empty(what.parameter.shape, self._dtype)
        way.program.run(recording.memory, arrays)
        return self._single if self._plain else self._summed(), values

    def _summed(self) -> dict[Parameter, Array]:
        """Where parameters have several uses, or views."""
        total: dict[Parameter, Array] = {}
        for weight, own in self._gradients:
            parameter = weight.base
            if not weight.view.identity:
                own = np.ascontiguousarray(weight.view.back(own, 0, parameter.shape))
            total[parameter] = total[parameter] + own if parameter in total else own
        return total
