"""Whatever the damage, a reader either returns a volume or refuses in one line: nothing else escapes."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from vol3d.data.volume_reader import read_volume
from vol3d.errors import Vol3dError

if TYPE_CHECKING:
    from pathlib import Path

ARRAY = np.random.default_rng(0).integers(-99, 99, (5, 6, 7)).astype(np.int16)
NUM_TRIALS = 150


def sound_files(folder: Path) -> dict[str, bytes]:
    nib.save(nib.Nifti1Image(ARRAY, np.diag([1, 2, 3, 1.0])), folder / "scan.nii")
    image = sitk.GetImageFromArray(ARRAY.T)
    sitk.WriteImage(image, str(folder / "scan.mha"), useCompression=True)
    sitk.WriteImage(image, str(folder / "scan.nrrd"), useCompression=True)
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    return {**files, "scan.nii.gz": gzip.compress(files["scan.nii"])}


def dicom_bytes(path: Path, k: int) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, f"1.2.3.{k}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.Modality = "1.2", "1.2.3", "CT"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = 4, 4
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.PixelSpacing, dataset.ImageOrientationPatient = [1, 1], [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient, dataset.RescaleSlope, dataset.RescaleIntercept = [0, 0, k], 1, -1024
    dataset.PixelData = bytes(32)
    dataset.save_as(path, enforce_file_format=True)
    return path.read_bytes()


def damaged(content: bytes, random: np.random.Generator, header_bytes: int) -> bytes:
    """Change one to four bytes, mostly of the header, and now and then cut the file off."""
    data = bytearray(content)
    for _ in range(int(random.integers(1, 5))):
        end = header_bytes if random.random() < 0.8 else len(data)
        data[int(random.integers(min(end, len(data))))] = int(random.integers(256))
    return bytes(data[: int(random.integers(len(data)))] if random.random() < 0.1 else data)


def check_read(path: Path) -> None:
    message = ""
    try:
        read_volume(path, max_bytes=2**20)
    except Vol3dError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1
    assert message.isprintable()
    assert len(message) < 500


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "scan.mha", "scan.nrrd"])
def test_damaged_files_are_read_or_refused(tmp_path: Path, name: str) -> None:
    content = sound_files(tmp_path)[name]
    random = np.random.default_rng(1)
    for _ in range(NUM_TRIALS):
        (tmp_path / name).write_bytes(damaged(content, random, 352))
        check_read(tmp_path / name)


def test_a_damaged_nifti_header_behind_sound_gzip_is_read_or_refused(tmp_path: Path) -> None:
    content = sound_files(tmp_path)["scan.nii"]
    random = np.random.default_rng(2)
    for _ in range(NUM_TRIALS):
        (tmp_path / "scan.nii.gz").write_bytes(gzip.compress(damaged(content, random, 352), 1))
        check_read(tmp_path / "scan.nii.gz")


def test_damaged_dicom_slices_are_read_or_refused(tmp_path: Path) -> None:
    contents = [dicom_bytes(tmp_path / f"{k}.dcm", k) for k in range(3)]
    random = np.random.default_rng(3)
    for _ in range(NUM_TRIALS):
        (tmp_path / "1.dcm").write_bytes(damaged(contents[1], random, len(contents[1])))
        check_read(tmp_path)
