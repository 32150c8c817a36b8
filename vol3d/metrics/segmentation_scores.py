"""Every score of one case: a row per class, in plain values and with units in the names."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from scipy.ndimage import find_objects

from vol3d.errors import DataError, GeometryError, UsageError
from vol3d.metrics.overlap import count_overlap
from vol3d.metrics.surface import measure_surface_distances

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

Box: TypeAlias = tuple[slice, ...]


def nsd_column(tolerance_mm: float) -> str:
    """Return the name under which NSD at a tolerance is stored.

    Example:
        >>> nsd_column(1.0), nsd_column(2.5)
        ('nsd_1mm', 'nsd_2.5mm')
    """
    return f"nsd_{tolerance_mm:g}mm"


def score_labelmap(
    pred: NDArray[Any],
    label: NDArray[Any],
    class_names: Mapping[int, str],
    spacing_mm: Sequence[float],
    nsd_tolerance_mm: float = 1.0,
) -> list[dict[str, Any]]:
    """Return the scores of one case, one row per class in the order of ``class_names``.

    Args:
        pred: Predicted labelmap, ``H W D``, integer or bool; 0 is background.
        label: Reference labelmap on the same grid, ``H W D``, integer or bool.
        class_names: Name of each foreground label value, values 1 and up.
        spacing_mm: Distance between voxel centres along ``H W D``.
        nsd_tolerance_mm: Surface deviation that NSD counts as agreement.

    Returns:
        Rows with ``class``, ``dice``, ``hd95_mm``, ``nsd_<tolerance>mm``, ``volume_ml_label``, ``volume_ml_pred``,
        ``volume_error_ml`` and ``volume_error_percent`` (prediction minus reference). A class that is absent from
        both has NaN scores; absent from one, Dice and NSD are 0 and HD95 is infinite.

    Raises:
        DataError: If a labelmap is not integer or holds a value without a name.
        GeometryError: If the shapes differ, are not 3D, or the spacing is not positive.
        UsageError: If ``class_names`` is empty, or names a value below 1.
    """
    if not class_names or min(class_names) < 1:
        raise UsageError(f"class_names must name values of 1 and up, got {sorted(class_names)}; leave background out")
    if label.ndim != 3 or pred.shape != label.shape:
        raise GeometryError(
            f"pred must be 3D with the shape of label, got {pred.shape} against {label.shape}; "
            "restore the prediction to the grid of the scan"
        )
    pred_boxes = _find_boxes("pred", pred, class_names)
    label_boxes = _find_boxes("label", label, class_names)
    voxel_ml = math.prod(spacing_mm) / 1000
    rows = []
    for value, name in class_names.items():
        box = _union(pred_boxes.get(value), label_boxes.get(value))
        pred_mask, label_mask = pred[box] == value, label[box] == value
        overlap = count_overlap(pred_mask, label_mask)
        distances = measure_surface_distances(pred_mask, label_mask, spacing_mm)
        rows.append(
            {
                "class": name,
                "dice": overlap.dice,
                "hd95_mm": distances.hausdorff_mm(95),
                nsd_column(nsd_tolerance_mm): distances.normalized_surface_dice(nsd_tolerance_mm),
                "volume_ml_label": overlap.num_label * voxel_ml,
                "volume_ml_pred": overlap.num_pred * voxel_ml,
                "volume_error_ml": (overlap.num_pred - overlap.num_label) * voxel_ml,
                "volume_error_percent": overlap.volume_error_percent,
            }
        )
    return rows


def _find_boxes(name: str, labelmap: NDArray[Any], class_names: Mapping[int, str]) -> dict[int, Box]:
    """Return the bounding box of each label value that occurs, all from one pass over the volume."""
    if labelmap.dtype == np.bool_:
        labelmap = labelmap.view(np.uint8)
    if not np.issubdtype(labelmap.dtype, np.integer):
        raise DataError(f"{name} must be an integer labelmap, got {labelmap.dtype}; threshold or argmax it first")
    for extreme in (int(labelmap.min()), int(labelmap.max())):
        # Before the search, which would make a list as long as the largest value.
        if extreme < 0 or extreme > max(class_names):
            raise _unknown_label(name, [extreme], class_names)
    boxes = {value: box for value, box in enumerate(find_objects(labelmap), start=1) if box is not None}
    unknown = sorted(set(boxes) - set(class_names))
    if unknown:
        raise _unknown_label(name, unknown, class_names)
    return boxes


def _unknown_label(name: str, values: list[int], class_names: Mapping[int, str]) -> DataError:
    return DataError(
        f"{name} must hold only 0 and the named labels {sorted(class_names)}, got {values}; "
        "name every label in class_names or map them before scoring"
    )


def _union(first: Box | None, second: Box | None) -> Box:
    """Return the smallest box around both; of one voxel if there is neither."""
    if first is None or second is None:
        return first or second or (slice(0, 1),) * 3
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first, second, strict=True))
