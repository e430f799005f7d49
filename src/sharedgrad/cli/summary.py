"""``sharedgrad summary``: what a model consists of."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from sharedgrad.cli.model_files import build_model, open_run
from sharedgrad.cli.values import shape
from sharedgrad.summary import summarize


@click.command(short_help="Layers, shapes, parameters and their uses.")
@click.argument("model", metavar="MODEL|RUN")
@click.option(
    "--input-shape",
    type=shape,
    metavar="C,H,W",
    help="Shape of one sample.  [default: 1,28,28; 3,32,32 for vgg and resnet20]",
)
@click.option("--classes", type=click.IntRange(1), default=10, show_default=True, help="Number of classes.")
@click.option(
    "--model",
    "file",
    metavar="FILE.py:FUNCTION",
    help="The file of layers of a RUN that are your own; code that only a run folder names is never run.",
)
def summary(model: str, input_shape: tuple[int, ...] | None, classes: int, file: str | None) -> None:
    """Print layers, shapes, parameters and how often each parameter is used.

    Beside it stands what a layer would need without sharing (every use with a weight of its own: locally
    connected) and as a dense layer. MODEL is lenet5, cnn, vgg, resnet20, FILE.py:FUNCTION or a configuration
    in .json or .toml; RUN is the folder of a trained model.

    \b
      sharedgrad summary lenet5
      sharedgrad summary resnet20 --input-shape 3,64,64 --classes 100
    """
    if Path(model).is_dir():
        network = open_run(model, file, f"sharedgrad summary {shlex.quote(model)}").network
    else:
        shape = input_shape or ((3, 32, 32) if model in ("vgg", "resnet20") else (1, 28, 28))
        network = build_model(model, shape, classes)
    click.echo(str(summarize(network, *([input_shape] if input_shape else []))))
