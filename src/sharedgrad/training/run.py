"""A run folder: everything that belongs to one trained model.

model.safetensors       the network: weights, and its configuration in the metadata
model.json              its configuration alone, to be read and to be trained again (``--model``)
run.json                data, classes, normalization, settings and results
metrics.csv             one row per epoch
curves.png, confusion.png, kernels.png
checkpoint.safetensors  where training can go on
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sharedgrad.data import Normalization
from sharedgrad.errors import CheckpointError, SharedgradError
from sharedgrad.geometry import text
from sharedgrad.layers import Layer
from sharedgrad.network import Network
from sharedgrad.parameter import Array
from sharedgrad.storage import load, save, write_text
from sharedgrad.training.checkpoint import load_partial
from sharedgrad.training.files import CHECKPOINT, CONFIG, MODEL, RUN

_FORMAT, _VERSION = "sharedgrad run", 1
_FAR = 4.0  # standard deviations from the mean
_DAMAGE = (SharedgradError, KeyError, TypeError, ValueError, AttributeError, RecursionError)


class ModelFile(NamedTuple):
    """The Python file that a network was made by: written down, never run because a run folder names it.

    Attributes:
        path: Where it lay.
        function: What was called in it.
        sha256: Of its content then.
        layers: The kinds of layers in the network that are not sharedgrad's.
    """

    path: str
    function: str
    sha256: str
    layers: tuple[str, ...]

    @property
    def missing(self) -> list[str]:
        """Which of these layers have not been defined in this process."""
        return [name for name in self.layers if name not in Layer.registry]


@dataclass(frozen=True)
class Run:
    """A trained network and what is needed to use it.

    Attributes:
        network: With its weights.
        data: Name of the data that it was trained on.
        classes: Names of the classes, in the order of the outputs.
        normalization: Of the pixels, measured on the training part.
        input_shape: (channels, height, width) of an image.
        settings: How it was trained: name -> plain value.
        results: What came of it: name -> plain value.
        background: What transparent images are laid on.
        model_file: The person's own file that made the network, if one did.
        unfinished: How far training had come, where it has not come to its end.
        brightness: Mean and standard deviation of the mean pixel of a training image.
    """

    network: Network
    data: str
    classes: tuple[str, ...]
    normalization: Normalization
    input_shape: tuple[int, int, int]
    settings: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    background: str = "white"
    model_file: ModelFile | None = None
    unfinished: str | None = None
    brightness: tuple[float, float] | None = None

    def looks_inverted(self, pixels: Array) -> bool:
        """Whether an image (C, H, W) of pixels 0..255 is unlike the training images, and like them if inverted."""
        scale = self.normalization.scale
        if self.brightness is None or scale is None:
            return False
        mean, spread = self.brightness
        as_it_is, inverted = (abs(scale * value - mean) for value in (pixels.mean(), 255 - pixels.mean()))
        return bool(as_it_is > max(_FAR * spread, 2 * inverted, scale))


def save_run(folder: str | Path, run: Run) -> None:
    """Write model.safetensors, model.json and run.json.

    Raises:
        OutputError: The folder cannot be written.
    """
    save(run.network, Path(folder) / MODEL)
    describe_run(folder, run)


def describe_run(folder: str | Path, run: Run) -> None:
    """Write model.json and run.json alone: with a checkpoint beside them, :func:`load_run` reads a partial run.

    Raises:
        OutputError: The folder cannot be written.
    """
    folder = Path(folder)
    write_text(folder / CONFIG, _json(run.network.to_config()))
    description = {
        "format": _FORMAT,
        "version": _VERSION,
        "data": run.data,
        "classes": list(run.classes),
        "input_shape": list(run.input_shape),
        "normalization": run.normalization.to_config(),
        "background": run.background,
        "brightness": run.brightness and list(run.brightness),
        "model_file": run.model_file and run.model_file._asdict(),
        "settings": dict(run.settings),
        "results": dict(run.results),
    }
    write_text(folder / RUN, _json(description))


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def load_run(folder: str | Path) -> Run:
    """Read a run folder; of a run that has not come to its end, the network of its checkpoint (see ``unfinished``).

    Layers of one's own have to be defined before: import the file that they are in.

    Raises:
        CheckpointError: It is none, has no model and no checkpoint yet, a file is damaged, or layers are unknown.
    """
    folder = Path(folder)
    found = _description(folder)
    try:
        own = _model_file(found)
        if own and own.missing:
            problem = f"its network has layers of {own.path} ({', '.join(own.missing)})"
            raise CheckpointError(folder, problem, "import that file first")
        channels, height, width = (int(n) for n in found["input_shape"])
        network, unfinished = _network(folder)
        _check_fit(network, (channels, height, width), len(found["classes"]))
        return Run(
            network,
            str(found["data"]),
            tuple(str(name) for name in found["classes"]),
            Normalization.from_config(found["normalization"]),
            (channels, height, width),
            dict(found["settings"]),
            dict(found["results"]),
            str(found.get("background", "white")),
            own,
            unfinished,
            _brightness(found.get("brightness")),
        )
    except CheckpointError:
        raise
    except _DAMAGE as error:
        raise _damaged(folder / RUN, error) from None


def _brightness(found: Any) -> tuple[float, float] | None:
    if found is None:
        return None
    mean, spread = (float(value) for value in found)
    return mean, spread


def _network(folder: Path) -> tuple[Network, str | None]:
    if not (folder / MODEL).exists() and (folder / CHECKPOINT).exists():
        return load_partial(folder / CHECKPOINT)
    return load(folder / MODEL), None


def load_model_file(folder: str | Path) -> ModelFile | None:
    """What a run folder says of the Python file that made its network; nothing of it is run.

    Raises:
        CheckpointError: It is no run folder, or damaged.
    """
    found = _description(Path(folder))
    try:
        return _model_file(found)
    except _DAMAGE as error:
        raise _damaged(Path(folder) / RUN, error) from None


def _description(folder: Path) -> Any:
    """What run.json holds."""
    path = folder / RUN
    if not path.is_file():
        raise CheckpointError(folder, *_why_not(folder))
    try:
        found = json.loads(path.read_text("utf-8"))
        if found["format"] != _FORMAT or found["version"] != _VERSION:
            raise ValueError(f"expected {_FORMAT!r} version {_VERSION}")
        return found
    except OSError as error:
        raise CheckpointError(path, f"cannot be read ({error.strerror})") from None
    except _DAMAGE as error:
        raise _damaged(path, error) from None


def _model_file(found: Any) -> ModelFile | None:
    own = found.get("model_file")
    if own is None:
        return None
    path, function, sha256 = (str(own[name]) for name in ("path", "function", "sha256"))
    return ModelFile(path, function, sha256, tuple(str(name) for name in own["layers"]))


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(path, f"is not the description of a run ({type(error).__name__}: {error})")


def _check_fit(network: Network, input_shape: tuple[int, int, int], classes: int) -> None:
    """Raise ValueError unless the network takes such images to a score for each class."""
    [declared], [output] = network.inputs.values(), network.outputs
    if declared not in (None, input_shape):
        raise ValueError(f"images of {text(input_shape)}, but its network takes {text(declared)}")
    if (shape := network.shapes(input_shape)[output]) != (classes,):
        raise ValueError(f"{classes} classes, but its network gives {text(shape)}")


def _why_not(folder: Path) -> tuple[str, str]:
    """The problem and its fix, for a folder without run.json."""
    advice = "give the folder that training printed at its end"
    if not folder.exists():
        return "there is no such run folder", advice
    if (folder / CHECKPOINT).is_file():
        return "training has not come to its end", "go on with --resume"
    return f"is not a run folder (no {RUN})", advice
