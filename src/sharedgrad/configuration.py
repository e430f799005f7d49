"""One schema for networks as plain data, which JSON and TOML files carry.

    {"format": "sharedgrad network", "version": 1, "dtype": "float32", "seed": 0,
     "inputs": {"input": [1, 28, 28]},
     "nodes": [
        {"name": "conv", "layer": "Conv2d", "in_channels": 1, "out_channels": 8, "kernel_size": 3},
        {"name": "again", "reuses": "conv", "inputs": ["other"]},
        …],
     "outputs": ["again"],
     "ties": {"decoder.bias": "encoder.bias",
              "decoder.weight": {"parameter": "encoder.weight", "view": [{"transpose": [1, 0]}]}}}

Only ``nodes`` is required. A node without a name is called by its number, one without ``inputs`` reads the node
before; ``reuses`` calls another node's layer again; ``ties`` makes one Parameter out of two, which may see it through
a view: steps, one after the other, that are ``transpose`` (the order of the axes), ``slice`` (for each axis a cell or
[first, end, step]) or ``reshape`` (the new shape). Numbers to calculate with may stand beside: ``calculation``.
"""

from __future__ import annotations

import difflib
import inspect
import json
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharedgrad.errors import ConfigError
from sharedgrad.layers import Layer
from sharedgrad.parameter import Weight
from sharedgrad.view import View

if TYPE_CHECKING:
    from sharedgrad.network import Network

FORMAT, VERSION = "sharedgrad network", 1
_KEYS = {"format", "version", "dtype", "seed", "inputs", "nodes", "outputs", "ties"}
NUMBERS = {"title", "about", "source", "numbers", "focus"}  # what ``calculation`` reads besides; no part of a network


def to_config(network: Network) -> dict[str, Any]:
    """The structure of a network, as plain data."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "dtype": str(network.dtype),
        "seed": network.seed,
        "inputs": {name: None if shape is None else list(shape) for name, shape in network.inputs.items()},
        "nodes": _node_entries(network),
        "outputs": list(network.outputs),
        "ties": _ties(network),
    }


def _node_entries(network: Network) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    first: dict[Layer, str] = {}
    previous = next(iter(network.inputs))
    for node in network.nodes:
        kind = type(node.layer).__name__
        if node.layer in first:
            entry: dict[str, Any] = {"name": node.name, "reuses": first[node.layer]}
        else:
            entry = {"name": node.name, "layer": kind, **_plain(node.layer)}
        if node.inputs != (previous,):
            entry["inputs"] = list(node.inputs)
        entries.append(entry)
        first.setdefault(node.layer, node.name)
        previous = node.name
    return entries


def _plain(layer: Layer) -> dict[str, Any]:
    """A layer's arguments as JSON has them: NumPy's numbers as Python's, tuples as lists."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(layer.config(), default=lambda number: number.item()))
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(layer.label, f"has an argument that JSON cannot hold ({error})") from None
    return plain


def _ties(network: Network) -> dict[str, Any]:
    """Aliases of shared parameters, without those that follow from ``reuses``: the same name in the same layer."""
    layer = {node.name: node.layer for node in network.nodes}
    shared = network.shared()

    def place(name: str) -> tuple[Layer, str]:
        node, _, attribute = name.rpartition(".")
        return layer[node], attribute

    ties: dict[str, Any] = {}
    places: set[tuple[Layer, str]] = set()
    for node in network.nodes:
        for attribute, item in {**node.layer.parameters(), **node.layer.buffers()}.items():
            name = f"{node.name}.{attribute}"
            if place(name) in places:
                continue
            places.add(place(name))
            original, view = shared.get(name, (name, View()))
            if isinstance(item, Weight) and view != item.view:
                problem = "is a view of a Parameter that no layer of the network holds as a whole"
                raise ConfigError(name, f"{problem}, which a configuration cannot say", "tie the whole somewhere too")
            if not view.identity:
                ties[name] = {"parameter": original, "view": view.config()}
            elif original != name:
                ties[name] = original
    return ties


def arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``Network(…)`` that a configuration stands for.

    Raises:
        ConfigError: A key, a layer or an argument is unknown, missing or of the wrong kind.
    """
    if not isinstance(config, Mapping) or not isinstance(config.get("nodes"), list):
        raise ConfigError("network configuration", 'expected an object with a list "nodes"')
    if config.get("format", FORMAT) != FORMAT or config.get("version", VERSION) != VERSION:
        got = f"{config.get('format')!r} version {config.get('version')!r}"
        raise ConfigError("network configuration", f"expected {FORMAT!r} version {VERSION}, got {got}")
    if unknown := set(config) - _KEYS - NUMBERS:
        raise ConfigError(
            "network configuration", f"unknown key {sorted(unknown)[0]!r}{close(unknown, _KEYS | NUMBERS)}"
        )
    inputs = config.get("inputs", {"input": None})
    if not isinstance(inputs, Mapping) or not inputs:
        raise ConfigError("network configuration: inputs", f"expected name -> shape, got {inputs!r}")
    outputs = config.get("outputs")
    if not (outputs is None or isinstance(outputs, str) or _are_names(outputs)):
        raise ConfigError("network configuration: outputs", f"expected names of nodes, got {outputs!r}")
    layers = _layers(config["nodes"], next(iter(inputs)))
    _tie(config.get("ties", {}), layers)
    return {
        "layers": layers,
        "input_shape": inputs,
        "outputs": outputs,
        "seed": config.get("seed", 0),
        "dtype": config.get("dtype", "float32"),
    }


def _layers(entries: list[Any], previous: str) -> dict[str, tuple[Any, ...]]:
    layers: dict[str, tuple[Any, ...]] = {}
    for number, entry in enumerate(entries):
        if not isinstance(entry, Mapping) or not ("layer" in entry) ^ ("reuses" in entry):
            raise ConfigError(f"node {number}", f'expected an object with "layer" or "reuses", got {entry!r}')
        name = str(entry.get("name", number))
        if name in layers:
            raise ConfigError(f"node {name!r}", "there is another node of this name")
        if "reuses" in entry:
            if str(entry["reuses"]) not in layers:
                raise ConfigError(f"node {name!r}", f"reuses {entry['reuses']!r}, which is no earlier node")
            layer = layers[str(entry["reuses"])][0]
        else:
            layer = _layer(name, entry)
        sources = entry.get("inputs", [previous])
        if not _are_names(sources):
            raise ConfigError(f"node {name!r}: inputs", f"expected a list of names, got {sources!r}")
        layers[name] = (layer, *sources)
        previous = name
    return layers


def _layer(name: str, entry: Mapping[str, Any]) -> Layer:
    kind = str(entry["layer"])
    if kind not in Layer.registry:
        known = Layer.registry.keys()
        raise ConfigError(
            f"node {name!r}",
            f"there is no layer {kind!r}{close({kind}, known)}",
            "a layer of your own must be imported first",
        )
    given = {k: v for k, v in entry.items() if k not in ("name", "layer", "inputs")}
    _check_arguments(f"node {name!r} ({kind})", Layer.registry[kind], given)
    try:
        return Layer.registry[kind](**given)
    except ConfigError as error:
        raise ConfigError(f"node {name!r}", f"{error.where}: {error.problem}", error.fix) from None
    except (TypeError, ValueError, MemoryError) as error:
        raise ConfigError(f"node {name!r} ({kind})", str(error)) from None


def _check_arguments(where: str, kind: type[Layer], given: Mapping[str, Any]) -> None:
    """Name what a layer does not know, or what it needs and did not get."""
    known = _parameters(kind)
    open_ended = any(a.kind in (a.VAR_KEYWORD, a.VAR_POSITIONAL) for a in known.values())
    if (unknown := set(given) - set(known)) and not open_ended:
        raise ConfigError(where, f"unknown key {min(unknown)!r}{close(unknown, known)}")
    if missing := [a.name for a in known.values() if a.default is a.empty and a.name not in given and not open_ended]:
        raise ConfigError(where, f"{missing[0]!r} is missing")


@lru_cache
def _parameters(kind: type[Layer]) -> Mapping[str, inspect.Parameter]:
    """A layer's arguments, read once: a file may name its class thousands of times."""
    return inspect.signature(kind).parameters


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _tie(ties: Any, layers: Mapping[str, tuple[Any, ...]]) -> None:
    if not isinstance(ties, Mapping):
        raise ConfigError("network configuration: ties", f"expected alias -> name, got {ties!r}")
    for alias, tied in ties.items():
        name, steps = (tied.get("parameter", ""), tied.get("view")) if isinstance(tied, Mapping) else (tied, [])
        (layer, attribute), (source, original) = (_place(n, layers) for n in (alias, name))
        parameter = source.parameters()[original]
        view = View.from_config(steps, parameter.shape, where := f"network configuration: ties: {alias}")
        if view != view.uncast:
            raise ConfigError(where, "a tied parameter keeps its type, got a cast", "leave it out")
        layer.tie(attribute, parameter.seen(view))


def _place(name: str, layers: Mapping[str, tuple[Any, ...]]) -> tuple[Layer, str]:
    node, _, attribute = str(name).rpartition(".")
    if node not in layers or attribute not in layers[node][0].parameters():
        raise ConfigError("network configuration: ties", f"there is no parameter {name!r}")
    return layers[node][0], attribute


def close(wrong: set[str], known: Any) -> str:
    """What follows in a message after a word that is unknown: the nearest known one, or all of them."""
    guess = difflib.get_close_matches(min(wrong), list(known), 1)
    return f", did you mean {guess[0]!r}?" if guess else f"; known are {', '.join(sorted(known))}"


def read(path: str | Path) -> dict[str, Any]:
    """The configuration in a .json or .toml file.

    Raises:
        ConfigError: The file cannot be read or is not JSON or TOML.
    """
    path = Path(path)
    try:
        text = path.read_text("utf-8")
        return tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise ConfigError(path, f"cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(path, "is not a text in UTF-8", "give a .json or .toml file") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(path, f"is not valid {'TOML' if path.suffix == '.toml' else 'JSON'} ({error})") from None
