"""Paired organs in a whole scan: crop each side, predict it, paste both back on the scan's grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vol3d.data.volume import Volume
from vol3d.data.volume_reader import read_volume
from vol3d.errors import GeometryError
from vol3d.inference.predictor import SegmentationResult, VolumePredictor, label_volumes_ml

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from vol3d.geometry import VolumeGeometry


@dataclass(frozen=True)
class Side:
    """One of the two organs.

    Args:
        name: For example ``left``; it leads the names of this side's labels.
        predictor: Predictor of a crop of this side.
        center_world: Center of the crop in RAS+ mm.
    """

    name: str
    predictor: VolumePredictor
    center_world: tuple[float, float, float]


@dataclass(frozen=True)
class BilateralPredictor:
    """Predict an organ on both sides of a scan whose world coordinates are known (a template, a registered scan).

    Labels of the second side follow those of the first: with classes 1 and 2 the second side has 3 and 4.

    Args:
        sides: The two sides.
        crop_mm: Extent of each crop along the world axes x, y, z.
    """

    sides: tuple[Side, Side]
    crop_mm: tuple[float, float, float]

    @property
    def class_names(self) -> dict[int, str]:
        """Name of each label of the result."""
        names = [f"{side.name} {name}" for side in self.sides for name in side.predictor.class_names.values()]
        return dict(enumerate(names, start=1))

    def __call__(self, scan: str | os.PathLike[str] | Volume, series_uid: str | None = None) -> SegmentationResult:
        """Return the labels of both sides on the scan's grid.

        Args:
            scan: A volume file, a DICOM series folder, or a ``Volume``.
            series_uid: Which series, where a DICOM folder holds several.

        Raises:
            GeometryError: If a side's crop lies outside the scan.
            DataError: If the scan is not a sound 3D volume.
        """
        volume = scan if isinstance(scan, Volume) else read_volume(Path(scan), series_uid)
        labels = np.zeros(volume.geometry.shape, dtype=np.uint8)
        seconds: dict[str, float] = {}
        for number, side in enumerate(self.sides):
            box = _crop_box(volume.geometry, side, self.crop_mm)
            start = tuple(int(part.start) for part in box)
            crop = Volume(volume.array[box], volume.geometry.crop(start, volume.array[box].shape))
            result = side.predictor(crop)
            offset = number * len(side.predictor.class_names)
            labels[box] = np.where(result.labels > 0, result.labels + offset, labels[box])
            for stage, value in result.seconds.items():
                seconds[stage] = seconds.get(stage, 0.0) + value
        return SegmentationResult(
            volume, labels, label_volumes_ml(labels, volume.geometry, self.class_names), seconds, _no_probabilities
        )


def _crop_box(geometry: VolumeGeometry, side: Side, crop_mm: tuple[float, float, float]) -> tuple[slice, ...]:
    """Return the voxels whose centers lie in the crop, as slices along ``H W D``."""
    center, half = np.array(side.center_world), np.array(crop_mm) / 2
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    corners_vox = geometry.to_voxel(center + signs * half)
    low = np.ceil(corners_vox.min(axis=0) - 1e-6).astype(int)
    high = np.floor(corners_vox.max(axis=0) + 1e-6).astype(int)
    if (low < 0).any() or (high >= np.array(geometry.shape)).any():
        raise GeometryError(
            f"scan must contain the {side.name} crop around {side.center_world} mm, got voxels {low.tolist()} to "
            f"{high.tolist()} of {geometry.shape}; register the scan to the template first"
        )
    return tuple(slice(int(first), int(last) + 1) for first, last in zip(low, high, strict=True))


def _no_probabilities() -> NDArray[Any]:
    raise GeometryError("probabilities must come from one crop, got two sides; predict each side by itself")
