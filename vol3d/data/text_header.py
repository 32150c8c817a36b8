"""What MetaImage and NRRD headers share: text with a cap, numbers, and a grid in LPS+ millimetres."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vol3d.data.header_guard import file_geometry
from vol3d.errors import VolumeReadError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vol3d.geometry import VolumeGeometry

MAX_HEADER_BYTES = 2**20


def read_header_start(path: Path) -> bytes:
    """Return the first MiB of a file; a text header never is longer."""
    with path.open("rb") as file:
        return file.read(MAX_HEADER_BYTES)


def required(name: str, fields: Mapping[str, str], key: str) -> str:
    """Return a header field that must be there and not be empty.

    Raises:
        VolumeReadError: If it is not.
    """
    if not fields.get(key):
        raise VolumeReadError(f"{name}: header must have {key!r}, got none; export the volume again")
    return fields[key]


def numbers(name: str, key: str, text: str, kind: type[Any] = float) -> list[Any]:
    """Return the whitespace-separated numbers of a header field.

    Args:
        name: File name for the message.
        key: Field name for the message.
        text: Value as the header has it.
        kind: ``int`` or ``float``.

    Raises:
        VolumeReadError: If one of them is no such number.
    """
    try:
        return [kind(word) for word in text.split()]
    except ValueError:
        raise VolumeReadError(f"{name}: {key} must hold numbers only, got {text[:60]!r}; repair the header") from None


def lps_geometry(
    name: str, shape: tuple[int, int, int], axes_lps: Sequence[Sequence[float]], origin_lps: Sequence[float]
) -> VolumeGeometry:
    """Return the grid of a header that tells it in LPS+.

    Args:
        name: File name for messages.
        shape: Voxels along ``H W D``.
        axes_lps: For each axis the step in mm from one voxel to the next, ``3 x 3``.
        origin_lps: Centre of the first voxel in mm.

    Raises:
        GeometryError: If the grid is not sound.
    """
    affine = np.eye(4)
    affine[:3, :3] = np.transpose(axes_lps)
    affine[:3, 3] = origin_lps
    affine[:2] *= -1
    return file_geometry(name, shape, affine)
