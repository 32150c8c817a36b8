from __future__ import annotations

import itertools
import os
import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from monai.bundle import ConfigParser
from monai.transforms import LoadImage, LoadImaged

from vol3d.data.path_characters import check_path_characters
from vol3d.data.volume import Volume
from vol3d.data.volume_reader import VolumeReader, check_finite, read_geometry, read_volume
from vol3d.errors import GeometryError, IntensityError, UsageError, VolumeReadError
from vol3d.geometry import RAS_TO_LPS, VolumeGeometry

SHAPE = (4, 5, 6)
SPACING = (0.7, 1.25, 3.0)
ORIGIN = (-12.5, 40.25, 7.0)
# Half a degree about x, then 20 about z, then 35 about y: an oblique scan.
ROTATION = np.linalg.qr(np.array([[0.8, -0.3, 0.5], [0.4, 0.9, -0.1], [-0.4, 0.3, 0.85]]))[0]


def orientations() -> list[np.ndarray]:
    """All 48 ways to lay three axes along six directions."""
    found = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            direction = np.zeros((3, 3))
            direction[list(order), range(3)] = signs
            found.append(direction)
    return found


def affine_of(direction: np.ndarray) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = direction * SPACING
    affine[:3, 3] = ORIGIN
    return affine


def voxels(dtype: str = "int16") -> np.ndarray:
    return np.random.default_rng(0).integers(-99 if np.dtype(dtype).kind != "u" else 0, 99, SHAPE).astype(dtype)


def itk_image(array: np.ndarray, affine: np.ndarray) -> sitk.Image:
    lps = RAS_TO_LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(array.T)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def itk_affine(path: Path) -> np.ndarray:
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return RAS_TO_LPS @ affine


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".nhdr"])
def test_all_48_orientations_and_an_oblique_one_are_read_as_simpleitk_wrote_them(tmp_path: Path, suffix: str) -> None:
    for direction in [*orientations(), ROTATION]:
        affine, array = affine_of(direction), voxels()
        path = tmp_path / f"scan{suffix}"
        sitk.WriteImage(itk_image(array, affine), str(path), useCompression=suffix not in (".nii", ".mhd"))
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.array, array)
        np.testing.assert_allclose(volume.geometry.affine, affine, atol=1e-5)
        assert read_geometry(path).is_same_grid(volume.geometry)


def test_all_48_orientations_written_by_nibabel_agree_with_simpleitk(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    for direction in [*orientations(), ROTATION]:
        nib.save(nib.Nifti1Image(voxels(), affine_of(direction)), path)
        np.testing.assert_allclose(read_volume(path).geometry.affine, itk_affine(path), atol=1e-5)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_voxels_keep_their_type_and_values(tmp_path: Path, suffix: str, dtype: str) -> None:
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(itk_image(voxels(dtype), affine_of(np.eye(3))), str(path))
    array = read_volume(path).array
    assert array.dtype == dtype
    np.testing.assert_array_equal(array, voxels(dtype))


def test_big_endian_voxels_come_out_in_native_order(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii"
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nib.save(nib.Nifti1Image(voxels().astype(">i2"), affine_of(np.eye(3)), header), path)
    assert path.read_bytes()[:4] == (348).to_bytes(4, "big")
    array = read_volume(path).array
    assert array.dtype.isnative
    np.testing.assert_array_equal(array, voxels())


def test_nifti_2_is_read(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti2Image(voxels(), affine_of(ROTATION)), path)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, voxels())
    np.testing.assert_allclose(volume.geometry.affine, affine_of(ROTATION), atol=1e-12)


@pytest.mark.parametrize(("slope", "intercept", "dtype"), [(4.0, 0.0, "int32"), (0.5, -3.0, "float32")])
def test_scl_slope_and_intercept_are_applied(tmp_path: Path, slope: float, intercept: float, dtype: str) -> None:
    path = tmp_path / "ct.nii.gz"
    image = nib.Nifti1Image(voxels(), affine_of(np.eye(3)))
    image.header.set_slope_inter(slope, intercept)
    # nibabel divides by the slope when it saves what it was given unscaled.
    nib.save(image, path)
    volume = read_volume(path)
    assert volume.array.dtype == dtype
    np.testing.assert_allclose(volume.array, np.asarray(nib.load(path).dataobj), atol=1e-4)
    np.testing.assert_allclose(volume.array, sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T, atol=1e-4)


def test_a_fourth_axis_of_one_entry_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(voxels()[..., None], affine_of(ROTATION)), path)
    assert read_volume(path).array.shape == SHAPE
    path = tmp_path / "scan.mha"
    sitk.WriteImage(sitk.JoinSeries([itk_image(voxels(), affine_of(ROTATION))]), str(path))
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, voxels())
    np.testing.assert_allclose(volume.geometry.affine, affine_of(ROTATION), atol=1e-5)


