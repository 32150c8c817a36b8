"""The three anatomical slices of a volume that show its labels best; arithmetic only, nothing is drawn.

A slice is an array ``[row, column]`` as it appears on the picture: rows upwards, columns to the right. Voxels are
transposed and flipped, never resampled: an oblique scan is cut along its own axes, each called after the anatomical
plane it is nearest to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import find_objects

from vol3d.errors import DataError, GeometryError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vol3d.geometry import VolumeGeometry

_OPPOSITE = dict(zip("LRPAIS", "RLAPSI", strict=True))

# Directions in which the display axes x, y, z run. In radiological convention x runs to the patient's left.
_DISPLAY_CODES = "LAS"

# Name, normal axis, column axis, row axis, and whether columns run against their axis: a sagittal slice has anterior
# on the left of the picture.
_PLANES = (("axial", 2, 0, 1, False), ("coronal", 1, 0, 2, False), ("sagittal", 0, 1, 2, True))

# The slice through the centre of mass is shown unless it holds less than this share of the label's largest slice:
# between the two hippocampi there is none at all.
MIN_AREA_SHARE = 0.5

# Around a label this share of its extent is shown on each side, and at least so many mm in all: anatomy to find it by.
MARGIN_SHARE = 0.15
MIN_WINDOW_MM = 40.0


# Of the padding that is cut off this share of the content stays on each side: room for the letters at the edges.
RIM_SHARE = 0.04


@dataclass(frozen=True)
class Window:
    """A square part of a slice, in mm from its lower left corner."""

    left_mm: float
    bottom_mm: float
    side_mm: float


@dataclass(frozen=True, eq=False)
class PlaneView:
    """One slice as it appears on the picture.

    Args:
        name: ``axial``, ``coronal`` or ``sagittal``.
        image: Intensities ``[row, column]``, rows upwards.
        labels: Label values, same shape.
        pixel_mm: Width and height of a pixel.
        edges: Anatomical letters of the left, right, lower and upper edge.
        index_name: Axis of the array that the slice was cut across, ``i``, ``j`` or ``k``.
        index: Index of the slice along that axis, counted from 0 in the volume's own order.
        window: Close-up of the labels; None if they fill the volume, or there are none.
    """

    name: str
    image: NDArray[Any]
    labels: NDArray[Any]
    pixel_mm: tuple[float, float]
    edges: str
    index_name: str
    index: int
    window: Window | None

    @property
    def size_mm(self) -> tuple[float, float]:
        """Width and height of the slice."""
        rows, columns = self.image.shape
        return columns * self.pixel_mm[0], rows * self.pixel_mm[1]


def cut_planes(volume: NDArray[Any], labels: NDArray[Any], geometry: VolumeGeometry) -> list[PlaneView]:
    """Return the axial, coronal and sagittal slice through the labels.

    Each slice goes through the labels' centre of mass, or where that holds little of them, through their largest
    slice; without any label, through the middle. Padding (edges of the volume that hold nothing but its minimum, as
    masked scans and templates have) is cut off.

    Args:
        volume: Intensities ``H W D``.
        labels: Label values on the same grid, ``H W D``, integer or bool; 0 is background.
        geometry: Of both.

    Raises:
        GeometryError: If a shape is not the geometry's.
        DataError: If labels are not integer.
    """
    for name, array in (("volume", volume), ("labels", labels)):
        if array.shape != geometry.shape:
            raise GeometryError(
                f"{name} must have the shape of its geometry, got {array.shape} against {geometry.shape}; "
                "give the grid that the array was read with"
            )
    if labels.dtype != np.bool_ and not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"labels must be integer, got {labels.dtype}; threshold or argmax them first")
    axes = [_axis_of(code, geometry.axis_codes) for code in _DISPLAY_CODES]
    flips = [geometry.axis_codes[axis] != code for axis, code in zip(axes, _DISPLAY_CODES, strict=True)]
    spacing = [geometry.spacing_mm[axis] for axis in axes]
    box = find_objects((labels != 0).view(np.uint8), max_label=1)[0]
    content = _find_content(volume, box)
    shown, marked = _reorient(volume[content], axes, flips), _reorient(labels[content], axes, flips)
    if box is None:
        center, window = [n // 2 for n in shown.shape], None
    else:
        shown_box = _reorient_box(box, content, axes, flips)
        center, window = _find_center(marked, shown_box), _window_around(shown_box, shown.shape, spacing)
    views = []
    for name, normal, column, row, is_mirrored in _PLANES:
        edges = _OPPOSITE[_DISPLAY_CODES[column]] + _DISPLAY_CODES[column]
        edges = (edges[::-1] if is_mirrored else edges) + _OPPOSITE[_DISPLAY_CODES[row]] + _DISPLAY_CODES[row]
        index = center[normal]
        file_axis = axes[normal]
        views.append(
            PlaneView(
                name=name,
                image=_cut(shown, normal, index, is_mirrored),
                labels=_cut(marked, normal, index, is_mirrored),
                pixel_mm=(spacing[column], spacing[row]),
                edges=edges,
                index_name="ijk"[file_axis],
                index=content[file_axis].stop - 1 - index if flips[normal] else content[file_axis].start + index,
                window=window and _project(window, column, row, shown.shape[column] * spacing[column] * is_mirrored),
            )
        )
    return views


def obliquity_degrees(geometry: VolumeGeometry) -> float:
    """Return the largest angle between an axis of the scan and the anatomical direction that it is named after."""
    directions = np.abs(geometry.affine[:3, :3]) / np.array(geometry.spacing_mm)
    worlds = [
        next(w for w, letters in enumerate(("LR", "PA", "IS")) if code in letters) for code in geometry.axis_codes
    ]
    cosines = [directions[world, axis] for axis, world in enumerate(worlds)]
    return math.degrees(math.acos(min(1.0, *cosines)))


def _axis_of(code: str, axis_codes: str) -> int:
    return next(axis for axis, letter in enumerate(axis_codes) if letter in (code, _OPPOSITE[code]))


def _reorient(array: NDArray[Any], axes: list[int], flips: list[bool]) -> NDArray[Any]:
    reoriented: NDArray[Any] = array.transpose(axes)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    return reoriented


def _reorient_box(
    box: tuple[slice, ...], content: tuple[slice, ...], axes: list[int], flips: list[bool]
) -> tuple[slice, ...]:
    """Return a box of the volume as a box of the reoriented content."""
    parts = []
    for axis, flip in zip(axes, flips, strict=True):
        low, high = content[axis].start, content[axis].stop
        part = box[axis]
        parts.append(slice(high - part.stop, high - part.start) if flip else slice(part.start - low, part.stop - low))
    return tuple(parts)


def _find_content(volume: NDArray[Any], label_box: tuple[slice, ...] | None) -> tuple[slice, ...]:
    """Return the box of all voxels that are above the volume's minimum or labelled."""
    # Unlike min, fmin passes over NaN; if all is NaN, nothing is above it.
    lowest = np.fmin.reduce(volume, axis=None)
    box = find_objects((volume > lowest).view(np.uint8), max_label=1)[0]
    if box is None:
        return tuple(slice(0, n) for n in volume.shape)
    content = []
    for axis, part in enumerate(box):
        rim = math.ceil(RIM_SHARE * (part.stop - part.start))
        marked = part if label_box is None else label_box[axis]
        start, stop = min(part.start - rim, marked.start), max(part.stop + rim, marked.stop)
        content.append(slice(max(0, start), min(volume.shape[axis], stop)))
    return tuple(content)


