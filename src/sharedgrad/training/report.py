"""The idea on a model that has just been trained: the gradient of one shared weight is the sum over its uses."""

from __future__ import annotations

from math import ceil, log10, prod

import numpy as np

from sharedgrad.document.blocks import Block, Equation, Paragraph, Part, Section, Table
from sharedgrad.document.expression import Difference, Number, Product, Symbol
from sharedgrad.document.numbers import show
from sharedgrad.geometry import text
from sharedgrad.optimizers import SGD, Optimizer
from sharedgrad.training.step import Axes, Step
from sharedgrad.uses import Terms

_LARGEST = 3


def idea(step: Step) -> Section:
    """One number of a shared weight: its uses in a batch, their sum, and the update made of it.

    Args:
        step: The step to explain, e.g. ``history.step``.

    Returns:
        A section for a renderer of ``document``.
    """
    when = f"batch {step.batch} of {step.batches} of epoch {step.epoch}"
    used = f"used {_times(len(step.terms))}: {' + '.join(map(_count, step.calls))}"
    blocks = (Paragraph.of(used), _largest(step), _sum(step), *_update(step))
    return Section(f"One weight, {place(step)}, in {when}", blocks)


def place(step: Step) -> str:
    """The number that is shown, as ``sharedgrad explain --weight`` takes it."""
    return f"{step.weight}[{','.join(map(str, step.element))}]"


def _count(axes: Axes) -> str:
    """E.g. "64 samples × 28×28 positions"."""
    return " × ".join(f"{text(lengths)} {_noun(axis, prod(lengths))}" for axis, lengths in axes.items())


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _noun(axis: str, count: int) -> str:
    noun = "time step" if axis == "time" else axis
    return noun if count == 1 else noun + "s"


def _largest(step: Step) -> Table:
    """The contributions of largest size, factor by factor."""
    largest = step.terms.rows(np.argsort(-np.abs(step.terms.values), kind="stable")[:_LARGEST])
    factors = list(largest.factors.values())
    head = ("its largest contributions", "upstream δ", *(["input x", "product"] if len(factors) > 1 else []))
    rows: list[tuple[Part, ...]] = []
    for row, product in enumerate(largest.values):
        numbers = [float(factor.values[row]) for factor in factors]
        rows.append((_where(step, largest, row), *numbers, *([float(product)] if len(factors) > 1 else [])))
    return Table(head, tuple(rows))


def _where(step: Step, terms: Terms, row: int) -> str:
    """E.g. "sample 3, position 5,7"."""
    call = 0 if terms.call is None else int(terms.call[row])
    where = [f"call {call + 1}"] if len(step.calls) > 1 else []
    places = ((axis, terms.use[axis][row, : len(lengths)]) for axis, lengths in step.calls[call].items())
    return ", ".join([*where, *(f"{axis} {','.join(map(str, place))}" for axis, place in places)])


def _sum(step: Step) -> Paragraph:
    """All contributions added up, beside what backward gave and what the optimizer was given."""
    values = step.terms.values.astype(np.float64)
    total, size = float(values.sum()), float(np.abs(values).sum())
    agrees = abs(total - step.gradient) <= 1e-5 * size
    verdict: tuple[Part, ...] = ("the same",) if agrees else (step.gradient, ", which does not agree")
    clipped: tuple[Part, ...] = ()
    if step.applied != step.gradient:
        clipped = (" It was clipped to max_norm with all other gradients: ", step.applied, ".")
    first = f"the sum of all {len(values):,} is the gradient: "
    return Paragraph.of(first, total, " (tape.backward: ", *verdict, ").", *clipped)


def _update(step: Step) -> list[Block]:
    """What the optimizer made of it."""
    if not step.trained:
        return [Paragraph.of(f"no update: the optimizer does not train {step.weight}")]
    how = _rule(step.optimizer, step.learning_rate)
    if step.after == step.before and step.applied:
        words = f"one update of the one weight: too small for {step.dtype}, it stays "
        return [Paragraph.of(words, step.before, f" ({how})")]
    plain = isinstance(step.optimizer, SGD) and not step.optimizer.momentum and not step.optimizer.weight_decay
    if plain and (show(step.before) != show(step.after) or not step.applied):
        w, dw = Symbol(place(step), np.array(step.before)), Symbol("gradient", np.array(step.applied))
        change = Product((Number(step.learning_rate), dw.cell()))
        return [
            Paragraph.of(f"one update of the one weight ({how}):"),
            Equation("new", Difference(w.cell(), change), step.after),
        ]
    old, new = _distinct(step.before, step.after)
    words = f"one update of the one weight: {old} → {new}, a change of {step.after - step.before:+.4g} ({how})"
    return [Paragraph.of(words)]


def _distinct(before: float, after: float) -> tuple[str, str]:
    """Both with as many digits as their difference needs."""
    digits = 4
    if after != before:
        digits += max(ceil(log10(max(abs(before), abs(after)) / abs(after - before))) - 2, 0)
    return f"{before:.{digits}g}", f"{after:.{digits}g}"


def _rule(optimizer: Optimizer, learning_rate: float) -> str:
    parts = [type(optimizer).__name__, f"learning rate of this step {learning_rate:.4g}"]
    for name in ("momentum", "weight_decay"):
        if value := getattr(optimizer, name, 0):
            parts.append(f"{name.replace('_', ' ')} {value:g}")
    return ", ".join(parts)
