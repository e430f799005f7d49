"""``sharedgrad trace``: where the gradient of a trained model comes from."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from sharedgrad.cli.display import Waiting
from sharedgrad.cli.echo import say
from sharedgrad.cli.exact import plain_sums
from sharedgrad.cli.model_files import open_run
from sharedgrad.cli.recipe import divide
from sharedgrad.cli.values import size as as_size
from sharedgrad.data import Dataset, Normalization, load
from sharedgrad.document import terminal
from sharedgrad.errors import DataError
from sharedgrad.geometry import text
from sharedgrad.parameter import Array
from sharedgrad.randomness import generator
from sharedgrad.storage import ensure_writable, write_text
from sharedgrad.tracing import page
from sharedgrad.tracing.report import Report, named
from sharedgrad.tracing.survey import survey
from sharedgrad.training.run import Run

_LIMIT = 2000


@click.command(short_help="Where a trained model's gradient comes from.")
@click.argument("run")
@click.argument("data")
@click.option("--param", "params", multiple=True, metavar="NAME", help="Only this parameter; can be repeated.")
@click.option(
    "--part",
    type=click.Choice(["training", "held-out", "all"]),
    default="training",
    show_default=True,
    help="Which images: those that were trained on (the gradient is then that of training), or the others.",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=_LIMIT,
    show_default=True,
    help="At most so many images, drawn at random.",
)
@click.option(
    "--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Images at a time; bounds the memory."
)
@click.option(
    "--mode",
    type=click.Choice(["evaluation", "training"]),
    default="evaluation",
    show_default=True,
    help="What batch norm and dropout do. In training mode the images of a batch depend on one another.",
)
@click.option("--size", type=as_size, metavar="N|HxW", help="Resize images of a folder.  [default: as in training]")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write a page, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
@click.option(
    "--model",
    metavar="FILE.py:FUNCTION",
    help="The file of layers of your own, as in training; code that only a run folder names is never run.",
)
@click.pass_context
def trace(
    context: click.Context,
    run: str,
    data: str,
    params: tuple[str, ...],
    part: str,
    limit: int,
    batch_size: int,
    mode: str,
    size: tuple[int, int] | None,
    out: Path | None,
    as_json: bool,
    model: str | None,
) -> None:
    """Take the gradient of a trained model over DATA apart into the uses of each parameter.

    RUN is the folder of a trained model; DATA as for train: digits, a folder with IDX files, a folder of images in
    class folders, or an .npz. Each row says how often a parameter is used, how far its uses agree (coherence: 1 as
    of random directions, below 1 where they cancel), how much cancels (beside it, what would of random directions),
    and which image and position have the largest share. --out writes a page with the maps over the images.

    \b
      sharedgrad trace runs/digits-cnn digits
      sharedgrad trace runs/digits-cnn digits --param conv1.weight --out report.html

    The exit code is 1 if the uses of a parameter do not add up to its gradient.
    """
    if out is not None:
        ensure_writable(out.parent)  # before the work, not behind it
    trained = open_run(run, model, f"{context.command_path} {shlex.join([run, data])}")
    plain_sums(trained.settings.get("exact") is True)
    if trained.unfinished:
        say(f"{run}: training has not come to its end; this is the model after {trained.unfinished}", err=True)
    with Waiting("reading images") as reading:
        dataset = load(data, size or _size_of(trained, data), reading, background=trained.background)
    _check_fit(trained, dataset)
    images, labels, numbers, words = _samples(trained, dataset, part, limit)
    _check_range(trained, dataset.name, images)
    with Waiting("tracing images twice") as progress:
        training, normalize = mode == "training", trained.normalization
        found = survey(trained.network, images, labels, normalize, params, batch_size, progress, training)
    notes = (
        ("Weight decay, which the optimizer adds, is not in it.",) if trained.settings.get("optimizer") == "sgd" else ()
    )
    report = Report(found, run, words, trained.classes, images, numbers, trained.network.dtype, notes)
    if as_json:
        click.echo(json.dumps(report.data_of(), indent=1, ensure_ascii=False))
    else:
        click.echo(report.text(terminal.width(sys.stdout), terminal.wants_color(sys.stdout)))
    if out is not None:
        write_text(out, page.render(report))
        say(f"\nwritten: {out}", err=as_json)
    context.exit(0 if report.adds_up else 1)


def _size_of(run: Run, data: str) -> tuple[int, int] | None:
    """Images of folders are brought to the size that the model takes."""
    folder = data != "digits" and Path(data).is_dir()
    _, height, width = run.input_shape
    return (height, width) if folder and run.settings.get("size") else None


def _check_fit(run: Run, dataset: Dataset) -> None:
    """The images and classes are those that the model knows."""
    if dataset.input_shape != run.input_shape:
        problem = f"images of {text(dataset.input_shape)}, but the model takes {text(run.input_shape)}"
        raise DataError(dataset.name, problem, "give data like those of training, or --size for a folder of images")
    unknown = [name for name in dataset.classes if name not in run.classes]
    if unknown:
        known = ", ".join(run.classes[:10]) + (", …" if len(run.classes) > 10 else "")
        raise DataError(dataset.name, f"class {unknown[0]!r} is none of the model's", f"it knows {known}")


def _check_range(run: Run, name: str, images: Array) -> None:
    """Pixels from 0 to 1 are not mistaken for those from 0 to 255, as far as they can be told apart."""
    scale, own = Normalization.of(images).scale, run.normalization.scale
    if scale and own and scale != own:
        ends = {1.0: "255"}
        problem = f"pixels from 0 to {ends.get(scale, '1')}, but the model was trained on 0 to {ends.get(own, '1')}"
        raise DataError(name, problem, "scale them")


def _samples(run: Run, dataset: Dataset, part: str, limit: int) -> tuple[Array, Array, Array, str]:
    """The images, their classes as the model numbers them, their numbers in the data set, and what to call them."""
    pools = {"training": (dataset.x, dataset.y)}
    if dataset.x_test is not None and dataset.y_test is not None:
        pools["test"] = dataset.x_test, dataset.y_test
    pool, which, words = "training", np.arange(len(dataset.y)), "training"
    if part != "all":
        fraction, seed = run.settings.get("val_fraction"), int(run.settings.get("seed", 0))
        tested = None if dataset.y_test is None else _numbers(dataset.y_test)
        # the images' own numbers are divided in their place, as training divided the images
        try:
            parts = divide(replace(dataset, x=_numbers(dataset.y), x_test=tested), fraction, seed)
        except DataError as error:  # too few images to be divided as the run was
            raise DataError(error.where, error.problem, "take --part all") from None
        chosen, words = (parts.train, "training") if part == "training" else (parts.final, parts.final_name or "")
        if chosen is None:
            raise DataError(dataset.name, "the run held nothing out", "take --part training or all")
        which = chosen.x.reshape(-1).astype(np.int64)
        pool = "test" if words == "test" else "training"
    x, y = pools[pool]
    every = len(which)
    if every > limit:
        which = np.sort(generator(0, "trace").permutation(which)[:limit])
    words = "" if part == "all" else f"{words} "
    of = f"of {dataset.name}" if every == len(which) else f"of {dataset.name}, drawn from {every:,}"
    places = np.array([run.classes.index(name) for name in dataset.classes])
    return x[which], places[y[which]], which, named(len(which), f"{words}image", of)


def _numbers(labels: Array) -> Array:
    """The number of every image, in the form of an image."""
    return np.arange(float(len(labels))).reshape(-1, 1, 1, 1)
