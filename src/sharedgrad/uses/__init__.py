"""The algebra of uses: the gradient of a shared weight, kept as the terms of its sum.

A *use* is one place where a weight enters the computation; its *contribution* is the upstream gradient at that
place times the local derivative; the gradient is the plain sum of the contributions. Four kinds cover every
layer. They hold factors, not contributions: δ_u and p_u of each use u, whose outer products add up to
G = Σ_u δ_u ⊗ p_u = ΔᵀP, so that any partial sum is a matrix product, and norms, shares and inner products follow
from the factors. :class:`SharedWeight` is one weight with all its calls, and answers every question about the sum.
"""

from sharedgrad.uses.base import Uses
from sharedgrad.uses.direct import Direct
from sharedgrad.uses.limits import get_memory_limit, set_memory_limit
from sharedgrad.uses.lookup import Lookup, Rows
from sharedgrad.uses.outer import Outer
from sharedgrad.uses.shared import Cancellation, Coherence, Part, SharedWeight
from sharedgrad.uses.terms import ABSENT, PADDING, Factor, Terms
from sharedgrad.uses.typed import kernel_uses
from sharedgrad.uses.window import Window
from sharedgrad.view import View

__all__ = [
    "ABSENT",
    "PADDING",
    "Cancellation",
    "Coherence",
    "Direct",
    "Factor",
    "Lookup",
    "Outer",
    "Part",
    "Rows",
    "SharedWeight",
    "Terms",
    "Uses",
    "View",
    "Window",
    "get_memory_limit",
    "kernel_uses",
    "set_memory_limit",
]
