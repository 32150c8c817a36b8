"""Which colour stands for which label, and how much of it there is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.patches import Patch

from vol3d.report.label_colors import label_color, label_line_style

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from vol3d.geometry import VolumeGeometry

MAX_ENTRIES = 15
MAX_COLUMNS = 5

# Of the line that a legend may fill, in the font size below: an entry takes its swatch and about so much a letter.
FONT_SIZE = 11
SHARE_PER_LETTER = 0.0078
SHARE_PER_SWATCH = 0.045


class LabelLegend:
    """The labels of a picture in a fixed order, so that a class has the same colour on the pictures of all cases.

    Args:
        labels: Label values ``H W D``, integer or bool; 0 is background.
        geometry: Of the labels, for volumes.
        class_names: Name of each label value; all of them are listed, found or not. 0 is left out. A value without
            a name follows as ``label <value>``.
    """

    def __init__(self, labels: NDArray[Any], geometry: VolumeGeometry, class_names: Mapping[int, str]) -> None:
        values, counts = np.unique(labels[labels != 0], return_counts=True)
        found = {int(value): int(count) for value, count in zip(values, counts, strict=True)}
        order = [value for value in class_names if value != 0]
        order += [value for value in found if value not in class_names]
        self.is_empty = not found
        self.volumes_ml = {value: found.get(value, 0) * geometry.voxel_volume_ml for value in order}
        self._names = {value: class_names.get(value, f"label {value}") for value in order}
        self._ranks = {value: rank for rank, value in enumerate(order)}

    @property
    def num_rows(self) -> int:
        """Lines of the legend."""
        return math.ceil(len(self._entries()) / self._num_columns())

    def color(self, value: int) -> str:
        """Return the colour of a label value."""
        return label_color(self._ranks[value])

    def line_style(self, value: int) -> str:
        """Return the contour's line style of a label value."""
        return label_line_style(self._ranks[value])

    def texts(self) -> list[str]:
        """Return name and volume of each label."""
        return [f"{self._names[value]}  {_format_ml(volume_ml)}" for value, volume_ml in self.volumes_ml.items()]

    def draw(self, figure: Figure, corner: tuple[float, float]) -> None:
        """Draw the legend with its lower left corner at a place given in shares of the figure."""
        entries = self._entries()
        if not entries:
            return
        num_columns = self._num_columns()
        legend = figure.legend(
            # Matplotlib fills columns first; labels read better in rows.
            handles=[entry for column in range(num_columns) for entry in entries[column::num_columns]],
            loc="lower left",
            bbox_to_anchor=corner,
            ncols=num_columns,
            frameon=False,
            labelcolor="white",
            fontsize=FONT_SIZE,
            borderpad=0,
            borderaxespad=0,
        )
        for text in legend.get_texts():
            # Between dollar signs matplotlib would read a formula.
            text.set_parse_math(False)

    def _num_columns(self) -> int:
        longest = max(map(len, self.texts()), default=0)
        return max(1, min(MAX_COLUMNS, int(1 / (SHARE_PER_SWATCH + SHARE_PER_LETTER * longest))))

    def _entries(self) -> list[Patch]:
        pairs = zip(self.volumes_ml, self.texts(), strict=True)
        entries = [Patch(color=self.color(value), label=text) for value, text in pairs]
        num_more = len(entries) - MAX_ENTRIES
        if num_more > 0:
            entries = [*entries[:MAX_ENTRIES], Patch(alpha=0, label=f"and {num_more} more")]
        return entries


def _format_ml(volume_ml: float) -> str:
    return f"{volume_ml:.0f} ml" if volume_ml >= 100 else f"{volume_ml:.3g} ml"
