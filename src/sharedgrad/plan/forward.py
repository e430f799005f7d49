"""The way forward: what the steps write into the program.

A step computes an activation together with the layer before it, and maps stay in blocks between steps: a private
rewrite of the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sharedgrad.geometry import Geometry
from sharedgrad.graph import Node
from sharedgrad.kernels.native.maps import Map
from sharedgrad.kernels.native.program import Builder
from sharedgrad.kernels.native.recycled import maker
from sharedgrad.layers.context import Context
from sharedgrad.layers.layer import Shape
from sharedgrad.parameter import Array, Buffer, Parameter, Weight
from sharedgrad.plan.lowering import Input, Kernel, Lowering, Mask, Output, Statistics
from sharedgrad.plan.prepared import Prepared
from sharedgrad.plan.steps import rewrite


class Forward(Lowering):
    """All nodes, forward.

    Args:
        nodes: In topological order; ``plan.steps.refusal`` has nothing against any of them.
        shapes: Of inputs and nodes, without the sample axis.
        inputs: Names of what the nodes read from outside.
        outputs: Names of nodes whose values are wanted outside.
        samples: N.
        dtype: float32 or float64.
        training: Mode of dropout and batch norm.
        record: Whether a backward pass will follow.

    Attributes:
        steps: What computes the nodes.
        values: Node or input -> the map that holds its values.
        statistics: Batch normalization -> where its batch's mean and variance are.
        unseen: Nodes at which no gradient can be given.
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
        self.steps = rewrite(nodes, shapes, outputs)
        super().__init__(shapes, Builder(samples, dtype))
        self.nodes, self.inputs, self.outputs = nodes, inputs, outputs
        self.by_name = {node.name: node for node in nodes}
        self.training, self.record = training, record
        self.values: dict[str, Map] = {}
        self._read_back: list[Map] = []
        self.statistics: dict[str, Statistics] = {}
        self.unseen = frozenset(name for step in self.steps for name in step.unseen)
        for name in inputs:
            self.values[name] = self.place(shapes[name])
            self.emit("relayout", (self.values[name], self.array(Input(name), shapes[name])))
        for step in self.steps:
            step.forward(self)
        for name in outputs:
            self.emit("relayout", (self.array(Output(name), shapes[name]), self.values[name]))
        self._read: list[Buffer] = [buffer for _, buffer in self.numbered(Buffer)]
        self._inputs, self._masks = self.numbered(Input), self.numbered(Mask)
        self._outputs = [(i, name, maker((samples, *shapes[name]), dtype)) for i, (name,) in self.numbered(Output)]

    def prepared(self, weight: Weight, y: Map, geometry: Geometry) -> Map | None:
        """The kernel (F, C, *K) prepared, where passes see the same weights again: with no way back to change them."""
        served = self.builder.by_channel and geometry.groups == 1
        if self.record or not served or not isinstance(weight, Parameter):
            return None
        kernel = Kernel(weight, Prepared.of(weight, self.builder, y, geometry))
        return self.array(kernel, (kernel.prepared.size,), 1)

    def keep(self, m: Map) -> Map:
        """The same map, which the way back reads: where that is another program, it stays as long as the tape."""
        self._read_back.append(m)
        return m

    def build(self) -> None:
        """A program of its own."""
        for m in self._read_back if self.record else ():
            m.kept = True
        super().build()

    # ---- for a run

    def read(self, context: Context | None) -> dict[Buffer, Array]:
        """The values that the buffers have in this pass; an evaluation needs no context."""
        return {buffer: context.read(buffer) if context else buffer.value for buffer in self._read}

    def connect(self, arrays: list[Any], inputs: Mapping[str, Array], context: Context | None) -> dict[str, Array]:
        """Put inputs, masks and places for outputs, which are returned, where the program takes them."""
        outputs: dict[str, Array] = {}
        for i, (name,) in self._inputs:
            arrays[i] = inputs[name]
        for i, name, make in self._outputs:
            arrays[i] = outputs[name] = make()
        for i, (node,) in self._masks:
            assert context is not None
            shape = self.builder.samples, *self.shapes[node.name]
            arrays[i] = node.layer.mask(shape, self.builder.dtype, context.enter(node.name))
        return outputs

    def track(self, memory: Array, context: Context) -> None:
        """Tell batch normalizations the means and variances that a run has left in its memory."""
        for name, (node, mean, variance, count) in self.statistics.items():
            context.enter(name)
            layer: Any = node.layer
            layer.track(read(memory, mean), read(memory, variance), count, context)


def read(memory: Array, m: Map) -> Array:
    """A copy of a row of numbers that was kept."""
    assert m.offset is not None
    return memory[m.offset : m.offset + m.channels].copy()
