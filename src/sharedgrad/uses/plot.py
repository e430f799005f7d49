"""Pictures of shares: maps over images, curves over steps, bars for calls; drawn with matplotlib's objects alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from sharedgrad.errors import ConfigError, require
from sharedgrad.geometry import text
from sharedgrad.parameter import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WITH, AGAINST = "#b2182b", "#2166ac"  # the ends of RdBu_r: with the gradient, and against it
_ACROSS = 3  # maps in a row, and as many again where images stand beside them
_MOST_BARS = 40


def draw(
    weight: Any, by: str | None, samples: int | Sequence[int], images: Any, labels: Sequence[Any] | None
) -> Figure:
    """The figure that ``SharedWeight.plot`` describes, of anything with its ``axes``, ``name`` and ``share``."""
    if not weight.count:
        raise ConfigError(f"plot of {weight.name}", "there is no use to draw: the batch is empty")
    by = _axis(weight, by)
    if by == "call":
        names = [call.node or f"call {i}" for i, call in enumerate(weight.calls)]
        return _bars(weight.name, "call", names, 100 * _plain(weight.share("call")))
    if by == "sample":
        shares = 100 * _plain(weight.share("sample"))
        _refuse_undefined(weight, shares)
        chosen = _chosen(shares, min(samples, _MOST_BARS) if isinstance(samples, int) else samples)
        return _bars(weight.name, "sample", [_title(n, labels) for n in chosen], shares[chosen])
    rank = len(weight.axes[by])
    if rank not in (1, 2):
        raise ConfigError(f"plot of {weight.name}", f"{by} has {rank} axes; a picture has one or two", "choose by=")
    apart = "sample" in weight.axes and samples != 0
    shares = 100 * _plain(weight.share(("sample", by) if apart else by))
    _refuse_undefined(weight, shares)
    chosen = _chosen(shares.reshape(len(shares), -1).sum(axis=1), samples) if apart else []
    if rank == 1:
        return _curves(weight.name, by, shares, chosen, labels)
    pictures = None if images is None or not apart else _grey(weight.name, images, shares.shape[0])
    return _maps(weight.name, by, shares, chosen, pictures, labels)


def _axis(weight: Any, by: str | None) -> str:
    """The axis to draw: by default one that is no sample's; else calls, else samples."""
    places = [name for name in weight.axes if name != "sample"]
    calls = len(getattr(weight, "calls", ())) > 1
    known = [*places, *(["call"] if calls else []), *(["sample"] if "sample" in weight.axes else [])]
    if not known:
        raise ConfigError(f"plot of {weight.name}", "there is one use: nothing to tell apart")
    if by is not None and by not in known:
        raise ConfigError(
            f"plot of {weight.name}", f"there is no axis {by!r} to draw", f"choose from {', '.join(known)}"
        )
    return by or known[0]


def _refuse_undefined(weight: Any, shares: Array) -> None:
    if not np.isfinite(shares).all():
        reason = getattr(weight, "undefined", "") or "zero up to rounding, or not finite"
        raise ConfigError(f"plot of {weight.name}", f"shares are undefined: the gradient is {reason}")


def _chosen(shares: Array, samples: int | Sequence[int]) -> list[int]:
    """The samples to show: those of the largest shares of either sign, or those that were asked for."""
    if isinstance(samples, int | np.integer):
        if samples < 0:
            raise ConfigError("plot: samples", f"expected a number of samples or their indices, got {samples}")
        return [int(i) for i in np.argsort(-np.abs(shares), kind="stable")[:samples]]
    chosen = list(samples) if isinstance(samples, Iterable) else [samples]
    for n in chosen:
        if not isinstance(n, int | np.integer) or not 0 <= n < len(shares):
            raise ConfigError("plot: samples", f"expected indices from 0 to {len(shares) - 1}, got {n!r}")
    return [int(n) for n in chosen]


