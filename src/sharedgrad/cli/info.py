"""``sharedgrad info``: which kernels serve here, and how."""

from __future__ import annotations

import platform

import click
import numpy as np

from sharedgrad import __version__, kernels
from sharedgrad.cli.echo import say
from sharedgrad.layout import columns, fold


@click.command(short_help="Kernels, instruction set and threads.")
def info() -> None:
    """Print which kernels are active, their instruction set, the threads, and what falls back to NumPy.

    \b
      sharedgrad info
    """
    say(f"sharedgrad {__version__}, Python {platform.python_version()}, NumPy {np.__version__}")
    if kernels.compiled():
        say(f"kernels: compiled C++, instruction set {kernels.native.instruction_set()}")
    else:
        say("kernels: NumPy (none were compiled; install again where there is a C++ compiler)")
    click.echo(f"threads: {kernels.get_threads()}")
    if kernels.compiled():
        way = "fewer multiplications, unless --exact or set_winograd(False)" if kernels.get_winograd() else "plain sums"
        say(f"3×3 convolutions: {way}")
        click.echo("computed by NumPy all the same:")
        from sharedgrad.plan.steps import not_compiled

        layer_by_layer = {"layers without a compiled operation; a network with one goes layer by layer": not_compiled()}
        for reason, names in (kernels.native.fallbacks() | layer_by_layer).items():
            click.echo(fold(f"  {', '.join(names)}: {reason}", min(columns(), 80)))
