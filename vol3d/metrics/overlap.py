"""How much of two masks lies on top of each other, and how much their volumes differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vol3d.errors import GeometryError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Overlap:
    """Voxel counts of a predicted and a reference mask, from which every overlap score follows.

    Args:
        num_pred: Voxels of the prediction (true and false positives).
        num_label: Voxels of the reference (true positives and false negatives).
        num_both: Voxels of both (true positives).

    Example:
        >>> Overlap(num_pred=30, num_label=50, num_both=20).dice
        0.5
    """

    num_pred: int
    num_label: int
    num_both: int

    @property
    def dice(self) -> float:
        """``2TP / (2TP + FP + FN)``; 0 if one mask is empty, NaN (undefined) if both are."""
        num_total = self.num_pred + self.num_label
        return 2 * self.num_both / num_total if num_total else math.nan

    @property
    def volume_error_percent(self) -> float:
        """Prediction minus reference in percent of the reference; NaN if the reference is empty."""
        return 100 * (self.num_pred - self.num_label) / self.num_label if self.num_label else math.nan


def count_overlap(pred: NDArray[np.bool_], label: NDArray[np.bool_]) -> Overlap:
    """Return the voxel counts of two masks.

    Args:
        pred: Predicted mask, any shape, bool. Compare a labelmap with the class value to get one.
        label: Reference mask, same shape, bool.

    Raises:
        UsageError: If a mask is not bool: the sum of a labelmap is no voxel count.
        GeometryError: If the shapes differ.

    Example:
        >>> labelmap = np.array([0, 1, 1, 2])
        >>> count_overlap(labelmap == 1, labelmap > 0)
        Overlap(num_pred=2, num_label=3, num_both=2)
    """
    for name, mask in (("pred", pred), ("label", label)):
        if mask.dtype != np.bool_:
            raise UsageError(f"{name} must be a bool mask, got {mask.dtype}; compare it with the class value")
    if pred.shape != label.shape:
        raise GeometryError(
            f"pred must have the shape of label, got {pred.shape} against {label.shape}; "
            "restore the prediction to the grid of the scan"
        )
    return Overlap(
        num_pred=int(np.count_nonzero(pred)),
        num_label=int(np.count_nonzero(label)),
        num_both=int(np.count_nonzero(pred & label)),
    )
