"""Which activations are compiled, and their numbers on the compiled side."""

from __future__ import annotations

from sharedgrad import layers
from sharedgrad.graph import Node
from sharedgrad.kernels.native import program as ops
from sharedgrad.layers.layer import Layer

KINDS: dict[type[Layer], int] = {layers.ReLU: ops.RELU, layers.Sigmoid: ops.SIGMOID, layers.Tanh: ops.TANH}


def is_activation(node: Node | None) -> bool:
    """Whether it is one that is compiled."""
    return node is not None and type(node.layer) in KINDS


def is_relu(node: Node | None) -> bool:
    """Whether it is a ReLU."""
    return node is not None and type(node.layer) is layers.ReLU


def kind(activation: Node | None) -> int:
    """Its number on the compiled side; where there is none, that of the identity."""
    return ops.IDENTITY if activation is None else KINDS[type(activation.layer)]
