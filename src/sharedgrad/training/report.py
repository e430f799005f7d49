"""The idea on a model that has just been trained: the gradient of one shared weight is the sum over its uses."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, log10, prod

import numpy as np

from sharedgrad.geometry import text
from sharedgrad.optimizers import SGD, Optimizer
from sharedgrad.training.step import Axes, Step
from sharedgrad.uses import Terms

_LARGEST = 3


def idea(step: Step) -> str:
    """One number of a shared weight: its uses in a batch, their sum, and the update made of it.

    Args:
        step: The step to explain, e.g. ``history.step``.

    Returns:
        A few lines of text.
    """
    place = f"[{', '.join(map(str, step.element))}]"
    when = f"batch {step.batch} of {step.batches} of epoch {step.epoch}"
    return "\n".join(
        [
            f"One weight, {step.weight}{place}, in {when}:",
            f"  used {_times(len(step.terms))}: {' + '.join(map(_count, step.calls))}",
            *_largest(step),
            *_sum(step),
            f"  {_update(step)}",
        ]
    )


def _count(axes: Axes) -> str:
    """E.g. "64 samples × 28×28 positions"."""
    return " × ".join(f"{text(lengths)} {_noun(axis, prod(lengths))}" for axis, lengths in axes.items())


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _noun(axis: str, count: int) -> str:
    noun = "time step" if axis == "time" else axis
    return noun if count == 1 else noun + "s"


def _largest(step: Step) -> Iterator[str]:
    """The contributions of largest size, factor by factor."""
    largest = step.terms.rows(np.argsort(-np.abs(step.terms.values), kind="stable")[:_LARGEST])
    rows = [(_where(step, largest, i), _factors(largest, i), f"{v:+.4g}") for i, v in enumerate(largest.values)]
    wide = [max(len(row[i]) for row in rows) for i in range(3)]
    yield f"  its largest contributions (upstream δ{' × input x' if len(largest.factors) > 1 else ''}):"
    for where, factors, value in rows:
        yield f"    {where:<{wide[0]}}   {factors:>{wide[1]}}{value:>{wide[2]}}"


def _where(step: Step, terms: Terms, row: int) -> str:
    """E.g. "sample 3, position 5,7"."""
    call = 0 if terms.call is None else int(terms.call[row])
    where = [f"call {call + 1}"] if len(step.calls) > 1 else []
    places = ((axis, terms.use[axis][row, : len(lengths)]) for axis, lengths in step.calls[call].items())
    return ", ".join([*where, *(f"{axis} {','.join(map(str, place))}" for axis, place in places)])


def _factors(terms: Terms, row: int) -> str:
    """ "δ × x = "; nothing where the contribution is the upstream gradient itself."""
    factors = [f"{factor.values[row]:.4g}" for factor in terms.factors.values()]
    return f"{' × '.join(factors)} = " if len(factors) > 1 else ""


def _sum(step: Step) -> Iterator[str]:
    """All contributions added up, beside what backward gave and what the optimizer was given."""
    values = step.terms.values.astype(np.float64)
    total, size = float(values.sum()), float(np.abs(values).sum())
    agrees = abs(total - step.gradient) <= 1e-5 * size
    verdict = "the same" if agrees else f"{step.gradient:.6g}, which does not agree"
    yield f"  the sum of all {len(values):,} is the gradient: {total:.6g} (tape.backward: {verdict})"
    if step.applied != step.gradient:
        yield f"  clipped to max_norm with all other gradients: {step.applied:.6g}"


def _update(step: Step) -> str:
    """What the optimizer made of it."""
    if not step.trained:
        return f"no update: the optimizer does not train {step.weight}"
    how = _rule(step.optimizer, step.learning_rate)
    if step.after == step.before and step.applied:
        return f"one update of the one weight: too small for {step.dtype}, it stays {step.before:.4g} ({how})"
    old, new = _distinct(step.before, step.after)
    if isinstance(step.optimizer, SGD) and not step.optimizer.momentum and not step.optimizer.weight_decay:
        product = f"{step.learning_rate:.4g} × {step.applied:.6g}"
        return f"one update of the one weight: {old} − {product} = {new} ({how})"
    return f"one update of the one weight: {old} → {new}, a change of {step.after - step.before:+.4g} ({how})"


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
