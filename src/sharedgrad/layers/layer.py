"""The contract that every layer keeps."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar

import numpy as np

from sharedgrad.errors import ConfigError, ShapeError
from sharedgrad.geometry import text
from sharedgrad.layers.context import Context
from sharedgrad.layers.terms import Cells, chosen_cells, factors
from sharedgrad.parameter import Array, Buffer, Revision, Weight
from sharedgrad.uses import Uses
from sharedgrad.uses.terms import Terms

Shape = tuple[int, ...]


class Layer(ABC):
    """One function of one or more arrays, with its backward beside its forward.

    A layer keeps nothing from a call: what backward needs, forward returns as ``saved``; so a layer may be called
    any number of times in one network. Subclasses store each constructor argument under its own name; that is
    what :meth:`config` writes and the network's configuration reads back.
    """

    registry: ClassVar[dict[str, type[Layer]]] = {}
    name: str = ""  # the node that the layer was first used in; a network sets it, messages say it
    mixes_samples: ClassVar[bool] = False  # whether in training mode a sample's output depends on the other samples
    index_inputs: ClassVar[tuple[int, ...]] = ()  # inputs that are indices: network inputs alone, which stay int64
    fixed: ClassVar[frozenset[str]] = frozenset()  # arguments that are settled when the layer is made
    built_in: ClassVar[bool] = True  # whether it is one of this package's; what others return is checked (own.py)
    warned: bool = False  # whether its results have been cast already
    revision: int = 0  # how often an attribute has been set: what was worked out from a layer holds as long as this

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.built_in = cls.__module__.startswith("sharedgrad.layers.")
        known = Layer.registry.get(cls.__name__)
        if known is not None and known.__module__.startswith("sharedgrad.") and known.__module__ != cls.__module__:
            raise ConfigError(f"class {cls.__name__}", "is the name of a layer of sharedgrad", "give it another name")
        if not cls.__name__.startswith("_"):
            Layer.registry[cls.__name__] = cls

    @abstractmethod
    def forward(self, *inputs: Array, context: Context) -> tuple[Array, Any]:
        """Compute the output and what backward will need: ``(output, saved)``."""

    @abstractmethod
    def backward(
        self, saved: Any, upstream: Array, needs: Sequence[bool]
    ) -> tuple[tuple[Array | None, ...], list[Uses]]:
        """Go back from the gradient at the output.

        Args:
            saved: What this call's forward returned.
            upstream: Gradient of the loss with respect to the output, in the output's shape; never modified.
            needs: For each input, whether anybody wants its gradient.

        Returns:
            The gradient for each input (None where it is not needed) and the uses of the parameters; a
            parameter's gradient is the sum of its uses.
        """

    def input_terms(self, saved: Any, upstream: Array, which: int = 0, cells: Cells = None) -> Terms:
        """The terms that an input's gradient is the sum of; never called in training.

        Args:
            saved: What this call's forward returned.
            upstream: Gradient of the loss with respect to the output.
            which: Number of the input.
            cells: Flat indices into dx: the terms of these cells alone, without building the whole table.

        Raises:
            ConfigError: The layer does not define them, or the table is too large without ``cells``.
            ShapeError: One of the cells is none of the input's.
        """
        raise ConfigError(self.label, "does not give the terms of its input gradient", "define input_terms")

    def output_terms(self, *inputs: Array, cells: Cells = None) -> Terms:
        """The terms that the output is the sum of, where it is linear in inputs and parameters.

        Args:
            inputs: The inputs of forward.
            cells: Flat indices into y: the terms of these cells alone.

        Raises:
            ConfigError: The layer is not linear or does not define them, or the table is too large without ``cells``.
            ShapeError: One of the cells is none of the output's.
        """
        raise ConfigError(self.label, "does not give its output as a sum of terms", "define output_terms")

    def inner(self, saved: Any, upstream: Array) -> dict[str, Array | Terms]:
        """Gradients that never leave the layer, by name (the deltas inside a recurrence); never called in training."""
        return {}

    @abstractmethod
    def output_shape(self, *shapes: Shape) -> Shape:
        """The output's shape without the sample axis, from the inputs' shapes; raises ShapeError if they do not fit."""

    def uses_per_sample(self, *shapes: Shape) -> int:
        """How often one sample uses each parameter of this layer. Need not be defined: it is counted."""
        return 1

    def without_sharing(self, *shapes: Shape) -> int | None:
        """Number of weights if every use had its own (None where nothing is shared within a sample)."""
        return None

    def parameters(self) -> dict[str, Weight]:
        """The parameters under the names that they have in PyTorch's ``state_dict``; tied ones may be views."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Weight)}

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(vars(self).get(name), Weight) and not isinstance(value, Weight | None):
            fix = f"set .{name}.value to change its numbers, or assign a Parameter to share it"
            raise ConfigError(self.label, f"{name} is a Parameter, got {type(value).__name__}", fix)
        if name in self.fixed and name in vars(self) and vars(self)[name] != value:
            fix = f"make a new one: {type(self).__name__}(…, {name}={value!r})"
            raise ConfigError(self.label, f"its {name} is settled when the layer is made", fix)
        super().__setattr__(name, value)
        super().__setattr__("revision", self.revision + 1)
        Revision.advance()

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments as they are now, without weights: what a pass depends on besides values."""
        own = vars(self)
        kept = {a.name: own[a.name] for a in self._arguments() if a.name in own}
        return {name: value for name, value in kept.items() if not isinstance(value, Weight | Buffer)}

    def tie(self, name: str, parameter: Weight) -> None:
        """Use another Parameter under this name (of :meth:`parameters`) from now on, and so share it.

        A view of one will do: ``decoder.tie("weight", encoder.weight.T)``.

        Raises:
            ConfigError: There is no parameter of this name.
            ShapeError: The other has another shape.
        """
        if name not in self.parameters():
            raise ConfigError(self.label, f"has no parameter {name!r}", f"choose from {', '.join(self.parameters())}")
        if not isinstance(parameter, Weight):
            raise ConfigError(self.label, f"expected a Parameter to tie, got {type(parameter).__name__}")
        own = self.parameters()[name]
        if own.shape != parameter.shape:
            raise ShapeError(self.label, f"expected a {name} of shape {own.shape} to tie, got {parameter.shape}")
        attribute = next(key for key, value in vars(self).items() if value is own)
        setattr(self, attribute, parameter)

    def buffers(self) -> dict[str, Buffer]:
        """The arrays that are kept but not trained, likewise."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Buffer)}

    def config(self) -> dict[str, Any]:
        """The constructor's arguments that differ from its defaults."""
        values = {a.name: self._kept(a.name) for a in self._arguments()}
        if not isinstance(values.get("bias", True), bool):  # the argument says whether there is one
            values["bias"] = values["bias"] is not None
        return {a.name: values[a.name] for a in self._arguments() if values[a.name] != a.default}

    def _kept(self, argument: str) -> Any:
        """The value of a constructor argument, which a layer keeps under the argument's own name."""
        if not hasattr(self, argument):
            problem = f"does not keep its argument {argument!r}"
            raise ConfigError(self.label, problem, f"set self.{argument} = {argument} in __init__")
        return getattr(self, argument)

    @classmethod
    @cache
    def _arguments(cls) -> list[inspect.Parameter]:
        return [a for a in inspect.signature(cls).parameters.values() if a.kind != a.VAR_POSITIONAL]

    @property
    def label(self) -> str:
        """How messages call this layer."""
        kind = type(self).__name__
        return f"layer {self.name!r} ({kind})" if self.name else kind

    def expect(self, fits: bool, expected: str, shape: Shape, fix: str = "") -> None:
        """Raise the ShapeError of this layer unless ``fits``."""
        if not fits:
            raise ShapeError(self.label, f"expected {expected}, got {text(shape) or 'a single number'}", fix)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.config().items())})"


class _Elementwise(Layer):
    """A layer whose output has its only input's shape; each output depends on one input unless told otherwise."""

    def output_shape(self, *shapes: Shape) -> Shape:
        """The input's shape."""
        (shape,) = shapes
        return shape

    def input_terms(self, saved: Any, upstream: Array, which: int = 0, cells: Cells = None) -> Terms:
        """dx = dy · derivative: one term a cell. The derivative is what comes back for an upstream gradient of 1."""
        (derivative,), _ = self.backward(saved, np.ones_like(upstream), (True,))
        assert derivative is not None
        here = chosen_cells(upstream.shape, cells, self.label)
        named = {"dy": (upstream, here), "derivative": (derivative, here)}
        return Terms("dx", upstream.shape, here, factors(named))
