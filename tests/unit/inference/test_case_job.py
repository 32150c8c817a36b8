"""Many cases: whole or absent, resumable, independent of each other."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from vol3d.data.cases import Case, find_cases
from vol3d.data.volume_reader import read_volume
from vol3d.data.volume_writer import write_volume
from vol3d.errors import DataError, IntensityError, OutputError
from vol3d.geometry import VolumeGeometry
from vol3d.inference.case_folder import REPORT_NAME
from vol3d.inference.case_job import CaseJob
from vol3d.inference.predictor import LABELS_NAME, SegmentationResult
from vol3d.inference.run_record import RunIdentity

if TYPE_CHECKING:
    from pathlib import Path

GEOMETRY = VolumeGeometry((4, 3, 2), np.diag([-1.0, 2, 3, 1]))
IDENTITY = RunIdentity("brain_mr_segmentation", "0.1.0", "b" * 64, "c" * 64, {}, "cpu", 0)


class Threshold:
    """Labels what is above 0.5; refuses scans with a negative voxel."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, scan: Path, series_uid: str | None = None) -> SegmentationResult:
        self.calls.append(scan.name)
        volume = read_volume(scan, series_uid)
        if volume.array.min() < 0:
            raise IntensityError("scan must not be negative, got -1; rescale it")
        if volume.array.max() > 100:
            raise ZeroDivisionError("a defect")
        labels = (volume.array > 0.5).astype(np.uint8)
        return SegmentationResult(volume, labels, {"organ": float(labels.sum())}, {"network": 0.0}, lambda: None)


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    for number, value in enumerate((1.0, 0.0, 2.0)):
        write_volume(tmp_path / "in" / f"case_{number}.nii.gz", np.full((4, 3, 2), value, np.float32), GEOMETRY)
    return find_cases([tmp_path / "in"])


def job(tmp_path: Path, **changes: Any) -> CaseJob[SegmentationResult]:
    return CaseJob(**{"predictor": Threshold(), "identity": IDENTITY, "output_dir": tmp_path / "out", **changes})


def statuses(outcomes: Any) -> list[str]:
    return [outcome.status for outcome in outcomes]


def replace_scan(case: Case, value: float) -> None:
    case.path.unlink()
    write_volume(case.path, np.full((4, 3, 2), value, np.float32), GEOMETRY)


def test_each_case_gets_its_labels_and_a_report(tmp_path: Path, cases: list[Case]) -> None:
    outcomes = list(job(tmp_path).run(cases))
    assert statuses(outcomes) == ["done"] * 3
    for case, outcome in zip(cases, outcomes, strict=True):
        assert sorted(path.name for path in outcome.folder.iterdir()) == [LABELS_NAME, REPORT_NAME]
        labels = read_volume(outcome.folder / LABELS_NAME)
        np.testing.assert_array_equal(labels.array, read_volume(case.path).array > 0.5)
        report = json.loads((outcome.folder / REPORT_NAME).read_text())
        assert report["case"] == case.name
        for name in (LABELS_NAME,):
            written = hashlib.sha256((outcome.folder / name).read_bytes()).hexdigest()
            assert report["sha256"][name] == written
        assert report["sha256"]["input"] == hashlib.sha256(case.path.read_bytes()).hexdigest()


def test_finished_cases_are_skipped_and_keep_their_reports(tmp_path: Path, cases: list[Case]) -> None:
    first = list(job(tmp_path).run(cases[:2]))
    again = job(tmp_path)
    outcomes = list(again.run(cases))
    assert statuses(outcomes) == ["skipped", "skipped", "done"]
    assert again.predictor.calls == [cases[2].path.name]  # type: ignore[attr-defined]
    assert [outcome.report for outcome in outcomes[:2]] == [outcome.report for outcome in first]
    assert first[0].report["volumes_ml"] == {"organ": 24.0}


def test_a_case_whose_labels_are_gone_is_predicted_again(tmp_path: Path, cases: list[Case]) -> None:
    list(job(tmp_path).run(cases))
    (tmp_path / "out" / cases[0].name / LABELS_NAME).unlink()
    assert statuses(job(tmp_path, overwrite=True).run(cases)) == ["done", "skipped", "skipped"]


