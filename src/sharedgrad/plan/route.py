"""The way of a pass through a network: compiled stretches, and between them single layers in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from sharedgrad.graph import Node
from sharedgrad.kernels.threads import one_blas_thread
from sharedgrad.layers import own
from sharedgrad.layers.context import Context
from sharedgrad.layers.layer import Shape
from sharedgrad.parameter import Array
from sharedgrad.plan import Plan, Recording
from sharedgrad.plan.steps import refusal


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
        for compiled, group in groupby(nodes, lambda node: not refusal(node, shapes, samples)):
            if not compiled:
                self.pieces += group
                continue
            stretch = list(group)
            enter, leave = _crossing(stretch, nodes, outputs)
            self.pieces.append(Plan(stretch, shapes, enter, leave, samples, dtype, training, record))
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
                    values[piece.name] = np.ascontiguousarray(output)
                    done.append((piece, saved))
        return {name: np.array(values[name]) for name in self._outputs}, done


def _crossing(stretch: Sequence[Node], nodes: Sequence[Node], outputs: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of what the stretch reads from outside, and of its nodes that are read there."""
    inside = {node.name for node in stretch}
    enter = dict.fromkeys(source for node in stretch for source in node.inputs if source not in inside)
    read = {source for node in nodes if node.name not in inside for source in node.inputs}.union(outputs)
    return list(enter), [node.name for node in stretch if node.name in read]
