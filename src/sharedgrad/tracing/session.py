"""A traced block: it watches the model, and holds each backward pass taken apart."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import torch

from sharedgrad.errors import ConfigError, UncertifiedError
from sharedgrad.network import Network
from sharedgrad.tracing import samples
from sharedgrad.tracing.answers import KeptWeight, Other, TracedWeight
from sharedgrad.tracing.joint import Joint
from sharedgrad.tracing.passes import Pass, told
from sharedgrad.tracing.recorder import Recorder
from sharedgrad.tracing.settings import Settings
from sharedgrad.tracing.site import Use
from sharedgrad.tracing.table import table
from sharedgrad.tracing.total import Total
from sharedgrad.tracing.weights import TensorWeight


class ModelTrace:
    """What ``sg.trace`` gives: a context manager, and afterwards the passes of its block.

    Args:
        model: A ``torch.nn.Module``.
        params: Names of the parameters to look at; None: all that are trained.
        settings: What else was asked for.

    Attributes:
        passes: Each recorded backward pass: name -> its uses, certified.
        releasing: Whether the backward pass that is going on is the last one through its graph.
    """

    def __init__(self, model: Any, params: Iterable[str] | None, settings: Settings) -> None:
        if not isinstance(model, torch.nn.Module):
            fix = "a network of sharedgrad's own has tape.trace" if isinstance(model, Network) else ""
            raise ConfigError("trace", f"expected a torch.nn.Module, got {type(model).__name__}", fix)
        self._model, self._settings = model, settings
        self._names = {name: p for name, p in model.named_parameters(remove_duplicate=False)}
        chosen = _chosen(self._names, params)
        self._weights = {name: TensorWeight(name, p) for name, p in chosen.items()}
        self.passes: list[Pass] = []
        self._current: Pass | None = None
        self._mixing: dict[str, None] = {}
        self._steps = 0
        self.releasing = False
        self._entered = False
        self._recorder: Recorder | None = None  # within the block
        self._opened = ExitStack()

    # ---- the block

    def __enter__(self) -> Self:
        if self._entered:
            raise ConfigError("trace", "this trace has been entered before", "make a new one with sg.trace(model)")
        self._entered = True
        looked_at = {id(w.tensor): w for w in self._weights.values()}
        others = {id(p) for p in self._names.values()} - looked_at.keys()
        self._recorder = Recorder(looked_at, others, self)
        with ExitStack() as opened:
            opened.callback(self._recorder.close)
            for weight in self._weights.values():
                opened.callback(_watched(weight, self._deposited))
            hook = self._model.register_forward_pre_hook(self._called, with_kwargs=True)
            opened.callback(hook.remove)
            _run_uncompiled(self._model, opened)
            opened.enter_context(self._recorder)
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, trace)
        self._recorder = None  # it holds this trace: the two would wait for Python's collector of cycles

    def _called(self, model: Any, args: Any, kwargs: Any) -> None:
        if self._recorder is not None and self.recording:
            self._recorder.inputs((args, kwargs), self._settings.batch_axis)

    @property
    def recording(self) -> bool:
        """Whether this step is one of those to look at."""
        return self._steps % self._settings.every == 0

    def backward(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """A backward pass of the caller's own; with ``strict`` an uncertified parameter raises when it is over."""
        if not self.recording:
            self._steps += 1
            return func(*args, **kwargs)
        self._current = current = Pass(len(self.passes), self._settings, tuple(self._mixing))
        self.releasing = not _retained(func, args, kwargs)
        try:
            result = func(*args, **kwargs)
        finally:
            self._current = None
        assert self._recorder is not None
        self._recorder.prune()
        current.gather()
        current.finished(_roots(args, kwargs), self._weights)
        self.passes.append(current)
        self._steps += 1
        if self.releasing:
            self._mixing.clear()
        if self._settings.strict:
            _refuse(current)
        return result

    def arrived(self, number: int, operation: str, use: Use, delta: torch.Tensor) -> None:
        """A gradient has arrived at the output of a call."""
        if self._current is not None:
            self._current.arrived(number, operation, use, delta)

    def gathered(self, number: int, joint: Joint, outputs: int, output: int, delta: torch.Tensor) -> None:
        """A gradient has arrived at one of several outputs of a call."""
        if self._current is not None:
            self._current.gathered(number, joint, outputs, output, delta)

    def passed(self, operation: str, weight: TensorWeight) -> None:
        """A gradient has passed through an operation that the trace has no rule for."""
        if self._current is not None:
            self._current.passed(operation, weight.name)

    def mixed(self, operation: str) -> None:
        """Samples depend on one another from here on."""
        self._mixing[operation] = None

    def _deposited(self, weight: TensorWeight, gradient: torch.Tensor) -> None:
        if self._current is not None:
            self._current.deposited(weight, gradient)

    # ---- afterwards

    def __getitem__(self, name: str) -> TracedWeight | KeptWeight:
        """All uses of one parameter, given by any of its names; the block must have had one backward pass.

        Raises:
            KeyError: There is no such parameter, or it was given no gradient.
            ConfigError: There was not exactly one pass, or no use of the parameter was seen.
        """
        (only,) = self._only()
        weight: TracedWeight | KeptWeight = told(only.weight(self.first_name(name)))
        return weight

    def first_name(self, name: str) -> str:
        """The name that a parameter is listed by, from any of its names.

        Raises:
            KeyError: There is no such parameter in this trace.
        """
        if not isinstance(name, str):
            raise KeyError(f"expected the name of a parameter, got something of type {type(name).__name__}")
        tensor = self._names.get(name)
        found = next((w.name for w in self._weights.values() if w.tensor is tensor), None)
        if tensor is None or found is None:
            raise KeyError(f"no parameter {name} in this trace; there are {', '.join(self._weights)}")
        return found

    def _only(self) -> list[Pass]:
        if len(self.passes) != 1:
            problem = f"expected one recorded backward pass in the block, there were {len(self.passes)}"
            raise ConfigError("trace", problem, "use t.passes[i] or t.total" if self.passes else "call backward in it")
        return self.passes

    @property
    def total(self) -> Total:
        """All passes of the block together: name -> the uses in all of them."""
        return Total(self)

    @property
    def other(self) -> dict[str, Other]:
        """Name -> the part of a gradient that no use explains, and the operations that it comes from.

        Regularizers, reparametrized weights, and operations that the trace has no rule for or cannot see; of the one
        pass of the block.
        """
        (only,) = self._only()
        return only.other

    def table(self) -> str:
        """A row for each parameter: uses, certified, coherence, cancellation, top sample and position."""
        (only,) = self._only()
        return table(only)

    def per_sample(self, loss_reduction: str = "mean", mixing: str = "refuse") -> dict[str, torch.Tensor]:
        """The gradient of every sample's own loss: name -> (N, *shape).

        Args:
            loss_reduction: How the loss was reduced over the samples, "mean" or "sum": a mean carries its 1/N inside
                every contribution, which is taken out.
            mixing: "allow" gives the contributions of each sample also where samples depend on one another.

        Raises:
            ConfigError: Samples depend on one another, samples cannot be told apart, or an argument makes no sense.
        """
        (only,) = self._only()
        return samples.per_sample(only, loss_reduction, mixing)

    def set_grad_sample(self, loss_reduction: str = "mean", mixing: str = "refuse") -> None:
        """Set ``p.grad_sample`` (N, *shape) of every parameter to :meth:`per_sample`, where Opacus's optimizers look.

        Args:
            loss_reduction: As for :meth:`per_sample`.
            mixing: As for :meth:`per_sample`.

        Raises:
            ConfigError: As :meth:`per_sample`; then none is set.
        """
        for name, apart in self.per_sample(loss_reduction, mixing).items():
            self._weights[name].tensor.grad_sample = apart  # type: ignore[attr-defined]

    def noise_scale(self) -> float:
        """The gradient noise scale tr(Σ) / ‖G‖² over samples (McCandlish et al. 2018, arXiv:1812.06162).

        Raises:
            ConfigError: As :meth:`per_sample`, or there are fewer than two samples.
        """
        (only,) = self._only()
        return samples.noise_scale(only)


