"""The command line: reads what is asked for, measures section by section, prints Markdown, writes JSON."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn

from benchmarks import (
    convolutions,
    duels,
    importing,
    machine,
    memory,
    persample,
    plots,
    scaling,
    torch_traces,
    traces,
)
from benchmarks.nets import NETS
from benchmarks.options import Options
from benchmarks.tables import Row, Table, disturbed, plain
from benchmarks.timing import INSTALL
from sharedgrad.errors import SharedgradError
from sharedgrad.kernels import set_winograd


def _mistaken(options: Options) -> list[Table]:
    if not find_spec("torch"):
        return []
    from benchmarks import mistaken

    return mistaken.section(options)


SECTIONS: dict[str, Callable[[Options], list[Table]]] = {
    "steps": duels.steps,
    "inference": duels.inference,
    "persample": persample.section,
    "trace": traces.section,
    "torch-trace": torch_traces.section,
    "mistaken": _mistaken,
    "memory": memory.section,
    "import": importing.section,
    "convolutions": convolutions.section,
    "scaling": scaling.section,
}

OF_PYTORCH = ("torch-trace", "mistaken")  # nothing to measure without it

DESCRIPTION = f"""\
sharedgrad measured beside PyTorch, JAX and ONNX Runtime, alternating, on the same data, in float32: medians,
quartiles and ratios.

  python -m benchmarks                                      everything but torch.compile
  python -m benchmarks steps --compile --json steps.json    training steps, PyTorch at its very best
  python -m benchmarks steps inference --nets lenet5,cnn    two sections, two nets
  python -m benchmarks scaling --plots pictures             with pictures

Sections: {", ".join(SECTIONS)}.
A ratio above 1 says that sharedgrad is better; bars are what a figure must reach, and lost rows are shown.
For the rivals: pip install "sharedgrad[bench]".
"""


class Parser(argparse.ArgumentParser):
    """Mistakes are one line."""

    def error(self, message: str) -> NoReturn:
        fail(f"{message}; see {self.prog} --help")


def fail(message: str, code: int = 2) -> NoReturn:
    print(f"benchmarks: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def main(arguments: list[str] | None = None) -> None:
    """Run the command; a person's mistake is one line and exit code 2, Ctrl-C one line and 130."""
    options = parse(arguments)
    try:
        run(options)
    except BrokenPipeError:
        # the reader of our output has gone; the interpreter's own last flush must not complain either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        fail("interrupted", 130)
    except SharedgradError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or 'output'}: {error.strerror or error}")


