"""A small network with its numbers: what one explains, checks, or does by hand.

The network's configuration (``configuration``), and beside it

    "title": "…", "about": "…", "source": "https://…",
    "numbers": {"x": [[…]],                             or {"input name": array}
                "weights": {"conv.weight": [[…]]},      one name for each shared parameter
                "upstream": [0.25, -0.15],              the gradient at the output, or {"node": array}
                "loss": {"name": "MSE", "reduction": "half_sum", "target": […], "node": "fc"},   or a list of them
                "learning_rate": 0.1}

Upstream gradients and losses add; one of them must be there. The sample axis, and other axes of length 1, may be left
out. A single layer has a shorter form:

    {"layer": "conv2d", "stride": 2, "padding": 1, "x": [[…]], "w": [[…]], "b": 0, "upstream": [[…]]}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sharedgrad import configuration
from sharedgrad.configuration import NUMBERS, close
from sharedgrad.errors import ConfigError, DataError, ShapeError, SharedgradError
from sharedgrad.geometry import text
from sharedgrad.gradients import Gradients
from sharedgrad.layers import Layer
from sharedgrad.losses import MSE, BinaryCrossEntropy, CrossEntropy
from sharedgrad.network import Network
from sharedgrad.parameter import Array, numbers, positive
from sharedgrad.single_layer import SEQUENCES, expanded, sample_axes

if TYPE_CHECKING:
    from sharedgrad.tape import Tape
    from sharedgrad.traces import Trace

Loss = MSE | CrossEntropy | BinaryCrossEntropy
LOSSES: dict[str, type[Loss]] = {"MSE": MSE, "CrossEntropy": CrossEntropy, "BinaryCrossEntropy": BinaryCrossEntropy}
_FIELDS = {"x", "weights", "upstream", "loss", "learning_rate"}


@dataclass(frozen=True)
class Objective:
    """One loss.

    Attributes:
        node: Whose output it is of.
        name: Its class.
        loss: Called as ``loss(y, target)``.
        target: What y should be.
        options: The arguments that it was made with.
    """

    node: str
    name: str
    loss: Loss
    target: Array
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """What the engine makes of a calculation.

    Attributes:
        values: Every input and every node's output (N, …).
        losses: The value of each objective, in order.
        upstream: The gradient that each objective, or the given upstream gradient, starts from: node -> (N, …).
        trace: The way back, with the uses kept apart.
        gradients: The sums: of every parameter, and of the inputs.
        updated: Parameter name -> its value after one step of gradient descent; empty without a learning rate.
    """

    values: Mapping[str, Array]
    losses: tuple[float, ...]
    upstream: Mapping[str, Array]
    trace: Trace
    gradients: Gradients
    updated: Mapping[str, Array]


@dataclass(frozen=True)
class Calculation:
    """A network, its inputs, and what goes back: all numbers in float64, all arrays with all axes, samples first.

    Attributes:
        network: Holds the weights.
        inputs: Input name -> array (N, …).
        upstream: Node -> gradient given at its output (N, …).
        objectives: Losses.
        learning_rate: Of the one update; None for none.
        title: One line.
        about: Plain text; an empty line ends a paragraph.
        sources: (title, address) of where the numbers come from.
        focus: What a reader should look at first: {"node": …, "weight": "conv.weight[0,0,1,1]"}.
        training: Whether the forward pass is one of training (batch norm, dropout) or of evaluation.
    """

    network: Network
    inputs: Mapping[str, Array]
    upstream: Mapping[str, Array]
    objectives: tuple[Objective, ...] = ()
    learning_rate: float | None = None
    title: str = ""
    about: str = ""
    sources: tuple[tuple[str, str], ...] = ()
    focus: Mapping[str, str] | None = None
    training: bool = True

    @classmethod
    def read(cls, path: str | Path) -> Calculation:
        """The calculation in a .json or .toml file.

        Raises:
            SharedgradError: One line that names the file and the field.
        """
        config = configuration.read(path)
        try:
            return cls.of(config)
        except SharedgradError as error:
            raise type(error)(f"{path}: {error.where}", error.problem, error.fix) from None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Calculation:
        """The calculation that plain data describe, in the full form or in that of a single layer.

        Raises:
            SharedgradError: One line that names the field.
        """
        if not isinstance(config, Mapping):
            raise ConfigError("calculation", f"expected an object, got {type(config).__name__}")
        full = expanded(config) if "layer" in config else config
        given = _object(full.get("numbers"), "numbers")
        if unknown := set(given) - _FIELDS:
            raise ConfigError("numbers", f"unknown key {sorted(unknown)[0]!r}{close(unknown, _FIELDS)}")
        network, inputs = _network(full, given)
        _weigh(network, given.get("weights", {}))
        samples = len(next(iter(inputs.values())))
        shapes = {name: (samples, *shape) for name, shape in network.shapes(*_sample_shapes(inputs)).items()}
        upstream = _upstream(given.get("upstream"), network, shapes)
        objectives = _objectives(given.get("loss"), network, shapes)
        if not upstream and not objectives:
            problem = "expected an upstream gradient or a loss, got neither"
            raise ConfigError("numbers", problem, 'add "upstream", or "loss" with its target')
        rate = given.get("learning_rate")
        return cls(
            network,
            inputs,
            upstream,
            objectives,
            None if rate is None else positive(rate, "numbers: learning_rate"),
            _string(full, "title"),
            _string(full, "about"),
            _sources(full.get("source")),
            _focus(full.get("focus")),
        )

    def to_config(self) -> dict[str, Any]:
        """As plain data for JSON, in the full form and full precision; :meth:`of` reads it back."""
        losses = [{"name": o.name, **o.options, "node": o.node, "target": o.target.tolist()} for o in self.objectives]
        own = _own_names(self.network)
        weights = {n: p.tolist() for n, p in self.network.state_dict().items() if n in own}
        values = {
            "x": {name: array.tolist() for name, array in self.inputs.items()},
            "weights": weights,
            "upstream": {name: array.tolist() for name, array in self.upstream.items()},
            "loss": losses,
            "learning_rate": self.learning_rate,
        }
        shapes = {name: list(array.shape[1:]) for name, array in self.inputs.items()}
        words = {
            "title": self.title,
            "about": self.about,
            "source": [{"title": title, "url": url} for title, url in self.sources],
            "focus": None if self.focus is None else dict(self.focus),
        }
        return {
            **self.network.to_config(),
            "inputs": shapes,
            **{key: value for key, value in words.items() if value},
            "numbers": {key: value for key, value in values.items() if value not in (None, {}, [])},
        }

    def run(self) -> Result:
        """Forward, the losses, backward, and the update, by the engine."""
        outputs, tape = self._forward()
        values = {**self.inputs, **outputs}
        losses = []
        upstream = {name: array.copy() for name, array in self.upstream.items()}
        for objective in self.objectives:
            value, gradient = objective.loss(values[objective.node], objective.target)
            losses.append(value)
            upstream[objective.node] = upstream.get(objective.node, 0) + gradient
        trace = tape.trace(upstream)
        gradients = trace.gradients()
        updated = {}
        if self.learning_rate is not None:
            updated = {p.name: p.value - self.learning_rate * gradients[p] for p in gradients}
        return Result(values, tuple(losses), upstream, trace, gradients, updated)

    def _forward(self) -> tuple[dict[str, Array], Tape]:
        """Every node's output, and the tape; running statistics stay as they are."""
        network = self.network
        layers = {node.name: (node.layer, *node.inputs) for node in network}
        names = list(layers)
        open_everywhere = Network(layers, network.inputs, names, network.seed, network.dtype)
        kept = [(b, b.value) for node in network for b in node.layer.buffers().values()]
        outputs, tape = open_everywhere.forward(training=self.training, **self.inputs)
        for buffer, value in kept:
            buffer.replace(value)
        return outputs if len(names) > 1 else {names[0]: outputs}, tape


