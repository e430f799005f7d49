"""``sharedgrad check``: which number is wrong, and which mistake explains it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from sharedgrad.cli.check_code import Code, is_code
from sharedgrad.document import Document
from sharedgrad.errors import ConfigError


@click.command(short_help="Say which number is wrong, and which mistake explains it.")
@click.argument("target", metavar="ANSWERS.json|FILE.py:NAME|EXERCISES", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option(
    "--hint", type=click.IntRange(1, 4), help="1: that something is wrong, 2: where, 3: what kind, 4: the line."
)
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the report as a page.")
@click.option(
    "--seconds", type=click.FloatRange(0, 600), default=10.0, show_default=True, help="For pairs of mistakes."
)
@click.option(
    "--class", "class_", type=click.Path(dir_okay=False), metavar="ANSWERS.csv", help="Grade a class's answers."
)
@click.option("--audit", is_flag=True, help="List the mistakes that a test (arrays, or FILE.py:test) would let pass.")
@click.option("--like", metavar="LAYER", help="What the code in FILE.py:NAME belongs to, e.g. conv2d:stride=2.")
@click.option("--forward", metavar="NAME", help="The own forward pass in the same file, which makes the cache.")
@click.option("--signature", metavar="TEXT", help='Arguments and results, e.g. "dout, x, w, b -> dx, dw, db".')
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 600),
    default=5.0,
    show_default=True,
    help="Seconds for one call of the code.",
)
@click.option("--memory", type=click.IntRange(64), default=1024, show_default=True, help="Megabytes for the code.")
@click.option("--exercise", metavar="LAYER", help="Write exercises with their keys, e.g. conv2d.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the exercises.")
@click.option("--students", type=click.IntRange(1, 1000), default=1, show_default=True, help="Number of exercises.")
@click.option("--out", type=click.Path(file_okay=False), help="Folder for the exercises.")
@click.pass_context
def check(context: click.Context, target: str | None, as_json: bool, hint: int | None, html: Path | None,
          seconds: float, class_: str | None, audit: bool, like: str | None, forward: str | None,
          signature: str | None, timeout: float, memory: int, exercise: str | None, seed: int, students: int,
          out: str | None) -> None:  # fmt: skip
    """Compare somebody's numbers, or backward pass, with the right ones, and name the mistake that reproduces them.

    ANSWERS.json holds a layer or a small network with its numbers and the answers to check. The exit code is 0 if they
    are right (also under another convention, or if they differ by no mistake), 1 if they are wrong, 3 if nobody can
    tell, 2 if they cannot be read.

    FILE.py:NAME is a function or class. It runs in a process of its own, with limits of time and memory; this is no
    security sandbox: run strangers' code in a container.

    \b
      sharedgrad check answers.json --hint 2
      sharedgrad check my.py:conv_backward --like conv2d
      sharedgrad check tests/test_conv.py:test_conv --like conv2d --audit
      sharedgrad check --exercise conv2d --seed 7 --students 30 --out sheets
      sharedgrad check sheets --class answers.csv
      sharedgrad check test.json --audit
    """
    if exercise is not None:
        _write_exercises(exercise, seed, students, out)
        return
    if target is None:
        raise click.UsageError("Missing argument: a file with answers, or --exercise LAYER")
    if class_ is not None:
        from sharedgrad.checking.classroom import grade

        grades = grade(target, class_, min(seconds, 2.0))
        _show(grades.document(), grades.to_json(), as_json, html)
        return
    if is_code(target):
        show_code(context, Code(target, like, forward, signature, timeout, memory, seconds), audit, as_json, hint, html)
    if audit:
        from sharedgrad.checking.audit import audit as audited

        found = audited(target)
        _show(found.document(), found.to_json(), as_json, html)
        context.exit(found.exit_code)
    from sharedgrad.checking import words
    from sharedgrad.checking.api import check as checked

    report = checked(Path(target), seconds, _progress())
    _show(words.document(report, hint), words.to_json(report, hint), as_json, html)
    context.exit(report.exit_code)


def show_code(
    context: click.Context, code: Code, audit: bool, as_json: bool, hint: int | None, html: Path | None
) -> None:
    """Check code, or audit a test of it, and leave with the exit code."""
    if audit:
        found = code.audit()
        _show(found.document(), found.to_json(), as_json, html)
        context.exit(found.exit_code)
    from sharedgrad.checking import words

    report = code.check()
    _show(words.document(report, hint), words.to_json(report, hint), as_json, html)
    context.exit(report.exit_code)


def _write_exercises(layer: str, seed: int, students: int, out: str | None) -> None:
    from sharedgrad.checking import exercises

    if out is None and students == 1:
        _show(exercises.question(exercises.sheet(layer, seed), "Exercise"), {}, False, None)
        return
    if out is None:
        raise ConfigError("--students", "several exercises need a folder", "add --out DIR")
    files = exercises.write(layer, seed, students, out)
    click.echo(f"{len(files)} files in {out}: sheet, key and exercise for each student, answers-template.csv")


def _show(document: Document, data: dict[str, Any], as_json: bool, html: Path | None) -> None:
    if html is not None:
        from sharedgrad.document import html as pages

        try:
            html.write_text(pages.render(document), "utf-8")
        except OSError as error:
            raise ConfigError(html, f"cannot be written ({error.strerror})") from None
    if as_json:
        click.echo(json.dumps(data, indent=1))
        return
    from sharedgrad.document import terminal

    click.echo(terminal.render(document, color=terminal.wants_color(sys.stdout)).rstrip())


def _progress() -> Any:
    """A line on stderr that says how far pairs have been tried; nothing in a pipe."""
    if not sys.stderr.isatty():
        return None

    def show(part: float) -> None:
        line = f"trying two mistakes together: {100 * part:3.0f} %"
        click.echo(f"\r{line}\r", err=True, nl=False)  # the report's first line takes its place

    return show
