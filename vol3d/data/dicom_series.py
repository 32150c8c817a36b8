"""DICOM series: the slices of one series as one volume in RAS+ millimetres.

Vocabulary of the standard (PS3.3 C.7.6.2): *Image Position (Patient)* is the centre of the first voxel of a slice
in LPS+ mm, *Image Orientation (Patient)* holds the direction in which the column index grows, then that in which the
row index grows. Volumes are indexed ``[column, row, slice]``, slices in order of their position along
the normal (column direction x row direction): the order of ITK, so that both give the same array and affine.

What readers usually pass over is refused here: missing and doubled slices, gantry tilt, slices of mixed size or
orientation, two series in one folder. Stored values are rescaled slice by slice (CT: to HU); pixel padding stays.
No patient data is read beyond what geometry and voxels need, and none reaches a message.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom import dcmread
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from vol3d.data.dicom_slice import PARSE_ERRORS, check_slice, find_slices, quiet_pydicom
from vol3d.data.header_guard import DEFAULT_MAX_BYTES, check_budget, file_geometry
from vol3d.data.slice_stack import slice_step_mm, stack_slices
from vol3d.data.stored_volume import scaled_dtype
from vol3d.data.volume import Volume
from vol3d.errors import UsageError, VolumeReadError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vol3d.data.dicom_slice import DicomSlice, SliceSearch
    from vol3d.geometry import VolumeGeometry


@dataclass(frozen=True)
class SeriesSummary:
    """What a user needs to choose a series; nothing about the patient.

    Args:
        uid: Series Instance UID.
        modality: DICOM modality, for example ``CT``.
        num_slices: Number of files.
        spacing_mm: Distance of voxels along column, row and slice index; the last is the median step, and None
            where a series has one slice only.
    """

    uid: str
    modality: str
    num_slices: int
    spacing_mm: tuple[float, float, float | None]


def list_series(folder: str | Path) -> list[SeriesSummary]:
    """Return the image series of a folder (or, if it holds no slices itself, of its subfolders), in order of UID.

    Files that are no DICOM images with a position are skipped and counted in a log line.

    Raises:
        UsageError: If the folder does not exist.
    """
    summaries = []
    for uid, slices in sorted(_group(find_slices(Path(folder))).items()):
        first = slices[0]
        spacing = (first.pixel_spacing_mm[1], first.pixel_spacing_mm[0], slice_step_mm(slices))
        summaries.append(SeriesSummary(uid, first.modality, len(slices), spacing))
    return summaries


def read_series(folder: str | Path, series_uid: str | None = None, max_bytes: int = DEFAULT_MAX_BYTES) -> Volume:
    """Read one series as a volume.

    Args:
        folder: Folder with the slices, or with one level of folders that hold them.
        series_uid: Which series; needed only where there are several.
        max_bytes: Largest volume in memory.

    Returns:
        Voxels ``[column, row, slice]``, integers where every rescale slope and intercept is whole, else
            floating point.

    Raises:
        UsageError: If the folder or the series does not exist.
        VolumeReadError: If there are several series and none is chosen, slices are missing, doubled or mixed, or
            their pixels cannot be decoded here.
        GeometryError: If the slices do not form a regular grid (gantry tilt, varying spacing).
    """
    folder = Path(folder)
    slices, geometry = _choose(folder, series_uid)
    dtype = _volume_dtype(slices)
    check_budget(folder.name, geometry.shape, dtype.itemsize, max_bytes)
    _check_decoders(folder.name, slices)
    array = np.empty(geometry.shape, dtype=dtype, order="F")
    for k, item in enumerate(slices):
        array[:, :, k] = _read_values(item, dtype)
    return Volume(array, geometry)


def series_geometry(folder: str | Path, series_uid: str | None = None) -> VolumeGeometry:
    """Return the grid of one series from its headers alone; arguments and errors as in ``read_series``."""
    return _choose(Path(folder), series_uid)[1]


def _choose(folder: Path, series_uid: str | None) -> tuple[list[DicomSlice], VolumeGeometry]:
    search = find_slices(folder)
    groups = _group(search)
    if not groups and search.num_multi_frame:
        raise VolumeReadError(
            f"{folder.name}: slices must be single-frame objects, got {search.num_multi_frame} multi-frame files "
            "(enhanced CT or MR); convert them first, for example with dcm2niix"
        )
    if not groups:
        raise VolumeReadError(f"{folder.name}: folder must hold a DICOM series, got none; check the path")
    listed = "; ".join(f"{uid} {items[0].modality} {len(items)} slices" for uid, items in sorted(groups.items()))
    if series_uid is None and len(groups) > 1:
        raise VolumeReadError(
            f"{folder.name}: folder must hold one series, got {len(groups)} ({listed}); choose one with --series UID"
        )
    uid = series_uid if series_uid is not None else next(iter(groups))
    if uid not in groups:
        raise UsageError(f"series must be one of the folder {folder.name} ({listed}), got {uid!r}; choose one of them")
    if search.unplaced[uid]:
        raise VolumeReadError(
            f"{folder.name}: every slice must have ImagePositionPatient, got {search.unplaced[uid]} without; "
            "export the series again"
        )
    for item in groups[uid]:
        check_slice(item)
    slices, affine = stack_slices(folder.name, groups[uid])
    rows, columns = slices[0].size
    return slices, file_geometry(folder.name, (columns, rows, len(slices)), affine)


def _group(search: SliceSearch) -> dict[str, list[DicomSlice]]:
    groups: dict[str, list[DicomSlice]] = {}
    for item in search.slices:
        groups.setdefault(item.series_uid, []).append(item)
    return groups


def _volume_dtype(slices: list[DicomSlice]) -> np.dtype[Any]:
    kinds = {(item.bits, item.is_signed, item.slope, item.intercept) for item in slices}
    types = []
    for bits, is_signed, slope, intercept in kinds:
        stored = np.dtype(f"{'i' if is_signed else 'u'}{1 if bits <= 8 else 2 if bits <= 16 else 4}")
        types.append(scaled_dtype(stored, slope, intercept, bits))
    return np.result_type(*types)


def _check_decoders(name: str, slices: list[DicomSlice]) -> None:
    for syntax in sorted({item.transfer_syntax for item in slices}):
        with quiet_pydicom():
            uid = UID(syntax)
        if not (uid.is_transfer_syntax and uid.is_compressed):
            continue
        try:
            decoder = get_decoder(uid)
        except NotImplementedError:
            raise VolumeReadError(
                f"{name}: pixels must be in a known encoding, got {uid.name!r}; convert the series (gdcmconv --raw)"
            ) from None
        if not decoder.is_available:
            packages = "; ".join(decoder.missing_dependencies)
            raise VolumeReadError(
                f"{name}: pixels must be in an encoding that is decoded here, got {uid.name!r}; install a decoder "
                f"({packages}) or convert the series (gdcmconv --raw)"
            )


def _read_values(item: DicomSlice, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the rescaled values of a slice, ``[column, row]``."""
    try:
        with quiet_pydicom():
            stored = np.asarray(dcmread(item.path).pixel_array).T
    except (*PARSE_ERRORS, RuntimeError) as error:
        reason = (str(error).splitlines() or [""])[0][:100]
        raise VolumeReadError(f"{item.path.name}: pixels must be readable, got {reason!r}; copy it again") from None
    columns_rows = item.size[::-1]
    if stored.shape != columns_rows:
        raise VolumeReadError(f"{item.path.name}: pixels must be {columns_rows}, got {stored.shape}; export it again")
    if dtype.kind == "f":
        return (stored.astype(np.float64) * item.slope + item.intercept).astype(dtype)
    # Both fit: pydicom clears the bits above BitsStored (old overlays), and the type was chosen for what remains.
    if item.slope == 1:
        return np.asarray(stored.astype(dtype) + dtype.type(int(item.intercept)))
    return (stored.astype(np.int64) * int(item.slope) + int(item.intercept)).astype(dtype)