def parse(arguments: list[str] | None = None) -> Options:
    parser = Parser("python -m benchmarks", description=DESCRIPTION, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="what to measure (default: everything)")
    parser.add_argument("--nets", type=_names, default=(), metavar="NAME,…", help=f"narrow to {', '.join(NETS)}")
    parser.add_argument(
        "--batches",
        type=_counts,
        default=(),
        metavar="N,…",
        help="batch sizes of steps and inference instead of 64 and 1",
    )
    parser.add_argument("--repeats", type=_count, default=9, metavar="N", help="rounds of each measurement (9)")
    parser.add_argument("--threads", type=_count, default=2, metavar="N", help="threads for everybody (2)")
    parser.add_argument("--alone", action="store_true", help="sharedgrad alone, without rivals")
    parser.add_argument("--compile", action="store_true", help="torch.compile too: minutes more, needs a C++ compiler")
    parser.add_argument(
        "--no-winograd", dest="winograd", action="store_false", help="3×3 convolutions of sharedgrad by plain sums"
    )
    parser.add_argument(
        "--budget", type=_seconds, metavar="SECONDS", help="start no further row of a section after so long"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw the scaling; needs matplotlib")
    given = vars(parser.parse_args(arguments))
    given["sections"] = tuple(dict.fromkeys(given["sections"])) or tuple(SECTIONS)
    given["rivals"] = not given.pop("alone")
    if problem := _problem(given):
        parser.error(problem)
    return Options(**given)


def _problem(given: dict[str, Any]) -> str:
    """What is wrong with the arguments taken together, before minutes are spent on them."""
    if unknown := [name for name in given["sections"] if name not in SECTIONS]:
        return f"there is no section {unknown[0]!r}: choose from {', '.join(SECTIONS)}"
    if given["compile"] and not given["rivals"]:
        return "--compile and --alone exclude each other"
    if given["compile"] and not find_spec("torch"):
        return "--compile needs PyTorch, which is not installed: pip install 'sharedgrad[bench]'"
    if given["plots"] and "scaling" not in given["sections"]:
        return "--plots draws the section scaling, which is not asked for"
    if given["plots"] and not find_spec("matplotlib"):
        return "--plots needs matplotlib, which is not installed: pip install 'sharedgrad[cli]'"
    if given["json"] and (given["json"].is_dir() or not os.access(given["json"].absolute().parent, os.W_OK)):
        return f"--json: {given['json']} cannot be written; name a file in a folder that is there"
    return ""


def run(options: Options) -> None:
    """Measure all that is asked for; the JSON is written anew after every table."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    machine.use_threads(options.threads, options.rivals)
    set_winograd(options.winograd)
    if options.plots:
        options.plots.mkdir(parents=True, exist_ok=True)
    described = machine.describe(options)
    print(
        "\n".join(f"- {key}: {value:.0f}" if "peak" in key else f"- {key}: {value}" for key, value in described.items())
    )
    results: dict[str, Any] = {"machine": described, "arguments": _arguments(options), "tables": {}}
    for name in options.sections:
        started = monotonic()
        tables = [table for table in SECTIONS[name](options) if table.cases]
        if not tables and name in OF_PYTORCH and options.rivals:
            print(f"{name}: PyTorch is {INSTALL}", file=sys.stderr)
        elif not tables and name not in OF_PYTORCH:
            print(f"{name}: has none of these nets", file=sys.stderr)
        for table in tables:
            rows = measure(name, table, options, started)
            results["tables"][table.name] = _data(table, rows)
            if options.plots and name == "scaling":
                plots.draw(table, rows, options.plots)
            if options.json:
                _write(options.json, results)


def measure(section: str, table: Table, options: Options, started: float) -> dict[str, Row]:
    """The table's rows, printed one by one."""
    print(f"\n{table.head()}", flush=True)
    rows: dict[str, Row] = {}
    for case in table.cases:
        if options.budget is not None and monotonic() - started > options.budget:
            rows[case.name] = {table.columns[1]: "not measured: out of time"}
        else:
            begun = monotonic()
            rows[case.name] = case.measure()
            loud = "; disturbed by other processes" if disturbed(rows[case.name]) else ""
            print(f"{section}: {case.name}, {monotonic() - begun:.1f} s{loud}", file=sys.stderr)
        print(table.line(case, rows[case.name]), flush=True)
    return rows


def _data(table: Table, rows: dict[str, Row]) -> dict[str, object]:
    measured = [{table.columns[0]: name} | {k: plain(v) for k, v in row.items()} for name, row in rows.items()]
    return {"title": table.title, "note": table.note, "columns": table.columns, "rows": measured}


def _arguments(options: Options) -> dict[str, object]:
    return {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}


def _write(file: Path, results: dict[str, object]) -> None:
    """The whole file or nothing."""
    half = file.with_name(f"{file.name}.part")
    half.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")
    half.replace(file)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in NETS]:
        raise argparse.ArgumentTypeError(f"there is no net {unknown[0]!r}: choose from {', '.join(NETS)}")
    return names


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, got {text!r}")
    return int(text)


def _counts(text: str) -> tuple[int, ...]:
    return tuple(_count(part) for part in text.split(","))


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"expected seconds, got {text!r}")
    return value
