"""What ``--model`` may be: a ready-made network, a function in a Python file, or a configuration file."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import inspect
import shlex
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sharedgrad import configuration
from sharedgrad.cli.echo import say
from sharedgrad.errors import CheckpointError, ConfigError, ShapeError
from sharedgrad.geometry import text
from sharedgrad.models import MODELS
from sharedgrad.network import Network
from sharedgrad.training.run import ModelFile, Run, load_model_file, load_run

Shape = tuple[int, ...]

_HOW_TO = "write def FUNCTION(input_shape, classes) that returns a sharedgrad.Network"


def build_model(model: str, input_shape: Shape, classes: int, seed: int = 0) -> Network:
    """The network that ``--model`` names.

    Args:
        model: The name of a ready-made network, FILE.py:FUNCTION (called as FUNCTION(input_shape, classes); its
            own seed draws the first weights), or a .json or .toml file (``configuration`` has the schema).
        input_shape: Shape of one sample; an input for which a file declares no shape takes this one.
        classes: Number of classes.
        seed: Draws the first weights, unless a configuration names its own.

    Raises:
        ConfigError: There is no such model, or it cannot be made.
        ShapeError: Its layers do not fit each other or the input.
    """
    file, _, function = model.rpartition(":")
    if model in MODELS:
        return MODELS[model](input_shape, classes, seed)
    if file.endswith(".py"):
        network = _call(Path(file), function, input_shape, classes)
    elif model.endswith((".json", ".toml")):
        network = _configured(Path(model), seed)
    else:
        raise ConfigError(f"model {model}", *_unknown(model))
    network.inputs = {name: shape or input_shape for name, shape in network.inputs.items()}
    return network


def model_file(model: str, network: Network) -> ModelFile | None:
    """What a run writes down of the Python file that ``--model`` names; None where it names none."""
    file, _, function = model.rpartition(":")
    if not file.endswith(".py"):
        return None
    kinds = {type(node.layer) for node in network}
    own = sorted(kind.__name__ for kind in kinds if not kind.__module__.startswith("sharedgrad."))
    return ModelFile(str(Path(file).resolve()), function, _sha256(Path(file)), tuple(own))


def open_run(run: str, model: str | None, command: str) -> Run:
    """A trained model; layers of one's own come from the file that the person names, never from what the run says.

    Args:
        run: The run folder.
        model: FILE.py:FUNCTION, which is imported; None where the person named none.
        command: The command line so far, for the message.

    Raises:
        CheckpointError: It is no run folder, damaged, or needs a file that was not named.
        ConfigError: There is no such file or function.
    """
    own = load_model_file(run)
    if model is not None:
        file, _, function = model.rpartition(":")
        if not file.endswith(".py"):
            raise ConfigError("--model", f"expected FILE.py:FUNCTION, got {model}")
        _function(Path(file), function)
        if own and _sha256(Path(file)) != own.sha256:
            say(f"warning: {file} has changed since {run} was trained", err=True)
    elif own and own.missing:
        problem = f"its network has layers of your own ({', '.join(own.missing)}); no file is run unless you name it"
        fix = f"{command} --model {shlex.quote(f'{own.path}:{own.function}')}"
        raise CheckpointError(run, problem, fix)
    return load_run(run)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_classifier(network: Network, model: str, input_shape: Shape, classes: int) -> None:
    """Raise ShapeError unless the network takes one input of this shape to one score for each class."""
    if len(network.inputs) != 1 or len(network.outputs) != 1:
        got = f"{len(network.inputs)} inputs and {len(network.outputs)} outputs"
        raise ShapeError(f"model {model}", f"expected one input and one output, got {got}")
    [declared] = network.inputs.values()
    if declared != input_shape:
        expected = f"takes samples of {text(declared or ())}, the data have {text(input_shape)}"
        raise ShapeError(f"model {model}", expected, "change its input shape, or resize images with --size")
    [output] = network.outputs
    if (shape := network.shapes()[output]) != (classes,):
        problem = f"expected one score for each of {classes} classes, got an output of {text(shape) or '1'}"
        raise ShapeError(f"model {model}: {network[output].label}", problem, f"let it give {classes} features")


def _unknown(model: str) -> tuple[str, str]:
    if model.endswith(".py"):
        return "names no function", f"write {model}:FUNCTION"
    guess = difflib.get_close_matches(model, MODELS, 1)
    fix = f"choose from {', '.join(MODELS)}, or give FILE.py:FUNCTION or a .json or .toml file"
    return "there is no such model", f"did you mean {guess[0]}?" if guess else fix


def _configured(path: Path, seed: int) -> Network:
    config = configuration.read(path)
    try:
        return Network.from_config({"seed": seed, **config} if isinstance(config, dict) else config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.where}", error.problem, error.fix) from None
    except ShapeError as error:
        raise ShapeError(f"{path}: {error.where}", error.problem, error.fix) from None


def _call(path: Path, name: str, input_shape: Shape, classes: int) -> Network:
    function = _function(path, name)
    where = f"{path}:{name}"
    try:
        inspect.signature(function).bind(input_shape, classes)
    except (TypeError, ValueError) as error:
        raise ConfigError(where, f"cannot be called with (input_shape, classes): {error}", _HOW_TO) from None
    try:
        network = function(input_shape, classes)
    except (Exception, SystemExit) as error:
        raise ConfigError(where, _cause(error, path)) from error
    if not isinstance(network, Network):
        raise ConfigError(where, f"expected a Network, got {type(network).__name__}", _HOW_TO)
    return network


def _function(path: Path, name: str) -> Callable[..., Any]:
    if not path.is_file():
        raise ConfigError(path, "there is no such model file")
    spec = importlib.util.spec_from_file_location("sharedgrad_model_file", path.resolve())
    assert spec is not None  # a name that ends in .py always has a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.resolve().parent))  # so that it finds its neighbours, as a script would
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ConfigError(path, f"does not import: {_cause(error, path)}") from error
    function = getattr(module, name, None)
    if isinstance(function, Network) or not callable(function):
        problem = f"has no function {name!r}" if function is None else f"{name!r} is no function"
        guess = difflib.get_close_matches(name, [n for n, v in vars(module).items() if callable(v)], 1)
        raise ConfigError(path, problem, f"did you mean {guess[0]!r}?" if guess else _HOW_TO)
    return function


def _cause(error: BaseException, path: Path) -> str:
    """What went wrong inside a model file, and in which of its lines."""
    frames = traceback.extract_tb(error.__traceback__)
    line = next((f.lineno for f in reversed(frames) if f.filename == str(path.resolve())), None)
    message = str(error)
    if isinstance(error, SyntaxError) and error.filename == str(path.resolve()):
        line, message = error.lineno, error.msg
    return f"{type(error).__name__}{f' in line {line}' if line else ''}: {message}"
