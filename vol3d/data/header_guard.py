"""What a header must satisfy before one voxel is read.

A header is written by strangers: it may declare petabytes, point at another file of this machine or carry an affine
that loses the patient's left. Each guard here looks at values that a header parser found and either returns what
may be used or raises one line that names the file (never its folder), the value and the remedy.
"""

from __future__ import annotations

import math
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vol3d.data.byte_size import format_bytes
from vol3d.errors import DataError, GeometryError, UsageError, VolumeReadError
from vol3d.geometry import VolumeGeometry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike

DEFAULT_MAX_BYTES = 8 * 2**30
"""Largest volume that is read without asking: 8 GiB hold 1024 x 1024 x 4096 voxels of 16 bits."""


def check_input_file(path: Path) -> None:
    """Refuse a path that is no regular file with something in it.

    Raises:
        UsageError: If nothing is there, or it is a folder, pipe or device, or may not be read.
        VolumeReadError: If the file is empty.
    """
    with _refusing_unreadable(path):
        status = path.stat()
        # Opening a pipe would wait for its writer.
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"input must be a file or a folder, got {path}; give a volume file or a DICOM folder")
        path.open("rb").close()
    if status.st_size == 0:
        raise VolumeReadError(f"{path.name}: file must not be empty, got 0 bytes; copy it again")


def folder_entries(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted by name, without hidden entries.

    Raises:
        UsageError: If there is no such folder, or it may not be read.
    """
    with _refusing_unreadable(folder):
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


@contextmanager
def _refusing_unreadable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UsageError(f"input must exist, got {path}; check the path") from None
    except OSError as error:
        raise UsageError(f"input must be readable, got {path} ({error.strerror}); check path and rights") from None


def spatial_shape(name: str, sizes: Sequence[int]) -> tuple[int, int, int]:
    """Return ``H W D`` of the sizes that a header declares.

    Trailing axes of one entry beyond the third are dropped: scanners and converters often write a 3D volume as
    ``H W D 1``. No other axis is ever dropped, so ``H W 1`` stays a volume of one slice.

    Raises:
        GeometryError: If an axis has no voxels, or there are not three axes after that.
    """
    if any(size < 1 for size in sizes):
        raise GeometryError(f"{name}: every axis must have at least 1 voxel, got {tuple(sizes)}; repair the header")
    shape = list(sizes)
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) > 3:
        raise GeometryError(
            f"{name}: volume must be 3D, got {len(shape)} axes {tuple(shape)}; save one time point or channel per file"
        )
    if len(shape) < 3:
        raise GeometryError(f"{name}: volume must be 3D, got {len(shape)} axes {tuple(shape)}; give a volume, no image")
    return (shape[0], shape[1], shape[2])


def check_budget(name: str, shape: Sequence[int], itemsize: int, max_bytes: int) -> None:
    """Refuse a volume whose declared size is over the budget, before anything is allocated.

    Args:
        name: File name for the message.
        shape: Declared voxels along each axis.
        itemsize: Bytes per voxel, the larger one of on disk and in memory.
        max_bytes: The budget.

    Raises:
        VolumeReadError: If voxels times bytes per voxel are more than ``max_bytes``.
    """
    num_bytes = math.prod(int(size) for size in shape) * itemsize
    if num_bytes > max_bytes:
        raise VolumeReadError(
            f"{name}: declared size must be at most {format_bytes(max_bytes)}, got {format_bytes(num_bytes)} "
            f"(shape {tuple(shape)}, {itemsize} bytes per voxel); raise max_bytes if the file is trusted"
        )


def data_file_inside(header_path: Path, value: str) -> Path:
    """Return the data file that a detached header names, if it lies in the header's own folder or below.

    Args:
        header_path: The header.
        value: What the header says; patterns, lists and absolute names are refused, and links are followed first.

    Raises:
        VolumeReadError: If the data file is outside that folder, not there, or not one plain file.
    """
    name = header_path.name
    if not value or value.upper().startswith("LIST") or any(sign in value for sign in "%*?\\\0"):
        raise VolumeReadError(
            f"{name}: data file must be one file beside the header, got {value!r}; save the volume as one file"
        )
    folder = header_path.parent.resolve()
    try:
        data_path = (folder / value).resolve()
    except (OSError, RuntimeError):
        raise VolumeReadError(f"{name}: data file must be a plain file, got {value!r}; copy it again") from None
    if not data_path.is_relative_to(folder):
        raise VolumeReadError(
            f"{name}: data file must lie in the header's own folder, got {value!r}; put both files in one folder"
        )
    if not data_path.is_file():
        raise VolumeReadError(f"{name}: data file must exist beside the header, got {value!r}; copy it there")
    return data_path


def check_spacing(name: str, spacing_mm: Sequence[float]) -> None:
    """Refuse voxel sizes that are not positive and finite.

    Raises:
        GeometryError: If one is zero, negative, NaN or infinite.
    """
    if not all(math.isfinite(size) and size > 0 for size in spacing_mm):
        raise GeometryError(
            f"{name}: spacing must be positive, got {[float(size) for size in spacing_mm]} mm; repair the header"
        )


def file_geometry(name: str, shape: tuple[int, int, int], affine: ArrayLike) -> VolumeGeometry:
    """Return the grid of a file; the message of a refusal names the file.

    Raises:
        GeometryError: If the affine is not finite, is singular or has a shear.
    """
    values: Any = affine
    try:
        return VolumeGeometry(shape, values)
    except DataError as error:
        raise GeometryError(f"{name}: {error}") from None
