"""The short form of a calculation with one layer: its sizes are read off the weights' shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from sharedgrad.configuration import FORMAT, NUMBERS, VERSION, close
from sharedgrad.errors import ConfigError, ShapeError
from sharedgrad.geometry import text
from sharedgrad.layers import Layer
from sharedgrad.parameter import Array, numbers

_NUMBERS = ("x", "upstream", "loss", "learning_rate")
SEQUENCES = ("RNN", "GRU", "LSTM")
_SHORT = {"w": "weight", "b": "bias"}


def sample_axes(layer: Layer) -> int | None:
    """How many axes one sample has that a layer reads; None where any number will do."""
    name = type(layer).__name__
    if name in SEQUENCES:
        return 2
    if name == "Linear":
        return 1
    rank = next((rank for rank in (1, 2, 3) if f"{rank}d" in name), None)
    return None if rank is None else rank + 1


def expanded(config: Mapping[str, Any]) -> dict[str, Any]:
    """The full form of ``{"layer": "conv2d", "stride": 2, "x": …, "w": …, "b": …, "upstream": …}``.

    Raises:
        ConfigError: The layer or a key is unknown, or the sizes cannot be read off the weights.
    """
    kind = _kind(config["layer"])
    words = {key: config[key] for key in NUMBERS - {"numbers"} if key in config}
    values = {key: config[key] for key in _NUMBERS if key in config}
    rest = {k: v for k, v in config.items() if k not in {"layer", "name", "format", "version", *words, *values}}
    weights = {name: rest.pop(name) for name in list(rest) if name in _SHORT or _is_weight(name)}
    given = {_SHORT.get(name, name): _array(value, name) for name, value in weights.items()}
    sizes, full = _sizes(kind, given, rest)
    name = config.get("name", re.sub(r"(1d|2d|3d)$", "", kind).lower())
    if not isinstance(name, str):
        raise ConfigError("name", f"expected a text, got {type(name).__name__}")
    return {
        "format": FORMAT,
        "version": VERSION,
        **words,
        "nodes": [{"name": name, "layer": kind, **sizes, **rest}],
        "numbers": {**values, "weights": {f"{name}.{key}": array for key, array in full.items()}},
    }


def _kind(given: Any) -> str:
    known = {name.lower(): name for name in Layer.registry}
    if not isinstance(given, str) or given.lower() not in known:
        raise ConfigError("layer", f"there is no layer {given!r}{close({str(given).lower()}, known.values())}")
    return known[given.lower()]


def _is_weight(name: str) -> bool:
    return name in ("weight", "bias") or name.startswith(("weight_", "bias_"))


def _array(value: Any, name: str) -> Array:
    return np.asarray(value) if isinstance(value, bool) else numbers(value, np.float64, name)


def _sizes(kind: str, given: dict[str, Array], options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Array]]:
    """The constructor's arguments that the weights' shapes tell, and the weights with all axes."""
    if kind.startswith("Conv") and "weight" in given and kind[-2:] in ("1d", "2d", "3d"):
        return _convolution(kind, given, options)
    if kind == "Linear" and "weight" in given:
        weight = np.atleast_2d(given["weight"])
        return {"in_features": weight.shape[1], "out_features": len(weight), "bias": "bias" in given}, {
            **given,
            "weight": weight,
        }
    if kind == "RNN" and "weight_ih_l0" in given:
        weight = given["weight_ih_l0"]
        if weight.ndim != 2:
            raise ShapeError("weight_ih_l0", f"expected hidden×input, got shape {text(weight.shape)}")
        return {
            "input_size": weight.shape[1],
            "hidden_size": len(weight),
            "bias": any(name.startswith("bias") for name in given),
        }, given
    return {}, given


def _convolution(
    kind: str, given: dict[str, Array], options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Array]]:
    rank, weight = int(kind[-2]), given["weight"]
    if weight.ndim == rank:
        weight = weight[None, None]
    if weight.ndim != rank + 2:
        expected = f"{rank} axes, or filters×channels and {rank} axes"
        raise ShapeError("w", f"expected {expected}, got shape {text(weight.shape) or 'a single number'}")
    groups = options.get("groups", 1)
    first, second = len(weight), weight.shape[1] * (groups if isinstance(groups, int) else 1)
    inward, outward = (first, second) if "Transpose" in kind else (second, first)
    sizes = {
        "in_channels": inward,
        "out_channels": outward,
        "kernel_size": list(weight.shape[2:]),
        "bias": "bias" in given,
    }
    return sizes, {**given, "weight": weight}
