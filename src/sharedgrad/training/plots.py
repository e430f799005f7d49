"""The pictures of a run folder, drawn with matplotlib's objects alone: no windows, no global state."""

from __future__ import annotations

import io
import warnings
from math import ceil, sqrt
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from sharedgrad.errors import require
from sharedgrad.layers import Conv2d
from sharedgrad.network import Network
from sharedgrad.parameter import Array
from sharedgrad.storage import write_bytes
from sharedgrad.training.history import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TRAIN, _VALIDATION = "#1f77b4", "#d95f02"
_LONGEST_NAME = 18
_MOST_NUMBERS = 20  # classes up to which every cell of the confusion matrix is labelled
_MOST_TICKS = 50
_ZOOM = 4  # pixels along a cell of a kernel
_GAP = 3  # and between two kernels


def curves(history: History, path: str | Path, watched: str = "validation") -> None:
    """Loss and accuracy over the epochs, in training and on the data watched after every epoch.

    Args:
        history: The epochs.
        path: The file to write.
        watched: What these data are called.

    Raises:
        OutputError: The file cannot be written.
        MissingDependencyError: matplotlib is not installed.
    """
    figure = _figure(9, 3.6)
    loss, accuracy = figure.subplots(1, 2)
    _lines(loss, history, "loss", 1, watched)
    loss.set_title("loss")
    loss.set_ylim(bottom=0)
    _lines(accuracy, history, "accuracy", 100, watched)
    accuracy.set_title("accuracy (%)")
    accuracy.set_ylim(top=100.5)
    _write(figure, path)


def _lines(axes: Axes, history: History, quantity: str, scale: float, watched: str) -> None:
    for part, label, color in (("train", "training", _TRAIN), ("val", watched, _VALIDATION)):
        points = [(row.epoch, getattr(row, f"{part}_{quantity}")) for row in history.rows]
        points = [(epoch, scale * value) for epoch, value in points if value is not None]
        if points:
            axes.plot(*zip(*points, strict=True), color=color, label=label, marker="o", markersize=3)
            axes.legend(frameon=False)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(require("matplotlib.ticker", "drawing").MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlim(0.5, len(history.rows) + 0.5)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def confusion(labels: Array, predictions: Array, classes: tuple[str, ...], path: str | Path) -> str | None:
    """How often each class was taken for each other, on held-out data.

    Args:
        labels: True classes (N,).
        predictions: Predicted classes (N,).
        classes: Their names.
        path: The file to write.

    Returns:
        None, or what stands for names that no installed font can show.

    Raises:
        OutputError: The file cannot be written.
        MissingDependencyError: matplotlib is not installed.
    """
    count = len(classes)
    matrix = np.zeros((count, count), np.int64)
    np.add.at(matrix, (labels, predictions), 1)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 2.2 + min(max(0.42 * count, 3.0), 11.0)
    figure = _figure(side + 0.6, side)
    axes = figure.add_subplot()
    # the square root makes the rare mistakes visible beside the diagonal
    image = axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.02)
    bar.set_ticks(np.sqrt([0, 0.01, 0.1, 0.25, 0.5, 1]).tolist(), labels=["0", "1 %", "10 %", "25 %", "50 %", "100 %"])
    bar.set_label("share of the true class")
    note = _name_axes(axes, classes)
    if count <= _MOST_NUMBERS:
        _number_cells(axes, matrix, shares)
    right = int(np.trace(matrix))
    axes.set_title(f"{right:,} of {len(labels):,} right ({100 * right / max(len(labels), 1):.2f} %)")
    _write(figure, path)
    return note


def _name_axes(axes: Axes, classes: tuple[str, ...]) -> str | None:
    every = ceil(len(classes) / _MOST_TICKS)
    places = range(0, len(classes), every)
    shown, families = _showable([_shortened(classes[i]) for i in places])
    names = [name if name is not None else f"class {i}" for i, name in zip(places, shown, strict=True)]
    size = 9 if len(classes) <= _MOST_NUMBERS else 7
    flat = max(map(len, names)) <= 2
    # a class may be called "$5": no mathematics
    look: dict[str, Any] = {"fontsize": size, "parse_math": False, "fontfamily": families}
    axes.set_xticks(places, names, rotation=0 if flat else 90, **look)
    axes.set_yticks(places, names, **look)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if None in shown:
        return "no installed font has the letters of some class names: in the picture they are numbered"
    return None


def _showable(names: list[str]) -> tuple[list[str | None], list[str]]:
    """The names, None where no installed font has their letters; and the fonts that have them."""
    manager = require("matplotlib.font_manager", "drawing")
    families = ["DejaVu Sans"]
    missing = {ord(c) for name in names for c in name} - _letters(manager, manager.findfont("DejaVu Sans"))
    for font in sorted(manager.fontManager.ttflist, key=lambda font: font.name) if missing else ():
        # the font of last resort draws a box that says which letter is missing
        if font.name in families or "Last Resort" in font.name:
            continue
        if missing & (has := _letters(manager, font.fname)):
            families.append(font.name)
            missing -= has
    return [None if missing & set(map(ord, name)) else name for name in names], families


