"""From one scan to its labels: the Python API of a bundle.

The predictor runs what the bundle's ``inference.yaml`` says, piece by piece and on one case, so that its labels are
those of ``python -m monai.bundle run``; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.data import MetaTensor

from vol3d.data.volume import Volume
from vol3d.data.volume_reader import check_finite, read_volume
from vol3d.data.volume_writer import write_labelmap
from vol3d.errors import GeometryError, UsageError
from vol3d.geometry import VolumeGeometry
from vol3d.inference.stage_timer import timed_stage

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from monai.inferers import Inferer
    from monai.transforms import Compose
    from numpy.typing import NDArray
    from torch import nn

LABELS_NAME = "labels.nii.gz"


@dataclass(frozen=True, eq=False)
class SegmentationResult:
    """The labels of one scan, on the scan's own grid.

    Args:
        volume: The scan as it was read.
        labels: Label map ``H W D``, unsigned integers.
        volumes_ml: Volume of each label by class name, in millilitres.
        seconds: Wall time of each stage.
        restore: Brings the network's probabilities to the scan's grid; see ``probabilities``.
    """

    volume: Volume
    labels: NDArray[np.uint8]
    volumes_ml: dict[str, float]
    seconds: dict[str, float]
    restore: Callable[[], NDArray[np.float32]]

    @property
    def geometry(self) -> VolumeGeometry:
        """Grid of ``labels``: that of the scan."""
        return self.volume.geometry

    def findings(self) -> dict[str, Any]:
        """Return the volumes, for the report."""
        return {"volumes_ml": {name: round(value, 4) for name, value in self.volumes_ml.items()}}

    def summary(self) -> str:
        """Return the volumes in one line."""
        return ", ".join(f"{name} {value:.2f} ml" for name, value in self.volumes_ml.items())

    def write(self, folder: Path) -> None:
        """Write ``labels.nii.gz`` on the scan's grid.

        Raises:
            OutputError: If the file cannot be written, or is not what was written when it is read again.
        """
        write_labelmap(folder / LABELS_NAME, self.labels, self.geometry)

    def probabilities(self) -> NDArray[np.float32]:
        """Return class probabilities ``C H W D`` on the scan's grid, background first; computed when asked for."""
        return self.restore()


@dataclass(frozen=True, eq=False)
class VolumePredictor:
    """Run a trained network on scans of any size.

    Args:
        network: The network, with weights, on ``device``, in evaluation mode.
        preprocessing: MONAI transforms from a channel-first image to the network's input, without the loading.
        inferer: MONAI inferer.
        restore: Transforms of ``{"image", "pred"}`` from logits to probabilities on the scan's grid.
        decide: Transforms of ``{"pred"}`` from probabilities to a label map.
        class_names: Name of each label from 1 on.
        device: Where to compute.
    """

    network: nn.Module
    preprocessing: Compose
    inferer: Inferer
    restore: Compose
    decide: Compose
    class_names: Mapping[int, str]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __call__(
        self,
        scan: str | os.PathLike[str] | Volume | tuple[NDArray[Any], NDArray[np.float64]],
        series_uid: str | None = None,
    ) -> SegmentationResult:
        """Segment one scan.

        Args:
            scan: A volume file, a folder with a DICOM series, a ``Volume``, or an array ``H W D`` with its 4x4 affine
                (voxel index to RAS+ mm).
            series_uid: Which series, where a DICOM folder holds several.

        Returns:
            The labels on the scan's grid, and what was measured.

        Raises:
            UsageError: If ``scan`` is none of these, or nothing is there.
            DataError: If the scan is not a sound 3D volume.
        """
        seconds: dict[str, float] = {}
        with timed_stage(seconds, "read"):
            volume = _as_volume(scan, series_uid)
        with timed_stage(seconds, "preprocess"):
            image = MetaTensor(
                torch.from_numpy(_as_float32(volume.array))[None],
                affine=torch.from_numpy(volume.geometry.affine.copy()),
            )
            data = self.preprocessing({"image": image.to(self.device)})
        with timed_stage(seconds, "network"), torch.inference_mode():
            logits = self.inferer(data["image"][None], self.network)[0]
            data["pred"] = MetaTensor(logits, meta=data["image"].meta)
        with timed_stage(seconds, "restore"):
            labels = _as_array(self.decide(self._restored(data))["pred"])[0].astype(np.uint8)
        if labels.shape != volume.geometry.shape:
            raise GeometryError(
                f"labels must have the scan's shape {volume.geometry.shape}, got {labels.shape}; "
                "the bundle's restore_transforms must invert its preprocessing"
            )
        return SegmentationResult(
            volume,
            labels,
            label_volumes_ml(labels, volume.geometry, self.class_names),
            seconds,
            lambda: _as_array(self._restored(data)["pred"]).astype(np.float32),
        )

    def _restored(self, data: Mapping[str, Any]) -> dict[str, Any]:
        with torch.inference_mode():
            restored: dict[str, Any] = self.restore(dict(data))
        return restored


def label_volumes_ml(
    labels: NDArray[np.uint8], geometry: VolumeGeometry, class_names: Mapping[int, str]
) -> dict[str, float]:
    """Return the volume of each named label in millilitres; 0 for a label that is absent."""
    counts = np.bincount(labels.ravel(), minlength=max(class_names) + 1)
    return {name: float(counts[label]) * geometry.voxel_volume_ml for label, name in class_names.items()}


def _as_volume(scan: Any, series_uid: str | None) -> Volume:
    if isinstance(scan, Volume):
        return scan
    if isinstance(scan, tuple) and len(scan) == 2:
        array, affine = np.asarray(scan[0]), np.asarray(scan[1])
        if array.ndim != 3 or array.dtype.kind not in "biuf":
            raise GeometryError(
                f"array must hold real numbers on 3 axes H W D, got {array.dtype} of shape {array.shape}; "
                "give one 3D volume"
            )
        return Volume(array, VolumeGeometry(array.shape, affine))
    if isinstance(scan, (str, Path)) or hasattr(scan, "__fspath__"):
        return read_volume(Path(scan), series_uid)
    raise UsageError(f"scan must be a path, a Volume or (array, affine), got {type(scan).__name__}")


def _as_float32(array: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused
        single = np.ascontiguousarray(array, dtype=np.float32)
    check_finite("scan", single)
    return single


def _as_array(tensor: torch.Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array
