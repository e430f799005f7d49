"""Watching a model's forward pass: which calls use a parameter, and which gradient arrives at each call's output.

Every call of a PyTorch function passes through the mode. Those that take a parameter, or a view of one, get a hook on
the node that autograd makes for their output; the hook owns what was recorded, so it lives no longer than the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from typing import Any, Protocol

import torch
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from sharedgrad.errors import SharedgradError
from sharedgrad.tracing import attention, recurrent
from sharedgrad.tracing.joint import Joint
from sharedgrad.tracing.lineage import mixes, samples_place
from sharedgrad.tracing.meetings import MAKERS, Meeting
from sharedgrad.tracing.operations import JOINT, OPERATIONS
from sharedgrad.tracing.place import Packed, Place
from sharedgrad.tracing.site import Site, UnseenError, Use
from sharedgrad.tracing.views import views
from sharedgrad.tracing.weights import Seen, TensorWeight
from sharedgrad.uses import View

BACKWARD = (torch.Tensor.backward, torch.autograd.backward, torch.autograd.grad)
QUESTIONS = {
    "size",
    "dim",
    "shape",
    "dtype",
    "device",
    "requires_grad",
    "grad_fn",
    "is_leaf",
    "ndim",
    "numel",
    "__len__",
}
QUESTIONS |= {"is_floating_point", "is_contiguous", "stride", "data_ptr", "is_complex", "_version", "grad", "layout"}
QUESTIONS |= {"register_hook", "is_sparse", "is_cuda", "item", "tolist", "numpy", "__repr__", "__format__", "is_nested"}


class Listener(Protocol):
    """Who is told what happens."""

    @property
    def recording(self) -> bool:
        """Whether this step is looked at."""

    @property
    def releasing(self) -> bool:
        """Whether the graph of the backward pass that is going on is not kept for another one."""

    def arrived(self, number: int, operation: str, use: Use, delta: torch.Tensor) -> None:
        """A gradient has arrived at the output of a call that uses a parameter."""

    def gathered(self, number: int, joint: Joint, outputs: int, output: int, delta: torch.Tensor) -> None:
        """A gradient has arrived at one of several outputs of a call."""

    def passed(self, operation: str, weight: TensorWeight) -> None:
        """A gradient has passed through an operation that takes a parameter in a way that is not known."""

    def mixed(self, operation: str) -> None:
        """The forward pass has made samples depend on one another."""

    def backward(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Carry out a backward pass."""


