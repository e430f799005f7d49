from __future__ import annotations

from pathlib import Path

import pytest

from sharedgrad.errors import CheckpointError
from sharedgrad.training import Epoch, History

ROWS = [Epoch(1, 2 / 3, 0.1, 1e-17, 1 / 3, 0.001, 12345.678), Epoch(2, 0.5, None, None, None, 1e-05, 3.0)]


def test_metrics_are_written_as_promised(tmp_path: Path) -> None:
    History(ROWS).write(tmp_path / "metrics.csv")
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        "epoch,train_loss,train_accuracy,val_loss,val_accuracy,learning_rate,images_per_second",
        "1,0.6666666666666666,0.1,1e-17,0.3333333333333333,0.001,12345.678",
        "2,0.5,,,,1e-05,3.0",
    ]


def test_metrics_read_back_exactly(tmp_path: Path) -> None:
    History(ROWS).write(tmp_path / "metrics.csv")
    assert History.read(tmp_path / "metrics.csv") == History(ROWS)


@pytest.mark.parametrize(
    "text", [b"", b"epoch,loss\n1,2\n", b"\xff\xfe", None, b"header\n1,2", b"header\n1,a,,,,1,1\n", b"header\n\n"]
)
def test_other_files_are_refused(tmp_path: Path, text: bytes | None) -> None:
    path = tmp_path / "metrics.csv"
    History(ROWS).write(path)
    header = path.read_bytes().splitlines()[0]
    path.unlink()
    if text is not None:
        path.write_bytes(text.replace(b"header", header))
    with pytest.raises(CheckpointError) as error:
        History.read(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_it_shows_itself() -> None:
    rows = [Epoch(1, 0.5, 0.75, None, None, 0.1, 9.0), Epoch(2, 0.25, 0.8, 1.5, 0.5, 0.1, 9.0)]
    html = History(rows)._repr_html_()
    assert "<th>val accuracy</th>" in html
    assert "<tr><td>1</td><td>0.5</td><td>0.75</td><td></td><td></td>" in html
    figure = History(rows).plot()
    assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy (%)"]
    assert figure.axes[0].get_lines()[0].get_ydata().tolist() == [0.5, 0.25]
