"""``sharedgrad data``: fetch a published data set."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from sharedgrad.cli.echo import say
from sharedgrad.data.fetching import SOURCES, fetch


@click.command(short_help="Fetch MNIST, Fashion-MNIST or CIFAR-10.")
@click.argument("name", type=click.Choice(list(SOURCES)))
@click.argument("folder", type=click.Path(path_type=Path))
def data(name: str, folder: Path) -> None:
    """Download a data set into FOLDER, checked against the published checksums.

    What is there already and whole is not fetched again.

    \b
      sharedgrad data mnist mnist/
      sharedgrad train mnist/ --model lenet5 --epochs 3
    """
    path = fetch(name, folder)
    say(f"{SOURCES[name].terms}\nsharedgrad train {shlex.quote(str(path))}")
