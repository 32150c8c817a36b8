from __future__ import annotations

import gzip
import struct
import tracemalloc
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest

from vol3d.data.volume_reader import read_geometry, read_volume
from vol3d.errors import GeometryError, VolumeReadError

if TYPE_CHECKING:
    from pathlib import Path

ARRAY = np.arange(60, dtype=np.int16).reshape(3, 4, 5)


def nifti_bytes(array: np.ndarray = ARRAY, affine: Any = None, **fields: Any) -> bytes:
    """A NIfTI-1 file with header fields set behind nibabel's back."""
    image = nib.Nifti1Image(array, np.eye(4) if affine is None else affine)
    content = image.to_bytes()
    header = nib.Nifti1Header(content[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + content[348:]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content, 1) if path.name.endswith(".gz") else content)
    return path


@pytest.fixture(params=["scan.nii", "scan.nii.gz"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / request.param


def refused(path: Path, kind: type[Exception], match: str, **fields: Any) -> None:
    write(path, nifti_bytes(**fields))
    with pytest.raises(kind, match=match) as caught:
        read_volume(path)
    message = str(caught.value)
    assert message.startswith(path.name)
    assert "\n" not in message


def test_a_header_that_declares_more_than_the_budget_is_refused_unread(path: Path) -> None:
    dims = [3, 30000, 30000, 30000, 1, 1, 1, 1]
    refused(path, VolumeReadError, "declared size must be at most 8.0 GiB, got 50291.4 GiB", dim=dims)


def test_the_budget_is_an_argument_and_counts_voxels_in_memory(path: Path) -> None:
    write(path, nifti_bytes())
    assert read_volume(path, max_bytes=ARRAY.nbytes).array.nbytes == ARRAY.nbytes
    with pytest.raises(VolumeReadError, match="declared size must be at most"):
        read_volume(path, max_bytes=ARRAY.nbytes - 1)
    write(path, nifti_bytes(scl_slope=0.5))
    with pytest.raises(VolumeReadError, match="4 bytes per voxel"):
        read_volume(path, max_bytes=ARRAY.nbytes)


def test_a_small_file_that_declares_gigabytes_takes_no_memory(path: Path) -> None:
    write(path, nifti_bytes(dim=[3, 1024, 1024, 1024, 1, 1, 1, 1]))
    tracemalloc.start()
    with pytest.raises(VolumeReadError, match="file must hold the 2147483648 bytes that its header declares"):
        read_volume(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


def test_a_gzip_bomb_behind_a_small_header_is_refused_after_a_bounded_read(tmp_path: Path) -> None:
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(nifti_bytes() + bytes(200 * 2**20), 1))
    tracemalloc.start()
    with pytest.raises(
        VolumeReadError, match=r"bomb.nii.gz: data must end where the header says, got more than 120 bytes"
    ):
        read_volume(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


def test_a_little_padding_behind_the_voxels_is_no_bomb(path: Path) -> None:
    write(path, nifti_bytes() + bytes(512))
    np.testing.assert_array_equal(read_volume(path).array, ARRAY)


@pytest.mark.parametrize("kept", [5, 40, 0.5, 0.9, -4])
def test_a_cut_off_gzip_file_is_refused(tmp_path: Path, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 99, (9, 9, 9)).astype(np.int16)
    path = write(tmp_path / "scan.nii.gz", nifti_bytes(noise))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)] if 0 < kept < 1 else content[: int(kept)])
    with pytest.raises(VolumeReadError, match=r"scan.nii.gz: (compressed )?data must be|scan.nii.gz: file must"):
        read_volume(path)


def test_a_changed_bit_in_a_gzip_file_is_found_by_its_checksum(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 99, (9, 9, 9)).astype(np.int16)
    path = write(tmp_path / "scan.nii.gz", nifti_bytes(noise))
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    with pytest.raises(VolumeReadError, match=r"scan.nii.gz: data must be readable gzip data"):
        read_volume(path)


def test_a_gzip_file_of_several_members_is_read(tmp_path: Path) -> None:
    content = nifti_bytes()
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]))
    np.testing.assert_array_equal(read_volume(path).array, ARRAY)


def test_a_cut_off_plain_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "scan.nii", nifti_bytes()[:-2])
    with pytest.raises(VolumeReadError, match="must hold the 120 bytes that its header declares, got 470 bytes"):
        read_volume(path)


def test_what_the_suffix_says_must_be_what_the_file_is(tmp_path: Path) -> None:
    text = tmp_path / "text.nii.gz"
    text.write_text("patient list\n" * 50)
    with pytest.raises(VolumeReadError, match=r"text.nii.gz: .nii.gz file must be gzip data"):
        read_volume(text)
    text = tmp_path / "text.nii"
    text.write_text("patient list\n" * 50)
    with pytest.raises(VolumeReadError, match=r"text.nii: file must begin with a NIfTI header"):
        read_volume(text)
    packed = tmp_path / "packed.nii"
    packed.write_bytes(gzip.compress(nifti_bytes()))
    with pytest.raises(VolumeReadError, match=r"packed.nii: .nii file must not be packed"):
        read_volume(packed)
    plain = tmp_path / "plain.nii.gz"
    plain.write_bytes(nifti_bytes())
    with pytest.raises(VolumeReadError, match="must be gzip data"):
        read_volume(plain)
    other = write(tmp_path / "other.nii.gz", b"x" * 2000)
    with pytest.raises(VolumeReadError, match="must begin with a NIfTI header"):
        read_volume(other)


@pytest.mark.parametrize("shape", [(6, 10), (3, 4, 5, 2), (3, 4, 1, 2)])
def test_images_of_other_dimensions_are_refused(path: Path, shape: tuple[int, ...]) -> None:
    write(path, nifti_bytes(np.zeros(shape, np.int16)))
    with pytest.raises(GeometryError, match=f"volume must be 3D, got {len(shape)} axes"):
        read_geometry(path)


