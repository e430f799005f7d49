"""The arrays of any library, as the algebra of uses takes them in and hands its results out.

CPU tensors of float32 and float64 are held as NumPy arrays that look at the same memory, so that they take the
compiled kernels; other tensors (CUDA, bfloat16) are held as they are. Small results, one number for each use or
group of uses, are NumPy arrays in float64 whatever the library; what is handed out is a tensor where tensors came in.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from sharedgrad.parameter import Array

Index = tuple[int, ...]


def is_tensor(array: Any) -> bool:
    """Whether it is a PyTorch tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def held(array: Any) -> Array:
    """A NumPy array of the same memory, if it is one or a CPU tensor that NumPy has a type for; else the tensor."""
    if not is_tensor(array):
        return np.asarray(array)
    array = array.detach()
    has_numpy = str(array.dtype).removeprefix("torch.") in ("float32", "float64", "int64", "int32")
    return array.resolve_neg().numpy() if has_numpy and array.device.type == "cpu" else array


def given(array: Any, like: Any, own: bool = False) -> Any:
    """A result for the caller: a tensor where ``like`` is one, of the same memory if the array is its ``own``."""
    if not is_tensor(like) or is_tensor(array):
        return array
    array = np.asarray(array)
    kept = own and array.flags.writeable
    return sys.modules["torch"].from_numpy(array if kept else np.array(array)).to(like.device)


def plain(array: Any) -> Array:
    """A NumPy array to read: without a copy if it is held as one; float32 where NumPy has no such type."""
    return real(array).cpu().numpy() if is_tensor(array) else array


def real(array: Any) -> Any:
    """The array in a type that sums are exact enough in: half precision as float32."""
    return array.float() if is_tensor(array) and array.dtype.itemsize < 4 else array


def wide(array: Any) -> Any:
    """The array in float64."""
    return array.double() if is_tensor(array) else array.astype(np.float64, copy=False)


def matching(array: Any, like: Any) -> Any:
    """The array in the library and type of a factor."""
    if not is_tensor(like):
        return np.asarray(array.cpu() if is_tensor(array) else array, like.dtype)
    tensor = array if is_tensor(array) else sys.modules["torch"].from_numpy(np.array(array))
    return tensor.to(like.device, real(like).dtype)


def tensor(array: Any) -> Any:
    """A tensor of the same memory; half precision as float32."""
    return real(array if is_tensor(array) else sys.modules["torch"].from_numpy(array))


def as_tensor(array: Any, like: Any) -> Any:
    """The same array as a tensor where ``like`` is, in its own type."""
    return sys.modules["torch"].from_numpy(array).to(like.device) if not is_tensor(array) else array


def alike(a: Any, b: Any) -> tuple[Any, Any]:
    """Two factors of one product in one library and type, the wider of theirs."""
    if is_tensor(a) != is_tensor(b):
        a, b = as_tensor(a, b), as_tensor(b, a)
    if a.dtype == b.dtype:
        return a, b
    if is_tensor(a):
        dtype = sys.modules["torch"].promote_types(a.dtype, b.dtype)
        return a.to(dtype), b.to(dtype)
    wider = np.result_type(a, b)
    return a.astype(wider, copy=False), b.astype(wider, copy=False)


def copied(array: Any) -> Any:
    """An array of its own."""
    return array.clone() if is_tensor(array) else np.array(array)


def moved(array: Any, apart: Sequence[int], uses: int) -> Any:
    """(*U, *rest) with the first ``uses`` axes taken apart: (K, R, *rest), K over those ``apart``, R over the rest."""
    order = (*apart, *(a for a in range(uses) if a not in apart), *range(uses, array.ndim))
    turned = array.permute(order) if is_tensor(array) else array.transpose(order)
    shape = tuple(turned.shape)
    return turned.reshape(prod(shape[: len(apart)]), prod(shape[len(apart) : uses]), *shape[uses:])


def boxes(lengths: Index, most: int) -> Iterator[tuple[slice, ...]]:
    """The index space of these lengths in parts of at most ``most`` indices each, in order; at least one a part."""
    if not lengths:
        yield ()
        return
    inner = prod(lengths[1:])
    step = max(1, most // max(1, inner))
    for start in range(0, lengths[0], step):
        chosen = slice(start, min(start + step, lengths[0]))
        for rest in boxes(lengths[1:], max(1, most)) if inner > most else [tuple(slice(0, n) for n in lengths[1:])]:
            yield (chosen, *rest)


def channels_last(array: Any) -> Any:
    """A map (N, C, *S) as (N, *S, C), without a copy."""
    order = (0, *range(2, array.ndim), 1)
    return array.permute(order) if is_tensor(array) else array.transpose(order)


def picked(array: Any, numbers: Array, axis: int) -> Any:
    """A copy of what stands at some numbers of one axis."""
    if not is_tensor(array):
        return array.take(numbers, axis)
    return array.index_select(axis, sys.modules["torch"].from_numpy(numbers).to(array.device))


def framed(array: Any, frame: Sequence[tuple[int, int]]) -> Any:
    """The map (N, C, *S) with (before, after) zeros around each spatial axis."""
    sizes = [n + before + after for n, (before, after) in zip(array.shape[2:], frame, strict=True)]
    shape = (*array.shape[:2], *sizes)
    whole = zeros(shape, array)
    inner = tuple(slice(before, before + n) for n, (before, _) in zip(array.shape[2:], frame, strict=True))
    whole[(slice(None), slice(None), *inner)] = array
    return whole


def zeros(shape: Sequence[int], like: Any) -> Any:
    """Zeros in the library and type of an array."""
    return like.new_zeros(tuple(shape)) if is_tensor(like) else np.zeros(shape, like.dtype)


def stacked(arrays: Sequence[Any]) -> Any:
    """The arrays along a new first axis."""
    return sys.modules["torch"].stack(list(arrays)) if is_tensor(arrays[0]) else np.stack(arrays)


def concatenated(arrays: Sequence[Any]) -> Any:
    """The arrays along their first axis."""
    return sys.modules["torch"].cat(list(arrays)) if is_tensor(arrays[0]) else np.concatenate(arrays)


def resolution(array: Any) -> float:
    """eps of the array's type."""
    return float(np.finfo(str(array.dtype).removeprefix("torch.")).eps)


def spread(weights: Array, axis: int, like: Any) -> Any:
    """Weights (len,) along one axis, to be multiplied with ``like``."""
    return matching(weights, like).reshape(tuple(-1 if i == axis else 1 for i in range(like.ndim)))
