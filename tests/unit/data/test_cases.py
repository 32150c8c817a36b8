from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from vol3d.data.cases import Case, find_cases
from vol3d.errors import DataError, UsageError, VolumeReadError

if TYPE_CHECKING:
    from pathlib import Path


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def dicom(path: Path, study_uid: str = "1.2.3") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, "1.2.3.4"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, "1.2.3.4"
    dataset.StudyInstanceUID, dataset.Rows = study_uid, 4
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_files_are_cases_named_without_their_suffix_in_the_order_given(tmp_path: Path) -> None:
    b, a = touch(tmp_path / "b.1.nii.gz"), touch(tmp_path / "a.mha")
    assert find_cases([b, str(a)]) == [Case("b.1", b, "file"), Case("a", a, "file")]


def test_a_folder_holds_one_case_for_each_volume_file_sorted(tmp_path: Path) -> None:
    for name in ("c.nrrd", "a.nii.gz", "b.mhd", "b.raw", "notes.txt", "._a.nii.gz", ".hidden.nii"):
        touch(tmp_path / name)
    assert [case.name for case in find_cases([tmp_path])] == ["a", "b", "c"]


def test_a_dicom_folder_is_one_case_named_by_the_folder(tmp_path: Path) -> None:
    folder = dicom(tmp_path / "ct_7" / "1.dcm").parent
    assert find_cases([folder]) == [Case("ct_7", folder, "dicom")]


def test_series_folders_of_one_study_are_one_case(tmp_path: Path) -> None:
    for series in ("axial", "coronal"):
        dicom(tmp_path / "ct_7" / series / "1.dcm")
    assert find_cases([tmp_path / "ct_7"]) == [Case("ct_7", tmp_path / "ct_7", "dicom")]


def test_dicom_folders_of_two_studies_are_two_cases(tmp_path: Path) -> None:
    dicom(tmp_path / "a" / "1.dcm", "1.2.3")
    dicom(tmp_path / "b" / "image" / "1.dcm", "1.2.4")
    dicom(tmp_path / "c" / "1.dcm", "1.2.5")
    assert [(case.name, case.kind) for case in find_cases([tmp_path])] == [
        ("a", "dicom"),
        ("b", "dicom"),
        ("c", "dicom"),
    ]


def test_a_dicom_folder_beside_a_folder_with_a_volume_hides_nothing(tmp_path: Path) -> None:
    dicom(tmp_path / "a" / "1.dcm")
    touch(tmp_path / "b" / "image.nii.gz")
    assert [(case.name, case.kind) for case in find_cases([tmp_path])] == [("a", "dicom"), ("b", "file")]


def test_case_folders_with_one_volume_give_it_their_name(tmp_path: Path) -> None:
    touch(tmp_path / "patient_1" / "image.nii.gz")
    touch(tmp_path / "patient_2" / "image.nii.gz")
    touch(tmp_path / "patient_3" / "t1.nii.gz")
    touch(tmp_path / "patient_3" / "t2.nii.gz")
    assert [case.name for case in find_cases([tmp_path])] == ["patient_1", "patient_2", "t1", "t2"]


def test_a_damaged_dicom_file_does_not_stop_the_listing(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "1.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 40)
    touch(tmp_path / "good.nii.gz")
    assert [case.name for case in find_cases([tmp_path])] == ["good", "bad"]


@pytest.mark.parametrize("names", [("a/scan.nii", "b/scan.mha"), ("a/scan.nii", "b/SCAN.nii")])
def test_two_cases_of_one_name_are_refused_with_both_paths(tmp_path: Path, names: tuple[str, str]) -> None:
    paths = [touch(tmp_path / name) for name in names]
    with pytest.raises(DataError, match="case names must be unique") as caught:
        find_cases(paths)
    assert all(str(path) in str(caught.value) for path in paths)


def test_the_same_input_twice_is_refused(tmp_path: Path) -> None:
    path = touch(tmp_path / "scan.nii")
    with pytest.raises(DataError, match="case names must be unique"):
        find_cases([path, path])


def test_missing_inputs_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"input must exist, got .*nothing\.nii"):
        find_cases([tmp_path / "nothing.nii"])
    with pytest.raises(UsageError, match="inputs must name at least one"):
        find_cases([])


def test_empty_folders_and_unknown_files_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"folder must hold volumes .* got none"):
        find_cases([tmp_path])
    with pytest.raises(VolumeReadError, match=r"scan\.png: suffix must be one of .* got '\.png'"):
        find_cases([touch(tmp_path / "scan.png")])


def test_volumes_and_dicom_in_one_folder_are_refused(tmp_path: Path) -> None:
    dicom(tmp_path / "1.dcm")
    touch(tmp_path / "scan.nii.gz")
    with pytest.raises(DataError, match=r"volume files or DICOM slices, got both \(for example scan\.nii\.gz\)"):
        find_cases([tmp_path])


def test_the_current_folder_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dicom(tmp_path / "ct_7" / "1.dcm")
    monkeypatch.chdir(tmp_path / "ct_7")
    assert find_cases(["."])[0].name == "ct_7"


def test_real_folders_are_understood(real_data: Path) -> None:
    assert [case.name for case in find_cases([real_data / "dicom"])] == ["crlm_ct_1004"]
    assert find_cases([real_data / "dicom" / "crlm_ct_1004"])[0].kind == "dicom"
