"""The prediction job of a bundle, by the task that its metadata name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vol3d.errors import BundleError
from vol3d.report.segmentation_job import segmentation_job

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from vol3d.bundle.layout import BundleLayout
    from vol3d.inference.case_job import CaseJob

PREDICT_JOBS: dict[str, Callable[..., CaseJob[Any]]] = {"segmentation": segmentation_job}
"""What makes the job of each ``task_type`` of the metadata."""


def predict_job(
    layout: BundleLayout,
    output_dir: Path,
    device: str = "auto",
    overrides: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    series_uid: str | None = None,
) -> CaseJob[Any]:
    """Return the job that runs a bundle over cases.

    Args:
        layout: The bundle.
        output_dir: Folder of the case folders.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        overrides: Config keys to change.
        overwrite: Replace results of another input, bundle or setting.
        series_uid: Which series of DICOM folders that hold several.

    Raises:
        BundleError: If the metadata name no task that vol3d can run.
        Vol3dError: What ``load_bundle`` raises.
    """
    task = layout.metadata().get("task_type")
    if task not in PREDICT_JOBS:
        raise BundleError(
            f"task_type in metadata.json of {layout.name} must be one of {', '.join(PREDICT_JOBS)}, got {task!r}; "
            "name the task of the bundle"
        )
    return PREDICT_JOBS[task](
        layout, output_dir, device=device, overrides=overrides, overwrite=overwrite, series_uid=series_uid
    )
