"""A survey in words: a document for the terminal, and plain data for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, isnan, sqrt
from typing import Any

import numpy as np

from sharedgrad.document import terminal
from sharedgrad.document.blocks import Document, Paragraph, Table
from sharedgrad.document.numbers import count
from sharedgrad.parameter import Array
from sharedgrad.tracing.survey import Survey
from sharedgrad.tracing.tally import TOLERANCE, Tally

_PUSHING = 3  # samples each way that the terminal names
_BATCH_NORM = {
    False: "batch norm uses its running statistics, so that no image depends on another",
    True: "batch norm uses each batch's own statistics: images depend on one another, and a share says where a "
    "parameter was used, not what an image's own loss asks for",
}
_DROPOUT = {False: "dropout drops nothing", True: "dropout drops at random"}
_HEAD = ("parameter", "uses", "coherence", "cancel (rand)", "top image", "top place")
_WIDTHS = (9, 9, 13, 14, 14)  # of all columns but the first


@dataclass(frozen=True, eq=False)
class Report:
    """A survey, and what its samples are.

    Attributes:
        survey: What was found.
        model: What the network is called.
        data: What the samples are called, e.g. "1,437 training images of digits".
        classes: Names of the classes.
        images: The samples as they lie in the data set (N, C, H, W).
        numbers: The number of each sample in the part of the data set that it comes from (N,).
        dtype: The type that was computed in.
        notes: What else a reader should know, a sentence each.
    """

    survey: Survey
    model: str
    data: str
    classes: Sequence[str]
    images: Array
    numbers: Array
    dtype: np.dtype[Any]
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The headline."""
        return f"Where the gradient of {self.model} comes from"

    def facts(self) -> str:
        """What was computed on what."""
        seen = self.survey.seen
        found = f"loss {np.mean(seen.losses):.4g}, accuracy {100 * seen.accuracy:.2f} %"
        return f"The mean cross-entropy over {self.data}, in {self.mode()}: {found}."

    def mode(self) -> str:
        """The mode, and what it means for the layers that there are."""
        training, kinds = self.survey.training, self.survey.adapting
        normal = any(kind.startswith("BatchNorm") for kind in kinds)
        means = [_BATCH_NORM[training]] if normal else []
        means += [_DROPOUT[training]] if "Dropout" in kinds else []
        name = "training mode" if training else "evaluation mode"
        return f"{name} ({'; '.join(means)})" if means else name

    @property
    def adds_up(self) -> bool:
        """Whether the uses of every weight add up to its gradient."""
        return all(weight.adds_up for weight in self.survey.weights.values())

    def certificate(self) -> str:
        """Whether the uses add up to the gradients, and how closely."""
        weights = self.survey.weights
        worst = max(weights.values(), key=lambda w: w.residual)
        tolerance = TOLERANCE[self.dtype]
        compared = "the uses of each parameter, summed, against the gradient that tape.backward gives"
        if self.adds_up:
            return (
                f"Adds up: {compared}; largest residual {worst.residual:.1g} ({worst.name}), allowed {tolerance:.0g}."
            )
        wrong = ", ".join(f"{w.name} ({w.residual:.1g})" for w in weights.values() if not w.adds_up)
        return f"DOES NOT ADD UP: {compared}; residual above {tolerance:.0g} in {wrong}."

    def text(self, width: int, color: bool) -> str:
        """For the terminal, in lines of at most ``width`` columns."""
        head = terminal.render(Document(self.title, (Paragraph.of(self.facts()),)), width, color)
        rows = self.table()
        longest = max(len(str(row[0])) for row in rows.rows)
        room = min(max(longest, len(_HEAD[0])), width - sum(_WIDTHS) - len(_WIDTHS))
        fits = room > len(_HEAD[0])
        listed = "\n".join(_line(row, room) for row in (_HEAD, *rows.rows))
        lines = listed if fits else terminal.text([rows], width, color)
        words = [self.certificate(), *self.pushing(), *self.notes]
        return "\n\n".join([head.rstrip(), lines, terminal.text([Paragraph.of(w) for w in words], width, color)])

    def table(self) -> Table:
        """A row for each parameter."""
        head = ("parameter", "uses", "coherence", "cancellation (random)", "top sample", "top position")
        return Table(head, tuple(self._row(weight) for weight in self.survey.weights.values()))

    def _row(self, weight: Tally) -> tuple[str, ...]:
        cancels = f"{number(weight.cancellation)} ({number(weight.random)})"
        if weight.zero_up_to_rounding:
            return weight.name, f"{weight.count:,}", "zero", cancels, "–", "–"
        both = [*weight.hardest(1)[:1], *weight.hardest(-1)[:1]]
        top = max(both, key=lambda p: abs(p.share), default=None)
        sample = "–" if top is None else f"{self.numbers[top.sample]} ({percent(top.share)})"
        place = "–" if weight.places is None else f"{_place(weight.places)} ({percent(_largest(weight.places))})"
        return weight.name, f"{weight.count:,}", number(weight.coherence), cancels, sample, place

    def pushing(self) -> list[str]:
        """The samples that push hardest each way in all weights together."""
        words = []
        for sign, way in ((1, "with the gradient"), (-1, "against it")):
            chosen = self.hardest(sign)[:_PUSHING]
            if chosen:
                words.append(f"Pushing hardest {way}: {'; '.join(map(self.sample, chosen))}.")
        return words

    def hardest(self, sign: int) -> list[int]:
        """The samples with the largest shares of one sign in all weights together, the largest first."""
        shares = self.survey.shares
        order = np.argsort(-sign * shares, kind="stable")
        return [int(n) for n in order if sign * shares[n] > 0]

    def sample(self, n: int) -> str:
        """E.g. ``image 12 (7, taken for 1; loss 3.2): +4.1 %``."""
        return f"image {self.numbers[n]} ({self.seen_as(n)}; loss {self.loss(n)}): {percent(self.survey.shares[n])}"

    def seen_as(self, n: int) -> str:
        """The class of a sample, and the one that it was taken for."""
        label, predicted = self.survey.seen.labels[n], self.survey.seen.predicted[n]
        own = self.classes[label]
        return own if label == predicted else f"{own}, taken for {self.classes[predicted]}"

    def loss(self, n: int) -> str:
        """A sample's own loss."""
        return f"{self.survey.seen.losses[n]:.3g}"

    def data_of(self) -> dict[str, Any]:
        """Plain data for JSON."""
        seen, n = self.survey.seen, len(self.numbers)
        pushing = {way: [self._sample(i) for i in self.hardest(s)[:10]] for s, way in ((1, "with"), (-1, "against"))}
        return {
            "model": self.model,
            "data": self.data,
            "samples": n,
            "mode": "training" if self.survey.training else "evaluation",
            "loss": float(np.mean(seen.losses)),
            "accuracy": seen.accuracy,
            "adds_up": self.adds_up,
            "parameters": [self._parameter(weight, n) for weight in self.survey.weights.values()],
            "pushing": pushing,
        }

    def _parameter(self, weight: Tally, samples: int) -> dict[str, Any]:
        named = {"uses": weight.count, "norm": sqrt(weight.square) / samples, "coherence": weight.coherence}
        named |= {"cancellation": weight.cancellation, "random": weight.random, "residual": weight.residual}
        top = {
            way: [{"sample": int(self.numbers[p.sample]), "share": p.share} for p in weight.hardest(sign)]
            for sign, way in ((1, "with"), (-1, "against"))
        }
        calls = {} if weight.zero_up_to_rounding else weight.calls
        plain = {name: value if isfinite(value) else None for name, value in named.items()}
        shape = list(weight.gradient.shape)
        return {"name": weight.name, "shape": shape, **plain, "adds_up": weight.adds_up, "calls": calls, **top}

    def _sample(self, n: int) -> dict[str, Any]:
        seen = self.survey.seen
        return {
            "sample": int(self.numbers[n]),
            "class": self.classes[seen.labels[n]],
            "predicted": self.classes[seen.predicted[n]],
            "loss": float(seen.losses[n]),
            "share": float(self.survey.shares[n]),
        }