def test_one_slice_stays_a_volume(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(voxels()[:, :, :1], np.eye(4)), path)
    assert read_volume(path).array.shape == (4, 5, 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite_are_refused_with_count_and_first_position(tmp_path: Path, bad: float) -> None:
    array = voxels("float32")
    array[2, 3, 1] = array[3, 0, 0] = bad
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    with pytest.raises(
        IntensityError, match=r"scan.nii.gz: voxels must be finite, got 2 NaN or Inf \(first at \(2, 3, 1\)\)"
    ):
        read_volume(path)


def test_integers_are_finite_without_a_look() -> None:
    check_finite("scan", voxels())


def test_missing_file_is_a_usage_error_and_unknown_suffix_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"input must exist, got .*nothing.nii.gz"):
        read_volume(tmp_path / "nothing.nii.gz")
    with pytest.raises(UsageError, match="input must exist"):
        read_volume(tmp_path / "nothing.png")
    (tmp_path / "scan.png").write_bytes(b"png")
    with pytest.raises(VolumeReadError, match=r"scan.png: suffix must be one of \.nii\.gz.* got '\.png'"):
        read_volume(tmp_path / "scan.png")
    (tmp_path / "empty.nii").touch()
    with pytest.raises(VolumeReadError, match=r"empty.nii: file must not be empty"):
        read_volume(tmp_path / "empty.nii")


def test_a_volume_of_another_shape_than_its_geometry_is_refused() -> None:
    with pytest.raises(GeometryError, match=r"\(4, 5, 6\), got \(4, 5, 5\)"):
        Volume(voxels()[..., 1:], VolumeGeometry(SHAPE, np.eye(4)))


@pytest.mark.parametrize("path", ["a#b/scan.nii", "%scan.nii", "$scan", "@scan"])
def test_paths_that_break_bundle_strings_are_refused(path: str) -> None:
    with pytest.raises(UsageError, match="path must not"):
        check_path_characters(path)


def test_ordinary_paths_pass() -> None:
    check_path_characters("/data/100% @home/scan.nii.gz")


def test_monai_gets_the_affine_and_the_meta_data_that_its_transforms_need(tmp_path: Path) -> None:
    path = tmp_path / "scan.mha"
    sitk.WriteImage(itk_image(voxels(), affine_of(ROTATION)), str(path))
    image = LoadImage(reader=VolumeReader(), ensure_channel_first=True)(str(path))
    assert image.shape == (1, *SHAPE)
    np.testing.assert_array_equal(image[0].numpy(), voxels())
    np.testing.assert_allclose(image.affine.numpy(), affine_of(ROTATION), atol=1e-5)
    assert image.meta["filename_or_obj"] == str(path)
    assert tuple(image.meta["spatial_shape"]) == SHAPE


def test_several_files_of_one_grid_become_channels(tmp_path: Path) -> None:
    paths = [tmp_path / "t1.nii.gz", tmp_path / "t2.nii.gz", tmp_path / "other.nii.gz"]
    for path, scale in zip(paths, (1, 1, 2), strict=True):
        nib.save(nib.Nifti1Image(voxels(), np.diag([scale, 1, 1, 1.0])), path)
    item = LoadImaged(keys="image", reader=VolumeReader(), ensure_channel_first=True)({"image": paths[:2]})
    assert item["image"].shape == (2, *SHAPE)
    with pytest.raises(GeometryError, match=r"other.nii.gz: channels must lie on the grid of t1.nii.gz"):
        VolumeReader().get_data(paths)


def test_monai_never_falls_back_to_a_reader_without_guards(tmp_path: Path) -> None:
    # nibabel itself reads this file; MONAI tries its other readers when a given reader's read() raises.
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(voxels(), None), path)
    with pytest.raises(GeometryError, match="left and right are unknown"):
        LoadImage(reader=VolumeReader())(str(path))


def test_a_bundle_config_loads_through_the_guards(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(voxels(), affine_of(ROTATION)), path)
    config = {
        "volume_reader": {"_target_": "vol3d.data.volume_reader.VolumeReader", "max_bytes": voxels().nbytes},
        "load": {"_target_": "LoadImaged", "keys": "image", "reader": "@volume_reader"},
        "image": f"$@load({{'image': '{path}'}})['image']",
    }
    assert ConfigParser(config).get_parsed_content("image").shape == SHAPE
    config["volume_reader"]["max_bytes"] = 10
    with pytest.raises(RuntimeError) as caught:
        ConfigParser(config).get_parsed_content("image")
    assert "declared size must be at most 10 B" in str(caught.getrepr())


def test_a_pipe_or_an_unreadable_file_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.nii")
    with pytest.raises(UsageError, match="input must be a file or a folder"):
        read_volume(tmp_path / "pipe.nii")

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "scan.nii").write_bytes(b"x")
    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(UsageError, match=r"input must be readable, got .*scan\.nii \(Permission denied\)"):
        read_volume(tmp_path / "scan.nii")


def test_the_reader_travels_to_worker_processes() -> None:
    reader = pickle.loads(pickle.dumps(VolumeReader(series_uid="1.2", max_bytes=5)))  # noqa: S301
    assert (reader.series_uid, reader.max_bytes) == ("1.2", 5)


def test_suffixes_decide_what_the_reader_takes(tmp_path: Path) -> None:
    reader = VolumeReader()
    assert reader.verify_suffix("a.nii.gz")
    assert reader.verify_suffix(["a.mha", str(tmp_path)])
    assert not reader.verify_suffix(["a.mha", "b.png"])


def test_real_scans_agree_with_simpleitk(real_data: Path) -> None:
    for path in (
        real_data / "liver_ct" / "chaos_ct03.nii.gz",
        real_data / "hippocampus" / "images" / "hippocampus_003.nii.gz",
    ):
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T)
        np.testing.assert_allclose(volume.geometry.affine, itk_affine(path), atol=1e-4)
