"""Tracing PyTorch models: which uses the gradient of each parameter is the sum of, certified to add up.

PyTorch is imported when a model is traced, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sharedgrad.errors import require

if TYPE_CHECKING:
    from sharedgrad.tracing.session import ModelTrace

__all__ = ["trace"]


def trace(
    model: Any,
    params: Iterable[str] | None = None,
    *,
    keep: str | Sequence[str] = "factors",
    batch_axis: int | None = 0,
    strict: bool = False,
    every: int = 1,
    chunk: int | None = None,
    samples: slice | Sequence[int] | None = None,
    callback: Callable[[Any], object] | None = None,
) -> ModelTrace:
    """Record the uses of a PyTorch model's parameters while a block runs the caller's own training step.

    ::

        with sg.trace(model) as t:
            loss_fn(model(x), y).backward()
        t["conv1.weight"].norm(("sample", "position"))

    The step is not changed: parameters, their ``.grad``, buffers and random numbers are what they would be without.

    Args:
        model: A ``torch.nn.Module``.
        params: Names of the parameters to look at, as in ``named_parameters``; all that are trained, if not given.
        keep: "factors" holds the inputs and upstream gradients of every call, so that any question can be asked later.
            A list such as ``["norm:sample,position", "share:sample"]`` answers these questions during the backward
            pass and frees the factors; an axis that a parameter does not have is left out of a question.
        batch_axis: Which axis of the model's inputs tells the samples apart; None if none does. It is followed through
            the operations of the forward pass; where it cannot be followed, the axes of a call are named "row".
        strict: Raise at the end of a backward pass in which a parameter's uses do not add up to its gradient.
        every: Record only one backward pass of so many, and the forward passes before it.
        chunk: At most so many samples at once when questions are answered during the pass; if not given, as many as
            8 MiB hold.
        samples: Numbers of the samples to look at, or a slice of them; all, if not given. What is kept and answered is
            about their uses alone; shares are those in the whole gradient, and all uses are certified. A parameter
            whose uses do not tell samples apart is kept as a whole.
        callback: A function that is given each parameter (what ``t[name]`` would be) as soon as the pass has its
            gradient, to be asked there and then; nothing but the certificate is kept.

    Raises:
        MissingDependencyError: PyTorch is not installed.
        ConfigError: An argument makes no sense, or there is no parameter of such a name.
    """
    require("torch", "sg.trace", "torch")
    from sharedgrad.tracing.session import ModelTrace
    from sharedgrad.tracing.settings import Settings

    return ModelTrace(model, params, Settings.of(keep, batch_axis, strict, every, chunk, samples, callback))
