"""Attention: PyTorch's own Python code for it runs with the calls inside it seen one by one.

PyTorch hands the whole of ``multi_head_attention_forward`` to whoever watches functions, as one call. Nothing in it is
computed twice here: the same code runs once, without that hand-over, so the projections, the products and the masks of
dropout are the caller's own, bit for bit, and each projection is a use of its weights like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

from torch.nn import functional


def _opened(function: Any) -> Callable[..., Any]:
    """The same code, in which the question whether somebody watches functions is answered with no."""
    own = {**function.__globals__, "has_torch_function": lambda _: False}
    opened = FunctionType(function.__code__, own, function.__name__, function.__defaults__, function.__closure__)
    opened.__kwdefaults__ = function.__kwdefaults__
    return opened


COMPOSITE: Mapping[Any, Callable[..., Any]] = {
    functional.multi_head_attention_forward: _opened(functional.multi_head_attention_forward)
}
