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

from sharedgrad.cli.display import Bar, Lines, Waiting, percent
from sharedgrad.cli.echo import say
from sharedgrad.cli.exact import EXACT, plain_sums
from sharedgrad.cli.folders import planned, run_folder
from sharedgrad.cli.model_files import build_model, check_classifier, model_file
from sharedgrad.cli.recipe import LEARNING_RATES, OPTIMIZERS, Parts, default_epochs, divide
from sharedgrad.cli.values import fraction, positive
from sharedgrad.cli.values import size as as_size
from sharedgrad.data import Augmentation, Dataset, Normalization, load
from sharedgrad.data.images import BACKGROUNDS
from sharedgrad.data.normalization import brightness
from sharedgrad.document import Paragraph, terminal
from sharedgrad.errors import ConfigError, DataError, DivergedError
from sharedgrad.geometry import text
from sharedgrad.kernels import set_threads
from sharedgrad.kernels.threads import MOST_THREADS
from sharedgrad.layout import columns, fold
from sharedgrad.network import Network
from sharedgrad.optimizers import SCHEDULES
from sharedgrad.storage import init_from
from sharedgrad.training import Callback, History, State, evaluate, fit, plots, save_run
from sharedgrad.training.files import CONFUSION, CURVES, FILES, KERNELS, MODEL
from sharedgrad.training.report import place, step_report
from sharedgrad.training.run import Run, describe_run

_MOST_PIXELS = 2**20


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
    "--background",
    type=click.Choice(list(BACKGROUNDS)),
    default="white",
    show_default=True,
    help="What transparent images are laid on.",
)
@click.option("--skip-bad", is_flag=True, help="Leave out image files that cannot be read.")
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
    type=click.Choice(list(OPTIMIZERS), case_sensitive=False),
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
    help="Hold out this share of the training images; 0 trains on all.  [default: 0.2 where there is no test part]",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The same seed gives the same bits.")
