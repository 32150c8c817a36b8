"""Loss and validation Dice over a training run, as one PNG."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vol3d.errors import DataError
from vol3d.report.figure_file import write_figure
from vol3d.report.label_colors import OKABE_ITO

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("epoch", "seconds", "train_loss", "val_mean_dice")

LOSS_COLOR, DICE_COLOR = OKABE_ITO[-1], OKABE_ITO[-2]


def save_training_curve(path: str | Path, csv_path: str | Path) -> Path:
    """Draw the training loss and the validation Dice of each epoch, write the picture and return its path.

    Args:
        path: File name ending in ``.png``; an existing file is replaced.
        csv_path: Table with the columns ``epoch``, ``seconds`` (since the start of the run), ``train_loss`` and
            ``val_mean_dice``, which is empty at epochs without validation; other columns are not read.

    Raises:
        DataError: If the table cannot be read, lacks a column, holds no epoch or something that is no number.
        OutputError: If the path does not end in ``.png`` or cannot be written.
    """
    columns = _read_columns(Path(csv_path))
    epochs = columns["epoch"]
    points = zip(epochs, columns["val_mean_dice"], strict=True)
    dice = [(epoch, value) for epoch, value in points if not math.isnan(value)]
    figure = Figure(figsize=(8, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.plot(epochs, columns["train_loss"], color=LOSS_COLOR, linewidth=1.6)
    upper.set_ylabel("training loss")
    upper.set_title(f"{len(epochs)} epochs, {_format_duration(columns['seconds'][-1])}", loc="left", fontsize=11)
    lower.set_ylabel("validation mean Dice")
    lower.set_xlabel("epoch")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    if dice:
        _draw_dice(lower, dice)
    else:
        lower.text(0.5, 0.5, "no validation yet", transform=lower.transAxes, ha="center", va="center", color="gray")
    for axes in (upper, lower):
        axes.grid(visible=True, color="#e3e3e3", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return write_figure(path, figure)


def _draw_dice(axes: Axes, dice: list[tuple[float, float]]) -> None:
    axes.plot(*zip(*dice, strict=True), color=DICE_COLOR, linewidth=1.6, marker="o", markersize=3.5)
    best_epoch, best = max(dice, key=lambda point: point[1])
    axes.axhline(best, color=DICE_COLOR, linewidth=0.8, linestyle="dotted")
    axes.set_title(f"best {best:.4f} at epoch {best_epoch:g}, last {dice[-1][1]:.4f}", loc="left", fontsize=10)


def _read_columns(path: Path) -> dict[str, list[float]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"csv_path must be a readable table, got {path} ({error.__class__.__name__}); "
            "give the log of a training run"
        ) from error
    if missing:
        raise DataError(f"csv_path must have the columns {', '.join(COLUMNS)}, got none named {', '.join(missing)}")
    if not rows:
        raise DataError(f"csv_path must hold at least one epoch, got none in {path}; train first")
    try:
        columns = {name: [float(row[name] or "nan") for row in rows] for name in COLUMNS}
    except ValueError as error:
        raise DataError(f"csv_path must hold numbers, got {error} in {path}; repair the row") from error
    if not all(map(math.isfinite, columns["epoch"] + columns["seconds"])):
        raise DataError(f"csv_path must hold epoch and seconds in every row, got none in {path}; repair the row")
    return columns


def _format_duration(seconds: float) -> str:
    """Return a wall time as hours and minutes, or minutes and seconds."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {left:02d} s"
