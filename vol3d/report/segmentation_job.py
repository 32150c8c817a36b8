"""A prediction job whose cases also get their picture; what ``vol3d predict`` and scripts run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vol3d.bundle.config_layers import override, read_layers
from vol3d.bundle.digest import bundle_digest
from vol3d.bundle.load import load_bundle
from vol3d.data.content_digest import ContentDigests
from vol3d.inference.case_job import CaseJob
from vol3d.inference.run_record import NOTICE, RunIdentity
from vol3d.report.overlay_figure import save_overlay

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from vol3d.bundle.layout import BundleLayout
    from vol3d.inference.predictor import SegmentationResult

OVERLAY_NAME = "overlay.png"


def segmentation_job(
    layout: BundleLayout,
    output_dir: Path,
    device: str = "auto",
    overrides: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    series_uid: str | None = None,
) -> CaseJob[SegmentationResult]:
    """Return a job that writes label map, report and overlay picture of each case.

    Args:
        layout: The bundle.
        output_dir: Folder of the case folders.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        overrides: Config keys to change.
        overwrite: Replace results of another input, bundle or setting.
        series_uid: Which series of DICOM folders that hold several.

    Raises:
        Vol3dError: What ``load_bundle`` raises.
    """
    settings = dict(overrides or {})
    predictor = load_bundle(layout.root, device=device, overrides=settings)
    return CaseJob(
        predictor,
        run_identity(layout, str(predictor.device), settings),
        output_dir,
        overwrite=overwrite,
        series_uid=series_uid,
        draw=overlay_drawer(layout.name, predictor.class_names),
    )


def run_identity(layout: BundleLayout, device: str, settings: Mapping[str, Any]) -> RunIdentity:
    """Return what decides the results of a bundle under some settings."""
    config = override(read_layers(layout.config_paths("inference")), settings)
    return RunIdentity(
        bundle_name=layout.name,
        bundle_version=str(layout.metadata().get("version", "")),
        bundle_digest=bundle_digest(layout),
        weights_sha256=ContentDigests().digest(settings.get("ckpt_path", layout.weights_path)),
        settings=settings,
        device=device,
        seed=int(config.get("seed", 0)),
    )


def overlay_drawer(bundle_name: str, class_names: Mapping[int, str]) -> Callable[[Path, SegmentationResult], None]:
    """Return what adds ``overlay.png`` to a case's folder."""

    def draw(folder: Path, result: SegmentationResult) -> None:
        save_overlay(
            folder / OVERLAY_NAME,
            result.volume.array,
            result.labels,
            result.geometry,
            class_names=class_names,
            title=f"{bundle_name} - {NOTICE}",
        )

    return draw
