"""A network's way forward and back for inputs of one shape: two programs that keep their memory between steps."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod
from typing import Any

import numpy as np

from sharedgrad.kernels.native.program import Program
from sharedgrad.kernels.native.recycled import empty
from sharedgrad.layers.context import Context
from sharedgrad.layers.layer import Shape
from sharedgrad.network import Network
from sharedgrad.parameter import Array, Buffer, Parameter, Weight
from sharedgrad.plan.backward import Backward
from sharedgrad.plan.forward import Forward
from sharedgrad.plan.lowering import Gradient, Input, Mask, Next, Output, Rates, Upstream
from sharedgrad.plan.steps.dense import LinearStep
from sharedgrad.plan.steps.step import Weighted

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
        new, rates = self.array(Next(layer.weight), (prod(layer.weight.shape),), 1), self.array(Rates(), (2,), 1)
        db = self.gradient(layer.bias)[0] if layer.bias is not None else None
        self.emit("linear_descent", (new, db, self.parameter(layer.weight), delta, step.x, rates))
        return None


def _at_once(forward: Forward, samples: int, descending: Collection[Parameter]) -> set[Parameter]:
    """The large weights of dense layers that are used once."""
    if samples > 1:
        return set()
    held = [w for node in forward.nodes for w in node.layer.parameters().values()]
    once = {w for w in held if isinstance(w, Parameter) and [other.base for other in held].count(w) == 1}
    return {p for p in once.intersection(descending) if prod(p.shape) >= _LARGE}


class Passes:
    """Both programs of a network with one output, to be run one after the other.

    Args:
        network: The network; ``plan.steps.refusal`` has nothing against any of its nodes.
        shapes: Of its inputs and nodes, without the sample axis.
        samples: N.
        wanted: Names whose gradient leads to a parameter.
        training: The mode of dropout and batch normalization.
        store: Arrays for gradients, which passes over other numbers of samples use as well.

    """

    def __init__(
        self,
        network: Network,
        shapes: Mapping[str, Shape],
        samples: int,
        wanted: frozenset[str],
        training: bool,
        store: Store,
        descending: Collection[Parameter] = (),
    ) -> None:
        self._samples, self._dtype, self._shapes = samples, network.dtype, shapes
        (self.output,) = network.outputs
        forward = Forward(
            network.nodes, shapes, list(network.inputs), network.outputs, samples, network.dtype, training, True
        )
        self.at_once = _at_once(forward, samples, descending)
        backward = Descent(forward, network.outputs, wanted, self.at_once)
        self._statistics = forward.statistics
        self._memory = np.zeros(0, network.dtype)  # until the first step
        self._forward, self._backward = _Arrays(forward), _Arrays(backward)
        self._gradients: list[tuple[Weight, Array]] = []
        for number, (weight, _) in backward.gradients:  # in the order in which a tape adds them
            key = f"{weight.base.name} {len(self._gradients)}", weight.shape
            array = store.setdefault(key, empty(weight.shape, network.dtype))
            self._gradients.append((weight, array))
            self._backward.fixed[number] = array
        self._single = {w.base: array for w, array in self._gradients}  # if each has one use and is seen as it is
        self._plain = len(self._single) == len(self._gradients) and all(w.view.identity for w, _ in self._gradients)

    def forward(self, inputs: Mapping[str, Array], context: Context) -> Array:
        """The output (N, *shape), the caller's own; running statistics are pending in the context."""
        if not self._memory.size:
            self._memory = empty((self._forward.program.kept + 1,), self._dtype)
            self._memory.fill(0)
        y = empty((self._samples, *self._shapes[self.output]), self._dtype)
        self._forward.run(self._memory, lambda what: self._given(what, inputs, y, context))
        for name, (node, mean, variance, count) in self._statistics.items():
            context.enter(name)
            node.layer.track(self._read(mean), self._read(variance), count, context)  # type: ignore[attr-defined]
        return y

    def backward(self, upstream: Array, rates: tuple[float, float]) -> tuple[dict[Parameter, Array], Values]:
        """The gradient of each parameter, in memory that the next step writes over; or its new value instead.

        Args:
            upstream: The gradient at the output.
            rates: Learning rate and weight decay of plain descent.
        """
        values: Values = {}
        self._backward.run(self._memory, lambda what: self._given_back(what, upstream, rates, values))
        return self._single if self._plain else self._summed(), values

    def _given_back(self, what: Any, upstream: Array, rates: tuple[float, float], values: Values) -> Array:
        match what:
            case Upstream():
                return upstream
            case Rates():
                return np.array(rates, self._dtype)
            case Next(parameter):
                values[parameter] = empty(parameter.shape, self._dtype)
                return values[parameter]
        raise AssertionError(what)

    def _summed(self) -> dict[Parameter, Array]:
        """Where parameters have several uses, or views."""
        total: dict[Parameter, Array] = {}
        for weight, own in self._gradients:
            parameter = weight.base
            if not weight.view.identity:
                own = np.ascontiguousarray(weight.view.back(own, 0, parameter.shape))
            total[parameter] = total[parameter] + own if parameter in total else own
        return total

    def _given(self, what: Any, inputs: Mapping[str, Array], y: Array, context: Context) -> Array:
        match what:
            case Input(name):
                return inputs[name]
            case Output():
                return y
            case Mask(node):
                context.enter(node.name)
                shape = (self._samples, *self._shapes[node.name])
                return node.layer.mask(shape, self._dtype, context)  # type: ignore[attr-defined]
        raise AssertionError(what)

    def _read(self, m: Any) -> Array:
        return self._memory[m.offset : m.offset + m.channels].copy()


class _Arrays:
    """A program, and where its arrays from outside come from.

    Attributes:
        fixed: Arrays that stay, by their numbers.
    """

    def __init__(self, lowered: Forward | Backward) -> None:
        self.program: Program = lowered.program
        self.fixed: list[Any] = [None] * len(lowered.outside)
        self._values = lowered.numbered(Weight | Buffer)
        self._given = lowered.numbered(Input | Output | Mask | Upstream | Next | Rates)
        assert len(self._values) + len(self._given) + len(lowered.numbered(Gradient)) == len(self.fixed)

    def run(self, memory: Array, given: Any) -> None:
        """Carry it out on the values of now, and what ``given`` makes of the rest."""
        arrays = self.fixed.copy()
        for i, value in self._values:
            arrays[i] = value.value
        for i, what in self._given:
            arrays[i] = given(what)
        self.program.run(memory, tuple(arrays))