def _cut(array: NDArray[Any], normal: int, index: int, is_mirrored: bool) -> NDArray[Any]:
    plane: NDArray[Any] = array[tuple(index if axis == normal else slice(None) for axis in range(3))].T
    return plane[:, ::-1] if is_mirrored else plane


def _find_center(labels: NDArray[Any], box: tuple[slice, ...]) -> list[int]:
    """Return for each axis the slice to show."""
    mask = labels[box] != 0
    center = []
    for axis, part in enumerate(box):
        areas = mask.sum(axis=tuple(other for other in range(3) if other != axis))
        index = round(float((areas * np.arange(areas.size)).sum() / areas.sum()))
        if areas[index] < MIN_AREA_SHARE * areas.max():
            index = int(areas.argmax())
        center.append(part.start + index)
    return center


def _window_around(
    box: tuple[slice, ...], shape: tuple[int, ...], spacing: list[float]
) -> tuple[NDArray[np.float64], float] | None:
    """Return the lower corner and the side in mm of a cube around a box of labels; None if it is no close-up."""
    size_mm = np.array(shape) * spacing
    low_mm = np.array([part.start for part in box]) * spacing
    high_mm = np.array([part.stop for part in box]) * spacing
    side_mm = max(MIN_WINDOW_MM, float((high_mm - low_mm).max()) * (1 + 2 * MARGIN_SHARE))
    if side_mm > 0.6 * float(size_mm.max()):
        return None
    corner_mm = (low_mm + high_mm - side_mm) / 2
    inside_mm = np.clip(corner_mm, 0, np.maximum(size_mm - side_mm, 0))
    # An axis that is shorter than the window is centred in it.
    return np.where(size_mm < side_mm, (size_mm - side_mm) / 2, inside_mm), side_mm


def _project(cube: tuple[NDArray[np.float64], float], column: int, row: int, mirror_mm: float) -> Window:
    """Return the side of a cube that a plane shows; ``mirror_mm`` is the width of a mirrored plane, else 0."""
    corner_mm, side_mm = cube
    left_mm = float(corner_mm[column])
    return Window(mirror_mm - left_mm - side_mm if mirror_mm else left_mm, float(corner_mm[row]), side_mm)
