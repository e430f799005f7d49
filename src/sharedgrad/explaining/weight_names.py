"""Reading ``conv1.weight[0,0,1,2]``: one element of one parameter."""

from __future__ import annotations

import re

from sharedgrad.errors import ConfigError
from sharedgrad.geometry import text
from sharedgrad.network import Network
from sharedgrad.parameter import Parameter

_SHORT = {"w": "weight", "b": "bias"}


def read(given: str, network: Network) -> tuple[Parameter, tuple[int, ...]]:
    """The parameter and the index that a person has written; the index of axes of length 1 may be left out.

    Raises:
        ConfigError: There is no such parameter or element.
    """
    match = re.fullmatch(r"\s*([^\[\]]+?)\s*(?:\[([\d\s,]*)\])?\s*", given)
    if match is None:
        raise ConfigError(f"weight {given!r}", "expected a name and an index", 'write e.g. "conv.weight[0,0,1,2]"')
    parameter = _parameter(match[1], network)
    numbers = tuple(int(part) for part in (match[2] or "").split(",") if part.strip())
    shape = parameter.shape
    long = [axis for axis, n in enumerate(shape) if n > 1]
    if len(numbers) == len(long) < len(shape):
        numbers = tuple(numbers[long.index(axis)] if axis in long else 0 for axis in range(len(shape)))
    if len(numbers) != len(shape) or not all(i < n for i, n in zip(numbers, shape, strict=True)):
        example = ",".join(str(n // 2) for n in shape)
        problem = f"{parameter.name} has shape {text(shape)}, and no such element"
        raise ConfigError(f"weight {given!r}", problem, f'write e.g. "{parameter.name}[{example}]"')
    return parameter, numbers


def _parameter(name: str, network: Network) -> Parameter:
    known = {n: p for p in network.parameters() for n in [p.name]}
    aliases = network.aliases()
    name = aliases.get(name, name)
    if name in known:
        return known[name]
    owner, dot, short = name.rpartition(".")
    long = f"{owner}{dot}{_SHORT.get(short, short)}"
    ends = [p for n, p in known.items() if n == long or n.rpartition(".")[2] == long]
    if len(ends) == 1:
        return ends[0]
    raise ConfigError(f"weight {name!r}", "there is no such parameter", f"choose from {', '.join(known) or 'none'}")
