"""The way forward: what the steps write into the program.

A step computes an activation together with the layer before it, and maps stay in blocks between steps: a private
rewrite of the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sharedgrad.geometry import Geometry
from sharedgrad.graph import Node
from sharedgrad.kernels.native.maps import Map
from sharedgrad.kernels.native.program import Builder
from sharedgrad.layers.layer import Shape
from sharedgrad.parameter import Parameter, Weight
from sharedgrad.plan.lowering import Input, Kernel, Lowering, Output, Statistics
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
        builder = Builder(samples, dtype)
        by_channel = not builder.full and all(step.by_channel for step in self.steps)
        super().__init__(shapes, replace(builder, by_channel=by_channel))
        self.nodes, self.inputs, self.outputs = nodes, inputs, outputs
        self.by_name = {node.name: node for node in nodes}
        self.training, self.record = training, record
        self.values: dict[str, Map] = {}
        self.statistics: dict[str, Statistics] = {}
        self.unseen = frozenset(name for step in self.steps for name in step.unseen)
        for name in inputs:
            self.values[name] = self.place(shapes[name])
            self.emit("relayout", (self.values[name], self.array(Input(name), shapes[name])))
        for step in self.steps:
            step.forward(self)
        for name in outputs:
            self.emit("relayout", (self.array(Output(name), shapes[name]), self.values[name]))
        self.build()

    def prepared(self, weight: Weight, y: Map, geometry: Geometry) -> Map | None:
        """The kernel (F, C, *K) prepared, where passes see the same weights again: with no way back to change them."""
        if self.record or not self.builder.by_channel or not isinstance(weight, Parameter):
            return None
        kernel = Kernel(weight, Prepared.of(weight, self.builder, y, geometry))
        return self.array(kernel, (kernel.prepared.size,), 1)

    def keep(self, m: Map) -> Map:
        """The same map, which stays as long as the tape if there will be one."""
        m.kept = m.kept or self.record
        return m
