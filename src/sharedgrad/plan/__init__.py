"""Running a network's compiled programs: memory for a forward pass and its way back, used again and again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from sharedgrad.graph import Node
from sharedgrad.kernels.memory import empty
from sharedgrad.layers.context import Context
from sharedgrad.layers.layer import Shape
from sharedgrad.parameter import Array, Buffer, Parameter
from sharedgrad.plan.backward import Backward
from sharedgrad.plan.forward import Forward
from sharedgrad.plan.lowering import Input, Mask, Output, UnsupportedError

__all__ = ["Plan", "Recording", "UnsupportedError"]

_SPARE = 2  # memories that wait for the next forward pass


class Plan:
    """A network's way forward for one number of samples, and the ways back that have been asked for.

    Args:
        nodes, shapes, inputs, outputs, samples, dtype, training, record: As for ``plan.forward.Forward``.

    Raises:
        UnsupportedError: A layer has no compiled operation.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        shapes: Mapping[str, Shape],
        inputs: Sequence[str],
        outputs: Sequence[str],
        samples: int,
        dtype: np.dtype[Any],
        training: bool,
        record: bool,
    ) -> None:
        self.way = Forward(nodes, shapes, inputs, outputs, samples, dtype, training, record)
        self._values = self.way.numbered(Parameter | Buffer)
        self._others = self.way.numbered(Input | Output | Mask)
        self._back: dict[Any, Backward] = {}
        self._spare: list[Array] = []

    def forward(self, inputs: Mapping[str, Array], context: Context) -> tuple[dict[str, Array], Recording]:
        """Outputs, which are the caller's own, and what the way back needs."""
        way = self.way
        outputs = {name: self.empty(way.shapes[name]) for name in way.outputs}
        recording = Recording(self, self._spare.pop() if self._spare else _zeros(way.program.kept, way.builder.dtype))
        arrays: list[Any] = [None] * len(way.outside)
        for i, value in self._values:
            arrays[i] = value.value
        for i, what in self._others:
            arrays[i] = self._given(what, inputs, outputs, context)
        way.program.run(recording.memory, tuple(arrays))
        for name, (node, mean, variance, count) in way.statistics.items():
            context.enter(name)
            node.layer.track(recording.read(mean), recording.read(variance), count, context)  # type: ignore[attr-defined]
        return outputs, recording

    def _given(self, what: Any, inputs: Mapping[str, Array], outputs: Mapping[str, Array], context: Context) -> Array:
        match what:
            case Input(name):
                return inputs[name]
            case Output(name):
                return outputs[name]
            case Mask(node):
                shape = (self.way.builder.samples, *self.way.shapes[node.name])
                context.enter(node.name)
                return node.layer.mask(shape, self.way.builder.dtype, context)  # type: ignore[attr-defined]
        raise AssertionError(what)

    def empty(self, shape: Shape) -> Array:
        """An array (N, *shape) for somebody to keep."""
        return empty((self.way.builder.samples, *shape), self.way.builder.dtype)

    def back(self, given: Collection[str], wanted: frozenset[str], by_sample: Collection[Parameter]) -> Backward:
        """The way back from these nodes to what is wanted."""
        key = frozenset(given), wanted, frozenset(by_sample)
        if key not in self._back:
            self._back[key] = Backward(self.way, given, wanted, by_sample)
        return self._back[key]

    def recycle(self, memory: Array) -> None:
        """Nobody goes back from this memory any more."""
        if len(self._spare) < _SPARE:
            self._spare.append(memory)


class Recording:
    """What one forward pass left behind for going backward."""

    def __init__(self, plan: Plan, memory: Array) -> None:
        self.plan, self.memory = plan, memory

    def __del__(self) -> None:
        self.plan.recycle(self.memory)

    def read(self, m: Any) -> Array:
        """A copy of a row of numbers that was kept."""
        return self.memory[m.offset : m.offset + m.channels].copy()

    def backward(
        self, upstreams: Mapping[str, Array], wanted: frozenset[str], by_sample: Collection[Parameter] = ()
    ) -> tuple[dict[Parameter, Array], dict[str, Array]]:
        """The gradient of each parameter, and of each input that is wanted.

        Raises:
            UnsupportedError: A layer has no compiled operation for this.
        """
        plan = self.plan
        back, dtype = plan.back(list(upstreams), wanted, by_sample), plan.way.builder.dtype
        arrays: list[Any] = [None] * len(back.outside)
        for i, value in back.values:
            arrays[i] = value.value
        for i, (name,) in back.upstreams:
            arrays[i] = upstreams[name]
        for i, (name,) in back.input_gradients:
            arrays[i] = plan.empty(plan.way.shapes[name])
        for i, (parameter, apart) in back.gradients:
            arrays[i] = empty((plan.way.builder.samples, *parameter.shape) if apart else parameter.shape, dtype)
        back.program.run(self.memory, tuple(arrays))
        found: dict[Parameter, Array] = {}
        for i, (parameter, _) in back.gradients:  # a shared parameter has one of each of its calls
            found[parameter] = found[parameter] + arrays[i] if parameter in found else arrays[i]
        inputs = {name: arrays[i] for i, (name,) in back.input_gradients}
        return found, inputs


def _zeros(elements: int, dtype: np.dtype[Any]) -> Array:
    memory = empty((elements,), dtype)
    memory.fill(0)
    return memory