def _grey(name: str, images: Any, samples: int) -> Array:
    """Images (N, H, W) or (N, C, H, W), the channels averaged."""
    try:
        array = np.asarray(images.detach().cpu() if hasattr(images, "detach") else images, np.float64)
    except (TypeError, ValueError):
        raise ConfigError(
            f"plot of {name}: images", f"expected arrays of numbers, got {type(images).__name__}"
        ) from None
    if array.ndim not in (3, 4) or len(array) != samples:
        expected = f"expected images ({samples}, channels, height, width) or ({samples}, height, width)"
        raise ConfigError(f"plot of {name}: images", f"{expected}, got {text(array.shape)}")
    return array if array.ndim == 3 else array.mean(axis=1)


def _maps(
    name: str, by: str, shares: Array, chosen: list[int], images: Array | None, labels: Sequence[Any] | None
) -> Figure:
    """One map for each chosen sample, over its image and beside it; or one of all samples together."""
    panels = [shares[n] for n in chosen] if chosen else [shares if shares.ndim == 2 else shares.sum(axis=0)]
    each = 1 if images is None else 2
    across = min(len(panels), _ACROSS if each == 2 else 2 * _ACROSS)
    down = ceil(len(panels) / across)
    figure = _figure(1.9 * across * each + 1.4, 2.1 * down + 0.9)
    axes = figure.subplots(down, across * each, squeeze=False).reshape(-1)
    limit = max(float(np.abs(np.stack(panels)).max()), np.finfo(float).tiny)
    extent = (0, panels[0].shape[1], panels[0].shape[0], 0)
    colors = require("matplotlib", "drawing").colormaps["RdBu_r"] if images is None else _see_through()
    for number, panel in enumerate(panels):
        over = axes[number * each + each - 1]
        look: dict[str, Any] = {"cmap": colors, "vmin": -limit, "vmax": limit, "interpolation": "nearest"}
        if images is not None:
            image = images[chosen[number]]
            axes[number * each].imshow(image, cmap="gray", extent=extent)
            reach = float(np.ptp(image)) or 1.0
            over.imshow(image, cmap="gray", extent=extent, vmin=image.min() - 3 * reach)  # light, below the map
        over.imshow(panel, extent=extent, aspect="equal" if images is None else _aspect(images, panel), **look)
        axes[number * each].set_aspect(over.get_aspect())
        title = f"{_title(chosen[number], labels)}: " if chosen else ""
        over.set_title(f"{title}{panel.sum():+.3g} %", fontsize=9, parse_math=False)
    for one in axes:
        one.set_axis_off()
    _color_bar(figure, axes, colors, limit)
    what = (
        f"each of {text(panels[0].shape)} {by}s" if chosen else f"each of {text(panels[0].shape)} {by}s, over all uses"
    )
    stretched = " The map is stretched over the image." if images is not None else ""
    _caption(figure, f"{name}: share of {what} in its gradient, all on one scale of ±{limit:.3g} %.{stretched}")
    return figure


def _aspect(images: Array, panel: Array) -> float:
    """How much higher than wide a position is, for the map to have the image's form."""
    return float(images.shape[1] / images.shape[2] * panel.shape[1] / panel.shape[0])


def _see_through() -> Any:
    """Red and blue that let the image show where there is little: √ makes small shares visible, too."""
    steps = np.linspace(-1, 1, 255)
    convert = require("matplotlib.colors", "drawing")
    rows = [(*convert.to_rgb(WITH if step > 0 else AGAINST), np.sqrt(abs(step))) for step in steps]
    return convert.ListedColormap(rows, "shares")


def _color_bar(figure: Figure, axes: Any, colors: Any, limit: float) -> None:
    mapping = require("matplotlib.cm", "drawing").ScalarMappable(cmap=colors)
    mapping.set_clim(-limit, limit)
    figure.colorbar(mapping, ax=list(axes), fraction=0.04, pad=0.02, label="share in the gradient (%)")


