"""Running compiled programs: memory for a forward pass and its way back, used again and again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple

import numpy as np

from sharedgrad.graph import Node
from sharedgrad.kernels.native.recycled import empty
from sharedgrad.kernels.native.single import contiguous
from sharedgrad.layers.context import Context
from sharedgrad.layers.layer import Shape
from sharedgrad.layers.normalization import BatchNorm2d
from sharedgrad.parameter import Array, Buffer, Parameter
from sharedgrad.plan.backward import Backward
from sharedgrad.plan.clipped import Clipped, SampleNorms
from sharedgrad.plan.forward import Forward, read
from sharedgrad.plan.lowering import MaxNorm, Norms
from sharedgrad.plan.traced import Traced

__all__ = ["Known", "Plan", "Recording"]

_SPARE = 2  # memories that wait for the next forward pass


class Plan:
    """A stretch of a network, compiled: its way forward for one number of samples, and the ways back asked for so far.

    Args:
        nodes, shapes, inputs, outputs, samples, dtype, training, record: As for ``plan.forward.Forward``.

    Attributes:
        names: Of its nodes.
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
        self.names = frozenset(node.name for node in nodes)
        self.lowered = Forward(nodes, shapes, inputs, outputs, samples, dtype, training, record)
        self.lowered.build()
        self._back: dict[Any, Backward] = {}
        self._spare: list[Array] = []

    def forward(self, inputs: Mapping[str, Array], context: Context) -> tuple[dict[str, Array], Recording]:
        """Outputs, which are the caller's own, and what the way back needs."""
        recording = Recording(self, self._memory(), self.lowered.read(context))
        outputs = self._run(recording.memory, recording.buffers, inputs, context)
        self.lowered.track(recording.memory, context)
        return outputs, recording

    def evaluate(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs alone, in evaluation mode."""
        memory = self._memory()
        outputs = self._run(memory, self.lowered.read(None), inputs, None)
        self.recycle(memory)
        return outputs

    def _run(
        self, memory: Array, buffers: Mapping[Buffer, Array], inputs: Mapping[str, Array], context: Context | None
    ) -> dict[str, Array]:
        arrays = self.lowered.arrays(buffers)
        outputs = self.lowered.connect(arrays, inputs, context)
        self.lowered.program.run(memory, arrays)
        return outputs

    def _memory(self) -> Array:
        """What a pass before has left, or new memory."""
        try:
            return self._spare.pop()
        except IndexError:
            return self.lowered.memory()

    def empty(self, shape: Shape) -> Array:
        """An array (N, *shape) that the caller keeps."""
        return empty((self.lowered.builder.samples, *shape), self.lowered.builder.dtype)

    def back(self, kind: type[Backward], given: Collection[str], *settings: Any) -> Any:
        """The way back from these nodes, as ``kind`` takes its settings."""
        key = kind, frozenset(given), settings
        if key not in self._back:
            self._back[key] = kind(self.lowered, given, *settings)
        return self._back[key]

    def recycle(self, memory: Array) -> None:
        """There will be no more ways back from this memory."""
        if len(self._spare) < _SPARE:
            self._spare.append(memory)


class Recording:
    """What one forward pass left behind for going backward.

    Attributes:
        buffers: The values of the buffers that it read; later passes in training mode replace them.
    """

    def __init__(self, plan: Plan, memory: Array, buffers: dict[Buffer, Array]) -> None:
        self.plan, self.memory, self.buffers = plan, memory, buffers

    def __del__(self) -> None:
        self.plan.recycle(self.memory)

    @property
    def names(self) -> frozenset[str]:
        """Of the nodes that it has passed."""
        return self.plan.names

    @property
    def unseen(self) -> frozenset[str]:
        """Those whose values it has never written down: no gradient can be given there."""
        return self.plan.lowered.unseen

    def backward(
        self, upstreams: Mapping[str, Array], wanted: frozenset[str], by_sample: frozenset[Parameter]
    ) -> tuple[dict[Parameter, Array], dict[str, Array]]:
        """The gradient of each parameter, and of each input that is wanted."""
        found = self._run(self.plan.back(Backward, upstreams, wanted, by_sample), upstreams)
        return found.parameters, found.inputs

    def clipped_by_sample(
        self, upstreams: Mapping[str, Array], wanted: frozenset[str], max_norm: float
    ) -> tuple[dict[Parameter, Array], Array]:
        """The sum of clipped per-sample gradients and the norms (N,), where this is the whole network and none of its
        parameters is used twice."""
        found = self._run(self.plan.back(Clipped, upstreams, wanted), upstreams, max_norm)
        return found.parameters, found.norms

    def squares(
        self, upstreams: Mapping[str, Array], wanted: frozenset[str], known: frozenset[str], tied: frozenset[Parameter]
    ) -> tuple[Array, Known, dict[str, Array]]:
        """Squared norms (N,) of the samples' gradients, in float64; of what the gradients of tied parameters are made
        instead, at their nodes; and the gradient of each input that is wanted."""
        found = self._run(self.plan.back(SampleNorms, upstreams, wanted, known, tied), upstreams)
        return found.squares, self._known(found), found.inputs

    def trace(
        self, upstreams: Mapping[str, Array], wanted: frozenset[str], known: frozenset[str]
    ) -> tuple[Known, dict[str, Array]]:
        """What gradients are made of, at all nodes with parameters, and the gradient of each input that is wanted."""
        found = self._run(self.plan.back(Traced, upstreams, wanted, known), upstreams)
        return self._known(found), found.inputs

    def _known(self, found: _Found) -> Known:
        return Known(found.deltas, found.values, {name: self._statistics(name) for name in found.deltas})

    def _statistics(self, name: str) -> tuple[Any, ...]:
        """A batch normalization's mean (C,) and variance (C,), and whether they are the batch's; else nothing."""
        lowered = self.plan.lowered
        layer: Any = lowered.by_name[name].layer
        if name in lowered.statistics:
            _, mean, variance, _ = lowered.statistics[name]
            return read(self.memory, mean), read(self.memory, variance), True
        if type(layer) is not BatchNorm2d:
            return ()
        running = layer.running_mean, layer.running_var
        return *(self.buffers[buffer].astype(lowered.builder.dtype) for buffer in running), False

    def _run(self, back: Backward, upstreams: Mapping[str, Array], max_norm: float = inf) -> _Found:
        plan, dtype = self.plan, self.plan.lowered.builder.dtype
        found, arrays = _Found(), back.arrays(self.buffers)
        for i, (name,) in back.upstreams:
            arrays[i] = contiguous(upstreams[name])
        for i, (name,) in back.input_gradients:
            arrays[i] = found.inputs[name] = plan.empty(plan.lowered.shapes[name])
        for i, (name,) in back.deltas:
            arrays[i] = found.deltas[name] = plan.empty(plan.lowered.shapes[name])
        for i, (name,) in back.node_values:
            arrays[i] = found.values[name] = plan.empty(plan.lowered.shapes[name])
        for i, make, *_ in back.results:
            arrays[i] = make()
        for i, what in back.limits:
            if isinstance(what, MaxNorm):
                arrays[i] = np.array([max_norm]).view(dtype)
            elif isinstance(what, Norms):
                arrays[i] = found.norms = plan.empty(())
            else:
                found.squares = np.empty(plan.lowered.builder.samples)
                arrays[i] = found.squares.view(dtype)
        back.program.run(self.memory, arrays)
        total = found.parameters
        for i, _, parameter, view, apart in back.results:  # a shared parameter has one of each of its calls
            own = arrays[i]
            if view is not None:
                own = np.ascontiguousarray(view.back(own, apart, parameter.shape))
            total[parameter] = total[parameter] + own if parameter in total else own
        return found


class Known(NamedTuple):
    """What a compiled pass tells of its nodes with parameters.

    Attributes:
        deltas: Node -> gradient at its output, in the output's shape.
        values: What these nodes have read: node -> its output, for nodes that are no network inputs.
        statistics: The same nodes -> what their layers' method ``saved`` takes besides what they have read.
    """

    deltas: dict[str, Array]
    values: dict[str, Array]
    statistics: dict[str, tuple[Any, ...]]


class _Found:
    """What a way back gives; each only if it asks for it."""

    norms: Array
    squares: Array

    def __init__(self) -> None:
        self.parameters: dict[Parameter, Array] = {}
        self.inputs: dict[str, Array] = {}
        self.deltas: dict[str, Array] = {}
        self.values: dict[str, Array] = {}
