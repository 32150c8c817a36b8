"""``vol3d predict`` as a user sees it, on sound input."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from vol3d.inference.case_folder import working_in
from vol3d.report import segmentation_job

NAME = "hippocampus_mr_segmentation"
FILES = {"labels.nii.gz", "report.json", "overlay.png"}
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = np.linalg.qr(np.array([[0.9, 0.2, 0.3], [-0.1, 0.8, 0.5], [-0.3, -0.4, 0.8]]))[0] * [0.8, 1.1, 1.6]
OBLIQUE[:3, 3] = [-31.0, 12.5, 7.0]


def names(folder):
    return {path.name for path in folder.iterdir()}


def read_report(folder):
    return json.loads((folder / "report.json").read_text())


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def assert_on_the_grid_of(labels, scan):
    """Both as SimpleITK images."""
    assert labels.GetSize() == scan.GetSize()
    for get in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(labels, get)() == pytest.approx(getattr(scan, get)(), abs=1e-4)


@pytest.mark.parametrize(
    ("shape", "affine"),
    [
        pytest.param((9, 10, 8), np.eye(4), id="RAS"),
        pytest.param((20, 9, 8), np.diag([-1.0, 1.0, -2.0, 1.0]), id="LAI"),
        pytest.param((9, 10, 8), np.diag([-1.0, -1.0, -1.5, 1.0]), id="LPI"),
        pytest.param((9, 18, 8), OBLIQUE, id="oblique"),
        pytest.param((9, 10, 1), np.diag([1.0, 1.0, 5.0, 1.0]), id="one slice"),
    ],
)
def test_label_map_lies_on_the_grid_of_a_nifti(run, write_scan, tmp_path, shape, affine):
    scan = write_scan(voxels=shape, affine=affine)
    finished = run("predict", NAME, scan, "-o", tmp_path / "out")
    assert (finished.code, finished.err) == (0, "")
    path = tmp_path / "out" / "scan" / "labels.nii.gz"
    labels, source = nib.load(path), nib.load(scan)
    assert labels.shape == shape
    assert labels.affine == pytest.approx(source.affine, abs=1e-5)
    assert nib.aff2axcodes(labels.affine) == nib.aff2axcodes(source.affine)
    assert_on_the_grid_of(sitk.ReadImage(path), sitk.ReadImage(scan))
    assert set(np.unique(labels.dataobj)) <= {0, 1, 2}


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nii"])
def test_label_map_lies_on_the_grid_of_other_formats(run, tmp_path, suffix):
    image = sitk.GetImageFromArray(np.random.default_rng(0).normal(size=(8, 10, 9)).astype(np.float32))
    image.SetSpacing((0.9, 1.1, 1.5))
    image.SetOrigin((-7.0, 5.0, 3.0))
    image.SetDirection((0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    sitk.WriteImage(image, tmp_path / f"scan{suffix}")
    assert run("predict", NAME, tmp_path / f"scan{suffix}", "-o", tmp_path / "out").code == 0
    assert_on_the_grid_of(sitk.ReadImage(tmp_path / "out" / "scan" / "labels.nii.gz"), image)


def read_with_itk(folder):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def test_label_map_lies_on_the_grid_of_a_dicom_series(run, write_series, tmp_path):
    folder = write_series("mr_series")
    finished = run("predict", NAME, folder, "-o", tmp_path / "out")
    assert (finished.code, finished.err) == (0, "")
    assert_on_the_grid_of(sitk.ReadImage(tmp_path / "out" / "mr_series" / "labels.nii.gz"), read_with_itk(folder))
    text = (tmp_path / "out" / "mr_series" / "report.json").read_text()
    assert "Doe" not in text
    assert "4711" not in text


def test_one_of_two_series_is_picked_by_its_uid(run, write_series, tmp_path):
    write_series("study", uid="1.2.826.0.1.1")
    write_series("study", uid="1.2.826.0.1.2", slices=range(5))
    finished = run("predict", NAME, tmp_path / "study", "-o", tmp_path / "out", "--series", "1.2.826.0.1.2")
    assert finished.code == 0
    assert nib.load(tmp_path / "out" / "study" / "labels.nii.gz").shape == (8, 9, 5)


def test_label_map_lies_on_the_grid_of_a_real_dicom_series(run, real_data, tmp_path):
    folder = tmp_path / "liver"
    folder.mkdir()
    slices = sorted(file for file in (real_data / "dicom" / "crlm_ct_1004").rglob("*") if file.is_file())
    by_position = sorted(slices, key=lambda file: float(sitk.ReadImage(file).GetOrigin()[2]))
    for file in by_position[10:14]:
        shutil.copy(file, folder)
    coarse = ("--set", "spacing_mm=[8, 8, 5]")  # the CT is only a grid here: its voxels are not this bundle's matter
    assert run("predict", NAME, folder, "-o", tmp_path / "out", *coarse).code == 0
    assert_on_the_grid_of(sitk.ReadImage(tmp_path / "out" / "liver" / "labels.nii.gz"), read_with_itk(folder))


def test_report_says_what_was_run_on_what(run, bundle, write_scan, tmp_path):
    scan = write_scan(affine=np.diag([2.0, 1.0, 0.5, 1.0]))
    run("predict", NAME, scan, "-o", tmp_path / "out", "--set", "overlap=0.25")
    folder = tmp_path / "out" / "scan"
    report = read_report(folder)
    assert names(folder) == FILES
    assert report["case"] == "scan"
    assert report["bundle"]["name"] == NAME
    assert report["bundle"]["settings"] == {"overlap": 0.25}
    assert re.fullmatch("[0-9a-f]{64}", report["bundle"]["sha256"])
    assert report["device"] in ("cpu", "cuda:0")
    assert report["seed"] == 0
    assert {"vol3d", "python", "monai", "torch"} <= set(report["versions"])
    assert set(report["seconds"]) == {"read", "preprocess", "network", "restore", "write", "draw"}
    assert report["peak_memory_bytes"]["resident"] > 1e6
    assert report["geometry"]["axis_codes"] == "RAS"
    assert report["sha256"] == {
        "input": sha256(scan),
        "labels.nii.gz": sha256(folder / "labels.nii.gz"),
        "overlay.png": sha256(folder / "overlay.png"),
    }
    counts = np.bincount(np.asarray(nib.load(folder / "labels.nii.gz").dataobj).ravel(), minlength=3)
    assert report["volumes_ml"] == pytest.approx({"anterior": counts[1] / 1000, "posterior": counts[2] / 1000})
    assert (folder / "overlay.png").read_bytes().startswith(b"\x89PNG")


def test_unchanged_case_is_skipped(run, write_scan, tmp_path):
    scan = write_scan()
    first = run("predict", NAME, scan, "-o", tmp_path / "out")
    before = (tmp_path / "out" / "scan" / "report.json").read_bytes()
    second = run("predict", NAME, scan, "-o", tmp_path / "out")
    assert second.code == 0
    assert "unchanged, skipped" in second.out
    assert second.out.split(" (")[0] == first.out.split(" in ")[0]
    assert (tmp_path / "out" / "scan" / "report.json").read_bytes() == before


def test_result_of_another_setting_input_or_bundle_is_kept_unless_told_otherwise(run, own_bundle, write_scan, tmp_path):
    scan = write_scan()
    run("predict", own_bundle, scan, "-o", tmp_path / "out")
    before = (tmp_path / "out" / "scan" / "report.json").read_bytes()

    refusals = [run("predict", own_bundle, scan, "-o", tmp_path / "out", "--set", "tta=true")]
    write_scan(affine=np.diag([1.0, 1.0, 2.0, 1.0]))
    refusals.append(run("predict", own_bundle, scan, "-o", tmp_path / "out"))
    write_scan()
    config = own_bundle / "configs" / "inference.yaml"
    config.write_text(config.read_text() + "\n")
    refusals.append(run("predict", own_bundle, scan, "-o", tmp_path / "out"))

    assert [finished.code for finished in refusals] == [2, 2, 2]
    assert all("add --overwrite" in finished.error_line for finished in refusals)
    assert (tmp_path / "out" / "scan" / "report.json").read_bytes() == before
    assert run("predict", own_bundle, scan, "-o", tmp_path / "out", "--overwrite").code == 0
    assert (tmp_path / "out" / "scan" / "report.json").read_bytes() != before


def test_changed_voxels_beside_a_header_are_another_input(run, tmp_path):
    image = sitk.GetImageFromArray(np.random.default_rng(0).normal(size=(8, 10, 9)).astype(np.float32))
    sitk.WriteImage(image, tmp_path / "scan.mhd")
    assert run("predict", NAME, tmp_path / "scan.mhd", "-o", tmp_path / "out").code == 0
    raw = tmp_path / "scan.raw"
    raw.write_bytes(raw.read_bytes()[::-1].replace(b"\xff", b"\x3f").replace(b"\x7f", b"\x3f"))
    finished = run("predict", NAME, tmp_path / "scan.mhd", "-o", tmp_path / "out")
    assert finished.code in (2, 3)
    assert "skipped" not in finished.out


def test_bad_case_is_named_with_its_reason_and_the_others_finish(run, write_scan, tmp_path):
    folder = tmp_path / "cases"
    write_scan("a.nii.gz", folder=folder)
    write_scan("c.nii.gz", folder=folder)
    (folder / "b.nii.gz").write_text("not a volume")
    finished = run("predict", NAME, folder, "-o", tmp_path / "out")
    assert finished.code == 3
    assert finished.error_line.startswith("error: b: ")
    assert finished.out.splitlines()[-2] == "2 done, 0 skipped, 1 failed"
    assert finished.out.splitlines()[-1] == finished.error_line.replace("error: ", "failed ", 1)
    assert names(tmp_path / "out") == {"a", "c"}

    (folder / "b.nii.gz").unlink()
    write_scan("b.nii.gz", folder=folder)
    assert "1 done, 2 skipped, 0 failed" in run("predict", NAME, folder, "-o", tmp_path / "out").out


def test_failure_while_writing_leaves_nothing_and_the_others_finish(run, write_scan, tmp_path, monkeypatch):
    draw, refused = segmentation_job.save_overlay, []

    def full_disk(path, *arguments, **options):
        draw(path, *arguments, **options)
        if not refused:
            refused.append(path)
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(segmentation_job, "save_overlay", full_disk)
    finished = run("predict", NAME, write_scan("a.nii.gz"), write_scan("b.nii.gz"), "-o", tmp_path / "out")
    assert finished.code == 3
    assert "error: a: OSError: [Errno 28] No space left on device" in finished.err
    assert names(tmp_path / "out") == {"b"}


def test_interruption_leaves_nothing_half_written(run, write_scan, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("vol3d.report.segmentation_job.save_overlay", interrupted)
    finished = run("predict", NAME, write_scan(), "-o", tmp_path / "out")
    assert finished.code == 130
    assert finished.err.startswith("interrupted; ")
    assert names(tmp_path / "out") == set()


def test_leftover_of_a_killed_run_is_removed(run, write_scan, tmp_path):
    leftover = tmp_path / "out" / ".vol3d-partial-x7f"
    leftover.mkdir(parents=True)
    (leftover / "labels.nii.gz").write_bytes(b"half")
    assert run("predict", NAME, write_scan(), "-o", tmp_path / "out").code == 0
    assert names(tmp_path / "out") == {"scan"}


def test_unfinished_folder_of_another_running_job_is_left_alone(run, write_scan, tmp_path):
    partial = tmp_path / "out" / ".vol3d-partial-x7f"
    (tmp_path / "out").mkdir()
    with working_in(tmp_path / "out"):
        partial.mkdir()
        assert run("predict", NAME, write_scan(), "-o", tmp_path / "out").code == 0
        assert partial.is_dir()


def test_overwrite_keeps_what_is_no_result(run, write_scan, tmp_path):
    out = tmp_path / "out"
    run("predict", NAME, write_scan(), "-o", out)
    (out / "scan" / "labels_corrected.nii.gz").write_bytes(b"hours of work")
    (out / "other").mkdir()
    (out / "other" / "original.nii.gz").write_bytes(b"a scan")
    changed = ("--set", "tta=true", "--overwrite")
    assert "labels_corrected" in run("predict", NAME, write_scan(), "-o", out, *changed).error_line
    assert "original" in run("predict", NAME, write_scan("other.nii.gz"), "-o", out, *changed).error_line
    assert names(out / "scan") == {*FILES, "labels_corrected.nii.gz"}
    assert names(out / "other") == {"original.nii.gz"}


@pytest.mark.parametrize("name", ["...nii.gz", "..nii.gz"])
def test_scan_whose_name_is_a_way_out_of_the_folder_is_refused(run, write_scan, tmp_path, name):
    scan = shutil.copy(write_scan(), tmp_path / name)
    finished = run("predict", NAME, scan, "-o", tmp_path / "out", "--overwrite")
    assert finished.code == 3
    assert "name of a folder" in finished.error_line


def test_names_that_look_like_markup_or_config_syntax_work(run, write_scan, tmp_path):
    scan = write_scan("%case [red]#7 :bell:.nii.gz")
    finished = run("predict", NAME, scan, "-o", tmp_path / "%out#1")
    assert finished.code == 0
    assert finished.out.startswith("%case [red]#7 :bell:: anterior ")
    assert names(tmp_path / "%out#1" / "%case [red]#7 :bell:") == FILES


def start(arguments, bundle, **options):
    environment = {**os.environ, "VOL3D_BUNDLES": str(bundle.parent), "OMP_NUM_THREADS": "1"}
    environment |= {"TERM": "xterm", "COLUMNS": "100"}
    command = [sys.executable, "-m", "vol3d", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, text=True, **options)


def wait_for(condition, seconds=240.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def test_real_program_prints_results_to_stdout_and_a_bar_with_eta_to_the_terminal(bundle, write_scan, tmp_path):
    folder = tmp_path / "cases"
    for number in range(3):
        write_scan(f"case_{number}.nii.gz", folder=folder)
    terminal, its_end = pty.openpty()
    arguments = ("predict", NAME, folder, "-o", tmp_path / "out")
    with start(arguments, bundle, stdout=subprocess.PIPE, stderr=its_end) as process:
        os.close(its_end)
        shown = b""
        while True:
            try:
                part = os.read(terminal, 65536)
            except OSError:  # Linux's way to say that the other end was closed
                break
            if not part:
                break
            shown += part
        out = process.stdout.read()
    os.close(terminal)
    assert process.returncode == 0
    assert [line.split(":")[0] for line in out.splitlines()] == [
        "case_0",
        "case_1",
        "case_2",
        "3 done, 0 skipped, 0 failed",
    ]
    assert "\x1b" not in out
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"case_\d ━+.* [123]/3 0:00:\d\d remaining (\d:\d\d:\d\d|-:--:--)", text)
    assert "Warning" not in text


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_stopped_run_leaves_whole_cases_and_goes_on(run, bundle, write_scan, tmp_path, stop, code):
    folder, out = tmp_path / "cases", tmp_path / "out"
    for number in range(6):
        write_scan(f"case_{number}.nii.gz", folder=folder)
    arguments = ("predict", NAME, folder, "-o", out)
    with start(arguments, bundle, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        wait_for(lambda: (out / "case_0").exists() or process.poll() is not None)
        time.sleep(0.2)
        process.send_signal(stop)
        err = process.stderr.read()
    assert process.returncode == code, err
    if stop == signal.SIGTERM:
        assert err.startswith("interrupted; ")
        assert not list(out.glob(".*"))
    whole = sorted(out.glob("case_*"))
    assert 1 <= len(whole) < 6
    assert all(names(case) == FILES for case in whole)
    resumed = run(*arguments)
    assert f"{6 - len(whole)} done, {len(whole)} skipped, 0 failed" in resumed.out
    assert names(out) == {f"case_{number}" for number in range(6)}
