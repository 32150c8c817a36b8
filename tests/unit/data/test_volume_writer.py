from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from vol3d.data import volume_writer
from vol3d.data.volume_reader import read_volume
from vol3d.data.volume_writer import check_writable, write_labelmap, write_volume
from vol3d.errors import GeometryError, IntensityError, OutputError
from vol3d.geometry import RAS_TO_LPS, VolumeGeometry

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (3, 4, 5)
SUFFIXES = [".nii.gz", ".nii", ".nrrd", ".mha"]
LABELS = np.random.default_rng(0).integers(0, 4, SHAPE)
OBLIQUE = np.linalg.qr(np.array([[0.9, -0.3, 0.4], [0.2, 0.8, -0.2], [-0.4, 0.3, 0.9]]))[0]


def geometry(direction: np.ndarray = OBLIQUE) -> VolumeGeometry:
    affine = np.eye(4)
    affine[:3, :3] = direction * (0.796875, 1.1, 3.0)
    affine[:3, 3] = (-198.199997, 204.0, -1375.123)
    return VolumeGeometry(SHAPE, affine)


def orientations() -> list[np.ndarray]:
    found = []
    for order, signs in itertools.product(itertools.permutations(range(3)), itertools.product((1.0, -1.0), repeat=3)):
        direction = np.zeros((3, 3))
        direction[list(order), range(3)] = signs
        found.append(direction)
    return found


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_all_48_orientations_and_an_oblique_one_lie_where_simpleitk_sees_them(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"labels{suffix}"
    for direction in [*orientations(), OBLIQUE]:
        grid = geometry(direction)
        write_labelmap(path, LABELS, grid, overwrite=True)
        image = sitk.ReadImage(str(path))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, LABELS)
        far_corner = np.subtract(SHAPE, 1)
        seen = RAS_TO_LPS[:3, :3] @ image.TransformContinuousIndexToPhysicalPoint(far_corner.astype(float).tolist())
        np.testing.assert_allclose(seen, grid.to_world(far_corner), atol=1e-3)
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.array, LABELS)
        assert volume.geometry.is_same_grid(grid, tolerance_mm=1e-3)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
