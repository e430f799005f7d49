"""``sharedgrad train``: data in, a trained model in a run folder out."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import click

from sharedgrad.cli.display import Bar, Lines, Reading, percent
from sharedgrad.cli.folders import run_folder
from sharedgrad.cli.model_files import build_model, check_classifier
from sharedgrad.cli.recipe import LEARNING_RATES, OPTIMIZERS, Parts, default_epochs, divide
from sharedgrad.cli.values import fraction, positive
from sharedgrad.cli.values import size as as_size
from sharedgrad.data import Augmentation, Dataset, Normalization, load
from sharedgrad.document import terminal
from sharedgrad.errors import DivergedError
from sharedgrad.geometry import text
from sharedgrad.kernels import set_threads
from sharedgrad.kernels.threads import MOST_THREADS
from sharedgrad.network import Network
from sharedgrad.optimizers import SCHEDULES
from sharedgrad.training import History, evaluate, fit, plots, save_run
from sharedgrad.training.report import idea, place
from sharedgrad.training.run import CONFUSION, CURVES, FILES, KERNELS, Run


@click.command(short_help="Train a network on images.")
@click.argument("data")
@click.option(
    "--model",
    default="cnn",
    show_default=True,
    help="lenet5, cnn, vgg, resnet20, FILE.py:FUNCTION (called as FUNCTION(input_shape, classes), returns a "
    "Network) or a configuration in .json or .toml.",
)
@click.option(
    "--size", type=as_size, metavar="N|HxW", help="Resize the images of a folder: 32 or 32x48 (height x width)."
)
@click.option(
    "--epochs",
    type=click.IntRange(1),
    help="How often every image is seen.  [default: as often as makes about 100,000 images, from 3 to 30]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="Images per update; 1 is online gradient descent.",
)
@click.option(
    "--lr", type=positive, metavar="NUMBER", help="Learning rate.  [default: 0.003 for adam and adamw, 0.02 for sgd]"
)
@click.option(
    "--optimizer",
    type=click.Choice(list(OPTIMIZERS)),
    default="adam",
    show_default=True,
    help="sgd has momentum 0.9 (Nesterov) and weight decay 0.0001.",
)
@click.option(
    "--schedule",
    type=click.Choice(list(SCHEDULES)),
    default="one-cycle",
    show_default=True,
    help="How the learning rate changes.",
)
@click.option(
    "--augment",
    default="none",
    show_default=True,
    help="Change training images at random: flip, crop (shifted by up to 4 pixels), crop=PIXELS, or flip,crop.",
)
@click.option("--max-norm", type=positive, metavar="NUMBER", help="Scale gradients of a larger norm down to it.")
@click.option(
    "--val-fraction",
    type=fraction,
    metavar="NUMBER",
    help="Hold out this share of the training images.  [default: 0.2 where the data have no test part]",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The same seed gives the same bits.")
@click.option(
    "--threads", type=click.IntRange(1, MOST_THREADS), help="Never changes a result.  [default: all processors]"
)
@click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: a new runs/DATA-MODEL]")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run (of --out, or else the latest).")
def train(
    data: str,
    model: str,
    size: tuple[int, int] | None,
    epochs: int | None,
    lr: float | None,
    augment: str,
    val_fraction: float | None,
    threads: int | None,
    out: Path | None,
    resume: bool,
    **settings: Any,
) -> None:
    """Train a convolutional network on DATA and keep everything about it in a run folder.

    DATA is the word digits (embedded, no download), a folder with IDX files as MNIST's, a folder of images in
    class folders (with or without train/ and test/ above), or an .npz with x and y.

    \b
      sharedgrad train digits
      sharedgrad train mnist/ --model lenet5 --epochs 3
      sharedgrad train photos/ --size 32 --model resnet20 --augment flip,crop

    Ctrl-C keeps a checkpoint; the same line with --resume goes on, to the same bits as if never interrupted.
    """
    if threads:
        set_threads(threads)
    augmentation = Augmentation.parse(augment)
    with Reading() as reading:
        dataset = load(data, size, reading)
    network = build_model(model, dataset.input_shape, len(dataset.classes), settings["seed"])
    check_classifier(network, model, dataset.input_shape, len(dataset.classes))
    parts = divide(dataset, val_fraction, settings["seed"])
    settings |= {
        "model": model,
        "size": size,
        "augment": augment,
        "val_fraction": val_fraction,
        "epochs": epochs or default_epochs(len(parts.train.x)),
        "lr": lr or LEARNING_RATES[settings["optimizer"]],
    }
    click.echo(_about(dataset, parts, network, settings))
    folder = out or run_folder(data, model, resume)
    normalization = Normalization.of(parts.train.x)
    run = Run(network, data, dataset.classes, normalization, dataset.input_shape, settings)
    try:
        history = _fit(network, parts, normalization, augmentation, settings, folder, resume)
        _finish(run, parts, history, folder)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; {folder} holds a checkpoint, the same line with --resume goes on"
        ) from None


def _about(dataset: Dataset, parts: Parts, network: Network, settings: Mapping[str, Any]) -> str:
    """The data and the settings, in a line each."""
    weights = sum(prod(p.shape) for p in network.parameters())
    rate = f"{settings['optimizer']}, lr {settings['lr']:g} {settings['schedule']}"
    epochs = f"{settings['epochs']} epoch{'' if settings['epochs'] == 1 else 's'}"
    words = [epochs, f"batches of {settings['batch_size']}", rate]
    if settings["augment"] != "none":
        words.append(f"augment {settings['augment']}")
    if settings["max_norm"]:
        words.append(f"max norm {settings['max_norm']:g}")
    return (
        f"{dataset.name}: {len(parts.train.x):,} training and {len(parts.final.x):,} {parts.final_name} images of "
        f"{text(dataset.input_shape)}, {len(dataset.classes)} classes\n"
        f"{settings['model']} ({weights:,} weights): {', '.join(words)}, seed {settings['seed']}\n"
    )


def _fit(
    network: Network,
    parts: Parts,
    normalization: Normalization,
    augmentation: Augmentation | None,
    settings: Mapping[str, Any],
    folder: Path,
    resume: bool,
) -> History:
    display = Bar(parts.watched_name) if sys.stdout.isatty() else Lines(parts.watched_name)
    try:
        return fit(
            network,
            parts.train,
            parts.watched,
            epochs=settings["epochs"],
            batch_size=settings["batch_size"],
            optimizer=OPTIMIZERS[settings["optimizer"]](network.parameters(), lr=settings["lr"]),
            schedule=settings["schedule"],
            augment=augmentation,
            normalize=normalization,
            max_norm=settings["max_norm"],
            seed=settings["seed"],
            out=folder,
            resume=resume,
            callbacks=[display],
        )
    except DivergedError as error:
        fix = f"take a smaller --lr than {settings['lr']:g}, or clip the gradients with --max-norm 1"
        raise DivergedError(error.where, error.problem, fix) from error


def _finish(run: Run, parts: Parts, history: History, folder: Path) -> None:
    """Measure, write the run folder, and say what came of it."""
    result = evaluate(run.network, *parts.final, normalize=run.normalization)
    measured_on = f"{len(parts.final.x):,} {parts.final_name} images"
    results = {"accuracy": result.accuracy, "loss": result.loss, "measured_on": measured_on}
    save_run(folder, replace(run, results=results))
    plots.curves(history, folder / CURVES)
    plots.confusion(parts.final.y, result.predictions, run.classes, folder / CONFUSION)
    no_kernels = plots.kernels(run.network, folder / KERNELS)
    click.echo(f"\naccuracy on {measured_on}, never trained on: {percent(result.accuracy)}")
    click.echo(f"everything is in {folder}:")
    names = ", ".join(name for name in FILES if (folder / name).exists())
    click.echo(click.wrap_text(names, initial_indent="  ", subsequent_indent="  "))
    if no_kernels:
        click.echo(f"  (no {KERNELS}: {no_kernels})")
    if history.step is not None:
        click.echo(f"\n{terminal.text([idea(history.step)], color=terminal.wants_color(sys.stdout))}")
        click.echo("\nWhere it comes from on an image, position by position:")
        click.echo(f'  sharedgrad explain {shlex.quote(str(folder))} --image IMAGE --weight "{place(history.step)}"')