@click.option(
    "--threads", type=click.IntRange(1, MOST_THREADS), help="Never changes a result.  [default: all processors]"
)
@EXACT
@click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: a new runs/DATA-MODEL]")
@click.option(
    "--init",
    metavar="RUN|FILE",
    help="Start from the weights of a run or of a .safetensors file, e.g. PyTorch's; for other classes the last layer "
    "starts anew.",
)
@click.option(
    "--keep",
    type=click.Choice(["last", "best"]),
    default="last",
    show_default=True,
    help="Which epoch's weights the model has; best: of the lowest held-out loss.",
)
@click.option("--patience", type=click.IntRange(1), help="End after so many epochs without a lower held-out loss.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with a run (of --out, or else the latest) where it was interrupted, or up to more --epochs.",
)
def train(
    data: str,
    model: str,
    size: tuple[int, int] | None,
    background: str,
    skip_bad: bool,
    epochs: int | None,
    lr: float | None,
    augment: str,
    val_fraction: float | None,
    threads: int | None,
    exact: bool,
    out: Path | None,
    init: str | None,
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

    Ctrl-C or SIGTERM keeps a checkpoint; the same line with --resume goes on, to the same bits as if never interrupted.
    """
    if threads:
        set_threads(threads)
    augmentation = Augmentation.parse(augment)
    with Waiting("reading images") as reading:
        dataset = load(data, size, reading, background=background, skip_bad=skip_bad)
    _check_extent(dataset)
    network = build_model(model, dataset.input_shape, len(dataset.classes), settings["seed"])
    check_classifier(network, model, dataset.input_shape, len(dataset.classes))
    parts = divide(dataset, val_fraction, settings["seed"])
    if parts.watched is None and (settings["keep"] == "best" or settings["patience"]):
        option = "--keep best" if settings["keep"] == "best" else "--patience"
        raise ConfigError(option, "needs images that are held out", "give a --val-fraction above 0")
    if resume:
        before = planned(out, data, model)
        epochs, exact = epochs or before.get("epochs"), exact or before.get("exact") is True
    plain_sums(exact)
    settings |= {
        "init": init,
        "model": model,
        "size": size,
        "augment": augment,
        "exact": exact,
        "val_fraction": val_fraction,
        "epochs": epochs or default_epochs(len(parts.train.x)),
        "lr": lr or LEARNING_RATES[settings["optimizer"]],
    }
    say(_about(dataset, parts, network, settings))
    if init:
        _start_from(network, init)
    normalization = Normalization.of(parts.train.x)
    if normalization.scale is None:
        problem = "floats outside [0, 1] and [0, 255], which predict could not compare image files with"
        raise DataError(dataset.name, problem, "scale them, e.g. (x + 1) / 2")
    own, shape = model_file(model, network), dataset.input_shape
    run = Run(network, data, dataset.classes, normalization, shape, settings, background=background, model_file=own)
    run = replace(run, brightness=brightness(parts.train.x))
    with run_folder(out, data, model, resume) as folder:
        try:
            history = _fit(run, parts, augmentation, folder, resume)
            _finish(run, parts, history, folder)
        except KeyboardInterrupt as stopped:
            advice = "the same line with --resume goes on"
            raise type(stopped)(f"interrupted; {folder} holds a checkpoint, {advice}") from None


def _check_extent(dataset: Dataset) -> None:
    """Photographs as cameras make them would ask for weights beyond any memory."""
    _, height, width = dataset.input_shape
    if height * width > _MOST_PIXELS:
        problem = f"images of {height}×{width} are too large to train on"
        raise DataError(dataset.name, problem, "shrink them with --size 64 or the like")


def _about(dataset: Dataset, parts: Parts, network: Network, settings: Mapping[str, Any]) -> str:
    """The data and the settings, in a line each."""
    weights = sum(prod(p.shape) for p in network.parameters())
    rate = f"{settings['optimizer']}, lr {settings['lr']:g} {settings['schedule']}"
    epochs = f"{settings['epochs']} epoch{'' if settings['epochs'] == 1 else 's'}"
    words = [epochs, f"batches of {settings['batch_size']}", rate]
    if settings["augment"] != "none":
        words.append(f"augment {settings['augment']}")
    if settings["exact"]:
        words.append("exact")
    if settings["max_norm"]:
        words.append(f"max norm {settings['max_norm']:g}")
    final = f" and {len(parts.final.x):,} {parts.final_name}" if parts.final else ""
    return (
        f"{dataset.name}: {len(parts.train.x):,} training{final} images of "
        f"{text(dataset.input_shape)}, {len(dataset.classes)} classes\n"
        f"{''.join(f'  {note}{chr(10)}' for note in dataset.notes)}"
        f"{settings['model']} ({weights:,} weights): {', '.join(words)}, seed {settings['seed']}\n"
    )


def _start_from(network: Network, source: str) -> None:
    """Take over the weights of a run or a file, and say what starts anew."""
    path = Path(source)
    new = init_from(network, path / MODEL if path.is_dir() else path)
    say(f"weights of {source}" + (f"; new: {', '.join(new)}" if new else "") + "\n")


class _Describe(Callback):
    """Writes what a checkpoint can be used with, before there is one."""

    def __init__(self, folder: Path, run: Run) -> None:
        self._folder, self._run = folder, run

    def on_start(self, state: State) -> None:
        describe_run(self._folder, self._run)


def _fit(run: Run, parts: Parts, augmentation: Augmentation | None, folder: Path, resume: bool) -> History:
    display = Bar(parts.watched_name) if sys.stdout.isatty() else Lines(parts.watched_name)
    settings, network = run.settings, run.network
    try:
        return fit(
            network,
            parts.train,
            parts.watched,
            keep=settings["keep"],
            patience=settings["patience"],
            epochs=settings["epochs"],
            batch_size=settings["batch_size"],
            optimizer=OPTIMIZERS[settings["optimizer"]](network.parameters(), lr=settings["lr"]),
            schedule=settings["schedule"],
            augment=augmentation,
            normalize=run.normalization,
            max_norm=settings["max_norm"],
            seed=settings["seed"],
            out=folder,
            resume=resume,
            progress=False,  # the display shows it
            callbacks=[_Describe(folder, run), display],
        )
    except DivergedError as error:
        fix = f"take a smaller --lr than {settings['lr']:g}, or clip the gradients with --max-norm 1"
        raise DivergedError(error.where, error.problem, fix) from error


def _finish(run: Run, parts: Parts, history: History, folder: Path) -> None:
    """Measure, write the run folder, and say what came of it."""
    results: dict[str, Any] = {}
    notes = []
    if parts.final:
        result = evaluate(run.network, *parts.final, normalize=run.normalization)
        measured_on = f"{len(parts.final.x):,} {parts.final_name} images"
        results = {"accuracy": result.accuracy, "loss": result.loss, "measured_on": measured_on}
    save_run(folder, replace(run, results=results))
    plots.curves(history, folder / CURVES, parts.watched_name or "")
    if parts.final:
        unnamed = plots.confusion(parts.final.y, result.predictions, run.classes, folder / CONFUSION)
        when = "not trained on in this run" if run.settings["init"] else "never trained on"
        chosen = run.settings["keep"] == "best" and parts.final is parts.watched
        chose = " but used to choose the epoch" if chosen else ""
        say(f"\naccuracy on {measured_on}, {when}{chose}: {percent(result.accuracy)}")
        notes += [f"{CONFUSION}: {unnamed}"] if unnamed else []
    else:
        say("\ntrained on all images: nothing was held out to measure the accuracy on")
    if run.settings["keep"] == "best" and history.best:
        say(f"kept epoch {history.best.epoch} of {len(history.rows)}, which has the lowest {parts.watched_name} loss")
    no_kernels = plots.kernels(run.network, folder / KERNELS)
    notes += [f"no {KERNELS}: {no_kernels}"] if no_kernels else []
    names = ", ".join(name for name in FILES if (folder / name).exists())
    say(f"everything is in {folder}:")
    click.echo(fold(f"  {names}", min(columns(), 80)))
    for note in notes:
        say(f"  ({note})")
    if history.step is not None:
        width = terminal.width(sys.stdout)
        report = [step_report(history.step), Paragraph.of("Where it comes from on an image, position by position:")]
        click.echo(f"\n{terminal.text(report, width, terminal.wants_color(sys.stdout))}")
        command = f'sharedgrad explain {shlex.quote(str(folder))} --image IMAGE --weight "{place(history.step)}"'
        click.echo("\n".join(terminal.wrap(command, width, "  ", "    ")))
