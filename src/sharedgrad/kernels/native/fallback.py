"""What the compiled kernels leave to NumPy: each function says itself for which arguments it is compiled."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from sharedgrad.kernels import vectorized

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

LIMITS: dict[str, list[str]] = {}  # what NumPy computes, and the names of the functions that leave it to NumPy


def compiled_if(
    fits: Callable[..., bool], otherwise: str
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """A kernel that serves only the arguments that ``fits`` accepts; the others go to NumPy's kernel of its name.

    Args:
        fits: Takes the kernel's arguments.
        otherwise: The arguments that it does not accept, in words: :data:`LIMITS` holds them.
    """

    def decorate(kernel: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        numpy_kernel: Callable[Arguments, Result] = getattr(vectorized, kernel.__name__)
        LIMITS.setdefault(otherwise, []).append(kernel.__name__)

        @wraps(kernel)
        def run(*arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
            return (kernel if fits(*arguments, **named) else numpy_kernel)(*arguments, **named)

        return run

    return decorate
