"""The idea on a model that has just been trained: the gradient of one shared weight is the sum over its uses."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, log10, prod

import numpy as np

from sharedgrad.geometry import text
from sharedgrad.optimizers import SGD, Optimizer
from sharedgrad.parameter import Array, Parameter
from sharedgrad.training.history import Step
from sharedgrad.uses import Outer, Uses, Window

_LARGEST = 3


def idea(step: Step) -> str:
    """One weight of the first shared kernel: its uses in a batch, their sum, and the update made of it.

    Of a network without convolutions the first parameter that is used more than once. The element is the one
    with the largest gradient.

    Args:
        step: The step to explain, e.g. ``history.last_step``.

    Returns:
        A few lines of text.
    """
    parameter = _shared(step)
    calls = step.trace[parameter][::-1]
    gradient = step.gradients[parameter]
    element = tuple(int(i) for i in np.unravel_index(np.argmax(np.abs(gradient)), gradient.shape))
    terms = [uses.products(*element).values.astype(np.float64).reshape(uses.shape) for uses in calls]
    place = f"[{', '.join(map(str, element))}]"
    return "\n".join(
        [
            f"One weight, {parameter.name}{place}, in the last batch:",
            f"  used {_times(sum(t.size for t in terms))}: {_counts(calls)}",
            *_largest(calls, terms, element),
            *_sum(terms, float(gradient[element]), float(step.applied[parameter][element])),
            f"  {_update(step, parameter, element)}",
        ]
    )


def _shared(step: Step) -> Parameter:
    """The parameter to show."""
    uses = [use for call in reversed(step.trace.calls) for use in call.uses]
    kernels = [use.weight for use in uses if isinstance(use, Window)]
    repeated = [use.weight for use in uses if sum(u.count for u in step.trace[use.weight]) > 1]
    return [*kernels, *repeated, uses[0].parameter][0]


def _counts(calls: list[Uses]) -> str:
    """E.g. "64 samples × 28×28 positions"; calls that share the parameter are added."""
    return " + ".join(
        " × ".join(f"{text(lengths)} {_noun(axis, prod(lengths))}" for axis, lengths in uses.axes.items())
        for uses in calls
    )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _noun(axis: str, count: int) -> str:
    noun = "time step" if axis == "time" else axis
    return noun if count == 1 else noun + "s"


def _largest(calls: list[Uses], terms: list[Array], element: tuple[int, ...]) -> Iterator[str]:
    """The contributions of largest size, factor by factor."""
    flat = np.concatenate([t.ravel() for t in terms])
    call_of = np.repeat(np.arange(len(terms)), [t.size for t in terms])
    starts = np.cumsum([0, *(t.size for t in terms)])
    rows = []
    for number in np.argsort(-np.abs(flat), kind="stable")[:_LARGEST]:
        call = int(call_of[number])
        index = np.unravel_index(number - starts[call], terms[call].shape)
        use = calls[call].place(tuple(int(i) for i in index))
        where = [f"call {call + 1}"] if len(calls) > 1 else []
        where += [f"{axis} {','.join(map(str, i))}" for axis, i in use.items()]
        rows.append((", ".join(where), _factors(calls[call], use, element), f"{flat[number]:+.4g}"))
    wide = [max(len(row[i]) for row in rows) for i in range(3)]
    what = "upstream δ × input x" if isinstance(calls[0], Outer | Window) else "upstream δ × local derivative"
    yield f"  its largest contributions ({what}):"
    for place, factors, value in rows:
        yield f"    {place:<{wide[0]}}   {factors:>{wide[1]}}{value:>{wide[2]}}"


def _factors(uses: Uses, use: dict[str, tuple[int, ...]], element: tuple[int, ...]) -> str:
    """ "δ × x = " for one use and one element of the parameter; nothing where the factors are not kept apart."""
    if not isinstance(uses, Outer | Window):
        return ""
    delta, patch = uses.factors(**use)
    flat = int(np.ravel_multi_index(element, uses.weight.shape))
    b, o, i = np.unravel_index(flat, (*delta.shape, patch.shape[-1]))
    return f"{delta[b, o]:.4g} × {patch[b, i]:.4g} = "


def _sum(terms: list[Array], gradient: float, applied: float) -> Iterator[str]:
    """All contributions added up, beside what backward gave and what the optimizer was given."""
    total = sum(float(t.sum()) for t in terms)
    size = sum(float(np.abs(t).sum()) for t in terms)
    agrees = abs(total - gradient) <= 1e-5 * size
    verdict = "the same" if agrees else f"{gradient:.6g}, which does not agree"
    yield f"  the sum of all {sum(t.size for t in terms):,} is the gradient: {total:.6g} (tape.backward: {verdict})"
    if applied != gradient:
        yield f"  clipped to max_norm with all other gradients: {applied:.6g}"


def _update(step: Step, parameter: Parameter, element: tuple[int, ...]) -> str:
    """What the optimizer made of it."""
    before, after = (float(values[parameter][element]) for values in (step.before, step.after))
    if step.after[parameter] is step.before[parameter]:
        return f"no update: the optimizer does not train {parameter.name}"
    how = _rule(step.optimizer, step.learning_rate)
    if after == before and step.applied[parameter][element]:
        dtype = step.before[parameter].dtype
        return f"one update of the one weight: too small for {dtype}, it stays {before:.4g} ({how})"
    old, new = _distinct(before, after)
    if isinstance(step.optimizer, SGD) and not step.optimizer.momentum and not step.optimizer.weight_decay:
        product = f"{step.learning_rate:.4g} × {step.applied[parameter][element]:.6g}"
        return f"one update of the one weight: {old} − {product} = {new} ({how})"
    return f"one update of the one weight: {old} → {new}, a change of {after - before:+.4g} ({how})"


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
