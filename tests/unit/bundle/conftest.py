"""A tiny bundle, whole and correct, that a test may then break."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from torch import nn

from vol3d.bundle.layout import BundleLayout

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE = [4, 6, 4]


def port(name: str, channels: list[str]) -> dict[str, Any]:
    return {
        name: {
            "type": "image",
            "format": "magnitude",
            "num_channels": len(channels),
            "spatial_shape": list(SIZE),
            "dtype": "float32",
            "value_range": [],
            "channel_def": {str(index): channel for index, channel in enumerate(channels)},
        }
    }


def metadata() -> dict[str, Any]:
    text = dict.fromkeys(
        ("name", "task", "description", "authors", "copyright", "data_source", "data_type", "intended_use"), "a text"
    )
    return {
        **text,
        "schema": "https://project-monai.github.io/schema/meta_schema_20240725.json",
        "version": "0.1.0",
        "changelog": {"0.1.0": "first"},
        "monai_version": "1.6.1",
        "pytorch_version": "2.13.0",
        "numpy_version": "1.26.0",
        "required_packages_version": {"vol3d": "0.1.0"},
        "task_type": "segmentation",
        "modality": "MR",
        "eval_metrics": {},
        "references": [],
        "network_data_format": {
            "inputs": port("image", ["image"]),
            "outputs": port("pred", ["background", "front", "back"]),
        },
    }


INFERENCE: dict[str, Any] = {
    "bundle_root": ".",
    "dataset_dir": "data",
    "ckpt_path": "$@bundle_root + '/models/model.pt'",
    "device": "cpu",
    "seed": 0,
    "class_names": {1: "front", 2: "back"},
    "roi_size": list(SIZE),
    "network_def": {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 3, "kernel_size": 1},
    "load_transforms": [{"_target_": "LoadImaged", "keys": "image"}],
    "preprocessing": {
        "_target_": "Compose",
        "transforms": "$@load_transforms + [monai.transforms.ScaleIntensityd('image')]",
    },
    "dataset": {"_target_": "Dataset", "data": [], "transform": "@preprocessing"},
    "inferer": {"_target_": "SimpleInferer"},
    "restore_transforms": [{"_target_": "Activationsd", "keys": "pred", "softmax": True}],
    "decide_transforms": [{"_target_": "AsDiscreted", "keys": "pred", "argmax": True}],
    "evaluator": {"_target_": "SupervisedEvaluator"},
    "run": ["$None"],
}
TRAIN: dict[str, Any] = {
    "train": {
        "dataset": {"_target_": "Dataset", "data": []},
        "inferer": "@inferer",
        "trainer": {"_target_": "SupervisedTrainer", "max_epochs": 1},
    }
}


class BundleMaker:
    """Writes the parts of the bundle; every method replaces what was there."""

    def __init__(self, root: Path) -> None:
        self.layout = BundleLayout(root)
        (root / "configs").mkdir(parents=True)
        self.metadata()
        self.config("inference", INFERENCE)
        self.config("evaluate", {"dataset_dir": "labeled"})
        self.config("train", TRAIN)

    def metadata(self, change: Callable[[dict[str, Any]], Any] = lambda _: None) -> BundleLayout:
        content = metadata()
        change(content)
        self.layout.metadata_path.write_text(json.dumps(content))
        return self.layout

    def config(self, layer: str, content: dict[str, Any]) -> BundleLayout:
        (self.layout.root / "configs" / f"{layer}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return self.layout

    def inference(self, **changes: Any) -> BundleLayout:
        return self.config("inference", {**INFERENCE, **changes})

    def weights(self, weights: Any = None) -> BundleLayout:
        torch.manual_seed(0)
        self.layout.weights_path.parent.mkdir(exist_ok=True)
        torch.save(nn.Conv3d(1, 3, 1).state_dict() if weights is None else weights, self.layout.weights_path)
        return self.layout


@pytest.fixture
def maker(tmp_path: Path) -> BundleMaker:
    return BundleMaker(tmp_path / "bundles" / "brain_mr_segmentation")
