"""Which mistakes a test lets pass: the test is run on the real function, then on one wrong version after the other."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharedgrad.checking import audit as arrays
from sharedgrad.checking.code import api
from sharedgrad.checking.code.findings import in_words
from sharedgrad.checking.code.mutants import Stand, mutants
from sharedgrad.checking.code.process import Limits, Process
from sharedgrad.checking.right import KINDS
from sharedgrad.document import Document, Paragraph
from sharedgrad.errors import ConfigError

_VARIANTS = 6
_ACT = "sharedgrad.checking.code.audit:act"


@dataclass(frozen=True)
class TestAudit(arrays.Audit):
    """What a test lets pass, and on how many wrong versions it was tried."""

    __test__ = False  # no test of pytest's
    function: str = ""
    tried: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**super().to_json(), "function": self.function, "tried": self.tried}

    def document(self) -> Document:
        """A table of what passes, for each array."""
        first = Paragraph.of(f"{self.function} with {self.tried} wrong versions of its results, one at a time.")
        document = super().document()
        return Document(document.title, (first, *document.blocks))


def audit(target: str, layer: str, limits: Limits) -> TestAudit:
    """Run a test against mutants of the function that it tests.

    Args:
        target: FILE.py:test or FILE.py:test:function, where the function is the one under test as the test's file
            knows it; the only one with "backward" in its name if left out. A test that takes an argument gets it there.
        layer: What the function belongs to.
        limits: Of the process that the test runs in.

    Raises:
        SharedgradError: The test cannot be run, or fails on the real function.
    """
    file, test, function = _parts(target)
    subject = api.subject_of(layer)
    if KINDS.get(subject.kind) not in ("conv", "max_pool", "avg_pool", "linear", "relu", "sigmoid", "tanh"):
        raise ConfigError("--like", f"wrong versions of {subject.kind} cannot be made")
    order = {**api.of_file(f"{file}:{test}", None).order, "act": _ACT}
    job = {"test": test, "function": function, "kind": subject.kind, "settings": dict(subject.settings)}
    with Process(order, limits) as process:
        if failure := process.start():
            raise ConfigError(Path(file).name, f"cannot be loaded: {in_words(failure)}")
        first = process.ask({**job, "rule": None})
        if "failure" in first:
            raise ConfigError(test, f"fails on the real function: {in_words(first['failure'])}")
        if "problem" in first:
            raise ConfigError(test, first["problem"])
        return _run(process, job, subject.kind, first["function"])


def _run(process: Process, job: Mapping[str, Any], kind: str, function: str) -> TestAudit:
    passing: dict[str, dict[str, str]] = {}
    tried = 0
    for number, (target, rule) in enumerate(mutants(kind)):
        passed, caught = [], 0
        for variant in range(_VARIANTS):
            answer = process.ask({**job, "rule": number, "variant": variant})
            if "failure" not in answer and not answer["exists"]:
                break
            tried += 1
            caught += "failure" in answer
            passed += [] if "failure" in answer else [answer["note"]]
        missed = passing.setdefault(target, {})
        if passed or not caught:
            missed[rule.id] = "; ".join(n for n in (missed.get(rule.id, ""), *passed) if n)
    return TestAudit(passing, "elements", function, tried)


def _parts(target: str) -> tuple[str, str, str]:
    file, _, rest = target.partition(".py:")
    test, _, function = rest.replace("::", ".").partition(":")
    if not test:
        raise ConfigError("--audit", f"expected FILE.py:test, got {target!r}", "name the test after a colon")
    return f"{file}.py", test, function


# ---- beside the test


def act(module: types.ModuleType, job: Mapping[str, Any]) -> dict[str, Any]:
    """Run the test once, with the real function or with a mutant in its place; an exception means that it notices."""
    test = _test(module, job["test"])
    takes = [p for p in inspect.signature(test).parameters.values() if p.default is p.empty]
    found = _function(module, job["function"], test)
    if isinstance(found, str):
        return {"problem": found}
    place, name, original = found
    stand = Stand(job["kind"], job["settings"], original)
    mutant: Callable[..., Any] = stand
    if job["rule"] is not None:
        target, rule = list(mutants(job["kind"]))[job["rule"]]
        mutant = stand.with_mistake(target, rule, job["variant"])
    setattr(place, name, mutant)
    try:
        test(*([mutant] if takes else []))
    finally:
        setattr(place, name, original)
    if not stand.calls:
        return {"problem": f"does not call {name}; name the function: FILE.py:test:function"}
    return {"function": name, "exists": stand.variant is not None, "note": stand.variant or ""}


def _test(module: types.ModuleType, name: str) -> Callable[..., Any]:
    found: Any = module
    for part in name.split("."):
        found = getattr(found() if inspect.isclass(found) else found, part, None)
        if found is None:
            raise ValueError(f"there is no {name}")
    return found


def _function(module: types.ModuleType, named: str, test: Any) -> tuple[Any, str, Callable[..., Any]] | str:
    """Where the function under test hangs: in the test's module, or in a module that it has imported."""
    places = [module, *(v for v in vars(module).values() if inspect.ismodule(v) and _is_own(v))]
    own = {test.__name__}
    found = {}
    for place in places:
        for name, value in vars(place).items():
            if inspect.isfunction(value) and name not in own and not name.startswith("test"):
                wanted = name == named if named else "backward" in name
                if wanted and value not in [v for _, _, v in found.values()]:
                    found[name] = (place, name, value)
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        return f"no function {named or '…backward…'} was found; name it: FILE.py:test:function"
    return f"several functions come into question ({', '.join(found)}); name one: FILE.py:test:function"


def _is_own(module: types.ModuleType) -> bool:
    file = getattr(module, "__file__", None) or ""
    return bool(file) and "site-packages" not in file and "/lib/python" not in file
