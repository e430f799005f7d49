"""A calculation as one HTML page that can be touched: data, style and script in one file, which loads nothing.

The page computes all that it shows from the example's numbers, by one module for all layers (``script/network.js``), so
that an edited number moves everything at once. The tests compare it with the engine.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping
from itertools import dropwhile, takewhile
from string import Template
from typing import Any

from sharedgrad.document.blocks import Block, Document, Paragraph, Section
from sharedgrad.document.html import fragment
from sharedgrad.document.page.bundle import part, script
from sharedgrad.errors import ConfigError

LAYERS = (
    *("Conv1d", "Conv2d", "LocallyConnected1d", "LocallyConnected2d", "Linear", "RNN"),
    *("MaxPool1d", "MaxPool2d", "AvgPool1d", "AvgPool2d", "GlobalAvgPool"),
    *("ReLU", "Sigmoid", "Tanh", "Softmax", "Add", "Concat", "Flatten", "Reshape"),
)


def render(example: Mapping[str, Any], document: Document | None = None) -> str:
    """The page of an example.

    Args:
        example: A network with its numbers in full form, as ``Calculation.to_config`` gives it.
        document: The calculation written out, which stands below the pictures.

    Returns:
        The text of an HTML file.

    Raises:
        ConfigError: The network has a layer that the page cannot compute.
        MissingDependencyError: latex2mathml is not installed.
    """
    for node in example["nodes"]:
        if "layer" in node and node["layer"] not in LAYERS:
            known = ", ".join(sorted(LAYERS))
            raise ConfigError(
                f"node {node.get('name')!r}", f"the page cannot show a {node['layer']}", f"it shows {known}"
            )
    title = str(example.get("title", "")) or "A calculation"
    return Template(part("template.html")).substitute(
        title=html.escape(title),
        source=_sources(example.get("source", ())),
        about=_paragraphs(str(example.get("about", ""))) if document is None else _introduction(document),
        written="" if document is None else _written(document),
        example=_data(example),
        style=part("style.css"),
        vendor=part("vendor", "htm-preact.js"),
        script=script(),
    )


def notebook(example: Mapping[str, Any], document: Document | None = None, height: int = 900) -> str:
    """The page in a frame of its own, ``height`` pixels high, for a notebook's cell; raises as :func:`render`."""
    page = html.escape(render(example, document), quote=True)
    return (
        f'<iframe srcdoc="{page}" title="{html.escape(str(example.get("title", "")), quote=True)}" '
        f'sandbox="allow-scripts allow-downloads" style="width: 100%; height: {height}px; border: 0"></iframe>'
    )


def _introduction(document: Document) -> str:
    """The paragraphs before the first step."""
    blocks = takewhile(lambda block: isinstance(block, Paragraph), document.blocks)
    return f'<div class="about">{fragment(list(blocks))}</div>'


def _written(document: Document) -> str:
    """The steps, one below the other, each of which opens."""
    blocks = dropwhile(lambda block: isinstance(block, Paragraph), document.blocks)
    stale = '<p class="stale">Written for the first numbers, not for the edited ones.</p>'
    return f'<section id="written"><h2>Written out, step by step</h2>{stale}{"".join(map(_step, blocks))}</section>'


def _step(block: Block) -> str:
    if not isinstance(block, Section):
        return fragment([block], level=3)
    return f"<details><summary>{html.escape(block.title)}</summary>{fragment(block.blocks, level=3)}</details>"


def _data(example: Mapping[str, Any]) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(example, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _paragraphs(text: str) -> str:
    parts = [" ".join(part.split()) for part in text.split("\n\n")]
    return "".join(f'<p class="about">{html.escape(part)}</p>' for part in parts if part)


def _sources(sources: str | Iterable[Mapping[str, str]]) -> str:
    entries = [{"url": sources}] if isinstance(sources, str) else list(sources)
    links = [_link(entry.get("url", ""), entry.get("title") or entry.get("url", "")) for entry in entries if entry]
    return f'<p class="source">Source: {", ".join(links)}</p>' if links else ""


def _link(url: str, title: str) -> str:
    if not url.startswith(("https://", "http://")):
        return html.escape(title)
    return f'<a href="{html.escape(url, quote=True)}">{html.escape(title)}</a>'
