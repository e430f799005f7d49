"""An exercise with somebody's answers, from plain data, a file or text.

    {"layer": "conv2d", "stride": 2, "padding": 1, "x": […], "w": […], "b": […], "upstream": […],
     "answers": {"y": …, "dw": …, "db": …, "dx": …, "w_updated": …}}

or a whole network with its numbers (``calculation``) and answers such as "conv.dw", "conv.dy" (the gradient at its
output), "sigmoid.y", "dx". Arrays may be lists or pasted text. Optional: "layout": "NHWC"; "step" and "dtype", if the
answers are finite differences with this step in this type.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sharedgrad.calculation import Calculation
from sharedgrad.checking.answers import Answer, Typed, read, together
from sharedgrad.errors import ConfigError, DataError, SharedgradError
from sharedgrad.parameter import Array, numbers

_OWN = {"answers", "layout", "step", "dtype"}
_ARRAYS = ("x", "w", "upstream", "target")
_LAYOUTS = ("NCHW", "NHWC")
_MOST_BYTES = 1 << 28


@dataclass(frozen=True)
class Exercise:
    """What is given, what was answered, and how it was written.

    Attributes:
        calculation: The network, its numbers, its losses.
        answers: Name as the person wrote it -> answer, channels first.
        layout: "NCHW" or "NHWC": how the arrays were written.
        options: "step" and "dtype" of finite differences.
    """

    calculation: Calculation
    answers: Mapping[str, Answer]
    layout: str = "NCHW"
    options: Mapping[str, Any] = field(default_factory=dict)


def load(path: str | Path) -> Any:
    """The plain data of a .json file; numbers remember how they were written.

    Raises:
        ConfigError: It cannot be read, or is no JSON.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigError(path, f"is larger than {_MOST_BYTES >> 20} MiB", "check one exercise at a time")
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(path, f"cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(path, "is not a text in UTF-8") from None
    return loads(text, path)


def loads(text: str, where: object = "answers") -> Any:
    """Plain data from JSON text; numbers remember how they were written.

    Raises:
        ConfigError: It is no JSON.
    """
    try:
        return json.loads(text, parse_float=Typed)
    except (ValueError, RecursionError) as error:
        raise ConfigError(where, f"is not valid JSON ({error})") from None


def readings(data: Any) -> list[Exercise]:
    """Every way to read the data that its shapes allow: as it is, then with channels last.

    Raises:
        SharedgradError: There is none; one line that names the field.
    """
    if not isinstance(data, Mapping):
        raise ConfigError("answers", f"expected an object with the exercise, got {type(data).__name__}")
    layout = data.get("layout")
    if layout not in (None, *_LAYOUTS):
        raise ConfigError("layout", f"expected one of {', '.join(_LAYOUTS)}, got {layout!r}")
    wanted = [layout] if layout else list(_LAYOUTS if _has_maps(data) else _LAYOUTS[:1])
    found, problem = [], None
    for name in wanted:
        try:
            found.append(_exercise(data, name))
        except SharedgradError as error:
            problem = problem or error
    if not found:
        assert problem is not None
        raise problem
    return found


def _has_maps(data: Mapping[str, Any]) -> bool:
    return isinstance(data.get("layer"), str) and data["layer"].lower().endswith("2d")


def _exercise(data: Mapping[str, Any], layout: str) -> Exercise:
    answers = data.get("answers")
    if not isinstance(answers, Mapping) or not answers:
        got = "none" if not answers else type(answers).__name__
        raise ConfigError("answers", f"expected an object of arrays, got {got}", 'e.g. "answers": {"dw": [[…]]}')
    given = {k: _plain(v) for k, v in data.items() if k not in _OWN}
    given.setdefault("upstream", None)
    if given["upstream"] is None:
        del given["upstream"]
    if "layer" in given and "upstream" not in given and "loss" not in given:
        given["upstream"] = 0.0  # answers to the forward pass alone
    if layout == "NHWC":
        given = {k: _channels_first(k, v) for k, v in given.items()}
    calculation = _calculation(given)
    read_answers = {str(name): read(value, f"answers: {name}") for name, value in answers.items() if value is not None}
    if layout == "NHWC":
        read_answers = {name: _answer_first(name, a) for name, a in read_answers.items()}
    for name, answer in read_answers.items():
        if answer.values.size == 0 and answer.values.ndim < 2:
            raise DataError(f"answers: {name}", "expected numbers, got none")
    options = {key: data[key] for key in ("step", "dtype") if key in data}
    if "step" in options and not (isinstance(options["step"], int | float) and options["step"] > 0):
        raise ConfigError("step", f"expected a number above 0, got {options['step']!r}")
    if not isinstance(options.get("dtype", ""), str):
        raise ConfigError("dtype", f"expected a name such as float32, got {options['dtype']!r}")
    return Exercise(calculation, together(read_answers), layout, options)


def _calculation(given: dict[str, Any]) -> Calculation:
    upstream = given.get("upstream")
    if isinstance(upstream, float) and upstream == 0.0 and "layer" in given:
        return _forward_only(given)
    return Calculation.of(given)


def _forward_only(given: dict[str, Any]) -> Calculation:
    """A single layer without an upstream gradient: zeros in the output's shape."""
    from sharedgrad.single_layer import expanded

    full = expanded({k: v for k, v in given.items() if k != "upstream"})
    probe = {**full, "numbers": {**full["numbers"], "loss": None}}
    name = full["nodes"][-1]["name"]
    for samples in (1, len(np.atleast_1d(numbers(given["x"], np.float64, "x")))):
        try:
            shape = _output_shape(probe, samples)
            return Calculation.of({**probe, "numbers": {**probe["numbers"], "upstream": {name: np.zeros(shape)}}})
        except SharedgradError:
            continue
    return Calculation.of({**probe, "numbers": {**probe["numbers"], "upstream": {name: 0.0}}})


def _output_shape(config: Mapping[str, Any], samples: int) -> tuple[int, ...]:
    from sharedgrad import configuration
    from sharedgrad.network import Network

    x = numbers(config["numbers"]["x"], np.float64, "x")
    arguments = configuration.arguments({k: v for k, v in config.items() if k not in ("numbers", "title", "source")})
    shape = x.shape[1:] if samples > 1 else x.shape
    network = Network(**{**arguments, "input_shape": shape})
    return (samples, *network.shapes()[network.outputs[0]])


def _plain(value: Any) -> Any:
    """Pasted text becomes an array; all else stays."""
    if isinstance(value, str) and any(c.isdigit() for c in value) and any(c in value for c in "[(;,\n& "):
        try:
            return read(value, "").values.tolist()
        except DataError:
            return value
    return value


def _channels_first(name: str, value: Any) -> Any:
    if name not in _ARRAYS:
        return value
    array = numbers(value, np.float64, name)
    if name == "w":  # height × width × channels × filters, as in TensorFlow and deeplearning.ai's course
        return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
    return np.moveaxis(array, -1, -3) if array.ndim in (3, 4) else array


def _answer_first(name: str, answer: Answer) -> Answer:
    last = name.rpartition(".")[2]
    n = answer.values.ndim
    if last in ("dw", "w_updated", "dweight"):
        return answer.moved(3, 2, 0, 1) if n == 4 else answer
    if last in ("y", "dx", "dy") and n == 4:
        return answer.moved(0, 3, 1, 2)
    return answer.moved(2, 0, 1) if last in ("y", "dx", "dy") and n == 3 else answer


def as_given(array: Array, name: str, layout: str) -> Array:
    """An array with channels first as the person writes it."""
    if layout == "NCHW" or array.ndim != 4:
        return array
    return (
        array.transpose(2, 3, 1, 0) if name.rpartition(".")[2] in ("dw", "w_updated") else array.transpose(0, 2, 3, 1)
    )
