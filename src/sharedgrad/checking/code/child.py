"""What runs in the process of its own: it loads a person's code, and calls it whenever it is asked to.

Prints of the person's code go nowhere, reads find nothing; answers go to the parent by a pipe of its own.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sharedgrad.checking.code import names, wire
from sharedgrad.checking.code.calls import Refused, Work, describe, observe

_ROOM = 4 * 2**30  # address space that libraries may take while a file is loaded
_LONGEST = 300


def main(source: int, out: int, order: dict[str, Any]) -> None:
    """Load the code, tell what it is, then answer jobs until the parent closes."""
    _quiet()
    _limit(int(order["memory"]) + _ROOM)
    try:
        work, make = load(order)
        told = make(work)
    except BaseException as error:  # whatever a stranger's file raises, SystemExit and KeyboardInterrupt too
        wire.send(out, {"failure": failure(error, order.get("file", ""))})
        return
    serve(source, out, work, told, order)


def serve(source: int, out: int, work: Any, told: Any, order: dict[str, Any]) -> None:
    """Answer jobs."""
    _limit(_address_space() + int(order["memory"]))
    wire.send(out, {"told": told})
    act = _act(order)
    while True:
        try:
            job = wire.receive(source)
        except wire.Broken:
            return
        try:
            answer = act(work, job)
        except BaseException as error:
            answer = {"failure": failure(error, order.get("file", ""))}
        wire.send(out, answer)


def _act(order: dict[str, Any]) -> Callable[[Any, Any], Any]:
    """What is done with a job: ``observe``, or a function named as module:function by the order."""
    if "act" not in order:
        return observe
    module, _, name = order["act"].partition(":")
    return getattr(importlib.import_module(module), name)


def load(order: dict[str, Any]) -> tuple[Any, Callable[[Any], Any]]:
    """The person's work as the order names it: a file and a name in it, or a module and a name."""
    module = _module(order)
    if "act" in order:
        return module, lambda _: {}
    main = _member(module, order["name"], order.get("file") or order.get("module", ""))
    forward = order.get("forward")
    if forward:
        own = _member(module, forward, order.get("file", ""))
    else:
        own = getattr(module, order["name"].replace("backward", "forward").replace("bwd", "fwd"), None)
        own = own if callable(own) and own is not main else None
    return Work(main, own, _returns(module, order["name"])), describe


def _returns(module: types.ModuleType, name: str) -> list[str] | None:
    try:
        text = Path(str(module.__file__)).read_text("utf-8")
    except (OSError, UnicodeDecodeError, AttributeError, TypeError):
        return None
    return names.returned(text, name)


def _module(order: dict[str, Any]) -> types.ModuleType:
    if "file" not in order:
        return importlib.import_module(order["module"])
    path = Path(order["file"])
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _member(module: types.ModuleType, name: str, where: str) -> Any:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
            here = f"; it has {', '.join(public[:8])}" if public else ""
            raise Refused("name", f"{Path(where).name} has no {name!r}{here}")
        found = getattr(found, part)
    return found


def failure(error: BaseException, file: str) -> dict[str, Any]:
    """What went wrong, in plain data: the kind, the message, and the last line of the person's own file."""
    kind = "raises"
    if isinstance(error, Refused):
        kind = error.kind
    elif isinstance(error, SystemExit):
        kind = "exits"
    elif isinstance(error, MemoryError):
        kind = "memory"
    told = {"kind": kind, "type": type(error).__name__, "message": _one_line(error), "line": 0, "source": ""}
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if file and os.path.realpath(f.filename) == os.path.realpath(file)]
    if isinstance(error, SyntaxError) and error.lineno:
        told["line"], told["source"] = error.lineno, (error.text or "").strip()[:_LONGEST]
    elif own:
        told["line"], told["source"] = own[-1].lineno or 0, (own[-1].line or "")[:_LONGEST]
    return told


def _one_line(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except BaseException:  # an exception of the person's own may fail to print itself
        text = ""
    return text[:_LONGEST]


def _quiet() -> None:
    """No input, and output to nowhere: nothing that the code prints reaches the terminal or fills memory."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    warnings.simplefilter("ignore")


def _limit(size: int) -> None:
    try:
        import resource
    except ImportError:  # Windows: the time limit alone holds
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    size = size if hard == resource.RLIM_INFINITY else min(size, hard)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (size, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ValueError, OSError):  # macOS does not enforce it
        return


def _address_space() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError):
        return _ROOM
    return pages * os.sysconf("SC_PAGE_SIZE")
