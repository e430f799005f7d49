"""Steps: the nodes of a graph as compiled programs compute them, one or several nodes at once.

One file a family, as the layers have. A step is chosen once, from the graph; which nodes it takes together, and what
else it can do because of its neighbours, are its fields. It writes the operations of its forward pass, of its way back
and of its per-sample norms.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sharedgrad import layers
from sharedgrad.graph import Node
from sharedgrad.layers.layer import Layer, Shape
from sharedgrad.plan.steps.activations import ActivationStep
from sharedgrad.plan.steps.convolution import ConvStep
from sharedgrad.plan.steps.dense import LinearStep
from sharedgrad.plan.steps.dropout import DropoutStep
from sharedgrad.plan.steps.kinds import KINDS
from sharedgrad.plan.steps.merging import AddStep
from sharedgrad.plan.steps.normalization import NormStep
from sharedgrad.plan.steps.pooling import AvgPoolStep, GlobalMeanStep, MaxPoolStep
from sharedgrad.plan.steps.shaping import FlattenStep
from sharedgrad.plan.steps.step import Graph, Step

STEPS: dict[type[Layer], type[Step]] = {
    **dict.fromkeys(KINDS, ActivationStep),
    layers.Conv1d: ConvStep,
    layers.Conv2d: ConvStep,
    layers.MaxPool1d: MaxPoolStep,
    layers.MaxPool2d: MaxPoolStep,
    layers.AvgPool1d: AvgPoolStep,
    layers.AvgPool2d: AvgPoolStep,
    layers.GlobalAvgPool: GlobalMeanStep,
    layers.Linear: LinearStep,
    layers.Flatten: FlattenStep,
    layers.Add: AddStep,
    layers.Dropout: DropoutStep,
    layers.BatchNorm2d: NormStep,
}


def rewrite(nodes: Sequence[Node], shapes: Mapping[str, Shape], outputs: Collection[str]) -> list[Step]:
    """The steps that compute these nodes, in an order in which each comes after all that it reads.

    Args:
        nodes: In topological order; each one :func:`refusal` has nothing against.
        shapes: Of all that they read and compute, without the sample axis.
        outputs: Names of nodes whose values are read from outside.
    """
    graph, steps = Graph(nodes, shapes, outputs), []
    for node in nodes:
        if node.name not in graph.taken:
            step = STEPS[type(node.layer)].beginning_with(node, graph)
            graph.taken.update({taken.name: step for taken in step.nodes})
            steps.append(step)
    return steps


def refusal(node: Node, shapes: Mapping[str, Shape], samples: int) -> str:
    """Why no step can compute this node, in words; nothing where one can."""
    layer = node.layer
    kind = STEPS.get(type(layer))
    if kind is None:
        return "no compiled operation for this layer" if layer.built_in else "a layer of your own, in Python"
    for name in (*node.inputs, node.name):
        if not 1 <= len(shapes[name]) <= 3:
            return f"samples of {len(shapes[name])} axes"
    return kind.refusal(node, shapes, samples)


def not_compiled() -> list[str]:
    """The layers that no step computes: they run in Python, and split a network's program."""
    kinds = {name: getattr(layers, name) for name in layers.__all__}
    return [name for name, kind in kinds.items() if issubclass(kind, Layer) and kind not in (Layer, *STEPS)]
