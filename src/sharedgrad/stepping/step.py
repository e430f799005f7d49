"""``compile_step``: forward, loss, backward and update in one call, with the bits of the loop."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from sharedgrad import kernels
from sharedgrad.errors import ConfigError, kind
from sharedgrad.graph import Node
from sharedgrad.layers.context import Context
from sharedgrad.losses import MSE, BinaryCrossEntropy, CrossEntropy, Loss, measured
from sharedgrad.network import Network
from sharedgrad.optimizers import Optimizer
from sharedgrad.parameter import Array, positive

if TYPE_CHECKING:
    from sharedgrad.stepping.passes import Passes, Store
    from sharedgrad.stepping.update import Update
    from sharedgrad.tape import Structure

Inputs = ArrayLike | Mapping[str, ArrayLike]

_COUNT, _SUM = 1, 2  # of a loss's settings: what it divides by, and where the sum of the losses is; first is smoothing
_NO_LOSS = 0.0, 1.0, 0.0
_KEPT = 4  # passes that a step keeps, one for each number of samples and the like
_LOSSES = (MSE, CrossEntropy, BinaryCrossEntropy)


def compile_step(
    network: Network,
    loss: Loss,
    optimizer: Optimizer,
    *,
    max_norm: float | None = None,
    training: bool = True,
    finite_only: bool = False,
) -> CompiledStep:
    """A training step in one call: ``value = step(x, target)``.

    It does what these lines do, with the same bits, and faster where batches are small::

        y, tape = network.forward(x)
        value, upstream = loss(y, target)
        gradients = tape.backward(upstream)
        optimizer.step(gradients)                  # of gradients.clipped(max_norm), if it is given

    Set ``optimizer.lr`` between steps as in the loop; parameters that the optimizer does not hold stay as they are.
    Compiled are networks whose layers all are, the losses and optimizers of this package; everything else goes the way
    of the lines above (``step.way`` says which, and why). Values of parameters are written over in place where nobody
    else holds the array; an array that was handed out stays what it was.

    Args:
        network: With one output.
        loss: ``loss(y, target) -> (value, upstream)``.
        optimizer: Made with the network's parameters, or some of them.
        max_norm: Gradients of a larger norm are scaled down to it.
        training: The mode of dropout and batch normalization, as for ``network.forward``.
        finite_only: Make no update where the loss is NaN or infinite; the value is returned all the same.

    Raises:
        ConfigError: An argument is something else.
    """
    return CompiledStep(network, loss, optimizer, max_norm, training, finite_only)


class CompiledStep:
    """What ``compile_step`` makes; arguments as there.

    Attributes:
        output: The network's output in the last step; None before the first.
        way: In words, which way the last step went.
    """

    def __init__(
        self,
        network: Network,
        loss: Loss,
        optimizer: Optimizer,
        max_norm: float | None = None,
        training: bool = True,
        finite_only: bool = False,
    ) -> None:
        _expect("network", network, Network, "make one with Network(layers)")
        _expect("optimizer", optimizer, Optimizer, "make one with network.parameters()")
        if isinstance(loss, type) or not callable(loss):
            raise ConfigError("compile_step: loss", f"expected loss(y, target), got {loss!r}", "pass CrossEntropy()")
        self.network, self.loss, self.optimizer = network, loss, optimizer
        self.max_norm = None if max_norm is None else positive(max_norm, "compile_step: max_norm")
        self.training, self.finite_only = training, finite_only
        self.output: Any = None
        self.way = "no step has been made"
        self._passes: dict[Any, Passes | str] = {}
        self._structure: Structure | None = None
        self._update: Update | None = None
        self._store: Store = {}
        self._settings: list[float] = []
        self._busy = Lock()

    def __call__(self, x: Inputs, target: Any) -> float:
        """One step.

        Args:
            x: The input (N, *sample shape); name -> array for several inputs.
            target: As the loss takes it.

        Returns:
            The loss before the update.

        Raises:
            ShapeError, DataError, ConfigError: As in the lines that it stands for.
        """
        if not self._busy.acquire(blocking=False):
            return self._as_written(x, target)  # another thread is in the memory of the passes
        try:
            return self._step(x, target)
        finally:
            self._busy.release()

    def _step(self, x: Inputs, target: Any) -> float:
        why = self._not_compiled()
        if why:
            return self._as_written(x, target, why)
        arrays = self._arrays(x)
        if arrays is None:
            return self._as_written(x, target, "one sample without an axis for samples")
        labels, loss = self._labels(target, len(next(iter(arrays.values()))))
        assert self._update is not None
        passes = self._passes_for(arrays, labels is not None)
        if isinstance(passes, str):
            return self._as_written(x, target, passes)
        self.way = "compiled"
        context = Context(self.training, self.network.seed, self.network.step)
        numbers, own = self._numbers(self._update.settings(loss))
        if labels is not None and passes.with_loss:
            try:
                self._passed(passes.whole(arrays, labels, own, context), context)
            except (IndexError, FloatingPointError):
                return self._as_written(x, target, "a label is no class, or the loss is not finite")
            value = numbers.item(_SUM) / numbers.item(_COUNT)
        else:
            self._passed(passes.forward(arrays, context), context)
            value, upstream = measured(self.loss, self.output, target)
            if self.finite_only and not isfinite(value):
                return value
            passes.backward(np.ascontiguousarray(upstream), own)
        passes.update(own, self.max_norm)
        return value

    def _numbers(self, settings: list[float]) -> tuple[Array, Array]:
        """In float64, and the same in memory of the network's type."""
        if settings != self._settings:
            numbers = np.array(settings)
            self._settings, self._written = settings, (numbers, numbers.view(self.network.dtype))
        return self._written

    def _passed(self, output: Array, context: Context) -> None:
        """A pass forward has succeeded."""
        if self.training:
            context.commit()
            self.network.step += 1
        self.output = output

    def _labels(self, target: Any, samples: int) -> tuple[Array | None, tuple[float, float, float]]:
        """Classes (N,) for a loss that is compiled, and its settings; None where it is another loss, or has another
        target."""
        loss = self.loss
        if type(loss) is not CrossEntropy or loss.weight is not None or type(target) is not np.ndarray:
            return None, _NO_LOSS
        if target.dtype.kind not in "iu" or target.shape != (samples,):
            return None, _NO_LOSS
        count = samples if loss.reduction == "mean" else 1
        return target, (loss.label_smoothing, count, 0.0)

    def _not_compiled(self) -> str:
        """Why no step of this kind is compiled; empty where it is."""
        if not kernels.programs():
            return "no kernels were compiled, or others were chosen"
        if type(self.loss) not in _LOSSES:
            return f"the loss {_name(self.loss)} is not sharedgrad's"
        if self._update is None:
            from sharedgrad.stepping.update import Update, compiled

            if not compiled(self.optimizer):
                return f"no update is compiled for the optimizer {type(self.optimizer).__name__}"
            self._update = Update(self.optimizer)
        return ""

    def _arrays(self, x: Inputs) -> dict[str, Array] | None:
        """The inputs; None for one sample without a sample axis. Nothing keeps them, so they are not copied."""
        inputs, named = ([], x) if type(x) is not np.ndarray and isinstance(x, Mapping) else ([x], {})
        arrays, batched = self.network.incoming(inputs, named, kept=False)
        return arrays if batched else None

    def _passes_for(self, arrays: dict[str, Array], loss: bool) -> Passes | str:
        """The compiled way for arrays of these shapes, worked out when it is first needed; or why there is none."""
        structure = self.network.structure()
        assert self._update is not None
        changed = self._update.changed()  # an attribute of the optimizer has been set
        if changed or structure is not self._structure:  # or of a layer
            self._structure, self._passes = structure, {}
        clipped = self.max_norm is not None
        key = (loss, self.finite_only, clipped, *[a.shape for a in arrays.values()])
        if key not in self._passes:
            from sharedgrad.stepping.passes import Kind, Passes

            route = self.network.route(structure, arrays, self.training, record=True)
            found: Passes | str
            if len(structure.outputs) != 1:
                found = "the network has several outputs"
            elif route.whole is None:
                own = [piece.name for piece in route.pieces if isinstance(piece, Node)]
                found = f"in Python: {', '.join(own)}"
            else:
                kind = Kind(loss, self.finite_only, clipped)
                found = Passes(route.whole, structure.wanted(False), self._update, kind, self._store)
                if not found.parameters:
                    found = "no parameter of the optimizer has a gradient"
            self._passes = dict([*list(self._passes.items())[1 - _KEPT :], (key, found)])
        return self._passes[key]

    def _as_written(self, x: Inputs, target: Any, why: str = "another thread is making a step") -> float:
        self.way = f"as the loop: {why}"
        network = self.network
        given = (
            [x[name] for name in network.inputs]
            if isinstance(x, Mapping) and x.keys() == network.inputs.keys()
            else [x]
        )
        self.output, tape = network.forward(*given, training=self.training)
        value, upstream = measured(self.loss, self.output, target)
        if self.finite_only and not isfinite(value):
            return value
        gradients = tape.backward(upstream)
        self.optimizer.step(gradients if self.max_norm is None else gradients.clipped(self.max_norm))
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickling and copying: compiled ways are worked out again."""
        given = self.network, self.loss, self.optimizer, self.max_norm, self.training, self.finite_only
        return CompiledStep, given

    def __repr__(self) -> str:
        return f"CompiledStep({_name(self.loss)}, {type(self.optimizer).__name__}; {self.way})"


def _name(loss: Loss) -> str:
    return getattr(loss, "__name__", type(loss).__name__)


def _expect(what: str, given: Any, expected: type, fix: str) -> None:
    if not isinstance(given, expected):
        raise ConfigError(f"compile_step: {what}", f"expected {expected.__name__}, got {kind(given)}", fix)
