"""The way back of a step, up to the gradients or, where nothing comes between, to the update."""

from __future__ import annotations

from collections.abc import Collection
from math import prod
from typing import Any

from sharedgrad.kernels.native.maps import Map
from sharedgrad.parameter import Parameter, Weight
from sharedgrad.plan.backward import Backward
from sharedgrad.plan.forward import Forward
from sharedgrad.plan.steps.dense import LinearStep
from sharedgrad.plan.steps.step import Weighted
from sharedgrad.stepping.update import AtOnce, Update, Written, place_of_settings

_LARGE = 1 << 14  # numbers of a weight for which a step at once is the shorter way


class Descent(Backward):
    """All nodes that lead to a parameter, backward.

    Args:
        forward, wanted: As for ``plan.backward.Backward``.
        loss: The gradient at the output, where a loss has been written behind ``forward``, and the settings.
        update: What goes on in the same program: gradients are its own then; none of the parameters is used twice.

    Attributes:
        written: The update, if it is there.
    """

    def __init__(
        self, forward: Forward, wanted: Collection[str], loss: tuple[Map, Map] | None, update: Update | None
    ) -> None:
        self._loss, self._update = loss, update
        self.written: Written | None = None
        self._own: dict[Parameter, Map | AtOnce] = {}
        super().__init__(forward, forward.outputs, wanted, frozenset(), joined=loss is not None)

    @property
    def at_once(self) -> list[Parameter]:
        """Weights whose gradients are never written."""
        return [p for p, gradient in self._own.items() if isinstance(gradient, AtOnce)]

    def upstream(self, name: str) -> Map:
        """The loss's."""
        return super().upstream(name) if self._loss is None else self._loss[0]

    def gradient(self, parameter: Weight) -> tuple[Map, int]:
        """A place for it, which others take when the update has read it."""
        if self._update is None:
            return super().gradient(parameter)
        own = self._own[parameter.base] = Map(1, 1, prod(parameter.shape))
        return own, 0

    def parameter_gradients(self, step: Weighted, *arguments: Any) -> Any:
        """As ever, but for large weights of dense layers that plain descent updates: one sample makes their new values
        from what the gradients are made of."""
        if not isinstance(step, LinearStep) or not self._makes_at_once(step.layer.weight):
            return super().parameter_gradients(step, *arguments)
        (delta,), layer = arguments, step.layer
        self.holders[delta] += 1  # to the end: no operation may write over it
        bias = None if layer.bias is None else self.gradient(layer.bias)[0]
        self._own[layer.weight] = AtOnce(bias, delta, step.x)
        return None

    def _makes_at_once(self, weight: Weight) -> bool:
        if self._update is None or self.builder.samples > 1 or prod(weight.shape) < _LARGE:
            return False
        return any(weight in g.parameters and g.rule.name == "sgd" and not g.states for g in self._update.groups)

    def build(self) -> None:
        """The program; the update knows the arrays of its parameters itself."""
        super().build()
        if self.written is not None:
            self.release(self.written.places)

    def finish(self) -> None:
        """The update."""
        if self._update is not None:
            settings = place_of_settings(self, self._update) if self._loss is None else self._loss[1]
            self.written = Written(self._update, self, self._own, settings)
