"""Files to start from: a worked example's network and numbers, to be changed."""

from __future__ import annotations

import json
from typing import Any

from sharedgrad.errors import ConfigError
from sharedgrad.explaining.gallery import Entry

_SHORT: dict[str, Any] = {
    "title": "One layer",
    "layer": "conv2d",
    "stride": 1,
    "padding": 0,
    "x": [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
    "w": [[1, -1], [2, 0.5]],
    "b": 0,
    "upstream": [[1, -2], [0.5, 3]],
    "learning_rate": 0.1,
}
_EXAMPLES = {
    "conv1d": "filter-1d",
    "conv": "four-weights",
    "channels": "stride-and-padding",
    "pool": "max-pool-ties",
    "rnn": "rnn-three-steps",
    "tied": "siamese-pair",
    "losses": "inner-objective",
    "network": "network-5x5",
}
NAMES = ("layer", *_EXAMPLES)


def template(name: str) -> str:
    """A file in JSON: "layer" is the short form for one layer, the others are whole networks.

    Raises:
        ConfigError: There is no such template.
    """
    if name == "layer":
        return _json(_SHORT)
    if name not in _EXAMPLES:
        raise ConfigError(f"template {name!r}", "there is no such template", f"choose from {', '.join(NAMES)}")
    config = Entry(_EXAMPLES[name]).config
    kept = {key: value for key, value in config.items() if key not in ("about", "source", "published", "focus")}
    return _json({"format": "sharedgrad network", "version": 1, **kept})


def _json(value: Any, indent: str = "") -> str:
    """JSON in which whatever fits on a line stands on one."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or len(line) + len(indent) <= 100:
        return line
    inner = indent + "  "
    if isinstance(value, dict):
        parts = [f"{inner}{json.dumps(key)}: {_json(entry, inner)}" for key, entry in value.items()]
        return "{\n" + ",\n".join(parts) + f"\n{indent}}}"
    return "[\n" + ",\n".join(f"{inner}{_json(entry, inner)}" for entry in value) + f"\n{indent}]"
