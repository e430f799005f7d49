"""Lines for a person: broken between words on a terminal, one line each in a pipe, and harmless in both."""

from __future__ import annotations

import sys

import click

from sharedgrad.layout import columns, fold, printable


def say(text: str, err: bool = False) -> None:
    """Print lines; control characters, which file names may hold, are shown instead of obeyed."""
    safe = "\n".join(printable(line) for line in text.split("\n"))
    stream = sys.stderr if err else sys.stdout
    click.echo(fold(safe, columns()) if stream.isatty() else safe, err=err)
