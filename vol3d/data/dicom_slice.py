"""The header of one DICOM slice, and the search for slices in a folder."""

from __future__ import annotations

import logging
import math
import struct
import threading
import warnings
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.errors import BytesLengthException
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from vol3d.data.header_guard import folder_entries
from vol3d.errors import DataError, GeometryError, UsageError, VolumeReadError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

logger = logging.getLogger(__name__)

_SWITCHES = threading.RLock()

# Only these elements are parsed: none of them tells who the patient is.
_TAGS = [
    *("SeriesInstanceUID", "StudyInstanceUID", "Modality", "NumberOfFrames", "Rows", "Columns"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("SamplesPerPixel", "BitsStored", "PixelRepresentation"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
]
# What pydicom 3 raises on damaged values, depending on the element.
PARSE_ERRORS = (
    *(AttributeError, EOFError, KeyError, NotImplementedError, OSError, TypeError, ValueError),
    *(BytesLengthException, struct.error),
)


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep pydicom from warning and logging about values that it reads: it quotes them, and names may be among them."""
    pydicom_logger = logging.getLogger("pydicom")
    # All three switches belong to the process: two threads that switch them at once would leave them wrong.
    with _SWITCHES:
        was_disabled, pydicom_logger.disabled = pydicom_logger.disabled, True
        try:
            with disable_value_validation(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", category=UserWarning, module="pydicom")
                yield
        finally:
            pydicom_logger.disabled = was_disabled


@dataclass(frozen=True)
class DicomSlice:
    """What geometry and voxels of one slice need; lengths in mm, world in LPS+.

    Args:
        path: The file.
        series_uid: Series Instance UID.
        modality: DICOM modality, for example ``CT``.
        transfer_syntax: UID of the encoding of the pixels.
        size: Rows, columns.
        position_lps: Centre of the first voxel.
        orientation_lps: Direction of growing column index (3), then of growing row index (3).
        pixel_spacing_mm: Distance of rows, distance of columns.
        bits: Bits stored.
        is_signed: Whether stored values are two's complement.
        slope: Rescale slope, 1 where there is none.
        intercept: Rescale intercept, 0 where there is none.
        num_samples: Numbers per pixel; 3 for color.
        has_table: Whether values are rescaled by a table (Modality LUT) instead.
    """

    path: Path
    series_uid: str
    modality: str
    transfer_syntax: str
    size: tuple[int, int]
    position_lps: tuple[float, ...]
    orientation_lps: tuple[float, ...]
    pixel_spacing_mm: tuple[float, ...]
    bits: int
    is_signed: bool
    slope: float
    intercept: float
    num_samples: int
    has_table: bool


@dataclass
class SliceSearch:
    """What a folder holds.

    Args:
        slices: Every single-frame image that has a position.
        num_multi_frame: Enhanced objects, which hold many frames in one file.
        num_other: Files that are no DICOM images: text, DICOMDIR, reports, structure sets, screenshots.
        unplaced: Images without a position, counted by series.
    """

    slices: list[DicomSlice] = field(default_factory=list)
    num_multi_frame: int = 0
    num_other: int = 0
    unplaced: Counter[str] = field(default_factory=Counter)


def find_slices(folder: Path) -> SliceSearch:
    """Read the headers of a folder, or, if it holds no DICOM images itself, of the folders one level below.

    Raises:
        UsageError: If the folder does not exist.
        VolumeReadError: If a slice's header is damaged.
    """
    if not folder.is_dir():
        raise UsageError(f"DICOM series must be a folder, got {folder}; give the folder that holds the slices")
    search = _search(_files(folder))
    if not search.slices:
        nested = [file for child in folder_entries(folder) if child.is_dir() for file in _files(child)]
        deeper = _search(nested)
        if deeper.slices or deeper.num_multi_frame:
            search = deeper
    num_skipped = search.num_other + search.num_multi_frame + search.unplaced.total()
    if num_skipped:
        logger.info("%s: skipped %d files that are no DICOM slices", folder.name, num_skipped)
    return search


def first_study_uid(folder: Path) -> str | None:
    """Return the Study Instance UID of the first DICOM file of a folder, or None if it has no such file.

    A damaged file counts, with an empty UID: it is refused by name when its case is read, not when cases are listed.
    """
    for file in _files(folder):
        try:
            with _refusing_damage(file):
                if _is_dicom(file):
                    return str(_read_header(file).get("StudyInstanceUID", ""))
        except VolumeReadError:
            return ""
    return None


def _search(files: Iterable[Path]) -> SliceSearch:
    search = SliceSearch()
    for file in files:
        with _refusing_damage(file):
            if _is_dicom(file):
                _add(search, file, _read_header(file))
            else:
                search.num_other += 1
    return search


def _add(search: SliceSearch, file: Path, dataset: Any) -> None:
    if not dataset.get("Rows"):
        # A header that was cut off has no Rows either; skipped as "no image", it would shorten the volume.
        if UID(str(dataset.file_meta.get("MediaStorageSOPClassUID", ""))).name.endswith("Image Storage"):
            raise EOFError("an image without Rows")
        search.num_other += 1
    elif int(dataset.get("NumberOfFrames") or 1) > 1:
        search.num_multi_frame += 1
    elif dataset.get("ImagePositionPatient") is None:
        search.unplaced[str(dataset.get("SeriesInstanceUID", ""))] += 1
    else:
        search.slices.append(_slice(file, dataset))


def _files(folder: Path) -> list[Path]:
    return [file for file in folder_entries(folder) if file.is_file() and file.name.upper() != "DICOMDIR"]


def _is_dicom(file: Path) -> bool:
    with file.open("rb") as stream:
        stream.seek(128)
        return stream.read(4) == b"DICM"


def _read_header(file: Path) -> Any:
    syntax = str(read_file_meta_info(file).get("TransferSyntaxUID", ""))
    # pydicom inflates a deflated file whole before it looks at anything: no budget could hold.
    if syntax == DeflatedExplicitVRLittleEndian:
        raise VolumeReadError(
            f"{file.name}: transfer syntax must not be Deflated, got {syntax!r}; convert it first (dcmconv +te)"
        )
    return dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)


@contextmanager
def _refusing_damage(file: Path) -> Iterator[None]:
    try:
        with quiet_pydicom():
            yield
    except DataError:
        raise
    except PARSE_ERRORS as error:
        reason = (str(error).splitlines() or [""])[0][:100]
        raise VolumeReadError(
            f"{file.name}: DICOM file must be readable, got an error {reason!r}; export the series again"
        ) from None


def _slice(file: Path, dataset: Any) -> DicomSlice:
    return DicomSlice(
        path=file,
        series_uid=_printable(dataset.SeriesInstanceUID),
        modality=_printable(dataset.get("Modality", "")),
        transfer_syntax=str(dataset.file_meta.get("TransferSyntaxUID", "")),
        size=(int(dataset.Rows), int(dataset.Columns)),
        position_lps=_floats(dataset.ImagePositionPatient, 3),
        orientation_lps=_floats(dataset.ImageOrientationPatient, 6),
        pixel_spacing_mm=_floats(dataset.PixelSpacing, 2),
        bits=int(dataset.BitsStored),
        is_signed=int(dataset.PixelRepresentation) == 1,
        slope=float(_value(dataset, "RescaleSlope", 1.0)),
        intercept=float(_value(dataset, "RescaleIntercept", 0.0)),
        num_samples=int(_value(dataset, "SamplesPerPixel", 1)),
        has_table="ModalityLUTSequence" in dataset,
    )


def check_slice(item: DicomSlice) -> None:
    """Refuse a slice whose values cannot be part of a volume.

    Raises:
        VolumeReadError: If it is in color, or its values have no sound slope and intercept.
        GeometryError: If position, orientation or spacing is not finite and positive.
    """
    name = item.path.name
    if item.num_samples != 1:
        raise VolumeReadError(f"{name}: SamplesPerPixel must be 1, got {item.num_samples}; color images are no volumes")
    if item.has_table:
        raise VolumeReadError(f"{name}: values must be rescaled by slope and intercept, got a ModalityLUT; convert it")
    if not (math.isfinite(item.slope) and math.isfinite(item.intercept) and item.slope != 0):
        raise VolumeReadError(
            f"{name}: RescaleSlope must be finite and not zero, got {item.slope:g} (intercept {item.intercept:g}); "
            "export the series again"
        )
    if not all(math.isfinite(value) for value in (*item.position_lps, *item.orientation_lps)):
        raise GeometryError(f"{name}: position and orientation must be finite, got NaN or Inf; export it again")
    if not all(math.isfinite(size) and size > 0 for size in item.pixel_spacing_mm):
        raise GeometryError(f"{name}: PixelSpacing must be positive, got {item.pixel_spacing_mm} mm; export it again")


def _printable(value: Any) -> str:
    """Return text that may stand in a message: one line, and no control characters for a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(value))


def _value(dataset: Any, keyword: str, absent: float) -> Any:
    value = dataset.get(keyword)
    return absent if value is None or value == "" else value


def _floats(values: Any, count: int) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) != count:
        raise ValueError(f"{count} values expected, got {len(numbers)}")
    return numbers