class Recorder(TorchFunctionMode):
    """Watches all calls while it is active.

    Args:
        weights: The parameters to look at, by the id of their tensor.
        others: Ids of the model's other parameters.
        listener: Who is told.
    """

    def __init__(self, weights: dict[int, TensorWeight], others: set[int], listener: Listener) -> None:
        super().__init__()
        self._weights, self._others, self._listener = weights, others, listener
        self._views: Any = WeakTensorKeyDictionary()  # tensors that show a parameter -> Seen
        self._computed: Any = WeakTensorKeyDictionary()  # tensors computed from parameters alone
        self._places: Any = (
            WeakTensorKeyDictionary()
        )  # tensors that come from the model's inputs -> where samples stand
        self._meetings: Any = WeakTensorKeyDictionary()  # tensors made of a parameter alone -> Meeting
        self._numbers = count()
        self._handles: list[Any] = []

    def inputs(self, values: Any, axis: int | None) -> None:
        """The model is called with these: tensors, also in lists and dictionaries; they begin the lineage."""
        tensors = [t for t in _tensors(values) if id(t) not in self._weights]
        rows = {id(p.data): p for p in _packed(values)}
        parts = {id(t) for p in rows.values() for t in p if t is not None}
        fitting = [t for t in tensors if axis is not None and t.ndim > axis and id(t) not in parts]
        for tensor in (t for t in tensors if t not in self._places):
            self._places[tensor] = None
            if id(tensor) in rows and axis is not None:
                order = rows[id(tensor)].sorted_indices
                self._places[tensor] = Packed(() if order is None else tuple(order.tolist()))
            elif any(t is tensor for t in fitting) and axis is not None:
                same = tensor.shape[axis] == fitting[0].shape[axis]
                self._places[tensor] = Place(axis) if same else None

    def prune(self) -> None:
        """Forget the hooks of graphs that are gone."""
        self._handles = [handle for handle in self._handles if handle.hooks_dict_ref() is not None]

    def close(self) -> None:
        """Take all hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One call of a PyTorch function."""
        kwargs = kwargs or {}
        if func in BACKWARD:
            return self._listener.backward(func, args, kwargs)
        name = func.__name__
        if name in ("__get__", "__set__"):
            name = func.__self__.__name__ if name == "__get__" else "set"
        if name in QUESTIONS or not self._listener.recording:
            return func(*args, **kwargs)
        if func in attention.COMPOSITE:
            with self:  # its own code, with the calls in it seen one by one
                return attention.COMPOSITE[func](*args, **kwargs)
        random = recurrent.random_state(name, args)
        out = func(*args, **kwargs)
        self._note(name, func, args, kwargs, out, random)
        return out

    # ---- what a tensor is

    def _seen(self, tensor: Any) -> Seen | None:
        """How a tensor shows a parameter that is looked at."""
        weight = self._weights.get(id(tensor))
        if weight is not None:
            return Seen(weight, View())
        return self._views.get(tensor) if isinstance(tensor, torch.Tensor) else None

    def _made_of_weights(self, tensor: torch.Tensor) -> bool:
        return self._seen(tensor) is not None or id(tensor) in self._others or tensor in self._computed

    def _known(self, tensor: Any) -> bool:
        return isinstance(tensor, torch.Tensor) and tensor in self._places

    def _place(self, tensor: Any) -> Place | Packed | None:
        return self._places.get(tensor) if isinstance(tensor, torch.Tensor) else None

    # ---- what a call does

    def _note(self, name: str, func: Any, args: Any, kwargs: Any, out: Any, random: torch.Tensor | None) -> None:
        tensors = list(_tensors((args, kwargs)))
        results = list(_tensors(out))
        weights = [t for t in tensors if self._seen(t) is not None]
        if self._meetings:
            self._meet(name, args, kwargs, tensors, results)
        if any(self._known(t) for t in tensors):
            self._follow(name, func, args, kwargs, tensors, results)
        elif tensors and all(self._made_of_weights(t) for t in tensors) and not weights:
            for result in results:
                self._computed[result] = True
        if not weights or not any(t.requires_grad for t in results):
            return
        seen = self._seen(args[0]) if args and len(weights) == 1 and weights[0] is args[0] else None
        if seen is not None:
            shown = views(name, func, seen.shape, args[0].dtype, args, kwargs, out)
            for tensor, view in shown:
                self._views[tensor] = Seen(seen.weight, seen.view.then(view))
            if shown:
                return
        meeting = Meeting()
        if name in MAKERS and not any(self._known(t) for t in tensors):
            self._meetings[results[0]] = meeting
        site = Site(name, args, kwargs, results, self._seen, self._place, self._known, random, meeting)
        self._use(site, weights, tensors)

    def _follow(self, name: str, func: Any, args: Any, kwargs: Any, tensors: Any, results: Any) -> None:
        """The results come from the model's inputs; which axis still tells the samples apart?"""
        tagged = [(t, self._places.get(t)) for t in tensors if self._known(t)]
        for number, result in enumerate(results):
            self._places[result] = samples_place(name, func, args, kwargs, tagged, result, number)
        reason = mixes(name, args, kwargs, tagged, results)
        if reason:
            self._listener.mixed(reason)

    def _meet(self, name: str, args: Any, kwargs: Any, tensors: Any, results: Any) -> None:
        """A tensor made of a parameter alone is given to an operation, perhaps with what comes from the inputs."""
        for tensor in tensors:
            meeting = self._meetings.get(tensor)
            if meeting is None or not results or any(result is tensor for result in results):
                continue
            others = [(t, self._places.get(t)) for t in tensors if self._known(t)]
            use = meeting.used(name, args, kwargs, tensor, others, results[0])
            if use is not None:
                arrival = self._arrival(next(self._numbers), name, use, results[0])
                self._hook(results[0], any(t is results[0] for t in tensors), arrival)

    def _use(self, site: Site, weights: Any, tensors: Any) -> None:
        """A call takes parameters: its uses, if it is known; else it is noted by name."""
        number, name, results = next(self._numbers), site.name, site.outs
        uses: list[Use] | Joint | None = None
        try:
            uses = _explained(site)
        except UnseenError as reason:
            name = f"{name} ({reason})"
        except (SharedgradError, TypeError, AttributeError, ValueError):  # a form that the rule does not know
            pass
        known = [use.seen.weight for use in (uses.uses if isinstance(uses, Joint) else uses or ())]
        if isinstance(uses, Joint):
            for output in range(len(results)):
                self._hook(results[output], False, self._gathering(number, uses, results, output))
        for use in uses if isinstance(uses, list) else ():
            arrival = self._arrival(number, name, use, results[0])
            self._hook(results[0], any(t is results[0] for t in tensors), arrival)
        left = {id(seen.weight): seen.weight for seen in map(self._seen, weights) if seen is not None}
        for weight in known:
            left.pop(id(weight), None)
        for weight in left.values():
            for node in {t.grad_fn for t in results if t.grad_fn is not None}:
                self._on(node, partial(self._passed, name, weight))
        if not known and not any(self._known(t) for t in tensors):
            for result in results:
                self._computed[result] = True

    def _passed(self, name: str, weight: TensorWeight, _: Any) -> None:
        self._listener.passed(name, weight)

    def _arrival(self, number: int, name: str, use: Use, out: torch.Tensor) -> Callable[[Any], None]:
        shape, place, held = out.shape, out.output_nr, [use]

        def arrive(deltas: Any, place: int = place) -> None:
            if held and deltas[place] is not None and held[0].valid():
                self._listener.arrived(number, name, held[0], deltas[place].detach().reshape(shape))
            if self._listener.releasing:
                held.clear()  # as autograd lets go of what it has saved

        return arrive

    def _gathering(
        self, number: int, joint: Joint, results: Sequence[torch.Tensor], output: int
    ) -> Callable[..., None]:
        shape, place, count, held = results[output].shape, results[output].output_nr, len(results), [joint]

        def arrive(deltas: Any, place: int = place) -> None:
            if held and deltas[place] is not None:
                self._listener.gathered(number, held[0], count, output, deltas[place].detach().reshape(shape))
            if self._listener.releasing:
                held.clear()

        return arrive

    def _hook(self, out: torch.Tensor, in_place: bool, arrive: Callable[..., None]) -> None:
        """On the output's node; where the output is a view that the operation made, on the node below as well.

        An operation in place on such a view passes its gradient on to the node below, past the view's own.
        """
        node, base = out.grad_fn, None if in_place else out._base
        plain = base is not None and base.numel() == out.numel() and base.is_contiguous() and out.is_contiguous()
        if plain and base is not None and base.grad_fn is not None:
            place = base.output_nr
            self._on(base.grad_fn, lambda deltas: arrive(deltas, place))
        elif node is not None:
            self._on(node, arrive)

    def _on(self, node: Any, hook: Callable[[Any], None]) -> None:
        self._handles.append(node.register_prehook(hook))


def _explained(site: Site) -> list[Use] | Joint | None:
    """The uses of a call by the rule for its operation, if there is one for this form of it."""
    if site.name in JOINT:
        return JOINT[site.name](site)
    rule = OPERATIONS.get(site.name)
    return rule(site) if rule is not None and len(site.outs) == 1 else None


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    """All tensors in nested lists, tuples and dictionaries."""
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))


def _packed(values: Any) -> Iterator[PackedSequence]:
    """All packed sequences in nested lists, tuples and dictionaries."""
    if isinstance(values, PackedSequence):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _packed(value)
    elif isinstance(values, dict):
        yield from _packed(list(values.values()))