def _network(config: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[Network, dict[str, Array]]:
    """The network in float64, and its inputs with all axes."""
    arguments = configuration.arguments({k: v for k, v in config.items() if k not in NUMBERS})
    declared = arguments["input_shape"]
    x = given.get("x")
    if x is None:
        raise ConfigError("numbers: x", "is missing", 'give the input, "x": […]')
    named = x if isinstance(x, Mapping) else {next(iter(declared)): x}
    if named.keys() != declared.keys():
        raise ConfigError("numbers: x", f"expected {', '.join(declared)}, got {', '.join(named) or 'nothing'}")
    inputs = {}
    for name, values in named.items():
        array = _array(values, f"numbers: x of {name!r}" if len(named) > 1 else "numbers: x")
        inputs[name] = _batched(name, array, declared[name], _readers(arguments["layers"], name, declared))
    if len({len(array) for array in inputs.values()}) > 1:
        raise ShapeError("numbers: x", "expected the same number of samples in every input")
    arguments["input_shape"] = {name: array.shape[1:] for name, array in inputs.items()}
    return Network(**{**arguments, "dtype": "float64"}), inputs


def _readers(layers: Mapping[str, tuple[Any, ...]], name: str, declared: Mapping[str, Any]) -> list[Layer]:
    """The layers that read an input."""
    previous, found = next(iter(declared)), []
    for node, (layer, *sources) in layers.items():
        if name in (sources or [previous]):
            found.append(layer)
        previous = node
    return found


def _batched(name: str, array: Array, shape: Any, readers: list[Layer]) -> Array:
    """With the sample axis, and with a channel axis where it was left out."""
    if shape is not None:
        wanted = tuple(shape)
        for whole in ((1, *wanted), (len(array) if array.ndim else 1, *wanted)):
            if array.shape == whole or _squeezed(array.shape) == _squeezed(whole):
                return array.reshape(whole)
        raise ShapeError(
            f"numbers: x of {name!r}", f"expected samples of shape {text(wanted)}, got {text(array.shape)}"
        )
    axes = next((n for n in map(sample_axes, readers) if n), None)
    length = 2 if axes is None else axes + 1
    if length == 3 and array.ndim == 1 and any(type(layer).__name__ in SEQUENCES for layer in readers):
        array = array[:, None]  # one number at each time step
    while array.ndim < length:  # without the sample axis, and perhaps without the channel axis
        array = array[None]
    return array


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)


