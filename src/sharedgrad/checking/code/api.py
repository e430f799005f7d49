"""Checking a backward pass: from a file or a function to a report."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sharedgrad.checking.code import graphs, names
from sharedgrad.checking.code.calls import Work
from sharedgrad.checking.code.findings import in_words
from sharedgrad.checking.code.forms import Form, candidates, settings_told
from sharedgrad.checking.code.judge import judge
from sharedgrad.checking.code.observe import Outcome, observed, order_matters
from sharedgrad.checking.code.probes import Probe, Subject, fresh, probes
from sharedgrad.checking.code.process import Limits, Process
from sharedgrad.checking.report import Report
from sharedgrad.configuration import close
from sharedgrad.errors import ConfigError, DataError
from sharedgrad.layers.layer import Layer

_UNUSABLE = ("signature", "name", "class")
_MOST_STARTS = 4


@dataclass(frozen=True)
class Source:
    """Where the code comes from: an order for the process, and the object itself where it cannot be loaded again."""

    order: dict[str, Any]
    local: Any = None


def of_file(target: str, forward: str | None) -> Source:
    """``my.py:conv_backward``.

    Raises:
        ConfigError: It has another form.
        DataError: There is no such file.
    """
    file, _, name = target.rpartition(":")
    if not file or not name or name.endswith(".py"):
        raise ConfigError("check", f"expected FILE.py:function, got {target!r}", "name the function after a colon")
    path = Path(file)
    if not path.is_file():
        raise DataError(file, "there is no such file")
    return Source({"file": str(path.resolve()), "name": name, **({"forward": forward} if forward else {})})


def of_object(fn: Any, forward: Any) -> Source:
    """A function or class; it is loaded again from its file if it can be, else the process is forked."""
    if not callable(fn):
        raise ConfigError("check_backward", f"expected a function or a class, got {type(fn).__name__}")
    name, module = getattr(fn, "__qualname__", ""), sys.modules.get(getattr(fn, "__module__", ""))
    file = getattr(module, "__file__", None)
    plain = re.fullmatch(r"[\w.]+", name) and "__main__" != getattr(module, "__name__", "") and forward is None
    found: Any = module
    for part in name.split(".") if plain else ():
        found = getattr(found, part, None)
    if plain and file and found is fn:
        return Source({"module": fn.__module__, "file_of": file, "name": name})
    try:
        returns = names.returned(inspect.getsource(fn).strip(), fn.__name__)
    except (OSError, TypeError, IndentationError):
        returns = None
    return Source({"name": name or "function"}, Work(fn, forward, returns))


def check(source: Source, layer: Layer | str, signature: str | None, limits: Limits, seconds: float = 10.0) -> Report:
    """What :func:`sharedgrad.check_backward` does."""
    if layer == "autograd":
        if source.local is not None:
            raise ConfigError("check", "a class of numbers is read from a file", "put it into one")
        return graphs.check(source.order, limits)
    subject = subject_of(layer)
    with Process(source.order, limits, source.local) as process:
        if failure := process.start():
            where = source.order.get("file") or source.order["name"]
            raise ConfigError(Path(where).name, f"cannot be loaded: {in_words(failure)}")
        form = _form(process, subject, signature)
        subject = replace(subject, varies=settings_told(process.told, form) | _always(subject))
        run = _runner(process, form)
        found = _all(process, form, subject)
        if not found:
            raise ConfigError("check", "this form of code can take none of the probes")
        further = [run(p) for p in fresh(subject) if form.carries(p.given)] if _alive(found, process) else []
        report = judge(found, subject, run, further, seconds)
        remarks = [f"Read as {form.title}."]
        several = [o.probe for o in found if o.ran and o.bad and o.probe.given.samples > 1]
        if several and order_matters(process, form, several[0]):
            remarks.append("The result depends on the order of the samples in the batch.")
    return replace(report, remarks=(*report.remarks, *remarks))


def _always(subject: Subject) -> frozenset[str]:
    """A convolution's code reads the kernel's size off the kernel."""
    return frozenset({"kernel_size"}) if subject.kind.startswith("Conv") else frozenset()


def subject_of(layer: Layer | str) -> Subject:
    if isinstance(layer, Layer):
        settings = {k: v for k, v in layer.config().items() if k not in ("in_channels", "out_channels", "init")}
        sizes = ("in_features", "out_features", "input_size", "hidden_size", "num_features")
        kept = {k: v for k, v in settings.items() if k not in sizes or type(layer).__name__.startswith("Locally")}
        return Subject(type(layer).__name__, kept, layer)
    if not isinstance(layer, str):
        raise ConfigError("layer", f"expected a layer, got {type(layer).__name__}", "e.g. sg.Conv2d(1, 1, 3)")
    name, _, rest = layer.partition(":")
    known = {kind.lower(): kind for kind in Layer.registry}
    if name.lower() not in known:
        raise ConfigError("--like", f"there is no layer {name!r}{close({name.lower()}, known)}")
    return Subject(known[name.lower()], {k: _number(k, v) for k, v in _pairs(rest)})


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = [part.partition("=") for part in text.split(",") if part]
    if bad := next((p for p in pairs if not p[1] or not p[0].isidentifier()), None):
        raise ConfigError("--like", f"expected setting=value, got {''.join(bad)!r}", "e.g. conv2d:stride=2,padding=1")
    return [(name.strip(), value.strip()) for name, _, value in pairs]


def _number(name: str, value: str) -> Any:
    if value in ("true", "false"):
        return value == "true"
    try:
        return float(value) if "." in value else int(value)
    except ValueError:
        if value.isidentifier():
            return value
        raise ConfigError(f"--like: {name}", f"expected a number or a word, got {value!r}") from None


def _form(process: Process, subject: Subject, signature: str | None) -> Form:
    """The way to call it: of all that come into question, the first whose results have the right shapes."""
    forms = list(candidates(process.told, next(probes(subject)).given, signature))
    best: Form | None = None
    failures: list[str] = []
    score = -1.0
    for form in forms:
        told = replace(subject, varies=settings_told(process.told, form) | _always(subject))
        probe = next((p for p in probes(told) if form.carries(p.given)), None)
        if probe is None:
            continue
        outcome = observed(process, form, probe)
        if not outcome.ran and outcome.failure is not None and outcome.failure["kind"] in _UNUSABLE:
            failures.append(str(outcome.failure["message"]))
            continue
        shaped = outcome.ran and not outcome.shapes and not outcome.missing
        if shaped and not outcome.wrong:
            return form
        now = 2 * shaped + outcome.ran - len(outcome.wrong) / 10
        if now > score or best is None:
            best, score = form, now
        if outcome.failure is not None and outcome.failure["kind"] == "hangs":
            return form
    if best is None:
        reason = failures[0] if failures else "it can be called in no known way"
        raise ConfigError("check", reason, 'add --signature "dout, x, w, b -> dx, dw, db" with its own names')
    return best


def _runner(process: Process, form: Form) -> Callable[[Probe], Outcome]:
    return lambda probe: observed(process, form, probe)


def _all(process: Process, form: Form, subject: Subject) -> list[Outcome]:
    """Run every probe; code that has to be stopped again and again is not tried on all."""
    found = []
    for probe in probes(subject):
        if not form.carries(probe.given):
            continue
        found.append(observed(process, form, probe, again=True))
        if not _alive(found, process):
            break
    return found


def _alive(found: Sequence[Outcome], process: Process) -> bool:
    stopped = sum(1 for o in found if o.failure is not None and o.failure["kind"] in ("hangs", "killed", "exits"))
    return stopped < 2 and process.starts < _MOST_STARTS
