"""A report as one HTML file that loads nothing and needs no script: maps over the images, filters, curves, calls."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from importlib.resources import files
from math import prod, sqrt
from string import Template

import numpy as np

from sharedgrad.document.numbers import printable, show
from sharedgrad.document.page.bundle import part
from sharedgrad.geometry import text
from sharedgrad.parameter import Array
from sharedgrad.tracing import pictures
from sharedgrad.tracing.report import Report
from sharedgrad.tracing.tally import Pushing, Tally

LARGEST = 1_800_000  # bytes of a page, so that it goes by mail
_PUSHING = 8  # images each way of all weights together
_WAYS = ((1, "with"), (-1, "against"))


def render(report: Report) -> str:
    """The text of the page.

    Raises:
        MissingDependencyError: Pillow is not installed.
    """
    template = Template(files(__package__).joinpath("page.html").read_text("utf-8"))
    style = part("style.css") + files(__package__).joinpath("page.css").read_text("utf-8")
    writer = _Writer(report)
    head = writer.summary() + writer.pushing()
    return template.substitute(
        title=_text(report.title), facts=_text(report.facts()), style=style, body=head + writer.weights(len(head))
    )


def _text(words: str) -> str:
    return html.escape(printable(words))


class _Writer:
    def __init__(self, report: Report) -> None:
        self.report, self.survey = report, report.survey
        images = report.images
        self.low, self.high = (0.0, 255.0) if images.dtype == np.uint8 else (float(images.min()), float(images.max()))

    # ---- all weights together

    def summary(self) -> str:
        """Whether it adds up, and the table."""
        table = self.report.table()
        head = "".join(f'<th scope="col">{_text(name)}</th>' for name in table.head)
        rows = "".join(map(self._row, zip(table.rows, self.survey.weights, strict=True)))
        kind = "good" if self.report.adds_up else "bad"
        notes = "".join(f"<p>{_text(note)}</p>" for note in self.report.notes)
        return (
            f'<section class="stage"><h2>The parameters</h2><p class="{kind}">{_text(self.report.certificate())}</p>'
            f'{notes}<div class="overflow" tabindex="0" role="region" aria-label="The parameters">'
            f'<table class="all"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></section>'
        )

    def _row(self, row: tuple[tuple[object, ...], str]) -> str:
        (_, *cells), name = row
        link = f'<a href="#{_anchor(name)}">{_text(name)}</a>'
        return f'<tr><th scope="row">{link}</th>{"".join(f"<td>{_text(str(cell))}</td>" for cell in cells)}</tr>'

    def pushing(self) -> str:
        """The images that push hardest each way in all weights together."""
        lists = []
        for sign, way in _WAYS:
            chosen = self.report.hardest(sign)[:_PUSHING]
            if chosen:
                cards = (self.card(n, float(self.survey.shares[n]), self.image(n)) for n in chosen)
                lists.append(_cards(_heading(way), cards))
        if not lists:
            return ""
        heading = "<h2>The images that push hardest, all parameters together</h2>"
        return f'<section class="stage">{heading}{"".join(lists)}</section>'

    # ---- one weight

    def weights(self, used: int) -> str:
        """A section for each weight, as many as there is room for."""
        sections: list[str] = []
        left_out: list[str] = []
        for name, tally in self.survey.weights.items():
            section = self.weight(tally)
            used += len(section)
            if used > LARGEST or left_out:
                left_out.append(name)
                section = (
                    f'<section class="stage" id="{_anchor(name)}"><h2>{_text(name)}</h2><p>No room here.</p></section>'
                )
            sections.append(section)
        if left_out:
            words = f"Pictures of {len(left_out)} parameters would make this page too large: ask for them by --param."
            sections.append(f'<section class="stage"><p>{_text(words)}</p></section>')
        return "".join(sections)

    def weight(self, tally: Tally) -> str:
        """What is known of one weight."""
        norm = show(sqrt(tally.square) / len(self.report.numbers), 3)
        facts = f"{text(tally.gradient.shape)}, {tally.count:,} uses, norm of its gradient {norm}"
        if tally.zero_up_to_rounding:
            body = "<p>Its gradient is zero up to rounding: the uses cancel, and shares are undefined.</p>"
        else:
            places, samples = self.places(tally), self.samples(tally)
            both = f'<div class="beside"><div>{places}</div><div>{samples}</div></div>' if places else samples
            body = self.calls(tally) + both + self.filters(tally)
        head = f"<h2>{_text(tally.name)} <small>{_text(facts)}</small></h2>"
        return f'<section class="stage" id="{_anchor(tally.name)}">{head}{body}</section>'

    def calls(self, tally: Tally) -> str:
        """The share of every call, of a weight that is used in several places of the network."""
        if len(tally.calls) < 2:
            return ""
        names, shares = list(tally.calls), list(tally.calls.values())
        rows = "".join(
            f'<tr><th scope="row">{_text(n)}</th><td>{pictures.percent(s)}</td></tr>' for n, s in tally.calls.items()
        )
        label = f"Share of each call: {', '.join(f'{n} {pictures.percent(s)}' for n, s in tally.calls.items())}"
        drawn = f'<figure class="curve">{pictures.bars(shares, names, label)}</figure>'
        return f'<h3>By call</h3><div class="row">{drawn}<table class="all"><tbody>{rows}</tbody></table></div>'

    def places(self, tally: Tally) -> str:
        """The share of every position, step or token, over all images."""
        if tally.places is None:
            return ""
        assert tally.axis is not None
        if tally.places.ndim == 1:
            label = f"Share of each {tally.axis}, over all images; the largest {_largest(tally.places)}"
            drawn = pictures.bars(list(tally.places), [f"{tally.axis} {i}" for i in range(len(tally.places))], label)
            ends = f'<div class="ends"><span>{tally.axis} 0</span><span>{len(tally.places) - 1}</span></div>'
            caption = f"<figcaption>{_text(label)}</figcaption>"
            return f'<h3>By {tally.axis}</h3><figure class="curve">{drawn}{ends}{caption}</figure>'
        if tally.places.ndim != 2:
            return ""
        cells = pictures.coarse(tally.places)
        limit = float(np.abs(cells).max())
        words = f"Share of each {tally.axis} over all images; the largest {_largest(tally.places)}"
        drawn = f'<div class="plain {_form(tally.places)}">{pictures.share_map(cells, limit, words)}</div>'
        caption = f"<figcaption>{_text(words + _squares(tally.places, cells))}</figcaption>"
        return f'<h3>By {tally.axis}</h3><figure class="sum">{drawn}{pictures.scale(limit)}{caption}</figure>'

    def samples(self, tally: Tally) -> str:
        """The images that push hardest each way, with the maps over them."""
        both = [p for sign, _ in _WAYS for p in tally.hardest(sign)]
        limit = _limit(both)
        lists = [
            _cards(_heading(way), (self.pushed(tally.name, p, limit) for p in tally.hardest(sign)))
            for sign, way in _WAYS
            if tally.hardest(sign)
        ]
        below = pictures.scale(limit) if limit else ""
        return f"{''.join(lists)}{below}"

    def filters(self, tally: Tally) -> str:
        """The filters with the largest gradients, each with the image that pushes it hardest each way."""
        parts = {i: f for i, f in self.survey.filters[tally.name].items() if not f.zero_up_to_rounding}
        if not parts:
            return ""
        limit = _limit([p for f in parts.values() for sign, _ in _WAYS for p in f.hardest(sign)])
        rows = []
        for index, one in parts.items():
            size = pictures.percent(one.square / tally.square).lstrip("+")
            cards = [self.pushed(one.name, p, limit) for sign, _ in _WAYS for p in one.hardest(sign)]
            label = f"<h4>Filter {index}</h4><p>{size} of ‖G‖²</p>"
            rows.append(
                f'<div class="filter"><div class="which">{label}</div><ul class="cards">{"".join(cards)}</ul></div>'
            )
        which = f"the {len(rows)} with the largest gradients; shares are of each filter's own"
        head = f"<h3>Filter by filter <small>{which}</small></h3>"
        return f'{head}<div class="filters">{"".join(rows)}</div>{pictures.scale(limit) if limit else ""}'

    # ---- one image

    def pushed(self, name: str, pushing: Pushing, limit: float) -> str:
        """A card with the image and, where the weight is used at positions of a map, the map over it."""
        n, places = pushing.sample, pushing.places
        drawn = self.image(n)
        if places is not None and places.ndim == 2:
            alt = f"Share of each position of image {self.report.numbers[n]} in {name}; the largest {_largest(places)}"
            over = pictures.share_map(pictures.coarse(places), limit, alt)
            drawn += f'<span class="over">{self.image(n, hidden=True)}{over}</span>'
        return self.card(n, pushing.share, drawn)

    def image(self, n: int, hidden: bool = False) -> str:
        """The image as it lies in the data set."""
        alt = "" if hidden else f"Image {self.report.numbers[n]}, {self.report.seen_as(n)}"
        return pictures.image(self.report.images[n], self.low, self.high, printable(alt))

    def card(self, n: int, share: float, drawn: str) -> str:
        """Pictures of an image, and what is to be said of it."""
        kind, wide = "with" if share > 0 else "against", ' class="two"' if 'class="over"' in drawn else ""
        p = float(np.exp(self.survey.seen.log_p[n].max()))
        seen = f"{self.report.seen_as(n)} ({100 * p:.0f} %)"
        words = f'<b class="{kind}">{pictures.percent(share)}</b> image {self.report.numbers[n]}'
        below = f"<p>{words}<br>{_text(seen)}<br>loss {self.report.loss(n)}</p>"
        return f'<li{wide}><div class="pictures">{drawn}</div>{below}</li>'


def _cards(heading: str, cards: Iterable[str]) -> str:
    return f'<h3>{heading}</h3><ul class="cards">{"".join(cards)}</ul>'


def _heading(way: str) -> str:
    return "With the gradient" if way == "with" else "Against the gradient"


def _anchor(name: str) -> str:
    """A name for links that no other weight has."""
    return "w-" + "".join(c if c.isascii() and c.isalnum() else f"-{ord(c):x}-" for c in name)


def _limit(chosen: Sequence[Pushing]) -> float:
    """The end of one scale for all these maps."""
    maps = [pictures.coarse(p.places) for p in chosen if p.places is not None and p.places.ndim == 2]
    return max((float(np.abs(cells).max()) for cells in maps), default=0.0)


def _form(places: Array) -> str:
    return "wide" if places.shape[1] > places.shape[0] else "high"


def _squares(places: Array, cells: Array) -> str:
    return "" if prod(places.shape) == prod(cells.shape) else f"; added up to {text(cells.shape)} squares"


def _largest(places: Array) -> str:
    best = np.unravel_index(int(np.argmax(np.abs(places))), places.shape)
    return f"{pictures.percent(float(places[best]))} at {','.join(str(int(i)) for i in best)}"