def _letters(manager: ModuleType, path: str) -> set[int]:
    try:
        return set(manager.get_font(path).get_charmap())
    except (OSError, RuntimeError):  # a font that cannot be read has none
        return set()


def _number_cells(axes: Axes, matrix: Array, shares: Array) -> None:
    for (row, column), number in np.ndenumerate(matrix):
        if number:
            color = "white" if shares[row, column] > 0.3 else "black"
            axes.text(column, row, str(number), ha="center", va="center", color=color, fontsize=8)


def _shortened(name: str) -> str:
    name = "".join(c if c.isprintable() else "?" for c in name)
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def kernels(network: Network, path: str | Path) -> str | None:
    """The kernels of the first layer: in colour for three channels, else signed maps, blue below and red above 0.

    Returns:
        None, or why there is nothing to draw (then no file is written).

    Raises:
        OutputError: The file cannot be written.
        MissingDependencyError: matplotlib is not installed.
    """
    first = next((node.layer for node in network if node.layer.parameters()), None)
    if not isinstance(first, Conv2d):
        return "the first layer with weights is no Conv2d, so there are no kernels to draw"
    weight = first.weight.value.astype(np.float64)
    reach = float(np.abs(weight).max()) or 1.0
    filters, channels, height, width = weight.shape
    title = f"{first.name}.weight: {filters} kernels of {height}×{width}"
    if channels == 3:  # grey is 0; a colour says which channels the kernel looks for
        colours = 0.5 + weight.transpose(0, 2, 3, 1) / (2 * reach)
        picture = _mosaic(_enlarged(colours), _GAP, 1.0)
    else:
        title += "" if channels == 1 else f" in {channels} channels, side by side"
        maps = _enlarged(weight.reshape(-1, height, width)).reshape(filters, channels, _ZOOM * height, -1)
        picture = _mosaic(np.stack([_beside(tiles, 1) for tiles in maps]), _GAP, np.nan)
    _draw_kernels(picture, reach, title, path)
    return None


def _enlarged(tiles: Array) -> Array:
    """Tiles (N, height, width, …) with every cell as so many pixels, which makes room for narrow gaps."""
    return tiles.repeat(_ZOOM, axis=1).repeat(_ZOOM, axis=2)


def _beside(tiles: Array, gap: int, fill: float = np.nan) -> Array:
    """Tiles (N, height, width, …) in a row."""
    padded = np.pad(tiles, [(0, 0), (0, 0), (0, gap), *[(0, 0)] * (tiles.ndim - 3)], constant_values=fill)
    return np.concatenate(list(padded), axis=1)[:, :-gap]


def _mosaic(tiles: Array, gap: int, fill: float) -> Array:
    """Tiles (N, height, width, …) in a nearly square table."""
    columns = ceil(sqrt(len(tiles) * tiles.shape[1] / tiles.shape[2]))
    missing = -len(tiles) % columns
    tiles = np.concatenate([tiles, np.full((missing, *tiles.shape[1:]), fill)])
    rows = np.stack([_beside(tiles[i : i + columns], gap, fill) for i in range(0, len(tiles), columns)])
    return _beside(rows.swapaxes(1, 2), gap, fill).swapaxes(0, 1)


def _draw_kernels(picture: Array, reach: float, title: str, path: str | Path) -> None:
    height, width = picture.shape[:2]
    scale = 6 / max(height, width)
    figure = _figure(max(width * scale, 3) + 1.2, max(height * scale, 1) + 0.6)
    axes = figure.add_subplot()
    image = axes.imshow(picture, cmap="RdBu_r", vmin=-reach, vmax=reach, interpolation="nearest")
    if picture.ndim == 2:
        figure.colorbar(image, ax=axes, fraction=0.046, pad=0.02)
    axes.set_axis_off()
    axes.set_title(title, fontsize=10, parse_math=False, wrap=True)
    _write(figure, path)


def _figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    figure: Figure = require("matplotlib.figure", "drawing").Figure((width, height), layout="constrained")
    return figure


def _write(figure: Figure, path: str | Path) -> None:
    """Render to memory, then write the file whole."""
    picture = io.BytesIO()
    with warnings.catch_warnings():  # a folder, which a title may name, may hold letters that the font lacks
        warnings.simplefilter("ignore")
        figure.savefig(picture, format="png", dpi=130, bbox_inches="tight", pad_inches=0.15)
    write_bytes(path, picture.getvalue())