def test_nifti_files_carry_both_forms_and_the_unit(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"labels{suffix}"
    write_labelmap(path, LABELS, geometry())
    header = nib.load(path).header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    np.testing.assert_allclose(header.get_sform(), geometry().affine, atol=1e-4)
    np.testing.assert_allclose(header.get_qform(), geometry().affine, atol=1e-3)
    assert header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize(
    ("lowest", "highest", "expected"),
    [
        (0, 255, "uint8"),
        (0, 256, "int16"),
        (-1, 5, "int16"),
        (0, 40000, "uint16"),
        (0, 70000, "int32"),
        (0, 2**32 - 1, "uint32"),
    ],
)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_labels_get_the_smallest_type_that_holds_them(
    tmp_path: Path, suffix: str, lowest: int, highest: int, expected: str
) -> None:
    labels = np.full(SHAPE, lowest, dtype=np.int64)
    labels[1, 1, 1] = highest
    write_labelmap(tmp_path / f"labels{suffix}", labels, geometry())
    found = read_volume(tmp_path / f"labels{suffix}").array
    assert found.dtype == expected
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_scan_whose_axes_are_perpendicular_but_for_rounding_is_written(tmp_path: Path, suffix: str) -> None:
    affine = np.eye(4)
    affine[0, 1] = 9e-4
    grid = VolumeGeometry((100, 200, 50), affine)
    write_labelmap(tmp_path / f"labels{suffix}", np.zeros(grid.shape, np.uint8), grid)
    assert read_volume(tmp_path / f"labels{suffix}").geometry.is_same_grid(grid)


def test_a_boolean_mask_and_an_empty_mask_are_labelmaps(tmp_path: Path) -> None:
    write_labelmap(tmp_path / "mask.nii.gz", LABELS > 1, geometry())
    np.testing.assert_array_equal(read_volume(tmp_path / "mask.nii.gz").array, LABELS > 1)
    write_labelmap(tmp_path / "empty.nii.gz", np.zeros(SHAPE, bool), geometry())
    assert not read_volume(tmp_path / "empty.nii.gz").array.any()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64", ">i2", ">f4"])
def test_volumes_keep_type_and_values(tmp_path: Path, suffix: str, dtype: str) -> None:
    array = (LABELS * 31.5).astype(dtype)
    write_volume(tmp_path / f"scan{suffix}", array, geometry())
    found = read_volume(tmp_path / f"scan{suffix}").array
    assert found.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(found, array)


def test_arrays_of_any_memory_layout_are_written_right(tmp_path: Path) -> None:
    wide = np.random.default_rng(1).normal(size=(6, 8, 10)).astype(np.float32)
    for number, array in enumerate((wide[::2, ::2, ::2], np.asfortranarray(wide)[::-2, ::2, ::-2])):
        for suffix in SUFFIXES:
            path = tmp_path / f"scan{number}{suffix}"
            write_volume(path, array, geometry())
            np.testing.assert_array_equal(read_volume(path).array, array)


def test_equal_volumes_give_equal_files(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        write_labelmap(tmp_path / name, LABELS, geometry())
    content = (tmp_path / "a.nii.gz").read_bytes()
    assert content == (tmp_path / "b.nii.gz").read_bytes()
    assert b"partial" not in content


def test_an_existing_file_is_kept_unless_it_may_be_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "labels.nii.gz"
    path.write_text("precious")
    with pytest.raises(OutputError, match=r"output must not exist yet, got .*labels\.nii\.gz"):
        write_labelmap(path, LABELS, geometry())
    assert path.read_text() == "precious"
    write_labelmap(path, LABELS, geometry(), overwrite=True)
    np.testing.assert_array_equal(read_volume(path).array, LABELS)
    assert [file.name for file in tmp_path.iterdir()] == ["labels.nii.gz"]


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write_labelmap(tmp_path / "a" / "b" / "labels.nii", LABELS, geometry())
    assert (tmp_path / "a" / "b" / "labels.nii").is_file()


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match="output must be writable, got an error"):
        write_labelmap(tmp_path / "file" / "labels.nii.gz", LABELS, geometry())


@pytest.mark.parametrize("name", ["labels.png", "labels.mhd", "labels.nhdr", "labels"])
def test_suffixes_that_are_not_written_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=rf"output must end with one of \.nii\.gz.*got {name}"):
        check_writable(tmp_path / name)


def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "labels.nii.gz"
    with pytest.raises(IntensityError, match="labels must be integers, got float64"):
        write_labelmap(path, LABELS * 1.0, geometry())
    with pytest.raises(IntensityError, match="labels must fit in 32 bits, got 0 to 8589934592"):
        write_labelmap(path, np.where(LABELS > 2, 2**33, 0), geometry())
    with pytest.raises(IntensityError, match=r"array must have one of the types .* got complex128"):
        write_volume(path, LABELS * 1j, geometry())
    with pytest.raises(GeometryError, match=r"array must have the shape \(3, 4, 5\), got \(3, 4, 4\)"):
        write_labelmap(path, LABELS[..., 1:], geometry())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["voxels", "grid", "type"])
def test_a_file_that_reads_back_differently_never_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    read_back = volume_writer._read_with_itk

    def tampered(path: Path) -> Any:
        array, grid = read_back(path)
        if what == "voxels":
            array = array.copy()
            array[0, 0, 0] += 1
        elif what == "type":
            array = array.astype(np.int32)
        else:
            grid = grid.crop((0, 0, 1), grid.shape)
        return array, grid

    monkeypatch.setattr(volume_writer, "_read_with_itk", tampered)
    (tmp_path / "labels.nii.gz").write_text("old result")
    with pytest.raises(
        OutputError, match=r"labels\.nii\.gz: file must hold what was written, got (other voxels|corners)"
    ):
        write_labelmap(tmp_path / "labels.nii.gz", LABELS, geometry(), overwrite=True)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old result"]


@pytest.mark.parametrize(("suffix", "step"), [(".nii.gz", "_write_nifti"), (".nrrd", "_write_with_itk")])
def test_a_write_that_breaks_off_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, step: str
) -> None:
    def full_disk(path: Path, *_: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(volume_writer, step, full_disk)
    with pytest.raises(OutputError, match="No space left on device"):
        write_labelmap(tmp_path / f"labels{suffix}", LABELS, geometry())
    assert list(tmp_path.iterdir()) == []
