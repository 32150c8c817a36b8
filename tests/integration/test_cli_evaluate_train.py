"""``vol3d evaluate`` and ``vol3d train`` as a user sees them."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

NAME = "hippocampus_mr_segmentation"
SHORT = ("--set", "max_epochs=1", "--set", "patch_size=[8, 8, 8]", "--set", "val_interval=1", "--set", "compile=false")


def test_evaluate_writes_one_row_per_case_and_class(run, dataset, tmp_path):
    finished = run("evaluate", NAME, "--data", dataset, "-o", tmp_path / "scores")
    assert (finished.code, finished.err) == (0, "")
    assert "2 cases" in finished.out
    assert f"per case: {tmp_path / 'scores' / 'scores_per_case.csv'}" in finished.out
    with (tmp_path / "scores" / "scores_per_case.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["class"]) for row in rows] == [
        (case, name) for case in ("case_2", "case_3") for name in ("anterior", "posterior")
    ]


def test_evaluate_compares_with_a_baseline(run, dataset, tmp_path):
    baseline = tmp_path / "baseline.json"
    baseline.write_text(json.dumps({f"case_{n}": {"anterior": 0.5, "posterior": 0.5} for n in (2, 3)}))
    finished = run("evaluate", NAME, "--data", dataset, "-o", tmp_path / "scores", "--baseline", baseline, "--tta")
    assert finished.code == 0
    assert "baseline" in finished.out


def test_mirror_images_are_averaged_by_the_option_and_by_the_setting_alike(run, dataset, tmp_path):
    tables = []
    for name, arguments in (("plain", ()), ("option", ("--tta",)), ("setting", ("--set", "tta=true"))):
        assert run("evaluate", NAME, "--data", dataset, "-o", tmp_path / name, *arguments).code == 0
        tables.append((tmp_path / name / "scores_per_case.csv").read_text())
    assert tables[0] != tables[1] == tables[2]


def test_scores_of_an_earlier_run_are_kept_unless_told_otherwise(run, dataset, tmp_path):
    table = tmp_path / "scores" / "scores_per_case.csv"
    table.parent.mkdir()
    table.write_text("earlier")
    arguments = ("evaluate", NAME, "--data", dataset, "-o", tmp_path / "scores")
    finished = run(*arguments)
    assert finished.code == 2
    assert "add --overwrite" in finished.error_line
    assert table.read_text() == "earlier"
    assert run(*arguments, "--overwrite").code == 0
    assert table.read_text() != "earlier"


def without_list(data):
    (data / "dataset.json").unlink()


def with_text_as_list(data):
    (data / "dataset.json").write_text("case_2")


def without_image(data):
    (data / "images" / "case_2.nii.gz").unlink()


def with_broken_image(data):
    (data / "images" / "case_2.nii.gz").write_text("not a volume")


@pytest.mark.parametrize(
    ("spoil", "code", "fragment"),
    [
        (without_list, 2, "dataset.json"),
        (with_text_as_list, 3, "dataset.json"),
        (without_image, 3, "case_2"),
        (with_broken_image, 3, "case_2"),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "train"])
def test_unsound_data_set_is_one_line(run, dataset, tmp_path, command, spoil, code, fragment):
    data = shutil.copytree(dataset, tmp_path / "data")
    spoil(data)
    short = SHORT if command == "train" else ()
    finished = run(command, NAME, "--data", data, "-o", tmp_path / "out", *short)
    assert finished.code == code
    assert fragment in finished.error_line
    assert not (tmp_path / "out" / "scores_per_case.csv").exists()
    assert not (tmp_path / "out" / "model.pt").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "fragment"),
    [
        (["--set", "nsd_tolerence_mm=2"], 2, "did you mean nsd_tolerance_mm?"),
        (["--device", "gpu"], 2, "'gpu'"),
        (["--set", "ckpt_path=/absent.pt"], 3, "/absent.pt"),
        (["--set", "network_def::channels=[4, 4]"], 3, "use the checkpoint of this network"),
        (["--baseline", "/absent.json"], 3, "absent.json"),
        (["--data", "/absent#1"], 2, "'#'"),
    ],
)
def test_wrong_option_of_evaluate_is_one_line(run, dataset, tmp_path, arguments, code, fragment):
    finished = run("evaluate", NAME, "--data", dataset, "-o", tmp_path / "out", *arguments)
    assert (finished.code, fragment in finished.error_line) == (code, True), finished.err
    assert not list((tmp_path / "out").iterdir())


def test_evaluate_without_weights_is_refused(run, own_bundle, dataset, tmp_path):
    (own_bundle / "models" / "model.pt").unlink()
    finished = run("evaluate", own_bundle, "--data", dataset, "-o", tmp_path / "out")
    assert finished.code == 3
    assert "models/model.pt" in finished.error_line


def test_trained_weights_predict_and_training_is_resumed_or_refused(run, dataset, write_scan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = run("train", NAME, "--data", dataset, "-o", "%run", *SHORT)
    assert (first.code, first.err) == (0, "")
    assert "trained 1 epochs -> %run/model.pt" in first.out
    written = {path.name for path in (tmp_path / "%run").iterdir()}
    assert written >= {"model.pt", "training_log.csv", "training_curve.png", "training_state.pt"}

    again = run("train", NAME, "--data", dataset, "-o", "%run", *SHORT)
    assert again.code == 2
    assert "resume" in again.error_line

    weights = f"ckpt_path={tmp_path / '%run' / 'model.pt'}"
    assert run("predict", NAME, write_scan(), "-o", "out", "--set", weights).code == 0


def test_training_that_is_told_to_stop_can_be_resumed(run, dataset, tmp_path):
    arguments = ("train", NAME, "--data", dataset, "-o", tmp_path / "run", *SHORT, "--set", "max_epochs=8")
    checkpoint = tmp_path / "run" / "training_state.pt"

    def stop_after_an_epoch():
        end = time.monotonic() + 120
        while not checkpoint.exists() and time.monotonic() < end:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop_after_an_epoch)
    stopper.start()
    stopped = run(*arguments)
    stopper.join()
    assert stopped.code == 4
    assert "SIGTERM" in stopped.error_line
    resumed = run(*arguments, "--resume")
    assert resumed.code == 0
    assert "trained 8 epochs" in resumed.out


def test_resume_without_a_checkpoint_is_refused(run, dataset, tmp_path):
    finished = run("train", NAME, "--data", dataset, "-o", tmp_path / "run", "--resume", *SHORT)
    assert finished.code == 2
    assert "resume must find a checkpoint" in finished.error_line


def test_real_program_prints_no_line_of_another_library(bundle, dataset, tmp_path):
    command = [sys.executable, "-m", "vol3d", "evaluate", NAME, "--data", dataset, "-o", tmp_path / "scores"]
    environment = {**os.environ, "VOL3D_BUNDLES": str(bundle.parent), "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert finished.stderr == ""
    assert finished.stdout.startswith("2 cases")
