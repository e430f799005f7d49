"""All passes of a block together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sharedgrad.errors import ConfigError
from sharedgrad.tracing.answers import TracedWeight
from sharedgrad.tracing.passes import told


class Total(Mapping[str, TracedWeight]):
    """Name -> the uses of a parameter in all passes of the block; certified against the sum of what they deposited.

    Samples keep the numbers that they have in their own pass: where the passes are of different batches, keep "call"
    apart too, ``by=("call", "sample")``, or what is asked of "sample" adds the n-th samples of all passes.

    Args:
        trace: The trace.
    """

    def __init__(self, trace: Any) -> None:
        self._trace = trace

    def __getitem__(self, name: str) -> TracedWeight:
        name = self._trace.first_name(name)
        weights = [one.weight(name) for one in self._trace.passes if name in one.names]
        if not weights:
            raise KeyError(f"{name} was given no gradient in this block")
        if not all(type(weight) is TracedWeight for weight in weights):
            raise ConfigError("trace: total", "the factors of all uses were not kept", "trace with keep='factors'")
        calls = [call for weight in weights for call in weight.calls]
        deposit = sum(weight.deposit for weight in weights)
        total: TracedWeight = told(TracedWeight(calls, deposit, [t for weight in weights for t in weight.types]))
        return total

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for one in self._trace.passes for name in one))

    def __len__(self) -> int:
        return sum(1 for _ in self)
