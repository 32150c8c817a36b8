"""From the positions of slices to one regular grid, or a refusal that says what is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vol3d.errors import GeometryError, VolumeReadError
from vol3d.geometry import MAX_AXIS_COSINE, RAS_TO_LPS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vol3d.data.dicom_slice import DicomSlice

# Scanners write positions with few decimals: steps of 0.625 mm appear as 0.6 and 0.7. Each slice may lie this far from
# its place on the regular grid, or a quarter of the step if that is less.
MAX_POSITION_ERROR_MM = 0.1
# Two slices closer than this are the same place.
_SAME_PLACE_MM = 1e-3
_MAX_LISTED = 8


def stack_slices(name: str, slices: Sequence[DicomSlice]) -> tuple[list[DicomSlice], NDArray[np.float64]]:
    """Order the slices of one series and find their grid.

    Args:
        name: Folder name for messages.
        slices: All slices of one series, in any order.

    Returns:
        The slices in order of position along the normal, and the 4x4 RAS+ affine of ``[column, row, slice]``.

    Raises:
        VolumeReadError: If there are fewer than two slices, some are missing or doubled, or they are of mixed kinds.
        GeometryError: If they form no regular grid without shear.
    """
    if len(slices) < 2:
        raise VolumeReadError(f"{name}: series must have at least 2 slices, got {len(slices)}; give the whole series")
    _check_alike(name, slices)
    normal = _normal(name, slices[0])
    heights = np.array([item.position_lps for item in slices]) @ normal
    ordered = [slices[index] for index in np.argsort(heights, kind="stable")]
    positions = np.array([item.position_lps for item in ordered])
    _check_complete(name, positions @ normal)
    step = (positions[-1] - positions[0]) / (len(ordered) - 1)
    _check_upright(name, step, normal)
    _check_regular(name, positions, step)
    columns, rows = np.reshape(slices[0].orientation_lps, (2, 3))
    row_mm, column_mm = slices[0].pixel_spacing_mm
    affine = np.eye(4)
    affine[:3, 0] = columns / np.linalg.norm(columns) * column_mm
    affine[:3, 1] = rows / np.linalg.norm(rows) * row_mm
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    return ordered, RAS_TO_LPS @ affine


def slice_step_mm(slices: Sequence[DicomSlice]) -> float | None:
    """Return the median distance of neighbouring slices along the normal of the first, or None for one slice."""
    if len(slices) < 2:
        return None
    columns, rows = np.reshape(slices[0].orientation_lps, (2, 3))
    heights = np.sort(np.array([item.position_lps for item in slices]) @ np.cross(columns, rows))
    return float(np.median(np.diff(heights)))


def _check_alike(name: str, slices: Sequence[DicomSlice]) -> None:
    first = slices[0]
    for item in slices[1:]:
        for what, value, other, tolerance in (
            ("rows and columns", item.size, first.size, 0.0),
            ("PixelSpacing", item.pixel_spacing_mm, first.pixel_spacing_mm, 1e-4),
            ("ImageOrientationPatient", item.orientation_lps, first.orientation_lps, MAX_AXIS_COSINE),
        ):
            if not np.allclose(value, other, rtol=0, atol=tolerance):
                raise VolumeReadError(
                    f"{name}: {what} must be the same in all slices, got {value} in {item.path.name} and {other} in "
                    f"{first.path.name}; move localizers and other scans out of the folder"
                )


def _normal(name: str, item: DicomSlice) -> NDArray[np.float64]:
    columns, rows = np.reshape(item.orientation_lps, (2, 3))
    axes = np.array([columns, rows])
    if np.abs(axes @ axes.T - np.eye(2)).max() > MAX_AXIS_COSINE:
        raise GeometryError(
            f"{name}: ImageOrientationPatient must be two perpendicular unit vectors, got {item.orientation_lps}; "
            "export the series again"
        )
    normal = np.cross(columns, rows)
    return np.asarray(normal / np.linalg.norm(normal))


def _check_complete(name: str, heights: NDArray[np.float64]) -> None:
    """Refuse doubled and missing slices; ``heights`` are sorted, in mm along the normal."""
    steps = np.diff(heights)
    doubled = heights[1:][steps < _SAME_PLACE_MM]
    if doubled.size:
        raise VolumeReadError(
            f"{name}: slice positions must be unique, got {doubled.size} doubled ({_listed(doubled)}); "
            "split phases or time points into folders, or remove copies"
        )
    # Not the median of all: where every other slice is missing, that is twice the step.
    step = float(np.median(steps[steps <= 1.5 * steps.min()]))
    missing: list[float] = []
    for start, gap in zip(heights[:-1], steps, strict=True):
        num_steps = round(float(gap) / step)
        if num_steps >= 2 and abs(gap - num_steps * step) <= num_steps * MAX_POSITION_ERROR_MM:
            missing += [float(start + gap * index / num_steps) for index in range(1, num_steps)]
    if missing:
        raise VolumeReadError(
            f"{name}: series must have all its slices, got {len(missing)} missing at {_listed(missing)}; "
            "copy the series again, or resample it if it was scanned with varying spacing"
        )


def _check_upright(name: str, step: NDArray[np.float64], normal: NDArray[np.float64]) -> None:
    cosine = float(step @ normal / np.linalg.norm(step))
    tilt = float(np.degrees(np.arccos(min(cosine, 1.0))))
    if np.sin(np.radians(tilt)) > MAX_AXIS_COSINE:
        raise GeometryError(
            f"{name}: slices must be stacked along their normal, got a tilt of {tilt:.2f} degrees (gantry tilt); "
            "correct the tilt first, for example with dcm2niix"
        )


def _check_regular(name: str, positions: NDArray[np.float64], step: NDArray[np.float64]) -> None:
    places = positions[0] + np.arange(len(positions))[:, None] * step
    errors = np.linalg.norm(positions - places, axis=1)
    step_mm = float(np.linalg.norm(step))
    worst = int(np.argmax(errors))
    if errors[worst] > min(MAX_POSITION_ERROR_MM, step_mm / 4):
        steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
        raise GeometryError(
            f"{name}: slice spacing must be uniform, got {steps.min():.4g} to {steps.max():.4g} mm "
            f"(slice {worst} is {errors[worst]:.3g} mm off its place); resample the series to a regular grid first"
        )


def _listed(heights_mm: Any) -> str:
    shown = ", ".join(f"{height:.2f}" for height in heights_mm[:_MAX_LISTED])
    more = len(heights_mm) - _MAX_LISTED
    return f"{shown} mm" + (f" and {more} more" if more > 0 else "")
