"""Reading a volume: one door for NIfTI, NRRD, MetaImage and DICOM, for Python and for bundle configs alike.

Every format passes the same guards before a voxel is read (``header_guard``), and every affine leaves here as
voxel index to RAS+ millimetres. Integers stay integers; nothing is reoriented or resampled.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.data.image_reader import ImageReader
from monai.utils.enums import MetaKeys, SpaceKeys

from vol3d.data.dicom_series import read_series, series_geometry
from vol3d.data.header_guard import DEFAULT_MAX_BYTES, check_input_file
from vol3d.data.metaimage_header import read_metaimage_header
from vol3d.data.nifti_header import read_nifti_header
from vol3d.data.nrrd_header import read_nrrd_header
from vol3d.data.volume import Volume
from vol3d.data.volume_suffix import VOLUME_SUFFIXES, volume_suffix
from vol3d.errors import GeometryError, IntensityError, VolumeReadError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vol3d.data.stored_volume import StoredVolume
    from vol3d.geometry import VolumeGeometry

_HEADER_READERS = {
    ".nii.gz": read_nifti_header,
    ".nii": read_nifti_header,
    ".nrrd": read_nrrd_header,
    ".nhdr": read_nrrd_header,
    ".mha": read_metaimage_header,
    ".mhd": read_metaimage_header,
}


def read_volume(path: str | Path, series_uid: str | None = None, max_bytes: int = DEFAULT_MAX_BYTES) -> Volume:
    """Read a volume file or a DICOM series folder.

    Args:
        path: A ``.nii``, ``.nii.gz``, ``.nrrd``, ``.nhdr``, ``.mha`` or ``.mhd`` file, or a folder of DICOM slices.
        series_uid: Which DICOM series, where the folder holds several; files ignore it.
        max_bytes: Largest volume in memory; a header that declares more is refused unread.

    Returns:
        The volume; stored scaling (``scl_slope``, rescale slope to HU) is applied.

    Raises:
        UsageError: If nothing is there, or the folder has no series ``series_uid``.
        VolumeReadError: If the file or series cannot be read whole.
        GeometryError: If it is not 3D or its grid is not sound.
        IntensityError: If voxels are NaN or infinite.
    """
    path = Path(path)
    if path.is_dir():
        return read_series(path, series_uid, max_bytes)
    stored = _read_header(path, max_bytes)
    array = stored.read_voxels()
    check_finite(path.name, array)
    return Volume(array, stored.geometry)


def read_geometry(path: str | Path, series_uid: str | None = None) -> VolumeGeometry:
    """Return the grid of a volume file or DICOM series from its headers alone.

    Raises:
        UsageError: If nothing is there, or the folder has no series ``series_uid``.
        VolumeReadError: If the header cannot be read.
        GeometryError: If the volume is not 3D or its grid is not sound.
    """
    path = Path(path)
    if path.is_dir():
        return series_geometry(path, series_uid)
    return _read_header(path, sys.maxsize).geometry


def voxel_file(path: Path) -> Path:
    """Return the file that holds a volume's voxels: its own, or the one that a ``.nhdr`` or ``.mhd`` header names.

    Raises:
        UsageError: If nothing is there.
        VolumeReadError: If the header cannot be read.
        GeometryError: If the volume is not 3D or its grid is not sound.
    """
    return _read_header(path, sys.maxsize).data_path


def check_finite(name: str, array: NDArray[Any]) -> None:
    """Refuse voxels that are NaN or infinite.

    Args:
        name: File name for the message.
        array: Voxels ``H W D``; integers are finite by nature and cost nothing.

    Raises:
        IntensityError: With their count and the index of the first one.
    """
    if array.dtype.kind != "f":
        return
    is_finite = np.isfinite(array)
    num_bad = array.size - int(np.count_nonzero(is_finite))
    if num_bad:
        first = tuple(int(index) for index in np.unravel_index(int(np.argmin(is_finite)), array.shape))
        raise IntensityError(
            f"{name}: voxels must be finite, got {num_bad} NaN or Inf (first at {first}); repair the volume"
        )


def _read_header(path: Path, max_bytes: int) -> StoredVolume:
    suffix = volume_suffix(path)
    if suffix is None:
        check_input_file(path)
        raise VolumeReadError(
            f"{path.name}: suffix must be one of {', '.join(VOLUME_SUFFIXES)}, got {''.join(path.suffixes[-2:])!r}; "
            "convert the file, or give the folder of a DICOM series"
        )
    return _HEADER_READERS[suffix](path, max_bytes)


class VolumeReader(ImageReader):
    """``read_volume`` as a MONAI reader, so that ``monai.bundle run`` has the same guards.

    In a bundle config::

        volume_reader:
          _target_: vol3d.data.volume_reader.VolumeReader
        load_transforms:
          - _target_: LoadImaged
            keys: "@keys"
            reader: "@volume_reader"

    ``LoadImage`` tries its own readers after an error in a given reader's ``read``: a refused file would be
    opened by a reader without guards. All the work is therefore in ``get_data``, whose errors end the load.

    Args:
        series_uid: Which DICOM series, where a folder holds several.
        max_bytes: Largest volume in memory.
    """

    def __init__(self, series_uid: str | None = None, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        super().__init__()
        self.series_uid = series_uid
        self.max_bytes = max_bytes

    def verify_suffix(self, filename: Sequence[str | Path] | str | Path) -> bool:
        """Tell whether every path has a volume suffix or is a folder."""
        return all(volume_suffix(path) is not None or path.is_dir() for path in _as_paths(filename))

    def read(self, data: Sequence[str | Path] | str | Path, **_: Any) -> tuple[Path, ...]:
        """Return the paths; nothing is opened yet (see the class)."""
        return _as_paths(data)

    def get_data(self, img: Sequence[Path]) -> tuple[NDArray[Any], dict[str, Any]]:
        """Read the volumes that ``read`` was given.

        Args:
            img: One path, or several of one grid, which become channels.

        Returns:
            Voxels ``H W D``, or ``C H W D`` for several paths, and MONAI's metadata.

        Raises:
            UsageError: If nothing is there.
            DataError: If a volume is refused, or several do not share one grid.
        """
        volumes = [read_volume(path, self.series_uid, self.max_bytes) for path in img]
        geometry = volumes[0].geometry
        for path, volume in zip(img[1:], volumes[1:], strict=True):
            difference = volume.geometry.difference(geometry)
            if difference is not None:
                raise GeometryError(
                    f"{path.name}: channels must lie on the grid of {img[0].name}, got {difference}; resample first"
                )
        is_single = len(volumes) == 1
        array = volumes[0].array if is_single else np.stack([volume.array for volume in volumes])
        return array, {
            MetaKeys.AFFINE: geometry.affine.copy(),
            MetaKeys.ORIGINAL_AFFINE: geometry.affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.array(geometry.shape),
            MetaKeys.SPACE: SpaceKeys.RAS,
            # MONAI's word for "no channel axis" is NaN.
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan") if is_single else 0,
            "filename_or_obj": str(img[0]),
        }


def _as_paths(names: Sequence[str | Path] | str | Path) -> tuple[Path, ...]:
    return (Path(names),) if isinstance(names, (str, Path)) else tuple(Path(name) for name in names)
