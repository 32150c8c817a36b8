import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from monai.transforms import Compose, LoadImaged, ScaleIntensityd
from typer.testing import CliRunner

from vol3d.cli.cache import app
from vol3d.data.cache_entries import list_entries
from vol3d.data.volume_cache import VolumeCache

TRAIN = """
dataset_dir: .
bundle_root: .
train:
  dataset:
    _target_: vol3d.data.volume_cache_dataset.VolumeCacheDataset
    data: "$[{'image': @dataset_dir + '/scan.npy', 'case': 'one'}]"
    transform:
      _target_: Compose
      transforms:
        - {_target_: LoadImaged, keys: image}
        - {_target_: ScaleIntensityd, keys: image, maxv: 5.0}
"""


@pytest.fixture
def item(tmp_path):
    np.save(tmp_path / "scan.npy", np.random.default_rng(0).normal(size=(5, 6, 7)))
    return {"image": str(tmp_path / "scan.npy"), "case": "one"}


@pytest.fixture
def run(tmp_path):
    def invoke(*arguments, **options):
        return CliRunner().invoke(app, [*arguments, "--cache-dir", str(tmp_path / "cache")], **options)

    return invoke


def fill(tmp_path, item, maxv=1.0):
    transforms = Compose([LoadImaged("image"), ScaleIntensityd("image", maxv=maxv)])
    VolumeCache(transforms, {"cache_dir": tmp_path / "cache"}).get(item)


def test_info_counts_cases_and_bytes(tmp_path, item, run):
    assert "0 cases" in run("info").output
    fill(tmp_path, item)
    assert "1 cases" in run("info").output
    ((_, stat),) = list_entries(tmp_path / "cache")
    summary = json.loads(run("info", "--json").output)
    assert (summary["num_cases"], summary["bytes"]) == (1, stat.st_size)


def test_why_tells_which_parameter_made_the_new_entry(tmp_path, item, run):
    fill(tmp_path, item, maxv=1.0)
    fill(tmp_path, item, maxv=2.0)
    output = run("why", item["image"]).output
    assert output.count("from the content that it has now") == 2
    assert "transform 1 ScaleIntensityd: scaler.maxv 1.0 -> 2.0" in output


def test_why_tells_that_the_file_changed(tmp_path, item, run):
    fill(tmp_path, item)
    np.save(item["image"], np.ones((5, 6, 7)))
    assert "from another content at this path" in run("why", item["image"]).output


def test_why_of_an_unknown_scan_is_a_miss(tmp_path, run):
    assert run("why", str(tmp_path / "other.npy")).output.startswith("miss: no entry was made from this path")


def bundle(tmp_path, dataset=TRAIN):
    folder = tmp_path / "scan_mr_task"
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "inference.yaml").write_text("workflow_type: train\n")
    (folder / "configs" / "train.yaml").write_text(dataset)
    (folder / "configs" / "metadata.json").write_text("{}")
    return folder


def test_why_with_a_bundle_judges_what_training_would_ask_for(tmp_path, item, run):
    options = ("--bundle", str(bundle(tmp_path)), "--data", str(tmp_path))
    fill(tmp_path, item, maxv=1.0)
    for case in ("one", item["image"]):
        result = run("why", case, *options)
        assert result.output.startswith("miss: "), result.exception
        assert "transform 1 ScaleIntensityd: scaler.maxv 1.0 -> 5.0" in result.output
    fill(tmp_path, item, maxv=5.0)
    assert run("why", "one", *options).output.startswith("hit: ")


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [
        ("two", {}, "CASE must be in the data set, got two"),
        ("one", {"VolumeCacheDataset": "Other"}, "must use VolumeCacheDataset, got none"),
    ],
)
def test_why_with_a_bundle_that_does_not_know_the_case_is_an_error(tmp_path, item, run, case, changes, message):
    text = TRAIN
    for old, new in changes.items():
        text = text.replace(old, new)
    result = run("why", case, "--bundle", str(bundle(tmp_path, text)), "--data", str(tmp_path))
    assert message in str(result.exception)


def test_why_with_a_bundle_needs_the_data_set(tmp_path, run):
    assert "--data must be given with --bundle" in str(run("why", "one", "--bundle", "x").exception)


def test_clear_asks_and_deletes(tmp_path, item, run):
    fill(tmp_path, item)
    assert run("clear", input="n\n").exit_code == 1
    assert len(list_entries(tmp_path / "cache")) == 1
    assert "deleted 1 cases" in run("clear", "--yes").output
    assert list_entries(tmp_path / "cache") == []
    assert "nothing to delete" in run("clear").output


def test_clear_keeps_what_was_used_lately(tmp_path, item, run):
    fill(tmp_path, item, maxv=1.0)
    fill(tmp_path, item, maxv=2.0)
    old = list_entries(tmp_path / "cache")[0][0]
    os.utime(old, (time.time() - 5 * 86400,) * 2)
    assert "deleted 1 cases" in run("clear", "--older-than-days", "2", "--yes").output
    assert not old.exists()


def test_info_imports_neither_torch_nor_monai(tmp_path):
    program = (
        "import sys\nfrom typer.testing import CliRunner\nfrom vol3d.cli.cache import app\n"
        f"assert CliRunner().invoke(app, ['info', '--cache-dir', {str(tmp_path)!r}]).exit_code == 0\n"
        "assert not {'torch', 'monai'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
