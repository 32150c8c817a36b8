"""What a report says, and when a finished case counts as the same."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

import vol3d
from vol3d.data.volume import Volume
from vol3d.geometry import VolumeGeometry
from vol3d.inference import run_record
from vol3d.inference.predictor import SegmentationResult
from vol3d.inference.run_record import NOTICE, RunIdentity, peak_memory_bytes, run_report, software_versions

IDENTITY = RunIdentity("brain_mr_segmentation", "0.1.0", "b" * 64, "c" * 64, {"tta": True}, "cpu", 7)


def result() -> SegmentationResult:
    volume = Volume(np.zeros((2, 3, 4), np.float32), VolumeGeometry((2, 3, 4), np.diag([-1.0, 2, 3, 1])))
    return SegmentationResult(volume, np.zeros((2, 3, 4), np.uint8), {"a": 0.123456}, {"read": 0.1}, lambda: None)


def test_fingerprint_repeats() -> None:
    assert IDENTITY.fingerprint("i", None) == dataclasses.replace(IDENTITY).fingerprint("i", None)


@pytest.mark.parametrize(
    "change",
    [{"bundle_digest": "x"}, {"weights_sha256": "x"}, {"settings": {}}, {"device": "cuda:0"}],
    ids=lambda change: next(iter(change)),
)
def test_fingerprint_changes_with_all_that_decides_the_result(change: dict[str, Any]) -> None:
    assert dataclasses.replace(IDENTITY, **change).fingerprint("i", None) != IDENTITY.fingerprint("i", None)


def test_fingerprint_changes_with_the_input_the_series_and_the_software(monkeypatch: pytest.MonkeyPatch) -> None:
    first = IDENTITY.fingerprint("i", None)
    assert first not in {IDENTITY.fingerprint("j", None), IDENTITY.fingerprint("i", "1.2.3")}
    monkeypatch.setattr(run_record, "software_versions", lambda: {"torch": "9.9"})
    assert IDENTITY.fingerprint("i", None) != first


def test_the_order_of_settings_does_not_matter() -> None:
    one, two = ({"a": 1, "b": [2]}, {"b": [2], "a": 1})
    prints = {dataclasses.replace(IDENTITY, settings=settings).fingerprint("i", None) for settings in (one, two)}
    assert len(prints) == 1


def test_report_is_plain_json_with_everything_that_a_reader_needs() -> None:
    report = run_report("case_1", IDENTITY, result(), {"input": "i", "labels.nii.gz": "l"}, "f")
    assert json.loads(json.dumps(report)) == report
    assert report["notice"] == NOTICE
    assert report["bundle"]["sha256"] == "b" * 64
    assert (report["case"], report["device"], report["seed"], report["fingerprint"]) == ("case_1", "cpu", 7, "f")
    assert report["sha256"] == {"input": "i", "labels.nii.gz": "l"}
    assert (report["summary"], report["volumes_ml"]) == ("a 0.12 ml", {"a": 0.1235})
    assert report["geometry"] == result().geometry.as_dict()


def test_versions_name_vol3d_python_and_the_packages_that_compute() -> None:
    versions = software_versions()
    assert versions["vol3d"] == vol3d.__version__
    assert {"python", "torch", "monai", "nibabel", "simpleitk"} <= set(versions)


def test_peak_memory_is_in_bytes() -> None:
    # A process that has imported torch holds more than 50 MB; in the unit of the kernel it would be 1024 times less.
    assert 50e6 < peak_memory_bytes("cpu")["resident"] < 1e12
