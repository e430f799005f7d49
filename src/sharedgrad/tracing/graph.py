"""The graph that autograd has made: which nodes lead to a parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

VIEWS = (
    "TBackward",
    "Transpose",
    "Permute",
    "View",
    "Slice",
    "Select",
    "ToCopy",
    "Expand",
    "Unsqueeze",
    "Squeeze",
    "Clone",
)


def leading_to(roots: Sequence[Any], parameters: Mapping[str, torch.Tensor]) -> dict[str, tuple[str, ...]]:
    """Names of the nodes that pass a gradient on to each parameter, directly or through views of it.

    The functions that somebody wrote are named alone where there are some. Where no node leads to a parameter, the
    backward pass has made another graph inside it, as activation checkpointing does: then the functions that somebody
    wrote are named.

    Args:
        roots: The tensors that the pass began with.
        parameters: By name.
    """
    readers, nodes = _readers([t.grad_fn for t in roots if t.grad_fn is not None])
    leaves = {id(node.variable): node for node in nodes if hasattr(node, "variable")}
    written = sorted({node.name() for node in nodes if _is_written(node)})
    found = {}
    for name, tensor in parameters.items():
        leaf = leaves.get(id(tensor))
        names = _above(leaf, readers) if leaf is not None else [f"inside {n}" for n in written]
        found[name] = tuple(names)
    return found


def _readers(roots: Sequence[Any]) -> tuple[dict[Any, list[Any]], list[Any]]:
    """Node -> the nodes that pass gradients on to it; and all nodes."""
    readers: dict[Any, list[Any]] = {}
    waiting, met = list(roots), set(roots)
    while waiting:
        node = waiting.pop()
        for below, _ in node.next_functions:
            if below is not None:
                readers.setdefault(below, []).append(node)
                if below not in met:
                    met.add(below)
                    waiting.append(below)
    return readers, list(met)


def _above(leaf: Any, readers: Mapping[Any, Sequence[Any]]) -> list[str]:
    """Names of what passes gradients on to a leaf, views of it skipped."""
    found, waiting, met = set(), [leaf], {leaf}
    while waiting:
        for node in readers.get(waiting.pop(), ()):
            if node in met:
                continue
            met.add(node)
            if node.name().startswith(VIEWS):
                waiting.append(node)
            else:
                found.add(node)
    written = {node.name() for node in found if _is_written(node)}
    return sorted(written or {node.name() for node in found})


def _is_written(node: Any) -> bool:
    """Whether it belongs to a function that somebody wrote in Python."""
    return isinstance(node, torch.autograd.function.BackwardCFunction)
