"""What a step does for inputs of one shape: as few programs as there can be, and memory for them.

Forward, loss, backward and update are written one after the other into one program. It ends where something comes
between that is not compiled, a loss in Python or a limit on the gradients' norm; another program goes on behind that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np

from sharedgrad.gradients import Gradients
from sharedgrad.kernels.native.losses import emit_cross_entropy
from sharedgrad.kernels.native.maps import Map
from sharedgrad.kernels.native.program import Builder, doubles
from sharedgrad.kernels.native.recycled import empty
from sharedgrad.kernels.native.single import contiguous
from sharedgrad.layers.context import Context
from sharedgrad.parameter import Array, Parameter, Weight
from sharedgrad.plan import Plan
from sharedgrad.plan.forward import Forward
from sharedgrad.plan.lowering import Gradient, Labels, Lowering, number_of
from sharedgrad.stepping.descent import Descent
from sharedgrad.stepping.update import Update, Written, place_of_settings

Store = dict[tuple[str, tuple[int, ...]], Array]


class Kind(NamedTuple):
    """What of a step is compiled, and how.

    Attributes:
        loss: Whether the loss is.
        finite: Whether nothing is to happen where it is not finite.
        clipped: Whether Python limits the gradients' norm.
    """

    loss: bool
    finite: bool
    clipped: bool


class Passes:
    """A step's programs.

    Args:
        plan: Of a whole network with one output.
        wanted: Names whose gradient leads to a parameter.
        update: What becomes of the gradients.
        kind: As above.
        store: Arrays for gradients that Python sees, which passes over other numbers of samples use as well.

    Attributes:
        with_loss: Whether the first program has the loss in it.
        parameters: Those that change.
        at_once: Weights whose gradients are never written.
    """

    def __init__(self, plan: Plan, wanted: frozenset[str], update: Update, kind: Kind, store: Store) -> None:
        f = plan.lowered
        (self._output,), self._dtype = f.outputs, f.builder.dtype
        given = f.nodes, f.shapes, f.inputs, f.outputs, f.builder.samples, self._dtype, f.training
        self._forward = forward = Forward(*given, record=True)
        refused = any(s.values < 2 for s in forward.statistics.values())  # which would be found out behind the update
        self.with_loss = kind.loss and len(f.shapes[self._output]) == 1 and not refused
        loss = self._write_loss(update, kind.finite) if self.with_loss else None
        if loss is None:
            forward.build()
        joined = not kind.clipped and _used_once(forward)
        self._way = way = Descent(forward, wanted, loss, update if joined else None)
        self._memory, self.at_once = (way if self.with_loss else forward).memory(), way.at_once
        self._gradients: list[tuple[Weight, Array]] = []
        for number, (weight, _) in way.gradients:  # in the order in which a tape adds them
            key = f"{weight.base.name} {len(self._gradients)}", weight.shape
            way.fixed[number] = store.setdefault(key, empty(weight.shape, self._dtype))
            self._gradients.append((weight, way.fixed[number]))
        self._alone = None if joined else _Alone(dict.fromkeys(w.base for w, _ in self._gradients), update, self._dtype)
        written = way.written if self._alone is None else self._alone.written
        self.parameters = written.parameters if written is not None else []

    def _write_loss(self, update: Update, finite: bool) -> tuple[Map, Map]:
        """Behind the forward pass; where the gradient at the output is, and the settings."""
        way, samples = self._forward, self._forward.builder.samples
        self._labels = way.array(Labels(), (doubles(samples, self._dtype.itemsize),), 1)
        self._settings = place_of_settings(way, update)
        upstream, scores = way.place(way.shapes[self._output]), way.values[self._output]
        emit_cross_entropy(way.builder, upstream, scores, self._labels, self._settings, 0, finite)
        return upstream, self._settings

    def whole(self, inputs: Mapping[str, Array], labels: Array, settings: Array, context: Context) -> Array:
        """Forward, loss and backward, and the update if nothing comes between; gives the output (N, C).

        Args:
            inputs: By name.
            labels: Classes (N,).
            settings: Of the loss, with a place for its sum, and of the update.
            context: Of the pass.

        Raises:
            IndexError: A label is no class; nothing has changed then.
            FloatingPointError: The loss is not finite, likewise.
        """
        arrays = self._way.arrays(self._forward.read(context))
        outputs = self._forward.connect(arrays, inputs, context)
        labels = contiguous(labels if labels.dtype == np.int64 else labels.astype(np.int64))
        arrays[number_of(self._labels)] = labels.view(self._dtype)
        arrays[number_of(self._settings)] = settings
        self._run(arrays, settings)
        self._forward.track(self._memory, context)
        return outputs[self._output]

    def forward(self, inputs: Mapping[str, Array], context: Context) -> Array:
        """The output, where the loss is not in the program."""
        forward = self._forward
        self._buffers = forward.read(context)
        arrays = forward.arrays(self._buffers)
        outputs = forward.connect(arrays, inputs, context)
        forward.program.run(self._memory, arrays)
        forward.track(self._memory, context)
        return outputs[self._output]

    def backward(self, upstream: Array, settings: Array) -> None:
        """The way back of the last pass forward, and the update if nothing comes between."""
        arrays = self._way.arrays(self._buffers)
        for i, _ in self._way.upstreams:
            arrays[i] = upstream
        self._run(arrays, settings)

    def update(self, settings: Array, max_norm: float | None) -> None:
        """The update, where gradients have come out: of several uses, of views, or to be clipped."""
        if self._alone is None:
            return
        gradients = dict[Parameter, Array]()
        for weight, own in self._gradients:
            parameter = weight.base
            if not weight.view.identity:
                own = np.ascontiguousarray(weight.view.back(own, 0, parameter.shape))
            gradients[parameter] = gradients[parameter] + own if parameter in gradients else own
        if max_norm is not None:
            gradients = dict(Gradients(gradients).clipped(max_norm).items())
        self._alone.run(gradients, settings)

    def _run(self, arrays: list[Any], settings: Array) -> None:
        way = self._way
        if way.written is None:
            way.program.run(self._memory, arrays)
        else:
            way.written.run(way.program, self._memory, arrays, settings)


class _Alone(Lowering):
    """An update as a program of its own, of gradients from outside."""

    def __init__(self, parameters: Iterable[Parameter], update: Update, dtype: np.dtype[Any]) -> None:
        super().__init__({}, Builder(1, dtype))
        self._maps = {p: self.array(Gradient(p, False), (prod(p.shape),), 1) for p in parameters}
        self.written = Written(update, self, self._maps, place_of_settings(self, update))
        self.build()

    def run(self, gradients: Mapping[Parameter, Array], settings: Array) -> None:
        """Carry it out."""
        arrays = self.arrays({})
        for p, m in self._maps.items():
            arrays[number_of(m)] = gradients[p]
        self.written.run(self.program, None, arrays, settings)


def _used_once(forward: Forward) -> bool:
    """Whether every parameter has one use, which sees it as it is."""
    held = [weight for node in forward.nodes for weight in node.layer.parameters().values()]
    return len({weight.base for weight in held}) == len(held) and all(weight.view.identity for weight in held)
