from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    RLELossless,
    generate_uid,
)

from vol3d.data.dicom_series import SeriesSummary, list_series
from vol3d.data.volume_reader import read_geometry, read_volume
from vol3d.errors import GeometryError, UsageError, VolumeReadError
from vol3d.geometry import RAS_TO_LPS

if TYPE_CHECKING:
    from pathlib import Path

NUM_SLICES, ROWS, COLUMNS = 6, 5, 4
UID_A, UID_B = "1.2.826.0.1.1", "1.2.826.0.1.2"
STORED = np.random.default_rng(0).integers(0, 4000, (NUM_SLICES, ROWS, COLUMNS))
AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
CORONAL = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0))
# The first two columns of a rotation: an oblique scan.
OBLIQUE = tuple(map(tuple, np.linalg.qr(np.array([[0.9, 0.2, 0.3], [-0.1, 0.8, 0.5], [-0.3, -0.4, 0.8]]))[0].T[:2]))


def write_slice(path: Path, stored: np.ndarray, position: Any, axes: Any = AXIAL, **changes: Any) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "4711"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.Modality = "1.2.826.0.1", UID_A, "CT"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelSpacing = [0.8, 0.5]
    dataset.ImageOrientationPatient = [float(f"{value:.10g}") for axis in axes for value in axis]
    dataset.ImagePositionPatient = [float(f"{value:.10g}") for value in position]
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.PixelData = stored.astype("<u2").tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return dataset


def write_series(folder: Path, axes: Any = AXIAL, step_mm: float = 2.5, step: Any = None, **changes: Any) -> Path:
    """Six slices along their normal (or ``step``), written in an order that is not theirs."""
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(*axes) * step_mm if step is None else np.array(step)
    for number, k in enumerate((3, 0, 5, 1, 4, 2)):
        position = np.array([-10.0, 20.0, 30.0]) + k * normal
        name = f"{changes.get('SeriesInstanceUID', UID_A)[-1]}{number}.dcm"
        write_slice(folder / name, STORED[k], position, axes, **changes)
    return folder


def edit(path: Path, **changes: Any) -> None:
    dataset = pydicom.dcmread(path)
    for name, value in changes.items():
        setattr(dataset, name, value)
    dataset.save_as(path)


def slice_at(folder: Path, k: int) -> Path:
    return folder / f"1{(3, 0, 5, 1, 4, 2).index(k)}.dcm"


def read_with_itk(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, RAS_TO_LPS @ affine


@pytest.mark.parametrize("axes", [AXIAL, CORONAL, OBLIQUE, ((0.0, -1.0, 0.0), (-1.0, 0.0, 0.0))])
def test_a_series_is_the_volume_that_simpleitk_reads(tmp_path: Path, axes: Any) -> None:
    volume = read_volume(write_series(tmp_path, axes))
    array, affine = read_with_itk(tmp_path)
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.geometry.affine, affine, atol=1e-6)
    assert volume.geometry.spacing_mm == pytest.approx((0.5, 0.8, 2.5))
    assert read_geometry(tmp_path).is_same_grid(volume.geometry)


def test_twelve_stored_bits_become_hounsfield_units_of_16_bits(tmp_path: Path) -> None:
    array = read_volume(write_series(tmp_path)).array
    assert array.dtype == np.int16
    np.testing.assert_array_equal(array, STORED.transpose(2, 1, 0) - 1024)


def test_signed_voxels_are_read_as_signed(tmp_path: Path) -> None:
    folder = write_series(tmp_path, PixelRepresentation=1, BitsStored=16, HighBit=15, RescaleIntercept=0)
    edit(slice_at(folder, 2), PixelData=np.full((ROWS, COLUMNS), -2000, "<i2").tobytes())
    assert (read_volume(folder).array[:, :, 2] == -2000).all()


def test_every_slice_is_rescaled_by_its_own_slope(tmp_path: Path) -> None:
    folder = write_series(tmp_path, Modality="PT", RescaleIntercept=0)
    edit(slice_at(folder, 4), RescaleSlope=0.25)
    volume = read_volume(folder)
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array[:, :, 4], STORED[4].T * np.float32(0.25))
    np.testing.assert_array_equal(volume.array[:, :, 3], STORED[3].T)


def test_a_series_without_rescale_keeps_its_values(tmp_path: Path) -> None:
    folder = write_series(tmp_path, Modality="MR", RescaleSlope=None, RescaleIntercept=None)
    np.testing.assert_array_equal(read_volume(folder).array, STORED.transpose(2, 1, 0))


def test_two_series_are_listed_and_refused_until_one_is_chosen(tmp_path: Path) -> None:
    write_series(tmp_path)
    write_series(tmp_path, CORONAL, SeriesInstanceUID=UID_B, Modality="MR")
    assert list_series(tmp_path) == [
        SeriesSummary(UID_A, "CT", 6, (0.5, 0.8, pytest.approx(2.5))),
        SeriesSummary(UID_B, "MR", 6, (0.5, 0.8, pytest.approx(2.5))),
    ]
    with pytest.raises(
        VolumeReadError, match=rf"got 2 \({UID_A} CT 6 slices; {UID_B} MR 6 slices\); choose one with --series UID"
    ) as caught:
        read_volume(tmp_path)
    assert "Doe" not in str(caught.value)
    assert read_volume(tmp_path, series_uid=UID_B).geometry.axis_codes == "LIP"
    with pytest.raises(UsageError, match=r"series must be one of the folder .* got '9.9'"):
        read_volume(tmp_path, series_uid="9.9")