def named(number: int, noun: str, rest: str) -> str:
    """``1437, "image", "of digits"`` -> "1,437 images of digits"."""
    return f"{count(number, noun)} {rest}"


def percent(share: float) -> str:
    """0.0312 -> +3.1 %, with as many digits as tell something."""
    size = 100 * abs(share)
    digits = ".0f" if size >= 9.95 else ".1f" if size >= 0.95 else ".1g"
    return f"{100 * share:+{digits}}\N{NO-BREAK SPACE}%"


def _line(cells: Sequence[object], room: int) -> str:
    """A row of the table; a name that is longer than ``room`` has a line of its own."""
    name, *rest = map(str, cells)
    numbers = "".join(f" {cell:>{wide}}" for cell, wide in zip(rest, _WIDTHS, strict=True))
    above = f"{name}\n{' ' * room}" if len(name) > room else f"{name:<{room}}"
    return f"{above}{numbers}".rstrip()


def number(value: float) -> str:
    """A coherence or cancellation in few digits; a dash where it is undefined, and no zero below zero."""
    return "–" if isnan(value) else f"{round(value, 3) + 0:.3f}" if value < 100 else f"{value:,.0f}"


def _largest(places: Array) -> float:
    return float(places.reshape(-1)[np.argmax(np.abs(places))])


def _place(places: Array) -> str:
    """The index with the largest share of either sign."""
    return ",".join(str(int(i)) for i in np.unravel_index(int(np.argmax(np.abs(places))), places.shape))
