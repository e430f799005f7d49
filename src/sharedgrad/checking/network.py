"""A network with its numbers, stage by stage: what each layer is given, and the way back through it.

A stage is (node, target): ("conv", "y"), ("conv", "dy") for the gradient at its output, ("conv", "dw") … and for the
network's inputs (input, "dx"). The gradient at an output is the sum of what its readers and losses send back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sharedgrad.calculation import Calculation
from sharedgrad.checking.given import Given
from sharedgrad.checking.right import SHORT, engine, of_layer, right, targets, total
from sharedgrad.errors import ConfigError
from sharedgrad.parameter import Array

_LOSS_KINDS = {"MSE": "mse", "CrossEntropy": "cross_entropy", "BinaryCrossEntropy": "binary_cross_entropy"}
Stage = tuple[str, str]


@dataclass(frozen=True)
class Sender:
    """What sends a gradient back to a node: a reader of its output, or a loss.

    Attributes:
        name: The reader's node, or "loss".
        given: Its numbers; its "dx" (or "dx1" for a second input) is what it sends.
        target: Which of its gradients goes to the node.
    """

    name: str
    given: Given
    target: str


class Chain:
    """The numbers of a calculation, forward from the engine and backward stage by stage.

    Args:
        calculation: The network with its numbers.
        own: (node, "y" or "dy") -> the person's own array, used for everything after it in place of the engine's.
        options: Settings that every layer's numbers carry ("step", "dtype").
        changed: Node -> settings of one node under another convention.
    """

    def __init__(
        self,
        calculation: Calculation,
        own: Mapping[Stage, Array] | None = None,
        options: Mapping[str, Any] | None = None,
        changed: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.calculation, self.own = calculation, dict(own or {})
        self.options, self.changed = dict(options or {}), dict(changed or {})
        self.network = calculation.network
        self.nodes = {node.name: node for node in self.network.nodes}
        self.readers: dict[str, list[tuple[str, int]]] = {}
        for node in self.network.nodes:
            for place, source in enumerate(node.inputs):
                self.readers.setdefault(source, []).append((node.name, place))
        self._values = calculation.run().values
        self._dy: dict[str, Array] = {}

    @property
    def order(self) -> list[str]:
        """The nodes in the order in which they compute."""
        return list(self.nodes)

    def value(self, name: str) -> Array:
        """An input, or a node's output: the person's own where it is given, else the right one."""
        if (name, "y") in self.own:
            return self.own[name, "y"]
        if name not in self.nodes or not any(node != name for node, target in self.own if target == "y"):
            return self._values[name]
        return total(right(self._forward(name), "y"))

    def _forward(self, name: str) -> Given:
        node = self.nodes[name]
        values = [self.value(source) for source in node.inputs]
        return self._of_layer(name, values, None)

    def _of_layer(self, name: str, values: list[Array], dy: Array | None) -> Given:
        layer = self.nodes[name].layer
        options = {**self.options, "training": self.calculation.training, **self.changed.get(name, {})}
        if self.calculation.learning_rate is not None:
            options["learning_rate"] = self.calculation.learning_rate
        given = of_layer(layer, values[0], dy, **options)
        more = {f"x{number}": value for number, value in enumerate(values[1:], 1)}
        if dy is not None and (name, "y") in self.own:
            more["y"] = self.own[name, "y"]
        return given.replaced(**more) if more else given

    def given(self, name: str, dy: Array | None = None) -> Given:
        """The numbers of one node: its inputs, its parameters, and the gradient at its output."""
        node = self.nodes[name]
        return self._of_layer(name, [self.value(s) for s in node.inputs], self.dy(name) if dy is None else dy)

    def losses(self, name: str) -> Iterator[Given]:
        """The numbers of every loss of a node's output."""
        for objective in self.calculation.objectives:
            if objective.node == name:
                arrays = {"x": self.value(name), "target": objective.target.astype(float)}
                options = {"reduction": objective.loss.reduction, **objective.options, **self.changed.get("loss", {})}
                yield Given(_LOSS_KINDS[objective.name], arrays, None, {**options, **self.options})

    def senders(self, name: str) -> list[Sender]:
        """Who sends a gradient back to this node's output (or network input)."""
        found = [Sender("loss", given, "dx") for given in self.losses(name)]
        for reader, place in self.readers.get(name, []):
            found.append(Sender(reader, self.given(reader), f"dx{place or ''}"))
        return found

    def dy(self, name: str) -> Array:
        """The gradient at a node's output (or of a network input): the person's own, or the right one."""
        if (name, "dy") in self.own:
            return self.own[name, "dy"]
        if name not in self._dy:
            parts = [total(right(s.given, s.target)) for s in self.senders(name)]
            if name in self.calculation.upstream:
                parts.append(self.calculation.upstream[name])
            zero = np.zeros(self._values[name].shape)
            self._dy[name] = sum((part.reshape(zero.shape) for part in parts), zero)
        return self._dy[name]

    def below(self, name: str) -> list[str]:
        """The nodes whose outputs this one's gradient reaches going back, nearest first; not through own gradients."""
        found: list[str] = []
        waiting = list(self.nodes[name].inputs) if name in self.nodes else []
        while waiting:
            source = waiting.pop(0)
            if source not in found and (source, "dy") not in self.own:
                found.append(source)
                waiting += list(self.nodes[source].inputs) if source in self.nodes else []
        return found

    def carried(self, name: str, difference: Array, to: str) -> Array:
        """What a change of the gradient at ``name``'s output changes at ``to``'s: going back is linear."""
        changes: dict[str, Array] = {name: difference}
        for node in reversed(self.order):
            if node not in changes or node == to:
                continue
            back = engine(self.given(node, changes[node]))
            for place, source in enumerate(self.nodes[node].inputs):
                key = f"dx{place or ''}"
                if (source, "dy") not in self.own and key in back:
                    part = back[key].reshape(self._values[source].shape)
                    changes[source] = changes[source] + part if source in changes else part
        return changes.get(to, np.zeros(self._values[to].shape))

    def stage(self, name: str) -> Stage:
        """The stage that an answer's name stands for.

        Raises:
            ConfigError: There is no such array; says which there are.
        """
        node, _, target = name.rpartition(".")
        if name in self.network.inputs or name.removeprefix("d") in self.network.inputs:
            return name.removeprefix("d"), "dy"
        if name == "loss":
            return "loss", "y"
        if not node:
            node = self._only(target)
        target = {"delta": "dy", "upstream": "dy"}.get(target, target) if len(self.nodes) > 1 else target
        if target == "dx" and node in self.nodes and len(self.nodes[node].inputs) == 1:
            return self.nodes[node].inputs[0], "dy"
        if node not in self.nodes:
            raise ConfigError(f"answers: {name}", f"there is no node {node!r}", f"choose from {', '.join(self.nodes)}")
        target = self._parameter(node, target)
        known = ["y", "dy", *targets(self.given(node)), "w_updated", "b_updated"]
        if target not in known and not target.endswith("_updated"):
            raise ConfigError(
                f"answers: {name}", f"there is no such array of {node!r}", f"choose from {', '.join(known)}"
            )
        return node, target

    def _only(self, target: str) -> str:
        """The node that an answer without a node's name belongs to."""
        if target == "dx":
            return next(n for n, node in self.nodes.items() if set(node.inputs) & set(self.network.inputs))
        if target in ("y", "dy") or len(self.nodes) == 1:
            return self.network.outputs[0]
        having = [n for n, node in self.nodes.items() if node.layer.parameters()]
        if len(having) == 1:
            return having[0]
        raise ConfigError(
            f"answers: {target}", "the network has several nodes", f'name one, such as "{self.order[0]}.{target}"'
        )

    def _parameter(self, node: str, target: str) -> str:
        """dweight → dw where the tables say so; dWhh → dweight_hh_l0."""
        names = self.nodes[node].layer.parameters()
        base = target.removeprefix("d").removesuffix("_updated").removesuffix("_new")
        full = {"whh": "weight_hh_l0", "wxh": "weight_ih_l0", "wih": "weight_ih_l0", "bh": "bias_hh_l0"}.get(
            base.lower().replace("_", ""), base
        )  # fmt: skip
        if full in names or base in ("w", "b", "W"):
            short = SHORT.get(full, base.lower() if base == "W" else full)
            given = self.given(node)
            known = short if short in given else full
            return f"{known}_updated" if target.endswith(("_updated", "_new")) else f"d{known}"
        return target