def _chosen(names: dict[str, Any], params: Any) -> dict[str, Any]:
    """First name -> the parameters to look at."""
    if params is not None:
        wanted = [params] if isinstance(params, str) or not isinstance(params, Iterable) else list(params)
        for name in wanted:
            if not isinstance(name, str):
                problem = f"expected names of parameters, got something of type {type(name).__name__}"
                raise ConfigError("trace: params", problem, "give names as in model.named_parameters()")
            if name not in names or not names[name].requires_grad:
                problem = "is not trained" if name in names else "is no parameter of the model"
                trained = ", ".join(n for n, p in names.items() if p.requires_grad)
                raise ConfigError("trace: params", f"{name} {problem}", f"choose from {trained}")
        tensors = {id(names[name]) for name in wanted}
    else:
        tensors = {id(p) for p in names.values() if p.requires_grad}
    first: dict[int, str] = {}
    for name, p in names.items():
        if id(p) in tensors:
            first.setdefault(id(p), name)
    return {name: names[name] for name in first.values()}


def _watched(weight: TensorWeight, tell: Callable[[TensorWeight, torch.Tensor], None]) -> Callable[[], None]:
    """Hear of a parameter's gradient before the caller's own hooks do; gives what takes the hook away again."""
    tensor: Any = weight.tensor
    had = tensor._backward_hooks is not None
    handle = tensor.register_hook(lambda gradient: tell(weight, gradient))
    hooks = tensor._backward_hooks
    own = hooks.pop(handle.id)
    others = dict(hooks)
    hooks.clear()  # autograd calls them in the order in which they were put in
    hooks.update({handle.id: own, **others})

    def remove() -> None:
        handle.remove()
        if not had and not tensor._backward_hooks:
            tensor._backward_hooks = None

    return remove


def _run_uncompiled(model: Any, opened: ExitStack) -> None:
    """Compiled models run as they were written: compiled code shows no calls."""
    if "torch._dynamo" not in sys.modules:
        return
    opened.enter_context(torch.compiler.set_stance("force_eager"))
    if any(type(module).__name__ == "OptimizedModule" for module in model.modules()):
        warnings.warn("sg.trace: the compiled model runs uncompiled in this block", UserWarning, stacklevel=4)


def _retained(func: Callable[..., Any], args: Any, kwargs: Any) -> bool:
    """Whether the caller goes through the same graph again."""
    given = inspect.signature(func).bind(*args, **kwargs).arguments
    retained = given.get("retain_graph")
    return bool(given.get("create_graph")) if retained is None else bool(retained)


def _roots(args: Any, kwargs: Any) -> list[torch.Tensor]:
    first = args[0] if args else kwargs.get("tensors", kwargs.get("outputs", ()))
    return [t for t in (first if isinstance(first, list | tuple) else [first]) if isinstance(t, torch.Tensor)]


def _refuse(current: Pass) -> None:
    other = current.other
    if other:
        parts = [f"{name} (through {', '.join(o.operations)}; unexplained {o.norm:.2g})" for name, o in other.items()]
        raise UncertifiedError("trace", f"uses do not add up to the gradient of {'; '.join(parts)}", "see t.other")
