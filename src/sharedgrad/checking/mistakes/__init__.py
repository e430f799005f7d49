"""The library of wrong procedures; importing this folder fills ``rules.LIBRARY``."""

from sharedgrad.checking.mistakes import (
    activations,
    anything,
    bias,
    dense,
    input_gradient,
    kernel_gradient,
    loops,
    pooling,
)
from sharedgrad.checking.rules import LIBRARY

# the commoner ones first: where several give the same numbers, the first is named
_ORDER = (kernel_gradient, input_gradient, bias, pooling, dense, activations, anything, loops)
_PLACE = {module.__name__: place for place, module in enumerate(_ORDER)}
LIBRARY.sort(key=lambda rule: _PLACE[rule.change.__module__])
