"""A backward pass taken apart: the uses of every weight, and what flowed through every node."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property, partial
from typing import Any, TypeVar

from sharedgrad.errors import ConfigError
from sharedgrad.gradients import Gradients
from sharedgrad.graph import Node
from sharedgrad.layers import own
from sharedgrad.layers.terms import Cells
from sharedgrad.parameter import Array, Parameter, Weight, first_names
from sharedgrad.replay import Replay
from sharedgrad.uses import SharedWeight, Terms, Uses

T = TypeVar("T")


class Call:
    """One call of a layer: what went in and out, forward and back. All arrays begin with the sample axis.

    Attributes:
        node: Name of the node.
        inputs: Names of the nodes and network inputs that it reads.
    """

    def __init__(self, replay: Replay, node: Node) -> None:
        self.node, self.inputs = node.name, node.inputs
        self._replay, self._layer = replay, node.layer

    @property
    def upstream(self) -> Array:
        """Gradient of the loss with respect to the output (N, *output shape)."""
        upstream = self._replay.upstream(self.node)
        assert upstream is not None
        return upstream

    @cached_property
    def uses(self) -> list[Uses]:
        """The uses of the layer's parameters in this call."""
        _, uses = own.backward(self._layer, self._saved, self.upstream, [False] * len(self.inputs), list)
        for use in uses:
            use.node = self.node
        return uses

    @cached_property
    def dx(self) -> Terms:
        """The terms that this call's gradient of its first input is the sum of."""
        return self.dx_terms()

    def dx_terms(self, which: int = 0, cells: Cells = None) -> Terms:
        """The terms of an input's gradient; what flows to that input adds the totals of all its readers.

        Args:
            which: Number of the input in ``inputs``.
            cells: Flat indices into the input (N, *shape): the terms of these cells alone, for large maps.

        Raises:
            ConfigError: There is no such input, or the table is too large without ``cells``.
            ShapeError: One of the cells is none of the input's.
        """
        if not 0 <= which < len(self.inputs):
            known = ", ".join(f"{i} ({name})" for i, name in enumerate(self.inputs))
            raise ConfigError(f"call {self.node!r}", f"there is no input {which!r}", f"choose from {known}")
        return self._layer.input_terms(self._saved, self.upstream, which, cells)

    def y_terms(self, cells: Cells = None) -> Terms:
        """The terms of the output, of a layer that is linear in its inputs and parameters; cells as for dx_terms."""
        return self._layer.output_terms(*self.xs, cells=cells)

    @cached_property
    def inner(self) -> dict[str, Array | Terms]:
        """Gradients that never leave the layer, by name: "delta" (N, T, H) inside a recurrence; often empty."""
        return self._layer.inner(self._saved, self.upstream)

    @property
    def output(self) -> Array:
        """What the call gave (N, *output shape)."""
        return self._replay.value(self.node)

    @property
    def x(self) -> Array:
        """What it read (N, *input shape); of several inputs, the first."""
        return self.xs[0]

    @property
    def xs(self) -> tuple[Array, ...]:
        """All that it read, one array for each of ``inputs``."""
        return tuple(self._replay.value(name) for name in self.inputs)

    @property
    def _saved(self) -> Any:
        return self._replay.saved(self.node)

    def __repr__(self) -> str:
        return f"Call({self.node}: {type(self._layer).__name__} of {', '.join(self.inputs)})"


class Trace:
    """A backward pass with the uses kept apart.

    It holds the values that all weights had, so it stays what it is while training goes on.

    Args:
        replay: The pass.
        reached: Names of the nodes that gradients have passed through.
        names: Every name that a parameter has, aliases included.
        batched: Whether the forward pass was given samples with a sample axis.

    Attributes:
        calls: Node -> its call, in forward order.
        weights: Name -> all uses of that weight, for every weight that gradients have reached.
    """

    def __init__(self, replay: Replay, reached: Collection[str], names: Mapping[str, Weight], batched: bool) -> None:
        self._replay, self._names, self._batched = replay, names, batched
        nodes = {node.name: node for node in replay.nodes if node.name in reached}
        self.calls: Mapping[str, Call] = _Known("gradient passed through a node", nodes, partial(Call, replay))
        weights = dict.fromkeys(w.base for node in reversed(nodes.values()) for w in node.layer.parameters().values())
        first = first_names(names)
        copies = {weight: parameter for parameter, weight in replay.weights.items()}
        self._reached = {copies[weight]: first[copies[weight]] for weight in weights}  # as a walk back meets them
        sources = {name: replay.weights[p] for p, name in first.items() if p in self._reached}
        self.weights: Mapping[str, SharedWeight] = _Known("weight", sources, partial(_collected, replay, self.calls))

    def __getitem__(self, key: Weight | str) -> SharedWeight:
        """All uses of one weight, given by any of its names or as a parameter."""
        seen = self._names.get(key) if isinstance(key, str) else key
        parameter = seen.base if isinstance(seen, Weight) else seen
        if parameter not in self._reached:
            name = key if isinstance(key, str) else getattr(key, "name", repr(key))
            raise KeyError(f"no use of {name} in this trace; there are {', '.join(self.weights)}")
        return self.weights[self._reached[parameter]]

    @cached_property
    def inputs(self) -> dict[str, Array]:
        """Gradient with respect to each network input, in the input's shape."""
        found = {name: self._replay.upstream(name) for name in self._replay.inputs}
        return {name: a if self._batched else a[0] for name, a in found.items() if a is not None}

    def gradients(self) -> Gradients:
        """The sums, as ``tape.backward`` gives them."""
        total = {}
        for parameter, name in self._reached.items():
            if _uses(self._replay, self.calls, self._replay.weights[parameter]):  # a user's layer may leave one unused
                total[parameter] = self.weights[name].gradient
        return Gradients(total, self.inputs, self._names)


# Functions, not methods: a trace that held a method of its own would wait for Python's collector of cycles.


def _collected(replay: Replay, calls: Mapping[str, Call], weight: Parameter) -> SharedWeight:
    uses = _uses(replay, calls, weight)
    if not uses:
        raise KeyError(f"no use of {weight.name} in this trace")
    return SharedWeight(uses)


def _uses(replay: Replay, calls: Mapping[str, Call], weight: Parameter) -> list[Uses]:
    users = [n.name for n in replay.nodes if weight in [w.base for w in n.layer.parameters().values()]]
    return [use for name in users if name in calls for use in calls[name].uses if use.weight is weight]


class _Known(Mapping[str, T]):
    """Name -> thing, made when it is first asked for."""

    def __init__(self, what: str, sources: Mapping[str, Any], make: Callable[[Any], T]) -> None:
        self._what, self._sources, self._make = what, sources, make
        self._made: dict[str, T] = {}

    def __getitem__(self, name: str) -> T:
        if name not in self._sources:
            raise KeyError(f"no {self._what} {name!r} in this trace; there are {', '.join(self._sources)}")
        if name not in self._made:
            self._made[name] = self._make(self._sources[name])
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)
