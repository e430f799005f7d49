"""What the arrays of a calculation are called: x, w, b, y, their gradients dx, dw, db, dy, and whose they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np

from sharedgrad.calculation import Calculation, Objective, Result
from sharedgrad.document.expression import Symbol
from sharedgrad.errors import ConfigError
from sharedgrad.graph import Node
from sharedgrad.layers import Context, Layer
from sharedgrad.parameter import Array, Parameter, Weight
from sharedgrad.uses import Outer, Terms, Uses, Window

_SHORT = (("weight", "w"), ("bias", "b"))
_OTHERWISE = {"x": "patch", "dy": "delta"}  # what is read is not the layer's x or dy itself, but made of it


class Names:
    """The symbols of one calculation and its results.

    Args:
        calculation: What is calculated.
        result: What the engine made of it.
    """

    def __init__(self, calculation: Calculation, result: Result) -> None:
        self.calculation, self.result = calculation, result
        self.network = calculation.network
        self.several = len(self.network.nodes) > 1

    def value(self, name: str) -> Symbol:
        """The output of a node, or an input of the network."""
        array = self.result.values[name]
        if name in self.network.inputs:
            return _symbol(self._input(name), array)
        return _symbol("y", array, self.owner(name))

    def gradient(self, name: str) -> Symbol | None:
        """The gradient at a node's output or at an input of the network; None where none arrives."""
        array = self._gradients.get(name)
        if array is None:
            return None
        if name in self.network.inputs:
            return _symbol(f"d{self._input(name)}", array)
        return _symbol("dy", array, self.owner(name))

    def dx(self, node: Node, which: int = 0) -> Symbol:
        """What one node sends back to one of its inputs; where others send there too, it is a part of the gradient."""
        source = node.inputs[which]
        whole = self.gradient(source)
        if whole is not None and self.senders(source) == [(node.name, which)] and source not in self.result.upstream:
            return whole
        needs = [i == which for i in range(len(node.inputs))]
        array = node.layer.backward(self._saved(node), self.result.trace.calls[node.name].upstream, needs)[0][which]
        assert array is not None
        part = f"dx{which + 1}" if len(node.inputs) > 1 else "dx"
        return _symbol(part, array, self.owner(node.name))

    def senders(self, name: str) -> list[tuple[str, int]]:
        """Who sends a gradient back to a node or input: (node, number of its input)."""
        return [
            (node.name, which)
            for node in self.network
            for which, source in enumerate(node.inputs)
            if source == name and node.name in self._gradients
        ]

    def weight(self, weight: Weight) -> Symbol:
        """A parameter, whole, whatever a layer sees of it."""
        owner, name = self._place(weight.base)
        return _symbol(name, weight.base.value, owner)

    def seen(self, node: Node, attribute: str) -> Symbol:
        """A weight as one layer sees it: the parameter itself, or the transposed, say, of another layer's."""
        weight = node.layer.parameters()[attribute]
        if weight is weight.base:
            return self.weight(weight)
        return _symbol(_shortened(attribute), weight.value, self.owner(node.name))

    def parameters(self, node: Node) -> list[Parameter]:
        """The parameters that a layer uses, each once."""
        return list(dict.fromkeys(weight.base for weight in node.layer.parameters().values()))

    def weight_gradient(self, weight: Weight) -> Symbol | None:
        """The gradient of a parameter; None where no gradient reaches it."""
        if weight.base not in self.result.gradients:
            return None
        owner, name = self._place(weight.base)
        return _symbol(f"d{name}", self.result.gradients[weight.base], owner)

    def updated(self, weight: Weight) -> Symbol:
        """A parameter after the update."""
        owner, name = self._place(weight.base)
        return _symbol(f"{name}_new", self.result.updated[weight.base.name], owner)

    def target(self, objective: Objective) -> Symbol:
        """What the output of a node should be."""
        return self.helper("t", objective.target, objective.node)

    def loss_gradient(self, objective: Objective, array: Array) -> Symbol:
        """What one loss sends back: the gradient at its node, or a part of it where more arrives there."""
        whole = self.gradient(objective.node)
        alone = sum(o.node == objective.node for o in self.calculation.objectives) == 1
        given = objective.node in self.calculation.upstream
        if whole is not None and alone and not given and not self.senders(objective.node):
            return whole
        return self.helper("dy_loss", array, objective.node)

    def all(self) -> list[Symbol]:
        """Every array of the calculation: inputs, outputs, weights, and their gradients."""
        nodes = [*self.network.inputs, *(node.name for node in self.network)]
        parameters = self.network.parameters()
        found = [self.value(name) for name in nodes] + [self.weight(parameter) for parameter in parameters]
        gradients = [self.gradient(name) for name in nodes] + [self.weight_gradient(p) for p in parameters]
        return found + [symbol for symbol in gradients if symbol is not None]

    def given_upstream(self, node: str) -> Symbol:
        """The gradient that was given at a node, where more arrives there."""
        alone = not self.senders(node) and all(o.node != node for o in self.calculation.objectives)
        whole = self.gradient(node)
        if alone and whole is not None:
            return whole
        return self.helper("dy_given", self.calculation.upstream[node], node)

    def network_node(self, name: str) -> Node:
        """The node of this name."""
        return next(node for node in self.network if node.name == name)

    def owner(self, node: str) -> str:
        """The node, where there is more than one."""
        return node if self.several else ""

    def helper(self, name: str, array: Array, node: str) -> Symbol:
        """An array that is made on the way, such as a turned kernel."""
        return _symbol(name, array, self.owner(node))

    def _input(self, name: str) -> str:
        return "x" if len(self.network.inputs) == 1 else name

    def _place(self, parameter: Parameter) -> tuple[str, str]:
        node, _, attribute = parameter.name.rpartition(".")
        return self.owner(node), _shortened(attribute)

    @cached_property
    def _gradients(self) -> dict[str, Array]:
        """Gradients at every node and input, with the sample axis."""
        found = {name: call.upstream for name, call in self.result.trace.calls.items()}
        for name, array in self.result.trace.inputs.items():
            found[name] = array.reshape(self.result.values[name].shape)
        return found

    # ---- the terms of sums, and what their factors are called

    def uses(self, node: Node, weight: Weight) -> list[Uses]:
        """The uses of a parameter in one call."""
        call = self.result.trace.calls.get(node.name)
        return [] if call is None else [use for use in call.uses if use.weight.name == weight.base.name]

    def input_terms(self, node: Node, which: int, cells: Array | None = None) -> Terms | None:
        """The terms of the gradient of one of a node's inputs; None where the layer has no table of them."""
        try:
            return self.result.trace.calls[node.name].dx_terms(which, cells)
        except ConfigError:
            return None

    def output_terms(self, node: Node, cells: Array | None = None) -> Terms | None:
        """The terms of a node's output; None where it is no sum of products."""
        try:
            return node.layer.output_terms(*(self.result.values[name] for name in node.inputs), cells=cells)
        except ConfigError:
            return None

    def _saved(self, node: Node) -> object:
        """What a node's layer keeps of its forward pass, which is carried out again."""
        context = Context(self.calculation.training, self.network.seed, self.network.step)
        context.enter(node.name)
        return node.layer.forward(*(self.result.values[name] for name in node.inputs), context=context)[1]

    def inner(self, node: Node) -> Mapping[str, Array]:
        """What never leaves a layer, e.g. a recurrent layer's δ."""
        inner = self.result.trace.calls[node.name].inner
        return {name: array for name, array in inner.items() if isinstance(array, np.ndarray)}

    def of_factors(self, node: Node, terms: Terms, which: int = 0) -> dict[str, Symbol]:
        """What the factors of some terms are called; an array that has no name of its own gets the factor's."""
        named = {"x": self.value(node.inputs[which]), "y": self.value(node.name)}
        dy = self.gradient(node.name)
        if dy is not None:
            named["dy"] = dy
        for attribute in node.layer.parameters():
            symbol = self.seen(node, attribute)
            named[symbol.name] = symbol
        found = {}
        for name, factor in terms.factors.items():
            known = named.get(name)
            if known is not None and _same(known.array, factor.array):
                found[name] = known
            else:
                found[name] = self.helper(_OTHERWISE.get(name, name), factor.array, node.name)
        return found

    def of_uses(self, node: Node, use: Uses, terms: Terms) -> tuple[Terms, dict[str, Symbol]]:
        """Terms of uses, with indices into the maps as the network has them, and what their factors are called."""
        dy = self.gradient(node.name)
        assert dy is not None
        by_position = "position" in use.axes or isinstance(use, Outer)
        if dy.array.ndim > 2 and by_position and not isinstance(use, Window) and _has_maps(node.layer):
            flat = np.moveaxis(np.arange(dy.array.size).reshape(dy.array.shape), 1, -1).reshape(-1)
            terms = _reindexed(terms, dy.array, flat)
        return terms, self.of_factors(node, terms)


def _has_maps(layer: Layer) -> bool:
    """Whether a layer's uses of its other weights read dy with the channels last."""
    return hasattr(layer, "geometry") or type(layer).__name__.startswith("BatchNorm")


def _shortened(attribute: str) -> str:
    """``weight_hh_l0`` -> ``w_hh``."""
    for long, short in _SHORT:
        attribute = re.sub(rf"^{long}", short, attribute)
    return attribute.removesuffix("_l0")


def _reindexed(terms: Terms, dy: Array, flat: Array) -> Terms:
    """The same terms, their dy read from the map (N, F, *P) instead of from its copy with channels last."""
    factor = terms.factors["dy"]
    index = np.where(factor.index < 0, factor.index, flat[np.maximum(factor.index, 0)])
    return replace(terms, factors={**terms.factors, "dy": replace(factor, array=dy, index=index)})


def _same(a: Array, b: Array) -> bool:
    return a.size == b.size and np.array_equal(a.reshape(-1), b.reshape(-1))


def _symbol(name: str, array: Array, owner: str = "") -> Symbol:
    hidden = tuple(axis for axis, length in enumerate(array.shape) if length == 1)
    return Symbol(name, array, owner, hidden)
