"""Segmentation bundles on phantoms: the commands in the configs' heads, from any folder, and vol3d's own Python API."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import monai.bundle
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

import vol3d
from vol3d.bundle.config_layers import read_layers
from vol3d.bundle.workflow import open_workflow
from vol3d.data.volume_reader import read_volume

if TYPE_CHECKING:
    from vol3d.bundle.layout import BundleLayout

AVERAGE_WEIGHTS = Path(__file__).parents[2] / "scripts" / "average_weights.py"
TASK = "_segmentation"
Run = Callable[[str, Path], Any]
Header = Callable[[Path, Path, Path], str]


@pytest.mark.parametrize("job", ["inference", "evaluate", "train"])
def test_monai_finds_every_property(layout: BundleLayout, phantoms: Path, tmp_path: Path, job: str) -> None:
    workflow = open_workflow(layout, job, {"dataset_dir": str(phantoms), "output_dir": str(tmp_path)})
    workflow.initialize()
    assert workflow.check_properties() == []


def test_monai_finds_every_property_of_training_on_several_processes(
    layout: BundleLayout, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False).port
    place = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in place.items():
        monkeypatch.setenv(name, str(value))
    workflow = open_workflow(layout, "multi_gpu", {"dataset_dir": str(phantoms), "output_dir": str(tmp_path)})
    workflow.initialize()
    try:
        assert workflow.check_properties() == []
    finally:
        workflow.finalize()
    assert not torch.distributed.is_initialized()


@pytest.fixture(scope="module")
def predicted(
    copied: BundleLayout, phantoms: Path, run_command: Run, header_command: Header, tmp_path_factory: Any
) -> Path:
    """Results of the inference command, run in the bundle's folder."""
    output: Path = tmp_path_factory.mktemp("predicted")
    run_command(header_command(copied.config_paths("inference")[-1], phantoms, output), copied.root)
    return output


def test_inference_command_writes_every_case_on_its_own_grid(predicted: Path, phantoms: Path) -> None:
    scans = sorted((phantoms / "images").iterdir())
    assert sorted(path.name for path in predicted.iterdir()) == [scan.name for scan in scans]
    for scan in scans:
        assert read_volume(predicted / scan.name).geometry.is_same_grid(read_volume(scan).geometry)


def test_inference_command_runs_from_another_folder_with_the_same_labels(
    copied: BundleLayout, predicted: Path, phantoms: Path, run_command: Run, header_command: Header, tmp_path: Path
) -> None:
    scan = min((phantoms / "images").iterdir())
    command = header_command(copied.config_paths("inference")[-1], scan, tmp_path / "out")
    command = command.replace("configs/", f"{copied.root}/configs/").replace("_root .", f"_root {copied.root}")
    run_command(command, tmp_path)
    labels = read_volume(tmp_path / "out" / scan.name).array
    np.testing.assert_array_equal(labels, read_volume(predicted / scan.name).array)


def test_python_api_gives_the_labels_of_the_command_voxel_for_voxel(
    copied: BundleLayout, predicted: Path, phantoms: Path
) -> None:
    predict = vol3d.load_bundle(copied.root, device="cpu")
    for scan in sorted((phantoms / "images").iterdir()):
        result = predict(scan)
        np.testing.assert_array_equal(result.labels, read_volume(predicted / scan.name).array)
        probabilities = result.probabilities()
        np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-4)
        np.testing.assert_array_equal(probabilities.argmax(axis=0), result.labels)


def test_evaluation_command_scores_every_validation_case(
    copied: BundleLayout, phantoms: Path, run_command: Run, header_command: Header, tmp_path: Path
) -> None:
    run_command(header_command(copied.config_paths("evaluate")[-1], phantoms, tmp_path), copied.root)
    (table,) = tmp_path.glob("*.csv")
    with table.open(newline="") as file:
        cases = {row["case"] for row in csv.DictReader(file)}
    assert cases == set(json.loads((phantoms / "dataset.json").read_text())["validation"])