def test_axes_without_voxels_are_refused(path: Path) -> None:
    refused(path, GeometryError, "every axis must have at least 1 voxel", dim=[3, 3, -4, 5, 1, 1, 1, 1])


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_spacing_that_is_not_positive_is_refused(path: Path, bad: float) -> None:
    refused(path, GeometryError, "spacing must be positive", pixdim=[1, 1, bad, 1, 0, 0, 0, 0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_affine_that_is_not_finite_is_refused(path: Path, bad: float) -> None:
    refused(path, GeometryError, "affine must be finite", srow_x=[1, 0, 0, bad])


def test_a_singular_affine_is_refused(path: Path) -> None:
    refused(path, GeometryError, "affine must be invertible", srow_x=[1, 1, 0, 0], srow_y=[0, 0, 0, 0])


def test_a_zero_column_of_the_affine_is_refused(path: Path) -> None:
    refused(path, GeometryError, "spacing must be positive", srow_x=[0, 0, 0, 0])


def test_a_file_without_any_form_code_is_refused(path: Path) -> None:
    refused(path, GeometryError, "qform or sform code must be above 0, got 0 and 0", sform_code=0)


def test_without_sform_the_qform_counts(path: Path) -> None:
    image = nib.Nifti1Image(ARRAY, None)
    affine = np.array([[0, -2.0, 0, 5], [2, 0, 0, 6], [0, 0, 2, 7], [0, 0, 0, 1]])
    image.set_qform(affine, code=1)
    nib.save(image, path)
    np.testing.assert_allclose(read_geometry(path).affine, affine, atol=1e-6)


def test_a_qform_without_handedness_is_right_handed_as_the_standard_says(path: Path) -> None:
    image = nib.Nifti1Image(ARRAY, None)
    image.set_qform(np.diag([2.0, 2, 2, 1]), code=1)
    content = image.to_bytes()
    header = nib.Nifti1Header(content[:348], check=False)
    header["pixdim"][0] = 0
    write(path, header.binaryblock + content[348:])
    np.testing.assert_allclose(read_geometry(path).affine, np.diag([2.0, 2, 2, 1]), atol=1e-6)


def test_forms_that_disagree_are_refused_naming_both(path: Path) -> None:
    image = nib.Nifti1Image(ARRAY, np.eye(4))
    image.set_sform(np.eye(4), code=2)
    image.set_qform(np.diag([-1.0, 1, 1, 1]), code=1)
    nib.save(image, path)
    with pytest.raises(GeometryError, match=r"qform \(code 1\) and sform \(code 2\) must be the same grid within 1 mm"):
        read_geometry(path)


def test_forms_that_differ_by_rounding_are_accepted_and_sform_counts(path: Path) -> None:
    shifted = np.eye(4)
    shifted[0, 3] = 0.5
    image = nib.Nifti1Image(ARRAY, np.eye(4))
    image.set_sform(np.eye(4), code=2)
    image.set_qform(shifted, code=1)
    nib.save(image, path)
    np.testing.assert_array_equal(read_geometry(path).affine, np.eye(4))


def test_a_shear_is_refused(path: Path) -> None:
    refused(path, GeometryError, "perpendicular axes, got a shear", srow_x=[1, 0.3, 0, 0])


def test_units_other_than_mm_are_refused(path: Path) -> None:
    refused(path, GeometryError, "spatial unit must be mm, got micron", xyzt_units=3)


@pytest.mark.parametrize("dtype", [np.complex64, [("R", "u1"), ("G", "u1"), ("B", "u1")]])
def test_voxels_of_several_numbers_are_refused(path: Path, dtype: Any) -> None:
    write(path, nifti_bytes(np.zeros((3, 4, 5), np.dtype(dtype))))
    with pytest.raises(VolumeReadError, match="voxels must be single real numbers"):
        read_volume(path)


def test_an_unknown_voxel_type_is_refused(path: Path) -> None:
    refused(path, VolumeReadError, "got NIfTI datatype 77", datatype=77)


def test_bits_that_do_not_fit_the_type_are_refused(path: Path) -> None:
    refused(path, VolumeReadError, "bitpix must be 16 for datatype 4, got 8", bitpix=8)


@pytest.mark.parametrize("offset", [0, 100, 353.5, 1e10, np.nan])
def test_a_wrong_start_of_the_voxels_is_refused(path: Path, offset: float) -> None:
    refused(path, VolumeReadError, "vox_offset must be", vox_offset=offset)


def test_scaling_that_is_not_finite_is_refused(path: Path) -> None:
    refused(path, VolumeReadError, "scl_slope and scl_inter must be finite, got inf", scl_slope=np.inf)


@pytest.mark.parametrize("slope", [0.0, np.nan])
def test_slope_zero_or_nan_means_unscaled(path: Path, slope: float) -> None:
    write(path, nifti_bytes(scl_slope=slope, scl_inter=np.nan))
    np.testing.assert_array_equal(read_volume(path).array, ARRAY)


def test_a_bad_quaternion_is_refused(path: Path) -> None:
    fields = {"sform_code": 0, "qform_code": 1, "quatern_b": 3.0}
    refused(path, GeometryError, "qform must be a rotation|affine must", **fields)


def test_header_extensions_are_skipped(path: Path) -> None:
    image = nib.Nifti1Image(ARRAY, np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"comment" * 100))
    nib.save(image, path)
    assert struct.unpack("<f", image.to_bytes()[108:112])[0] > 700
    np.testing.assert_array_equal(read_volume(path).array, ARRAY)