def _sample_shapes(inputs: Mapping[str, Array]) -> list[tuple[int, ...]]:
    return [array.shape[1:] for array in inputs.values()]


def _weigh(network: Network, weights: Any) -> None:
    """Give every parameter its number; a buffer keeps what it starts with."""
    given = _object(weights, "numbers: weights")
    known, aliases = network.state_dict(), network.aliases()
    if unknown := set(given) - set(known):
        raise ConfigError("numbers: weights", f"there is no {sorted(unknown)[0]!r}{close(unknown, known)}")
    present = {aliases.get(name, name) for name in given}
    trained = {p.name for p in network.parameters()}
    if missing := [name for name in known if name in trained - present]:
        shape = text(known[missing[0]].shape) or "a number"
        fix = 'or set "bias": false' if missing[0].endswith("bias") else ""
        raise ConfigError(f"numbers: weights: {missing[0]}", f"is missing, expected shape {shape}", fix)
    state = {n: v for n, v in known.items() if n in _own_names(network) - trained}
    for name, values in given.items():
        state[name] = _shaped(values, known[name].shape, f"numbers: weights: {name}")
    network.load_state_dict(state)


def _own_names(network: Network) -> set[str]:
    """The names of parameters and buffers, each once: no aliases, no views."""
    buffers = {f"{node.name}.{name}" for node in network for name in node.layer.buffers()}
    return {p.name for p in network.parameters()} | (buffers - network.aliases().keys())


