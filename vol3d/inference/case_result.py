"""What a job needs to know of a case's result, whatever the bundle's task is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from pathlib import Path

    from vol3d.geometry import VolumeGeometry


class CaseResult(Protocol):
    """The result of one case: segmentation, classification, detection or synthesis."""

    @property
    def geometry(self) -> VolumeGeometry:
        """Grid of the scan."""

    @property
    def seconds(self) -> dict[str, float]:
        """Wall time of each stage; a job adds its own stages."""

    def findings(self) -> dict[str, Any]:
        """Return what was found as plain JSON values by name, for the report."""

    def summary(self) -> str:
        """Return what was found in one line for people, without the case's name."""

    def write(self, folder: Path) -> None:
        """Write the files of the result, without report and pictures, into a new folder."""


ResultT = TypeVar("ResultT", bound=CaseResult)
ResultT_co = TypeVar("ResultT_co", bound=CaseResult, covariant=True)


class ScanPredictor(Protocol[ResultT_co]):
    """From a scan to its result: a bundle's predictor or what is built of several."""

    def __call__(self, scan: Path, series_uid: str | None = None) -> ResultT_co:
        """Return the result of one scan; ``series_uid`` says which series, where a DICOM folder holds several."""
