"""Headers of NRRD files (``.nrrd``, ``.nhdr``): ``field: value`` lines up to an empty line.

Not read through SimpleITK, which follows lists and patterns of data files and takes a header without ``space`` for
LPS, and one without directions for upright: both are refused here, since they do not say which side is left. SimpleITK
is the oracle of the tests instead.
"""

from __future__ import annotations

import io
import math
import re
from typing import TYPE_CHECKING

import numpy as np

from vol3d.data.header_guard import check_budget, check_input_file, data_file_inside, spatial_shape
from vol3d.data.stored_volume import StoredVolume
from vol3d.data.text_header import lps_geometry, numbers, read_header_start, required
from vol3d.errors import GeometryError, VolumeReadError

if TYPE_CHECKING:
    from pathlib import Path

    from vol3d.data.payload import Codec
    from vol3d.geometry import VolumeGeometry

_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_TYPE_OF_NAME = {name: code for code, names in _TYPES.items() for name in names}
_CODECS: dict[str, Codec] = {"raw": "raw", "gzip": "gzip", "gz": "gzip"}
# Signs that turn x and y of each space to LPS+; other spaces (scanner, with time) do not name the patient's sides.
_SPACES = {
    "left-posterior-superior": (1, 1),
    "lps": (1, 1),
    "right-anterior-superior": (-1, -1),
    "ras": (-1, -1),
    "left-anterior-superior": (1, -1),
    "las": (1, -1),
}
_SPATIAL_KINDS = {"domain", "space", "???", "none"}
_LINE = re.compile(r"([^:]+?): ?(.*?)\s*")
_KEY_VALUE = re.compile(r"[^:]+:=.*", re.DOTALL)


def read_nrrd_header(path: Path, max_bytes: int) -> StoredVolume:
    """Read and check the header of an NRRD file.

    Args:
        path: A ``.nrrd`` or ``.nhdr`` file.
        max_bytes: Budget for the voxels in memory.

    Raises:
        UsageError: If there is no such file.
        VolumeReadError: If the header is not sound, over the budget, or its data file is outside its folder.
        GeometryError: If it is not 3D or its grid is not sound.
    """
    check_input_file(path)
    name = path.name
    fields, header_bytes = _fields(path)
    sizes = numbers(name, "sizes", required(name, fields, "sizes"), int)
    shape = spatial_shape(name, sizes)
    dtype = _voxel_type(name, fields)
    check_budget(name, shape, dtype.itemsize, max_bytes)
    geometry = _geometry(name, fields, shape)
    codec = _CODECS.get(required(name, fields, "encoding").lower())
    if codec is None:
        raise VolumeReadError(f"{name}: encoding must be raw or gzip, got {fields['encoding']!r}; save it as gzip")
    data_path = data_file_inside(path, fields["datafile"]) if "datafile" in fields else path
    offset = 0 if "datafile" in fields else header_bytes
    skip = _byte_skip(name, fields, codec)
    if skip == -1:
        skip = data_path.stat().st_size - offset - math.prod(shape) * dtype.itemsize
    if skip < 0:
        raise VolumeReadError(f"{name}: data must be whole, got a file that is too short; copy it again")
    return StoredVolume(data_path=data_path, geometry=geometry, dtype=dtype, codec=codec, offset=offset, skip=skip)


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the fields (lower case, without spaces) and the number of bytes up to the end of the header."""
    start = read_header_start(path)
    lines = io.BytesIO(start)
    header_bytes = len(lines.readline())
    if not re.match(rb"NRRD000[1-5]\r?\n", start):
        raise VolumeReadError(f"{path.name}: file must begin with NRRD0001 to NRRD0005, got other content; give NRRD")
    fields: dict[str, str] = {}
    for line in lines:
        header_bytes += len(line)
        text = line.decode("latin-1").rstrip("\r\n")
        if not text:
            break
        if text.startswith("#") or _KEY_VALUE.fullmatch(text):
            continue
        match = _LINE.fullmatch(text)
        key = match[1].lower().replace(" ", "") if match else ""
        if match is None or key in fields:
            # A second value or a loose line is where two parsers would read two different headers.
            raise VolumeReadError(
                f"{path.name}: header must be single 'field: value' lines, got {text[:40]!r}; repair the header"
            )
        fields[key] = match[2]
    return fields, header_bytes


def _voxel_type(name: str, fields: dict[str, str]) -> np.dtype[np.generic]:
    type_name = required(name, fields, "type").lower()
    if type_name not in _TYPE_OF_NAME:
        raise VolumeReadError(f"{name}: voxels must be single real numbers, got type {type_name!r}; convert it")
    code = _TYPE_OF_NAME[type_name]
    if code.endswith("1"):
        return np.dtype(code)
    endian = required(name, fields, "endian").lower()
    if endian not in ("little", "big"):
        raise VolumeReadError(f"{name}: endian must be little or big, got {endian!r}; repair the header")
    return np.dtype(("<" if endian == "little" else ">") + code)


def _geometry(name: str, fields: dict[str, str], shape: tuple[int, int, int]) -> VolumeGeometry:
    space = fields.get("space", "").lower()
    if space not in _SPACES:
        raise GeometryError(
            f"{name}: space must be left-posterior-superior, RAS or LAS, got {space or 'none'!r} "
            "(left and right are unknown); export it with its orientation"
        )
    units = set(re.findall(r'"([^"]*)"', fields.get("spaceunits", "")))
    if not units <= {"mm", ""}:
        raise GeometryError(f"{name}: space units must be mm, got {sorted(units)}; rewrite the header in mm")
    kinds = fields.get("kinds", "").lower().split()[:3]
    if not set(kinds) <= _SPATIAL_KINDS:
        raise GeometryError(f"{name}: first three kinds must be domain, got {kinds}; save one channel per file")
    axes = _vectors(name, "spacedirections", fields)
    origin = _vectors(name, "spaceorigin", fields)
    if [len(vector) for vector in axes + origin] != [3, 3, 3, 3] or len(origin) != 1:
        raise GeometryError(
            f"{name}: space directions must be three vectors of 3 numbers and space origin one, "
            f"got {fields['spacedirections']!r} and {fields['spaceorigin']!r}; export the volume again"
        )
    signs = np.array((*_SPACES[space], 1))
    return lps_geometry(name, shape, (np.array(axes) * signs).tolist(), np.multiply(origin[0], signs).tolist())


def _vectors(name: str, key: str, fields: dict[str, str]) -> list[list[float]]:
    """Return the vectors of a field; the ``none`` of an axis that is not spatial is left out."""
    texts = re.findall(r"\(([^()]*)\)", required(name, fields, key))
    return [numbers(name, key, text.replace(",", " ")) for text in texts]


def _byte_skip(name: str, fields: dict[str, str], codec: Codec) -> int:
    line_skip = numbers(name, "line skip", fields.get("lineskip", "0"), int)
    byte_skip = numbers(name, "byte skip", fields.get("byteskip", "0"), int)
    if line_skip != [0] or len(byte_skip) != 1 or byte_skip[0] < (-1 if codec == "raw" else 0):
        raise VolumeReadError(
            f"{name}: line skip must be 0 and byte skip -1 or more, got {line_skip} and {byte_skip}; "
            "save it as one file"
        )
    return int(byte_skip[0])