def _upstream(given: Any, network: Network, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    if given is None:
        return {}
    named = given if isinstance(given, Mapping) else {_only_output(network, "numbers: upstream"): given}
    for node in named:
        _known_node(node, network, "numbers: upstream")
    return {node: _shaped(values, shapes[node], f"numbers: upstream at {node!r}") for node, values in named.items()}


def _objectives(given: Any, network: Network, shapes: Mapping[str, tuple[int, ...]]) -> tuple[Objective, ...]:
    entries = [] if given is None else given if isinstance(given, list) else [given]
    return tuple(_objective(entry, network, shapes) for entry in entries)


def _objective(entry: Any, network: Network, shapes: Mapping[str, tuple[int, ...]]) -> Objective:
    fields = dict(_object(entry, "numbers: loss"))
    name = fields.pop("name", None)
    if not isinstance(name, str) or name not in LOSSES:
        raise ConfigError("numbers: loss: name", f"expected one of {', '.join(LOSSES)}, got {name!r}")
    node = fields.pop("node", None)
    node = _only_output(network, "numbers: loss: node") if node is None else node
    _known_node(node, network, "numbers: loss: node")
    if "target" not in fields:
        raise ConfigError("numbers: loss: target", "is missing")
    given = fields.pop("target")
    try:
        loss = LOSSES[name](**fields)
    except TypeError:
        known = {"MSE": ["reduction"], "CrossEntropy": ["reduction", "label_smoothing"]}
        names = known.get(name, ["reduction", "from_logits"])
        unknown = set(fields) - set(names)
        raise ConfigError("numbers: loss", f"unknown key {min(unknown)!r}{close(unknown, names)}") from None
    shape = shapes[node]
    if name == "CrossEntropy":
        shape = (shape[0], *shape[2:])
        target = _shaped(given, shape, "numbers: loss: target")
        if not np.array_equal(target, np.round(target)) or target.min() < 0 or target.max() >= shapes[node][1]:
            problem = f"expected classes from 0 to {shapes[node][1] - 1}, got {given!r}"
            raise DataError("numbers: loss: target", problem)
        target = target.astype(np.int64)
    else:
        target = _shaped(given, shape, "numbers: loss: target")
        if name == "BinaryCrossEntropy" and not (target.min() >= 0 and target.max() <= 1):
            raise DataError("numbers: loss: target", f"expected numbers from 0 to 1, got {given!r}")
    return Objective(node, name, loss, target, fields)


def _only_output(network: Network, where: str) -> str:
    if len(network.outputs) != 1:
        raise ConfigError(where, f"the network has several outputs ({', '.join(network.outputs)})", "name the node")
    return network.outputs[0]


def _known_node(node: Any, network: Network, where: str) -> None:
    names = [n.name for n in network.nodes]
    if node not in names:
        raise ConfigError(where, f"there is no node {node!r}{close({str(node)}, names)}")


def _array(values: Any, where: str) -> Array:
    array = numbers(values, np.float64, where)
    if not np.isfinite(array).all():
        raise DataError(where, "expected finite numbers, got NaN or infinity")
    if array.size == 0:
        raise ShapeError(where, "expected numbers, got none")
    return array


def _shaped(values: Any, shape: tuple[int, ...], where: str) -> Array:
    """The numbers in this shape; axes of length 1 may have been left out."""
    array = _array(values, where)
    if _squeezed(array.shape) != _squeezed(shape):
        raise ShapeError(where, f"expected shape {text(shape)}, got {text(array.shape) or 'a single number'}")
    return array.reshape(shape)


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        got = "nothing" if value is None else type(value).__name__
        raise ConfigError(where, f"expected an object of names and values, got {got}")
    return value


def _string(config: Mapping[str, Any], key: str) -> str:
    value = config.get(key, "")
    if not isinstance(value, str):
        raise ConfigError(key, f"expected a text, got {type(value).__name__}")
    return value


def _sources(given: Any) -> tuple[tuple[str, str], ...]:
    entries = [] if given is None else given if isinstance(given, list) else [given]
    found = []
    for entry in entries:
        if isinstance(entry, str):
            found.append((entry, entry if entry.startswith("http") else ""))
        elif isinstance(entry, Mapping) and {"title", "url"} >= entry.keys():
            found.append((_string(entry, "title") or _string(entry, "url"), _string(entry, "url")))
        else:
            raise ConfigError("source", 'expected an address, or objects of "title" and "url"')
    return tuple(found)


def _focus(given: Any) -> Mapping[str, str] | None:
    if given is None:
        return None
    entries = _object(given, "focus")
    if not set(entries) <= {"node", "weight"} or not all(isinstance(v, str) for v in entries.values()):
        raise ConfigError("focus", 'expected texts "node" and "weight"')
    return entries