def test_an_unsound_series_does_not_stop_another_from_being_chosen(tmp_path: Path) -> None:
    write_series(tmp_path)
    write_series(tmp_path, SeriesInstanceUID=UID_B, SamplesPerPixel=3)
    assert read_volume(tmp_path, series_uid=UID_A).array.shape == (COLUMNS, ROWS, NUM_SLICES)


def test_series_in_folders_one_level_below_are_found(tmp_path: Path) -> None:
    write_series(tmp_path / "ct")
    assert read_volume(tmp_path).array.shape == (COLUMNS, ROWS, NUM_SLICES)


def test_missing_slices_are_refused_with_their_positions(tmp_path: Path) -> None:
    folder = write_series(tmp_path)
    for k in (1, 3):
        slice_at(folder, k).unlink()
    with pytest.raises(VolumeReadError, match=r"series must have all its slices, got 2 missing at 32\.50, 37\.50 mm"):
        read_volume(folder)


def test_doubled_slices_are_refused_with_their_position(tmp_path: Path) -> None:
    folder = write_series(tmp_path)
    write_slice(folder / "copy.dcm", STORED[0], (-10.0, 20.0, 35.0))
    with pytest.raises(VolumeReadError, match=r"slice positions must be unique, got 1 doubled \(35\.00 mm\)"):
        read_volume(folder)


def test_gantry_tilt_is_refused_with_its_angle(tmp_path: Path) -> None:
    folder = write_series(tmp_path, step=(0.0, 2.5 * np.tan(np.radians(15)), 2.5))
    with pytest.raises(GeometryError, match=r"got a tilt of 15\.00 degrees"):
        read_volume(folder)


def test_slice_spacing_that_varies_is_refused(tmp_path: Path) -> None:
    folder = write_series(tmp_path)
    edit(slice_at(folder, 5), ImagePositionPatient=[-10.0, 20.0, 43.5])
    with pytest.raises(GeometryError, match=r"slice spacing must be uniform, got 2.5 to 3.5 mm"):
        read_volume(folder)


def test_positions_rounded_by_the_scanner_are_accepted(tmp_path: Path) -> None:
    folder = write_series(tmp_path, step_mm=0.625)
    for k in range(NUM_SLICES):
        edit(slice_at(folder, k), ImagePositionPatient=[-10.0, 20.0, round(30 + 0.625 * k, 1)])
    assert read_volume(folder).geometry.spacing_mm[2] == pytest.approx(0.625, abs=0.02)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"Rows": 4, "PixelData": bytes(2 * 4 * COLUMNS)}, r"rows and columns must be the same .* \(4, 4\)"),
        ({"PixelSpacing": [0.8, 0.6]}, "PixelSpacing must be the same in all slices"),
        ({"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}, "ImageOrientationPatient must be the same"),
    ],
)
def test_slices_of_mixed_kinds_are_refused(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    folder = write_series(tmp_path)
    edit(slice_at(folder, 2), **changes)
    with pytest.raises(VolumeReadError, match=match):
        read_volume(folder)


@pytest.mark.parametrize(
    ("changes", "kind", "match"),
    [
        ({"PixelSpacing": [0, 0.5]}, GeometryError, "PixelSpacing must be positive"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, GeometryError, "two perpendicular unit vectors"),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, GeometryError, "two perpendicular unit vectors"),
        ({"RescaleSlope": 0}, VolumeReadError, "RescaleSlope must be finite and not zero"),
        ({"SamplesPerPixel": 3}, VolumeReadError, "SamplesPerPixel must be 1, got 3"),
        ({"PixelSpacing": None}, VolumeReadError, "DICOM file must be readable, got .*PixelSpacing"),
    ],
)
def test_unsound_headers_are_refused(
    tmp_path: Path, changes: dict[str, Any], kind: type[Exception], match: str
) -> None:
    folder = write_series(tmp_path, **changes)
    with pytest.raises(kind, match=match) as caught:
        read_volume(folder)
    assert "\n" not in str(caught.value)


def test_one_slice_is_no_volume(tmp_path: Path) -> None:
    write_slice(tmp_path / "1.dcm", STORED[0], (0, 0, 0))
    assert list_series(tmp_path) == [SeriesSummary(UID_A, "CT", 1, (0.5, 0.8, None))]
    with pytest.raises(VolumeReadError, match="series must have at least 2 slices, got 1"):
        read_volume(tmp_path)


def test_a_slice_whose_header_is_cut_off_is_refused_not_skipped(tmp_path: Path) -> None:
    folder = write_series(tmp_path)
    path = slice_at(folder, 5)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(VolumeReadError, match=f"{path.name}: DICOM file must be readable"):
        read_volume(folder)