def test_another_setting_is_not_mixed_into_old_results(tmp_path: Path, cases: list[Case]) -> None:
    list(job(tmp_path).run(cases))
    other = dataclasses.replace(IDENTITY, settings={"tta": True})
    before = (tmp_path / "out" / cases[0].name / REPORT_NAME).read_bytes()
    outcomes = list(job(tmp_path, identity=other).run(cases))
    assert statuses(outcomes) == ["failed"] * 3
    assert isinstance(outcomes[0].error, OutputError)
    assert "--overwrite" in str(outcomes[0].error)
    assert (tmp_path / "out" / cases[0].name / REPORT_NAME).read_bytes() == before
    assert statuses(job(tmp_path, identity=other, overwrite=True).run(cases)) == ["done"] * 3


def test_a_changed_input_is_predicted_again(tmp_path: Path, cases: list[Case]) -> None:
    list(job(tmp_path).run(cases))
    replace_scan(cases[1], 3.0)
    assert statuses(job(tmp_path, overwrite=True).run(cases)) == ["skipped", "done", "skipped"]
    assert read_volume(tmp_path / "out" / cases[1].name / LABELS_NAME).array.all()


@pytest.mark.parametrize(("value", "error"), [(-1.0, IntensityError), (200.0, ZeroDivisionError)])
def test_a_bad_case_does_not_stop_the_others(
    tmp_path: Path, cases: list[Case], value: float, error: type[Exception]
) -> None:
    replace_scan(cases[1], value)
    outcomes = list(job(tmp_path).run(cases))
    assert statuses(outcomes) == ["done", "failed", "done"]
    assert isinstance(outcomes[1].error, error)
    assert not outcomes[1].folder.exists()


def test_a_file_that_is_no_scan_is_a_failed_case(tmp_path: Path, cases: list[Case]) -> None:
    cases[0].path.write_bytes(b"text")
    outcomes = list(job(tmp_path).run(cases))
    assert statuses(outcomes) == ["failed", "done", "done"]
    assert isinstance(outcomes[0].error, DataError)


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failure_while_writing_leaves_nothing(tmp_path: Path, cases: list[Case], error: BaseException) -> None:
    def draw(folder: Path, result: SegmentationResult) -> None:
        (folder / "picture.png").write_bytes(b"half")
        raise error

    running = job(tmp_path, draw=draw).run(cases[:1])
    if isinstance(error, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            list(running)
    else:
        assert statuses(running) == ["failed"]
    assert list((tmp_path / "out").iterdir()) == []


def test_pictures_are_part_of_the_case_and_of_its_report(tmp_path: Path, cases: list[Case]) -> None:
    (outcome,) = job(tmp_path, draw=lambda folder, _: (folder / "view.png").write_bytes(b"png")).run(cases[:1])
    report = json.loads((outcome.folder / REPORT_NAME).read_text())
    assert report["sha256"]["view.png"] == hashlib.sha256(b"png").hexdigest()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"fingerprint": 3}'])
def test_a_damaged_report_counts_as_unfinished_and_is_not_overwritten_unasked(
    tmp_path: Path, cases: list[Case], content: str
) -> None:
    list(job(tmp_path).run(cases[:1]))
    (tmp_path / "out" / cases[0].name / REPORT_NAME).write_text(content)
    (outcome,) = job(tmp_path).run(cases[:1])
    assert isinstance(outcome.error, OutputError)


def test_an_output_that_cannot_be_made_is_refused_before_the_first_case(tmp_path: Path, cases: list[Case]) -> None:
    (tmp_path / "file").write_text("")
    running = job(tmp_path, output_dir=tmp_path / "file" / "out")
    with pytest.raises(OutputError, match="must be a writable folder"):
        list(running.run(cases))
    assert running.predictor.calls == []  # type: ignore[attr-defined]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path, cases: list[Case]) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="no permission"):
        list(job(tmp_path).run(cases))
