"""``explain``: from a name, a file or numbers to a document that shows itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sharedgrad.calculation import Calculation, Result
from sharedgrad.document import html, latex, page, terminal
from sharedgrad.document.blocks import Document
from sharedgrad.errors import ConfigError
from sharedgrad.explaining import gallery, one_weight, overview, weight_names, whole
from sharedgrad.explaining.cells import EVERYTHING, Limits


@dataclass(frozen=True)
class Explanation:
    """A calculation, written out step by step. ``print`` shows it, a notebook shows its page.

    Attributes:
        document: The steps.
        calculation: The network and its numbers.
        focus: The weight that the page shows first, if there is one.
    """

    document: Document
    calculation: Calculation
    focus: str | None = None

    def text(self, width: int = 80, color: bool = False) -> str:
        """For a terminal, at most ``width`` columns wide."""
        return terminal.render(self.document, width, color)

    @cached_property
    def html(self) -> str:
        """A whole page, which loads nothing: one to touch, or of a network that it cannot compute the steps alone.

        Raises:
            MissingDependencyError: latex2mathml is not installed.
        """
        return page.render(self._example, self.document) if self._can_be_touched else html.render(self.document)

    @property
    def latex(self) -> str:
        """A file for LaTeX that compiles as it is."""
        return latex.render(self.document)

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        if self._can_be_touched:
            return page.notebook(self._example, self.document)
        return html.notebook(self.html)

    @property
    def _example(self) -> dict[str, Any]:
        """The numbers for the page, and what it shows first."""
        example = self.calculation.to_config()
        return example if self.focus is None else {**example, "focus": {"weight": self.focus}}

    @property
    def _can_be_touched(self) -> bool:
        """Whether the page computes all layers, and the network is small enough to be looked at."""
        network = self.calculation.network
        known = all(type(node.layer).__name__ in page.LAYERS for node in network)
        whole = all(weight is weight.base for node in network for weight in node.layer.parameters().values())
        return known and whole and overview.size(self.calculation) <= overview.WRITTEN_OUT


def explain(
    what: str | Path | Mapping[str, Any] | Calculation,
    *,
    weight: str | None = None,
    layer: str | None = None,
    everything: bool = False,
) -> Explanation:
    """Write a calculation out: forward, loss, backward, update, with all its numbers.

    Args:
        what: The name of a worked example (``sharedgrad explain --list`` lists them), a .json or .toml file, or the
            same as a mapping: a network and its numbers (``calculation`` has the schema).
        weight: One weight alone, with all its uses: ``"conv.weight[0,0,1,2]"``.
        layer: One node alone.
        everything: Write out all of large arrays and sums, too.

    Raises:
        SharedgradError: One line: what is wrong with the name, the file or the numbers.

    >>> numbers = {"layer": "conv1d", "x": [1, 2, 3], "w": [0.3, 0.5], "upstream": [-0.1, 0.2]}
    >>> print(explain(numbers, weight="w[0]").document.blocks[1].result)
    0.3
    """
    entry = gallery.find(what) if isinstance(what, str) else None
    calculation = entry.calculation if entry is not None else _calculation(what)
    limits = EVERYTHING if everything else Limits()
    result, focus = calculation.run(), None
    if weight is not None and layer is not None:
        raise ConfigError("explain", "expected a weight or a layer, got both")
    if weight is not None:
        parameter, element = weight_names.read(weight, calculation.network)
        focus = f"{parameter.name}[{','.join(map(str, element))}]"
        document = one_weight.document(calculation, result, parameter, element, limits)
    elif layer is not None:
        document = whole.one_layer(calculation, result, _node(calculation, layer), limits)
    elif entry is not None:
        document = entry.document(result, limits)
    else:
        document = _whole(calculation, result, limits, everything)
    return Explanation(document, calculation, focus)


def _whole(calculation: Calculation, result: Result, limits: Limits, everything: bool) -> Document:
    """All of it, or an overview where that is too much."""
    numbers = overview.size(calculation)
    if everything:
        overview.refuse_if_endless(numbers)
    if everything or numbers <= overview.WRITTEN_OUT:
        return whole.document(calculation, result, limits)
    return overview.document(calculation, result, limits)


def _calculation(what: str | Path | Mapping[str, Any] | Calculation) -> Calculation:
    if isinstance(what, Calculation):
        return what
    if isinstance(what, Mapping):
        return Calculation.of(what)
    if not isinstance(what, str | Path):
        raise ConfigError("explain", f"expected a name, a file or a mapping, got {type(what).__name__}")
    if isinstance(what, str) and not what.endswith((".json", ".toml")) and not Path(what).exists():
        raise gallery.unknown(what)
    return Calculation.read(what)


def _node(calculation: Calculation, name: str) -> str:
    names = [node.name for node in calculation.network]
    if name not in names:
        raise ConfigError(f"layer {name!r}", "there is no such node", f"choose from {', '.join(names)}")
    return name