def test_values_that_break_the_standard_are_not_quoted_in_warnings(tmp_path: Path) -> None:
    folder = write_series(tmp_path)
    content = slice_at(folder, 0).read_bytes()
    slice_at(folder, 0).write_bytes(content.replace(b"1.2.826.0.1\0", b"1.2.Doe^Jane"))
    assert read_volume(folder).array.shape == (COLUMNS, ROWS, NUM_SLICES)


def test_other_files_are_skipped_with_a_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_series(tmp_path)
    (folder / "notes.txt").write_text("x")
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (folder / "broken.dcm").write_bytes(bytes(50))
    write_slice(folder / "report.dcm", STORED[0], (0, 0, 0), SeriesInstanceUID=UID_B, ImagePositionPatient=None)
    with caplog.at_level(logging.INFO, logger="vol3d"):
        assert read_volume(folder).array.shape == (COLUMNS, ROWS, NUM_SLICES)
    assert "skipped 3 files that are no DICOM slices" in caplog.text
    assert "Doe" not in caplog.text


def test_a_slice_without_position_is_refused(tmp_path: Path) -> None:
    folder = write_series(tmp_path)
    write_slice(folder / "lost.dcm", STORED[0], (0, 0, 0), ImagePositionPatient=None)
    with pytest.raises(VolumeReadError, match="every slice must have ImagePositionPatient, got 1 without"):
        read_volume(folder)


def test_multi_frame_objects_are_refused_with_a_remedy(tmp_path: Path) -> None:
    write_slice(tmp_path / "enhanced.dcm", STORED[0], (0, 0, 0), NumberOfFrames=10)
    with pytest.raises(VolumeReadError, match=r"got 1 multi-frame files .* dcm2niix"):
        read_volume(tmp_path)


def test_a_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(VolumeReadError, match="folder must hold a DICOM series, got none"):
        read_volume(tmp_path)
    with pytest.raises(UsageError, match="DICOM series must be a folder"):
        list_series(tmp_path / "nothing")


def test_a_series_over_the_budget_is_refused_unread(tmp_path: Path) -> None:
    folder = write_series(tmp_path, Rows=60000, Columns=60000, PixelData=b"\0\0")
    with pytest.raises(VolumeReadError, match=r"declared size must be at most 8.0 GiB, got 40.2 GiB"):
        read_volume(folder)


def test_cut_off_pixels_are_refused(tmp_path: Path) -> None:
    folder = write_series(tmp_path)
    path = slice_at(folder, 3)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(VolumeReadError, match=rf"{path.name}: pixels must be readable"):
        read_volume(folder)


@pytest.mark.parametrize("is_packed", [False, True])
def test_overlay_bits_above_the_stored_bits_are_no_voxel_values(tmp_path: Path, is_packed: bool) -> None:
    folder = write_series(tmp_path)
    path = slice_at(folder, 3)
    edit(path, PixelData=np.full((ROWS, COLUMNS), 0xF123, "<u2").tobytes(), BitsStored=16, HighBit=15)
    dataset = pydicom.dcmread(path)
    if is_packed:
        dataset.compress(RLELossless)
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.save_as(path)
    assert (read_volume(folder).array[:, :, 3] == 0x123 - 1024).all()


def test_run_length_encoded_pixels_are_decoded(tmp_path: Path) -> None:
    folder = write_series(tmp_path)
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless)
        dataset.save_as(path)
    np.testing.assert_array_equal(read_volume(folder).array, STORED.transpose(2, 1, 0) - 1024)


def test_an_encoding_without_a_decoder_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_series(tmp_path)
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
        dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        dataset["PixelData"].VR = "OB"
        dataset.save_as(path)
    absent = SimpleNamespace(is_available=False, missing_dependencies=["pylibjpeg - requires pylibjpeg>=2.0"])
    monkeypatch.setattr("vol3d.data.dicom_series.get_decoder", lambda _: absent)
    with pytest.raises(VolumeReadError, match=r"got .JPEG Lossless.*install a decoder .*pylibjpeg"):
        read_volume(folder)


def test_deflated_files_are_refused_before_they_are_inflated(tmp_path: Path) -> None:
    folder = write_series(tmp_path)
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        dataset.save_as(path)
    with pytest.raises(VolumeReadError, match="transfer syntax must not be Deflated"):
        read_volume(folder)


def test_a_real_series_agrees_with_simpleitk(real_data: Path) -> None:
    folder = real_data / "dicom" / "crlm_ct_1004"
    volume = read_volume(folder)
    array, affine = read_with_itk(folder / "image")
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.geometry.affine, affine, atol=1e-6)


@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (3, -1024), (-2, 7)])
def test_whole_slopes_and_intercepts_are_exact_at_both_ends_of_the_stored_range(
    tmp_path: Path, slope: int, intercept: int
) -> None:
    folder = write_series(tmp_path, RescaleSlope=slope, RescaleIntercept=intercept)
    for k, value in ((0, 0), (5, 4095)):
        edit(slice_at(folder, k), PixelData=np.full((ROWS, COLUMNS), value, "<u2").tobytes())
        assert (read_volume(folder).array[:, :, k] == value * slope + intercept).all()
