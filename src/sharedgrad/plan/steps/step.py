"""What all steps share, and the graph as their choices ask for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sharedgrad.graph import Node
from sharedgrad.layers.layer import Shape

if TYPE_CHECKING:
    from sharedgrad.plan.backward import Backward
    from sharedgrad.plan.forward import Forward


class Graph:
    """Nodes that are being rewritten.

    Attributes:
        taken: Node -> the step that computes it, of the steps that have been chosen already.
    """

    def __init__(self, nodes: Sequence[Node], shapes: Mapping[str, Shape], outputs: Collection[str]) -> None:
        self.shapes, self.taken = shapes, dict[str, Step]()
        self._outputs = frozenset(outputs)
        self._by_name = {node.name: node for node in nodes}
        self._readers: dict[str, list[Node]] = {}
        for node in nodes:
            for source in dict.fromkeys(node.inputs):
                self._readers.setdefault(source, []).append(node)

    def node(self, name: str) -> Node | None:
        """The node of that name; None for what comes from outside."""
        return self._by_name.get(name)

    def readers(self, name: str) -> list[Node]:
        """The nodes that read this node or input."""
        return self._readers.get(name, [])

    def is_output(self, node: Node) -> bool:
        """Whether its values are read from outside."""
        return node.name in self._outputs

    def only_reader(self, node: Node) -> Node | None:
        """The one node that reads it, if there is but one."""
        readers = self.readers(node.name)
        return readers[0] if len(readers) == 1 else None

    def follower(self, node: Node) -> Node | None:
        """The one node that reads it, if nobody else sees it, from outside neither."""
        return None if self.is_output(node) else self.only_reader(node)


class Step(ABC):
    """One or several nodes, written together.

    A step belongs to one program forward and remembers where its maps are; any number of ways back read that.

    Attributes:
        nodes: Those that it computes, in order.
        unseen: Names of those whose values it never writes down and cannot find again: no gradient can be given there.
    """

    unseen: tuple[str, ...] = ()

    def __init__(self, *nodes: Node | None) -> None:
        self.nodes = [node for node in nodes if node is not None]

    @classmethod
    @abstractmethod
    def beginning_with(cls, node: Node, graph: Graph) -> Step:
        """The step for this node and for what is computed together with it."""

    @classmethod
    def refusal(cls, node: Node, shapes: Mapping[str, Shape], samples: int) -> str:
        """Why the node cannot be computed, in words; nothing if it can."""
        return ""

    @abstractmethod
    def forward(self, way: Forward) -> None:
        """Write the operations of the forward pass."""

    @abstractmethod
    def backward(self, way: Backward) -> None:
        """Write the operations of the way back, for the nodes that a gradient has reached."""


class Weighted(Step):
    """A step with parameters. What its way back makes of them is one of three things."""

    @abstractmethod
    def gradients(self, way: Any, *arguments: Any) -> Any:
        """Their gradients, of all samples or sample by sample."""

    @abstractmethod
    def norms(self, way: Any, *arguments: Any) -> Any:
        """The norms of their samples' gradients now, and the sum with the samples' factors later."""

    @abstractmethod
    def copies(self, way: Any, *arguments: Any) -> Any:
        """What their gradients are made of, as plain arrays."""
