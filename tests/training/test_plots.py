from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sharedgrad import Conv1d, Conv2d, Flatten, Linear, Network, models
from sharedgrad.errors import OutputError
from sharedgrad.training import Epoch, History, plots

RNG = np.random.default_rng(0)
HISTORY = History([Epoch(i, 1 / i, 1 - 1 / (i + 1), 1.2 / i, 1 - 1.1 / (i + 1), 0.1, 9.0) for i in range(1, 5)])


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that would have been written."""
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "_write", lambda figure, path: drawn.append(figure))
    return drawn


def is_picture(path: Path, least: int = 200) -> bool:
    with Image.open(path) as image:
        image.load()
        return image.format == "PNG" and min(image.size) >= least and len(image.getcolors(1 << 24)) > 20


def test_pictures_are_written(tmp_path: Path) -> None:
    plots.curves(HISTORY, tmp_path / "a" / "curves.png")
    plots.confusion(np.array([0, 1, 1]), np.array([0, 1, 0]), ("x", "y"), tmp_path / "confusion.png")
    assert plots.kernels(models.lenet5((1, 28, 28), 10), tmp_path / "kernels.png") is None
    assert is_picture(tmp_path / "a" / "curves.png")
    assert is_picture(tmp_path / "confusion.png")
    assert is_picture(tmp_path / "kernels.png")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        plots.curves(HISTORY, tmp_path / "file" / "curves.png")


def test_curves_show_the_history(figures: list[Any]) -> None:
    plots.curves(HISTORY, "")
    loss, accuracy = figures[0].axes
    lines = {line.get_label(): line.get_xydata() for line in loss.get_lines()}
    assert lines["training"].tolist() == [[row.epoch, row.train_loss] for row in HISTORY.rows]
    assert lines["validation"].tolist() == [[row.epoch, row.val_loss] for row in HISTORY.rows]
    percent = [line.get_ydata().tolist() for line in accuracy.get_lines()]
    assert percent[0] == [100 * (row.train_accuracy or 0) for row in HISTORY.rows]
    assert percent[1] == [100 * (row.val_accuracy or 0) for row in HISTORY.rows]


def test_curves_without_validation_or_accuracy(figures: list[Any]) -> None:
    plots.curves(History([Epoch(1, 1.0, None, None, None, 0.1, 9.0)]), "")
    loss, accuracy = figures[0].axes
    assert [line.get_label() for line in loss.get_lines()] == ["training"]
    assert not accuracy.get_lines()


def test_confusion_counts_true_classes_in_rows(figures: list[Any]) -> None:
    labels, predictions = np.array([0, 0, 0, 0, 1, 2, 2]), np.array([0, 0, 0, 1, 1, 0, 2])
    plots.confusion(labels, predictions, ("cat", "dog", "fox"), "")
    axes = figures[0].axes[0]
    assert axes.get_title() == "5 of 7 right (71.43 %)"
    shares = np.square(np.asarray(axes.images[0].get_array()))
    assert shares == pytest.approx(np.array([[0.75, 0.25, 0], [0, 1, 0], [0.5, 0, 0.5]]))
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "3", (1, 0): "1", (1, 1): "1", (0, 2): "1", (2, 2): "1"}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "fox"]
    assert axes.get_xlabel() == "predicted class"
    assert axes.get_ylabel() == "true class"


@pytest.mark.parametrize("count", [2, 20, 21, 100, 205])
def test_confusions_of_many_classes_stay_readable(figures: list[Any], count: int) -> None:
    labels = RNG.integers(0, count, 300)
    plots.confusion(labels, RNG.integers(0, count, 300), tuple(f"class {i}" for i in range(count)), "")
    axes = figures[0].axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    every = 1 if count <= 50 else -(-count // 50)
    assert names == [f"class {i}" for i in range(0, count, every)]
    assert bool(axes.texts) == (count <= 20)
    assert max(figures[0].get_size_inches()) < 15


def test_class_names_are_text_whatever_they_hold(tmp_path: Path) -> None:
    names = ("$x^$", "漢字", "a" * 300, "two\nlines", "\x07")
    labels = np.arange(5)
    plots.confusion(labels, labels, names, tmp_path / "confusion.png")
    assert is_picture(tmp_path / "confusion.png")


def picture(figures: list[Any], weight: np.ndarray) -> np.ndarray:
    """The kernels as drawn, one entry per pixel of a cell."""
    filters, channels, *size = weight.shape
    net = Network([Conv2d(channels, filters, tuple(size))], (channels, 9, 9), dtype="float64")
    net.parameters()[0].value = weight
    assert plots.kernels(net, "") is None
    return np.ma.filled(figures[-1].axes[0].images[0].get_array(), np.nan)


def test_kernels_of_one_channel(figures: list[Any]) -> None:
    weight = RNG.normal(size=(5, 1, 2, 3))
    drawn = picture(figures, weight)
    zoom, gap = plots._ZOOM, plots._GAP
    columns = -(-drawn.shape[1] // (3 * zoom + gap))
    for number, kernel in enumerate(weight[:, 0]):
        top, left = number // columns * (2 * zoom + gap), number % columns * (3 * zoom + gap)
        tile = drawn[top : top + 2 * zoom, left : left + 3 * zoom]
        assert np.array_equal(tile, kernel.repeat(zoom, 0).repeat(zoom, 1))
        assert np.isnan(drawn[top : top + 2 * zoom, left + 3 * zoom : left + 3 * zoom + gap]).all()
    assert np.isfinite(drawn).sum() == weight.size * zoom**2
    low, high = figures[0].axes[0].images[0].get_clim()
    assert -low == high == np.abs(weight).max()


def test_kernels_of_three_channels_are_colours(figures: list[Any]) -> None:
    weight = RNG.normal(size=(4, 3, 2, 2))
    drawn = picture(figures, weight)
    assert drawn.shape[2] == 3
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert drawn[0, 0] == pytest.approx(0.5 + weight[0, :, 0, 0] / (2 * np.abs(weight).max()))
    zoom, gap = plots._ZOOM, plots._GAP
    assert drawn[0, zoom] == pytest.approx(0.5 + weight[0, :, 0, 1] / (2 * np.abs(weight).max()))
    below = drawn[2 * zoom + gap, 2 * zoom + gap]
    assert below == pytest.approx(0.5 + weight[3, :, 0, 0] / (2 * np.abs(weight).max()))


def test_kernels_of_two_channels_lie_side_by_side(figures: list[Any]) -> None:
    weight = RNG.normal(size=(1, 2, 2, 2))
    drawn = picture(figures, weight)
    zoom = plots._ZOOM
    assert drawn.shape == (2 * zoom, 4 * zoom + 1)
    assert drawn[0, 0] == weight[0, 0, 0, 0]
    assert drawn[0, 2 * zoom + 1] == weight[0, 1, 0, 0]


def test_kernels_that_are_all_zero(figures: list[Any]) -> None:
    assert not picture(figures, np.zeros((2, 1, 3, 3)))[0, 0]


@pytest.mark.parametrize("layers", [[Flatten(), Linear(9, 2)], [Conv1d(3, 2, 2)], [Flatten()]])
def test_without_a_first_convolution_the_reason_is_told(tmp_path: Path, layers: list[Any]) -> None:
    reason = plots.kernels(Network(layers, (3, 3)), tmp_path / "kernels.png")
    assert reason is not None
    assert "no Conv2d" in reason
    assert not (tmp_path / "kernels.png").exists()


def test_the_curves_name_what_was_watched(figures: list[Any]) -> None:
    plots.curves(HISTORY, "", "test")
    assert [line.get_label() for line in figures[0].axes[0].get_lines()] == ["training", "test"]


def test_a_share_has_a_space_before_its_sign(figures: list[Any]) -> None:
    plots.confusion(np.array([0, 1, 1]), np.array([0, 1, 0]), ("x", "y"), "")
    assert figures[0].axes[0].get_title() == "2 of 3 right (66.67 %)"


def test_letters_that_no_font_has(figures: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no font has them, numbers stand for the names; where one has, it is used."""
    classes = ("猫", "dog", "犬")
    monkeypatch.setattr(plots, "_letters", lambda manager, path: {*range(32, 127)})
    note = plots.confusion(np.array([0, 1, 2]), np.array([0, 1, 2]), classes, "")
    assert note == "no installed font has the letters of some class names: in the picture they are numbered"
    assert [label.get_text() for label in figures[0].axes[0].get_xticklabels()] == ["class 0", "dog", "class 2"]
    stix = {0x732B, 0x72AC}
    monkeypatch.setattr(
        plots, "_letters", lambda manager, path: {*range(32, 127)} | (stix if "STIX" in path else set())
    )
    assert plots.confusion(np.array([0, 1, 2]), np.array([0, 1, 2]), classes, "") is None
    label = figures[1].axes[0].get_xticklabels()[0]
    assert label.get_text() == "猫"
    assert label.get_fontfamily()[0] == "DejaVu Sans"
    assert label.get_fontfamily()[1].startswith("STIX")


def test_letters_of_the_usual_font_need_no_other(tmp_path: Path) -> None:
    assert plots.confusion(np.array([0, 1]), np.array([0, 1]), ("größe", "Ж"), tmp_path / "a.png") is None
