"""The training curve and the tables that it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from matplotlib.image import imread

from vol3d.errors import DataError, OutputError
from vol3d.report.curve_figure import save_training_curve

if TYPE_CHECKING:
    from pathlib import Path

HEADER = "epoch,seconds,learning_rate,train_loss,val_mean_dice\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "log.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "rows",
    [
        "1,10.0,0.001,1.5,\n",
        "1,10.0,0.001,1.5,0.5\n",
        "1,10.0,0.001,1.5,\n2,20.5,0.0005,1.2,0.7\n3,7300,0,nan,\n",
    ],
)
def test_runs_with_and_without_validation_are_drawn(tmp_path: Path, rows: str) -> None:
    path = save_training_curve(tmp_path / "curve.png", write(tmp_path, HEADER + rows))
    assert imread(path).shape == (780, 1200, 4)


def test_more_columns_in_another_order_are_fine(tmp_path: Path) -> None:
    table = "note,train_loss,epoch,val_mean_dice,seconds\nx,1.0,1,0.5,3\n"
    assert save_training_curve(tmp_path / "curve.png", write(tmp_path, table)).is_file()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER, "must hold at least one epoch, got none"),
        ("", "got none named epoch, seconds, train_loss, val_mean_dice"),
        ("epoch,seconds,train_loss\n1,2,3\n", "got none named val_mean_dice"),
        (HEADER + "1,2,3,high,\n", r"must hold numbers, got .*'high'"),
        (HEADER + "1\n", "must hold epoch and seconds in every row"),
    ],
)
def test_a_table_that_is_no_training_log_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        save_training_curve(tmp_path / "curve.png", write(tmp_path, text))
    assert not (tmp_path / "curve.png").exists()


def test_a_missing_or_binary_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"csv_path must be a readable table, got .*none\.csv"):
        save_training_curve(tmp_path / "curve.png", tmp_path / "none.csv")
    (tmp_path / "log.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="csv_path must be a readable table"):
        save_training_curve(tmp_path / "curve.png", tmp_path / "log.csv")


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"path must end in \.png, got curve\.pdf"):
        save_training_curve(tmp_path / "curve.pdf", write(tmp_path, HEADER + "1,2,3,4,\n"))
