"""What of a network runs as compiled programs, and why the rest does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sharedgrad import kernels
from sharedgrad.graph import Node
from sharedgrad.layers.layer import Shape
from sharedgrad.layout import columns, table

_HEADER = ("nodes", "run", "why")


@dataclass(frozen=True)
class Part:
    """Nodes that follow on each other and run in one way.

    Attributes:
        nodes: Their names, in order.
        why: Why they run in Python, layer by layer; nothing where they are one compiled program.
    """

    nodes: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Compilation:
    """A network's parts, in the order of the forward pass; ``str`` is a table as wide as the terminal."""

    parts: tuple[Part, ...]

    @property
    def in_python(self) -> dict[str, str]:
        """The nodes that run in Python -> why."""
        return {name: part.why for part in self.parts for name in part.nodes if part.why}

    @property
    def sentence(self) -> str:
        """The same in one sentence."""
        count, rest = sum(len(part.nodes) for part in self.parts), self.in_python
        if not rest:
            return f"runs compiled: all {count} nodes, as one program."
        reasons = {why: [name for name, own in rest.items() if own == why] for why in rest.values()}
        told = "; ".join(f"{', '.join(names)} ({why})" for why, names in reasons.items())
        return f"runs compiled: {count - len(rest)} of {count} nodes. In Python: {told}."

    def __str__(self) -> str:
        rows = [(", ".join(part.nodes), "in Python" if part.why else "compiled", part.why) for part in self.parts]
        return "\n".join(table([_HEADER, *rows], columns(), wrapped=(0, 2))[0])


def compilation(nodes: Sequence[Node], shapes: Mapping[str, Shape], samples: int) -> Compilation:
    """The parts of these nodes.

    Args:
        nodes: In topological order.
        shapes: Of inputs and nodes, without the sample axis.
        samples: N.
    """
    if not kernels.programs():
        why = (
            "other kernels than the compiled ones were chosen"
            if kernels.compiled()
            else "no kernels were compiled where this was installed"
        )
        return Compilation((Part(tuple(node.name for node in nodes), why),))
    from sharedgrad.plan.route import parts

    found = parts(nodes, shapes, samples)
    return Compilation(tuple(Part(tuple(node.name for node in part), why) for why, part in found))
