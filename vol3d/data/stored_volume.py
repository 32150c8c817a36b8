"""A volume on disk whose header has passed every guard, and the reading of its voxels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vol3d.data.payload import Codec, read_payload

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from vol3d.geometry import VolumeGeometry


@dataclass(frozen=True)
class StoredVolume:
    """Where the voxels of a file are and what they mean; made by the header parsers only.

    Args:
        data_path: File that holds the voxels (the header's own file, or a detached one).
        geometry: Grid of the volume.
        dtype: Voxel type on disk, byte order included.
        codec: How the data are packed.
        offset: Bytes of the file before the data.
        skip: Bytes of the inflated data before the first voxel.
        slope: Stored values are multiplied by it.
        intercept: Then this is added.
    """

    data_path: Path
    geometry: VolumeGeometry
    dtype: np.dtype[Any]
    codec: Codec = "raw"
    offset: int = 0
    skip: int = 0
    slope: float = 1.0
    intercept: float = 0.0

    def read_voxels(self) -> NDArray[Any]:
        """Read the voxels, scaled, in native byte order.

        Returns:
            Array ``H W D`` in Fortran order (first axis fastest, as all these formats store it) of type
            ``scaled_dtype(dtype, slope, intercept)``.

        Raises:
            VolumeReadError: If the file does not hold what its header declares.
        """
        num_bytes = math.prod(self.geometry.shape) * self.dtype.itemsize
        data = read_payload(self.data_path, num_bytes, offset=self.offset, skip=self.skip, codec=self.codec)
        stored = data.view(self.dtype).reshape(self.geometry.shape, order="F")
        return rescale(stored, self.slope, self.intercept)


def scaled_dtype(stored: np.dtype[Any], slope: float, intercept: float, bits: int | None = None) -> np.dtype[Any]:
    """Return the type of scaled voxels; it depends on the header only, never on the voxels.

    Integers with a whole slope and intercept stay integers: the smallest of their own type, int16, int32 and int64
    that holds every possible result (CT stored as HU / 4 with slope 4 stays exact). Otherwise up to 16 bits become
    float32, whose 24 bits hold them, and wider integers float64. Floating point keeps its type, float16 as float32.

    Args:
        stored: Type on disk.
        slope: Factor.
        intercept: Term added after it.
        bits: Bits of ``stored`` that are in use (DICOM's BitsStored: 12 of 16 in many CT), all if None.

    Example:
        >>> scaled_dtype(np.dtype("<i2"), 4.0, 0.0), scaled_dtype(np.dtype("u2"), 0.5, -1024.0)
        (dtype('int32'), dtype('float32'))
    """
    native = stored.newbyteorder("=")
    if native.kind == "f":
        return np.promote_types(native, np.float32)
    if (slope, intercept) == (1.0, 0.0):
        return native
    if slope.is_integer() and intercept.is_integer():
        span = 2 ** (bits or 8 * native.itemsize)
        lowest = -span // 2 if native.kind == "i" else 0
        ends = [limit * int(slope) + int(intercept) for limit in (lowest, lowest + span - 1)]
        for candidate in (native, np.dtype(np.int16), np.dtype(np.int32), np.dtype(np.int64)):
            if np.iinfo(candidate).min <= min(ends) and max(ends) <= np.iinfo(candidate).max:
                return candidate
    return np.dtype(np.float32 if native.itemsize <= 2 else np.float64)


def rescale(stored: NDArray[Any], slope: float, intercept: float) -> NDArray[Any]:
    """Return ``stored * slope + intercept`` in the type of ``scaled_dtype``, in native byte order.

    Args:
        stored: Voxels ``H W D`` as on disk.
        slope: Finite, not zero.
        intercept: Finite.
    """
    dtype = scaled_dtype(stored.dtype, slope, intercept)
    if (slope, intercept) == (1.0, 0.0):
        return stored.astype(dtype, order="K", copy=False)
    factor, term = (int(slope), int(intercept)) if dtype.kind in "iu" else (slope, intercept)
    wide = np.dtype(np.int64 if dtype.kind in "iu" else np.float64)
    scaled = np.empty_like(stored, dtype=dtype)
    # One slice at a time: the wide intermediate of a whole CT would need four times its memory.
    for k in range(stored.shape[2]):
        scaled[:, :, k] = stored[:, :, k].astype(wide) * factor + term
    return scaled
