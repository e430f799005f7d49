"""Checking a person's own layer: does it keep the contract of ``Layer``, and is its gradient the gradient?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from sharedgrad.checking import api
from sharedgrad.checking.answers import read
from sharedgrad.checking.bench import NODE, Bench, Found, StoppedError, examples
from sharedgrad.checking.differences import compare
from sharedgrad.checking.given import Given
from sharedgrad.checking.layer_report import MODES, LayerReport, gathered, told
from sharedgrad.checking.report import Report
from sharedgrad.checking.structure import structure
from sharedgrad.errors import ConfigError, SharedgradError
from sharedgrad.geometry import text
from sharedgrad.layers.layer import Layer
from sharedgrad.network import Network
from sharedgrad.parameter import Array
from sharedgrad.randomness import generator

_SAME = 1e-9  # relative: the same numbers, added in another order
_DIGITS = 6  # of finite differences that can be trusted
_WEIGHTS = ("w", "b")

STATE = "keep nothing on self: return in `saved` what backward needs"


def check(layer: Layer, inputs: Sequence[Any], input_shape: Any, like: Layer | str | None) -> LayerReport:
    """What :func:`sharedgrad.check_layer` does."""
    if isinstance(layer, type) or not isinstance(layer, Layer):
        got = f"the class {layer.__name__}" if isinstance(layer, type) else type(layer).__name__
        raise ConfigError("check_layer", f"expected a layer, got {got}", "pass one: check_layer(MyLayer(…), …)")
    arrays = examples(layer, inputs, input_shape)
    found: list[tuple[str, str, str]] = []
    remarks: list[str] = []
    for mode in MODES:
        faults: list[Found] = []
        try:
            remarks += _one_mode(layer, arrays, mode == "training", faults)
        except StoppedError:
            remarks.append(f"In {mode} mode nothing further was tried: the layer cannot be called.")
        found += [(mode, *fault) for fault in faults]
    likeness = None
    if like is not None and not any("raises" in problem for _, problem, _ in found):
        likeness = _likeness(Bench(layer, arrays, True, np.float64, []), like)
    kind = type(layer).__name__
    return LayerReport(kind, gathered(kind, found), tuple(dict.fromkeys(remarks)), likeness)


def _one_mode(layer: Layer, inputs: Sequence[Array], training: bool, found: list[Found]) -> list[str]:
    """All that is tried in one mode; remarks come back."""
    for dtype in (np.float32, np.float64):
        bench = Bench(layer, inputs, training, dtype, found)
        given = [x.copy() for x in bench.inputs]
        y, saved = bench.forward()
        bench.gradients(bench.backward(saved, bench.upstream(y))[1])
        if not _unchanged(bench, given):
            return []
    if not _repeats(bench, y):
        return []
    remarks: list[str] = []
    stopped = False
    for step in (_changes_nothing, _keeps_nothing, _needs, _samples, _counts, _terms, _configuration, _in_a_network):
        if step is _in_a_network and stopped:
            continue  # it would fail once more
        try:
            remarks += step(bench, y)
        except StoppedError:
            stopped = True
    return [*remarks, *_differences(bench, y)]


def _unchanged(bench: Bench, given: Sequence[Array]) -> bool:
    """Whether the inputs, which others read too, are as they were."""
    changed = [i for i, x in enumerate(given) if not np.array_equal(x, bench.inputs[i], equal_nan=True)]
    for i in changed:
        bench.fault(f"input {i} is changed in place", "work on a new array")
    return not changed


def _repeats(bench: Bench, y: Array) -> bool:
    if np.array_equal(bench.forward()[0], y, equal_nan=True):
        return True
    fix = f"draw from context.random(), and {STATE}"
    bench.fault("two passes with the same seed and step give different outputs", fix)
    return False


def _changes_nothing(bench: Bench, y: Array) -> Iterator[str]:
    """Upstream gradients, the output and buffers belong to others."""
    upstream = bench.upstream(y)
    buffers = {name: buffer.value.copy() for name, buffer in bench.layer.buffers().items()}
    y, saved = bench.forward()
    output, given = y.copy(), upstream.copy()
    first = bench.backward(saved, upstream)
    if not np.array_equal(given, upstream):
        bench.fault("backward changes the upstream gradient in place", "work on a new array")
    if not np.array_equal(output, y, equal_nan=True):
        bench.fault("backward changes the output in place", "work on a new array")
    for name, buffer in bench.layer.buffers().items():
        if not np.array_equal(buffers[name], buffer.value, equal_nan=True):
            problem = f"forward changes its buffer {name} at once"
            bench.fault(problem, f"write context.update(self.{name}, new): the pass may still fail")
    again = bench.backward(saved, given)
    if not _alike(first[0], again[0]) or not _alike(_sums(bench, first), _sums(bench, again)):
        bench.fault("a second backward from the same `saved` gives other gradients", "change nothing in `saved`")
    yield from ()


def _keeps_nothing(bench: Bench, y: Array) -> Iterator[str]:
    """Two calls, as where a network uses the layer twice: each goes back from its own ``saved``."""
    upstream = bench.upstream(y)
    _, saved = bench.forward()
    alone = bench.backward(saved, upstream)
    other = [x if x.dtype.kind != "f" else np.flip(x, 0) * 0.7 + 0.1 for x in bench.inputs]
    _, saved = bench.forward()
    _, second = bench.forward(other, node="second")
    bench.backward(second, upstream, inputs=other)
    after = bench.backward(saved, upstream)
    for what, one, two in _pairs(bench, alone, after):
        if not _alike([one], [two]):
            bench.fault(f"{what} of a call is another one once the layer has been called again", STATE)
    yield from ()


def _needs(bench: Bench, y: Array) -> Iterator[str]:
    """Inputs whose gradient nobody wants may be left out, and nothing else changes."""
    upstream = bench.upstream(y)
    whole = bench.passed(upstream)
    for i in range(len(bench.inputs)):
        needs = [wanted and j != i for j, wanted in enumerate(bench.needs)]
        part = bench.passed(upstream, needs)
        left = [j for j, wanted in enumerate(needs) if wanted and not _alike([whole.dx[j]], [part.dx[j]])]
        if left or not _alike(list(whole.gradients.values()), list(part.gradients.values())):
            bench.fault(f"other gradients change when that of input {i} is not needed", "leave out that one alone")
    _, saved = bench.forward()
    unwanted = [False] * len(bench.inputs)
    returned: Any = bench.layer.backward(saved, upstream, unwanted)[0]
    if any(gradient is not None for gradient in returned) and bench.layer.parameters():
        yield "backward computes input gradients that nobody needs; None in their place saves time in a first layer."


def _samples(bench: Bench, y: Array) -> Iterator[str]:
    """Whether samples are independent where the layer says so, also in its uses."""
    if bench.training and (bench.layer.mixes_samples or not _alike([bench.forward(step=1)[0]], [y])):
        return
    alone, _ = bench.forward([x[:1] for x in bench.inputs])
    if not _alike([alone], [y[:1]], 1e-7):
        fix = (
            "set mixes_samples = True in the class"
            if bench.training
            else "use running statistics, kept in a sharedgrad.parameter.Buffer"
        )
        bench.fault("the output of sample 0 depends on the other samples", fix)
        return
    upstream = np.zeros_like(y)
    upstream[0] = bench.upstream(y)[0]
    first, whole = bench.passed(upstream), bench.passed(bench.upstream(y))
    for name, parameter in bench.parameters.items():
        calls = [use for use in whole.uses if use.weight is parameter]
        if not all("sample" in use.axes for use in calls):
            yield f"The uses of {name} have no axis sample: its gradient cannot be kept apart by sample."
        elif bad := [use for use in calls if use.axes["sample"] != (len(y),)]:
            problem = f"the axis sample of the uses of {name} has length {text(bad[0].axes['sample'])}"
            bench.fault(f"{problem}, expected {len(y)} samples")
        elif calls and not _alike([sum(use.sum(by="sample")[0] for use in calls)], [first.gradients[name]], 1e-7):
            bench.fault(f"the uses of {name} at sample=0 are not the gradient of sample 0", "put the samples first")


def _counts(bench: Bench, y: Array) -> Iterator[str]:
    """``uses_per_sample``, where the layer defines it, beside the uses that backward returns."""
    kind = type(bench.layer)
    if kind.uses_per_sample is Layer.uses_per_sample or not bench.parameters:
        return
    counts: Counter[str] = Counter()
    for use in bench.passed(bench.upstream(y)).uses:
        counts[use.weight.name] += use.count
    most, said = max(counts.values(), default=0), bench.layer.uses_per_sample(*[x.shape[1:] for x in bench.inputs])
    if said * len(y) != most:
        problem = f"uses_per_sample says {said}, backward returns {most} uses for {len(y)} samples"
        bench.fault(problem, "mend it, or leave it out: they are counted")
    yield from ()


def _terms(bench: Bench, y: Array) -> Iterator[str]:
    """``input_terms`` and ``output_terms``, where the layer defines them, add up to dx and y."""
    upstream, kind = bench.upstream(y), type(bench.layer)
    _, saved = bench.forward()
    dx, _ = bench.backward(saved, upstream)
    wanted: list[tuple[str, Any, Array]] = []
    if kind.input_terms is not Layer.input_terms:
        for i, gradient in enumerate(dx):
            if gradient is not None:
                of_input = partial(bench.layer.input_terms, saved, upstream, i)
                wanted.append((f"input_terms of input {i}", of_input, gradient))
    if kind.output_terms is not Layer.output_terms:
        wanted.append(("output_terms", partial(bench.layer.output_terms, *bench.inputs), y))
    for name, terms, expected in wanted:
        try:
            total = terms().total()
        except ConfigError:
            continue  # not for these settings, as the layer says itself
        except Exception as error:
            bench.fault(f"{name} raises {type(error).__name__}: {error}")
            continue
        if not _alike([total], [expected], 1e-7):
            bench.fault(f"{name} do not add up to {'y' if expected is y else 'the input gradient of backward'}")
    yield from ()


def _in_a_network(bench: Bench, y: Array) -> Iterator[str]:
    """The engine's own way: the layer used twice in a network, whose gradient is the sum of both calls' uses."""
    if bench.layer.buffers() and bench.training:
        return
    names = [[f"{node} input {i}" for i in range(len(bench.inputs))] for node in (NODE, "second")]
    shapes = {n: x.shape[1:] for group in names for n, x in zip(group, bench.inputs, strict=True)}
    layers: Any = {node: (bench.layer, *group) for node, group in zip((NODE, "second"), names, strict=True)}
    other = [x if x.dtype.kind != "f" else np.flip(x, 0) * 0.7 + 0.1 for x in bench.inputs]
    first, second = bench.upstream(y), bench.upstream(y, "second")
    label = bench.layer.name
    with bench.caught("a network of two calls"):
        network = Network(layers, shapes, [NODE, "second"], dtype="float64")
        _, tape = network.forward(*bench.inputs, *other, training=bench.training)
        found = tape.backward({NODE: first, "second": second})
    apart = [bench.forward(), bench.forward(other, node="second")]
    sums = [
        bench.gradients(bench.backward(saved, upstream, inputs=arrays)[1])
        for (_, saved), upstream, arrays in zip(apart, (first, second), (bench.inputs, other), strict=True)
    ]
    for name, parameter in bench.parameters.items():
        together = sums[0][name] + sums[1][name]
        if parameter in found and not _alike([found[parameter]], [together]):
            bench.fault(f"the gradient of {name} in a network that calls it twice is not the sum of both calls", STATE)
    bench.layer.__dict__["name"] = label
    yield from ()


def _configuration(bench: Bench, y: Array) -> Iterator[str]:
    """What a saved network writes down of the layer."""
    try:
        bench.layer.config()
    except SharedgradError as error:
        bench.fault(error.problem, error.fix)
    yield from ()


# ---- the gradient


def _differences(bench: Bench, y: Array) -> list[str]:
    """Every gradient beside finite differences of Σ upstream · y."""
    upstream = bench.upstream(y)
    passed = bench.passed(upstream)
    measured: list[tuple[str, int, int]] = []
    for i, gradient in enumerate(passed.dx):
        if gradient is not None:
            name = "dx" if len(passed.dx) == 1 else f"dx of input {i}"
            measured.append(_measured(bench, name, bench.inputs[i], gradient, partial(_moved, bench, upstream, i)))
    for name, parameter in bench.parameters.items():
        value, gradient = parameter.value, passed.gradients[name]
        set_to = partial(_set, bench, upstream, parameter)
        measured.append(_measured(bench, f"the gradient of {name}", value, gradient, set_to))
        parameter.value = value
    return [f"Compared with finite differences: {told(measured)}."] if measured else []


def _moved(bench: Bench, upstream: Array, place: int, x: Array) -> Array:
    inputs = [x if i == place else other for i, other in enumerate(bench.inputs)]
    return upstream * bench.forward(inputs)[0]


def _set(bench: Bench, upstream: Array, parameter: Any, value: Array) -> Array:
    parameter.value = value
    return upstream * bench.forward()[0]


def _measured(bench: Bench, name: str, at: Array, gradient: Array, function: Any) -> tuple[str, int, int]:
    """Compare one array, and say in one line how it differs."""
    random = generator(0, "check", "cells", name)
    try:
        found = compare(function, at, gradient, random)
    except StoppedError:
        return name, 0, at.size
    if found.wrong.any():
        place = int(found.wrong.argmax())
        cell = np.unravel_index(int(found.cells[place]), at.shape)
        yours = gradient.reshape(-1)[found.cells]
        index = f"[{', '.join(map(str, cell))}]" if at.ndim else ""
        expected = f"{name}{index}: expected {found.measured[place]:.6g} (finite differences), got {yours[place]:.6g}"
        how = _pattern(found.measured, yours)
        bench.fault(f"{expected}; {int(found.wrong.sum())} of {len(found.cells)} numbers differ{how}")
    elif found.astray:
        bench.fault(f"{name}: the numbers tried agree, but the change along all of them does not")
    return name, len(found.cells), at.size


def _pattern(measured: Array, yours: Array) -> str:
    """What the error looks like, in the words that the check of numbers has for it."""
    if not np.isfinite(measured).all() or not np.isfinite(yours).all():
        return ""
    if not yours.any():
        return ": all zeros"
    digits = _DIGITS - 1 - int(np.floor(np.log10(max(np.abs(measured).max(), np.abs(yours).max()))))
    rounded = np.round(yours, digits) if abs(digits) < 300 else yours
    sentences = structure(read(rounded, "gradient"), measured, Given("layer", {}), "")
    return f": {sentences[0]}" if sentences else ""


def _likeness(bench: Bench, like: Layer | str) -> Report:
    """Its numbers as those of a built-in layer: the check of numbers names the mistake."""
    from sharedgrad.checking.code.api import subject_of

    subject = subject_of(like)
    if len(bench.inputs) != 1:
        raise ConfigError("like", f"expected a layer of one input, got {len(bench.inputs)}")
    y, saved = bench.forward()
    upstream = bench.upstream(y)
    (dx,), uses = bench.backward(saved, upstream)
    gradients = bench.gradients(uses)
    known = all(name.partition("_")[0] in ("weight", "bias", *_WEIGHTS) for name in gradients)
    short = {name: name if known else _WEIGHTS[i] for i, name in enumerate(gradients) if known or i < len(_WEIGHTS)}
    short = {name: {"weight": "w", "bias": "b"}.get(word, word) for name, word in short.items()}
    weights = {word: bench.parameters[name].value for name, word in short.items()}
    answers = {"y": y, "dx": dx, **{f"d{word}": gradients[name] for name, word in short.items()}}
    exercise = {"layer": subject.kind.lower(), **subject.settings, "x": bench.inputs[0], "upstream": upstream}
    return api.check({**exercise, **weights, "answers": answers}, 10.0, None)


# ---- comparing


def _pairs(bench: Bench, one: Any, two: Any) -> Iterator[tuple[str, Array | None, Array | None]]:
    for i, (a, b) in enumerate(zip(one[0], two[0], strict=True)):
        yield ("dx" if len(one[0]) == 1 else f"dx of input {i}"), a, b
    first, second = bench.gradients(one[1]), bench.gradients(two[1])
    for name in first:
        yield f"the gradient of {name}", first[name], second[name]


def _sums(bench: Bench, result: Any) -> list[Array]:
    return list(bench.gradients(result[1]).values())


def _alike(one: Sequence[Array | None], two: Sequence[Array | None], tolerance: float = _SAME) -> bool:
    """Whether arrays are the same but for rounding."""
    for a, b in zip(one, two, strict=True):
        if a is None or b is None:
            if a is not b:
                return False
            continue
        if a.shape != b.shape:
            return False
        scale = np.abs(b[np.isfinite(b)]).max(initial=0.0)
        if not np.allclose(a, b, rtol=tolerance, atol=tolerance * scale + 1e-300, equal_nan=True):
            return False
    return True
