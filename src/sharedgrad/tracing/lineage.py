"""Which axis of a tensor tells the samples apart, followed from the model's inputs through the operations.

Nothing is inferred from lengths alone: an operation that is not listed here gives tensors whose axis is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any

import torch

from sharedgrad.tracing.place import Packed, Place
from sharedgrad.tracing.views import ORDERS, PARTS, SHAPES, axis_of, order

Tagged = Sequence[tuple[torch.Tensor, Place | Packed | None]]

# The first argument's axis stays where it is, if it keeps its length: what is done is done to each sample alone, or the
# samples stay apart all the same (normalization).
KEPT = {
    *(
        "relu",
        "relu_",
        "relu6",
        "gelu",
        "silu",
        "sigmoid",
        "tanh",
        "softmax",
        "log_softmax",
        "elu",
        "leaky_relu",
        "mish",
    ),
    *(
        "hardtanh",
        "hardswish",
        "hardsigmoid",
        "softplus",
        "selu",
        "celu",
        "glu",
        "logsigmoid",
        "softsign",
        "tanhshrink",
    ),
    *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "threshold"),
    *("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "lp_pool1d", "lp_pool2d"),
    *("boolean_dispatch", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "interpolate", "fn"),
    *("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "upsample", "pixel_shuffle", "pad"),
    *("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "local_response_norm", "normalize"),
    *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear", "embedding"),
    *("exp", "log", "log1p", "expm1", "sqrt", "rsqrt", "square", "abs", "neg", "sin", "cos", "erf", "clamp", "clip"),
    *("contiguous", "clone", "to", "float", "double", "half", "bfloat16", "type", "type_as", "cpu", "cuda", "detach"),
    *("cumsum", "cumprod", "masked_fill", "masked_fill_", "tril", "triu", "round", "floor", "ceil"),
    *("requires_grad_", "multi_head_attention_forward", "scaled_dot_product_attention", "sigmoid_", "tanh_", "one_hot"),
    *("__pow__", "pow", "long", "int", "bool", "logical_not", "__invert__", "hardtanh_", "clamp_", "_pad_circular"),
    *("elu_", "leaky_relu_", "silu_", "nan_to_num", "unfold"),
}
TOGETHER = {
    *("add", "sub", "mul", "div", "true_divide", "add_", "sub_", "mul_", "div_", "where", "maximum", "minimum", "rsub"),
    *("__radd__", "__rsub__", "__rmul__", "__rdiv__", "__rtruediv__", "eq", "ne", "lt", "le", "gt", "ge", "lerp"),
    *("addcmul", "addcdiv", "expand", "expand_as", "__and__", "__or__", "logical_and", "logical_or", "copy_"),
}
REDUCED = {
    *("sum", "mean", "amax", "amin", "max", "min", "var", "std", "norm", "logsumexp", "argmax", "argmin", "prod"),
    *("any", "all", "linalg_vector_norm", "median"),
}
RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
CELLS = {f"{name}_cell" for name in RECURRENT}
JOINS = {"cat", "concat", "concatenate"}
SEQUENCES = {*RECURRENT, *CELLS, "_pack_padded_sequence", "_pad_packed_sequence"}
PRODUCTS = {"matmul", "__matmul__", "mm", "bmm", "__rmatmul__", "mv", "dot"}


def samples_place(
    name: str,
    func: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Any,
    tagged: Tagged,
    out: torch.Tensor,
    number: int = 0,
) -> Place | Packed | None:
    """Where the samples stand in ``out``, or None where it is not known.

    Args:
        name: The operation.
        func: What was called.
        args: Its positional arguments.
        kwargs: Its arguments given by name.
        tagged: Its tensors that come from the model's inputs, each with the place of its samples.
        out: A tensor that it gave.
        number: Which of those that it gave.
    """
    if name in SEQUENCES:
        return _in_sequence(name, args, tagged, number)
    packed = [(tensor, place) for tensor, place in tagged if isinstance(place, Packed)]
    if packed:
        tensor, rows = packed[0]
        row_by_row = name in KEPT | TOGETHER and all(p == rows for _, p in tagged) and len(out) == len(tensor)
        return rows if row_by_row else None
    known = [(tensor, place) for tensor, place in tagged if isinstance(place, Place)]
    if not known:
        return None
    tensor, place = known[0]
    if name in SHAPES:
        return _reshaped(tuple(tensor.shape), place, tuple(out.shape))
    if name == "index_select":
        return _reordered(tensor, place, args, kwargs)
    if any(p[1:] != place[1:] for _, p in known):  # merged with other axes, or in another order
        return None
    found = _axis(name, func, args, kwargs, [(t, p.axis) for t, p in known], out)
    ok = found is not None and 0 <= found < out.ndim and out.shape[found] == tensor.shape[place.axis]
    return place._replace(axis=found) if found is not None and ok else None


def _axis(
    name: str, func: Callable[..., Any], args: Sequence[Any], kwargs: Any, known: Any, out: torch.Tensor
) -> int | None:
    """Which axis of ``out`` the axis of the samples has become; it keeps its length."""
    tensor, axis = known[0]
    if name in KEPT:
        return axis if (args and args[0] is tensor) or not args else None
    if name in TOGETHER:
        return _agreed(out.ndim + a - t.ndim for t, a in known)
    if name in ORDERS:
        return order(func, tensor.ndim, args, kwargs).index(axis)
    if name in REDUCED:
        return _reduced(tensor, axis, args, kwargs, out)
    if name in PRODUCTS:
        return _agreed(_in_product(t, a, args, out) for t, a in known)
    if name in ("addmm", "baddbmm"):
        return _agreed(_in_product(t, a, args[1:3], out) for t, a in known if t is not args[0])
    if name in JOINS or name == "stack":
        return _joined(name, args, kwargs, known)
    if name in ("flip", "roll"):
        dims = kwargs.get("dims", args[-1])
        return None if axis in {d % tensor.ndim for d in ([dims] if isinstance(dims, int) else dims)} else axis
    if name in PARTS or name == "narrow":
        return None if axis_of(name, args, kwargs) % tensor.ndim == axis else _without(name, args, kwargs, tensor, axis)
    if name == "select":
        dim = axis_of(name, args, kwargs) % tensor.ndim
        return None if dim == axis else axis - (dim < axis)
    return _indexed(args[1], tensor, axis) if name == "__getitem__" and args[0] is tensor else None


def batch_of_sequences(name: str, args: Sequence[Any]) -> int:
    """Which axis of its input a recurrent operation takes for the batch."""
    return 0 if name in CELLS or args[-1] is True else 1


def _in_sequence(name: str, args: Sequence[Any], tagged: Tagged, number: int) -> Place | Packed | None:
    """Recurrent operations: y, then h_n and c_n (layers, N, H); and sequences packed and padded."""
    place = next((place for tensor, place in tagged if tensor is args[0]), None)
    if isinstance(place, Packed):
        if name == "_pad_packed_sequence":
            return Place(0 if args[2] else 1, order=place.order) if number == 0 else None
        return place if number == 0 else Place(1, order=place.order)
    if place is None or name == "_pad_packed_sequence":
        return None
    if name == "_pack_padded_sequence":
        alone = place.axis == (0 if args[2] else 1) and (place.before, place.after) == (1, 1)
        return Packed(place.order) if alone and number == 0 else None
    if place.axis != batch_of_sequences(name, args):
        return None
    return place if number == 0 or name in CELLS else place._replace(axis=1)


def _agreed(places: Iterable[int | None]) -> int | None:
    """One place for all, or none."""
    found = set(places)
    return found.pop() if len(found) == 1 else None


def _reshaped(source: tuple[int, ...], place: Place, target: tuple[int, ...]) -> Place | None:
    """Where the samples stand in another shape of the same cells: as an axis, or merged with others into one."""
    count, before = place.count(source), prod(source[: place.axis]) * place.before
    starts = [prod(target[:i]) for i in range(len(target))]
    for i, (start, length) in enumerate(zip(starts, target, strict=True)):
        if start == before and length == count:
            return Place(i, order=place.order)
    for i, (start, length) in enumerate(zip(starts, target, strict=True)):
        if count and start and before % start == 0 and length % (before // start * count) == 0 and length:
            return Place(i, before // start, length // (before // start * count), place.order)
    return None


def _reordered(tensor: torch.Tensor, place: Place, args: Sequence[Any], kwargs: Any) -> Place | None:
    """``index_select``: samples in another order stay known, as sequences that are sorted by length are."""
    given = [*args[1:], *(kwargs[n] for n in ("dim", "index")[len(args) - 1 :])]
    dim, index = int(given[0]) % tensor.ndim, given[1].tolist()
    if dim != place.axis:
        return place
    before = place.order or tuple(range(tensor.shape[dim]))
    if (place.before, place.after) != (1, 1) or sorted(index) != list(range(len(before))):
        return None
    order = tuple(before[i] for i in index)
    return Place(dim, order=() if order == tuple(range(len(before))) else order)


def _reduced(tensor: torch.Tensor, axis: int, args: Sequence[Any], kwargs: Any, out: torch.Tensor) -> int | None:
    dims = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
    if dims is None or isinstance(dims, torch.Tensor | float):
        return None
    gone = {d % tensor.ndim for d in ([dims] if isinstance(dims, int) else dims)}
    return None if axis in gone else axis if out.ndim == tensor.ndim else axis - sum(d < axis for d in gone)


def _in_product(tensor: torch.Tensor, axis: int, args: Sequence[Any], out: torch.Tensor) -> int | None:
    """Where the axis of a factor of a matrix product stands in the product; None if it was summed over."""
    left = args[0] is tensor
    if tensor.ndim == 1:
        return None
    summed = tensor.ndim - (1 if left else 2)
    other = args[1] if left else args[0]
    if axis == summed:
        return None
    last = 1 if other.ndim == 1 and left else 0  # a vector on the right takes the last axis away
    return out.ndim + last + axis - tensor.ndim


def _joined(name: str, args: Sequence[Any], kwargs: Any, known: Any) -> int | None:
    tensor, axis = known[0]
    if _agreed(a for _, a in known) is None:
        return None
    dim = joined_along(name, args, kwargs, tensor)
    if name == "stack":
        return axis + (dim <= axis)
    return None if dim == axis else axis


def joined_along(name: str, args: Sequence[Any], kwargs: Any, tensor: torch.Tensor) -> int:
    """The axis that tensors are joined along."""
    dim = int(kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else 0)))
    return dim % (tensor.ndim + (name == "stack"))


def _without(name: str, args: Sequence[Any], kwargs: Any, tensor: torch.Tensor, axis: int) -> int:
    return axis - (name == "unbind" and axis_of(name, args, kwargs) % tensor.ndim < axis)


def _indexed(index: Any, tensor: torch.Tensor, axis: int) -> int | None:
    """Where an axis stands after indexing by whole numbers, slices, ``...`` and None, if all of it is taken."""
    items = list(index) if isinstance(index, tuple) else [index]
    if not all(item is None or item is ... or type(item) in (int, slice) for item in items):
        return None
    taken = sum(item is not None and item is not ... for item in items)
    if ... not in items:
        items.append(...)
    at = items.index(...)
    items[at : at + 1] = [slice(None)] * (tensor.ndim - taken)
    source = place = 0
    for item in items:
        if item is None:
            place += 1
            continue
        if source == axis:
            whole = type(item) is slice and len(range(tensor.shape[axis])[item]) == tensor.shape[axis]
            return place if whole and (item.step or 1) == 1 else None
        source, place = source + 1, place + (type(item) is slice)
    return None


def mixes(name: str, args: Sequence[Any], kwargs: Any, tagged: Tagged, results: Sequence[torch.Tensor]) -> str:
    """Why an operation makes samples depend on one another; empty where it does not, as far as can be told.

    Sums over all samples that give a single number are losses, and do not count.
    """
    known = [(t, place.axis) for t, place in tagged if isinstance(place, Place)]
    if name in RECURRENT | CELLS and any(t is args[0] and a != batch_of_sequences(name, args) for t, a in known):
        return "recurrence over the samples"
    if name == "batch_norm":
        training = kwargs.get("training", args[5] if len(args) > 5 else False)
        return "batch normalization in training mode" if training else ""
    if not known or not results or results[0].ndim == 0:
        return ""
    tensor, axis = known[0]
    if name in REDUCED and tensor is args[0] and _reduced(tensor, axis, args, kwargs, results[0]) is None:
        return f"{name} over the samples"
    if name in PRODUCTS and len(known) > 1 and _agreed(_in_product(t, a, args, results[0]) for t, a in known) is None:
        return f"{name} of samples with samples"
    return ""