def _curves(name: str, by: str, shares: Array, chosen: list[int], labels: Sequence[Any] | None) -> Figure:
    """The share of every step over all samples, and below it that of the chosen samples."""
    figure = _figure(7.5, 2.8 + (2.6 if chosen else 0))
    panels = figure.subplots(2 if chosen else 1, 1, squeeze=False, sharex=True).reshape(-1)
    total = shares if shares.ndim == 1 else shares.sum(axis=0)
    steps = np.arange(len(total))
    panels[0].bar(steps, total, color=[WITH if v >= 0 else AGAINST for v in total])
    panels[0].set_title(f"all samples: {total.sum():.4g} %", fontsize=9)
    if chosen:
        colors = require("matplotlib", "drawing").colormaps["viridis"]
        for number, n in enumerate(chosen):
            label = f"{_title(n, labels)}: {shares[n].sum():+.3g} %"
            panels[1].plot(steps, shares[n], color=colors(0.9 * number / len(chosen)), marker=".", label=label)
        panels[1].legend(frameon=False, fontsize=8)
    for axes in panels:
        _around_zero(axes)
        axes.set_ylabel("share (%)")
    panels[-1].set_xlabel(by)
    panels[-1].xaxis.set_major_locator(require("matplotlib.ticker", "drawing").MaxNLocator(integer=True))
    _caption(figure, f"{name}: share of each {by} in its gradient; red with it, blue against it.")
    return figure


def _around_zero(axes: Axes) -> None:
    """One symmetrical scale."""
    limit = max(map(abs, axes.get_ylim()))
    axes.set_ylim(-limit, limit)
    axes.axhline(0, color="0.4", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)


def _bars(name: str, by: str, names: Sequence[str], shares: Array) -> Figure:
    """A bar for each call or sample."""
    if not np.isfinite(shares).all():
        raise ConfigError(f"plot of {name}", "shares are undefined: the gradient is zero up to rounding")
    figure = _figure(7, 1.3 + 0.3 * len(names))
    axes = figure.add_subplot()
    bars = axes.barh(np.arange(len(names)), shares, color=[WITH if v >= 0 else AGAINST for v in shares])
    axes.bar_label(bars, [f"{v:+.3g} %" for v in shares], padding=3, fontsize=8)
    axes.set_yticks(np.arange(len(names)), names, parse_math=False)
    axes.invert_yaxis()
    limit = 1.25 * max(float(np.abs(shares).max()), np.finfo(float).tiny)
    axes.set_xlim(-limit, limit)
    axes.axvline(0, color="0.4", linewidth=0.8)
    axes.set_xlabel("share in the gradient (%)")
    axes.spines[["top", "right"]].set_visible(False)
    _caption(figure, f"{name}: share of each {by} in its gradient; red with it, blue against it.")
    return figure


def _title(sample: int, labels: Sequence[Any] | None) -> str:
    if labels is None:
        return f"sample {sample}"
    if not hasattr(labels, "__len__") or len(labels) <= sample:
        got = len(labels) if hasattr(labels, "__len__") else repr(labels)
        raise ConfigError("plot: labels", f"expected a label for every sample, got {got}")
    label = labels[sample]
    return f"sample {sample} ({label.item() if hasattr(label, 'item') else label})"


def _plain(value: Any) -> Array:
    """Numbers to draw, from arrays and tensors."""
    if isinstance(value, list):
        problem = "calls have axes of different lengths"
        raise ConfigError("plot", problem, "choose by='call' or by='sample'")
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value, np.float64)


def _figure(width: float, height: float) -> Figure:
    figure: Figure = require("matplotlib.figure", "drawing").Figure((width, height), layout="constrained")
    return figure


def _caption(figure: Figure, words: str) -> None:
    figure.supxlabel(words, fontsize=8, wrap=True, parse_math=False)
