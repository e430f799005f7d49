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
from typing import Any

from sharedgrad.data import Normalization
from sharedgrad.errors import CheckpointError, SharedgradError
from sharedgrad.geometry import text
from sharedgrad.network import Network
from sharedgrad.storage import load, save, write_text
from sharedgrad.training.files import CHECKPOINT, CONFIG, MODEL, RUN

_FORMAT, _VERSION = "sharedgrad run", 1


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
    """

    network: Network
    data: str
    classes: tuple[str, ...]
    normalization: Normalization
    input_shape: tuple[int, int, int]
    settings: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    background: str = "white"


def save_run(folder: str | Path, run: Run) -> None:
    """Write model.safetensors, model.json and run.json.

    Raises:
        OutputError: The folder cannot be written.
    """
    folder = Path(folder)
    save(run.network, folder / MODEL)
    write_text(folder / CONFIG, _json(run.network.to_config()))
    description = {
        "format": _FORMAT,
        "version": _VERSION,
        "data": run.data,
        "classes": list(run.classes),
        "input_shape": list(run.input_shape),
        "normalization": run.normalization.to_config(),
        "background": run.background,
        "settings": dict(run.settings),
        "results": dict(run.results),
    }
    write_text(folder / RUN, _json(description))


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def load_run(folder: str | Path) -> Run:
    """Read a run folder.

    Raises:
        CheckpointError: It is none, training has not come to its end, or a file is damaged.
    """
    folder = Path(folder)
    path = folder / RUN
    if not path.is_file():
        raise CheckpointError(folder, *_why_not(folder))
    try:
        found = json.loads(path.read_text("utf-8"))
        if found["format"] != _FORMAT or found["version"] != _VERSION:
            raise ValueError(f"expected {_FORMAT!r} version {_VERSION}")
        channels, height, width = (int(n) for n in found["input_shape"])
        network = load(folder / MODEL)
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
        )
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(path, f"cannot be read ({error.strerror})") from None
    except (SharedgradError, KeyError, TypeError, ValueError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(path, f"is not the description of a run ({reason})") from None


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