def test_training_command_leaves_weights_that_the_inference_config_loads(
    copied: BundleLayout, phantoms: Path, run_command: Run, header_command: Header, tmp_path: Path
) -> None:
    command = header_command(copied.config_paths("train")[-1], phantoms, tmp_path / "run")
    run_command(f"{command} --max_epochs 2 --val_interval 1 --keep_interval 1 --compile False", copied.root)
    weights = torch.load(tmp_path / "run" / "model.pt", weights_only=True)
    assert set(weights) == set(torch.load(copied.weights_path, weights_only=True))
    predict = vol3d.load_bundle(copied.root, "cpu", {"ckpt_path": str(tmp_path / "run" / "model.pt")})
    assert predict(next((phantoms / "images").iterdir())).labels.ndim == 3
    assert logged_validations(tmp_path / "run") == {"1": True, "2": True}
    run_command(
        f"{sys.executable} {AVERAGE_WEIGHTS} --out {tmp_path / 'mean.pt'} {tmp_path / 'run/kept'}/*.pt", tmp_path
    )
    kept = [torch.load(path, weights_only=True) for path in (tmp_path / "run/kept").iterdir()]
    assert len(kept) == 2
    for name, value in torch.load(tmp_path / "mean.pt", weights_only=True).items():
        torch.testing.assert_close(value, torch.stack([state[name] for state in kept]).mean(dim=0), msg=name)


def test_two_processes_train_the_same_network_and_write_it_once(
    copied: BundleLayout, phantoms: Path, run_command: Run, header_command: Header, tmp_path: Path
) -> None:
    command = header_command(copied.config_paths("multi_gpu")[-1], phantoms, tmp_path / "run")
    each_saves = "$torch.save(@network_def.state_dict(), @output_dir + '/rank' + str(@rank) + '.pt')"
    finalize = json.dumps([each_saves, "$@process_group.close(@train_network)"]).replace("$", "\\$").replace('"', '\\"')
    small = "--compile False --max_epochs 2 --val_interval 1 --batch_size 1 --patch_size [16,16,16]"
    small += " --network_def::channels [4,8]"
    run_command(f'{command} {small} --finalize "{finalize}"', copied.root)
    ranks = [torch.load(tmp_path / "run" / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name, value in ranks[0].items():
        assert value.equal(ranks[1][name]), name
    state = torch.load(tmp_path / "run" / "training_state.pt", weights_only=True)
    assert state["sampler"]["world_size"] == len(state["random"]) == 2
    assert not state["random"][0]["torch"].equal(state["random"][1]["torch"])
    assert logged_validations(tmp_path / "run") == {"1": True, "2": True}
    with (tmp_path / "run" / "training_log.csv").open(newline="") as file:
        logged = float(list(csv.DictReader(file))[-1]["val_mean_dice"])
    assert logged == pytest.approx(mean_dice_in_one_process(copied, phantoms, tmp_path), abs=1e-4)


def test_monai_load_fills_a_network_with_the_weights(copied: BundleLayout) -> None:
    config = {**read_layers(copied.config_paths("inference")), "bundle_root": str(copied.root)}
    network = ConfigParser(config=config).get_parsed_content("network_def")
    loaded = monai.bundle.load(copied.name, bundle_dir=copied.root.parent, model=network, device="cpu")
    for name, value in torch.load(copied.weights_path, weights_only=True).items():
        assert loaded.state_dict()[name].equal(value), name


@pytest.mark.filterwarnings("ignore:parsing config_file")  # MONAI warns that configs are code
def test_monai_load_builds_the_network_from_a_json_twin_of_the_config(copied: BundleLayout, tmp_path: Path) -> None:
    twin = tmp_path / copied.name
    shutil.copytree(copied.root, twin)
    config = ConfigParser.load_config_files([str(path) for path in copied.config_paths("inference")])
    ConfigParser.export_config_file(config, twin / "configs" / "inference.json")
    loaded = monai.bundle.load(copied.name, bundle_dir=tmp_path, workflow_type="inference", device="cpu")
    for name, value in torch.load(copied.weights_path, weights_only=True).items():
        assert loaded.state_dict()[name].equal(value), name


def mean_dice_in_one_process(layout: BundleLayout, phantoms: Path, folder: Path) -> float:
    """Validation score of the weights in ``folder/run/model.pt``."""
    settings = {"dataset_dir": str(phantoms), "output_dir": str(folder / "alone"), "compile": False}
    settings["network_def::channels"] = [4, 8]
    workflow = open_workflow(layout, "train", {**settings, "device": "$torch.device('cpu')"})
    workflow.initialize()
    evaluator = workflow.evaluator
    evaluator.network.load_state_dict(torch.load(folder / "run" / "model.pt", weights_only=True))
    evaluator.run()
    return float(evaluator.state.metrics["mean_dice"])


def logged_validations(folder: Path) -> dict[str, bool]:
    """Whether each logged epoch has a validation score."""
    with (folder / "training_log.csv").open(newline="") as file:
        return {row["epoch"]: bool(row["val_mean_dice"]) for row in csv.DictReader(file)}
