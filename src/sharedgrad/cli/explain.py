"""``sharedgrad explain``: a whole calculation, with its actual numbers."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sharedgrad.cli.exact import plain_sums
from sharedgrad.data import read_image
from sharedgrad.document import terminal
from sharedgrad.errors import ConfigError
from sharedgrad.explaining import Explanation, gallery, templates
from sharedgrad.explaining import explain as explained
from sharedgrad.explaining.trained import explain_trained
from sharedgrad.storage import write_text
from sharedgrad.training.run import load_run

_WIDTH = 80


@click.command(short_help="A calculation with all its numbers, step by step.")
@click.argument("what", metavar="NAME|FILE|RUN", required=False)
@click.option("--list", "listed", is_flag=True, help="The worked examples, each with its source.")
@click.option("--template", metavar="KIND", help=f"Print a file to start from: {', '.join(templates.NAMES)}.")
@click.option("--weight", metavar="WEIGHT", help='One weight and all its uses: "conv.weight[0,0,1,2]".')
@click.option("--layer", metavar="NODE", help="One layer alone.")
@click.option("--all", "everything", is_flag=True, help="Write out all of large arrays and long sums, too.")
@click.option("--image", type=click.Path(path_type=Path), help="For a RUN: the image to look at.")
@click.option("--label", help="For a RUN: the image's class; what goes back is then the gradient of the loss.")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a page instead.")
@click.option(
    "--latex", type=click.Path(path_type=Path), metavar="FILE", help="Write LaTeX instead; it compiles as it is."
)
def explain(
    what: str | None,
    listed: bool,
    template: str | None,
    weight: str | None,
    layer: str | None,
    everything: bool,
    image: Path | None,
    label: str | None,
    html: Path | None,
    latex: Path | None,
) -> None:
    """Write a calculation out: forward, loss, backward, update; formulas, numbers, results.

    NAME is a worked example (--list names them), FILE a small network with its numbers in .json or .toml
    (--template prints one to start from), RUN the folder of a trained model.

    \b
      sharedgrad explain filter-1d
      sharedgrad explain network-5x5 --weight "conv.weight[0,0]" --html page.html
      sharedgrad explain --template conv > mine.json
      sharedgrad explain runs/digits-cnn --image seven.png
    """
    if listed:
        click.echo(_list())
    elif template is not None:
        click.echo(templates.template(template))
    elif what is None:
        raise click.UsageError("expected NAME, FILE or RUN; --list shows the worked examples")
    else:
        found = _of_run(what, weight, image, label, everything, layer) if Path(what).is_dir() else None
        if found is None:
            if image is not None or label is not None:
                raise ConfigError("explain", "--image and --label are for the folder of a trained model")
            found = explained(what, weight=weight, layer=layer, everything=everything)
        _show(found, html, latex)


def _of_run(
    folder: str, weight: str | None, image: Path | None, label: str | None, everything: bool, layer: str | None
) -> Explanation:
    run = load_run(folder)
    plain_sums(run.settings.get("exact") is True)
    if image is None or layer is not None:
        problem = "a trained model is explained by one weight on one image"
        raise ConfigError(f"explain {folder}", problem, "add --image FILE, and leave out --layer")
    channels, *size = run.input_shape
    pixels = read_image(image, channels, (size[0], size[1]))
    x = run.normalization.from_file(pixels)
    return explain_trained(run.network, x, pixels, run.classes, weight, label, everything)


def _show(explanation: Explanation, html: Path | None, latex: Path | None) -> None:
    """Into the files that are asked for, or on the screen."""
    if html is not None:
        _write(html, explanation.html)
    if latex is not None:
        _write(latex, explanation.latex)
    if html is None and latex is None:
        click.echo(explanation.text(terminal.width(sys.stdout), terminal.wants_color(sys.stdout)))


def _write(path: Path, text: str) -> None:
    write_text(path, text)
    click.echo(f"written: {path}")


def _list() -> str:
    wide = max(len(name) for name in gallery.NAMES) + 2
    lines = []
    for entry in gallery.entries():
        first, *others = terminal.wrap(entry.title, _WIDTH, " " * wide, " " * wide)
        lines += [entry.name.ljust(wide) + first[wide:], *others]
        for _, url in entry.calculation.sources or (("", "numbers made up for this example"),):
            lines += terminal.address(url, _WIDTH, " " * wide)
    return "\n".join(lines)
