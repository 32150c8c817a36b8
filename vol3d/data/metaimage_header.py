"""Headers of MetaImage files (``.mha``, ``.mhd``): ``Key = Value`` lines, the last one ``ElementDataFile``.

Not read through SimpleITK (2.5), whose MetaIO returns an image with wrong voxels when the compressed data are damaged
and only prints a line, takes what is missing for the identity, and follows lists and patterns of data files.
SimpleITK is the oracle of the tests instead. A header without orientation or position is refused.
"""

from __future__ import annotations

import io
import math
import re
from typing import TYPE_CHECKING

import numpy as np

from vol3d.data.header_guard import check_budget, check_input_file, check_spacing, data_file_inside, spatial_shape
from vol3d.data.stored_volume import StoredVolume
from vol3d.data.text_header import lps_geometry, numbers, read_header_start, required
from vol3d.errors import GeometryError, VolumeReadError

if TYPE_CHECKING:
    from pathlib import Path

    from vol3d.geometry import VolumeGeometry

# MetaIO: MET_LONG has 4 bytes in the file on every platform.
_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_LINE = re.compile(r"([A-Za-z_]\w*)\s*=\s*(.*?)\s*")


def read_metaimage_header(path: Path, max_bytes: int) -> StoredVolume:
    """Read and check the header of a MetaImage file.

    Args:
        path: A ``.mha`` or ``.mhd`` file.
        max_bytes: Budget for the voxels in memory.

    Raises:
        UsageError: If there is no such file.
        VolumeReadError: If the header is not sound, over the budget, or its data file is outside its folder.
        GeometryError: If it is not 3D or its grid is not sound.
    """
    check_input_file(path)
    name = path.name
    fields, header_bytes = _fields(path)
    shape = spatial_shape(name, numbers(name, "DimSize", required(name, fields, "DimSize"), int))
    dtype = _voxel_type(name, fields)
    check_budget(name, shape, dtype.itemsize, max_bytes)
    geometry = _geometry(name, fields, shape)
    is_local = fields["ElementDataFile"].lower() == "local"
    data_path = path if is_local else data_file_inside(path, fields["ElementDataFile"])
    is_packed = _flag(fields.get("CompressedData"))
    offset = header_bytes if is_local else _header_size(name, fields)
    if offset == -1:
        offset = data_path.stat().st_size - math.prod(shape) * dtype.itemsize
    if offset < 0:
        raise VolumeReadError(f"{name}: HeaderSize must fit the data file, got a file that is too short; copy it again")
    return StoredVolume(
        data_path=data_path,
        geometry=geometry,
        dtype=dtype,
        codec="zlib" if is_packed else "raw",
        offset=offset,
    )


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the fields and the number of bytes up to the end of the header."""
    fields: dict[str, str] = {}
    start = 0
    for line in io.BytesIO(read_header_start(path)):
        start += len(line)
        match = _LINE.fullmatch(line.decode("latin-1"))
        if match is None or match[1] in fields:
            # A second value or a loose line is where two parsers would read two different headers.
            raise VolumeReadError(
                f"{path.name}: header must be single 'Key = Value' lines, got {line[:40]!r}; give a MetaImage file"
            )
        fields[match[1]] = match[2]
        if match[1] == "ElementDataFile":
            return fields, start
    raise VolumeReadError(f"{path.name}: header must end with ElementDataFile, got none; give a MetaImage file")


def _geometry(name: str, fields: dict[str, str], shape: tuple[int, int, int]) -> VolumeGeometry:
    spacing = numbers(name, "ElementSpacing", required(name, fields, "ElementSpacing"))
    check_spacing(name, spacing)
    num_axes = len(spacing)
    # One row per axis; a fourth axis of one entry brings a fourth row and column.
    rows = np.array(_one_of(name, fields, ("TransformMatrix", "Rotation", "Orientation")))
    origin = _one_of(name, fields, ("Offset", "Position", "Origin"))
    if num_axes < 3 or rows.size != num_axes**2 or len(origin) != num_axes:
        raise GeometryError(
            f"{name}: orientation must have {num_axes**2} and position {num_axes} numbers for {num_axes} axes, "
            f"got {rows.size} and {len(origin)}; repair the header"
        )
    axes = rows.reshape(num_axes, num_axes)[:3, :3] * np.array(spacing[:3])[:, None]
    return lps_geometry(name, shape, axes.tolist(), origin[:3])


def _one_of(name: str, fields: dict[str, str], keys: tuple[str, ...]) -> list[float]:
    """Return the numbers of a field that MetaIO knows by several names."""
    given = [key for key in keys if key in fields]
    if len(given) != 1:
        raise GeometryError(f"{name}: header must have {keys[0]} once, got {given or 'none'}; export the volume again")
    return numbers(name, given[0], fields[given[0]])


def _voxel_type(name: str, fields: dict[str, str]) -> np.dtype[np.generic]:
    element = required(name, fields, "ElementType")
    channels = fields.get("ElementNumberOfChannels", "1")
    if element not in _TYPES or channels != "1":
        raise VolumeReadError(
            f"{name}: voxels must be single real numbers, got {element!r} with {channels!r} channels; "
            "convert RGB or vectors"
        )
    if not _flag(fields.get("BinaryData", "True")):
        raise VolumeReadError(f"{name}: BinaryData must be True, got {fields['BinaryData']!r}; save it as binary data")
    is_big = _flag(fields.get("BinaryDataByteOrderMSB")) or _flag(fields.get("ElementByteOrderMSB"))
    return np.dtype((">" if is_big else "<") + _TYPES[element])


def _header_size(name: str, fields: dict[str, str]) -> int:
    sizes = numbers(name, "HeaderSize", fields.get("HeaderSize", "0"), int)
    if len(sizes) != 1 or sizes[0] < -1:
        raise VolumeReadError(f"{name}: HeaderSize must be -1 or more, got {sizes}; repair the header")
    return int(sizes[0])


def _flag(value: str | None) -> bool:
    # MetaIO itself looks at the first letter only.
    return value is not None and value[:1] in ("T", "t", "1")
