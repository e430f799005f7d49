"""``sharedgrad predict``: what a trained model sees in image files."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import numpy as np

from sharedgrad import kernels
from sharedgrad.cli.echo import say
from sharedgrad.cli.exact import EXACT, plain_sums
from sharedgrad.cli.model_files import open_run
from sharedgrad.data import read_image
from sharedgrad.data.folder import image_files
from sharedgrad.data.images import SUFFIXES
from sharedgrad.errors import DataError
from sharedgrad.layout import columns, printable
from sharedgrad.training.run import Run

_SHOWN = 5

Ranking = list[tuple[str, float]]


@click.command(short_help="Class and probabilities of images.")
@click.argument("run")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--model",
    metavar="FILE.py:FUNCTION",
    help="The file of layers of your own, as in training; code that only a run folder names is never run.",
)
@click.option("--invert", is_flag=True, help="Exchange dark and light, as for black digits on white.")
@EXACT
@click.pass_context
def predict(
    context: click.Context, run: str, images: tuple[str, ...], model: str | None, invert: bool, exact: bool
) -> None:
    """Print the class of each IMAGE, or of all images in a folder, and the probabilities of the five likeliest classes.

    RUN is the folder of a trained model. Images are resized, made grey or RGB, and transparent ones laid on
    white or black, as the model needs. Where the output is no terminal, each line holds path, class,
    probability, class, probability … between tabs.

    \b
      sharedgrad predict runs/digits-cnn seven.png
    """
    trained = open_run(run, model, f"{context.command_path} {shlex.join([run, *images])}")
    plain_sums(exact or trained.settings.get("exact") is True)
    if trained.unfinished:
        say(f"{run}: training has not come to its end; this is the model after {trained.unfinished}", err=True)
    images = tuple(_files(images))
    paths = [printable(image) for image in images]
    widths = max(map(len, paths)), max(map(len, map(printable, trained.classes)))
    failed, inverted = False, []
    for image, path in zip(images, paths, strict=True):
        try:
            ranking, looks_inverted = _ranking(trained, image, invert)
        except DataError as error:
            failed = True
            say(f"{context.command_path}: {' '.join(str(error).split())}", err=True)
        else:
            inverted += [path] * looks_inverted
            click.echo(_columns(path, ranking, *widths) if sys.stdout.isatty() else _fields(path, ranking))
    if inverted:
        count = f"{len(inverted)} of {len(images)} images ({inverted[0]}{', …' if len(inverted) > 1 else ''})"
        say(f"warning: {count}: dark and light exchanged, compared with the training images; try --invert", err=True)
    if failed:
        context.exit(2)


def _files(images: Iterable[str]) -> Iterator[str]:
    """The image files, with those of a folder and its folders in its place."""
    for image in images:
        if Path(image).is_dir():
            inside = [str(path) for path in image_files(Path(image))]
            if not inside:
                raise DataError(image, f"the folder holds no images ({' '.join(SUFFIXES)})")
            yield from inside
        else:
            yield image


def _ranking(model: Run, image: str, invert: bool) -> tuple[Ranking, bool]:
    """Classes and probabilities, likeliest first; and whether the image looks inverted."""
    channels, *size = model.input_shape
    pixels = read_image(image, channels, (size[0], size[1]), model.background)
    if invert:
        pixels = 255 - pixels
    scores = model.network.predict(model.normalization.from_file(pixels)[None])[0].astype(np.float64)
    p = kernels.of(scores).softmax(scores, -1)
    best = np.argsort(-p, kind="stable")[:_SHOWN]
    return [(printable(model.classes[i]), float(p[i])) for i in best], model.looks_inverted(pixels)


def _columns(path: str, ranking: Ranking, path_width: int, class_width: int) -> str:
    """For people: what stands for the same thing stands in one column, and as many classes as fit on a line."""
    cells = [f"   {name:<{class_width}} {100 * p:6.2f} %" for name, p in ranking]
    room = max((columns() - path_width) // len(cells[0]), 1)
    return f"{path:<{path_width}}{''.join(cells[:room])}"


def _fields(path: str, ranking: Ranking) -> str:
    """For programs: plain fields between tabs."""
    return "\t".join([path, *(field for name, p in ranking for field in (name, f"{p:.6f}"))])
