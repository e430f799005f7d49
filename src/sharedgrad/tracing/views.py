"""Operations of PyTorch that show a parameter in another order, a part, another shape or type of it, or shifted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch

from sharedgrad.errors import ShapeError
from sharedgrad.uses import View

Shape = tuple[int, ...]

ORDERS = {"t", "T", "mT", "H", "mH", "transpose", "swapaxes", "swapdims", "permute", "movedim", "moveaxis", "adjoint"}
SHAPES = {"view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as", "ravel"}
CASTS = {"to", "float", "double", "half", "bfloat16", "type", "type_as"}
COPIES = {"contiguous", "clone", "cpu", "cuda", "requires_grad_", "alias", "view_as_real", "positive"}
SHIFTS = {"add", "__radd__", "sub"}
PARTS = {"chunk", "split", "split_with_sizes", "tensor_split", "unbind", "unsafe_chunk", "unsafe_split"}


def views(
    name: str, func: Callable[..., Any], source: Shape, dtype: torch.dtype, args: Sequence[Any], kwargs: Any, out: Any
) -> list[tuple[torch.Tensor, View]]:
    """What each tensor of the result shows of the first argument; empty where the operation is no view.

    Args:
        name: The operation.
        func: What is called, to be called again on a small stand-in.
        source: Shape of the first argument, ``dtype`` its type.
        args: All positional arguments, the first included.
        kwargs: All arguments given by name.
        out: What it gave.
    """
    if name in PARTS:
        return _parts(name, source, args, kwargs, out)
    if not isinstance(out, torch.Tensor):
        return []
    shape = tuple(out.shape)
    view: View | None = None
    if name in ORDERS and not out.is_complex():
        view = View.transpose(source, order(func, len(source), args, kwargs))
    elif name in SHAPES and out.dtype == dtype:
        view = View() if shape == source else View.reshape(source, shape) if out.numel() else None
    elif name in CASTS:
        view = View() if out.dtype == dtype else _cast(out.dtype)
    elif name in COPIES and shape == source and out.dtype == dtype:
        view = View()
    elif name in SHIFTS and len(args) == 2 and type(args[1]) in (int, float) and out.dtype == dtype:
        view = View()  # as in 1 + w: a number beside it changes nothing that a gradient sees
    elif name == "__getitem__":
        view = _sliced(source, args[1], shape)
    elif name in ("select", "narrow"):
        view = _sliced(source, _index(name, len(source), args, kwargs), shape)
    return [] if view is None else [(out, view)]


def order(func: Callable[..., Any], rank: int, args: Sequence[Any], kwargs: Any) -> tuple[int, ...]:
    """Which axis of the first argument each axis of the result is: read off the strides of a stand-in."""
    stand_in = torch.empty((2,) * rank, device="meta")
    turned = func(stand_in, *args[1:], **kwargs)
    return tuple(stand_in.stride().index(stride) for stride in turned.stride())


def _cast(dtype: torch.dtype) -> View | None:
    names = {torch.float64: "float64", torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
    return View.cast(names[dtype]) if dtype in names else None


def _sliced(source: Shape, index: Any, shape: Shape) -> View | None:
    """A view by whole numbers, slices, ``...`` and None; an index of another kind is no view."""
    items = index if isinstance(index, tuple) else (index,)
    if not all(item is None or item is ... or type(item) in (int, slice) for item in items):
        return None
    try:
        view = View.slice(source, tuple(item for item in items if item is not None))
        return view if view.shape(source) == shape else view.then(View.reshape(view.shape(source), shape))
    except ShapeError:
        return None


def _index(name: str, rank: int, args: Sequence[Any], kwargs: Any) -> tuple[Any, ...]:
    """What ``select`` and ``narrow`` take, as an index."""
    names = ("dim", "index") if name == "select" else ("dim", "start", "length")
    given = [*args[1:], *(kwargs[n] for n in names[len(args) - 1 :])]
    dim, start = int(given[0]) % rank, int(given[1])
    return (slice(None),) * dim + (start if name == "select" else slice(start, start + int(given[2])),)


def _parts(
    name: str, source: Shape, args: Sequence[Any], kwargs: Any, out: Sequence[torch.Tensor]
) -> list[tuple[torch.Tensor, View]]:
    """What each of several parts along one axis shows."""
    dim = axis_of(name, args, kwargs) % len(source)
    before = (slice(None),) * dim
    if name == "unbind":
        return [(part, View.slice(source, (*before, i))) for i, part in enumerate(out)]
    ends = list(accumulate(part.shape[dim] for part in out))
    whole = zip(out, [0, *ends], ends, strict=False)
    return [(part, View.slice(source, (*before, slice(start, end)))) for part, start, end in whole if end > start]


def axis_of(name: str, args: Sequence[Any], kwargs: Any) -> int:
    """The axis that an operation on parts works along."""
    place = 1 if name in ("unbind", "select", "narrow") else 2
    return int(kwargs.get("dim", args[place] if len(args) > place else 0))
