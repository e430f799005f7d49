"""The program ``sharedgrad``: what it says about itself, and its commands."""

from __future__ import annotations

import click

from sharedgrad import __version__
from sharedgrad.cli.check import check
from sharedgrad.cli.data import data
from sharedgrad.cli.explain import explain
from sharedgrad.cli.info import info
from sharedgrad.cli.predict import predict
from sharedgrad.cli.summary import summary
from sharedgrad.cli.trace import trace
from sharedgrad.cli.train import train


class _InOrder(click.Group):
    """Lists its commands in the order in which a person needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder, invoke_without_command=True)
@click.version_option(__version__, prog_name="sharedgrad", message="%(prog)s %(version)s")
@click.pass_context
def group(context: click.Context) -> None:
    """The gradient of a shared weight is the sum over its uses.

    Train convolutional networks by an engine that computes every gradient explicitly, use them, and see where
    one weight's update came from.

    \b
      sharedgrad train digits
      sharedgrad predict runs/digits-cnn seven.png
      sharedgrad summary runs/digits-cnn
      sharedgrad trace runs/digits-cnn digits
      sharedgrad explain filter-1d
      sharedgrad check answers.json
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (train, predict, summary, trace, explain, check, data, info):
    group.add_command(command)
