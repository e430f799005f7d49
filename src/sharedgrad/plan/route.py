"""The way of a pass through a network: compiled stretches, and between them single layers in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from sharedgrad import layers
from sharedgrad.graph import Node
from sharedgrad.kernels.native.single import contiguous
from sharedgrad.kernels.threads import one_blas_thread
from sharedgrad.layers import own
from sharedgrad.layers.context import Context
from sharedgrad.layers.layer import Shape
from sharedgrad.parameter import Array
from sharedgrad.plan import Plan, Recording
from sharedgrad.plan.steps import refusal
from sharedgrad.plan.steps.kinds import KINDS

_LIGHT = (*KINDS, layers.Add, layers.Concat, layers.Dropout, layers.Flatten)  # their work is less than a seam's
_TOO_LITTLE = "too little work between layers in Python"


def parts(nodes: Sequence[Node], shapes: Mapping[str, Shape], samples: int) -> list[tuple[str, list[Node]]]:
    """The nodes in order, cut where the way changes: why they run in Python, or nothing where they are compiled.

    Where something runs in Python anyway, so do nodes whose work is less than the change of memory order around them:
    stretches of activations and the like, and those before the first flattening of a stretch.
    """
    found = [(why, list(part)) for why, part in groupby(nodes, lambda node: refusal(node, shapes, samples))]
    if len(found) == 1:
        return found
    cut: list[tuple[str, list[Node]]] = []
    for why, part in found:
        light = 0 if why else _light_ones(part)
        cut += [(_TOO_LITTLE, part[:light]), (why, part[light:])]
    return [(why, part) for why, part in cut if part]


def _light_ones(stretch: Sequence[Node]) -> int:
    """How many nodes at the beginning are not worth compiling."""
    heavy = next((i for i, node in enumerate(stretch) if type(node.layer) not in _LIGHT), len(stretch))
    if heavy == len(stretch):
        return heavy
    flat = [i for i, node in enumerate(stretch[:heavy]) if type(node.layer) is layers.Flatten]
    return flat[-1] + 1 if flat else 0


class Route:
    """All nodes of a network, in order: neighbours that can be compiled make one plan, each other node goes by itself.

    Args:
        nodes, shapes, outputs, samples, dtype, training, record: As for ``plan.forward.Forward``, of the whole
            network.

    Attributes:
        pieces: What follows on what: a plan, or a node whose layer runs in Python.
        whole: The only plan, where there is nothing else.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        shapes: Mapping[str, Shape],
        outputs: Sequence[str],
        samples: int,
        dtype: np.dtype[Any],
        training: bool,
        record: bool,
    ) -> None:
        self._outputs = outputs
        self.pieces: list[Plan | Node] = []
        for why, part in parts(nodes, shapes, samples):
            if why:
                self.pieces += part
                continue
            enter, leave = _crossing(part, nodes, outputs)
            self.pieces.append(Plan(part, shapes, enter, leave, samples, dtype, training, record))
        first = self.pieces[0]
        self.whole = first if isinstance(first, Plan) and len(self.pieces) == 1 else None

    def forward(
        self, inputs: Mapping[str, Array], context: Context
    ) -> tuple[dict[str, Array], list[Recording | tuple[Node, Any]]]:
        """Outputs, which are the caller's own, and what each piece leaves for the way back."""
        if self.whole is not None:
            outputs, recording = self.whole.forward(inputs, context)
            return outputs, [recording]
        values, done = dict(inputs), list[Recording | tuple[Node, Any]]()
        with one_blas_thread():
            for piece in self.pieces:
                if isinstance(piece, Plan):
                    outputs, recording = piece.forward(values, context)
                    values.update(outputs)
                    done.append(recording)
                else:
                    read = [values[source] for source in piece.inputs]
                    output, saved = own.forward(piece.layer, read, context.enter(piece.name))
                    values[piece.name] = contiguous(output)
                    done.append((piece, saved))
        return {name: np.array(values[name]) for name in self._outputs}, done


def _crossing(stretch: Sequence[Node], nodes: Sequence[Node], outputs: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of what the stretch reads from outside, and of its nodes that are read there."""
    inside = {node.name for node in stretch}
    enter = dict.fromkeys(source for node in stretch for source in node.inputs if source not in inside)
    read = {source for node in nodes if node.name not in inside for source in node.inputs}.union(outputs)
    return list(enter), [node.name for node in stretch if node.name in read]
