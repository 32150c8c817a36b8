"""A labelmap over its image in three planes, as one PNG: what a reader checks before trusting the numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from vol3d.errors import UsageError
from vol3d.report.figure_file import write_figure
from vol3d.report.label_colors import OKABE_ITO
from vol3d.report.label_legend import LabelLegend
from vol3d.report.plane_views import PlaneView, Window, cut_planes, obliquity_degrees

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from vol3d.geometry import VolumeGeometry

FIGURE_WIDTH_INCHES = 12.0
MARGIN_INCHES = 0.2
GAP_INCHES = 0.12
LINE_INCHES = 0.26
MAX_ROW_INCHES = 6.0
LOCATOR_ROW_INCHES = 2.6
SCALE_BAR_SHARE = 0.3

BACKGROUND = "black"
FAINT = "#9a9a9a"
WARNING = OKABE_ITO[0]
OUTLINE = (withStroke(linewidth=2.2, foreground="black"),)

# Left, right, lower and upper edge in shares of a panel, with the alignment of the letter there.
EDGE_PLACES: tuple[tuple[float, float, Literal["left", "center", "right"], Literal["bottom", "center", "top"]], ...] = (
    (0.015, 0.5, "left", "center"),
    (0.985, 0.5, "right", "center"),
    (0.5, 0.02, "center", "bottom"),
    (0.5, 0.98, "center", "top"),
)

# Percentiles of the grey window, and how many voxels they are taken from: more change nothing one can see.
WINDOW_PERCENTILES = (1.0, 99.5)
WINDOW_SAMPLES = 200_000

# Below this angle a reader sees no difference between the scan's axes and the patient's.
OBLIQUE_DEGREES = 5.0


@dataclass(frozen=True)
class _Layout:
    """Where the rows and columns of a figure are, in inches.

    Args:
        columns: Width of each plane's column.
        inches_per_mm: One scale for the three slices, so that the same structure has the same size in each.
        slice_row: Height of the whole slices.
        zoom_row: Height of the close-ups with their gap; 0 if there are none.
        legend_row: Height of the legend.
        title_row: Height of the title.
    """

    columns: list[float]
    inches_per_mm: float
    slice_row: float
    zoom_row: float
    legend_row: float
    title_row: float

    @property
    def height(self) -> float:
        """Height of the figure: margins, title, captions, slices, close-ups, legend and note."""
        rows = self.title_row + self.slice_row + self.zoom_row + self.legend_row
        return rows + 2 * MARGIN_INCHES + 2.4 * LINE_INCHES


def save_overlay(
    path: str | Path,
    volume: NDArray[Any],
    labels: NDArray[Any],
    geometry: VolumeGeometry,
    class_names: Mapping[int, str],
    title: str | None = None,
    grey_window: tuple[float, float] | None = None,
) -> Path:
    """Draw the labels over axial, coronal and sagittal slices, write the picture and return its path.

    Radiological convention, stated on the picture; letters at the edges name the directions. Labels that cover a
    small part of the volume are also shown close up, each whole slice then carrying the close-up's frame. The title
    is the only text that comes from outside: keep names of patients out of it.

    Args:
        path: File name ending in ``.png``; an existing file is replaced.
        volume: Intensities ``H W D``; NaN and infinite voxels are drawn black.
        labels: Label values on the same grid, ``H W D``, integer or bool; 0 is background. Labels may be empty: the
            picture then says so.
        geometry: Of both.
        class_names: Name of each label value for the legend; 0 is left out, other values read ``label <value>``.
        title: Line above the picture.
        grey_window: Intensities that become black and white, for example a CT window in HU. None takes
            percentiles 1 and 99.5 of the voxels that are not at the volume's minimum (background, padding).

    Raises:
        GeometryError: If a shape is not the geometry's.
        DataError: If labels are not integer.
        UsageError: If ``grey_window`` is empty.
        OutputError: If the path does not end in ``.png`` or cannot be written.
    """
    if grey_window is not None and not grey_window[0] < grey_window[1]:
        raise UsageError(f"grey_window must rise, got {grey_window}; give black first, then white")
    views = cut_planes(volume, labels, geometry)
    legend = LabelLegend(labels, geometry, class_names)
    note = "Radiological convention: the patient's right is on the left of the picture."
    degrees = obliquity_degrees(geometry)
    if degrees > OBLIQUE_DEGREES:
        note += f" The planes follow the scan's own axes, {degrees:.0f}° off the patient's."
    if legend.is_empty:
        note = "NO LABEL in this volume. " + note
    figure = _draw(views, grey_window or _robust_window(volume), legend, title, note)
    return write_figure(path, figure)


def _plan(views: list[PlaneView], num_legend_rows: int, has_title: bool) -> _Layout:
    is_zoomed = views[0].window is not None
    inner = FIGURE_WIDTH_INCHES - 2 * MARGIN_INCHES - 2 * GAP_INCHES
    widths_mm, heights_mm = zip(*(view.size_mm for view in views), strict=True)
    columns = [inner / 3 if is_zoomed else inner * width / sum(widths_mm) for width in widths_mm]
    limit = LOCATOR_ROW_INCHES if is_zoomed else MAX_ROW_INCHES
    fits = (column / width for column, width in zip(columns, widths_mm, strict=True))
    inches_per_mm = min(limit / max(heights_mm), *fits)
    return _Layout(
        columns=columns,
        inches_per_mm=inches_per_mm,
        slice_row=max(heights_mm) * inches_per_mm,
        zoom_row=columns[0] + GAP_INCHES if is_zoomed else 0.0,
        legend_row=num_legend_rows * LINE_INCHES,
        title_row=1.4 * LINE_INCHES if has_title else 0.0,
    )


def _draw(
    views: list[PlaneView], grey: tuple[float, float], legend: LabelLegend, title: str | None, note: str
) -> Figure:
    layout = _plan(views, legend.num_rows, bool(title))
    figure = Figure(figsize=(FIGURE_WIDTH_INCHES, layout.height), facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    top = layout.height - MARGIN_INCHES - layout.title_row - LINE_INCHES
    left = MARGIN_INCHES
    shown_mm = [view.window.side_mm if view.window else view.size_mm[0] for view in views]
    bar_mm = _round_length(SCALE_BAR_SHARE * min(shown_mm))
    for view, column in zip(views, layout.columns, strict=True):
        _text(figure, left, top + 0.3 * LINE_INCHES, f"{view.name}   {view.index_name} = {view.index}", color="white")
        width, height = (size_mm * layout.inches_per_mm for size_mm in view.size_mm)
        whole = _add_axes(figure, left + (column - width) / 2, top - height, width, height)
        _draw_slice(whole, view, grey, legend, None)
        if view.window is None:
            _draw_scale_bar(whole, bar_mm)
        else:
            _frame(whole, view.window)
            close = _add_axes(figure, left, top - layout.slice_row - layout.zoom_row, column, column)
            _draw_slice(close, view, grey, legend, view.window)
            _draw_scale_bar(close, bar_mm)
        left += column + GAP_INCHES
    if title:
        _text(figure, MARGIN_INCHES, layout.height - MARGIN_INCHES - 0.8 * LINE_INCHES, title, color="white", size=14)
    _text(figure, MARGIN_INCHES, MARGIN_INCHES, note, color=WARNING if legend.is_empty else FAINT, size=9)
    corner = (MARGIN_INCHES / FIGURE_WIDTH_INCHES, (MARGIN_INCHES + LINE_INCHES) / layout.height)
    legend.draw(figure, corner)
    return figure


def _draw_slice(
    axes: Axes, view: PlaneView, grey: tuple[float, float], legend: LabelLegend, window: Window | None
) -> None:
    width_mm, height_mm = view.size_mm
    axes.imshow(
        # Clipped as float64: intensities beyond float32 would overflow in drawing.
        np.clip(np.where(np.isfinite(view.image), view.image, grey[0]).astype(np.float64), *grey),
        cmap="gray",
        vmin=grey[0],
        vmax=grey[1],
        extent=(0.0, width_mm, 0.0, height_mm),
        origin="lower",
        interpolation="bilinear",
    )
    # Thick lines would hide the labels of a small locator.
    is_locator = window is None and view.window is not None
    _draw_labels(axes, view, legend, line_width=0.8 if is_locator else 1.6)
    left, bottom = (window.left_mm, window.bottom_mm) if window else (0.0, 0.0)
    axes.set_xlim(left, left + (window.side_mm if window else width_mm))
    axes.set_ylim(bottom, bottom + (window.side_mm if window else height_mm))
    for letter, (x, y, horizontal, vertical) in zip(view.edges, EDGE_PLACES, strict=True):
        axes.text(
            x,
            y,
            letter,
            transform=axes.transAxes,
            ha=horizontal,
            va=vertical,
            color="white",
            size=12,
            weight="bold",
            path_effects=OUTLINE,
        )


def _draw_labels(axes: Axes, view: PlaneView, legend: LabelLegend, line_width: float) -> None:
    values = [int(value) for value in np.unique(view.labels) if value != 0]
    if not values:
        return
    fill = np.zeros((*view.labels.shape, 4), dtype=np.float32)
    # A border of background closes the contour of a label that touches the edge of the volume.
    padded = np.pad(view.labels, 1)
    columns = (np.arange(padded.shape[1]) - 0.5) * view.pixel_mm[0]
    rows = (np.arange(padded.shape[0]) - 0.5) * view.pixel_mm[1]
    for value in values:
        fill[view.labels == value] = to_rgba(legend.color(value), 0.28)
        axes.contour(
            columns,
            rows,
            (padded == value).astype(np.float32),
            levels=[0.5],
            colors=[legend.color(value)],
            linewidths=line_width,
            linestyles=legend.line_style(value),
        )
    width_mm, height_mm = view.size_mm
    axes.imshow(fill, extent=(0.0, width_mm, 0.0, height_mm), origin="lower", interpolation="nearest")


def _draw_scale_bar(axes: Axes, length_mm: float) -> None:
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    start, height = right - 0.04 * (right - left) - length_mm, bottom + 0.04 * (top - bottom)
    thickness = 0.011 * (top - bottom)
    axes.add_patch(
        Rectangle((start, height), length_mm, thickness, facecolor="white", edgecolor="black", linewidth=0.7)
    )
    axes.text(
        start + length_mm / 2,
        height + 2 * thickness,
        f"{length_mm:g} mm",
        color="white",
        size=10,
        ha="center",
        va="bottom",
        path_effects=OUTLINE,
    )


def _round_length(longest_mm: float) -> float:
    """Return the largest 1, 2 or 5 times a power of ten that is not longer."""
    power = 10.0 ** math.floor(math.log10(longest_mm))
    return max(step * power for step in (1, 2, 5) if step * power <= longest_mm)


def _frame(axes: Axes, window: Window) -> None:
    corner = (window.left_mm, window.bottom_mm)
    axes.add_patch(Rectangle(corner, window.side_mm, window.side_mm, fill=False, edgecolor="white", linewidth=0.9))


def _add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Return axes at a place in inches, without ticks."""
    full_width, full_height = figure.get_size_inches()
    axes = figure.add_axes((left / full_width, bottom / full_height, width / full_width, height / full_height))
    axes.set_axis_off()
    return axes


def _text(figure: Figure, left: float, bottom: float, text: str, color: str, size: float = 11) -> None:
    full_width, full_height = figure.get_size_inches()
    # A title such as a file name may hold dollar signs, which matplotlib would read as a formula.
    figure.text(left / full_width, bottom / full_height, text, color=color, size=size, parse_math=False)


def _robust_window(volume: NDArray[Any]) -> tuple[float, float]:
    """Return the grey window from a sample of the voxels above the minimum."""
    step = max(1, round((volume.size / WINDOW_SAMPLES) ** (1 / 3)))
    sample = np.asarray(volume[::step, ::step, ::step], dtype=np.float64)
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return 0.0, 1.0
    above = sample[sample > sample.min()]
    low, high = np.percentile(above if above.size else sample, WINDOW_PERCENTILES)
    return float(low), float(high) if high > low else float(low) + 1.0
