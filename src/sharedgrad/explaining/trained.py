"""One weight of a trained network on one image: which positions its gradient comes from."""

from __future__ import annotations

import io
from collections.abc import Sequence
from math import ceil

import numpy as np

from sharedgrad.calculation import Calculation, Objective, Result
from sharedgrad.document.blocks import Block, Document, Figure, Grid, Paragraph, Section
from sharedgrad.document.expression import Symbol
from sharedgrad.document.numbers import count, show
from sharedgrad.errors import ConfigError, require
from sharedgrad.explaining import one_weight, weight_names
from sharedgrad.explaining.cells import EVERYTHING, Limits
from sharedgrad.explaining.explanation import Explanation
from sharedgrad.explaining.names import Names
from sharedgrad.losses import CrossEntropy
from sharedgrad.network import Network
from sharedgrad.parameter import Array, Parameter

_CAPTION = "Red adds to the gradient, blue takes away from it. The map of positions is stretched over the image."
_COARSE = 8  # rows and columns of the map that a terminal shows


def explain_trained(
    network: Network,
    x: Array,
    pixels: Array,
    classes: Sequence[str],
    weight: str | None = None,
    label: str | None = None,
    everything: bool = False,
) -> Explanation:
    """The uses of one weight on one image.

    What goes back is the gradient of the cross-entropy for ``label``, or without a label that of the score of the
    class that the network sees.

    Args:
        network: A classifier with one input and one output.
        x: The image as the network takes it (C, H, W).
        pixels: The image as a person sees it (C, H, W), values from 0 to 1 or of 8 bits.
        classes: Their names.
        weight: ``"conv1.weight[0,0,1,2]"``; by default the one with the largest gradient in the first shared kernel.
        label: The name of the class that the image is of.
        everything: List all uses.

    Raises:
        ConfigError: There is no such weight or class.
    """
    calculation, words = _calculation(network, x, classes, label)
    result = calculation.run()
    if weight is None:
        parameter, element = _largest(calculation.network, result)
    else:
        parameter, element = weight_names.read(weight, calculation.network)
    limits = EVERYTHING if everything else Limits()
    plain = one_weight.document(calculation, result, parameter, element, limits)
    place = _map(Names(calculation, result), parameter, element, pixels)
    return Explanation(Document(plain.title, (Paragraph.of(words), *place, *plain.blocks)), calculation)


def _calculation(network: Network, x: Array, classes: Sequence[str], label: str | None) -> tuple[Calculation, str]:
    """The network in float64 and in evaluation mode, and what goes back from its output."""
    twin = Network.from_config({**network.to_config(), "dtype": "float64"})
    twin.load_state_dict(network.state_dict())
    (name,), (output,) = twin.inputs, twin.outputs
    scores = np.asarray(twin.predict(x[None]))[0]
    seen = int(np.argmax(scores))
    inputs = {name: np.asarray(x, np.float64)[None]}
    saw = f"The network sees {classes[seen]} in this image (score {show(float(scores[seen]))}). "
    if label is None:
        one_hot = np.zeros((1, *scores.shape))
        one_hot[0, seen] = 1
        words = saw + "What goes back is the gradient of this score: which uses of the weight raise or lower it."
        return Calculation(twin, inputs, {output: one_hot}, training=False), words
    if label not in classes:
        raise ConfigError(f"label {label!r}", "there is no such class", f"choose from {', '.join(classes[:20])}")
    objective = Objective(output, "CrossEntropy", CrossEntropy(), np.array([list(classes).index(label)]), {})
    words = saw + f"What goes back is the gradient of the cross-entropy for the class {label}."
    return Calculation(twin, inputs, {}, (objective,), training=False), words


def _largest(network: Network, result: Result) -> tuple[Parameter, tuple[int, ...]]:
    """The element with the largest gradient of the first kernel that is used at several positions."""
    names = [n for n, p in ((p.name, p) for p in network.parameters()) if len(p.shape) > 2]
    name = names[0] if names else network.parameters()[0].name
    gradient = result.gradients[name]
    place = np.unravel_index(int(np.argmax(np.abs(gradient))), gradient.shape)
    return network.parameter(name).base, tuple(int(i) for i in place)


def _map(names: Names, parameter: Parameter, element: tuple[int, ...], pixels: Array) -> list[Block]:
    """Where on the image the contributions come from; nothing for a weight without positions."""
    for node in names.network:
        for use in names.uses(node, parameter):
            if len(use.axes.get("position", ())) == 2:
                values = np.asarray(use.products(*element).values, np.float64).reshape(use.shape)[0]
                return [_section(values, pixels, parameter, element)]
    return []


def _section(values: Array, pixels: Array, parameter: Parameter, element: tuple[int, ...]) -> Section:
    total = float(values.sum())
    place = f"{parameter.name}[{','.join(map(str, element))}]"
    best = np.unravel_index(int(np.argmax(np.abs(values))), values.shape)
    alt = (
        f"The contributions of all {values.size} positions to the gradient of {place}, over the image; the largest, "
        f"{show(float(values[best]))}, at position {int(best[0])},{int(best[1])}."
    )
    blocks: list[Block] = [Figure(_figure(values, pixels), alt, _CAPTION)]
    step = max(ceil(values.shape[0] / _COARSE), ceil(values.shape[1] / _COARSE))
    coarse = Symbol("contributions", _blocks(values, step))
    words = "position by position" if step == 1 else f"added up in squares of {step}×{step} positions"
    blocks.append(Paragraph.of(f"The contributions, {words}; together they are the gradient, ", total, ":"))
    blocks.append(Grid(coarse))
    size = float(np.abs(values).sum())
    resolved = abs(total) > 16 * np.finfo(np.float64).eps * size
    if resolved:
        largest = np.argsort(-np.abs(values).reshape(-1), kind="stable")[: max(1, values.size // 10)]
        share = float(values.reshape(-1)[largest].sum() / total)
        blocks.append(
            Paragraph.of(
                f"The largest tenth of them ({count(len(largest), 'position')}) has the share ", share, " of it."
            )
        )
    else:
        blocks.append(
            Paragraph.of("The contributions cancel: the gradient is 0 up to rounding, and shares mean nothing.")
        )
    return Section("Where it comes from", tuple(blocks), "map")


def _blocks(values: Array, step: int) -> Array:
    """Sums over squares of ``step`` positions; what is left over at the edges makes smaller ones."""
    rows = np.add.reduceat(values, np.arange(0, values.shape[0], step), axis=0)
    return np.asarray(np.add.reduceat(rows, np.arange(0, values.shape[1], step), axis=1))


def _figure(values: Array, pixels: Array) -> bytes:
    """The image in grey, and over it the contributions on a scale that is white at zero."""
    figure_class = require("matplotlib.figure", "the picture of a weight's positions").Figure
    figure = figure_class(figsize=(6, 3), dpi=120, layout="constrained")
    plain, over = figure.subplots(1, 2)
    grey = pixels.mean(axis=0)
    extent = (0, grey.shape[1], grey.shape[0], 0)
    limit = float(np.abs(values).max()) or 1.0
    plain.imshow(grey, cmap="gray", extent=extent)
    over.imshow(grey, cmap="gray", extent=extent)
    shown = over.imshow(
        values,
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
        alpha=0.9 * np.sqrt(np.abs(values) / limit),  # where nothing comes from, the image shows
        extent=extent,
        interpolation="nearest",
    )
    figure.colorbar(shown, ax=over, label="contribution")
    for axes, title in ((plain, "image"), (over, "contributions")):
        axes.set_title(title)
        axes.set_axis_off()
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
