"""Whatever is wrong with a call or a file: one clear line, exit code 2 or 3, and nothing half-written."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import weakref

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from vol3d.report import segmentation_job

NAME = "hippocampus_mr_segmentation"
MAX_CHARACTERS = 300


def check_refused(finished, code, *fragments, tmp_path):
    line = finished.error_line.replace(str(tmp_path), "")
    assert finished.code == code, line
    assert len(line) <= MAX_CHARACTERS
    assert "Traceback" not in finished.out + finished.err
    for fragment in fragments:
        assert fragment in line
    assert not list((tmp_path / "out").rglob("*"))


def missing(folder):
    return folder / "absent.nii.gz"


def empty_folder(folder):
    (folder / "empty").mkdir()
    return folder / "empty"


def wrong_suffix(folder):
    (folder / "scan.png").write_bytes(b"\x89PNG")
    return folder / "scan.png"


def text_named_nifti(folder):
    (folder / "scan.nii.gz").write_text("Dear colleague, attached please find the scan.")
    return folder / "scan.nii.gz"


def gzipped_text(folder):
    (folder / "scan.nii.gz").write_bytes(gzip.compress(b"not a header" * 100))
    return folder / "scan.nii.gz"


def empty_file(folder):
    (folder / "scan.nii.gz").touch()
    return folder / "scan.nii.gz"


def nifti(shape=(9, 10, 8), affine=None, edit_header=None, edit_voxels=None):
    def write(folder):
        voxels = np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)
        if edit_voxels is not None:
            edit_voxels(voxels)
        image = nib.Nifti1Image(voxels, np.eye(4))
        image.header["vox_offset"], image.header["magic"] = 352, b"n+1"
        if edit_header is not None:
            edit_header(image.header)
        if affine is not None:
            image.header["srow_x"], image.header["srow_y"], image.header["srow_z"] = affine[:3]
            image.header["sform_code"], image.header["qform_code"] = 1, 0
        # As bytes: nibabel would repair the header of an image with a new affine.
        path = folder / "scan.nii"
        path.write_bytes(image.header.binaryblock + b"\0" * 4 + voxels.tobytes(order="F"))
        return path

    return write


def zero_spacing(header):
    header["pixdim"][1:4] = (1, 0, 1)


def put(value):
    def edit(voxels):
        voxels[1, 2, 3] = value

    return edit


def truncated_gz(folder):
    nib.save(nib.Nifti1Image(np.random.default_rng(0).normal(size=(20, 20, 20)), np.eye(4)), folder / "scan.nii.gz")
    whole = (folder / "scan.nii.gz").read_bytes()
    (folder / "scan.nii.gz").write_bytes(whole[: len(whole) // 2])
    return folder / "scan.nii.gz"


def flat_nrrd(folder):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((9, 8), np.float32)), folder / "scan.nrrd")
    return folder / "scan.nrrd"


@pytest.mark.parametrize(
    ("make", "code", "fragments"),
    [
        pytest.param(missing, 2, ["absent.nii.gz"], id="missing file"),
        pytest.param(empty_folder, 3, ["empty", "got none"], id="empty folder"),
        pytest.param(wrong_suffix, 3, ["suffix must be one of", ".png"], id="wrong suffix"),
        pytest.param(text_named_nifti, 3, ["scan.nii.gz"], id="text named nii.gz"),
        pytest.param(gzipped_text, 3, ["scan.nii.gz"], id="gzipped text"),
        pytest.param(empty_file, 3, ["scan.nii.gz"], id="empty file"),
        pytest.param(truncated_gz, 3, ["scan.nii.gz"], id="truncated gz"),
        pytest.param(nifti(shape=(9, 10)), 3, ["scan.nii", "3"], id="2D"),
        pytest.param(nifti(shape=(9, 10, 8, 2)), 3, ["scan.nii", "3"], id="4D"),
        pytest.param(flat_nrrd, 3, ["scan.nrrd", "3"], id="2D NRRD"),
        pytest.param(nifti(edit_voxels=put(np.nan)), 3, ["finite", "(1, 2, 3)"], id="NaN voxel"),
        pytest.param(nifti(edit_voxels=put(np.inf)), 3, ["finite", "(1, 2, 3)"], id="Inf voxel"),
        pytest.param(nifti(affine=np.full((4, 4), np.nan)), 3, ["affine", "finite"], id="NaN affine"),
        pytest.param(nifti(affine=np.diag([1.0, 1, 0, 1])), 3, ["spacing must be positive"], id="singular affine"),
        pytest.param(
            nifti(affine=np.array([[1.0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]])), 3, ["affine"], id="collinear axes"
        ),
        pytest.param(nifti(edit_header=zero_spacing), 3, ["spacing must be positive"], id="zero spacing"),
    ],
)
def test_unsound_input_is_refused(run, tmp_path, make, code, fragments):
    finished = run("predict", NAME, make(tmp_path), "-o", tmp_path / "out")
    check_refused(finished, code, *fragments, tmp_path=tmp_path)


def test_two_series_are_listed(run, write_series, tmp_path):
    write_series("study", uid="1.2.826.0.1.1")
    write_series("study", uid="1.2.826.0.1.2")
    finished = run("predict", NAME, tmp_path / "study", "-o", tmp_path / "out")
    check_refused(finished, 3, "1.2.826.0.1.1", "1.2.826.0.1.2", "--series", tmp_path=tmp_path)


def test_unknown_series_is_refused(run, write_series, tmp_path):
    finished = run("predict", NAME, write_series(), "-o", tmp_path / "out", "--series", "1.2.3")
    check_refused(finished, 2, "1.2.3", "1.2.826.0.1.1", tmp_path=tmp_path)


def test_position_of_a_missing_slice_is_named(run, write_series, tmp_path):
    folder = write_series(slices=[0, 1, 2, 4, 5])
    finished = run("predict", NAME, folder, "-o", tmp_path / "out")
    check_refused(finished, 3, "36", tmp_path=tmp_path)  # 30 mm + 3 steps of 2 mm


@pytest.mark.parametrize(
    ("arguments", "code", "fragments"),
    [
        pytest.param(["--set", "roi_sise=[8, 8, 8]"], 2, ["roi_sise", "did you mean roi_size?"], id="unknown key"),
        pytest.param(["--set", "device=cpu"], 2, ["device", "use --device"], id="key of an option"),
        pytest.param(["--set", "overlap"], 2, ["key=value", "overlap"], id="no value"),
        pytest.param(["--set", "roi_size=[8, 8"], 2, ["roi_size", "YAML"], id="no YAML"),
        pytest.param(["--set", "ckpt_path=/data/a#1.pt"], 2, ["#"], id="hash in a setting"),
        pytest.param(["--set", "ckpt_path=%a.pt"], 2, ["%"], id="percent in a setting"),
        pytest.param(
            ["--set", "network_def::channels=many"], 3, [NAME, "must build its objects"], id="value of a wrong type"
        ),
        pytest.param(["--set", "ckpt_path=/absent.pt"], 3, ["/absent.pt"], id="absent weights"),
        pytest.param(["--device", "gpu"], 2, ["device", "'gpu'"], id="no device name"),
        pytest.param(["--device", "meta"], 2, ["device", "'meta'"], id="device without data"),
        pytest.param(["--devise", "cpu"], 2, ["--devise", "--device"], id="unknown option"),
    ],
)
def test_wrong_option_is_refused(run, write_scan, tmp_path, arguments, code, fragments):
    finished = run("predict", NAME, write_scan(), "-o", tmp_path / "out", *arguments)
    check_refused(finished, code, *fragments, tmp_path=tmp_path)


@pytest.mark.skipif(torch.cuda.device_count() > 7, reason="this machine has a device cuda:7")
def test_device_that_is_not_here_is_refused(run, write_scan, tmp_path):
    finished = run("predict", NAME, write_scan(), "-o", tmp_path / "out", "--device", "cuda:7")
    check_refused(finished, 5, "cuda:7", "vol3d doctor", tmp_path=tmp_path)


def test_missing_argument_is_one_line(run, tmp_path):
    check_refused(run("predict", NAME), 2, "INPUT", tmp_path=tmp_path)
    check_refused(run("predikt"), 2, "predikt", tmp_path=tmp_path)


@pytest.mark.parametrize("name", ["hippocampus_segmentation", "hippocampus_mr_segmentatoin"])
def test_unknown_bundle_is_refused_with_the_nearest_name(run, write_scan, tmp_path, name):
    finished = run("predict", name, write_scan(), "-o", tmp_path / "out")
    check_refused(finished, 2, repr(name), f"did you mean {NAME}?", tmp_path=tmp_path)


def test_folder_that_is_no_bundle_is_refused(run, write_scan, tmp_path):
    finished = run("predict", tmp_path, write_scan(), "-o", tmp_path / "out")
    check_refused(finished, 2, "configs/metadata.json", tmp_path=tmp_path)


def test_bundle_without_weights_is_refused(run, own_bundle, write_scan, tmp_path):
    (own_bundle / "models" / "model.pt").unlink()
    finished = run("predict", own_bundle, write_scan(), "-o", tmp_path / "out")
    check_refused(finished, 3, "models/model.pt", "vol3d train", tmp_path=tmp_path)


@pytest.mark.parametrize(
    ("spoil", "fragment"),
    [
        pytest.param(lambda path: path.write_text("weights"), "weights_only", id="text"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:999]), "weights_only", id="truncated"),
        pytest.param(lambda path: torch.save({"epoch": 3, 7: 1}, path), "first that differs", id="other keys"),
        pytest.param(lambda path: torch.save([1.0], path), "first that differs: list", id="no dictionary"),
        pytest.param(
            lambda path: torch.save({k: torch.zeros(1) for k in torch.load(path)}, path), "must have shape", id="shapes"
        ),
        pytest.param(
            lambda path: torch.save(dict.fromkeys(torch.load(path), "text"), path), "got str", id="no tensors"
        ),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), "state dict", id="folder"),
    ],
)
def test_checkpoint_that_does_not_fit_is_refused(run, bundle, write_scan, tmp_path, spoil, fragment):
    weights = tmp_path / "other.pt"
    shutil.copy(bundle / "models" / "model.pt", weights)
    spoil(weights)
    finished = run("predict", NAME, write_scan(), "-o", tmp_path / "out", "--set", f"ckpt_path={weights}")
    check_refused(finished, 3, NAME, fragment, tmp_path=tmp_path)


@pytest.mark.parametrize("text", ["a: [", "- a", "a: 1\na: 2", "seed: 0"])
def test_damaged_config_is_refused(run, own_bundle, write_scan, tmp_path, text):
    (own_bundle / "configs" / "inference.yaml").write_text(text)
    finished = run("predict", own_bundle, write_scan(), "-o", tmp_path / "out")
    check_refused(finished, 3, "inference.yaml", tmp_path=tmp_path)


def test_bundle_in_a_folder_with_a_hash_is_refused(run, bundle, write_scan, tmp_path):
    shutil.copytree(bundle, tmp_path / "a#1" / NAME)
    finished = run("predict", tmp_path / "a#1" / NAME, write_scan(), "-o", tmp_path / "out")
    check_refused(finished, 2, "'#'", tmp_path=tmp_path)


def test_bundle_in_a_folder_with_a_leading_percent_works(run, bundle, write_scan, tmp_path, monkeypatch):
    shutil.copytree(bundle, tmp_path / "%bundles" / NAME)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOL3D_BUNDLES", "%bundles")
    assert run("predict", NAME, write_scan(), "-o", "%out").code == 0
    assert run("predict", f"%bundles/{NAME}", "scan.nii.gz", "-o", "%out").code == 0


def test_file_in_place_of_the_output_folder_is_refused_and_kept(run, write_scan, tmp_path):
    (tmp_path / "notes").write_text("keep")
    for output in ("notes", "notes/deeper"):
        finished = run("predict", NAME, write_scan(), "-o", tmp_path / output)
        check_refused(finished, 2, "writable folder", output, tmp_path=tmp_path)
    assert (tmp_path / "notes").read_text() == "keep"


def test_output_among_the_input_is_refused(run, write_scan, write_series, tmp_path):
    scan = write_scan(folder=tmp_path / "cases")
    series = write_series()
    for source, output in ((scan.parent, scan.parent), (series, series / "results")):
        finished = run("predict", NAME, source, "-o", output)
        check_refused(finished, 2, "output", tmp_path=tmp_path)
        assert not (series / "results").exists()


def test_debug_at_the_end_of_the_line_shows_the_traceback_too(run, tmp_path):
    finished = run("predict", NAME, tmp_path / "absent.nii", "-o", tmp_path / "out", "--debug")
    assert finished.code == 2
    assert "Traceback (most recent call last)" in finished.err
    assert finished.err.splitlines()[-1].startswith("error: ")


def test_error_that_is_not_deliberate_is_called_a_defect(run, tmp_path, monkeypatch):
    def broken(_):
        raise KeyError("several\nlines")

    monkeypatch.setattr("vol3d.data.cases.find_cases", broken)
    finished = run("predict", NAME, tmp_path, "-o", tmp_path / "out")
    assert finished.code == 1
    assert finished.err.splitlines()[0] == r"error: KeyError: 'several\nlines'"
    assert "--debug" in finished.err.splitlines()[1]


def test_debug_shows_the_traceback_of_a_failed_case(run, tmp_path):
    finished = run("predict", NAME, text_named_nifti(tmp_path), "-o", tmp_path / "out", "--debug")
    assert finished.code == 3
    assert "Traceback (most recent call last)" in finished.err


def test_array_that_single_precision_cannot_hold_is_refused(run, write_scan, tmp_path):
    scan = write_scan(voxels=np.full((9, 10, 8), 1e300))
    finished = run("predict", NAME, scan, "-o", tmp_path / "out")
    check_refused(finished, 3, "finite", tmp_path=tmp_path)


def test_interrupt_that_python_forgets_stops_before_the_next_case(run, write_scan, tmp_path, monkeypatch):
    draw = segmentation_job.save_overlay

    class Thing:
        pass

    def draw_and_be_stopped(*arguments, **options):
        draw(*arguments, **options)
        thing = Thing()
        watch = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        del thing
        assert watch() is None

    monkeypatch.setattr(segmentation_job, "save_overlay", draw_and_be_stopped)
    finished = run("predict", NAME, write_scan("a.nii.gz"), write_scan("b.nii.gz"), "-o", tmp_path / "out")
    assert finished.code == 130
    assert finished.err.startswith("interrupted; ")
    assert len(finished.err.splitlines()) == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]
