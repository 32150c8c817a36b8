"""What travels, what stays behind, and what would give somebody away."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sharing_bundles import make_bundle

from vol3d.errors import UsageError
from vol3d.sharing.check import check_bundle
from vol3d.sharing.contents import survey
from vol3d.sharing.leaks import machine_terms, scan_file, scan_text

if TYPE_CHECKING:
    from pathlib import Path


def test_sound_bundle_has_no_findings(bundle: Path) -> None:
    assert check_bundle(bundle).findings == []


def test_hidden_files_caches_logs_and_other_folders_stay_behind(bundle: Path) -> None:
    for path in (".git/config", "docs/.DS_Store", "configs/run.log", "__pycache__/x.pyc", "eval/a.nii.gz", "notes.txt"):
        (bundle / path).parent.mkdir(exist_ok=True)
        (bundle / path).write_text("x")
    contents = survey(bundle)
    assert contents.findings == ()
    assert contents.left_out == (".git", "__pycache__", "configs/run.log", "docs/.DS_Store", "eval", "notes.txt")


def test_own_code_travels_only_at_level_scripts(bundle: Path) -> None:
    (bundle / "scripts").mkdir()
    (bundle / "scripts/x.py").write_text("1\n")
    assert [finding.code for finding in check_bundle(bundle).findings] == ["layout.script"]
    assert check_bundle(bundle, "scripts").findings == []


def test_check_knows_two_levels(bundle: Path) -> None:
    with pytest.raises(UsageError, match="'signed'"):
        check_bundle(bundle, "signed")


def test_all_findings_are_reported_together(bundle: Path) -> None:
    (bundle / "docs/README.md").write_text("no heading\n")
    (bundle / "LICENSE").write_text(" \n")
    (bundle / "configs/x.yaml").write_text("a: /etc # PatientID: 0012345\n")
    codes = [finding.code for finding in check_bundle(bundle).findings]
    assert codes == ["licence.empty", "leak.identifier", "audit.path", "card.empty"]


@pytest.mark.parametrize(
    "text",
    [
        "Run with --dataset_dir /data/scans or /workspace/data.",
        "Version 1.2.3.4 of 2024-03-01, doi 10.1234/5.6.7",
        "arXiv:1804.03999, A. L. Simpson et al., http://medicaldecathlon.com/scratch/x",
        "The patient was not identified; every patient ID was removed.",
        "x^2 + y^2, 2^n",
        "Born-again networks, 3 of them",
        "spacing 0.5 x 0.5 x 1.25 mm; 260 cases",
        "/home is where data is",
    ],
)
def test_ordinary_prose_is_no_leak(text: str) -> None:
    assert scan_text(text, "docs/README.md") == []


def test_finding_names_the_line_but_not_what_leaks() -> None:
    (finding,) = scan_text("a\nb\nPatientName: Doe\n", "docs/x.md")
    assert finding.where == "docs/x.md line 3"
    assert "Doe" not in finding.line()


@pytest.mark.parametrize("term", ["Sankt Beispiel", "st. b(e", "müller"])
def test_private_terms_are_found_in_any_case(term: str) -> None:
    (finding,) = scan_text(f"at {term.upper()}, ward 3", "docs/x.md", [term])
    assert finding.code == "leak.term"


def test_private_term_inside_a_word_is_no_leak() -> None:
    assert scan_text("annotation", "docs/x.md", ["anno"]) == []


def test_name_of_this_account_is_private(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "m.curie")
    monkeypatch.setattr("socket.gethostname", lambda: "root")
    assert machine_terms() == {"m.curie"}


@pytest.mark.parametrize(
    ("field", "code"), [(148, "leak.name"), (228, "leak.name"), (328, "leak.name"), (14, "leak.name")]
)
def test_name_in_a_nifti_header_is_found(field: int, code: str, tmp_path: Path) -> None:
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    header[field : field + 8] = b"DOE^JOHN"
    path = tmp_path / "scan.nii"
    path.write_bytes(header)
    assert [finding.code for finding in scan_file(path, "scan.nii")] == ["leak.name"]


def test_dicom_extension_of_a_nifti_file_is_found(tmp_path: Path) -> None:
    header = bytearray(352 + 16)
    header[348] = 1
    struct.pack_into("<ii", header, 352, 16, 2)
    path = tmp_path / "scan.nii"
    path.write_bytes(header)
    assert [finding.code for finding in scan_file(path, "scan.nii")] == ["leak.dicom"]


def test_compressed_file_that_is_no_nifti_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(b"\x1f\x8b\x08 not gzip")
    assert scan_file(path, "scan.nii.gz") == []


@given(st.text(max_size=300))
def test_any_text_can_be_scanned(text: str) -> None:
    scan_text(text, "x", ["term"], is_prose=False)


def test_folder_that_is_no_bundle_is_named_as_one(tmp_path: Path) -> None:
    root = make_bundle(tmp_path, weights_seed=None, name="Bad-Name")
    assert [finding.code for finding in check_bundle(root).findings] == ["metadata.name"]
