"""Headers of NIfTI-1 and NIfTI-2 files (``.nii``, ``.nii.gz``), parsed by nibabel from a bounded read.

Which affine counts:

* sform if its code is above 0, else qform; this is nibabel's order and what the standard's "method 3 before 2" means.
* If both codes are above 0 and the two grids lie more than 1 mm apart at a corner, the file is refused: programs
  choose differently (ITK may take the qform), so somebody would see the mask in another place.
* If both codes are 0 the file is refused. It then says how large voxels are, but not which side is left
  (the standard's "method 1"), and readers guess differently. Files that nibabel, SimpleITK or TorchIO write from an
  affine always set a code; a script that passes ``affine=None`` to nibabel does not.

``scl_slope`` and ``scl_inter`` are applied when the voxels are read; slope 0 or NaN means that there are none.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from vol3d.data.header_guard import check_budget, check_input_file, check_spacing, file_geometry, spatial_shape
from vol3d.data.payload import GZIP_MAGIC, Codec, read_start
from vol3d.data.stored_volume import StoredVolume, scaled_dtype
from vol3d.data.volume_suffix import volume_suffix
from vol3d.errors import GeometryError, VolumeReadError

if TYPE_CHECKING:
    from pathlib import Path

    from vol3d.geometry import VolumeGeometry

MAX_FORM_GAP_MM = 1.0
# Header extensions sit between header and voxels; real ones (DICOM attributes, XML) are far below this.
MAX_EXTENSION_BYTES = 16 * 2**20

_NIFTI1_BYTES, _NIFTI2_BYTES = 348, 540
_UNIT_NAMES = {1: "meter", 3: "micron"}


def read_nifti_header(path: Path, max_bytes: int) -> StoredVolume:
    """Read and check the header of a NIfTI file; at most 540 bytes are inflated.

    Args:
        path: A ``.nii`` or ``.nii.gz`` file.
        max_bytes: Budget for the voxels in memory.

    Raises:
        UsageError: If there is no such file.
        VolumeReadError: If it is no NIfTI file, of a voxel type that is not one real number, or over the budget.
        GeometryError: If it is not 3D or its grid is not sound.
    """
    check_input_file(path)
    name = path.name
    codec = _codec(path)
    header = _parse(path, codec)
    sizes = header["dim"][1 : 1 + int(header["dim"][0])]
    shape = spatial_shape(name, [int(size) for size in sizes])
    dtype = _voxel_type(name, header)
    slope, intercept = _scaling(name, header)
    itemsize = max(dtype.itemsize, scaled_dtype(dtype, slope, intercept).itemsize)
    check_budget(name, shape, itemsize, max_bytes)
    start = float(header["vox_offset"])
    first = int(header["sizeof_hdr"]) + 4
    if not (first <= start <= first + MAX_EXTENSION_BYTES and start.is_integer()):
        raise VolumeReadError(f"{name}: vox_offset must be at least {first}, got {start:g}; repair the header")
    return StoredVolume(
        data_path=path,
        geometry=_geometry(name, header, shape),
        dtype=dtype,
        codec=codec,
        skip=int(start),
        slope=slope,
        intercept=intercept,
    )


def _codec(path: Path) -> Codec:
    with path.open("rb") as file:
        is_gzip = file.read(2) == GZIP_MAGIC
    if volume_suffix(path) == ".nii.gz":
        if not is_gzip:
            raise VolumeReadError(
                f"{path.name}: .nii.gz file must be gzip data, got something else; rename it to what it is"
            )
        return "gzip"
    if is_gzip:
        raise VolumeReadError(f"{path.name}: .nii file must not be packed, got gzip data; rename it to .nii.gz")
    return "raw"


def _parse(path: Path, codec: Codec) -> Any:
    name = path.name
    block = read_start(path, _NIFTI2_BYTES, codec)
    sizes = {int.from_bytes(block[:4], "little"), int.from_bytes(block[:4], "big")}
    if _NIFTI1_BYTES in sizes and block[344:348] == b"n+1\0":
        return nib.Nifti1Header(block[:_NIFTI1_BYTES], check=False)
    if _NIFTI2_BYTES in sizes and block[4:8] == b"n+2\0" and len(block) == _NIFTI2_BYTES:
        return nib.Nifti2Header(block, check=False)
    raise VolumeReadError(f"{name}: file must begin with a NIfTI header, got other content; give a NIfTI file")


def _voxel_type(name: str, header: Any) -> np.dtype[Any]:
    code = int(header["datatype"])
    try:
        dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())
    except (KeyError, nib.spatialimages.HeaderDataError):
        dtype = np.dtype(np.void)
    # RGB is a structured type, long double has 16 bytes: neither is one number that the networks can take.
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise VolumeReadError(
            f"{name}: voxels must be single real numbers, got NIfTI datatype {code}; "
            "convert RGB, vector or complex data"
        )
    if int(header["bitpix"]) != 8 * dtype.itemsize:
        raise VolumeReadError(
            f"{name}: bitpix must be {8 * dtype.itemsize} for datatype {code}, got {int(header['bitpix'])}; "
            "repair the header"
        )
    return dtype


def _scaling(name: str, header: Any) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if math.isnan(slope) or slope == 0:
        return 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise VolumeReadError(
            f"{name}: scl_slope and scl_inter must be finite, got {slope:g} and {intercept:g}; repair the header"
        )
    return slope, intercept


def _geometry(name: str, header: Any, shape: tuple[int, int, int]) -> VolumeGeometry:
    check_spacing(name, header["pixdim"][1:4])
    unit = int(header["xyzt_units"]) % 8
    if unit in _UNIT_NAMES:
        raise GeometryError(f"{name}: spatial unit must be mm, got {_UNIT_NAMES[unit]}; rewrite the header in mm")
    qform_code, sform_code = int(header["qform_code"]), int(header["sform_code"])
    if qform_code <= 0 and sform_code <= 0:
        raise GeometryError(
            f"{name}: qform or sform code must be above 0, got 0 and 0 (left and right are unknown); "
            "set the code if the affine is right"
        )
    if sform_code <= 0:
        return file_geometry(name, shape, _qform_affine(name, header))
    sform = file_geometry(name, shape, header.get_sform())
    if qform_code > 0:
        qform = file_geometry(name, shape, _qform_affine(name, header))
        gap = qform.difference(sform, tolerance_mm=MAX_FORM_GAP_MM)
        if gap is not None:
            raise GeometryError(
                f"{name}: qform (code {qform_code}) and sform (code {sform_code}) must be the same grid within "
                f"{MAX_FORM_GAP_MM:g} mm, got {gap}; set the code of the wrong one to 0"
            )
    return sform


def _qform_affine(name: str, header: Any) -> Any:
    if header["pixdim"][0] == 0:
        # nifti1.h: "If pixdim[0]==0 (which should not occur), we take qfac=1".
        header["pixdim"][0] = 1
    try:
        return header.get_qform()
    except (ValueError, nib.spatialimages.HeaderDataError) as error:
        raise GeometryError(f"{name}: qform must be a rotation, got a bad quaternion ({error}); repair it") from None
