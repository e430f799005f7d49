"""The command line: one file a command."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from sharedgrad.errors import SharedgradError, require
from sharedgrad.layout import columns, fold, printable


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit.

    Whatever a person gets wrong is one line on stderr and exit code 2; Ctrl-C is one line and 130 (SIGTERM 143).

    Args:
        arguments: What follows the program's name; by default what it was started with.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    _prepare_streams()
    try:
        code = _run(given)
        sys.stdout.flush()
    except BrokenPipeError:
        # the reader of our output has gone; the interpreter's own last flush must not complain either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except KeyboardInterrupt as interrupt:
        code = _fail(given, str(interrupt) or "interrupted", getattr(interrupt, "exit_code", 130))
    except SharedgradError as error:
        code = _fail(given, str(error), 2)
    except OSError as error:
        code = _fail(given, f"{error.filename or 'output'}: {error.strerror or error}", 2)
    except MemoryError:
        code = _fail(given, "not enough memory; take a smaller --batch-size, --size or --model", 2)
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    click = require("click", "the command line")
    from sharedgrad.cli.group import group

    try:
        with group.make_context("sharedgrad", arguments) as context:
            group.invoke(context)
    except click.exceptions.Exit as end:
        return int(end.exit_code)
    except click.ClickException as error:
        message = error.format_message().rstrip(".")
        if error.ctx is not None and not message.endswith("?"):  # "Did you mean …?" is help enough
            message += f"; see {error.ctx.command_path} --help"
        return _fail(arguments, message, 2)
    return 0


def _prepare_streams() -> None:
    """No output is a reason to stop: neither a closed stream nor a name that a terminal cannot show."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (it stays open as long as the program)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _fail(arguments: list[str], message: str, code: int) -> int:
    """Print the one line; the command is the first word that is no option."""
    command = next((word for word in arguments if not word.startswith("-")), "")
    known = command if command in ("train", "predict", "summary", "trace", "explain", "check", "data", "info") else ""
    line = printable(f"{f'sharedgrad {known}'.strip()}: {' '.join(message.split())}")
    print(fold(line, columns()) if sys.stderr.isatty() else line, file=sys.stderr)
    return code
